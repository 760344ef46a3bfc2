/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One snapshot as one compressed file, and back.
 *
 * 12 bytes, then one zlib stream (RFC 1950):
 *
 *   magic "MSBXARC1", u32 version 1
 *   compressed: u32 number of files; then per file, manifest.json first,
 *   manifest.sha256 second, the others as in the manifest:
 *     u32 length of the name, the name; u64 size
 *     extents: u64 offset, u64 length > 0, bytes; ascending, not touching
 *     u64 size, u64 0: the end; what no extent covers is zero
 *
 * Little-endian. Nothing follows the stream. The reader is strict and bounded:
 * it reads the manifest first, and then only the very files of the very sizes
 * that the manifest names, into a folder of a snapshot_writer's kind; all
 * digests are checked before it is published.
 *
 * A diff is packed as it is; its parent must be there where it is used.
 */
#ifndef MICROSBX_TRIAL_SNAPSHOT_ARCHIVE_H
#define MICROSBX_TRIAL_SNAPSHOT_ARCHIVE_H

#include <stdbool.h>

#include "base/failure.h"
#include "trial/snapshot_manifest.h"

struct snapshot_archive_options {
    /* import: the most that the snapshot may take of the disk; 0: nine tenths
     * of what is free there */
    uint64_t size_limit;
    bool (*cancelled)(void *ctx); /* asked now and then; or NULL */
    void *ctx;
};

/*
 * Packs the snapshot in dir, checked fully on the way, into the new file
 * `path`, which appears only when it is complete. 0, or a negative errno with
 * *f filled; then nothing is left.
 */
int snapshot_export(const char *dir, const char *path,
                    const struct snapshot_archive_options *options,
                    struct failure *f) __attribute__((warn_unused_result));

/*
 * Unpacks to the new directory out_dir, published by one rename as by
 * snapshot_writer. What the archive unpacks to is counted in blocks of the
 * disk, holes not included; it ends with snapshot_size at the first that is too
 * many. 0, or a negative errno with *f filled; then nothing is left.
 */
int snapshot_import(const char *path, const char *out_dir,
                    const struct snapshot_archive_options *options,
                    char ret_id[DIGEST_HEX_SIZE], struct failure *f)
    __attribute__((warn_unused_result));

#endif
