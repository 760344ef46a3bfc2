/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots for unit tests, of a machine that never ran: memory, state and
 * disks are patterns. Everything lies in one folder of its own, the cache of
 * stamps included, which the rig removes. Uses libcheck's assertions.
 */
#ifndef MICROSBX_TESTS_SNAPSHOT_RIG_H
#define MICROSBX_TESTS_SNAPSHOT_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "trial/snapshot.h"
#include "trial/snapshot_writer.h"

#define RIG_MEMORY ((uint64_t)32 << 20)
#define RIG_ROOT_BYTES ((uint64_t)(1 << 20) + 3 * 512)
#define RIG_SCRATCH_BYTES ((uint64_t)(9 << 20) + 512)
#define RIG_SCRATCH_DATA ((uint64_t)100000)
#define RIG_CLUSTER 65536u

/* The folder of a test, and the machine that is frozen again and again. */
struct snapshot_rig {
    char dir[64];  /* "/tmp/microsbx-XXXXXX" */
    int memory_fd; /* what the guest has */
    int cow_fd;    /* clusters of the disk "scratch", as a monitor saves it */
    int root_fd, scratch_fd; /* bases; files "root" and "scratch" in dir */
    uint32_t state_seed;
};

void snapshot_rig_open(struct snapshot_rig *rig);
void snapshot_rig_close(struct snapshot_rig *rig);

/* DIR/NAME; valid until the next but three. */
const char *snapshot_rig_path(const struct snapshot_rig *rig, const char *name);

/* The guest writes: a page of the pattern `value` (0: zeros), or a cluster. */
void snapshot_rig_page(struct snapshot_rig *rig, uint64_t page, uint32_t value);
void snapshot_rig_cluster(struct snapshot_rig *rig, uint64_t cluster,
                          uint32_t value);
/* The cluster becomes absent again. */
void snapshot_rig_drop_cluster(struct snapshot_rig *rig, uint64_t cluster);

/* A manifest of the rig's machine, without disks' bases and digests. */
void snapshot_rig_manifest(struct snapshot_manifest *m);

/* Freezes the machine; 0 or what the writer said. NULL options: none. */
int snapshot_rig_try(struct snapshot_rig *rig, const char *name,
                     const struct snapshot_writer_options *options,
                     struct failure *f);
/* The same, which must succeed. */
void snapshot_rig_make(struct snapshot_rig *rig, const char *name,
                       const struct snapshot_writer_options *options);

/* Opens with this level; 0 or what snapshot_open said. */
int snapshot_rig_try_open(const struct snapshot_rig *rig, const char *name,
                          enum snapshot_check check,
                          struct snapshot **ret_snapshot, struct failure *f);
struct snapshot *snapshot_rig_must_open(const struct snapshot_rig *rig,
                                        const char *name,
                                        enum snapshot_check check);

/* Whole files; the first asserts that it is there. */
uint8_t *snapshot_rig_read(const char *path, size_t *ret_len);
void snapshot_rig_write(const char *path, const void *bytes, size_t len);
/*
 * Computes all digests of a snapshot anew, after a file of it was changed by
 * force: what is left to refuse it is the reader of that file. (A diff's leaves
 * stay as they are: they are of more than its own files.)
 */
void snapshot_rig_reseal(const char *dir);
/* Overwrites bytes of a published file. */
void snapshot_rig_poke(const char *path, uint64_t offset, const void *bytes,
                       size_t len);
/* True if the files' bytes are the same. */
bool snapshot_rig_same(int a, int b);
/* Names in the folder that are not "." and "..". */
unsigned snapshot_rig_entries(const char *dir);

#endif
