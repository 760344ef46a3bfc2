/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded buffer in front of a slow descriptor; see the header. */
#include "trial/relay.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

/*
 * What a blocking pipe takes without waiting once poll said POLLOUT: at least
 * PIPE_BUF bytes of room are guaranteed then (pipe(7)).
 */
#define PIECE_MAX 4096u

int relay_init(struct relay *r, int fd, size_t size)
{
    *r = (struct relay){.fd = fd};
    return fifo_init(&r->fifo, size);
}

void relay_fini(struct relay *r)
{
    fifo_fini(&r->fifo);
    *r = (struct relay){.fd = -1};
}

size_t relay_room(const struct relay *r)
{
    return fifo_room(&r->fifo);
}

size_t relay_add(struct relay *r, const void *bytes, size_t len)
{
    if (r->error != 0 || r->fd < 0)
        return len;
    return fifo_add(&r->fifo, bytes, len);
}

bool relay_is_empty(const struct relay *r)
{
    return fifo_used(&r->fifo) == 0;
}

ssize_t relay_write(struct relay *r)
{
    struct pollfd p = {.fd = r->fd, .events = POLLOUT};
    size_t len;
    const uint8_t *bytes = fifo_peek(&r->fifo, &len);
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
    n = write(r->fd, bytes, len);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n < 0) {
        r->error = -errno;
        fifo_drop(&r->fifo, fifo_used(&r->fifo));
        return r->error;
    }
    fifo_drop(&r->fifo, (size_t)n);
    return n;
}
