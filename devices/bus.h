/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An address bus (one for port I/O, one for MMIO): finds the device whose
 * range holds an access and calls it. Accesses of 1, 2, 4 or 8 bytes.
 *
 * An access that no device claims reads as all ones and writes nothing, and is
 * counted. An access that straddles the end of a range is unclaimed.
 *
 * Owner: the machine; ranges are added before any vCPU runs and are constant
 * afterwards. bus_read and bus_write may be called from several vCPU threads at
 * once: what lies behind an operation does its own locking.
 */
#ifndef MICROSBX_DEVICES_BUS_H
#define MICROSBX_DEVICES_BUS_H

#include <stdatomic.h>
#include <stdint.h>

#define BUS_RANGES_MAX 32

/* offset is relative to the range's base; size is 1, 2, 4 or 8 bytes. */
struct bus_ops {
    uint64_t (*read)(void *ctx, uint64_t offset, unsigned size);
    void (*write)(void *ctx, uint64_t offset, unsigned size, uint64_t value);
};

struct bus_range {
    uint64_t base;
    uint64_t size;
    const struct bus_ops *ops;
    void *ctx; /* borrowed: the device outlives the bus's last access */
};

struct bus {
    struct bus_range ranges[BUS_RANGES_MAX];
    unsigned range_count;
    atomic_uint_fast64_t unclaimed; /* accesses that found no device */
};

/* 0, -ENOSPC, -EINVAL (empty or wraps) or -EEXIST (overlaps). */
int bus_add(struct bus *bus, uint64_t base, uint64_t size,
            const struct bus_ops *ops, void *ctx)
    __attribute__((warn_unused_result));

uint64_t bus_read(struct bus *bus, uint64_t address, unsigned size);
void bus_write(struct bus *bus, uint64_t address, unsigned size,
               uint64_t value);

#endif
