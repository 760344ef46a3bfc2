/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checked arithmetic for numbers that came from outside, and little-endian
 * access to byte buffers. Every function is total: no input is undefined.
 */
#ifndef MICROSBX_BASE_NUM_H
#define MICROSBX_BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)

/*
 * True if [start, start + len) lies within [base, base + size), without
 * overflow anywhere. An empty range at the very end is inside.
 */
bool num_range_within(uint64_t start, uint64_t len, uint64_t base,
                      uint64_t size);

/* True if a + b overflows; else stores the sum. */
bool num_add_overflow(uint64_t a, uint64_t b, uint64_t *ret_sum);

/* True if a * b overflows; else stores the product. */
bool num_mul_overflow(uint64_t a, uint64_t b, uint64_t *ret_product);

/* Rounds up to a multiple of align (a power of two); UINT64_MAX if it can't. */
uint64_t num_align_up(uint64_t value, uint64_t align);

uint64_t num_min(uint64_t a, uint64_t b);

/* Unaligned little-endian access to host memory. */
uint16_t num_get_le16(const void *p);
uint32_t num_get_le32(const void *p);
uint64_t num_get_le64(const void *p);
void num_put_le16(void *p, uint16_t value);
void num_put_le32(void *p, uint32_t value);
void num_put_le64(void *p, uint64_t value);

#endif
