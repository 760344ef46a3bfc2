/* SPDX-License-Identifier: Apache-2.0 */
/* Header and bitmap of an overlay file; the layout is base/cow_format.h's. */
#include "devices/blk/cow_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/blk/block_file.h"

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
static int map_format(const struct cow_format *format, int fd, bool durable)
{
    uint8_t page[COW_MAP_HEADER_SIZE];
    int ret;

    if (ftruncate(fd, (off_t)format->file_len) < 0)
        return errno == EFBIG || errno == EDQUOT ? -ENOSPC : -errno;
    cow_format_header(format, page);
    ret = file_write(fd, page, sizeof(page), 0);
    if (ret == 0 && durable)
        ret = block_file_sync(fd);
    return ret;
}

/*
 * A file that is already something. All of its header follows from the size of
 * the base, so one comparison checks every field and that the rest is zero.
 */
static int map_load(struct cow_map *map, const struct cow_format *format,
                    int fd, uint64_t size)
{
    uint8_t page[COW_MAP_HEADER_SIZE];
    uint8_t want[COW_MAP_HEADER_SIZE];
    int ret;

    if (size != format->file_len)
        return -EBADMSG;
    ret = file_read(fd, page, sizeof(page), 0);
    if (ret < 0)
        return ret;
    cow_format_header(format, want);
    if (memcmp(page, want, sizeof(page)) != 0)
        return -EBADMSG;
    ret = file_read(fd, map->bits, format->bits_len, COW_MAP_HEADER_SIZE);
    return ret < 0 ? ret : cow_format_count(format, map->bits, &map->present);
}

int cow_map_open(struct cow_map *map, int fd, uint64_t disk_size,
                 enum cow_map_use use)
{
    struct cow_format format;
    struct stat st;
    int ret;

    memset(map, 0, sizeof(*map));
    ret = cow_format_init(&format, disk_size);
    if (ret < 0)
        return ret;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    map->disk_size = disk_size;
    map->clusters = format.clusters;
    map->data_start = format.data_start;
    map->bits = calloc(1, format.bits_len);
    if (!map->bits)
        return -ENOMEM;
    if (st.st_size == 0 && use != COW_MAP_READONLY)
        ret = map_format(&format, fd, use == COW_MAP_DURABLE);
    else
        ret = map_load(map, &format, fd, (uint64_t)st.st_size);
    if (ret < 0)
        cow_map_fini(map);
    return ret;
}

int cow_map_clear(struct cow_map *map, int fd)
{
    struct cow_format format;
    int ret = cow_format_init(&format, map->disk_size);

    if (ret < 0)
        return ret;
    memset(map->bits, 0, format.bits_len);
    map->present = 0;
    map->dirty_first = 0;
    map->dirty_end = 0;
    /* Gives the host's disk back in one call, however much it was. */
    if (ftruncate(fd, 0) < 0)
        return -errno;
    return map_format(&format, fd, false);
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
    const uint8_t alike = present ? 0xff : 0;
    uint64_t i = first;

    while (i < last && cow_map_get(map, i + 1) == present) {
        i++;
        /* Eight at once: a map may have millions, and most are absent. */
        while (i % 8 == 7 && i + 8 <= last && map->bits[i / 8 + 1] == alike)
            i += 8;
    }
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
