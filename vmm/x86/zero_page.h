/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The zero page (struct boot_params): everything a kernel is told by the boot
 * loader, in one page at MAP_ZERO_PAGE.
 */
#ifndef MICROSBX_VMM_X86_ZERO_PAGE_H
#define MICROSBX_VMM_X86_ZERO_PAGE_H

#include <stdint.h>

#include "vmm/x86/boot.h"

/* Limits a kernel states in its setup header. */
struct zero_page_limits {
    uint32_t cmdline_max;  /* bytes, without the final NUL */
    gpa_t initrd_addr_max; /* last address an initrd may take up */
};

/* Where things were put; 0 for what there is none of. */
struct zero_page_facts {
    uint64_t memory_bytes;
    gpa_t cmdline;
    gpa_t initrd;
    uint32_t initrd_size;
    gpa_t rsdp;
    gpa_t setup_data;
};

/* The kernel's limits, or Linux's usual ones for an ELF image. */
struct zero_page_limits zero_page_limits(const struct kernel_image *image);

/* Writes the zero page: 0 or -EFAULT. */
int zero_page_write(const struct guest_mem *mem,
                    const struct kernel_image *image,
                    const struct zero_page_facts *facts)
    __attribute__((warn_unused_result));

#endif
