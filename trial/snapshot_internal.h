/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files trial/snapshot_*.c and their tests, and by nobody else.
 */
#ifndef MICROSBX_TRIAL_SNAPSHOT_INTERNAL_H
#define MICROSBX_TRIAL_SNAPSHOT_INTERNAL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cow_format.h"
#include "base/failure.h"
#include "trial/merkle.h"
#include "trial/snapshot.h"
#include "trial/snapshot_manifest.h"
#include "trial/sparse.h"

/* ---- manifest (snapshot_manifest.c) ------------------------------------- */

#define SNAPSHOT_MANIFEST_NAME "manifest.json"
#define SNAPSHOT_ID_NAME "manifest.sha256"
#define SNAPSHOT_ID_LEN 65u /* its bytes: the digits and a newline */

/*
 * The files a snapshot of this machine consists of, sorted by name, without
 * their digests; bytes of the state, which varies, is 0. Returns the count.
 */
unsigned
snapshot_manifest_expect(const struct snapshot_manifest *m,
                         struct snapshot_file ret_files[SNAPSHOT_FILES_MAX]);

/*
 * What no single field can say: ranges that depend on each other, the files.
 * 0, or -EINVAL with a clause.
 */
int snapshot_manifest_check(const struct snapshot_manifest *m,
                            char err[SNAPSHOT_ERR_MAX])
    __attribute__((warn_unused_result));

/* Names of a disk's files: "base-ID", "disk-ID.cow", "disk-ID.map". */
enum snapshot_disk_file {
    SNAPSHOT_DISK_BASE,
    SNAPSHOT_DISK_COW,
    SNAPSHOT_DISK_MAP,
};
struct snapshot_name {
    char text[SNAPSHOT_NAME_MAX + 1];
};
struct snapshot_name snapshot_disk_file_name(const char *id,
                                             enum snapshot_disk_file which);

/* Length of a disk's cow file. */
uint64_t snapshot_cow_bytes(const struct snapshot_disk *disk);

/* Chunks that a file of this many bytes has. */
uint64_t snapshot_chunks(uint64_t bytes);
/* Leaves of the whole machine. */
uint64_t snapshot_leaf_count(const struct snapshot_manifest *m);

/* ---- failures (snapshot_dir.c) ------------------------------------------ */

/*
 * Fills *f and returns error. The remedy follows from the code; what is not
 * printable in object and message becomes '?'.
 */
int snapshot_fail(struct failure *f, int error, const char *code,
                  const char *object, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* "DIR/NAME" for messages; cut if it is very long. */
struct snapshot_path {
    char text[512];
};
struct snapshot_path snapshot_path(const char *dir, const char *name);

/* ---- walking over a file's chunks (snapshot_walk.c) --------------------- */

struct snapshot_walk {
    int fd;
    uint64_t bytes;       /* the file's length, which was checked */
    uint64_t data;        /* plain covers these; behind them only zeros */
    struct digest *plain; /* fed with the data; or NULL: none, no such rule */
    bool trust_zeros;     /* what is behind the data is not read, but taken for
                             zero: gigabytes of it where holes are hidden */
    const struct sparse_cancel *cancel; /* or NULL */
    /* Each chunk's leaf, in order; not 0 ends the walk. */
    int (*leaf)(void *ctx, uint64_t chunk, const uint8_t leaf[DIGEST_SIZE]);
    void *ctx;
};

/*
 * Calls leaf for each chunk; holes are not read. 0; -ENODATA (the file has
 * become shorter), -EBADMSG (something behind the data), -ECANCELED, what leaf
 * returned, or another negative errno.
 */
int snapshot_walk(const struct snapshot_walk *walk)
    __attribute__((warn_unused_result));

/* The leaf of one chunk: its SHA-256, quickly if it is all zeros. */
void snapshot_leaf(const void *chunk, size_t len,
                   uint8_t ret_leaf[DIGEST_SIZE]);

/* The leaf of the chunk there; a hole is not read. Moves the file position. 0;
 * -ENODATA (the file is shorter) or another negative errno. */
int snapshot_chunk_leaf(int fd, uint64_t start, size_t len,
                        uint8_t ret_leaf[DIGEST_SIZE])
    __attribute__((warn_unused_result));

/* The Merkle root of one file, as hex; errors as snapshot_walk. */
int snapshot_tree(int fd, uint64_t bytes, const struct sparse_cancel *cancel,
                  char ret_hex[DIGEST_HEX_SIZE])
    __attribute__((warn_unused_result));

/* ---- one directory (snapshot_dir.c) ------------------------------------- */

/* What a file was like: a change of it changes this. */
struct snapshot_mark {
    uint64_t dev, ino, size;
    int64_t mtime_ns, ctime_ns;
    bool sealed; /* its file system refuses changes */
};
/* 0, or -EINVAL (no regular file), or another negative errno. */
int snapshot_mark_get(int fd, struct snapshot_mark *ret_mark)
    __attribute__((warn_unused_result));
bool snapshot_mark_same(const struct snapshot_mark *a,
                        const struct snapshot_mark *b);

/* An open file of a snapshot, or a base from elsewhere. */
struct snapshot_entry {
    int fd; /* owned; -1: not open */
    struct snapshot_mark mark;
};

/* A directory of the chain. */
struct snapshot_member {
    char *path; /* as given; owned */
    char *dir;  /* the same for messages, printable; owned */
    int dir_fd; /* owned; -1: it is not published yet */
    const struct snapshot_stage *stage; /* its files then; borrowed */
    char id[DIGEST_HEX_SIZE];
    struct snapshot_manifest manifest;
    struct snapshot_entry manifest_entry, id_entry;
    struct snapshot_entry files[SNAPSHOT_FILES_MAX]; /* as in the manifest */
    int copies[SNAPSHOT_FILES_MAX]; /* in sealed memory; owned; -1: none */
};

/*
 * Opens the directory, reads id and manifest, compares and parses. 0, or a
 * negative errno with *f filled; *ret_member can be closed in any case.
 */
int snapshot_member_open(const char *dir, struct snapshot_member *ret_member,
                         struct failure *f) __attribute__((warn_unused_result));
/* The same for one that is being written. */
int snapshot_member_open_staged(const struct snapshot_stage *stage,
                                struct snapshot_member *ret_member,
                                struct failure *f)
    __attribute__((warn_unused_result));
/* Opens file i of the manifest, which must have the recorded size. */
int snapshot_member_open_file(struct snapshot_member *member, uint32_t i,
                              struct failure *f)
    __attribute__((warn_unused_result));
/* Every file of it. */
int snapshot_member_open_files(struct snapshot_member *member,
                               struct failure *f)
    __attribute__((warn_unused_result));
/* Has file i in sealed memory from here on: what is checked is what is read. */
int snapshot_member_copy_file(struct snapshot_member *member, uint32_t i,
                              struct failure *f)
    __attribute__((warn_unused_result));
void snapshot_member_close(struct snapshot_member *member);
/* File i, or its copy. Borrowed. */
int snapshot_member_file_fd(const struct snapshot_member *member, uint32_t i);
/* The open file of that name, or its copy; -1 if there is none. Borrowed. */
int snapshot_member_fd(const struct snapshot_member *member, const char *name);

/* ${XDG_CACHE_HOME:-$HOME/.cache}/microsbx/NAME; the caller frees; or NULL. */
char *snapshot_cache_dir(const char *name);
/* Like mkdir -p, 0700; what fails is found when a file is made in it. */
void snapshot_make_folders(const char *folder);

/* The id in dir's manifest.sha256, unchecked: 0 or a negative errno. */
int snapshot_read_id(int dir_fd, char ret_id[DIGEST_HEX_SIZE])
    __attribute__((warn_unused_result));

/* ---- sealing (snapshot_seal.c) ------------------------------------------ */

/* Nobody can change the file's content, neither now nor later. */
bool snapshot_is_sealed(int fd);
/*
 * Has the file system refuse every change, if it can (fs-verity) and the file
 * is not very large. fd is read-only, and nobody has the file open for writing.
 */
void snapshot_seal_file(int fd);
/* Bytes that a copy takes. */
uint64_t snapshot_seal_cost(int fd);
/* A copy in sealed memory: a read-only descriptor or a negative errno. */
int snapshot_seal_copy(int fd, uint64_t bytes,
                       const struct sparse_cancel *cancel)
    __attribute__((warn_unused_result));
/* Some content is not sealed, and a copy of it is within seal_max. */
bool snapshot_seal_helps(const struct snapshot *s);
/*
 * Puts sealed copies in the place of content that is not sealed, within
 * seal_max; before it is checked. 0 or -ECANCELED.
 */
int snapshot_seal_content(struct snapshot *s)
    __attribute__((warn_unused_result));

/* ---- cow files (snapshot_cow.c) ----------------------------------------- */

/* A cow file's bitmap, and where its clusters lie. */
struct snapshot_cow {
    int fd; /* borrowed */
    struct cow_format format;
    uint8_t *bits; /* owned */
};

/*
 * Reads and checks header and bitmap: 0, -EBADMSG if it is none for a disk of
 * that size, or another negative errno. After an error there is nothing to
 * free.
 */
int snapshot_cow_load(int fd, uint64_t disk_bytes, struct snapshot_cow *ret_cow)
    __attribute__((warn_unused_result));
void snapshot_cow_fini(struct snapshot_cow *cow);
/* Bytes of a cluster: 64 KiB, or less for the last one. */
size_t snapshot_cow_cluster_len(const struct snapshot_cow *cow,
                                uint64_t cluster);

bool snapshot_bit_get(const uint8_t *bits, uint64_t i);
void snapshot_bit_set(uint8_t *bits, uint64_t i);

/* ---- comparing (snapshot_compare.c) ------------------------------------- */

struct snapshot_compare {
    const struct sparse_cancel *cancel; /* or NULL */
    /* A unit of a that is not the same in b; not 0 ends the comparison. */
    int (*differs)(void *ctx, uint64_t unit, const uint8_t *bytes, size_t len);
    void *ctx;
};

/* Page by page: 0, -ENODATA (shorter), -ECANCELED, what differs returned, ...
 */
int snapshot_compare_memory(int a, int b, uint64_t bytes,
                            const struct snapshot_compare *compare)
    __attribute__((warn_unused_result));

/* A disk as a guest reads it. */
struct snapshot_side {
    const struct snapshot_cow *cow;
    int base_fd; /* or -1: a cluster that only one side has differs */
};

/*
 * Cluster by cluster, as the guests would read them; those that neither has are
 * the same. Pre: disks of one size. Errors as above.
 */
int snapshot_compare_disk(const struct snapshot_side *a,
                          const struct snapshot_side *b,
                          const struct snapshot_compare *compare)
    __attribute__((warn_unused_result));

/* ---- the chain (snapshot_chain.c, snapshot_flatten.c) ------------------- */

struct snapshot_base {
    char *path; /* for messages; owned; NULL: not looked for */
    struct snapshot_entry entry;
};

struct snapshot_watch {
    struct sparse_cancel cancel;
    int64_t opened_ns; /* CLOCK_REALTIME, before anything was opened */
    uint64_t seal_max; /* as in snapshot_open_options */
    bool many;
    bool flat_is_own; /* memory and cow files were made for this process */
    /* ... or are kept ones, which are files of the snapshot like any: fd -1: no
     * such file */
    struct snapshot_entry flat_memory, flat_cows[VM_DISKS_MAX];
    unsigned depth; /* members, 1 or more: the snapshot, its parent, ... */
    struct snapshot_member chain[SNAPSHOT_CHAIN_MAX + 1];
    struct snapshot_base bases[VM_DISKS_MAX];
};

/* Opens all members and all their files. */
int snapshot_chain_open(const char *dir,
                        const struct snapshot_open_options *options,
                        struct snapshot_watch *watch, struct failure *f)
    __attribute__((warn_unused_result));
/*
 * Opens chain[depth - 1]'s parent (id and manifest only) as chain[depth] and
 * counts it. Pre: it has one.
 */
int snapshot_chain_next(const struct snapshot_open_options *options,
                        struct snapshot_watch *watch, struct failure *f)
    __attribute__((warn_unused_result));
/* The member of the chain that holds that very base, or NULL. */
const struct snapshot_member *
snapshot_chain_storing(const struct snapshot_watch *watch,
                       const struct snapshot_disk *disk);
/* Opens the base of each disk, wherever it is. */
int snapshot_bases_open(const struct snapshot_open_options *options,
                        struct snapshot_watch *watch, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Memory and cow files of the chain as one: unlinked files, read-only, owned by
 * the caller (ret_cows: -1 where a disk has none). 0, or a negative errno with
 * *f filled and nothing left open.
 */
int snapshot_flatten(const struct snapshot_watch *watch, int *ret_memory_fd,
                     int ret_cows[VM_DISKS_MAX], struct failure *f)
    __attribute__((warn_unused_result));

/* One of them, of the memory (disk -1) or of a disk, into an empty file: 0 or a
 * negative errno, and the sentence for that. */
int snapshot_flatten_file(const struct snapshot_watch *watch, int disk, int to)
    __attribute__((warn_unused_result));
int snapshot_flatten_fail(const struct snapshot_watch *watch, int error,
                          struct failure *f);

/* An empty file without a name, in $TMPDIR or /var/tmp: fd or -errno. */
int snapshot_temporary(void) __attribute__((warn_unused_result));

/* ---- flattened diffs, kept (snapshot_flat.c) ---------------------------- */

/* Opens what is kept of the chain, into watch->flat_*: true, or nothing is. */
bool snapshot_flat_open(struct snapshot_watch *watch);
/*
 * Makes it, and opens it. 0; 1 if it cannot be kept (no cache, no room); or
 * -ECANCELED, -EBADMSG, -ENODATA, as flattening ended.
 */
int snapshot_flat_make(struct snapshot_watch *watch)
    __attribute__((warn_unused_result));
/* Closes and removes it: it is not what the diff's leaves say. */
void snapshot_flat_discard(struct snapshot_watch *watch);
void snapshot_flat_close(struct snapshot_watch *watch);

/* ---- checking (snapshot_check.c, snapshot_stamp.c) ---------------------- */

/* Part of `leaves`, and the file it is about. */
enum snapshot_region_kind {
    SNAPSHOT_REGION_MEMORY,
    SNAPSHOT_REGION_BASE,
    SNAPSHOT_REGION_COW,
};
struct snapshot_region {
    enum snapshot_region_kind kind;
    uint32_t disk;
    uint64_t bytes; /* of the file */
    uint64_t first; /* its first leaf */
};
#define SNAPSHOT_REGIONS_MAX (1u + 2u * VM_DISKS_MAX)
unsigned
snapshot_regions(const struct snapshot_manifest *m,
                 struct snapshot_region ret_regions[SNAPSHOT_REGIONS_MAX]);
/* Its file in a snapshot. */
struct snapshot_name snapshot_region_name(const struct snapshot_manifest *m,
                                          const struct snapshot_region *region);

/* Chunk i of a region of an open file against `leaves`: 0; 1 if it differs; or
 * a negative errno. */
int snapshot_check_chunk(int fd, const struct snapshot_region *region,
                         uint64_t i, int leaves_fd);
/* Digest of file i of a member, plain or tree, against the manifest. */
int snapshot_check_file(const struct snapshot_member *member, uint32_t i,
                        const struct sparse_cancel *cancel, struct failure *f)
    __attribute__((warn_unused_result));
/* Root and trees of the member's `leaves` against its manifest. */
int snapshot_check_leaves(const struct snapshot_member *member,
                          struct failure *f)
    __attribute__((warn_unused_result));
/*
 * Copies state, leaves and maps into sealed memory and checks them, whatever
 * the level; before anything else is made of them.
 */
int snapshot_check_small(struct snapshot_watch *watch, struct failure *f)
    __attribute__((warn_unused_result));
/*
 * Checks an opened snapshot by level, in two steps: the files as they are, and
 * (once it is flattened) what is in them. The first sets checked. What is not
 * open is not checked.
 */
int snapshot_check_files(struct snapshot *snapshot, enum snapshot_check check,
                         struct failure *f) __attribute__((warn_unused_result));
int snapshot_check_content(const struct snapshot *snapshot, struct failure *f)
    __attribute__((warn_unused_result));

/* CLOCK_REALTIME, which is what file systems stamp files with. */
int64_t snapshot_now_ns(void);
/* True if an earlier full check left a stamp of these very files. */
bool snapshot_stamp_fits(const struct snapshot *snapshot);
/* CLOCK_REALTIME from which on a change of any file is sure to be seen. */
int64_t snapshot_settles_at(const struct snapshot *snapshot);
/* Leaves one, if the files had settled before they were opened; a failure to do
 * so is no failure of the check. */
void snapshot_stamp_leave(const struct snapshot *snapshot);
/*
 * The same for a snapshot that was checked when it was staged and has been
 * published since: that gives files names, which changes their ctime and
 * nothing else. If anything else is not as it was, no stamp is left.
 */
void snapshot_stamp_renew(struct snapshot *snapshot);

/* ---- publishing (snapshot_stage.c, snapshot_hidden.c) ------------------- */

#define STAGE_FILES_MAX (SNAPSHOT_FILES_MAX + 2u) /* manifest and id */

/* A file of a snapshot that is being written. */
struct stage_file {
    char name[SNAPSHOT_NAME_MAX + 1];
    int fd; /* read-only; owned */
};

/*
 * A directory that is being made: files without names, which get them in a
 * hidden folder beside the output at the very end; or, if named, a hidden
 * folder from the start. The folder is locked while its owner lives.
 */
struct snapshot_stage {
    char *out;      /* as given, for messages */
    char *folder;   /* the folder it is to appear in */
    char *name;     /* its name there */
    char temp[256]; /* the hidden folder's name there; "": none */
    int folder_fd, dir_fd;
    bool named;
    unsigned file_count;
    struct stage_file files[STAGE_FILES_MAX];
};

/* Calls `take` with the name of each entry of a folder, as far as it can. */
typedef void snapshot_entry_fn(int dir_fd, const char *name, void *ctx);
void snapshot_each_entry(int dir_fd, snapshot_entry_fn *take, void *ctx);
/* One that unlinks it. */
void snapshot_remove_file(int dir_fd, const char *name, void *ctx);

/*
 * Makes and locks the hidden folder: sets temp and dir_fd. 0, or a negative
 * errno; then it may be there all the same, to be removed.
 */
int snapshot_hidden_make(struct snapshot_stage *stage)
    __attribute__((warn_unused_result));
/* Removes it with all that is in it, if there is one; closes dir_fd. */
void snapshot_hidden_remove(struct snapshot_stage *stage);
/* Removes those in the folder whose makers are dead. */
void snapshot_hidden_sweep(int folder_fd);

/*
 * Removes what dead writers left, and finds out which way files can be made
 * (there is room to begin at least). 0, or a negative errno with *f filled;
 * *ret_stage can be ended in any case.
 */
int snapshot_stage_begin(const char *out_dir, struct snapshot_stage *ret_stage,
                         struct failure *f) __attribute__((warn_unused_result));
/* A new file in it: the descriptor (read-write, the caller's) or -errno. */
int snapshot_stage_create(struct snapshot_stage *stage, const char *name)
    __attribute__((warn_unused_result));
/* One of its files again, to read, from its beginning: as above. */
int snapshot_stage_open(const struct snapshot_stage *stage, const char *name)
    __attribute__((warn_unused_result));
/* A new file of the same file system that has no name: as above. */
int snapshot_stage_nameless(const struct snapshot_stage *stage)
    __attribute__((warn_unused_result));
/*
 * Seals and syncs every file, opens the snapshot as its users will (with a
 * full check), and has it appear. 0, or a negative errno with *f filled.
 */
int snapshot_stage_publish(struct snapshot_stage *stage,
                           const struct snapshot_open_options *options,
                           struct failure *f)
    __attribute__((warn_unused_result));
/* The same without the check, for what is checked whenever it is used. */
int snapshot_stage_appear(struct snapshot_stage *stage, struct failure *f)
    __attribute__((warn_unused_result));
/* Leaves nothing, unless it was published. A zeroed struct is fine. */
void snapshot_stage_end(struct snapshot_stage *stage);

/* Fails with snapshot_write: what was attempted is a clause ("write memory").
 */
int snapshot_stage_fail(const struct snapshot_stage *stage, int error,
                        const char *what, struct failure *f);

#endif
