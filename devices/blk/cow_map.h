/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which clusters an overlay holds: header and bitmap of its file, whose layout
 * is base/cow_format.h's. Of an absent cluster nothing is ever read, so its
 * bytes in the file may be anything.
 *
 * Parser of an untrusted file: everything is checked against the size of the
 * base before it is used, and the base alone decides how much is allocated.
 *
 * Owner: the overlay that embeds it, on the device thread.
 */
#ifndef MICROSBX_DEVICES_BLK_COW_MAP_H
#define MICROSBX_DEVICES_BLK_COW_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cow_format.h"

#define COW_MAP_HEADER_SIZE COW_FORMAT_HEADER_SIZE
#define COW_MAP_DISK_MAX COW_FORMAT_DISK_MAX

struct cow_map {
    uint8_t *bits; /* owned */
    uint64_t clusters;
    uint64_t present;
    uint64_t disk_size;
    uint64_t data_start;
    /* Bytes of bits that the file does not have yet: [first, end). */
    uint64_t dirty_first;
    uint64_t dirty_end;
};

/* What the file is to its opener. */
enum cow_map_use {
    COW_MAP_SCRATCH,  /* thrown away with the machine: never synced */
    COW_MAP_DURABLE,  /* formatting it is synced */
    COW_MAP_READONLY, /* never written; may not be empty */
};

/*
 * Opens the map of an overlay over a disk of disk_size bytes. An empty file is
 * formatted; else header, length and map are checked.
 * Returns 0; -EBADMSG (not an overlay for such a disk, or damaged), -EFBIG
 * (disk beyond COW_MAP_DISK_MAX), -EINVAL (disk or file of no use), -ENOMEM,
 * or the host's errno. fd stays the caller's; after an error *map needs no
 * cow_map_fini.
 */
int cow_map_open(struct cow_map *map, int fd, uint64_t disk_size,
                 enum cow_map_use use) __attribute__((warn_unused_result));
/*
 * Makes map and file as if newly formatted, without the clusters' bytes. The
 * map is empty in any case; after an error (negative errno) the file is not to
 * be used any more.
 */
int cow_map_clear(struct cow_map *map, int fd)
    __attribute__((warn_unused_result));
/* Frees the bits; accepts a zeroed struct. Writes nothing. */
void cow_map_fini(struct cow_map *map);

bool cow_map_get(const struct cow_map *map, uint64_t cluster);
/* Sets or clears one bit, and keeps count. */
void cow_map_put(struct cow_map *map, uint64_t cluster, bool present);
/* How many clusters of [first, last] are absent. */
uint64_t cow_map_count_absent(const struct cow_map *map, uint64_t first,
                              uint64_t last);
/* The last cluster of the run in [first, last] that is like first. */
uint64_t cow_map_run_end(const struct cow_map *map, uint64_t first,
                         uint64_t last);

/* True if the file's map is not up to date. */
bool cow_map_is_dirty(const struct cow_map *map);
/* Writes what is dirty, without a sync. 0 or a negative errno (still dirty). */
int cow_map_write(struct cow_map *map, int fd)
    __attribute__((warn_unused_result));

#endif
