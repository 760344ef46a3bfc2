/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small control files of the kernel (/proc, /sys, cgroups): whole reads and
 * writes of a few bytes, relative to a directory descriptor or AT_FDCWD.
 */
#ifndef MICROSBX_GUEST_SYSFILE_H
#define MICROSBX_GUEST_SYSFILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Reads up to size - 1 bytes and terminates them; a trailing newline is
 * dropped. Returns the length or a negative errno.
 */
ssize_t sysfile_read(int dirfd, const char *path, char *ret_text, size_t size)
    __attribute__((warn_unused_result));

/* Writes text in one write: 0 or a negative errno. */
int sysfile_write(int dirfd, const char *path, const char *text)
    __attribute__((warn_unused_result));

int sysfile_write_u64(int dirfd, const char *path, uint64_t value)
    __attribute__((warn_unused_result));

/* The number after "key " or "key:" at the start of a line of text, or 0. */
uint64_t sysfile_field(const char *text, const char *key);

/* CLOCK_MONOTONIC in milliseconds. */
uint64_t sysfile_now_ms(void);

/* Closes *fd if it is one and sets it to -1; keeps errno. */
void sysfile_close(int *fd);

#endif
