/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens a damaged overlay file and, if that goes, uses it.
 *
 * Input: a byte of options, a byte of disk size, then records of three bytes:
 * where in the file, a byte to XOR there; and so on while they last. Starting
 * from a valid file, single flips reach behind the magic at once.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include "devices/blk/cow_map.h"
#include "devices/blk/cow_overlay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t scratch[1 << 20];

static void require(int condition)
{
    if (!condition)
        abort();
}

static int open_overlay(int base_fd, int fd, struct block_backend **ret_b)
{
    struct cow_overlay_options options = {.limit = 4 * COW_CLUSTER_SIZE,
                                          .durable = true};
    struct block_backend *base;

    require(block_raw_new(dup(base_fd), true, &base) == 0);
    return cow_overlay_open(base, dup(fd), &options, ret_b);
}

static void flip(int fd, const uint8_t *data, size_t size)
{
    for (; size >= 3; data += 3, size -= 3) {
        off_t at = data[0] | (data[1] & 0x1f) << 8;
        uint8_t byte;

        require(pread(fd, &byte, 1, at) == 1);
        byte ^= data[2];
        require(pwrite(fd, &byte, 1, at) == 1);
    }
}

static void use(struct block_backend *b, int base_fd, int fd)
{
    struct iovec iov = {scratch, b->size};
    uint64_t clusters = (b->size + COW_CLUSTER_SIZE - 1) / COW_CLUSTER_SIZE;
    uint64_t present;

    require(b->stats.clusters_present <= clusters);
    require(b->ops->preadv(b, &iov, 1, 0, b->size) == 0);
    (void)b->ops->pwritev(b, &iov, 1, 0, b->size);
    (void)b->ops->write_zeroes(b, 512, b->size / 2, true);
    require(b->ops->flush(b) == 0);
    present = b->stats.clusters_present;
    b->ops->free(b);
    /* What we write is always valid. */
    require(open_overlay(base_fd, fd, &b) == 0);
    require(b->stats.clusters_present == present);
    b->ops->free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int base_fd, fd;
    struct block_backend *b;

    if (size < 2)
        return 0;
    base_fd = memfd_create("base", MFD_CLOEXEC);
    fd = memfd_create("overlay", MFD_CLOEXEC);
    require(ftruncate(base_fd, (data[1] + 1) * 8 * 512) == 0);
    require(open_overlay(base_fd, fd, &b) == 0);
    b->ops->free(b);
    flip(fd, data + 2, size - 2);
    if (data[0] & 1)
        require(ftruncate(fd, data[0] << 9) == 0);
    if (open_overlay(base_fd, fd, &b) == 0)
        use(b, base_fd, fd);
    close(fd);
    close(base_fd);
    return 0;
}
