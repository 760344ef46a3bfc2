/* SPDX-License-Identifier: Apache-2.0 */
/* A client's connection; see keeper_internal.h and keeper_proto.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/keeper_internal.h"

/* Credit for stdin goes back in portions of this size, not byte by byte. */
#define CREDIT_PORTION (KEEPER_WINDOW / 4)

static void client_init(struct keeper_client *c, int sock)
{
    memset(c, 0, sizeof(*c));
    c->state = CLIENT_IDLE;
    c->sock = sock;
    c->file_fd = -1;
}

void keeper_client_drop(struct keeper_client *c)
{
    if (c->state == CLIENT_FREE)
        return;
    io_close(&c->sock);
    io_close(&c->file_fd);
    free(c->request);
    free(c->strings);
    fifo_fini(&c->in);
    fifo_fini(&c->out[0]);
    fifo_fini(&c->out[1]);
    memset(c, 0, sizeof(*c));
    c->sock = c->file_fd = -1;
}

void keeper_client_settle(struct keeper_client *c)
{
    if (c->sock < 0 && !c->live)
        keeper_client_drop(c);
}

/* Only this user and root: the folder lets nobody else come as far. */
static bool is_own_user(int sock)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           (peer.uid == geteuid() || peer.uid == 0);
}

static void refuse_crowd(int sock)
{
    union keeper_body body;

    failure_set(&body.refused, "busy", "", "try again",
                "%u clients talk to this machine already", KEEPER_CLIENTS_MAX);
    (void)!keeper_send(sock, KEEPER_REFUSED, &body);
    close(sock);
}

static void set_no_files(const struct keeper *k, struct failure *why)
{
    failure_set(why, "host", k->entry.name,
                "try again, or raise ulimit -n before microsbx run -d",
                "the keeper of the machine %s may not open more files",
                k->entry.name);
}

void keeper_client_turn_away(const struct keeper *k, int sock)
{
    union keeper_body body;

    set_no_files(k, &body.refused);
    (void)!keeper_send(sock, KEEPER_REFUSED, &body);
    close(sock);
}

void keeper_client_accept(struct keeper *k, int sock)
{
    if (!is_own_user(sock)) {
        close(sock);
        return;
    }
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        if (k->clients[i].state == CLIENT_FREE) {
            client_init(&k->clients[i], sock);
            return;
        }
    }
    refuse_crowd(sock);
}

void keeper_client_answer(struct keeper_client *c, enum keeper_message type,
                          const union keeper_body *body)
{
    c->state = CLIENT_DONE;
    c->last_type = type;
    if (body)
        c->last = *body;
    fifo_drop(&c->in, fifo_used(&c->in));
}

void keeper_client_refuse(struct keeper_client *c, const struct failure *why)
{
    union keeper_body body = {.refused = *why};

    keeper_client_answer(c, KEEPER_REFUSED, &body);
}

/* ---- out ---- */

static bool owes_credit(const struct keeper_client *c)
{
    return c->state == CLIENT_ACTIVE && c->in_owed > 0 &&
           (c->in_owed >= CREDIT_PORTION || fifo_used(&c->in) == 0);
}

static bool has_output(const struct keeper_client *c)
{
    return (c->started && !c->said_started) || fifo_used(&c->out[0]) > 0 ||
           fifo_used(&c->out[1]) > 0 || owes_credit(c) ||
           c->state == CLIENT_DONE;
}

short keeper_client_events(const struct keeper_client *c)
{
    short events = c->state == CLIENT_DONE ? 0 : POLLIN;

    return (short)(has_output(c) ? events | POLLOUT : events);
}

/* One stream as far as the socket takes it: 0 or a negative errno. */
static int flush_stream(struct keeper_client *c, unsigned i)
{
    union keeper_body body = {
        .data = {.stream = i == 0 ? PROTO_STDOUT : PROTO_STDERR}};

    while (fifo_used(&c->out[i]) > 0) {
        int ret;

        body.data.bytes = fifo_peek(&c->out[i], &body.data.len);
        if (body.data.len > KEEPER_OUTPUT_MAX)
            body.data.len = KEEPER_OUTPUT_MAX;
        ret = keeper_send(c->sock, KEEPER_OUTPUT, &body);
        if (ret != 0)
            return ret;
        c->sent[i] += (uint32_t)body.data.len;
        fifo_drop(&c->out[i], body.data.len);
    }
    return 0;
}

/* In this order: what was said first arrives first. */
static int flush_all(struct keeper_client *c)
{
    int ret = 0;

    if (c->started && !c->said_started) {
        ret = keeper_send(c->sock, KEEPER_STARTED, NULL);
        c->said_started = ret == 0;
    }
    if (ret == 0)
        ret = flush_stream(c, 0);
    if (ret == 0)
        ret = flush_stream(c, 1);
    if (ret == 0 && owes_credit(c)) {
        union keeper_body body = {.numbers = {.a = c->in_owed}};

        ret = keeper_send(c->sock, KEEPER_STDIN_CREDIT, &body);
        if (ret == 0)
            c->in_owed = 0;
    }
    if (ret == 0 && c->state == CLIENT_DONE)
        ret = keeper_send(c->sock, c->last_type, &c->last);
    return ret;
}

void keeper_client_flush(struct keeper *k, struct keeper_client *c)
{
    int ret;

    if (c->sock < 0 || !has_output(c))
        return;
    ret = flush_all(c);
    if (ret == -EAGAIN)
        return;
    if (ret == 0 && c->state != CLIENT_DONE)
        return;
    /* All said, or nobody is there to hear it. */
    io_close(&c->sock);
    keeper_snapshot_forget(k, c);
    if (c->live && c->state != CLIENT_DONE)
        keeper_request_cancel(k, c);
    keeper_client_settle(c);
}

/* ---- in ---- */

static void hang_up(struct keeper *k, struct keeper_client *c)
{
    io_close(&c->sock);
    keeper_snapshot_forget(k, c);
    if (c->live)
        keeper_request_cancel(k, c);
    keeper_client_settle(c);
}

/* A request of a connection that has asked nothing yet. */
static int begin(struct keeper *k, struct keeper_client *c,
                 const union keeper_body *body)
{
    union keeper_body reply;
    int fd;

    switch (k->msg.type) {
    case KEEPER_EXEC:
        keeper_exec_begin(k, c, &body->exec);
        return 0;
    case KEEPER_PUT:
    case KEEPER_GET:
        if (k->msg.fds_lost) {
            set_no_files(k, &reply.refused);
            keeper_client_answer(c, KEEPER_REFUSED, &reply);
            return 0;
        }
        if (k->msg.fd_count != 1)
            return -EBADMSG;
        fd = k->msg.fds[0];
        k->msg.fds[0] = -1;
        keeper_file_begin(k, c, k->msg.type, &body->file, fd);
        return 0;
    case KEEPER_SNAPSHOT:
        keeper_snapshot_begin(k, c, &body->snapshot);
        return 0;
    case KEEPER_STATUS:
        keeper_get_status(k, &reply.status);
        keeper_client_answer(c, KEEPER_STATUS_REPLY, &reply);
        return 0;
    case KEEPER_STOP:
        keeper_stop(k, body->numbers.a);
        return 0;
    case KEEPER_KILL:
        keeper_kill(k);
        return 0;
    default:
        return -EBADMSG;
    }
}

static int on_message(struct keeper *k, struct keeper_client *c)
{
    union keeper_body body;

    if (keeper_decode(k->msg.type, k->msg.payload, k->msg.len, &body) != 0)
        return -EBADMSG;
    switch (c->state) {
    case CLIENT_IDLE:
        return begin(k, c, &body);
    case CLIENT_COLLECT:
        if (k->msg.type != KEEPER_STRINGS)
            return -EBADMSG;
        keeper_exec_strings(k, c, &body.data);
        return 0;
    case CLIENT_PENDING:
    case CLIENT_ACTIVE:
        if (!c->live && c->state == CLIENT_ACTIVE)
            return -EBADMSG; /* a snapshot's client only waits */
        return keeper_exec_message(k, c, k->msg.type, &body);
    default:
        return 0; /* crossed with our last message */
    }
}

void keeper_client_on_poll(struct keeper *k, struct keeper_client *c,
                           short revents)
{
    int ret;

    if (revents & POLLOUT)
        keeper_client_flush(k, c);
    if (c->sock < 0 || !(revents & (POLLIN | POLLHUP | POLLERR)))
        return;
    if (c->state == CLIENT_DONE) {
        if (revents & (POLLHUP | POLLERR))
            hang_up(k, c);
        return;
    }
    ret = msg_receive(c->sock, &k->msg);
    if (ret == -EAGAIN)
        return;
    if (ret == 1) {
        ret = on_message(k, c) == 0 ? 1 : 0;
        msg_close_fds(&k->msg);
    }
    if (ret != 1)
        hang_up(k, c);
    else
        keeper_client_flush(k, c);
}
