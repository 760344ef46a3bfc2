/* SPDX-License-Identifier: Apache-2.0 */
/* Header and bitmap of an overlay file; see the header for the layout. */
#include "devices/blk/cow_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/blk/block_file.h"
#include "devices/blk/cow_overlay.h"

#define SECTOR_SIZE 512u

/* Offsets in the header page. */
#define HDR_MAGIC 0u
#define HDR_VERSION 8u
#define HDR_CLUSTER_SIZE 12u
#define HDR_DISK_SIZE 16u
#define HDR_DATA_START 24u

static const char magic[8] = {'M', 'S', 'B', 'X', 'C', 'O', 'W', '1'};

static uint64_t bits_len(const struct cow_map *map)
{
    return (map->clusters + 7) / 8;
}

static uint64_t file_len(const struct cow_map *map)
{
    return map->data_start + map->disk_size;
}

/* The one header a valid file can have: written, and compared with. */
static void header_fill(const struct cow_map *map,
                        uint8_t page[COW_MAP_HEADER_SIZE])
{
    memset(page, 0, COW_MAP_HEADER_SIZE);
    memcpy(page + HDR_MAGIC, magic, sizeof(magic));
    num_put_le32(page + HDR_VERSION, COW_MAP_VERSION);
    num_put_le32(page + HDR_CLUSTER_SIZE, COW_CLUSTER_SIZE);
    num_put_le64(page + HDR_DISK_SIZE, map->disk_size);
    num_put_le64(page + HDR_DATA_START, map->data_start);
}

static int file_read(int fd, void *buf, uint64_t len, uint64_t offset)
{
    struct iovec iov = {.iov_base = buf, .iov_len = (size_t)len};

    return block_file_readv(fd, &iov, 1, offset, len);
}

static int file_write(int fd, void *buf, uint64_t len, uint64_t offset)
{
    struct iovec iov = {.iov_base = buf, .iov_len = (size_t)len};

    return block_file_writev(fd, &iov, 1, offset, len);
}

/*
 * Makes an empty file an overlay. A durable one must not lose its header in a
 * crash after which a FLUSH was promised, so it is synced here, once.
 */
static int map_format(struct cow_map *map, int fd, bool durable)
{
    uint8_t page[COW_MAP_HEADER_SIZE];
    int ret;

    if (ftruncate(fd, (off_t)file_len(map)) < 0)
        return errno == EFBIG || errno == EDQUOT ? -ENOSPC : -errno;
    header_fill(map, page);
    ret = file_write(fd, page, sizeof(page), 0);
    if (ret == 0 && durable)
        ret = block_file_sync(fd);
    return ret;
}

/* Counts the bits of a loaded map. -EBADMSG for one beyond the last cluster. */
static int map_count(struct cow_map *map)
{
    uint64_t len = bits_len(map);
    unsigned spare = (unsigned)(len * 8 - map->clusters);

    if (spare > 0 && map->bits[len - 1] >> (8 - spare) != 0)
        return -EBADMSG;
    for (uint64_t i = 0; i < len; i++)
        map->present += (uint64_t)__builtin_popcount(map->bits[i]);
    return 0;
}

/*
 * A file that is already something. All of its header follows from the size of
 * the base, so one comparison checks every field and that the rest is zero.
 */
static int map_load(struct cow_map *map, int fd, uint64_t size)
{
    uint8_t page[COW_MAP_HEADER_SIZE];
    uint8_t want[COW_MAP_HEADER_SIZE];
    int ret;

    if (size != file_len(map))
        return -EBADMSG;
    ret = file_read(fd, page, sizeof(page), 0);
    if (ret < 0)
        return ret;
    header_fill(map, want);
    if (memcmp(page, want, sizeof(page)) != 0)
        return -EBADMSG;
    ret = file_read(fd, map->bits, bits_len(map), COW_MAP_HEADER_SIZE);
    return ret < 0 ? ret : map_count(map);
}

int cow_map_open(struct cow_map *map, int fd, uint64_t disk_size, bool durable)
{
    struct stat st;
    int ret;

    memset(map, 0, sizeof(*map));
    if (disk_size == 0 || disk_size % SECTOR_SIZE != 0)
        return -EINVAL;
    if (disk_size > COW_MAP_DISK_MAX)
        return -EFBIG;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    map->disk_size = disk_size;
    map->clusters = (disk_size + COW_CLUSTER_SIZE - 1) / COW_CLUSTER_SIZE;
    map->data_start =
        num_align_up(COW_MAP_HEADER_SIZE + bits_len(map), COW_CLUSTER_SIZE);
    map->bits = calloc(1, bits_len(map));
    if (!map->bits)
        return -ENOMEM;
    if (st.st_size == 0)
        ret = map_format(map, fd, durable);
    else
        ret = map_load(map, fd, (uint64_t)st.st_size);
    if (ret < 0)
        cow_map_fini(map);
    return ret;
}

void cow_map_fini(struct cow_map *map)
{
    free(map->bits);
    memset(map, 0, sizeof(*map));
}

bool cow_map_get(const struct cow_map *map, uint64_t cluster)
{
    return map->bits[cluster / 8] >> (cluster % 8) & 1;
}

void cow_map_put(struct cow_map *map, uint64_t cluster, bool present)
{
    uint64_t byte = cluster / 8;

    if (cow_map_get(map, cluster) == present)
        return;
    map->bits[byte] ^= (uint8_t)(1u << (cluster % 8));
    if (present)
        map->present++;
    else
        map->present--;
    if (!cow_map_is_dirty(map)) {
        map->dirty_first = byte;
        map->dirty_end = byte + 1;
        return;
    }
    if (byte < map->dirty_first)
        map->dirty_first = byte;
    if (byte >= map->dirty_end)
        map->dirty_end = byte + 1;
}

uint64_t cow_map_count_absent(const struct cow_map *map, uint64_t first,
                              uint64_t last)
{
    uint64_t absent = 0;

    for (uint64_t i = first; i <= last; i++)
        absent += !cow_map_get(map, i);
    return absent;
}

uint64_t cow_map_run_end(const struct cow_map *map, uint64_t first,
                         uint64_t last)
{
    bool present = cow_map_get(map, first);
    uint64_t i = first;

    while (i < last && cow_map_get(map, i + 1) == present)
        i++;
    return i;
}

bool cow_map_is_dirty(const struct cow_map *map)
{
    return map->dirty_end > map->dirty_first;
}

int cow_map_write(struct cow_map *map, int fd)
{
    int ret = 0;

    if (!cow_map_is_dirty(map))
        return 0;
    ret = file_write(fd, map->bits + map->dirty_first,
                     map->dirty_end - map->dirty_first,
                     COW_MAP_HEADER_SIZE + map->dirty_first);
    if (ret == 0) {
        map->dirty_first = 0;
        map->dirty_end = 0;
    }
    return ret;
}
