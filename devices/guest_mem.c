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
    memcpy(to, bytes, len);
    return 0;
}
