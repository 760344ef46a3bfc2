/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the scratch disk's file system: an empty ext4 that is as large as the
 * trial's disk limit. The host counts the 64 KiB clusters of the disk that were
 * ever written and refuses more than the limit; a file system that has no
 * block beyond it, its own tables included, never writes there. So what
 * write(2) took is stored, and what does not fit is ENOSPC before anything is
 * lost.
 *
 * Without what a disk for one trial does not need: no journal, no checksums, no
 * reserved blocks, no second superblock. All tables are at the front.
 */
#ifndef MICROSBX_GUEST_MKFS_H
#define MICROSBX_GUEST_MKFS_H

#include <stdint.h>

#define MKFS_CLUSTER 65536u   /* what the host counts in */
#define MKFS_MIN (512u << 10) /* with less there is nothing to use */
#define MKFS_MAX                                                               \
    ((uint64_t)64 << 30)           /* of more than that, the rest is idle      \
                                    */
#define MKFS_INODE_BYTES 8192u     /* of the disk for each file, */
#define MKFS_INODES_MAX (1u << 20) /* up to this many */

/*
 * Writes an ext4 of `bytes` bytes, rounded down to whole clusters, at the start
 * of fd, which must read as zeros there: what is empty is not written. Nothing
 * is synced. 0; -EINVAL: less than MKFS_MIN; or what writing gave.
 */
int mkfs_ext4(int fd, uint64_t bytes) __attribute__((warn_unused_result));

/*
 * Bytes of the ext4 at the start of fd, its tables included: 0 and *ret_bytes;
 * -ENODATA: nothing is there, all of the first cluster is zero; -EUCLEAN:
 * something else is; or what reading gave.
 */
int mkfs_detect(int fd, uint64_t *ret_bytes)
    __attribute__((warn_unused_result));

#endif
