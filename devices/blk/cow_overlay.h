/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copy-on-write overlay: a sparse file of changed 64 KiB clusters over a
 * read-only base that any number of machines share.
 *
 * The overlay "in memory" is the same thing with a memfd as its file. Layout:
 * a header page (magic, version, cluster size, disk size), the cluster bitmap,
 * then, aligned to a cluster, cluster i at data_start + i * 64 KiB (so the file
 * is sparse and needs no allocation table).
 *
 * A write goes: data first, map second; a cluster only partly covered is merged
 * with the base and written whole before its bit is set. FLUSH (durable
 * overlays) = sync data, write map, sync map. An overlay that is not durable is
 * thrown away with its machine: nothing is synced and the map stays in memory.
 */
#ifndef MICROSBX_DEVICES_BLK_COW_OVERLAY_H
#define MICROSBX_DEVICES_BLK_COW_OVERLAY_H

#include "base/cow_format.h"
#include "devices/blk/block_backend.h"

#define COW_CLUSTER_SIZE COW_FORMAT_CLUSTER

struct cow_overlay_options {
    uint64_t limit; /* bytes of clusters it may hold; 0: no limit */
    bool durable;   /* FLUSH reaches the disk, and the map is kept in it */
    /*
     * A layer: fd holds an overlay already and is never written (it may be
     * open for reading only); limit and durable mean nothing.
     */
    bool readonly;
};

/*
 * What counts against the limit is clusters present, each as a whole one. A
 * call that needs more than is left fails with -ENOSPC before it changes
 * anything (a write) or where the room ends (write-zeroes); clusters that are
 * present can always be written again.
 *
 * write_zeroes: a cluster becomes a hole in the file and stays present, so it
 * counts; if the base reads as zeros there, an absent one stays absent, and
 * with unmap a present one becomes absent again, which gives its share of the
 * limit back. discard: present clusters that are covered wholly are treated
 * like write_zeroes with unmap, all else reads as before. Nothing a guest does
 * makes old data of the base visible again, nor holds more of the host's disk
 * than the limit, header and map. (Where the host file cannot have holes,
 * zeros are written and discard does nothing.)
 */

/*
 * Overlays stack: the base of a machine's private overlay may be a layer, the
 * read-only overlay of a snapshot over the raw disk. The private overlay takes
 * the layer for its base in everything above, so its limit and its statistics
 * count its own clusters only.
 */

/*
 * Opens an overlay over base. fd (owned, also on failure): an empty file is
 * formatted (a layer may not be empty: -EBADMSG); else header and map are
 * loaded and checked (sizes, bits beyond the end, file length), -EBADMSG if
 * they lie. base (owned, also on failure) is only read. Returns 0 or a negative
 * errno.
 */
int cow_overlay_open(struct block_backend *base, int fd,
                     const struct cow_overlay_options *options,
                     struct block_backend **ret_backend)
    __attribute__((warn_unused_result));

/*
 * Writes every cluster that this overlay or a layer below it holds, as one
 * overlay over the raw base: what it reads as there, for a snapshot. A cluster
 * of zeros is present as a hole. fd (the caller's) is an empty regular file
 * without O_APPEND; data come first, the map last; nothing is synced. Changes
 * nothing in the overlay; b must be an overlay of cow_overlay_open.
 * Returns 0 and the number of clusters written; -EINVAL (fd is not empty), or
 * the host's errno, of which -ENOSPC is an ordinary one. After an error the
 * file may hold anything and is no use.
 */
int cow_overlay_save(const struct block_backend *b, int fd,
                     uint64_t *ret_clusters)
    __attribute__((warn_unused_result));

/*
 * How many clusters this overlay itself holds, whatever layers are below it,
 * and where on the disk the first of them begins (0 without any).
 */
uint64_t cow_overlay_held(const struct block_backend *b, uint64_t *ret_first);

/*
 * Makes a private overlay empty, as if newly opened: it reads as its base
 * again, holds nothing of the host's disk, and its statistics start at zero.
 * Takes no time if nothing was written. Pre: neither durable nor a layer.
 * 0 or a negative errno, after which it must not be used but to free it.
 */
int cow_overlay_reset(struct block_backend *b)
    __attribute__((warn_unused_result));

#endif
