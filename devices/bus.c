/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The address bus: a small table searched in order. With 19 ranges a linear
 * search costs a few nanoseconds, nothing beside the exit that led here.
 */
#include "devices/bus.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/num.h"

int bus_add(struct bus *bus, uint64_t base, uint64_t size,
            const struct bus_ops *ops, void *ctx)
{
    uint64_t end;

    if (size == 0 || num_add_overflow(base, size, &end))
        return -EINVAL;
    if (bus->range_count >= BUS_RANGES_MAX)
        return -ENOSPC;
    for (unsigned i = 0; i < bus->range_count; i++) {
        const struct bus_range *r = &bus->ranges[i];

        if (r->base < end && base < r->base + r->size)
            return -EEXIST;
    }
    bus->ranges[bus->range_count++] =
        (struct bus_range){.base = base, .size = size, .ops = ops, .ctx = ctx};
    return 0;
}

static bool size_is_valid(unsigned size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

/* The range that holds the whole access, or NULL (which is counted). */
static const struct bus_range *bus_find(struct bus *bus, uint64_t address,
                                        unsigned size)
{
    if (size_is_valid(size)) {
        for (unsigned i = 0; i < bus->range_count; i++) {
            const struct bus_range *r = &bus->ranges[i];

            if (num_range_within(address, size, r->base, r->size))
                return r;
        }
    }
    /* Only a statistic: no other memory hangs on its order. */
    atomic_fetch_add_explicit(&bus->unclaimed, 1, memory_order_relaxed);
    return NULL;
}

uint64_t bus_read(struct bus *bus, uint64_t address, unsigned size)
{
    const struct bus_range *r = bus_find(bus, address, size);
    uint64_t value = UINT64_MAX; /* what a bus with nobody on it reads as */

    if (r)
        value = r->ops->read(r->ctx, address - r->base, size);
    if (size < 8)
        value &= ((uint64_t)1 << (8 * size)) - 1;
    return value;
}

void bus_write(struct bus *bus, uint64_t address, unsigned size, uint64_t value)
{
    const struct bus_range *r = bus_find(bus, address, size);

    if (!r)
        return;
    if (size < 8)
        value &= ((uint64_t)1 << (8 * size)) - 1;
    r->ops->write(r->ctx, address - r->base, size, value);
}
