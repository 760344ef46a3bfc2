/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a disk's bytes are: a raw file, or a copy-on-write overlay over one.
 *
 * Offsets and lengths are bytes, already checked by the caller to lie within
 * size; implementations check again and return -EINVAL. All calls are
 * synchronous and come from the device thread. 0 or a negative errno; -ENOSPC
 * (host disk full or the overlay's limit) is an ordinary answer, after which
 * the backend goes on working.
 */
#ifndef MICROSBX_DEVICES_BLK_BLOCK_BACKEND_H
#define MICROSBX_DEVICES_BLK_BLOCK_BACKEND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct block_backend;

struct block_backend_ops {
    int (*preadv)(struct block_backend *b, const struct iovec *iov,
                  unsigned count, uint64_t offset, uint64_t len);
    int (*pwritev)(struct block_backend *b, const struct iovec *iov,
                   unsigned count, uint64_t offset, uint64_t len);
    /* Everything written so far survives a crash of the host. */
    int (*flush)(struct block_backend *b);
    /*
     * A hint; the range may read as zeros or as before. This and write_zeroes
     * take the time that the range takes: see skip.
     */
    int (*discard)(struct block_backend *b, uint64_t offset, uint64_t len);
    /* The range reads as zeros afterwards. */
    int (*write_zeroes)(struct block_backend *b, uint64_t offset, uint64_t len,
                        bool unmap);
    /*
     * How many bytes from offset on (at most len) a discard, or write_zeroes,
     * would leave as they are: found in no time, however many they are. 0: it
     * has something to do, or cannot know.
     */
    uint64_t (*skip)(struct block_backend *b, uint64_t offset, uint64_t len,
                     bool discard);
    /* How many bytes from offset on (at most len) are known to read as zeros,
     * in no time and without reading them. */
    uint64_t (*zeros)(struct block_backend *b, uint64_t offset, uint64_t len);
    void (*free)(struct block_backend *b);
};

/* What a backend counted; read by any thread after the device thread ended. */
struct block_backend_stats {
    uint64_t clusters_present; /* overlay clusters that hold data */
    uint64_t no_space;         /* requests that ended with -ENOSPC */
    uint64_t io_errors;        /* requests that ended with another error */
    bool limit_hit;            /* an -ENOSPC was the overlay's own limit */
};

struct block_backend {
    const struct block_backend_ops *ops;
    uint64_t size; /* bytes; a multiple of 512 */
    bool readonly;
    struct block_backend_stats stats;
};

/*
 * Raw file or block device; owns fd, also on failure. The size is the file's or
 * the device's. -EINVAL if it is neither, empty, or not a multiple of 512.
 */
int block_raw_new(int fd, bool readonly, struct block_backend **ret_backend)
    __attribute__((warn_unused_result));

#endif
