/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files differ between two scratch disks: what a guest does that is
 * started for nothing else (microsbx.compare=1). Each disk is the upper layer
 * of an overlay on the same root; the two are mounted read-only, each as its
 * guest saw it, and walked side by side.
 *
 * The disks were written by guests and may hold anything: a walk follows no
 * link, looks at no more than its bounds allow, and what it cannot read makes
 * it fail as a whole. Whoever makes a disk that takes this guest's kernel over
 * can have it answer what he likes: the answer is the disks' own claim.
 */
#ifndef MICROSBX_GUEST_COMPARE_H
#define MICROSBX_GUEST_COMPARE_H

#include <stdint.h>

#include "guest/proto.h"

#define COMPARE_DEPTH_MAX 128u    /* four descriptors each */
#define COMPARE_NAMES_MAX 262144u /* in one directory */

/* Directories, borrowed. */
struct compare_side {
    int view;  /* the root as the guest saw it */
    int upper; /* the layer that was written: what is in neither upper is the
                * same, and is not looked at; -1: there is none */
};

/*
 * Walks a (sides[0]) and b. Each difference goes to report, in the order of
 * their paths, a directory before what is in it; not 0 ends the walk. Of what
 * is there only once all is reported, down to the last file. A file that has
 * become another type is removed and added. What counts: contents, link
 * targets, device numbers, permissions and owners; not times, nor extended
 * attributes, nor which names are one file.
 *
 * 0; -E2BIG (more differences or names than the limits allow), -ENAMETOOLONG
 * (a path), -ELOOP (a directory too deep), what report returned, or the errno
 * of what could not be read.
 */
int compare_trees(const struct compare_side sides[2],
                  int (*report)(void *ctx, const struct proto_compare *entry),
                  void *ctx, uint32_t *ret_count)
    __attribute__((warn_unused_result));

/*
 * In a guest's PID 1, with the kernel's file systems mounted: finds the disks,
 * mounts them, and answers on standard output as proto.h says.
 */
void compare_on_console(void);

#endif
