/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What opening a machine to boot (machine_open.c) and one to restore
 * (machine_restore.c) share. Private to trial/.
 */
#ifndef MICROSBX_TRIAL_MACHINE_PARTS_H
#define MICROSBX_TRIAL_MACHINE_PARTS_H

#include "trial/machine_spec.h"

/* An unlinked file for a disk's changed clusters, or memory. */
int machine_open_overlay(bool in_memory, int *ret_fd, struct failure *f)
    __attribute__((warn_unused_result));

/* A listening socket at path, which machine_close removes. */
int machine_open_vsock(struct machine *m, const char *path, struct failure *f)
    __attribute__((warn_unused_result));

#endif
