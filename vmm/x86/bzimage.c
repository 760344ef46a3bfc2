/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads a bzImage by the 64-bit boot protocol (Linux, Documentation/x86/
 * boot.rst): only the protected-mode part goes into guest memory; the
 * real-mode setup code is never run, its header is handed on to the zero page.
 *
 * The file is untrusted. The header is copied once and every number is checked
 * in the copy before the first byte is loaded.
 */
#include "vmm/x86/boot.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/num.h"
#include "vmm/x86/boot_file.h"
#include "vmm/x86/map.h"

#define BZIMAGE_BOOT_FLAG 0xaa55u
#define BZIMAGE_MAGIC 0x53726448u   /* "HdrS" */
#define BZIMAGE_VERSION_MIN 0x020cu /* 2.12: xloadflags */
#define BZIMAGE_SECTOR 512u
#define BZIMAGE_SETUP_SECTS_DEFAULT 4u /* what a 0 means */
#define BZIMAGE_ENTRY_64 0x200u /* the 64-bit entry, from the load address */

/* The setup header starts here, in the file and in the zero page alike... */
#define HEADER_START offsetof(struct boot_params, hdr)
/* ...and must leave what follows it in the zero page alone. */
#define HEADER_LIMIT offsetof(struct boot_params, edd_mbr_sig_buffer)
/* The last field we need is init_size. */
#define HEADER_END_MIN                                                         \
    (HEADER_START + offsetof(struct setup_header, handover_offset))

_Static_assert(HEADER_START == 0x1f1, "setup header's place in the zero page");
_Static_assert(HEADER_LIMIT <= BOOT_FILE_HEAD, "head covers the setup header");
_Static_assert(HEADER_LIMIT - HEADER_START <=
                   sizeof(((struct kernel_image *)0)->setup_header),
               "setup header fits kernel_image");

static int bzimage_refuse(struct monitor_error *ret_error, const char *why)
{
    return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC, "%s", why);
}

/* Is it a bzImage at all, and how long is its setup header? */
static int bzimage_check_magic(const uint8_t *head, size_t len,
                               size_t *ret_header_end,
                               struct monitor_error *ret_error)
{
    size_t magic = HEADER_START + offsetof(struct setup_header, header);
    size_t flag = HEADER_START + offsetof(struct setup_header, boot_flag);
    size_t end;

    if (len < magic + 6 || num_get_le16(head + flag) != BZIMAGE_BOOT_FLAG ||
        num_get_le32(head + magic) != BZIMAGE_MAGIC)
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC,
                          "it is not a Linux kernel for x86-64 but %s",
                          boot_file_describe(head, len));
    if (num_get_le16(head + magic + 4) < BZIMAGE_VERSION_MIN)
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC,
                          "it speaks boot protocol %u.%u, older than 2.12",
                          head[magic + 5], head[magic + 4]);
    /* The header ends where the jump over it, at 0x200, goes to. */
    end = magic + head[flag + 3];
    if (end < HEADER_END_MIN || end > HEADER_LIMIT)
        return bzimage_refuse(ret_error, "its setup header has a wrong size");
    if (end > len)
        return bzimage_refuse(ret_error, "the file is truncated: it ends "
                                         "within its setup header");
    *ret_header_end = end;
    return 0;
}

static int bzimage_check_header(const struct setup_header *header,
                                struct monitor_error *ret_error)
{
    if (!(header->xloadflags & XLF_KERNEL_64))
        return bzimage_refuse(ret_error, "it is a 32-bit kernel: it has no "
                                         "64-bit entry point");
    if (!(header->loadflags & LOADED_HIGH))
        return bzimage_refuse(ret_error,
                              "it is a zImage, which loads below 1 MiB");
    return 0;
}

/* Where the protected-mode part lies in the file. */
static int bzimage_find_payload(const struct setup_header *header,
                                uint64_t size, uint64_t *ret_offset,
                                uint64_t *ret_len,
                                struct monitor_error *ret_error)
{
    unsigned sectors =
        header->setup_sects ? header->setup_sects : BZIMAGE_SETUP_SECTS_DEFAULT;
    uint64_t offset = (sectors + 1u) * (uint64_t)BZIMAGE_SECTOR;
    uint64_t len = header->syssize * (uint64_t)16;

    if (len <= BZIMAGE_ENTRY_64)
        return bzimage_refuse(ret_error, "its header says that it holds no "
                                         "64-bit code");
    /* What may follow (a signature, padding) is not ours to judge. */
    if (!num_range_within(offset, len, 0, size))
        return boot_error(ret_error, MONITOR_ERROR_KERNEL, -ENOEXEC,
                          "the file is truncated: it has %" PRIu64
                          " bytes of the %" PRIu64 " its header tells",
                          size, offset + len);
    *ret_offset = offset;
    *ret_len = len;
    return 0;
}

/*
 * A relocatable kernel is loaded at its preferred address, too: loaded lower
 * it would move itself there, loaded higher it would only need more memory.
 */
static int bzimage_load_payload(int fd, const struct setup_header *header,
                                uint64_t size, const struct guest_mem *mem,
                                struct kernel_image *image,
                                struct monitor_error *ret_error)
{
    gpa_t start = header->pref_address;
    uint64_t offset = 0, len = 0, needed, end;
    void *to;
    int ret;

    ret = bzimage_find_payload(header, size, &offset, &len, ret_error);
    if (ret < 0)
        return ret;
    /* init_size: what it needs to unpack itself, bss included. */
    needed = len > header->init_size ? len : header->init_size;
    if (num_add_overflow(start, needed, &end))
        return bzimage_refuse(ret_error, "its load address is out of range");
    ret = boot_check_kernel_range(mem, start, end, ret_error);
    if (ret < 0)
        return ret;
    to = guest_mem_ptr(mem, start, len);
    if (!to)
        return boot_error(
            ret_error, MONITOR_ERROR_KERNEL, -EFAULT,
            "its load address 0x%" PRIx64 " lies outside guest memory", start);
    ret = boot_file_read(fd, MONITOR_ERROR_KERNEL, to, len, offset, ret_error);
    if (ret < 0)
        return ret;
    image->entry = start + BZIMAGE_ENTRY_64;
    image->load_end = end;
    return 0;
}

int bzimage_load(int fd, const struct guest_mem *mem, struct kernel_image *ret,
                 struct monitor_error *ret_error)
{
    struct kernel_image image = {.entry = 0};
    struct setup_header header = {0};
    uint8_t head[BOOT_FILE_HEAD];
    size_t head_len, header_end = 0;
    uint64_t size;
    int error;

    error = boot_file_size(fd, MONITOR_ERROR_KERNEL, &size, ret_error);
    if (error < 0)
        return error;
    head_len = (size_t)num_min(size, sizeof(head));
    error =
        boot_file_read(fd, MONITOR_ERROR_KERNEL, head, head_len, 0, ret_error);
    if (error == 0)
        error = bzimage_check_magic(head, head_len, &header_end, ret_error);
    if (error < 0)
        return error;

    image.setup_header_len = (uint32_t)(header_end - HEADER_START);
    memcpy(image.setup_header, head + HEADER_START, image.setup_header_len);
    memcpy(&header, image.setup_header,
           num_min(sizeof(header), image.setup_header_len));
    error = bzimage_check_header(&header, ret_error);
    if (error == 0)
        error = bzimage_load_payload(fd, &header, size, mem, &image, ret_error);
    if (error < 0)
        return error;
    *ret = image;
    return 0;
}
