/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identity page tables and GDT of the boot CPU. Written once, straight into
 * guest memory; what the guest does with them later is its own business.
 */
#include "vmm/x86/page_tables.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "vmm/x86/map.h"

#define TABLE_SIZE 0x1000u
#define TABLE_ENTRIES 512u
#define LARGE_PAGE (2 * MIB)
#define MAPPED_GIB 4u

/* Page table entry bits (Intel SDM, 4.5). */
#define PTE_PRESENT 0x01u
#define PTE_WRITE 0x02u
#define PTE_LARGE 0x80u

/* Flat 4 GiB segments, accessed: 64-bit code, and data. */
#define GDT_CODE_64 0x00af9b000000ffffull
#define GDT_DATA 0x00cf93000000ffffull

int page_tables_write(const struct guest_mem *mem, gpa_t *ret_cr3)
{
    const gpa_t pml4 = MAP_PAGE_TABLES;
    const gpa_t pdpt = pml4 + TABLE_SIZE;
    const gpa_t directories = pdpt + TABLE_SIZE;
    const size_t size = (2u + MAPPED_GIB) * TABLE_SIZE;
    uint8_t *tables = guest_mem_ptr(mem, pml4, size);

    if (!tables)
        return -EFAULT;
    memset(tables, 0, size);
    num_put_le64(tables, pdpt | PTE_PRESENT | PTE_WRITE);
    for (unsigned i = 0; i < MAPPED_GIB; i++)
        num_put_le64(tables + TABLE_SIZE + i * 8u,
                     (directories + i * TABLE_SIZE) | PTE_PRESENT | PTE_WRITE);
    for (unsigned i = 0; i < MAPPED_GIB * TABLE_ENTRIES; i++)
        num_put_le64(tables + 2u * TABLE_SIZE + i * 8u,
                     i * LARGE_PAGE | PTE_PRESENT | PTE_WRITE | PTE_LARGE);
    *ret_cr3 = pml4;
    return 0;
}

int page_tables_write_gdt(const struct guest_mem *mem, uint16_t *ret_limit)
{
    uint8_t gdt[BOOT_DS + 8u] = {0};
    int ret;

    num_put_le64(gdt + BOOT_CS, GDT_CODE_64);
    num_put_le64(gdt + BOOT_DS, GDT_DATA);
    ret = guest_mem_write(mem, MAP_GDT, gdt, sizeof(gdt));
    if (ret < 0)
        return ret;
    *ret_limit = sizeof(gdt) - 1;
    return 0;
}
