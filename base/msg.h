/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Typed messages with descriptors over a SOCK_SEQPACKET socketpair: the only
 * channel between harness and monitor. A message is one packet: a header with
 * its own total length (checked against the packet's), a type, and a payload.
 */
#ifndef MICROSBX_BASE_MSG_H
#define MICROSBX_BASE_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MSG_PAYLOAD_MAX 16384u
#define MSG_FDS_MAX 32u

struct msg {
    uint32_t type;
    size_t len; /* bytes used in payload */
    size_t fd_count;
    bool fds_lost; /* there were some, and no room for all: fd_count is 0 */
    int fds[MSG_FDS_MAX]; /* owned by the receiver; -1 once taken */
    uint8_t payload[MSG_PAYLOAD_MAX];
};

/*
 * Sends one message; fds stay open in the sender. Returns 0 or a negative
 * errno (-EPIPE if the peer is gone, -EAGAIN on a full non-blocking socket).
 */
int msg_send(int sock, uint32_t type, const void *payload, size_t len,
             const int *fds, size_t fd_count)
    __attribute__((warn_unused_result));

/*
 * Receives one message. Returns 1, 0 when the peer has closed, or a negative
 * errno; -EBADMSG for a packet that is truncated or lies about its length (its
 * descriptors are closed). Received descriptors are close-on-exec; if this
 * process may not have as many, the message says so and has none.
 */
int msg_receive(int sock, struct msg *ret_msg)
    __attribute__((warn_unused_result));

/*
 * The same with the descriptors apart, and none of them closed, also of a bad
 * packet. fds has room for all that the kernel sends at once (SCM_MAX_FD).
 */
#define MSG_FDS_SENT_MAX 253u
int msg_receive_apart(int sock, struct msg *ret_msg, int *fds,
                      size_t *ret_fd_count) __attribute__((warn_unused_result));

/* Closes the descriptors of a message that nobody took. */
void msg_close_fds(struct msg *m);

#endif
