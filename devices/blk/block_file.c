/* SPDX-License-Identifier: Apache-2.0 */
/* Whole transfers between lists of buffers and a host file; see the header. */
#include "devices/blk/block_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "base/num.h"

/* Zeros are written from one page, named many times in one call. */
#define ZERO_PAGE_SIZE 4096u
#define ZERO_PAGES_MAX 256u

static const uint8_t zero_page[ZERO_PAGE_SIZE];

typedef ssize_t (*transfer_fn)(int fd, const struct iovec *iov, int count,
                               off_t offset);

static int host_error(int err)
{
    return err == EDQUOT || err == EFBIG ? -ENOSPC : -err;
}

int block_iov_slice(const struct iovec *iov, unsigned count, uint64_t offset,
                    uint64_t len, struct iovec *out)
{
    unsigned used = 0;

    for (unsigned i = 0; i < count && len > 0; i++) {
        uint64_t part;

        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        if (used == BLOCK_IOV_MAX)
            return -EINVAL;
        part = num_min(iov[i].iov_len - offset, len);
        out[used].iov_base = (uint8_t *)iov[i].iov_base + offset;
        out[used].iov_len = (size_t)part;
        used++;
        len -= part;
        offset = 0;
    }
    return len == 0 ? (int)used : -EINVAL;
}

/*
 * Repeats fn until all is moved. A read that returns 0 is past the end of a
 * file that somebody made shorter; a write that returns 0 would loop for ever.
 * Both are errors.
 */
static int transfer_all(transfer_fn fn, int fd, const struct iovec *iov,
                        unsigned count, uint64_t offset, uint64_t len)
{
    struct iovec rest[BLOCK_IOV_MAX];
    const struct iovec *v = iov;
    int n = (int)count;
    uint64_t done = 0;

    if (count > BLOCK_IOV_MAX)
        return -EINVAL;
    while (done < len) {
        ssize_t moved = fn(fd, v, n, (off_t)(offset + done));

        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0)
            return host_error(errno);
        if (moved == 0)
            return -EIO;
        done += (uint64_t)moved;
        if (done >= len)
            break;
        n = block_iov_slice(iov, count, done, len - done, rest);
        if (n < 0)
            return n;
        v = rest;
    }
    return 0;
}

int block_file_readv(int fd, const struct iovec *iov, unsigned count,
                     uint64_t offset, uint64_t len)
{
    return transfer_all(preadv, fd, iov, count, offset, len);
}

int block_file_writev(int fd, const struct iovec *iov, unsigned count,
                      uint64_t offset, uint64_t len)
{
    return transfer_all(pwritev, fd, iov, count, offset, len);
}

int block_file_zero(int fd, uint64_t offset, uint64_t len,
                    enum block_zero_how how)
{
    int mode = FALLOC_FL_KEEP_SIZE;
    int ret;

    mode |=
        how == BLOCK_ZERO_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    if (len == 0)
        return 0;
    do {
        ret = fallocate(fd, mode, (off_t)offset, (off_t)len);
    } while (ret < 0 && errno == EINTR);
    if (ret == 0)
        return 0;
    switch (errno) {
    case ENOSYS:
    case ENODEV: /* not a file with extents */
    case EINVAL: /* a block device asked for less than its block */
    case EPERM:  /* a sealed memfd */
        return -EOPNOTSUPP;
    default:
        return host_error(errno);
    }
}

int block_file_write_zeroes(int fd, uint64_t offset, uint64_t len)
{
    struct iovec iov[ZERO_PAGES_MAX];
    int ret = 0;

    while (len > 0 && ret == 0) {
        uint64_t part = 0;
        unsigned n = 0;

        for (; n < ZERO_PAGES_MAX && part < len; n++) {
            /* iovec has no const; pwritev only reads. */
            iov[n].iov_base = (void *)(uintptr_t)zero_page;
            iov[n].iov_len = (size_t)num_min(ZERO_PAGE_SIZE, len - part);
            part += iov[n].iov_len;
        }
        ret = block_file_writev(fd, iov, n, offset, part);
        offset += part;
        len -= part;
    }
    return ret;
}

uint64_t block_file_hole(int fd, uint64_t offset, uint64_t len)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);

    /* Nothing but holes to the end: the whole range is in the file. */
    if (data < 0)
        return errno == ENXIO ? len : 0;
    return num_min((uint64_t)data - offset, len);
}

int block_file_sync(int fd)
{
    int ret;

    do {
        ret = fdatasync(fd);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? host_error(errno) : 0;
}
