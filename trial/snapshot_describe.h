/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest of a machine that is about to be started and then frozen. */
#ifndef MICROSBX_TRIAL_SNAPSHOT_DESCRIBE_H
#define MICROSBX_TRIAL_SNAPSHOT_DESCRIBE_H

#include "trial/machine_spec.h"
#include "trial/monitor.h"
#include "trial/snapshot_compat.h"
#include "trial/snapshot_writer.h"

/*
 * What the machine, its image and this host are, and its disks' bases, which
 * are read and stored by the writer; the kernel's release is what the guest
 * says, later. Pre: machine_open or machine_restore, and
 * its descriptors not given away yet. *ret_m is initialised; the caller frees
 * it, on failure too. *ret_files gets the files the monitor is to fill
 * (borrowed from the writer). 0, or a negative errno with *f filled.
 */
int snapshot_describe(struct machine *machine,
                      const struct monitor_probe *probe,
                      struct snapshot_writer *writer,
                      struct snapshot_manifest *ret_m,
                      struct monitor_save_files *ret_files, struct failure *f)
    __attribute__((warn_unused_result));

/* What ran in a machine since it was booted or restored. */
struct snapshot_history {
    const char *const *commands; /* NULL-ended, or NULL; the first one first */
    const char *ready; /* the line that told when to freeze, or NULL */
    bool waiting;      /* a process waits for input */
};

/*
 * Records all that ran before the freeze: what the snapshot says that the
 * machine was restored from, its process that waits included, and then its own
 * history. Where that is too much, the last commands are left out, and it is
 * said that they are. 0 or -ENOMEM.
 */
int snapshot_describe_history(const struct machine *machine,
                              const struct snapshot_history *history,
                              struct snapshot_manifest *m)
    __attribute__((warn_unused_result));

/* The SHA-256 of an image's image.json: 0, or a negative errno. */
int snapshot_image_digest(const struct image *image,
                          char ret_hex[DIGEST_HEX_SIZE])
    __attribute__((warn_unused_result));

#endif
