/* SPDX-License-Identifier: Apache-2.0 */
/* Fields by a table; see the header. */
#include "base/state_field.h"

#include <errno.h>
#include <string.h>

static void put_field(struct state_writer *w, const uint8_t *at,
                      enum state_field_kind kind)
{
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;

    switch (kind) {
    case STATE_FIELD_BOOL:
        state_put_u8(w, *(const bool *)at);
        break;
    case STATE_FIELD_U8:
        state_put_u8(w, *at);
        break;
    case STATE_FIELD_U16:
        memcpy(&u16, at, sizeof(u16));
        state_put_u16(w, u16);
        break;
    case STATE_FIELD_U32:
        memcpy(&u32, at, sizeof(u32));
        state_put_u32(w, u32);
        break;
    case STATE_FIELD_U64:
    default:
        memcpy(&u64, at, sizeof(u64));
        state_put_u64(w, u64);
        break;
    }
}

static bool get_bool(struct state_reader *r)
{
    uint8_t value = state_get_u8(r);

    if (value > 1 && r->error == 0)
        r->error = -EBADMSG;
    return value == 1;
}

static void get_field(struct state_reader *r, uint8_t *at,
                      enum state_field_kind kind)
{
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;

    switch (kind) {
    case STATE_FIELD_BOOL:
        *(bool *)at = get_bool(r);
        break;
    case STATE_FIELD_U8:
        *at = state_get_u8(r);
        break;
    case STATE_FIELD_U16:
        u16 = state_get_u16(r);
        memcpy(at, &u16, sizeof(u16));
        break;
    case STATE_FIELD_U32:
        u32 = state_get_u32(r);
        memcpy(at, &u32, sizeof(u32));
        break;
    case STATE_FIELD_U64:
    default:
        u64 = state_get_u64(r);
        memcpy(at, &u64, sizeof(u64));
        break;
    }
}

static size_t field_width(enum state_field_kind kind)
{
    switch (kind) {
    case STATE_FIELD_BOOL:
        return sizeof(bool);
    case STATE_FIELD_U8:
        return sizeof(uint8_t);
    case STATE_FIELD_U16:
        return sizeof(uint16_t);
    case STATE_FIELD_U32:
        return sizeof(uint32_t);
    case STATE_FIELD_U64:
    default:
        return sizeof(uint64_t);
    }
}

void state_put_fields(struct state_writer *w, const void *object,
                      const struct state_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct state_field *f = &fields[i];
        const uint8_t *at = (const uint8_t *)object + f->offset;

        if (f->kind == STATE_FIELD_U8)
            state_put_bytes(w, at, f->count);
        else
            for (size_t n = 0; n < f->count; n++)
                put_field(w, at + n * field_width(f->kind), f->kind);
    }
}

void state_get_fields(struct state_reader *r, void *ret_object,
                      const struct state_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct state_field *f = &fields[i];
        uint8_t *at = (uint8_t *)ret_object + f->offset;

        if (f->kind == STATE_FIELD_U8)
            state_get_bytes(r, at, f->count);
        else
            for (size_t n = 0; n < f->count; n++)
                get_field(r, at + n * field_width(f->kind), f->kind);
    }
}
