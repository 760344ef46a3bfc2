/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's end of the control connection: frames in and out of one
 * non-blocking stream descriptor, in buffers of fixed size. Knows framing,
 * not meaning. Writers ask for room first; nothing ever grows.
 */
#ifndef MICROSBX_GUEST_CONN_H
#define MICROSBX_GUEST_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest/proto.h"

#define CONN_OUT_SIZE (4u * PROTO_FRAME_MAX)
/*
 * What data frames leave free for the small frames that every handle may owe
 * at one moment (started, exit, three credits).
 */
#define CONN_OUT_RESERVE (PROTO_HANDLES_MAX * 256u)

struct conn {
    int fd; /* owned; -1: not connected */
    struct proto_inbox in;
    size_t out_head, out_used; /* bytes [head, used) are to be sent */
    uint8_t out[CONN_OUT_SIZE];
};

/* Takes fd over (non-blocking already) and forgets what was buffered. */
void conn_open(struct conn *conn, int fd);
void conn_close(struct conn *conn);
bool conn_is_open(const struct conn *conn);

/*
 * Reads what is there, as far as the buffer goes: bytes read, 0 if none, or a
 * negative errno (-ECONNRESET at the end of the stream).
 */
int conn_receive(struct conn *conn) __attribute__((warn_unused_result));

/* Sends what the socket takes: 0 or a negative errno. */
int conn_send(struct conn *conn) __attribute__((warn_unused_result));

bool conn_wants_send(const struct conn *conn);

/* Bytes that may be queued now. */
size_t conn_room(const struct conn *conn);

/* True if a DATA frame of full size may be queued. */
bool conn_has_data_room(const struct conn *conn);

/* A writer at the queue's end; what it wrote is queued by conn_commit. */
struct proto_writer conn_writer(struct conn *conn);
void conn_commit(struct conn *conn, const struct proto_writer *writer);

#endif
