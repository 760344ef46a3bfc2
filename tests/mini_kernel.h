/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests and fuzzers of the boot code: guest memory laid out as the machine
 * does it, with guard pages around each region, and the smallest kernel files
 * that the loaders take, made by hand.
 *
 * Test code only: a failure of the test's own set-up aborts.
 */
#ifndef MICROSBX_TESTS_MINI_KERNEL_H
#define MICROSBX_TESTS_MINI_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "devices/guest_mem.h"

#define MINI_LOAD_ADDRESS 0x1000000ull /* of both images */

/* bzImage: two sectors of setup, then the payload. */
#define MINI_BZIMAGE_SETUP 1024u
#define MINI_BZIMAGE_PAYLOAD 1536u
#define MINI_BZIMAGE_SIZE (MINI_BZIMAGE_SETUP + MINI_BZIMAGE_PAYLOAD)
#define MINI_BZIMAGE_INIT_SIZE 0x10000u

/* ELF: header, two program headers, code, data, one section header. */
#define MINI_ELF_PHDRS 64u
#define MINI_ELF_PHDR_SIZE 56u
#define MINI_ELF_CODE 0x100u
#define MINI_ELF_CODE_SIZE 0x100u
#define MINI_ELF_DATA 0x200u
#define MINI_ELF_DATA_SIZE 0x80u
#define MINI_ELF_DATA_MEMORY 0x2000u /* the rest is bss */
#define MINI_ELF_DATA_ADDRESS (MINI_LOAD_ADDRESS + 0x1000u)
#define MINI_ELF_SECTIONS 0x280u
#define MINI_ELF_SIZE 0x2c0u

struct mini_ram {
    struct guest_mem mem;
    struct {
        uint8_t *start;
        size_t len;
    } mappings[2]; /* owned, guards included */
};

/* RAM below 3 GiB, the rest from 4 GiB on; nothing of it is touched yet. */
void mini_ram_init(struct mini_ram *ram, uint64_t memory_bytes);
void mini_ram_fini(struct mini_ram *ram);

/* 1 if [gpa, gpa + len) is RAM and reads as zero. */
int mini_ram_is_zero(const struct mini_ram *ram, gpa_t gpa, uint64_t len);

/* Fill buf, which has room for MINI_..._SIZE bytes. */
void mini_bzimage_make(uint8_t *buf);
void mini_elf_make(uint8_t *buf);

/* A memory file with these bytes; the caller closes it. */
int mini_file(const void *bytes, size_t len);
/* The same with a hole up to size, for files too large to write. */
int mini_file_sized(const void *bytes, size_t len, uint64_t size);

#endif
