/* SPDX-License-Identifier: Apache-2.0 */
/* Checked arithmetic and little-endian bytes; see the header. */
#include "base/num.h"

bool num_range_within(uint64_t start, uint64_t len, uint64_t base,
                      uint64_t size)
{
    if (start < base || start - base > size)
        return false;
    return len <= size - (start - base);
}

bool num_add_overflow(uint64_t a, uint64_t b, uint64_t *ret_sum)
{
    uint64_t sum;

    if (__builtin_add_overflow(a, b, &sum))
        return true;
    *ret_sum = sum;
    return false;
}

bool num_mul_overflow(uint64_t a, uint64_t b, uint64_t *ret_product)
{
    uint64_t product;

    if (__builtin_mul_overflow(a, b, &product))
        return true;
    *ret_product = product;
    return false;
}

uint64_t num_align_up(uint64_t value, uint64_t align)
{
    uint64_t sum;

    if (num_add_overflow(value, align - 1, &sum))
        return UINT64_MAX;
    return sum & ~(align - 1);
}

uint64_t num_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Reads n little-endian bytes; compilers make one load of it. */
static uint64_t get_le(const uint8_t *p, unsigned n)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < n; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

static void put_le(uint8_t *p, unsigned n, uint64_t value)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

uint16_t num_get_le16(const void *p)
{
    return (uint16_t)get_le(p, 2);
}

uint32_t num_get_le32(const void *p)
{
    return (uint32_t)get_le(p, 4);
}

uint64_t num_get_le64(const void *p)
{
    return get_le(p, 8);
}

void num_put_le16(void *p, uint16_t value)
{
    put_le(p, 2, value);
}

void num_put_le32(void *p, uint32_t value)
{
    put_le(p, 4, value);
}

void num_put_le64(void *p, uint64_t value)
{
    put_le(p, 8, value);
}
