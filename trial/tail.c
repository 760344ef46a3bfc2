/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a stream; see the header. */
#include "trial/tail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SIZE ((size_t)65536)

void tail_init(struct tail *t, size_t limit)
{
    *t = (struct tail){.limit = limit};
}

void tail_fini(struct tail *t)
{
    free(t->buf);
    *t = (struct tail){0};
}

/* Doubles until there is room for `more` bytes, or the limit is reached. */
static int grow(struct tail *t, size_t more)
{
    size_t size = t->size > 0 ? t->size : FIRST_SIZE;
    uint8_t *buf;

    while (size < t->limit && size - t->used < more)
        size *= 2;
    if (size > t->limit)
        size = t->limit;
    if (size == t->size)
        return 0;
    buf = realloc(t->buf, size);
    if (!buf)
        return -ENOMEM;
    t->buf = buf;
    t->size = size;
    return 0;
}

/* Pre: the buffer wraps only at its full size, so growing never splits it. */
int tail_add(struct tail *t, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    size_t room;

    t->total += len;
    if (len > t->limit) {
        p += len - t->limit;
        len = t->limit;
    }
    if (len > t->size - t->used && grow(t, len) != 0)
        return -ENOMEM;
    room = t->size - t->used;
    if (len > room) {
        /* The oldest make way. */
        t->start = (t->start + (len - room)) % t->size;
        t->used -= len - room;
    }
    while (len > 0) {
        size_t at = (t->start + t->used) % t->size;
        size_t part = t->size - at < len ? t->size - at : len;

        memcpy(t->buf + at, p, part);
        t->used += part;
        p += part;
        len -= part;
    }
    return 0;
}

const uint8_t *tail_peek(const struct tail *t, size_t at, size_t *ret_len)
{
    size_t index;

    *ret_len = 0;
    if (at >= t->used)
        return NULL;
    index = (t->start + at) % t->size;
    *ret_len = t->used - at;
    if (*ret_len > t->size - index)
        *ret_len = t->size - index;
    return t->buf + index;
}
