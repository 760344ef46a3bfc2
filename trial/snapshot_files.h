/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files of the disks differ between two snapshots. The guests' file
 * systems are not parsed here: a throw-away machine, started for nothing else,
 * mounts both and answers. It has the kernel and initrd of an image, the two
 * scratch disks below overlays of their own, the root disk, and a console.
 *
 * The disks may be hostile and that machine theirs: its answer is read like
 * anything from a guest, and is what the disks claim, no more.
 */
#ifndef MICROSBX_TRIAL_SNAPSHOT_FILES_H
#define MICROSBX_TRIAL_SNAPSHOT_FILES_H

#include <stdint.h>

#include "guest/proto.h"
#include "trial/snapshot.h"

/* Of that machine: how long it may take, and how many bytes it may say. */
#define SNAPSHOT_FILES_TIMEOUT_MS (10u * 60u * 1000u)
#define SNAPSHOT_FILES_ANSWER_MAX ((uint64_t)64 << 20)

struct snapshot_files_options {
    /* Whose kernel and initrd it gets; NULL: the one that the snapshots were
     * made of, found by its digest in the image folder. */
    const char *image;
    const char *kernel; /* another kernel; or NULL */
    int signal_fd;      /* readable: cancelled; or -1 */
    /* Called for each difference once all are known to be there. */
    void (*report)(void *ctx, const struct proto_compare *entry);
    void *ctx;
};

/*
 * The differences between the root file systems of a and b. Pre: both opened
 * without no_bases and no_flatten, and of one machine (snapshot_diff
 * succeeded). 0; -ECANCELED; or another negative errno with *f filled
 * (files_unknown: there is no whole answer; image, kvm, ...: there is no such
 * machine). Nothing is reported unless 0 is returned.
 */
int snapshot_files(const struct snapshot *a, const struct snapshot *b,
                   const struct snapshot_files_options *options,
                   uint32_t *ret_count, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Reads such an answer from the start of a file: 0 if it is whole, else
 * -EBADMSG (it is not), a negative errno (reading failed), or the positive
 * errno at which the machine says it gave up. report (may be NULL) is called on
 * the way.
 */
int snapshot_files_read(int fd,
                        void (*report)(void *ctx,
                                       const struct proto_compare *entry),
                        void *ctx, uint32_t *ret_count)
    __attribute__((warn_unused_result));

#endif
