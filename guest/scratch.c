/* SPDX-License-Identifier: Apache-2.0 */
/* The scratch disk and its limit; see the header. ext4(5), fallocate(2). */
#include "guest/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "guest/mkfs.h"
#include "guest/sysfile.h"

#define BEYOND "beyond" /* the file that holds what must not be written */
#define EXTENTS 64u     /* looked at at once */
#define BLOCK 4096u
#define FULL_BLOCKS 16u /* fewer free blocks than this is full */
/* What ext4 keeps back for its own tables (ext4_calculate_resv_clusters). */
#define KEPT_PART 50u
#define KEPT_MAX 4096u

/* ---- mounting ----------------------------------------------------------- */

static int open_disk(const char *disk, int *ret_fd)
{
    char device[32];

    snprintf(device, sizeof(device), "/dev/%s", disk);
    *ret_fd = open(device, O_RDWR | O_CLOEXEC);
    return *ret_fd < 0 ? -errno : 0;
}

/* Pre: nothing is on the disk. */
static int make(int fd, uint64_t limit, uint64_t *ret_bytes)
{
    off_t size = lseek(fd, 0, SEEK_END);
    int ret;

    if (size < 0)
        return -errno;
    if (limit == 0 || limit > (uint64_t)size)
        limit = (uint64_t)size;
    /* The host will refuse, and say so. */
    if (limit < MKFS_MIN)
        limit = MKFS_MIN;
    ret = mkfs_ext4(fd, limit);
    if (ret == 0 && fsync(fd) < 0)
        ret = -errno;
    return ret ? ret : mkfs_detect(fd, ret_bytes);
}

int scratch_mount(const char *disk, uint64_t limit, const char *place,
                  struct scratch *ret_scratch)
{
    struct scratch s = {.fd = -1};
    char device[32];
    int fd, ret = open_disk(disk, &fd);

    if (ret)
        return ret;
    ret = mkfs_detect(fd, &s.bytes);
    if (ret == -ENODATA)
        ret = make(fd, limit, &s.bytes);
    close(fd);
    if (ret)
        return ret;
    snprintf(s.disk, sizeof(s.disk), "%s", disk);
    snprintf(device, sizeof(device), "/dev/%s", disk);
    (void)!mkdir(place, 0755);
    if (mount(device, place, "ext4", MS_NODEV | MS_NOATIME, NULL) < 0)
        return -errno;
    s.fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s.fd < 0)
        return -errno;
    ret = scratch_limit(&s, limit);
    if (ret) {
        sysfile_close(&s.fd);
        return ret;
    }
    *ret_scratch = s;
    return 0;
}

/* ---- a smaller limit ---------------------------------------------------- */

static uint64_t round_up(uint64_t n)
{
    return (n + MKFS_CLUSTER - 1) / MKFS_CLUSTER * MKFS_CLUSTER;
}

static uint64_t round_down(uint64_t n)
{
    return n / MKFS_CLUSTER * MKFS_CLUSTER;
}

/* Blocks that only ext4's own tables can use, of all that are free. */
static int keep_back(const struct scratch *s, uint64_t blocks)
{
    char path[64];

    snprintf(path, sizeof(path), "/sys/fs/ext4/%s/reserved_clusters", s->disk);
    return sysfile_write_u64(AT_FDCWD, path, blocks);
}

static uint64_t usual_part(uint64_t bytes)
{
    uint64_t blocks = bytes / BLOCK / KEPT_PART;

    return blocks < KEPT_MAX ? blocks : KEPT_MAX;
}

/* Gives the file all blocks there are, up to bytes of them. */
static int take_blocks(int fd, uint64_t bytes)
{
    uint64_t at = 0, chunk = bytes;

    while (at < bytes && chunk >= BLOCK) {
        if (chunk > bytes - at)
            chunk = bytes - at;
        if (fallocate(fd, 0, (off_t)at, (off_t)chunk) == 0)
            at += chunk;
        else if (errno == ENOSPC)
            chunk = chunk / 2 / BLOCK * BLOCK;
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

/*
 * Frees blocks of one extent, in at most *left clusters of the disk. whole:
 * only those clusters of which all is the file's.
 */
static int free_extent(int fd, const struct fiemap_extent *e, bool whole,
                       uint64_t *left)
{
    uint64_t start = e->fe_physical, end = start + e->fe_length;
    uint64_t count;

    if (whole) {
        start = round_up(start);
        end = round_down(end);
    }
    if (end <= start || *left == 0)
        return 0;
    count = (round_up(end) - round_down(start)) / MKFS_CLUSTER;
    if (count > *left) {
        count = *left;
        end = round_down(start) + count * MKFS_CLUSTER;
    }
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(e->fe_logical + (start - e->fe_physical)),
                  (off_t)(end - start)) < 0)
        return -errno;
    *left -= count;
    return 0;
}

static int free_blocks(int fd, bool whole, uint64_t *left)
{
    union {
        struct fiemap map;
        uint8_t room[sizeof(struct fiemap) +
                     EXTENTS * sizeof(struct fiemap_extent)];
    } m;
    uint64_t at = 0;
    int ret = 0;

    while (ret == 0 && *left > 0) {
        memset(&m, 0, sizeof(m));
        m.map.fm_start = at;
        m.map.fm_length = FIEMAP_MAX_OFFSET - at;
        m.map.fm_extent_count = EXTENTS;
        if (ioctl(fd, FS_IOC_FIEMAP, &m) < 0)
            return -errno;
        if (m.map.fm_mapped_extents == 0)
            break;
        for (uint32_t i = 0; ret == 0 && i < m.map.fm_mapped_extents; i++) {
            const struct fiemap_extent *e = &m.map.fm_extents[i];

            at = e->fe_logical + e->fe_length;
            ret = free_extent(fd, e, whole, left);
        }
    }
    return ret;
}

/* Clusters in which there may be free blocks. */
static uint64_t free_clusters(const struct scratch *s, const struct statvfs *fs,
                              uint64_t limit)
{
    uint64_t tables =
        (s->bytes - (uint64_t)fs->f_blocks * fs->f_frsize) / MKFS_CLUSTER + 1;
    uint64_t clusters = limit / MKFS_CLUSTER;

    return clusters - (tables < clusters / 4 ? tables : clusters / 4);
}

/* All that is free is the file's but for whole clusters, while there are. */
static int hold(const struct scratch *s, int fd, uint64_t limit)
{
    uint64_t count, left;
    struct statvfs fs;
    int ret;

    if (fstatvfs(s->fd, &fs) < 0)
        return -errno;
    count = left = free_clusters(s, &fs, limit);
    ret = keep_back(s, 0);
    if (ret == 0)
        ret = take_blocks(fd, (uint64_t)fs.f_bfree * fs.f_frsize);
    if (ret == 0)
        ret = free_blocks(fd, true, &left);
    if (ret == 0)
        ret = free_blocks(fd, false, &left);
    if (ret == 0)
        ret = keep_back(s, usual_part((count - left) * MKFS_CLUSTER));
    return ret;
}

int scratch_limit(const struct scratch *scratch, uint64_t limit)
{
    bool less = limit > 0 && limit < scratch->bytes;
    int fd, ret = 0;

    if (scratch->fd < 0)
        return 0;
    fd = openat(scratch->fd, BEYOND,
                O_RDWR | O_NOFOLLOW | O_CLOEXEC | (less ? O_CREAT : 0), 0600);
    if (fd < 0)
        return !less && errno == ENOENT ? 0 : -errno;
    if (ftruncate(fd, 0) < 0)
        ret = -errno;
    else if (less)
        ret = hold(scratch, fd, limit);
    else
        ret = keep_back(scratch, usual_part(scratch->bytes));
    close(fd);
    return ret;
}

bool scratch_is_full(const struct scratch *scratch)
{
    struct statvfs fs;

    return scratch->fd >= 0 && fstatvfs(scratch->fd, &fs) == 0 &&
           (fs.f_bavail < FULL_BLOCKS || fs.f_favail == 0);
}
