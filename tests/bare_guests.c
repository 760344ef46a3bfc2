/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel files made of bare guests; see the header. The assembler reads
 * guests.S here, as part of this file: no build rule of its own, and the guests
 * are in every program that wants them.
 */
#include "tests/bare_guests.h"

#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"

__asm__(".include \"tests/vm/bare/guests.S\"\n"
        ".section .rodata\n.code64\n"
        ".include \"tests/vm/bare/snapshot.S\"\n"
        ".include \"tests/vm/bare/segments.S\"\n"
        ".include \"tests/vm/bare/disk.S\"\n"
        ".include \"tests/vm/bare/msrs.S\"");

#define LOAD_ADDRESS 0x100000u
#define CODE_OFFSET 0x1000u

/* clang-format off */
#define GUESTS(X) \
    X(hello) \
    X(reset_page) \
    X(reset_port) \
    X(triple_fault) \
    X(panic) \
    X(crash_loaded) \
    X(exit_zero) \
    X(exit_seven) \
    X(exit_large) \
    X(fetch_nowhere) \
    X(spin) \
    X(ends_later) \
    X(halt) \
    X(port_storm) \
    X(notify_storm) \
    X(console_storm) \
    X(console_lines) \
    X(console_flood) \
    X(out_storm) \
    X(dirty_pages) \
    X(empty_slot) \
    X(first_slot) \
    X(nowhere) \
    X(odd_accesses) \
    X(cpuid) \
    X(two_cpus) \
    X(tick) \
    X(patterns) \
    X(fpu) \
    X(null_segments) \
    X(odd_segments) \
    X(ymm) \
    X(zmm) \
    X(pkru) \
    X(extended) \
    X(generation) \
    X(timer) \
    X(deadline) \
    X(four_cpus) \
    X(reads) \
    X(rng_queue) \
    X(disk_script) \
    X(disk_writes) \
    X(disk_synced_writes) \
    X(disk_write_spin) \
    X(disk_zeroes) \
    X(disk_rounds) \
    X(dirty_50) \
    X(dirty_1000) \
    X(dirty_20000) \
    X(ready) \
    X(ready_counts) \
    X(ready_fills) \
    X(ready_tells) \
    X(ready_again) \
    X(msrs)
/* clang-format on */

#define DECLARE(name) extern const uint8_t bare_##name[], bare_##name##_end[];
GUESTS(DECLARE)

#define ENTRY(name) {#name, bare_##name, bare_##name##_end},
static const struct {
    const char *name;
    const uint8_t *code;
    const uint8_t *end;
} guests[] = {GUESTS(ENTRY)};

/* One segment, loaded where it is linked. */
static int write_kernel(int fd, const uint8_t *code, size_t len)
{
    const Elf64_Phdr phdr = {
        .p_type = PT_LOAD,
        .p_flags = PF_R | PF_X,
        .p_offset = CODE_OFFSET,
        .p_vaddr = LOAD_ADDRESS,
        .p_paddr = LOAD_ADDRESS,
        .p_filesz = len,
        .p_memsz = len,
        .p_align = CODE_OFFSET,
    };
    Elf64_Ehdr header = {
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = LOAD_ADDRESS,
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 1,
    };
    int ret;

    memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    ret = io_pwrite_full(fd, &header, sizeof(header), 0);
    if (ret == 0)
        ret = io_pwrite_full(fd, &phdr, sizeof(phdr), sizeof(header));
    if (ret == 0)
        ret = io_pwrite_full(fd, code, len, CODE_OFFSET);
    return ret;
}

int bare_guest_open(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(guests); i++) {
        int fd, ret;

        if (strcmp(guests[i].name, name) != 0)
            continue;
        fd = memfd_create(name, MFD_CLOEXEC);
        if (fd < 0)
            return -errno;
        ret = write_kernel(fd, guests[i].code,
                           (size_t)(guests[i].end - guests[i].code));
        if (ret == 0)
            return fd;
        io_close(&fd);
        return ret;
    }
    return -ENOENT;
}
