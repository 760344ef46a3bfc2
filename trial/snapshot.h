/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A published snapshot as its users see it: opened, checked, watched.
 *
 * Every file is opened before it is hashed (relative to the directory, no
 * symbolic link, regular files only), so that what was checked is what the
 * monitor gets. Manifest, state and maps are always checked; memory and disks
 * by level. A diff is flattened when it is opened: its memory and cow files are
 * then files in the cache folder, or unlinked ones of this process, and nobody
 * else needs to know of chains.
 *
 * Every refusal is a struct failure: the object is the file it is about, and
 * the code one of
 *
 *   snapshot_missing     there is nothing of that name, or no directory
 *   snapshot_invalid     a directory, but no snapshot
 *   snapshot_incomplete  half of one: a file is not there
 *   snapshot_damaged     a digest, a size or the manifest's text is wrong
 *   snapshot_version     another version's format or machine
 *   snapshot_parent      the parent of a diff is not found, or not the one
 *   snapshot_base        a base disk is not found, or has changed
 *   snapshot_cpu, snapshot_kvm, snapshot_page_size    not on this host
 *   snapshot_image       it is of another image
 *   snapshot_disk        a disk that does not fit
 *   snapshot_limit       it asks for more than it may have here
 *   snapshot_changed     a file is not what it was when it was opened
 *   snapshot_exists      the output exists
 *   snapshot_write       it cannot be written (no space, I/O error, ...)
 *   snapshot_archive     not an archive, or a damaged one
 *   snapshot_size        an archive unpacks to more than it may
 *   snapshot_unreadable  an I/O error or a missing permission
 */
#ifndef MICROSBX_TRIAL_SNAPSHOT_H
#define MICROSBX_TRIAL_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"
#include "trial/snapshot_manifest.h"

/* seal_max of a snapshot that is checked in full, once, or many times. */
#define SNAPSHOT_SEAL_ONCE ((uint64_t)64 << 20)
#define SNAPSHOT_SEAL_MANY ((uint64_t)256 << 20)

/* A diff may have this many ancestors. */
#define SNAPSHOT_CHAIN_MAX 16u

/* How much of memory and disks is checked; also what was applied. */
enum snapshot_check {
    SNAPSHOT_CHECK_DEFAULT, /* stamp if there is one, else full; never applied
                             */
    SNAPSHOT_CHECK_FULL,    /* every byte; leaves a stamp */
    SNAPSHOT_CHECK_SAMPLED, /* some chunks, chosen at random */
    SNAPSHOT_CHECK_NONE,
    SNAPSHOT_CHECK_STAMP, /* applied: an earlier full check's stamp fits */
};

/* "full", "sampled", "none", "stamp". */
const char *snapshot_check_name(enum snapshot_check check);

struct snapshot_stage;

struct snapshot_open_options {
    enum snapshot_check check;
    /* Further places for parents: snapshots, or folders of snapshots. */
    const char *const *parents; /* NULL-ended, or NULL */
    /* Further files that may be a base that is not stored. */
    const char *const *bases; /* NULL-ended, or NULL */
    bool no_bases;            /* only stored ones: inspect, diff, --from */
    /* A diff without its parents: memory_fd and cow_fd are -1. */
    bool no_flatten;
    /*
     * What is checked in full may be kept in sealed memory, up to so many bytes
     * of data: then nobody can change it after the check. 0: nothing is. many:
     * it is restored many times, so rather that than believing a stamp.
     */
    uint64_t seal_max;
    bool many;
    bool (*cancelled)(void *ctx); /* asked now and then; or NULL */
    void *ctx;
    /* Private to writers: it is this one, which is not published yet. */
    const struct snapshot_stage *stage; /* or NULL */
};

struct snapshot_open_disk {
    int base_fd;    /* read-only; -1: no_bases, and not stored */
    int cow_fd;     /* read-only; -1 for VM_DISK_RO */
    char *replaced; /* path of an override, or NULL; owned */
};

/* Owner: who opened it. All descriptors are owned by it: dup to give away. */
struct snapshot {
    const char *dir; /* as given, for messages; made safe to print */
    struct snapshot_manifest manifest; /* its strings are watch's */
    char id[DIGEST_HEX_SIZE];
    enum snapshot_check checked; /* the level that was applied */
    int state_fd;
    int memory_fd; /* memory_bytes long, sparse; read-only */
    int leaves_fd; /* memory's leaves are its first ones */
    struct snapshot_open_disk disks[VM_DISKS_MAX];
    struct snapshot_watch *watch; /* private: files and what they were like */
};

/*
 * Opens and checks. Parents of a diff are looked for by id in the folder the
 * snapshot is in, in options->parents, and in
 * ${XDG_CACHE_HOME:-$HOME/.cache}/microsbx/snapshots; bases by digest in the
 * chain, in options->bases and in the image folders.
 *
 * A full check leaves a stamp in .../microsbx/stamps, beside the images, not in
 * the snapshot, which may be read-only: the inode, size and times of every
 * file. Who can forge a stamp is the user whose checks it spares. Files changed
 * a moment ago get none, because a later change could look the same.
 *
 * On success the caller owns *ret_snapshot. Returns 0 or a negative errno with
 * *f filled.
 */
int snapshot_open(const char *dir, const struct snapshot_open_options *options,
                  struct snapshot **ret_snapshot, struct failure *f)
    __attribute__((warn_unused_result));
/* Accepts NULL. */
void snapshot_close(struct snapshot *snapshot);

/*
 * After a trial: every file of the snapshot (and of its parents, and the bases)
 * still has the inode, size and times it was opened with. 0, or -ESTALE with
 * snapshot_changed in *f.
 */
int snapshot_unchanged(const struct snapshot *snapshot, struct failure *f)
    __attribute__((warn_unused_result));

/* Names of files of a snapshot. */
struct snapshot_names {
    unsigned count;
    char names[1u + 2u * VM_DISKS_MAX][SNAPSHOT_NAME_MAX + 1];
};

/*
 * The files (memory, cow files, bases) whose content somebody could have
 * changed since the check without a trace: who had them open or mapped before.
 * None if all are sealed, by their file system (fs-verity) or in memory.
 */
void snapshot_unsealed(const struct snapshot *snapshot,
                       struct snapshot_names *ret_names);

/*
 * Another file as the base of disk id (--disk FILE,id=ID): it must be of the
 * same size, and the snapshot must not have written to that disk. Pre: opened
 * without no_bases. 0, or a negative errno with *f filled.
 */
int snapshot_override_base(struct snapshot *snapshot, const char *id,
                           const char *path, struct failure *f)
    __attribute__((warn_unused_result));

/* What one file of a snapshot was found to be. */
struct snapshot_verdict {
    const char *file;              /* its name in the snapshot */
    uint64_t bytes;                /* of it */
    const struct failure *failure; /* NULL: as recorded */
};

/*
 * Checks every file, and goes on after the first that is wrong; ctx goes to
 * the callback, which sees every file once, the manifest first. A diff's
 * parents are checked as well ("PARENT-ID/memory"). Leaves a stamp if all is
 * well. 0, or a negative errno with the first failure in *f.
 */
int snapshot_verify(const char *dir,
                    const struct snapshot_open_options *options,
                    void (*report)(void *ctx, const struct snapshot_verdict *),
                    void *ctx, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Compares the leaves that the monitor computed of a restored guest's memory
 * (MONITOR_PROVE) with the recorded ones. 0: the same; 1: *ret_chunk is the
 * first chunk that differs; or a negative errno with *f filled (-EBADMSG:
 * another number of leaves). The recorded ones are a sealed copy, which was
 * checked whatever the level.
 */
int snapshot_compare_leaves(const struct snapshot *snapshot, int leaves_fd,
                            uint64_t *ret_chunk, struct failure *f)
    __attribute__((warn_unused_result));

#endif
