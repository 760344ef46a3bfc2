/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: lookup of address ranges, and copies. Not an allocator: the
 * mappings belong to the machine.
 */
#include "devices/guest_mem.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"

/* Both ranges are known not to wrap. */
static bool regions_overlap(const struct guest_mem_region *a, gpa_t base,
                            uint64_t size)
{
    return a->base < base + size && base < a->base + a->size;
}

int guest_mem_add(struct guest_mem *mem, gpa_t base, uint64_t size,
                  uint8_t *host)
{
    uint64_t end;

    /* An end of exactly 2^64 counts as wrapping: no machine has it. */
    if (!host || size == 0 || num_add_overflow(base, size, &end))
        return -EINVAL;
    if (mem->region_count >= GUEST_MEM_REGIONS_MAX)
        return -ENOSPC;
    for (unsigned i = 0; i < mem->region_count; i++) {
        if (regions_overlap(&mem->regions[i], base, size))
            return -EEXIST;
    }
    mem->regions[mem->region_count++] =
        (struct guest_mem_region){.base = base, .size = size, .host = host};
    return 0;
}

void *guest_mem_ptr(const struct guest_mem *mem, gpa_t gpa, uint64_t len)
{
    /*
     * An empty range has no address: a pointer to it could lie one past the
     * end of a region, and no caller has a use for it.
     */
    if (len == 0)
        return NULL;
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_mem_region *r = &mem->regions[i];

        if (num_range_within(gpa, len, r->base, r->size))
            return r->host + (gpa - r->base);
    }
    return NULL;
}

int guest_mem_read(const struct guest_mem *mem, gpa_t gpa, void *ret_bytes,
                   size_t len)
{
    const void *from = guest_mem_ptr(mem, gpa, len);

    if (!from)
        return -EFAULT;
    memcpy(ret_bytes, from, len);
    return 0;
}

int guest_mem_write(const struct guest_mem *mem, gpa_t gpa, const void *bytes,
                    size_t len)
{
    void *to = guest_mem_ptr(mem, gpa, len);

    if (!to)
        return -EFAULT;
    guest_mem_mark_dirty(mem, gpa, len);
    memcpy(to, bytes, len);
    return 0;
}

static uint64_t region_pages(const struct guest_mem_region *r)
{
    return (r->size - 1) / GUEST_MEM_PAGE + 1; /* no region is empty */
}

uint64_t guest_mem_pages(const struct guest_mem *mem)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < mem->region_count; i++)
        pages += region_pages(&mem->regions[i]);
    return pages;
}

/* Sets bits [first, last]. */
static void bits_set(uint64_t *bits, uint64_t first, uint64_t last)
{
    for (uint64_t word = first / 64; word <= last / 64; word++) {
        uint64_t mask = UINT64_MAX;

        if (word == first / 64)
            mask &= UINT64_MAX << (first % 64);
        if (word == last / 64)
            mask &= UINT64_MAX >> (63 - last % 64);
        /*
         * Atomic, because the device thread and a vCPU's thread may set bits
         * of one word at once. It orders nothing: who reads them has stopped
         * both. Mostly they are set already.
         */
        if ((__atomic_load_n(&bits[word], __ATOMIC_RELAXED) & mask) != mask)
            __atomic_fetch_or(&bits[word], mask, __ATOMIC_RELAXED);
    }
}

void guest_mem_mark_dirty(const struct guest_mem *mem, gpa_t gpa, uint64_t len)
{
    uint64_t page = 0;

    if (!mem->dirty || len == 0)
        return;
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_mem_region *r = &mem->regions[i];

        if (num_range_within(gpa, len, r->base, r->size)) {
            uint64_t offset = gpa - r->base;

            bits_set(mem->dirty, page + offset / GUEST_MEM_PAGE,
                     page + (offset + len - 1) / GUEST_MEM_PAGE);
            return;
        }
        page += region_pages(r);
    }
}
