/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From QUIESCE to RESTORE: a machine that may be frozen at any moment, and
 * goes on as one that must not take itself for the one it was.
 *
 *     AWAKE --QUIESCE--> PARKED ---------RESTORE--> AWAKE
 *        \---with KEEP--> KEPT --disconnected--> PARKED
 *                           \------------RESTORE--> AWAKE
 *
 * PARKED refuses what the host asks for. KEPT serves the connection on which
 * it was asked for, and no other. Between QUIESCE and its answer a helper
 * process does what takes time; a QUIESCE that fails changes no state.
 *
 * What may live on is the server's to check; see handle.h for what becomes of
 * it.
 */
#ifndef MICROSBX_GUEST_PARK_H
#define MICROSBX_GUEST_PARK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/handle.h"
#include "guest/proto.h"

enum park_state { PARK_AWAKE, PARK_KEPT, PARK_PARKED };

struct park {
    enum park_state state;
    bool quiescing; /* a QUIESCE waits for its answer */
    uint32_t flags; /* of that one */
    pid_t helper;   /* 0: has ended, or there is none */
    int status;     /* of one that has ended */
    int report_fd;  /* what the helper has to say; owned; -1 */
};

void park_init(struct park *park);

/* Kills the helper; it is init's, or whoever's, to reap. */
void park_fini(struct park *park);

/* QUIESCE: forks the helper. 0 or a negative errno (-EBUSY: one is there). */
int park_begin(struct park *park, const struct kernel_ops *kernel,
               uint32_t flags) __attribute__((warn_unused_result));

/* A child was reaped, with this wait status: was it the helper? */
void park_reaped(struct park *park, pid_t pid, int status);

/* True once the helper is through: time for park_end. */
bool park_is_due(const struct park *park);

/*
 * Ends a QUIESCE that is due, with err (0 or a negative errno) or else with
 * what the helper and the last steps came to: fills the answer and goes to the
 * new state. What is said after this costs the random generator nothing.
 */
void park_end(struct park *park, const struct kernel_ops *kernel, int err,
              struct proto_quiesced *ret_quiesced);

/* RESTORE: as identity_restore, if it is time for one. */
void park_restore(struct park *park, struct agent *agent,
                  const struct proto_restore *request,
                  struct proto_restored *ret_restored);

/* True if the host may not start anything now. */
bool park_refuses(const struct park *park);

/* The connection is gone. */
void park_disconnect(struct park *park);

#endif
