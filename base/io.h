/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole reads and writes on descriptors: EINTR and short counts are dealt
 * with here once. Nothing here opens a path.
 */
#ifndef MICROSBX_BASE_IO_H
#define MICROSBX_BASE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Reads up to len bytes until end of file. Returns the count (short only at
 * the end of the file) or a negative errno. Blocking descriptors only.
 */
ssize_t io_read_full(int fd, void *buf, size_t len)
    __attribute__((warn_unused_result));

/* As io_read_full, at an offset and without moving the file position. */
ssize_t io_pread_full(int fd, void *buf, size_t len, uint64_t offset)
    __attribute__((warn_unused_result));

/* Writes all len bytes: 0 or a negative errno. Blocking descriptors only. */
int io_write_full(int fd, const void *buf, size_t len)
    __attribute__((warn_unused_result));

int io_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset)
    __attribute__((warn_unused_result));

/* Sets O_NONBLOCK: 0 or a negative errno. */
int io_set_nonblock(int fd) __attribute__((warn_unused_result));

/* As many descriptors as the hard limit allows: 0 or a negative errno. */
int io_raise_fd_limit(void) __attribute__((warn_unused_result));

/* Closes *fd if it is one, and sets it to -1. Keeps errno. */
void io_close(int *fd);

/*
 * The time by which deadlines are kept: CLOCK_BOOTTIME in nanoseconds, which
 * goes on while the host sleeps. Harness and monitor exchange it.
 */
uint64_t io_now_ns(void);

#endif
