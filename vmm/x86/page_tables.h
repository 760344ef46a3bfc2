/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor tables that a kernel starts on: identity page tables and a
 * GDT, as the 64-bit boot protocol asks for. The kernel soon makes its own.
 */
#ifndef MICROSBX_VMM_X86_PAGE_TABLES_H
#define MICROSBX_VMM_X86_PAGE_TABLES_H

#include <stdint.h>

#include "devices/guest_mem.h"

/* Selectors in the GDT, given by the boot protocol. */
#define BOOT_CS 0x10u
#define BOOT_DS 0x18u

/*
 * Maps the low 4 GiB onto themselves by pages of 2 MiB, at MAP_PAGE_TABLES;
 * *ret_cr3 is what CR3 takes. 0 or -EFAULT.
 */
int page_tables_write(const struct guest_mem *mem, gpa_t *ret_cr3)
    __attribute__((warn_unused_result));

/* A GDT with BOOT_CS and BOOT_DS at MAP_GDT; *ret_limit is its limit. */
int page_tables_write_gdt(const struct guest_mem *mem, uint16_t *ret_limit)
    __attribute__((warn_unused_result));

#endif
