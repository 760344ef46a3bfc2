/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's map, version 1. Frozen: snapshots name it. dsdt.asl says the
 * same in ACPI's words (a unit test compares).
 */
#ifndef MICROSBX_VMM_X86_MAP_H
#define MICROSBX_VMM_X86_MAP_H

#define MAP_VERSION 1u

/* RAM below the hole, then from 4 GiB on. */
#define MAP_RAM_HOLE_START 0xc0000000ull
#define MAP_RAM_HOLE_END 0x100000000ull

#define MAP_VIRTIO_BASE 0xd0000000ull
#define MAP_VIRTIO_STRIDE 0x1000ull
#define MAP_VIRTIO_SLOTS 16u
#define MAP_VIRTIO_GSI 5u /* of slot 0; slot n has GSI 5 + n */

#define MAP_CONTROL_PAGE 0xd0010000ull /* and the page after it: panic */
#define MAP_EVENT_GSI 21u              /* generic event device (ACPI0013) */

#define MAP_SERIAL_PORT 0x3f8u
#define MAP_SERIAL_GSI 4u

#define MAP_IOAPIC 0xfec00000ull
#define MAP_LAPIC 0xfee00000ull
#define MAP_KVM_TSS 0xfffbd000ull /* three pages, for KVM on Intel */
#define MAP_KVM_IDENTITY 0xfffbc000ull

/* Low memory used while booting; all below 640 KiB. */
#define MAP_GDT 0x500ull
#define MAP_BOOT_STACK 0x8ff0ull
#define MAP_ZERO_PAGE 0x7000ull
#define MAP_PAGE_TABLES 0x9000ull /* 6 pages: the low 4 GiB, identity */
#define MAP_CMDLINE 0x20000ull
#define MAP_SETUP_DATA 0x30000ull /* device tree, up to 64 KiB */
#define MAP_EBDA 0x9fc00ull
/* Reserved in e820: tables, RSDP first, then the generation id's page. */
#define MAP_ACPI 0xe0000ull
#define MAP_VMGENID_PAGE 0xef000ull /* the id is its first 16 bytes */
#define MAP_RESET_VECTOR 0xffff0ull /* real mode f000:fff0; see boot.c */
#define MAP_ACPI_END 0x100000ull
#define MAP_KERNEL_MIN 0x100000ull

#endif
