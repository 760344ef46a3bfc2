/* SPDX-License-Identifier: Apache-2.0 */
/* What differs between two snapshots of the same machine. */
#ifndef MICROSBX_TRIAL_SNAPSHOT_DIFF_H
#define MICROSBX_TRIAL_SNAPSHOT_DIFF_H

#include <stdint.h>

#include "trial/snapshot.h"

/* A run of pages or clusters that differ. */
struct snapshot_run {
    const char *disk; /* id, or NULL: memory */
    uint64_t first;
    uint64_t count;
};

struct snapshot_difference {
    uint64_t pages;
    uint64_t clusters[VM_DISKS_MAX]; /* by disk, in the manifest's order */
};

/*
 * Compares memory page by page and each cow disk cluster by cluster, as the
 * guest would read them (a cluster that only one side has is compared with the
 * base if it is open, else it differs). report may be NULL; a run is as long as
 * it can be. Both opened without no_flatten. 0; -EINVAL (snapshot_disk) if the
 * machines differ in memory size or disks; or another errno with *f filled.
 */
int snapshot_diff(const struct snapshot *a, const struct snapshot *b,
                  void (*report)(void *ctx, const struct snapshot_run *run),
                  void *ctx, struct snapshot_difference *ret_difference,
                  struct failure *f) __attribute__((warn_unused_result));

#endif
