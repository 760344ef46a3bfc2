/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded buffer in front of a slow descriptor; see the header. */
#include "trial/relay.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * What a blocking pipe takes without waiting once poll said POLLOUT: at least
 * PIPE_BUF bytes of room are guaranteed then (pipe(7)).
 */
#define PIECE_MAX 4096u

int relay_init(struct relay *r, int fd, size_t size)
{
    *r = (struct relay){.buf = malloc(size), .size = size, .fd = fd};
    return r->buf ? 0 : -ENOMEM;
}

void relay_fini(struct relay *r)
{
    free(r->buf);
    *r = (struct relay){.fd = -1};
}

size_t relay_room(const struct relay *r)
{
    return r->size - (r->end - r->start);
}

size_t relay_add(struct relay *r, const void *bytes, size_t len)
{
    if (r->error != 0 || r->fd < 0)
        return len;
    if (len > relay_room(r))
        len = relay_room(r);
    if (r->start > 0 && len > r->size - r->end) {
        memmove(r->buf, r->buf + r->start, r->end - r->start);
        r->end -= r->start;
        r->start = 0;
    }
    if (len > 0)
        memcpy(r->buf + r->end, bytes, len);
    r->end += len;
    return len;
}

bool relay_is_empty(const struct relay *r)
{
    return r->start == r->end;
}

ssize_t relay_write(struct relay *r)
{
    struct pollfd p = {.fd = r->fd, .events = POLLOUT};
    size_t len = r->end - r->start;
    ssize_t n;

    if (r->error != 0 || len == 0)
        return r->error;
    if (len > PIECE_MAX)
        len = PIECE_MAX;
    /*
     * The room that the caller's poll saw may be gone: standard output and
     * error are often one pipe, and waiting for its reader here would hold up
     * the trial's deadline.
     */
    if (poll(&p, 1, 0) <= 0)
        return 0;
    n = write(r->fd, r->buf + r->start, len);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n < 0) {
        r->error = -errno;
        r->start = r->end = 0;
        return r->error;
    }
    r->start += (size_t)n;
    if (r->start == r->end)
        r->start = r->end = 0;
    return n;
}
