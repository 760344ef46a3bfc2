/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk whose bytes are those of a host file or block device, one to one.
 * Used read-only as the base of overlays, and read-write for a disk that
 * outlives its machine. Owns the descriptor.
 */
#include "devices/blk/block_backend.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/num.h"
#include "devices/blk/block_file.h"

#define SECTOR_SIZE 512u

struct block_raw {
    struct block_backend backend; /* first: a backend is one of us */
    int fd;
    bool dirty;       /* written since the last sync */
    bool sync_failed; /* the host lost data: no later FLUSH may succeed */
    bool no_punch;    /* the host cannot make holes here: stop asking */
    bool no_zero;     /* nor zeros without writing */
};

static struct block_raw *raw_of(struct block_backend *b)
{
    return (struct block_raw *)b;
}

/* Counts a request's result on its way out. */
static int raw_count(struct block_raw *raw, int ret)
{
    if (ret == -ENOSPC)
        raw->backend.stats.no_space++;
    else if (ret < 0)
        raw->backend.stats.io_errors++;
    return ret;
}

static int raw_preadv(struct block_backend *b, const struct iovec *iov,
                      unsigned count, uint64_t offset, uint64_t len)
{
    struct block_raw *raw = raw_of(b);

    if (!num_range_within(offset, len, 0, b->size))
        return -EINVAL;
    return raw_count(raw, block_file_readv(raw->fd, iov, count, offset, len));
}

/* What every change must pass first. */
static int raw_check_change(struct block_raw *raw, uint64_t offset,
                            uint64_t len)
{
    if (raw->backend.readonly)
        return -EROFS;
    if (!num_range_within(offset, len, 0, raw->backend.size))
        return -EINVAL;
    return 0;
}

static int raw_pwritev(struct block_backend *b, const struct iovec *iov,
                       unsigned count, uint64_t offset, uint64_t len)
{
    struct block_raw *raw = raw_of(b);
    int ret = raw_check_change(raw, offset, len);

    if (ret < 0)
        return ret;
    raw->dirty = true;
    return raw_count(raw, block_file_writev(raw->fd, iov, count, offset, len));
}

/*
 * A failed sync stays failed: the host kernel has marked the pages clean and
 * would call the next sync a success although the data is gone.
 */
static int raw_flush(struct block_backend *b)
{
    struct block_raw *raw = raw_of(b);
    int ret;

    if (raw->sync_failed)
        return raw_count(raw, -EIO);
    if (!raw->dirty)
        return 0;
    ret = block_file_sync(raw->fd);
    if (ret < 0)
        raw->sync_failed = true;
    else
        raw->dirty = false;
    return raw_count(raw, ret);
}

static int raw_discard(struct block_backend *b, uint64_t offset, uint64_t len)
{
    struct block_raw *raw = raw_of(b);
    int ret = raw_check_change(raw, offset, len);

    if (ret < 0 || raw->no_punch)
        return ret;
    raw->dirty = true;
    ret = block_file_zero(raw->fd, offset, len, BLOCK_ZERO_PUNCH);
    if (ret == -EOPNOTSUPP) {
        raw->no_punch = true;
        return 0; /* a hint */
    }
    return raw_count(raw, ret);
}

static int raw_write_zeroes(struct block_backend *b, uint64_t offset,
                            uint64_t len, bool unmap)
{
    struct block_raw *raw = raw_of(b);
    bool *unable = unmap ? &raw->no_punch : &raw->no_zero;
    int ret = raw_check_change(raw, offset, len);

    if (ret < 0)
        return ret;
    raw->dirty = true;
    ret = -EOPNOTSUPP;
    if (!*unable)
        ret = block_file_zero(raw->fd, offset, len,
                              unmap ? BLOCK_ZERO_PUNCH : BLOCK_ZERO_ALLOCATE);
    if (ret == -EOPNOTSUPP) {
        *unable = true;
        ret = block_file_write_zeroes(raw->fd, offset, len);
    }
    return raw_count(raw, ret);
}

static uint64_t raw_zeros(struct block_backend *b, uint64_t offset,
                          uint64_t len)
{
    if (!num_range_within(offset, len, 0, b->size))
        return 0;
    return block_file_hole(raw_of(b)->fd, offset, len);
}

/* Zeros that are to keep their space may get some where there is none. */
static uint64_t raw_skip(struct block_backend *b, uint64_t offset, uint64_t len,
                         bool discard)
{
    return discard ? raw_zeros(b, offset, len) : 0;
}

static void raw_free(struct block_backend *b)
{
    struct block_raw *raw = raw_of(b);

    if (!raw)
        return;
    io_close(&raw->fd);
    free(raw);
}

static const struct block_backend_ops raw_ops = {
    .preadv = raw_preadv,
    .pwritev = raw_pwritev,
    .flush = raw_flush,
    .discard = raw_discard,
    .write_zeroes = raw_write_zeroes,
    .skip = raw_skip,
    .zeros = raw_zeros,
    .free = raw_free,
};

/* Bytes of a regular file or block device; nothing else is a disk. */
static int disk_size(int fd, uint64_t *ret_size)
{
    struct stat st;
    uint64_t size;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (S_ISBLK(st.st_mode)) {
        if (ioctl(fd, BLKGETSIZE64, &size) < 0)
            return -errno;
    } else if (S_ISREG(st.st_mode)) {
        size = (uint64_t)st.st_size;
    } else {
        return -EINVAL;
    }
    if (size == 0 || size % SECTOR_SIZE != 0)
        return -EINVAL;
    *ret_size = size;
    return 0;
}

int block_raw_new(int fd, bool readonly, struct block_backend **ret_backend)
{
    struct block_raw *raw = NULL;
    uint64_t size = 0;
    int ret = disk_size(fd, &size);

    if (ret < 0)
        goto out_close;
    raw = calloc(1, sizeof(*raw));
    if (!raw) {
        ret = -ENOMEM;
        goto out_close;
    }
    raw->backend.ops = &raw_ops;
    raw->backend.size = size;
    raw->backend.readonly = readonly;
    raw->fd = fd;
    *ret_backend = &raw->backend;
    return 0;
out_close:
    io_close(&fd);
    return ret;
}
