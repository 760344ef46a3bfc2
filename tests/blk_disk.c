/* SPDX-License-Identifier: Apache-2.0 */
/* Disks for unit tests; see the header. */
#include "tests/blk_disk.h"

#include <check.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"

uint64_t blk_random_state = 1;

uint32_t blk_random(uint32_t bound)
{
    blk_random_state =
        blk_random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(blk_random_state >> 33) % bound;
}

int blk_memfd(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    return fd;
}

int blk_tmpfile(void)
{
    FILE *file = tmpfile();
    int fd;

    ck_assert_ptr_nonnull(file);
    fd = dup(fileno(file));
    fclose(file);
    ck_assert_int_ge(fd, 0);
    return fd;
}

int blk_disk(const void *bytes, uint64_t size)
{
    int fd = blk_memfd();

    if (bytes)
        ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    return fd;
}

struct block_backend *blk_raw(int fd, bool readonly)
{
    struct block_backend *b = NULL;

    ck_assert_int_eq(block_raw_new(dup(fd), readonly, &b), 0);
    return b;
}

int blk_try_overlay(int base_fd, int fd, uint64_t limit, bool durable,
                    struct block_backend **ret_backend)
{
    struct cow_overlay_options options = {.limit = limit, .durable = durable};

    return cow_overlay_open(blk_raw(base_fd, true), dup(fd), &options,
                            ret_backend);
}

struct block_backend *blk_overlay(int base_fd, int fd, uint64_t limit,
                                  bool durable)
{
    struct block_backend *b = NULL;

    ck_assert_int_eq(blk_try_overlay(base_fd, fd, limit, durable, &b), 0);
    return b;
}

int blk_write(struct block_backend *b, void *bytes, size_t len, uint64_t offset)
{
    struct iovec iov = {bytes, len};

    return b->ops->pwritev(b, &iov, 1, offset, len);
}

int blk_read(struct block_backend *b, void *bytes, size_t len, uint64_t offset)
{
    struct iovec iov = {bytes, len};

    return b->ops->preadv(b, &iov, 1, offset, len);
}

void blk_random_range(uint32_t sectors, uint64_t *ret_offset, uint64_t *ret_len)
{
    const uint32_t whole = CLUSTER / SECTOR;
    uint32_t first = blk_random(sectors);
    uint32_t count = 1 + blk_random(sectors - first);

    if (blk_random(3) == 0)
        count = 1 + blk_random((uint32_t)num_min(8, sectors - first));
    if (blk_random(4) == 0)
        first -= first % whole;
    if (blk_random(4) == 0) {
        count = (count / whole + 1) * whole;
        count = (uint32_t)num_min(count, sectors - first);
    }
    *ret_offset = (uint64_t)first * SECTOR;
    *ret_len = (uint64_t)count * SECTOR;
}
