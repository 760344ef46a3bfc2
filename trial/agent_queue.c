/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes to the agent: a bounded queue of frames, and the few frames that
 * both halves of the client send. See agent_handle.h for the contract.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "trial/agent_handle.h"

#define CREDIT_PORTION (PROTO_WINDOW / 4u) /* credit is returned in these */
#define CREDIT_FRAME (PROTO_HEADER_SIZE + 8u)

/* ---- bytes -------------------------------------------------------------- */

size_t agent_out_queued(const struct agent_client *c)
{
    return c->out_used - c->out_head;
}

int agent_out_reserve(struct agent_client *c, size_t size,
                      struct proto_writer *ret_writer)
{
    size_t need = agent_out_queued(c) + size;
    uint8_t *grown;

    if (need > AGENT_OUT_MAX)
        return -EAGAIN;
    if (c->out_size - c->out_used < size && c->out_head > 0) {
        memmove(c->out, c->out + c->out_head, agent_out_queued(c));
        c->out_used -= c->out_head;
        c->out_head = 0;
    }
    if (c->out_size - c->out_used < size) {
        /* Doubling, so that a queue growing by frames is copied seldom. */
        size_t bigger = 2 * c->out_size > need ? 2 * c->out_size : need;

        grown = realloc(c->out, bigger);
        if (!grown)
            return -ENOMEM;
        c->out = grown;
        c->out_size = bigger;
    }
    proto_writer_init(ret_writer, c->out + c->out_used,
                      c->out_size - c->out_used);
    return 0;
}

void agent_out_commit(struct agent_client *c, const struct proto_writer *writer)
{
    c->out_used += writer->used;
}

/* Empty: a queue that a large request blew up is given back. */
static void out_reset(struct agent_client *c)
{
    c->out_head = 0;
    c->out_used = 0;
    if (c->out_size > AGENT_OUT_SOFT) {
        free(c->out);
        c->out = NULL;
        c->out_size = 0;
    }
}

int agent_out_send(struct agent_client *c)
{
    while (agent_out_queued(c) > 0) {
        ssize_t n = send(c->fd, c->out + c->out_head, agent_out_queued(c),
                         MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0)
            return errno == EPIPE ? -ECONNRESET : -errno;
        c->out_head += (size_t)n;
    }
    out_reset(c);
    return 0;
}

/* ---- handles ------------------------------------------------------------ */

struct agent_handle *agent_handle_find(struct agent_client *c, uint32_t id)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        if (c->handles[i].kind != AGENT_FREE && c->handles[i].id == id)
            return &c->handles[i];
    }
    return NULL;
}

size_t agent_handle_room(const struct agent_client *c,
                         const struct agent_handle *h)
{
    size_t queued = agent_out_queued(c);
    size_t room;

    if (c->error || !h->feeds || h->closed || h->cancelled ||
        queued + PROTO_FRAME_MAX > AGENT_OUT_SOFT)
        return 0;
    room = AGENT_OUT_SOFT - queued - PROTO_FRAME_MAX;
    return room < h->credit ? room : h->credit;
}

size_t agent_handle_feed(struct agent_client *c, struct agent_handle *h,
                         const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    size_t room = agent_handle_room(c, h);
    size_t taken = 0;

    if (len > room)
        h->starved = true;
    else
        room = len;
    while (taken < room) {
        size_t part = room - taken;
        struct proto_writer w;

        if (part > PROTO_DATA_MAX)
            part = PROTO_DATA_MAX;
        if (agent_out_reserve(c, PROTO_HEADER_SIZE + 4 + part, &w)) {
            h->starved = true;
            break;
        }
        proto_put_data(&w, h->id,
                       h->kind == AGENT_EXEC ? PROTO_STDIN : PROTO_FILE,
                       p + taken, part);
        agent_out_commit(c, &w);
        taken += part;
    }
    h->credit -= (uint32_t)taken;
    h->sent += taken;
    return taken;
}

int agent_handle_close(struct agent_client *c, struct agent_handle *h)
{
    struct proto_writer w;
    int ret;

    if (!h->feeds || h->closed)
        return 0;
    ret = agent_out_reserve(c, PROTO_HEADER_SIZE + 4, &w);
    if (ret)
        return ret;
    proto_put_u32(&w, PROTO_EOF, h->id,
                  h->kind == AGENT_EXEC ? PROTO_STDIN : PROTO_FILE);
    agent_out_commit(c, &w);
    h->closed = true;
    return 0;
}

int agent_handle_cancel(struct agent_client *c, struct agent_handle *h)
{
    struct proto_writer w;
    int ret;

    if (h->cancelled)
        return 0;
    ret = agent_out_reserve(c, PROTO_HEADER_SIZE, &w);
    if (ret)
        return ret;
    proto_put_empty(&w, PROTO_CANCEL, h->id);
    agent_out_commit(c, &w);
    h->cancelled = true;
    return 0;
}

void agent_inflow_credit(struct agent_client *c, const struct agent_handle *h,
                         struct agent_inflow *flow, uint32_t stream)
{
    struct proto_writer w;

    if (flow->owed == 0 || (flow->owed < CREDIT_PORTION && flow->pending > 0))
        return;
    /* A guest that does not read gets none until it does. */
    if (agent_out_queued(c) > AGENT_OUT_SOFT ||
        agent_out_reserve(c, CREDIT_FRAME, &w))
        return;
    proto_put_credit(&w, h->id, stream, flow->owed);
    agent_out_commit(c, &w);
    flow->allowed += flow->owed;
    flow->owed = 0;
}
