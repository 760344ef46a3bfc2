/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of an overlay without reading it: runs of clusters in its map,
 * and holes in its file and its base. A disk of terabytes with little on it is
 * then discarded or zeroed in no time.
 */
#include "base/num.h"
#include "devices/blk/block_file.h"
#include "devices/blk/cow_overlay_internal.h"

/* The end of the run of clusters, all present or all absent, that holds the
 * byte at start; at most end. Pre: start < end, on the disk. */
static uint64_t run_end(const struct cow_overlay *cow, uint64_t start,
                        uint64_t end, bool *ret_present)
{
    uint64_t first = start / COW_CLUSTER_SIZE;
    uint64_t last = (end - 1) / COW_CLUSTER_SIZE;
    uint64_t run = cow_map_run_end(&cow->map, first, last);

    *ret_present = cow_map_get(&cow->map, first);
    return num_min((run + 1) * COW_CLUSTER_SIZE, end);
}

uint64_t cow_overlay_skip(struct block_backend *b, uint64_t offset,
                          uint64_t len, bool discard)
{
    const struct cow_overlay *cow = (const struct cow_overlay *)b;
    uint64_t end;
    bool present;

    if (len == 0 || !num_range_within(offset, len, 0, b->size))
        return 0;
    end = run_end(cow, offset, offset + len, &present);
    if (present)
        return 0;
    if (discard)
        return end - offset;
    return cow->base->ops->zeros(cow->base, offset, end - offset);
}

uint64_t cow_overlay_zeros(struct block_backend *b, uint64_t offset,
                           uint64_t len)
{
    const struct cow_overlay *cow = (const struct cow_overlay *)b;
    uint64_t end;
    bool present;

    if (len == 0 || !num_range_within(offset, len, 0, b->size))
        return 0;
    end = run_end(cow, offset, offset + len, &present);
    if (present)
        return block_file_hole(cow->fd, cow->map.data_start + offset,
                               end - offset);
    return cow->base->ops->zeros(cow->base, offset, end - offset);
}
