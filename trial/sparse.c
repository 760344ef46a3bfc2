/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse files; see the header. */
#include "trial/sparse.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"

bool sparse_cancelled(const struct sparse_cancel *cancel)
{
    return cancel && cancel->cancelled && cancel->cancelled(cancel->ctx);
}

bool sparse_is_zero(const void *buf, size_t len)
{
    const uint8_t *p = buf;

    /* The first byte is 0, and each equals the next: as fast as memcmp. */
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

int sparse_next(int fd, uint64_t offset, uint64_t end, uint64_t *ret_start,
                uint64_t *ret_end)
{
    off_t data = offset < end ? lseek(fd, (off_t)offset, SEEK_DATA) : -1;
    off_t hole;

    if (offset >= end || (data < 0 && errno == ENXIO)) {
        *ret_start = *ret_end = end;
        return 0;
    }
    if (data < 0 && errno != EINVAL && errno != EOPNOTSUPP)
        return -errno;
    hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
    if (data < 0 || hole <= data) { /* it cannot tell: all is data */
        data = (off_t)offset;
        hole = (off_t)end;
    }
    *ret_start = num_min((uint64_t)data, end);
    *ret_end = num_min((uint64_t)hole, end);
    return 0;
}

bool sparse_hides_holes(int fd)
{
    struct stat st;
    off_t hole;

    if (fstat(fd, &st) != 0 || st.st_blocks * 512 >= st.st_size)
        return false;
    hole = lseek(fd, 0, SEEK_HOLE);
    return hole < 0 || hole >= st.st_size;
}

int sparse_write(int to, const uint8_t *buf, size_t len, uint64_t offset)
{
    size_t at = 0;

    while (at < len) {
        size_t block = (size_t)num_min(len - at, SPARSE_BLOCK);
        size_t run = 0;

        while (at + run < len &&
               !sparse_is_zero(buf + at + run,
                               (size_t)num_min(len - at - run, SPARSE_BLOCK)))
            run += (size_t)num_min(len - at - run, SPARSE_BLOCK);
        if (run > 0) {
            int ret = io_pwrite_full(to, buf + at, run, offset + at);

            if (ret != 0)
                return ret;
            block = run;
        }
        at += block;
    }
    return 0;
}

static int copy_extent(int from, int to, uint8_t *buf, uint64_t start,
                       uint64_t end)
{
    while (start < end) {
        size_t want = (size_t)num_min(end - start, SPARSE_BUFFER);
        ssize_t n = io_pread_full(from, buf, want, start);
        int ret;

        if (n <= 0)
            return n < 0 ? (int)n : -ENODATA;
        ret = sparse_write(to, buf, (size_t)n, start);
        if (ret != 0)
            return ret;
        start += (uint64_t)n;
    }
    return 0;
}

static int copy_blocks(int from, int to, uint64_t len,
                       const struct sparse_cancel *cancel)
{
    uint8_t *buf = malloc(SPARSE_BUFFER);
    uint64_t at = 0;
    int ret = buf ? 0 : -ENOMEM;

    while (ret == 0 && at < len) {
        uint64_t start = 0, end = 0;

        ret = sparse_next(from, at, len, &start, &end);
        if (ret != 0)
            break;
        end = num_min(end, start + SPARSE_BUFFER);
        if (sparse_cancelled(cancel))
            ret = -ECANCELED;
        else
            ret = copy_extent(from, to, buf, start, end);
        at = end;
    }
    free(buf);
    return ret;
}

int sparse_copy(int from, int to, uint64_t len,
                const struct sparse_cancel *cancel)
{
    struct stat st;

    if (fstat(from, &st) != 0)
        return -errno;
    if ((uint64_t)st.st_size < len)
        return -ENODATA;
    if ((uint64_t)st.st_size == len && ioctl(to, FICLONE, from) == 0)
        return 0;
    if (ftruncate(to, (off_t)len) != 0)
        return -errno;
    return copy_blocks(from, to, len, cancel);
}
