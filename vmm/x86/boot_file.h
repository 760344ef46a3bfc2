/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the loaders of this folder share: reading a file that nobody vouches
 * for straight into place, saying what was wrong with it, and the plan of the
 * guest's memory. Private to vmm/x86's boot code.
 */
#ifndef MICROSBX_VMM_X86_BOOT_FILE_H
#define MICROSBX_VMM_X86_BOOT_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "devices/guest_mem.h"
#include "vmm/monitor_proto.h"

/* How much of a file's beginning the loaders and boot_file_describe see. */
#define BOOT_FILE_HEAD 0x440u

/*
 * Fills *ret_error: code, negative errno, and a clause as monitor_error wants
 * it. Returns error, so that a caller can `return boot_error(...)`.
 */
int boot_error(struct monitor_error *ret_error, enum monitor_error_code code,
               int error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/*
 * The size of a regular file that is not empty. Errors: -EISDIR, -EINVAL (not
 * a regular file), -ENODATA (empty) or what fstat said, with *ret_error.
 */
int boot_file_size(int fd, enum monitor_error_code code, uint64_t *ret_size,
                   struct monitor_error *ret_error)
    __attribute__((warn_unused_result));

/*
 * Reads exactly len bytes at offset. A file that has become shorter since its
 * size was taken is an error like any other. buf may be guest memory.
 */
int boot_file_read(int fd, enum monitor_error_code code, void *buf, size_t len,
                   uint64_t offset, struct monitor_error *ret_error)
    __attribute__((warn_unused_result));

/*
 * What a file that is no kernel looks like, from its first len bytes: a noun
 * phrase such as "a gzip-compressed file". Never NULL.
 */
const char *boot_file_describe(const uint8_t *head, size_t len);

/*
 * First address after the RAM that a kernel can be loaded to: the end of the
 * region that holds MAP_KERNEL_MIN, at most MAP_RAM_HOLE_START; 0 if none.
 */
gpa_t boot_ram_end(const struct guest_mem *mem);

/*
 * Checks that the kernel's [start, end) is RAM at or above MAP_KERNEL_MIN;
 * start <= end. 0, or -EINVAL or -ENOSPC with *ret_error.
 */
int boot_check_kernel_range(const struct guest_mem *mem, gpa_t start, gpa_t end,
                            struct monitor_error *ret_error)
    __attribute__((warn_unused_result));

#endif
