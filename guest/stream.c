/* SPDX-License-Identifier: Apache-2.0 */
/* Data streams with credit; see the header. */
#include "guest/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/sysfile.h"

/* Credit goes back in portions, not with every read of the workload. */
#define CREDIT_PORTION (PROTO_WINDOW / 4u)
#define TTY_EOF '\004' /* VEOF, what ctrl-D sends */

void inlet_init(struct inlet *in)
{
    *in = (struct inlet){.fd = -1};
}

void inlet_expect(struct inlet *in)
{
    in->expected = true;
    in->credit = PROTO_WINDOW;
}

int inlet_open(struct inlet *in, int fd, bool tty)
{
    in->ring = malloc(PROTO_WINDOW);
    if (!in->ring)
        return -ENOMEM;
    in->fd = fd;
    in->tty = tty;
    return 0;
}

void inlet_fini(struct inlet *in)
{
    sysfile_close(&in->fd);
    free(in->ring);
    inlet_init(in);
}

void inlet_renew(struct inlet *in)
{
    in->credit = PROTO_WINDOW;
    in->owed = 0;
    in->bytes = 0;
}

void inlet_shut(struct inlet *in)
{
    sysfile_close(&in->fd);
    in->owed += (uint32_t)in->used;
    in->used = 0;
}

int inlet_receive(struct inlet *in, const uint8_t *bytes, size_t len)
{
    size_t tail, first;

    if (!in->expected || in->ended || len > in->credit)
        return -EBADMSG;
    in->credit -= (uint32_t)len;
    if (in->fd < 0) {
        in->owed += (uint32_t)len;
        return 0;
    }
    /* used + credit + owed = PROTO_WINDOW: the ring has room. */
    tail = (in->head + in->used) % PROTO_WINDOW;
    first = PROTO_WINDOW - tail;
    if (first > len)
        first = len;
    memcpy(in->ring + tail, bytes, first);
    memcpy(in->ring, bytes + first, len - first);
    in->used += len;
    return 0;
}

int inlet_end(struct inlet *in)
{
    if (!in->expected || in->ended)
        return -EBADMSG;
    in->ended = true;
    return 0;
}

bool inlet_wants_write(const struct inlet *in)
{
    return in->fd >= 0 && in->used > 0;
}

static void inlet_finish(struct inlet *in)
{
    char end = TTY_EOF;

    /* A full terminal loses it; whoever sends EOF to one knows terminals. */
    if (in->tty)
        (void)!write(in->fd, &end, 1);
    sysfile_close(&in->fd);
}

void inlet_pump(struct inlet *in)
{
    while (inlet_wants_write(in)) {
        size_t len = PROTO_WINDOW - in->head;
        ssize_t n;

        if (len > in->used)
            len = in->used;
        n = write(in->fd, in->ring + in->head, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            inlet_shut(in);
            return;
        }
        in->head = (in->head + (size_t)n) % PROTO_WINDOW;
        in->used -= (size_t)n;
        in->owed += (uint32_t)n;
        in->bytes += (uint64_t)n;
    }
    if (in->ended && in->fd >= 0 && in->used == 0)
        inlet_finish(in);
}

void inlet_give_credit(struct inlet *in, struct conn *conn, uint32_t id,
                       uint32_t stream)
{
    struct proto_writer w;

    if (in->ended || in->owed == 0 ||
        (in->owed < CREDIT_PORTION && in->used > 0))
        return;
    if (conn_room(conn) < CONN_OUT_RESERVE / PROTO_HANDLES_MAX)
        return;
    w = conn_writer(conn);
    proto_put_credit(&w, id, stream, in->owed);
    conn_commit(conn, &w);
    in->credit += in->owed;
    in->owed = 0;
}

void outlet_init(struct outlet *out, int fd)
{
    *out = (struct outlet){.fd = fd, .credit = PROTO_WINDOW};
}

void outlet_fini(struct outlet *out)
{
    sysfile_close(&out->fd);
}

void outlet_renew(struct outlet *out)
{
    out->credit = PROTO_WINDOW;
    out->bytes = 0;
}

int outlet_add_credit(struct outlet *out, uint32_t bytes)
{
    if (bytes > PROTO_WINDOW - out->credit)
        return -EBADMSG;
    out->credit += bytes;
    return 0;
}

bool outlet_can_read(const struct outlet *out, const struct conn *conn)
{
    return out->fd >= 0 && out->credit > 0 && conn_has_data_room(conn);
}

/* Bytes read: 0 if there are none now, or no more (fd is closed then). */
static size_t outlet_read(struct outlet *out, uint8_t *buf, size_t len)
{
    ssize_t n;

    do {
        n = read(out->fd, buf, len);
    } while (n < 0 && errno == EINTR);
    if (n > 0)
        return (size_t)n;
    /* The end; a terminal says EIO when its last slave is closed. */
    if (n == 0 || errno != EAGAIN)
        sysfile_close(&out->fd);
    return 0;
}

void outlet_drop(struct outlet *out)
{
    uint8_t buf[4096];

    if (out->fd >= 0)
        (void)outlet_read(out, buf, sizeof(buf));
}

bool outlet_pump(struct outlet *out, struct conn *conn, uint32_t id,
                 uint32_t stream)
{
    uint8_t buf[PROTO_DATA_MAX];
    size_t len = out->credit < sizeof(buf) ? out->credit : sizeof(buf);
    struct proto_writer w;
    size_t n;

    if (!outlet_can_read(out, conn))
        return false;
    n = outlet_read(out, buf, len);
    if (n == 0)
        return false;
    w = conn_writer(conn);
    proto_put_data(&w, id, stream, buf, n);
    conn_commit(conn, &w);
    out->credit -= (uint32_t)n;
    out->bytes += n;
    return true;
}
