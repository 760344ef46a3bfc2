/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a snapshot: complete and verified, or not there at all.
 *
 *   snapshot_writer_begin       empty files that have no names yet
 *   snapshot_writer_add_base    per disk; may be done while the guest boots
 *   snapshot_writer_add_cow     per cow disk, in disk order: an empty file
 *   ...                         the monitor writes state, memory, cow files
 *   snapshot_writer_finish      digests, diff to the parent, fsync, verify,
 *                               a hidden folder with the files, one rename
 *   snapshot_writer_free        removes all that was not published
 *
 * Killed, it leaves nothing: files without names go with the process. Except
 * within the last few system calls, from the hidden folder to the rename: then
 * the folder ".NAME.snapshot-XXXXXX" is left, and in it the files, complete
 * ones. It is locked (flock) by this process; the next writer with an output in
 * the same parent folder removes those whose lock is free.
 *
 * Where the file system has no files without names (9p, NFS), or there is no
 * /proc, the hidden folder is there from the beginning, and is what a kill
 * leaves at any time.
 *
 * Files are published 0444, and sealed where the file system can (fs-verity).
 * The monitor may live on, and may be hostile: what it wrote is copied to files
 * that it has no descriptor of.
 */
#ifndef MICROSBX_TRIAL_SNAPSHOT_WRITER_H
#define MICROSBX_TRIAL_SNAPSHOT_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"
#include "trial/snapshot.h"
#include "trial/snapshot_manifest.h"

struct snapshot_writer;

struct snapshot_writer_options {
    /* Store only what differs from it; borrowed until the writer is freed.
     * Opened with no_bases or without, never with no_flatten. */
    const struct snapshot *parent; /* or NULL */
    /* Further places for the parent's own parents, as it was opened with. */
    const char *const *parents;   /* NULL-ended, or NULL; borrowed likewise */
    bool without_base;            /* bases are recorded by digest, not stored */
    bool (*cancelled)(void *ctx); /* asked now and then; or NULL */
    void *ctx;
};

/*
 * Refuses an output that exists and a parent folder that does not. Removes
 * what dead writers left there. 0, or a negative errno with *f filled.
 */
int snapshot_writer_begin(const char *out_dir,
                          const struct snapshot_writer_options *options,
                          struct snapshot_writer **ret_writer,
                          struct failure *f)
    __attribute__((warn_unused_result));

/* Empty files for the monitor; owned by the writer, read-write. */
int snapshot_writer_state_fd(const struct snapshot_writer *w);
int snapshot_writer_memory_fd(const struct snapshot_writer *w);

/*
 * The file for the clusters of the disk of that id. 0, or a negative errno with
 * *f filled. *ret_fd is owned by the writer.
 */
int snapshot_writer_add_cow(struct snapshot_writer *w, const char *id,
                            int *ret_fd, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * The base of a disk: fd is borrowed and read from its beginning. Stored (by
 * reflink where the file system can, else a sparse copy) unless without_base or
 * the parent has the same. Behind its first `data` bytes (0: all are data) it
 * is known to be zero, else -EBADMSG (but where the file system hides its
 * holes, that is believed, not read: it would be read for minutes). Fills
 * bytes, data, sha256 and stored of *ret_disk. 0, or a negative errno with *f
 * filled.
 */
int snapshot_writer_add_base(struct snapshot_writer *w, const char *id, int fd,
                             uint64_t data, struct snapshot_disk *ret_disk,
                             struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Publishes. *m says what the machine is, with the disks as add_base filled
 * them; page_size, files, root and parent are filled here. The saved files must
 * be complete: memory memory_bytes long, a cow file per cow disk. On success
 * ret_id is the snapshot's id. On failure nothing is published; *f is filled
 * (-ECANCELED: cancelled said so). The writer remains to be freed in any case.
 */
int snapshot_writer_finish(struct snapshot_writer *w,
                           struct snapshot_manifest *m,
                           char ret_id[DIGEST_HEX_SIZE], struct failure *f)
    __attribute__((warn_unused_result));

/* Accepts NULL. Unpublished: nothing is left of it. */
void snapshot_writer_free(struct snapshot_writer *w);

#endif
