/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded queue of bytes; see the header. */
#include "base/fifo.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int fifo_init(struct fifo *f, size_t size)
{
    *f = (struct fifo){.buf = malloc(size), .size = size};
    return f->buf ? 0 : -ENOMEM;
}

void fifo_fini(struct fifo *f)
{
    free(f->buf);
    *f = (struct fifo){0};
}

size_t fifo_used(const struct fifo *f)
{
    return f->end - f->start;
}

size_t fifo_room(const struct fifo *f)
{
    return f->size - fifo_used(f);
}

size_t fifo_add(struct fifo *f, const void *bytes, size_t len)
{
    if (len > fifo_room(f))
        len = fifo_room(f);
    if (f->start > 0 && len > f->size - f->end) {
        memmove(f->buf, f->buf + f->start, f->end - f->start);
        f->end -= f->start;
        f->start = 0;
    }
    if (len > 0)
        memcpy(f->buf + f->end, bytes, len);
    f->end += len;
    return len;
}

const uint8_t *fifo_peek(const struct fifo *f, size_t *ret_len)
{
    *ret_len = fifo_used(f);
    return f->buf + f->start;
}

void fifo_drop(struct fifo *f, size_t len)
{
    assert(len <= fifo_used(f));
    f->start += len;
    if (f->start == f->end)
        f->start = f->end = 0;
}
