/* SPDX-License-Identifier: Apache-2.0 */
/* Starting a trial from a snapshot: the options of `run`, and opening it. */
#ifndef MICROSBX_CLI_SNAPSHOT_OPTIONS_H
#define MICROSBX_CLI_SNAPSHOT_OPTIONS_H

#include "cli/cli.h"
#include "trial/machine_spec.h"
#include "trial/trial.h"

extern const struct option_group SNAPSHOT_OPTIONS;

/* An opened snapshot, and how a trial starts from it. */
struct snapshot_source {
    struct snapshot *snapshot; /* owned; NULL: the machine boots */
    struct trial_restore restore;
    int send_fd;      /* owned: --send's file; -1: none */
    off_t send_start; /* where its input begins */
    bool in_place;    /* --reset in-place */
    int signal_fd;    /* borrowed: what ends the check of it; -1: nothing */
};

/* Nothing opened. */
void snapshot_source_init(struct snapshot_source *source);
/* Accepts one that was only initialised. */
void snapshot_source_fini(struct snapshot_source *source);

/*
 * Opens and checks what --snapshot names; without it, only refuses the options
 * that need it. spec: the machine options as read; what the snapshot fixes
 * (memory, CPUs, limits) is filled in. has_command: there is a COMMAND. A
 * signal (source->signal_fd, set before) ends the check: -ECANCELED. 0, or a
 * negative errno with *f filled.
 */
int snapshot_source_open(const struct options *options, bool has_command,
                         struct machine_spec *spec,
                         struct snapshot_source *source, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * A machine that is restored: the options -m, --cpus and --disk-limit say what
 * the snapshot may ask for. Fills these fields of spec, which was read from the
 * options; and, when it was restored, tells the user what it has in their place
 * and puts that into spec, for the result.
 */
void snapshot_limits_read(const struct options *options,
                          struct machine_spec *spec);
void snapshot_limits_told(const struct verb *verb,
                          const struct machine *machine,
                          struct machine_spec *spec);

/* Can this host restore it? kvm_fd is borrowed. */
int snapshot_source_check_host(const struct snapshot_source *source, int kvm_fd,
                               struct failure *f)
    __attribute__((warn_unused_result));

#endif
