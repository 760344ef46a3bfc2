/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's view of its memory: RAM, and what of it is spoken for. One list
 * for the zero page and the device tree.
 */
#ifndef MICROSBX_VMM_X86_E820_H
#define MICROSBX_VMM_X86_E820_H

#include <stdint.h>

#define E820_RANGES_MAX 8u

/* Values of the BIOS call the table is named after (ACPI 6.4, 15). */
#define E820_TYPE_RAM 1u
#define E820_TYPE_RESERVED 2u

struct e820_range {
    uint64_t start;
    uint64_t size;
    uint32_t type;
};

/*
 * Fills ranges, sorted and without overlap, for a guest of memory_bytes (at
 * least VM_MEMORY_MIN). Returns how many.
 */
unsigned e820_build(uint64_t memory_bytes,
                    struct e820_range ranges[E820_RANGES_MAX]);

#endif
