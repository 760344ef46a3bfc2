/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte codec for control messages and saved state: fixed-width little-endian
 * fields in a caller's buffer.
 *
 * Both ends remember their first error, so that a caller encodes or decodes a
 * whole record and checks once. A reader never reads past its buffer; after an
 * error it yields zeros.
 */
#ifndef MICROSBX_BASE_CODEC_H
#define MICROSBX_BASE_CODEC_H

#include <stddef.h>
#include <stdint.h>

struct state_writer {
    uint8_t *buf;
    size_t size;
    size_t used;
    int error; /* 0 or -ENOSPC */
};

struct state_reader {
    const uint8_t *buf;
    size_t size;
    size_t used;
    int error; /* 0 or -EBADMSG */
};

void state_writer_init(struct state_writer *w, void *buf, size_t size);
void state_put_u8(struct state_writer *w, uint8_t value);
void state_put_u16(struct state_writer *w, uint16_t value);
void state_put_u32(struct state_writer *w, uint32_t value);
void state_put_u64(struct state_writer *w, uint64_t value);
void state_put_bytes(struct state_writer *w, const void *bytes, size_t len);
/* A u32 length and the bytes of a string, without its final NUL. */
void state_put_string(struct state_writer *w, const char *s);

/*
 * A group of fields with a name: tag (four characters), u32 length, fields. So
 * that a comparison can say what differs, and a reader is held to the group.
 * _begin returns what _end needs.
 */
size_t state_group_begin(struct state_writer *w, const char *tag);
void state_group_end(struct state_writer *w, size_t begun);

void state_reader_init(struct state_reader *r, const void *buf, size_t size);
uint8_t state_get_u8(struct state_reader *r);
uint16_t state_get_u16(struct state_reader *r);
uint32_t state_get_u32(struct state_reader *r);
uint64_t state_get_u64(struct state_reader *r);
void state_get_bytes(struct state_reader *r, void *ret_bytes, size_t len);
/*
 * Reads a string into ret_s (always terminated). Longer than size - 1, or
 * with a NUL inside: an error.
 */
void state_get_string(struct state_reader *r, char *ret_s, size_t size);

/*
 * The next group as a reader of its own (finish it, too). Another tag, or a
 * length beyond the end: an error in both.
 */
struct state_reader state_get_group(struct state_reader *r, const char *tag);

/* 0 if everything was read without error and nothing is left over. */
int state_reader_finish(const struct state_reader *r)
    __attribute__((warn_unused_result));

#endif
