/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers, texts and frames as bytes; see the header. */
#include "guest/proto_bytes.h"

#include <errno.h>
#include <string.h>

void proto_put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value & 0xff);
    p[1] = (uint8_t)(value >> 8);
}

void proto_put32(uint8_t *p, uint32_t value)
{
    proto_put16(p, (uint16_t)(value & 0xffff));
    proto_put16(p + 2, (uint16_t)(value >> 16));
}

void proto_put64(uint8_t *p, uint64_t value)
{
    proto_put32(p, (uint32_t)(value & 0xffffffffu));
    proto_put32(p + 4, (uint32_t)(value >> 32));
}

uint16_t proto_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | (uint16_t)p[1] << 8);
}

uint32_t proto_get32(const uint8_t *p)
{
    return proto_get16(p) | (uint32_t)proto_get16(p + 2) << 16;
}

uint64_t proto_get64(const uint8_t *p)
{
    return proto_get32(p) | (uint64_t)proto_get32(p + 4) << 32;
}

int proto_copy_text(const uint8_t *p, const uint8_t *end, size_t len,
                    char *ret_text, size_t size)
{
    if (len > (size_t)(end - p) || len >= size || memchr(p, '\0', len))
        return -EBADMSG;
    memcpy(ret_text, p, len);
    ret_text[len] = '\0';
    return 0;
}

uint8_t *proto_put_frame(struct proto_writer *w, uint16_t type, uint32_t id,
                         size_t length)
{
    uint8_t *p = w->buf + w->used;

    if (length > PROTO_PAYLOAD_MAX ||
        w->size - w->used < PROTO_HEADER_SIZE + length) {
        w->overflow = true;
        return NULL;
    }
    proto_put32(p, (uint32_t)length);
    proto_put16(p + 4, type);
    proto_put16(p + 6, 0);
    proto_put32(p + 8, id);
    w->used += PROTO_HEADER_SIZE + length;
    return p + PROTO_HEADER_SIZE;
}
