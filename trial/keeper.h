/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper of a long-lived machine: a trial (trial.h) that other processes
 * can talk to while it lasts. It is given to trial_run in the specification;
 * the runner's one loop then also serves the clients of its socket, each of
 * which may run a command, move a file, ask how things are, or end it all.
 *
 *     registry_create, keeper_new(&setup, &k, f)   the name is taken
 *     spec.keeper = k; trial_run(&spec, ...)       clients are served
 *     keeper_finish(k, ...)                        they are told how it ended
 *     keeper_free(k)                               and the lock is let go
 *
 * A specification without a command (argv NULL) makes a machine that waits for
 * clients until it is stopped, expires, or dies. With one, the machine ends
 * when its command does, and what clients still run there ends with it.
 *
 * A slow or dead client affects its own request only: bytes for it are bounded
 * (KEEPER_WINDOW a stream) and come from the guest as it takes them. One that
 * hangs up has its command killed.
 */
#ifndef MICROSBX_TRIAL_KEEPER_H
#define MICROSBX_TRIAL_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"
#include "trial/machine_record.h"
#include "trial/registry.h"
#include "trial/trial.h"

#define KEEPER_CLIENTS_MAX 64u /* at once; who comes then is refused */
/*
 * How long the agent may take beyond a command's timeout to say that it is
 * gone. It then does not do what it is told, and the machine is unavailable.
 */
#define KEEPER_CONFIRM_MS 2000u
/* In an emulated host the guest's own clock is late by more than that. */
#define KEEPER_CONFIRM_EMULATED_MS 10000u

struct keeper;

struct keeper_setup {
    struct registry_entry *entry;        /* taken over by keeper_new */
    const struct machine_record *record; /* as it is at the start; copied */
    /*
     * Told KEEPER_STARTED when the machine answers and its command runs;
     * when its other end is closed before that, the machine is given up.
     * Borrowed.
     */
    int starter_fd;
};

/*
 * Listens, writes the record, and makes the machine appear under its name. 0,
 * or a negative errno with *f filled, and nothing is left of the entry.
 */
int keeper_new(const struct keeper_setup *setup, struct keeper **ret_keeper,
               struct failure *f) __attribute__((warn_unused_result));

/* The folder, for the files of output. Borrowed. */
const struct registry_entry *keeper_entry(const struct keeper *keeper);

/* The record, to be completed before trial_run. */
struct machine_record *keeper_record(struct keeper *keeper);

/*
 * Remembers what the machine is made of, for snapshots of it: before trial_run,
 * which gives the descriptors away. machine is borrowed while the keeper lives.
 * 0, or a negative errno with *f filled.
 */
int keeper_set_machine(struct keeper *keeper, const struct machine *machine,
                       struct failure *f) __attribute__((warn_unused_result));

/* True once the starter was told: from then on the record stays. */
bool keeper_was_ready(const struct keeper *keeper);

/*
 * Writes the record of the end and result.json (line), and tells all clients.
 * A machine that was never ready is removed instead. Once, after trial_run.
 */
void keeper_finish(struct keeper *keeper, const struct trial_result *result,
                   const char *line);

/* Lets go of the lock, last of all. NULL is fine. */
void keeper_free(struct keeper *keeper);

#endif
