/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scratch disk: the writable layer of the root, and the limit on it.
 *
 * The host lets a machine write so many 64 KiB clusters of the disk and no
 * more, each counted when it is first written. In a machine that boots, the
 * file system is made as large as that (mkfs.h) and cannot exceed it. A machine
 * that is restored may get a smaller limit, counted anew: then a file takes all
 * free blocks but so many whole clusters as may be written.
 */
#ifndef MICROSBX_GUEST_SCRATCH_H
#define MICROSBX_GUEST_SCRATCH_H

#include <stdbool.h>
#include <stdint.h>

struct scratch {
    int fd;         /* its root folder, owned; -1: there is none */
    uint64_t bytes; /* of its file system, tables included */
    char disk[16];  /* "vdb" */
};

/*
 * Mounts the disk at place: an empty one gets a file system of at most limit
 * bytes first (0: all of it), and one that has an ext4 is limited by
 * scratch_limit. 0 or a negative errno; -EUCLEAN: it holds something else.
 */
int scratch_mount(const char *disk, uint64_t limit, const char *place,
                  struct scratch *ret_scratch)
    __attribute__((warn_unused_result));

/*
 * From now on about limit bytes may be written (0: all there is), whatever was
 * said before. What is kept for tables is at most a quarter of a small limit,
 * and files that are there already can be written in place beyond it: then the
 * host refuses, and says so in the outcome. 0 or a negative errno.
 */
int scratch_limit(const struct scratch *scratch, uint64_t limit)
    __attribute__((warn_unused_result));

/* Whether nothing more can be written or no file be made. */
bool scratch_is_full(const struct scratch *scratch);

#endif
