/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers of the kernel and initrd loaders. Not a parser: elf.c and bzimage.c
 * are. The magic numbers here only make a refusal more useful.
 */
#include "vmm/x86/boot_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/num.h"
#include "vmm/x86/map.h"

struct file_magic {
    uint32_t offset;
    uint32_t len;
    const char *bytes;
    const char *meaning;
};

/* Things people hand in by mistake; the first match is told. */
static const struct file_magic file_magics[] = {
    {0, 2, "\x1f\x8b", "a gzip-compressed file"},
    {0, 6,
     "\xfd"
     "7zXZ\0",
     "an xz-compressed file"},
    {0, 4, "\x28\xb5\x2f\xfd", "a zstd-compressed file"},
    {0, 4, "\x04\x22\x4d\x18", "an lz4-compressed file"},
    {0, 4, "\x02\x21\x4c\x18", "an lz4-compressed file"},
    {0, 3, "BZh", "a bzip2-compressed file"},
    {0, 6, "070701", "a cpio archive (an initrd?)"},
    {0, 4, "hsqs", "a squashfs file system"},
    {0, 8, "!<arch>\n", "an ar archive (a Debian package?)"},
    {0, 4, "PK\x03\x04", "a zip archive"},
    {0, 4, "QFI\xfb", "a qcow2 disk image"},
    {0, 4, "\x27\x05\x19\x56", "a U-Boot image"},
    {0, 4, "\xd0\x0d\xfe\xed", "a flattened device tree or FIT image"},
    {0x38, 4, "ARM\x64", "an arm64 kernel"},
    {0x38, 4, "RSC\x05", "a RISC-V kernel"},
    {0x101, 5, "ustar", "a tar archive"},
    {0x400, 4, "\xe2\xe1\xf5\xe0", "an erofs file system"},
    {0x438, 2, "\x53\xef", "an ext4 file system"},
    {0, 2, "#!", "a script"},
    {0, 2, "MZ", "an EFI or Windows program"},
    {0x1fe, 2, "\x55\xaa", "a disk or boot sector"},
};

int boot_error(struct monitor_error *ret_error, enum monitor_error_code code,
               int error, const char *format, ...)
{
    va_list args;

    *ret_error = (struct monitor_error){.code = code, .error = error};
    va_start(args, format);
    (void)vsnprintf(ret_error->text, sizeof(ret_error->text), format, args);
    va_end(args);
    return error;
}

int boot_file_size(int fd, enum monitor_error_code code, uint64_t *ret_size,
                   struct monitor_error *ret_error)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        int error = -errno;

        return boot_error(ret_error, code, error, "it cannot be examined: %s",
                          strerror(-error));
    }
    if (S_ISDIR(st.st_mode))
        return boot_error(ret_error, code, -EISDIR, "it is a directory");
    if (!S_ISREG(st.st_mode))
        return boot_error(ret_error, code, -EINVAL, "it is not a regular file");
    if (st.st_size <= 0)
        return boot_error(ret_error, code, -ENODATA, "the file is empty");
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

int boot_file_read(int fd, enum monitor_error_code code, void *buf, size_t len,
                   uint64_t offset, struct monitor_error *ret_error)
{
    ssize_t got = io_pread_full(fd, buf, len, offset);

    if (got < 0)
        return boot_error(ret_error, code, (int)got, "it cannot be read: %s",
                          strerror((int)-got));
    if ((size_t)got != len)
        return boot_error(ret_error, code, -ENODATA,
                          "the file became shorter while it was read");
    return 0;
}

static bool is_text(const uint8_t *head, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        bool space = head[i] == '\n' || head[i] == '\r' || head[i] == '\t';

        if (!space && (head[i] < 0x20 || head[i] == 0x7f))
            return false;
    }
    return true;
}

static bool is_zeros(const uint8_t *head, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (head[i] != 0)
            return false;
    }
    return true;
}

const char *boot_file_describe(const uint8_t *head, size_t len)
{
    for (size_t i = 0; i < ARRAY_SIZE(file_magics); i++) {
        const struct file_magic *m = &file_magics[i];

        if (num_range_within(m->offset, m->len, 0, len) &&
            memcmp(head + m->offset, m->bytes, m->len) == 0)
            return m->meaning;
    }
    if (is_text(head, len))
        return "a text file";
    if (is_zeros(head, len))
        return "a file of zeros";
    return "neither an ELF file nor a bzImage";
}

gpa_t boot_ram_end(const struct guest_mem *mem)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct guest_mem_region *r = &mem->regions[i];

        if (num_range_within(MAP_KERNEL_MIN, 1, r->base, r->size))
            return num_min(r->base + r->size, MAP_RAM_HOLE_START);
    }
    return 0;
}

int boot_check_kernel_range(const struct guest_mem *mem, gpa_t start, gpa_t end,
                            struct monitor_error *ret_error)
{
    gpa_t ram_end = boot_ram_end(mem);

    if (start < MAP_KERNEL_MIN)
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -EINVAL,
                          "it wants to be loaded at 0x%" PRIx64 ", below 1 MiB",
                          start);
    if (start >= MAP_RAM_HOLE_START || end > MAP_RAM_HOLE_START)
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOSPC,
                          "it wants memory from 0x%" PRIx64 " to 0x%" PRIx64
                          ", but a kernel must lie below 3 GiB",
                          start, end);
    /* Rounded so that the two numbers never look equal. */
    if (end > ram_end) {
        (void)boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOSPC,
                         "it needs memory up to %" PRIu64
                         " MiB, but the guest has %" PRIu64 " MiB",
                         num_align_up(end, MIB) / MIB, ram_end / MIB);
        ret_error->memory_needed = end;
        return -ENOSPC;
    }
    return 0;
}
