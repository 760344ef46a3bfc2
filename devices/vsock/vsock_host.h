/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host side of one vsock connection: a stream socket, the CONNECT line a
 * client begins with, and what the socket would not take yet of the guest's
 * bytes. It knows no packet and no guest memory but the iovecs it is given.
 *
 * Bytes go straight between guest memory and the socket. Only what the socket
 * refuses is copied, into a ring that is allocated when first needed and given
 * back when it is empty; credit bounds what can ever be in it.
 *
 * Every call is non-blocking whatever the descriptor's own mode is. Owner: the
 * device thread.
 */
#ifndef MICROSBX_DEVICES_VSOCK_VSOCK_HOST_H
#define MICROSBX_DEVICES_VSOCK_VSOCK_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "devices/evloop.h"
#include "devices/vsock/virtio_vsock.h"

/* "OK 4294967295\n" and a NUL. */
#define VSOCK_OK_LINE_MAX 16u

/*
 * Where rings come from. One is kept when its last user is done, so that a
 * slow reader does not cost a mapping and its page faults every time round.
 */
struct vsock_pool {
    uint8_t *spare; /* VSOCK_BUFFER_SIZE bytes, or NULL */
};

struct vsock_host {
    int fd;                      /* owned; -1: closed */
    struct evloop_source source; /* the device's; fd kept equal to ours */
    struct vsock_pool *pool;     /* borrowed */
    uint8_t *ring;               /* owned; NULL while nothing is held */
    uint32_t ring_size;          /* bytes; constant */
    uint32_t ring_head;          /* where the oldest byte is */
    uint32_t ring_len;           /* bytes held */
    uint8_t line_len;
    char line[VSOCK_CLIENT_LINE_MAX];
    bool eof;       /* the host has sent its last byte */
    bool hung_up;   /* both directions of the socket are over */
    bool dead;      /* the socket takes no more bytes */
    bool write_end; /* we shut down our writing half */
};

void vsock_pool_fini(struct vsock_pool *pool);

/* Takes fd (may be -1: comes later). ring_size <= VSOCK_BUFFER_SIZE. */
void vsock_host_init(struct vsock_host *host, int fd, uint32_t ring_size,
                     struct vsock_pool *pool);
/* Closes and frees what is left. The source must not be active any more. */
void vsock_host_close(struct vsock_host *host);

/* Makes room in the socket for about a whole advertised buffer. */
void vsock_host_widen(struct vsock_host *host);

/*
 * Sends bytes of the guest (total = sum of the iovecs, which may be changed),
 * behind what is held already, and holds what the socket does not take. The
 * number of bytes that left us for good is in *ret_done: sent, or thrown away
 * because the socket is dead. Returns 0, or a negative errno when the socket
 * has just died (or there is no memory for the ring, which kills it too).
 * Pre: total + held bytes <= ring_size.
 */
int vsock_host_send(struct vsock_host *host, struct iovec *iov, unsigned count,
                    uint32_t total, uint32_t *ret_done)
    __attribute__((warn_unused_result));

/* Sends what is held: as vsock_host_send. */
int vsock_host_flush(struct vsock_host *host, uint32_t *ret_done)
    __attribute__((warn_unused_result));

/* No more bytes will come from the guest. Pre: nothing is held. */
void vsock_host_end_write(struct vsock_host *host);

/*
 * Receives straight into the iovecs: the number of bytes, 0 at the end, or a
 * negative errno (-EAGAIN: nothing there).
 */
ssize_t vsock_host_receive(struct vsock_host *host, struct iovec *iov,
                           unsigned count) __attribute__((warn_unused_result));

/*
 * Reads more of the CONNECT line and never a byte beyond it. 1 and *ret_port
 * when it is complete, 0 if more must come, -EPROTO if it is not such a line
 * (or too long), -EPIPE if the client has left.
 */
int vsock_host_read_line(struct vsock_host *host, uint32_t *ret_port)
    __attribute__((warn_unused_result));

/* Says "OK <port>\n". 0, or -EPIPE if the client does not take it. */
int vsock_host_reply_ok(struct vsock_host *host, uint32_t port)
    __attribute__((warn_unused_result));

/*
 * Parses "CONNECT <port>\n", with one space and a decimal port from 0 to
 * 2^32 - 2, in exactly len bytes: 0 or -EPROTO.
 */
int vsock_line_parse(const char *line, size_t len, uint32_t *ret_port)
    __attribute__((warn_unused_result));

#endif
