/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory and kernel files for tests; see the header. */
#include "tests/mini_kernel.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "vmm/x86/map.h"

#define GUARD (1u << 16)

static void add_region(struct mini_ram *ram, gpa_t base, uint64_t size)
{
    unsigned n = ram->mem.region_count;
    size_t len = size + 2u * GUARD;
    uint8_t *start = mmap(NULL, len, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (start == MAP_FAILED ||
        mprotect(start + GUARD, size, PROT_READ | PROT_WRITE) < 0 ||
        guest_mem_add(&ram->mem, base, size, start + GUARD) < 0)
        abort();
    ram->mappings[n].start = start;
    ram->mappings[n].len = len;
}

void mini_ram_init(struct mini_ram *ram, uint64_t memory_bytes)
{
    uint64_t low = num_min(memory_bytes, MAP_RAM_HOLE_START);

    memset(ram, 0, sizeof(*ram));
    add_region(ram, 0, low);
    if (memory_bytes > low)
        add_region(ram, MAP_RAM_HOLE_END, memory_bytes - low);
}

void mini_ram_fini(struct mini_ram *ram)
{
    for (unsigned i = 0; i < ram->mem.region_count; i++)
        munmap(ram->mappings[i].start, ram->mappings[i].len);
    memset(ram, 0, sizeof(*ram));
}

int mini_ram_is_zero(const struct mini_ram *ram, gpa_t gpa, uint64_t len)
{
    const uint8_t *bytes = guest_mem_ptr(&ram->mem, gpa, len);

    if (!bytes)
        return 0;
    for (uint64_t i = 0; i < len; i++) {
        if (bytes[i] != 0)
            return 0;
    }
    return 1;
}

/* Bytes that differ from their neighbours, and are never zero. */
static void fill_pattern(uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(1 + i % 251);
}

void mini_bzimage_make(uint8_t *buf)
{
    memset(buf, 0, MINI_BZIMAGE_SETUP);
    memcpy(buf, "MZ", 2);
    buf[0x1f1] = 1; /* setup_sects: one besides the boot sector */
    num_put_le32(buf + 0x1f4, MINI_BZIMAGE_PAYLOAD / 16);
    num_put_le16(buf + 0x1fe, 0xaa55);
    buf[0x200] = 0xeb; /* jump over the header, up to 0x26c */
    buf[0x201] = 0x6a;
    memcpy(buf + 0x202, "HdrS", 4);
    num_put_le16(buf + 0x206, 0x020f);
    buf[0x211] = 0x01;                     /* loadflags: LOADED_HIGH */
    num_put_le32(buf + 0x22c, 0x7fffffff); /* initrd_addr_max */
    num_put_le32(buf + 0x230, 0x200000);   /* kernel_alignment */
    buf[0x234] = 1;                        /* relocatable_kernel */
    num_put_le16(buf + 0x236, 0x0001);     /* XLF_KERNEL_64 */
    num_put_le32(buf + 0x238, 2047);       /* cmdline_size */
    num_put_le64(buf + 0x258, MINI_LOAD_ADDRESS);
    num_put_le32(buf + 0x260, MINI_BZIMAGE_INIT_SIZE);
    fill_pattern(buf + MINI_BZIMAGE_SETUP, MINI_BZIMAGE_PAYLOAD);
}

static void put_segment(uint8_t *p, uint64_t offset, uint64_t address,
                        uint64_t file_size, uint64_t memory_size)
{
    num_put_le32(p, 1); /* PT_LOAD */
    num_put_le64(p + 8, offset);
    num_put_le64(p + 16, address | 0xffffffff80000000ull);
    num_put_le64(p + 24, address);
    num_put_le64(p + 32, file_size);
    num_put_le64(p + 40, memory_size);
}

void mini_elf_make(uint8_t *buf)
{
    static const uint8_t ident[] = {0x7f, 'E', 'L', 'F', 2, 1, 1};

    memset(buf, 0, MINI_ELF_SIZE);
    memcpy(buf, ident, sizeof(ident));
    num_put_le16(buf + 16, 2);  /* ET_EXEC */
    num_put_le16(buf + 18, 62); /* EM_X86_64 */
    num_put_le32(buf + 20, 1);
    num_put_le64(buf + 24, MINI_LOAD_ADDRESS + 0x10); /* entry */
    num_put_le64(buf + 32, MINI_ELF_PHDRS);
    num_put_le64(buf + 40, MINI_ELF_SECTIONS);
    num_put_le16(buf + 52, 64); /* size of this header */
    num_put_le16(buf + 54, MINI_ELF_PHDR_SIZE);
    num_put_le16(buf + 56, 2); /* program headers */
    num_put_le16(buf + 58, 64);
    num_put_le16(buf + 60, 1); /* section headers */
    put_segment(buf + MINI_ELF_PHDRS, MINI_ELF_CODE, MINI_LOAD_ADDRESS,
                MINI_ELF_CODE_SIZE, MINI_ELF_CODE_SIZE);
    put_segment(buf + MINI_ELF_PHDRS + MINI_ELF_PHDR_SIZE, MINI_ELF_DATA,
                MINI_ELF_DATA_ADDRESS, MINI_ELF_DATA_SIZE,
                MINI_ELF_DATA_MEMORY);
    fill_pattern(buf + MINI_ELF_CODE, MINI_ELF_CODE_SIZE);
    fill_pattern(buf + MINI_ELF_DATA, MINI_ELF_DATA_SIZE);
}

int mini_file_sized(const void *bytes, size_t len, uint64_t size)
{
    int fd = memfd_create("mini", MFD_CLOEXEC);

    if (fd < 0 || io_pwrite_full(fd, bytes, len, 0) < 0 ||
        ftruncate(fd, (off_t)size) < 0)
        abort();
    return fd;
}

int mini_file(const void *bytes, size_t len)
{
    return mini_file_sized(bytes, len, len);
}
