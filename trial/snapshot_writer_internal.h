/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by trial/snapshot_writer.c and trial/snapshot_finish.c only. */
#ifndef MICROSBX_TRIAL_SNAPSHOT_WRITER_INTERNAL_H
#define MICROSBX_TRIAL_SNAPSHOT_WRITER_INTERNAL_H

#include "trial/snapshot_internal.h"
#include "trial/snapshot_writer.h"

/* A file of the snapshot that the monitor fills. Both owned. */
struct saved_file {
    int fd;       /* the file itself */
    int saved_fd; /* the nameless one that the monitor writes in its place */
};

struct writer_disk {
    char id[VM_DISK_ID_MAX + 1];
    struct saved_file cow; /* -1: none */
    uint8_t *leaves;       /* of the base; owned; NULL: not added */
};

struct snapshot_writer {
    struct snapshot_stage stage;
    const struct snapshot *parent; /* borrowed, or NULL */
    const char *const *parents;    /* places for its parents; borrowed */
    bool without_base;
    struct sparse_cancel cancel;
    struct saved_file state, memory;
    unsigned disk_count;
    struct writer_disk disks[VM_DISKS_MAX];
    uint8_t *leaves; /* of the machine; owned */
};

/* Nobody has a file of it open for writing from here on. */
void snapshot_writer_close_files(struct snapshot_writer *w);
struct writer_disk *snapshot_writer_disk(struct snapshot_writer *w,
                                         const char *id);

#endif
