/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a keeper that says nothing is well: who waits for it looks from time
 * to time, so that no wait is longer than the keeper lives and answers. One
 * that was stopped (SIGSTOP) is found by the host's word; one that hangs, by
 * asking it how it is on a connection of its own.
 */
#ifndef MICROSBX_TRIAL_LIVE_WATCH_H
#define MICROSBX_TRIAL_LIVE_WATCH_H

#include <stdint.h>

#include "base/failure.h"
#include "trial/machine_record.h"
#include "trial/registry.h"

#define LIVE_LOOK_MS 500     /* between two looks */
#define LIVE_STOPPED_MS 1000 /* stopped for that long is no accident */
/*
 * How long a keeper may take to answer a question, and in an emulated host:
 * more than it takes to stop a monitor that does not listen. Not counted while
 * it says that it is busy (its machine is being made or saved), up to a limit.
 */
#define LIVE_ANSWER_MS 30000
#define LIVE_ANSWER_EMULATED_MS 90000
#define LIVE_BUSY_MS 600000

struct live_watch {
    int sock;            /* owned: a question not answered yet; -1 */
    uint64_t look_ns;    /* the last look */
    uint64_t heard_ns;   /* the last sign of life; a question is one, too */
    uint64_t stopped_ns; /* found stopped, and ever since; 0: it is not */
    uint64_t busy_ns;    /* found busy, and ever since; 0: it is not */
};

void live_watch_init(struct live_watch *watch);
void live_watch_fini(struct live_watch *watch);

/* It said something. */
void live_watch_heard(struct live_watch *watch);

/*
 * To be called while nothing comes, as often as one likes. 0: wait on; or
 * -EHOSTDOWN with *f (keeper_stopped, keeper_hangs) saying what to do.
 */
int live_watch_look(struct live_watch *watch,
                    const struct registry_entry *entry,
                    const struct machine_record *record, struct failure *f)
    __attribute__((warn_unused_result));

/* How long it may take to answer, in nanoseconds, on this host. */
uint64_t live_answer_ns(void);

#endif
