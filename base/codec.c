/* SPDX-License-Identifier: Apache-2.0 */
/* Byte codec with sticky errors; see the header. */
#include "base/codec.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"

void state_writer_init(struct state_writer *w, void *buf, size_t size)
{
    *w = (struct state_writer){.buf = buf, .size = size};
}

/* The next len bytes to fill, or NULL once there was an error. */
static uint8_t *writer_take(struct state_writer *w, size_t len)
{
    uint8_t *at;

    if (w->error != 0)
        return NULL;
    if (len > w->size - w->used) {
        w->error = -ENOSPC;
        return NULL;
    }
    at = w->buf + w->used;
    w->used += len;
    return at;
}

void state_put_u8(struct state_writer *w, uint8_t value)
{
    uint8_t *p = writer_take(w, 1);

    if (p)
        *p = value;
}

void state_put_u16(struct state_writer *w, uint16_t value)
{
    uint8_t *p = writer_take(w, 2);

    if (p)
        num_put_le16(p, value);
}

void state_put_u32(struct state_writer *w, uint32_t value)
{
    uint8_t *p = writer_take(w, 4);

    if (p)
        num_put_le32(p, value);
}

void state_put_u64(struct state_writer *w, uint64_t value)
{
    uint8_t *p = writer_take(w, 8);

    if (p)
        num_put_le64(p, value);
}

void state_put_bytes(struct state_writer *w, const void *bytes, size_t len)
{
    uint8_t *p = writer_take(w, len);

    if (p && len > 0)
        memcpy(p, bytes, len);
}

void state_put_string(struct state_writer *w, const char *s)
{
    size_t len = strlen(s);

    if (len > UINT32_MAX) {
        w->error = -ENOSPC;
        return;
    }
    state_put_u32(w, (uint32_t)len);
    state_put_bytes(w, s, len);
}

size_t state_group_begin(struct state_writer *w, const char *tag)
{
    state_put_bytes(w, tag, 4);
    state_put_u32(w, 0);
    return w->used;
}

void state_group_end(struct state_writer *w, size_t begun)
{
    /* After an error nothing of the buffer counts any more. */
    if (w->error == 0)
        num_put_le32(w->buf + begun - 4, (uint32_t)(w->used - begun));
}

void state_reader_init(struct state_reader *r, const void *buf, size_t size)
{
    *r = (struct state_reader){.buf = buf, .size = size};
}

static const uint8_t *reader_take(struct state_reader *r, size_t len)
{
    const uint8_t *at;

    if (r->error != 0)
        return NULL;
    if (len > r->size - r->used) {
        r->error = -EBADMSG;
        return NULL;
    }
    at = r->buf + r->used;
    r->used += len;
    return at;
}

uint8_t state_get_u8(struct state_reader *r)
{
    const uint8_t *p = reader_take(r, 1);

    return p ? *p : 0;
}

uint16_t state_get_u16(struct state_reader *r)
{
    const uint8_t *p = reader_take(r, 2);

    return p ? num_get_le16(p) : 0;
}

uint32_t state_get_u32(struct state_reader *r)
{
    const uint8_t *p = reader_take(r, 4);

    return p ? num_get_le32(p) : 0;
}

uint64_t state_get_u64(struct state_reader *r)
{
    const uint8_t *p = reader_take(r, 8);

    return p ? num_get_le64(p) : 0;
}

void state_get_bytes(struct state_reader *r, void *ret_bytes, size_t len)
{
    const uint8_t *p = reader_take(r, len);

    if (p && len > 0)
        memcpy(ret_bytes, p, len);
    else if (!p)
        memset(ret_bytes, 0, len);
}

void state_get_string(struct state_reader *r, char *ret_s, size_t size)
{
    uint32_t len = state_get_u32(r);
    const uint8_t *p = NULL;

    ret_s[0] = '\0';
    if (len >= size) {
        r->error = -EBADMSG;
        return;
    }
    p = reader_take(r, len);
    if (!p)
        return;
    if (memchr(p, '\0', len)) {
        r->error = -EBADMSG;
        return;
    }
    memcpy(ret_s, p, len);
    ret_s[len] = '\0';
}

struct state_reader state_get_group(struct state_reader *r, const char *tag)
{
    struct state_reader group = {.error = -EBADMSG};
    char found[4];
    uint32_t len;
    const uint8_t *p;

    state_get_bytes(r, found, sizeof(found));
    len = state_get_u32(r);
    if (r->error == 0 && memcmp(found, tag, sizeof(found)) != 0)
        r->error = -EBADMSG;
    p = reader_take(r, len);
    if (p)
        state_reader_init(&group, p, len);
    return group;
}

int state_reader_finish(const struct state_reader *r)
{
    if (r->error != 0)
        return r->error;
    return r->used == r->size ? 0 : -EBADMSG;
}
