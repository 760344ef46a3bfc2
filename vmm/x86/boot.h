/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts a Linux kernel and all it is told into guest memory (Linux x86 boot
 * protocol, 64-bit entry). Pure: reads descriptors, writes guest memory through
 * guest_mem, knows nothing of KVM, so it runs and fuzzes without one.
 *
 * The kernel file is untrusted input of its own: elf.c and bzimage.c are its
 * only parsers.
 */
#ifndef MICROSBX_VMM_X86_BOOT_H
#define MICROSBX_VMM_X86_BOOT_H

#include <stdint.h>

#include "devices/guest_mem.h"
#include "vmm/monitor_proto.h"
#include "vmm/vm_config.h"

/* Which virtio slots are taken, for the device tree (ACPI lists all 16). */
struct boot_machine {
    uint64_t memory_bytes;
    uint32_t cpu_count;
    uint32_t virtio_slots_used; /* slots 0 .. used - 1 */
};

/* Where the boot CPU starts, in 64-bit mode. */
struct boot_entry {
    gpa_t rip;
    gpa_t rsi; /* the zero page (struct boot_params) */
    gpa_t rsp;
    gpa_t cr3; /* identity map of the low 4 GiB at least */
    gpa_t gdt;
    uint16_t gdt_limit;
};

/*
 * Loads config's kernel and initrd, writes command line, page tables, GDT,
 * e820, ACPI tables or device tree. Returns 0; else a negative errno with
 * *ret_error filled (KERNEL, INITRD, MEMORY or HOST).
 */
int boot_load_linux(const struct vm_config *config,
                    const struct boot_machine *machine,
                    const struct guest_mem *mem, struct boot_entry *ret_entry,
                    struct monitor_error *ret_error)
    __attribute__((warn_unused_result));

/* The file's own view, for fuzzers and unit tests. */
struct kernel_image {
    gpa_t entry;    /* 64-bit entry point */
    gpa_t load_end; /* first free address after the kernel and its bss */
    uint8_t setup_header[0x100]; /* bzImage: bytes 0x1f1..; zeros for ELF */
    uint32_t setup_header_len;   /* 0 for ELF */
};

int elf_load(int fd, const struct guest_mem *mem, struct kernel_image *ret,
             struct monitor_error *ret_error)
    __attribute__((warn_unused_result));
int bzimage_load(int fd, const struct guest_mem *mem, struct kernel_image *ret,
                 struct monitor_error *ret_error)
    __attribute__((warn_unused_result));

/* Writes all tables at MAP_ACPI; ret_rsdp is the RSDP's address. */
int acpi_write_tables(const struct boot_machine *machine,
                      const struct guest_mem *mem, gpa_t *ret_rsdp)
    __attribute__((warn_unused_result));

/* A new generation id where the tables say it is: 0 or a negative errno. */
int acpi_write_generation_id(const struct guest_mem *mem)
    __attribute__((warn_unused_result));

/* Flattened device tree into buf: 0 or a negative errno. */
int device_tree_build(const struct boot_machine *machine, const char *cmdline,
                      void *buf, uint32_t size, uint32_t *ret_len)
    __attribute__((warn_unused_result));

#endif
