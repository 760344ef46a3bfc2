/* SPDX-License-Identifier: Apache-2.0 */
/* The host side of one vsock connection. See the header. */
#include "devices/vsock/vsock_host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/io.h"
#include "devices/vsock/vsock_packet.h"

#define LINE_VERB "CONNECT "
#define PORT_DIGITS_MAX 10u

static uint8_t *pool_take(struct vsock_pool *pool, uint32_t size)
{
    uint8_t *ring = pool->spare;

    if (size != VSOCK_BUFFER_SIZE || !ring)
        return malloc(size);
    pool->spare = NULL;
    return ring;
}

static void pool_give(struct vsock_pool *pool, uint8_t *ring, uint32_t size)
{
    if (size != VSOCK_BUFFER_SIZE || pool->spare)
        free(ring);
    else
        pool->spare = ring;
}

void vsock_pool_fini(struct vsock_pool *pool)
{
    free(pool->spare);
    pool->spare = NULL;
}

static void ring_drop(struct vsock_host *host)
{
    if (host->ring)
        pool_give(host->pool, host->ring, host->ring_size);
    host->ring = NULL;
    host->ring_head = 0;
    host->ring_len = 0;
}

/* Pre: len <= room in the ring. */
static void ring_append(struct vsock_host *host, const uint8_t *bytes,
                        size_t len)
{
    uint32_t tail = (host->ring_head + host->ring_len) % host->ring_size;
    size_t first = host->ring_size - tail;

    if (first > len)
        first = len;
    memcpy(host->ring + tail, bytes, first);
    memcpy(host->ring, bytes + first, len - first);
    host->ring_len += (uint32_t)len;
}

/* Holds what follows the first `skip` bytes of the iovecs. */
static int ring_hold(struct vsock_host *host, const struct iovec *iov,
                     unsigned count, size_t skip)
{
    if (!host->ring)
        host->ring = pool_take(host->pool, host->ring_size);
    if (!host->ring)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        size_t len = iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        ring_append(host, (const uint8_t *)iov[i].iov_base + skip, len - skip);
        skip = 0;
    }
    return 0;
}

/* What the socket takes now: bytes, 0 if none, or a negative errno. */
static ssize_t socket_send(struct vsock_host *host, struct iovec *iov,
                           unsigned count)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t n;

    do {
        n = sendmsg(host->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == ENOBUFS ? 0 : -errno;
}

/*
 * The socket takes no more, or we cannot hold any: what was held is thrown
 * away, and whoever still reads sees an end and not a gap.
 */
static uint32_t host_die(struct vsock_host *host)
{
    uint32_t held = host->ring_len;

    (void)shutdown(host->fd, SHUT_WR);
    host->dead = true;
    ring_drop(host);
    return held;
}

void vsock_host_init(struct vsock_host *host, int fd, uint32_t ring_size,
                     struct vsock_pool *pool)
{
    memset(host, 0, sizeof(*host));
    host->fd = fd;
    host->pool = pool;
    host->ring_size = ring_size;
}

void vsock_host_close(struct vsock_host *host)
{
    ring_drop(host);
    io_close(&host->fd);
    host->dead = true;
    host->eof = true;
}

void vsock_host_widen(struct vsock_host *host)
{
    int size = (int)VSOCK_BUFFER_SIZE;

    /*
     * A matter of speed only: a burst of one whole credit then fits into the
     * socket and is not copied twice. Failing changes nothing else.
     */
    (void)setsockopt(host->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

int vsock_host_send(struct vsock_host *host, struct iovec *iov, unsigned count,
                    uint32_t total, uint32_t *ret_done)
{
    ssize_t n = 0;

    if (host->dead) {
        *ret_done = total;
        return 0;
    }
    if (host->ring_len == 0)
        n = socket_send(host, iov, count);
    if (n >= 0 && (uint32_t)n < total) {
        int ret = ring_hold(host, iov, count, (size_t)n);

        if (ret < 0)
            n = ret;
    }
    if (n < 0) {
        *ret_done = total + host_die(host);
        return (int)n;
    }
    *ret_done = (uint32_t)n;
    return 0;
}

int vsock_host_flush(struct vsock_host *host, uint32_t *ret_done)
{
    uint32_t to_end = host->ring_size - host->ring_head;
    struct iovec iov[2];
    unsigned count = 1;
    ssize_t n;

    *ret_done = 0;
    if (host->ring_len == 0)
        return 0;
    if (to_end > host->ring_len)
        to_end = host->ring_len;
    iov[0] = (struct iovec){host->ring + host->ring_head, to_end};
    if (to_end < host->ring_len) {
        iov[1] = (struct iovec){host->ring, host->ring_len - to_end};
        count = 2;
    }
    n = socket_send(host, iov, count);
    if (n < 0) {
        *ret_done = host_die(host);
        return (int)n;
    }
    host->ring_head = (host->ring_head + (uint32_t)n) % host->ring_size;
    host->ring_len -= (uint32_t)n;
    if (host->ring_len == 0)
        ring_drop(host);
    *ret_done = (uint32_t)n;
    return 0;
}

void vsock_host_end_write(struct vsock_host *host)
{
    if (host->dead || host->write_end)
        return;
    host->write_end = true;
    (void)shutdown(host->fd, SHUT_WR); /* fails only if it is over anyway */
}

ssize_t vsock_host_receive(struct vsock_host *host, struct iovec *iov,
                           unsigned count)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t n;

    do {
        n = recvmsg(host->fd, &msg, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int vsock_line_parse(const char *line, size_t len, uint32_t *ret_port)
{
    size_t verb = sizeof(LINE_VERB) - 1;
    uint64_t port = 0;

    if (len < verb + 2 || len > verb + PORT_DIGITS_MAX + 1)
        return -EPROTO;
    if (memcmp(line, LINE_VERB, verb) != 0 || line[len - 1] != '\n')
        return -EPROTO;
    for (size_t i = verb; i < len - 1; i++) {
        if (line[i] < '0' || line[i] > '9')
            return -EPROTO;
        port = port * 10 + (uint64_t)(line[i] - '0');
    }
    if (port >= VSOCK_PORT_ANY)
        return -EPROTO;
    *ret_port = (uint32_t)port;
    return 0;
}

int vsock_host_read_line(struct vsock_host *host, uint32_t *ret_port)
{
    char *end = host->line + host->line_len;
    size_t room = sizeof(host->line) - host->line_len;
    char *newline;
    ssize_t n;

    /*
     * Peek first, then take what belongs to the line: a client may send its
     * first data along, and they must stay in the socket for the guest.
     */
    n = recv(host->fd, end, room, MSG_DONTWAIT | MSG_PEEK);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -EPIPE;
    if (n == 0)
        return -EPIPE;
    newline = memchr(end, '\n', (size_t)n);
    if (newline)
        n = newline - end + 1;
    n = recv(host->fd, end, (size_t)n, MSG_DONTWAIT);
    if (n <= 0)
        return -EPIPE;
    host->line_len = (uint8_t)(host->line_len + n);
    if (newline) {
        if (vsock_line_parse(host->line, host->line_len, ret_port) < 0)
            return -EPROTO;
        return 1;
    }
    return host->line_len == sizeof(host->line) ? -EPROTO : 0;
}

int vsock_host_reply_ok(struct vsock_host *host, uint32_t port)
{
    char text[VSOCK_OK_LINE_MAX];
    int len = snprintf(text, sizeof(text), "OK %" PRIu32 "\n", port);
    struct iovec iov = {text, (size_t)len};

    /* The first bytes on a fresh socket: they fit, or nobody is there. */
    return socket_send(host, &iov, 1) == len ? 0 : -EPIPE;
}
