/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the protocol's codec, shared by proto.c and proto_snapshot.c:
 * numbers, texts and frames as bytes. Nobody else includes this.
 */
#ifndef MICROSBX_GUEST_PROTO_BYTES_H
#define MICROSBX_GUEST_PROTO_BYTES_H

#include <stddef.h>
#include <stdint.h>

#include "guest/proto.h"

/* Sizes of payloads that both parts must know: the fixed part of each. */
#define PROTO_ATTACH_SIZE 24u
#define PROTO_QUIESCED_SIZE 28u
#define PROTO_RESTORE_FIXED                                                    \
    (20u + PROTO_ENTROPY_SIZE)  /* then the limit, then the host name          \
                                 */
#define PROTO_RESTORED_FIXED 8u /* then the boot id */

/* Little-endian, at any alignment. */
void proto_put16(uint8_t *p, uint16_t value);
void proto_put32(uint8_t *p, uint32_t value);
void proto_put64(uint8_t *p, uint64_t value);
uint16_t proto_get16(const uint8_t *p);
uint32_t proto_get32(const uint8_t *p);
uint64_t proto_get64(const uint8_t *p);

/*
 * A text of a payload: `len` bytes at p that must be within `end`, without a
 * NUL inside and shorter than size. 0 or -EBADMSG.
 */
int proto_copy_text(const uint8_t *p, const uint8_t *end, size_t len,
                    char *ret_text, size_t size)
    __attribute__((warn_unused_result));

/*
 * Reserves a frame and writes its header: where the payload goes, or NULL
 * (and overflow) if there is no room.
 */
uint8_t *proto_put_frame(struct proto_writer *w, uint16_t type, uint32_t id,
                         size_t length);

#endif
