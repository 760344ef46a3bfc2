/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to the agent: bytes in and out, and the checks that every
 * frame of the guest must pass. See agent_client.h for the contract and
 * guest/proto.h for the protocol; requests are in agent_request.c, what goes
 * out is queued by agent_queue.c.
 */
#include "trial/agent_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trial/agent_handle.h"

#define READ_MAX (1u << 20) /* bytes taken in one process */

/* ---- frames of the guest ------------------------------------------------ */

/* The one way to say what the guest did wrong. */
static int violation(struct agent_client *c, const char *what, uint32_t id)
{
    if (id)
        snprintf(c->reason, sizeof(c->reason),
                 "the guest's agent broke the protocol: %s (handle %u)", what,
                 id);
    else
        snprintf(c->reason, sizeof(c->reason),
                 "the guest's agent broke the protocol: %s", what);
    return -EPROTO;
}

static int on_hello(struct agent_client *c, const uint8_t *payload, size_t len)
{
    struct proto_hello hello;

    if (c->hello)
        return violation(c, "a second HELLO", 0);
    if (proto_get_hello(payload, len, &hello))
        return violation(c, "a malformed HELLO", 0);
    if (hello.version != PROTO_VERSION) {
        snprintf(c->reason, sizeof(c->reason),
                 "the guest's agent speaks protocol version %u, this program "
                 "version %u: build the image again",
                 hello.version, PROTO_VERSION);
        return -EPROTO;
    }
    c->hello = true;
    c->features = hello.features;
    if (c->ops.hello)
        c->ops.hello(c->arg, &hello);
    return 0;
}

static int on_output(struct agent_client *c, struct agent_handle *h,
                     uint32_t stream, const uint8_t *bytes, size_t len)
{
    struct agent_inflow *flow = &h->in[stream == PROTO_STDERR];
    uint32_t id = h->id;

    if (!h->started)
        return violation(c, "output before the start", id);
    if (len > flow->allowed)
        return violation(c, "more output than it had credit for", id);
    flow->allowed -= (uint32_t)len;
    flow->total += len;
    flow->pending += (uint32_t)len;
    if (c->ops.output)
        c->ops.output(c->arg, id, stream, bytes, len);
    else
        (void)agent_client_consumed(c, id, stream, len);
    return 0;
}

/* All of it, waiting if need be: see read_file's contract. */
static int write_local(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

static int on_file_data(struct agent_client *c, struct agent_handle *h,
                        const uint8_t *bytes, size_t len)
{
    struct agent_inflow *flow = &h->in[0];
    int ret = 0;

    if (len > flow->allowed)
        return violation(c, "more of a file than it had credit for", h->id);
    if (h->limit && len > h->limit - flow->total)
        return violation(c, "more of a file than the limit", h->id);
    flow->allowed -= (uint32_t)len;
    flow->total += len;
    flow->owed += (uint32_t)len;
    if (h->local_err == 0) {
        h->local_err = write_local(h->fd, bytes, len);
        if (h->local_err)
            ret = agent_handle_cancel(c, h);
        else if (c->ops.file_bytes)
            c->ops.file_bytes(c->arg, h->id, bytes, len);
    }
    agent_inflow_credit(c, h, flow, PROTO_FILE);
    return ret;
}

static int on_data(struct agent_client *c, struct agent_handle *h,
                   const uint8_t *payload, size_t length)
{
    const uint8_t *bytes;
    uint32_t stream;
    size_t len;

    if (proto_get_data(payload, length, &stream, &bytes, &len))
        return violation(c, "malformed DATA", h->id);
    if (h->kind == AGENT_EXEC &&
        (stream == PROTO_STDOUT || stream == PROTO_STDERR))
        return on_output(c, h, stream, bytes, len);
    if (h->kind == AGENT_READ && stream == PROTO_FILE)
        return on_file_data(c, h, bytes, len);
    return violation(c, "DATA of a stream that does not exist", h->id);
}

static int on_credit(struct agent_client *c, struct agent_handle *h,
                     const uint8_t *payload, size_t len)
{
    uint32_t expected = h->kind == AGENT_EXEC ? PROTO_STDIN : PROTO_FILE;
    uint32_t stream, bytes;

    if (proto_get_credit(payload, len, &stream, &bytes))
        return violation(c, "malformed CREDIT", h->id);
    if (!h->feeds || stream != expected)
        return violation(c, "CREDIT of a stream that does not exist", h->id);
    if (bytes > PROTO_WINDOW - h->credit)
        return violation(c, "more CREDIT than was used", h->id);
    h->credit += bytes;
    return 0;
}

static int on_exec_failed(struct agent_client *c, struct agent_handle *h,
                          const uint8_t *payload, size_t len)
{
    struct agent_exec_failure failure = {.exit_code = -1};
    struct proto_exec_failed m;
    uint32_t id = h->id;

    if (h->started || proto_get_exec_failed(payload, len, &m))
        return violation(c, "EXEC_FAILED malformed or after the start", id);
    failure.reason = m.reason;
    failure.err = (int)m.err;
    if (m.reason == PROTO_FAIL_NOT_FOUND)
        failure.exit_code = 127;
    else if (m.reason == PROTO_FAIL_NOT_EXECUTABLE)
        failure.exit_code = 126;
    h->kind = AGENT_FREE;
    if (c->ops.exec_failed)
        c->ops.exec_failed(c->arg, id, &failure);
    return 0;
}

static int on_exec_exit(struct agent_client *c, struct agent_handle *h,
                        const uint8_t *payload, size_t len)
{
    struct proto_exec_exit status;
    uint32_t id = h->id;

    if (!h->started || proto_get_exec_exit(payload, len, &status))
        return violation(c, "EXEC_EXIT malformed or before the start", id);
    /* What it claims to have sent is what came: nothing was lost between. */
    if (status.stdout_bytes != h->in[0].total ||
        status.stderr_bytes != h->in[1].total || status.stdin_bytes > h->sent)
        return violation(c, "byte counts in EXEC_EXIT that are not true", id);
    h->kind = AGENT_FREE;
    if (c->ops.exec_exit)
        c->ops.exec_exit(c->arg, id, &status);
    return 0;
}

static int on_file_done(struct agent_client *c, struct agent_handle *h,
                        const uint8_t *payload, size_t len)
{
    struct proto_file_done done;
    uint32_t id = h->id;
    int local_err = h->local_err;

    if (proto_get_file_done(payload, len, &done))
        return violation(c, "a malformed FILE_DONE", id);
    if (done.err == 0 && h->kind == AGENT_READ && done.bytes != h->in[0].total)
        return violation(c, "a file's size in FILE_DONE is not true", id);
    if (done.err == 0 && h->kind == AGENT_WRITE &&
        (!h->closed || done.bytes != h->sent))
        return violation(c, "a file is done that was not all sent", id);
    h->kind = AGENT_FREE;
    if (c->ops.file_done)
        c->ops.file_done(c->arg, id, &done, local_err);
    return 0;
}

static int on_quiesced(struct agent_client *c, const uint8_t *payload,
                       size_t len)
{
    struct proto_quiesced m;

    if (!c->quiescing || proto_get_quiesced(payload, len, &m))
        return violation(c, "QUIESCED malformed or not asked for", 0);
    c->quiescing = false;
    if (c->ops.quiesced)
        c->ops.quiesced(c->arg, &m);
    return 0;
}

static int on_restored(struct agent_client *c, const uint8_t *payload,
                       size_t len)
{
    struct proto_restored m;

    if (!c->restoring || proto_get_restored(payload, len, &m))
        return violation(c, "RESTORED malformed or not asked for", 0);
    c->restoring = false;
    if (c->ops.restored)
        c->ops.restored(c->arg, &m);
    return 0;
}

static int on_exec_frame(struct agent_client *c, struct agent_handle *h,
                         const struct proto_header *header,
                         const uint8_t *payload)
{
    if (h->kind != AGENT_EXEC)
        return violation(c, "an exec's frame for a file operation", h->id);
    switch (header->type) {
    case PROTO_EXEC_STARTED:
        if (h->started)
            return violation(c, "a second EXEC_STARTED", h->id);
        h->started = true;
        if (c->ops.exec_started)
            c->ops.exec_started(c->arg, h->id);
        return 0;
    case PROTO_EXEC_FAILED:
        return on_exec_failed(c, h, payload, header->length);
    default:
        return on_exec_exit(c, h, payload, header->length);
    }
}

static int on_frame(struct agent_client *c, const struct proto_header *header,
                    const uint8_t *payload)
{
    struct agent_handle *h;

    if (header->type == PROTO_HELLO)
        return on_hello(c, payload, header->length);
    if (!c->hello)
        return violation(c, "the first frame is not HELLO", 0);
    if (header->type == PROTO_QUIESCED)
        return on_quiesced(c, payload, header->length);
    if (header->type == PROTO_RESTORED)
        return on_restored(c, payload, header->length);
    h = agent_handle_find(c, header->id);
    if (!h)
        return violation(c, "a frame for a handle that is not live",
                         header->id);
    switch (header->type) {
    case PROTO_DATA:
        return on_data(c, h, payload, header->length);
    case PROTO_CREDIT:
        return on_credit(c, h, payload, header->length);
    case PROTO_FILE_DONE:
        if (h->kind == AGENT_EXEC)
            return violation(c, "FILE_DONE for an exec", h->id);
        return on_file_done(c, h, payload, header->length);
    default:
        return on_exec_frame(c, h, header, payload);
    }
}

/* ---- process ------------------------------------------------------------ */

static int handle_frames(struct agent_client *c)
{
    struct proto_header header;
    const uint8_t *payload;
    int ret;

    while ((ret = proto_inbox_next(&c->in, &header, &payload)) > 0) {
        ret = on_frame(c, &header, payload);
        if (ret)
            return ret;
    }
    if (ret < 0)
        return violation(c, "a frame header that makes no sense", 0);
    return 0;
}

static int receive(struct agent_client *c)
{
    size_t total = 0;

    while (total < READ_MAX) {
        size_t room;
        uint8_t *space = proto_inbox_space(&c->in, &room);
        ssize_t n = read(c->fd, space, room);
        int ret;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ECONNRESET;
        proto_inbox_add(&c->in, (size_t)n);
        ret = handle_frames(c);
        if (ret)
            return ret;
        total += (size_t)n;
    }
    return 0;
}

/* Local file to guest, as far as credit goes. */
static int pump_file(struct agent_client *c, struct agent_handle *h)
{
    uint8_t buf[PROTO_DATA_MAX];

    while (!h->closed && !h->cancelled) {
        size_t room = agent_handle_room(c, h);
        ssize_t n;

        if (room == 0)
            return 0;
        n = read(h->fd, buf, room < sizeof(buf) ? room : sizeof(buf));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            h->local_err = errno;
            return agent_handle_cancel(c, h);
        }
        if (n == 0)
            return agent_handle_close(c, h);
        /* Room was asked for first: all of it goes, or memory is out. */
        if (agent_handle_feed(c, h, buf, (size_t)n) != (size_t)n)
            return -ENOMEM;
        if (c->ops.file_bytes)
            c->ops.file_bytes(c->arg, h->id, buf, (size_t)n);
    }
    return 0;
}

/* What waits for room or credit rather than for a frame. */
static int step_handles(struct agent_client *c)
{
    int ret = 0;

    for (size_t i = 0; ret == 0 && i < PROTO_HANDLES_MAX; i++) {
        struct agent_handle *h = &c->handles[i];
        size_t room;

        if (h->kind == AGENT_WRITE) {
            ret = pump_file(c, h);
        } else if (h->kind == AGENT_READ) {
            agent_inflow_credit(c, h, &h->in[0], PROTO_FILE);
        } else if (h->kind == AGENT_EXEC) {
            agent_inflow_credit(c, h, &h->in[0], PROTO_STDOUT);
            agent_inflow_credit(c, h, &h->in[1], PROTO_STDERR);
            room = agent_handle_room(c, h);
            if (h->starved && room > 0) {
                h->starved = false;
                if (c->ops.stdin_ready)
                    c->ops.stdin_ready(c->arg, h->id, room);
            }
        }
    }
    return ret == -EAGAIN ? 0 : ret;
}

static int process(struct agent_client *c, short revents)
{
    int ret = agent_out_send(c);

    /* A peer that closed may have left its last frames: read first. */
    if (revents & (POLLIN | POLLHUP | POLLERR)) {
        int received = receive(c);

        if (received)
            return received;
    }
    /*
     * A step may have found no room, and sending then makes some: nobody
     * would poll for an empty queue, so that is the moment to step again.
     * Credit bounds it.
     */
    while (ret == 0) {
        size_t queued;

        ret = step_handles(c);
        queued = agent_out_queued(c);
        if (ret == 0)
            ret = agent_out_send(c);
        if (queued == 0 || agent_out_queued(c) > 0)
            break;
    }
    return ret;
}

int agent_client_process(struct agent_client *client, short revents)
{
    int ret;

    if (client->error)
        return client->error;
    ret = process(client, revents);
    client->error = ret;
    if (ret == -ECONNRESET)
        snprintf(client->reason, sizeof(client->reason),
                 "the connection to the guest's agent is gone");
    else if (ret && ret != -EPROTO)
        snprintf(client->reason, sizeof(client->reason),
                 "the connection to the guest's agent failed: %s",
                 strerror(-ret));
    return ret;
}

/* ---- life --------------------------------------------------------------- */

int agent_client_new(int fd, const struct agent_client_ops *ops, void *arg,
                     struct agent_client **ret_client)
{
    struct agent_client *c = calloc(1, sizeof(*c));
    int flags = fcntl(fd, F_GETFL);
    int ret = -ENOMEM;

    if (!c)
        return ret;
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        ret = -errno;
        free(c);
        return ret;
    }
    c->fd = fd;
    c->ops = *ops;
    c->arg = arg;
    proto_inbox_init(&c->in, PROTO_FROM_GUEST);
    *ret_client = c;
    return 0;
}

void agent_client_free(struct agent_client *client)
{
    if (!client)
        return;
    close(client->fd);
    free(client->out);
    free(client);
}

int agent_client_fd(const struct agent_client *client)
{
    return client->fd;
}

short agent_client_events(const struct agent_client *client)
{
    return agent_out_queued(client) > 0 ? POLLIN | POLLOUT : POLLIN;
}

const char *agent_client_reason(const struct agent_client *client)
{
    return client->reason;
}

size_t agent_client_live(const struct agent_client *client)
{
    size_t live = 0;

    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++)
        live += client->handles[i].kind != AGENT_FREE;
    return live;
}
