/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One list of a struct's fields for both directions: what is saved and what is
 * loaded cannot drift apart, because there is only one table.
 *
 *   static const struct state_field fields[] = {
 *       STATE_FIELD(struct thing, status),
 *       STATE_FIELD(struct thing, address),
 *   };
 *   state_put_fields(w, thing, fields, ARRAY_SIZE(fields));
 *   state_get_fields(r, thing, fields, ARRAY_SIZE(fields));
 *
 * Fields are little-endian and as wide as the member; members are fixed-width
 * unsigned integers, bytes, bool, or arrays of these; anything else does not
 * compile. What values mean is the caller's to check.
 */
#ifndef MICROSBX_BASE_STATE_FIELD_H
#define MICROSBX_BASE_STATE_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/codec.h"

enum state_field_kind {
    STATE_FIELD_BOOL, /* one byte, 0 or 1 */
    STATE_FIELD_U8,
    STATE_FIELD_U16,
    STATE_FIELD_U32,
    STATE_FIELD_U64,
};

struct state_field {
    size_t offset;
    enum state_field_kind kind;
    size_t count; /* elements; 1 but for arrays */
};

#define STATE_FIELD_KIND(value)                                                \
    _Generic((value), bool                                                     \
             : STATE_FIELD_BOOL, char                                          \
             : STATE_FIELD_U8, uint8_t                                         \
             : STATE_FIELD_U8, uint16_t                                        \
             : STATE_FIELD_U16, uint32_t                                       \
             : STATE_FIELD_U32, uint64_t                                       \
             : STATE_FIELD_U64, unsigned long long                             \
             : STATE_FIELD_U64)

#define STATE_FIELD(type, member)                                              \
    {                                                                          \
        offsetof(type, member), STATE_FIELD_KIND(((type *)0)->member), 1       \
    }
#define STATE_FIELD_ARRAY(type, member)                                        \
    {                                                                          \
        offsetof(type, member), STATE_FIELD_KIND(((type *)0)->member[0]),      \
            sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0])       \
    }

void state_put_fields(struct state_writer *w, const void *object,
                      const struct state_field *fields, size_t count);
/*
 * A bool that is neither 0 nor 1 is the reader's error. After an error fields
 * are 0.
 */
void state_get_fields(struct state_reader *r, void *ret_object,
                      const struct state_field *fields, size_t count);

#endif
