/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's end of the connection; see the header. */
#include "guest/conn.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "guest/sysfile.h"

void conn_open(struct conn *conn, int fd)
{
    conn->fd = fd;
    proto_inbox_init(&conn->in, PROTO_FROM_HOST);
    conn->out_head = 0;
    conn->out_used = 0;
}

void conn_close(struct conn *conn)
{
    sysfile_close(&conn->fd);
}

bool conn_is_open(const struct conn *conn)
{
    return conn->fd >= 0;
}

int conn_receive(struct conn *conn)
{
    size_t room;
    uint8_t *space = proto_inbox_space(&conn->in, &room);
    ssize_t n;

    if (room == 0)
        return 0;
    do {
        n = read(conn->fd, space, room);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    if (n == 0)
        return -ECONNRESET;
    proto_inbox_add(&conn->in, (size_t)n);
    return (int)n;
}

int conn_send(struct conn *conn)
{
    while (conn->out_head < conn->out_used) {
        /* write, not send: SIGPIPE is ignored, and tests use other fds. */
        ssize_t n = write(conn->fd, conn->out + conn->out_head,
                          conn->out_used - conn->out_head);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        conn->out_head += (size_t)n;
    }
    conn->out_head = 0;
    conn->out_used = 0;
    return 0;
}

bool conn_wants_send(const struct conn *conn)
{
    return conn->out_head < conn->out_used;
}

size_t conn_room(const struct conn *conn)
{
    return CONN_OUT_SIZE - (conn->out_used - conn->out_head);
}

bool conn_has_data_room(const struct conn *conn)
{
    return conn_room(conn) >= PROTO_FRAME_MAX + CONN_OUT_RESERVE;
}

struct proto_writer conn_writer(struct conn *conn)
{
    struct proto_writer writer;

    /* Move only when the largest frame would not fit behind. */
    if (conn->out_head > 0 &&
        CONN_OUT_SIZE - conn->out_used < PROTO_FRAME_MAX + CONN_OUT_RESERVE) {
        memmove(conn->out, conn->out + conn->out_head,
                conn->out_used - conn->out_head);
        conn->out_used -= conn->out_head;
        conn->out_head = 0;
    }
    proto_writer_init(&writer, conn->out + conn->out_used,
                      CONN_OUT_SIZE - conn->out_used);
    return writer;
}

void conn_commit(struct conn *conn, const struct proto_writer *writer)
{
    conn->out_used += writer->used;
}
