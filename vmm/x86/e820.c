/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory list of the machine's map. RAM up to the hole, the rest from
 * 4 GiB on; devices are in no range at all.
 */
#include "vmm/x86/e820.h"

#include "base/num.h"
#include "vmm/x86/map.h"

#define LOW_MEMORY_END 0xa0000ull /* where PC RAM of old ended */

static void e820_add(struct e820_range *ranges, unsigned *count, uint64_t start,
                     uint64_t end, uint32_t type)
{
    ranges[(*count)++] =
        (struct e820_range){.start = start, .size = end - start, .type = type};
}

unsigned e820_build(uint64_t memory_bytes,
                    struct e820_range ranges[E820_RANGES_MAX])
{
    uint64_t low_end = num_min(memory_bytes, MAP_RAM_HOLE_START);
    unsigned count = 0;

    e820_add(ranges, &count, 0, MAP_EBDA, E820_TYPE_RAM);
    e820_add(ranges, &count, MAP_EBDA, LOW_MEMORY_END, E820_TYPE_RESERVED);
    /*
     * Kernels look for ACPI here even if told where it is, and never use what
     * lies between 640 KiB and 1 MiB as RAM: ACPI tables and the generation
     * id are safe here.
     */
    e820_add(ranges, &count, MAP_ACPI, MAP_ACPI_END, E820_TYPE_RESERVED);
    e820_add(ranges, &count, MAP_KERNEL_MIN, low_end, E820_TYPE_RAM);
    /* KVM's own pages on Intel: the task state segment follows the map. */
    e820_add(ranges, &count, MAP_KVM_IDENTITY, MAP_KVM_TSS + 3 * 4 * KIB,
             E820_TYPE_RESERVED);
    if (memory_bytes > low_end)
        e820_add(ranges, &count, MAP_RAM_HOLE_END,
                 MAP_RAM_HOLE_END + (memory_bytes - low_end), E820_TYPE_RAM);
    return count;
}
