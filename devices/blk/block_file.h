/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole reads, writes, holes and syncs on a host file: all that disk backends
 * ask of the host kernel, in one place. EINTR and short counts end here.
 *
 * A list of buffers is given with the number of bytes it holds (len). Offsets
 * are the caller's to check; the file stays the caller's.
 *
 * Errors: -ENOSPC stands for every way the host says "no room" (ENOSPC, EDQUOT,
 * EFBIG); a process with RLIMIT_FSIZE must ignore SIGXFSZ to see it. Anything
 * else is the host's errno.
 *
 * System calls used: preadv, pwritev, fallocate, fdatasync. (Tests put
 * functions of these names in front of libc's to fail the n-th call.)
 */
#ifndef MICROSBX_DEVICES_BLK_BLOCK_FILE_H
#define MICROSBX_DEVICES_BLK_BLOCK_FILE_H

#include <stdint.h>
#include <sys/uio.h>

/* The buffers of one request: what a queue can hold, and two of our own. */
#define BLOCK_IOV_MAX 258u

/* How block_file_zero may make bytes zero. */
enum block_zero_how {
    BLOCK_ZERO_PUNCH,    /* give the space back */
    BLOCK_ZERO_ALLOCATE, /* keep the space reserved */
};

/*
 * Selects [offset, offset + len) of a list into out (room for BLOCK_IOV_MAX).
 * Returns the number of entries, or -EINVAL if the list is shorter than that
 * or has more than BLOCK_IOV_MAX entries.
 */
int block_iov_slice(const struct iovec *iov, unsigned count, uint64_t offset,
                    uint64_t len, struct iovec *out)
    __attribute__((warn_unused_result));

/* Reads len bytes; -EIO if the file ends before. */
int block_file_readv(int fd, const struct iovec *iov, unsigned count,
                     uint64_t offset, uint64_t len)
    __attribute__((warn_unused_result));

/* Writes len bytes; on an error any part of them may have been written. */
int block_file_writev(int fd, const struct iovec *iov, unsigned count,
                      uint64_t offset, uint64_t len)
    __attribute__((warn_unused_result));

/*
 * Makes a range inside the file a hole, or zeros that keep their space, without
 * writing. -EOPNOTSUPP if this file system or device cannot (for this range).
 */
int block_file_zero(int fd, uint64_t offset, uint64_t len,
                    enum block_zero_how how)
    __attribute__((warn_unused_result));

/* Zeros by writing them: for files that cannot do it otherwise. */
int block_file_write_zeroes(int fd, uint64_t offset, uint64_t len)
    __attribute__((warn_unused_result));

/* How many bytes from offset on (at most len) are a hole in the file; 0: none,
 * or the host does not tell. */
uint64_t block_file_hole(int fd, uint64_t offset, uint64_t len);

/* All data written so far is on the disk. */
int block_file_sync(int fd) __attribute__((warn_unused_result));

#endif
