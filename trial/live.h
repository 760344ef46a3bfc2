/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of a long-lived machine's keeper: finds the machine by its name,
 * asks one thing on one connection, and waits for the answer as long as the
 * keeper is well (live_watch.h): when it is not, what waits ends with
 * -EHOSTDOWN and the reason. Every refusal is a sentence.
 */
#ifndef MICROSBX_TRIAL_LIVE_H
#define MICROSBX_TRIAL_LIVE_H

#include "base/failure.h"
#include "base/msg.h"
#include "trial/keeper_proto.h"
#include "trial/live_watch.h"
#include "trial/machine_record.h"
#include "trial/registry.h"
#include "trial/trial.h"

#define LIVE_STATUS_MS 2000 /* for `ps`, which says "busy" then */

struct live {
    struct registry_entry entry; /* owned */
    struct machine_record record;
    int sock; /* owned; -1: not connected */
    struct live_watch watch;
    struct failure why; /* of the last -EHOSTDOWN */
    struct msg msg;
};

/* Finds the machine and reads its record: 0, or a negative errno. */
int live_open(const char *name, struct live *ret_live, struct failure *f)
    __attribute__((warn_unused_result));
void live_close(struct live *live);

/* The record anew. */
int live_reread(struct live *live, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Connects to the keeper; a machine that has ended, or whose keeper is gone or
 * of another version, is refused.
 */
int live_connect(struct live *live, struct failure *f)
    __attribute__((warn_unused_result));

/* Sends, waiting until it is taken: 0, -EHOSTDOWN or another error. */
int live_send(struct live *live, enum keeper_message type,
              const union keeper_body *body, int fd)
    __attribute__((warn_unused_result));

/*
 * The next message, waited for up to timeout_ms (-1: for ever): 1 with
 * *ret_type and *ret_body (bytes in it point into live->msg), 0 when the keeper
 * has closed, -ETIMEDOUT, -EHOSTDOWN, -EBADMSG, or another negative errno.
 */
int live_receive(struct live *live, int timeout_ms, uint32_t *ret_type,
                 union keeper_body *ret_body)
    __attribute__((warn_unused_result));

/* How things are; connects by itself. 0, or a negative errno. */
int live_status(struct live *live, struct keeper_status *ret_status)
    __attribute__((warn_unused_result));

/*
 * Waits until the machine has ended (connected or not), then reads its record.
 * wake_fd (-1: none) becoming readable ends the waiting: -ECANCELED; as does
 * the time: -ETIMEDOUT. Both leave *f alone. -EHOSTDOWN: the keeper is not
 * well.
 */
int live_wait_end(struct live *live, int timeout_ms, int wake_fd,
                  struct failure *f) __attribute__((warn_unused_result));

/*
 * STOP (or KILL, grace_ms -1) and wait for the end. A keeper that is not well
 * once the grace is over is killed, and its monitor with it: then 1 is
 * returned, *f says why, and the machine has no result yet (live_conclude). 0:
 * it ended by itself.
 */
int live_stop(struct live *live, int grace_ms, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Makes a keeper end whatever state it and its record are in: asks it to, and
 * kills it if it does not listen (its monitor dies with it). 0, or a negative
 * errno.
 */
int live_end_keeper(const struct registry_entry *entry, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Gives a machine whose keeper was killed a result: the record's end, and line
 * as result.json. 0, or a negative errno with *f filled.
 */
int live_conclude(struct live *live, const struct trial_result *result,
                  const char *line, struct failure *f)
    __attribute__((warn_unused_result));

/* The vsock socket that a killed keeper left, if nobody listens there. */
void live_remove_vsock(const struct registry_entry *entry);

/*
 * PUT or GET with a regular file of ours: 0 with *ret_done (which may hold an
 * error of either side), or a negative errno with *f filled.
 */
int live_copy(struct live *live, enum keeper_message type,
              const struct keeper_file *request, int fd,
              struct keeper_file_done *ret_done, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Asks for spec's command (EXEC and its strings); the keeper answers later. 0;
 * -E2BIG or -ENAMETOOLONG for what the protocol cannot say; or as live_send.
 */
int live_request_exec(struct live *live, const struct trial_spec *spec)
    __attribute__((warn_unused_result));

/* What a message that ends a request means as a failure. */
void live_explain(const struct live *live, uint32_t type,
                  const union keeper_body *body, struct failure *f);

/*
 * Runs spec's command in the machine (connected) and always fills the result.
 * Of the specification are used: argv, env, workdir, user, stdin_fd, tty and
 * its size, timeout_ms, pids_limit, output_limit, the sinks, signal_fd and
 * winsize. With keep_tail the last output_limit bytes of each stream are
 * delivered, at the end; else the first, as they come.
 */
void live_exec(struct live *live, const struct trial_spec *spec, bool keep_tail,
               struct trial_result *ret_result);

/*
 * Has the keeper make a snapshot of the machine, which goes on, in the absolute
 * folder dir. cancel_fd (-1: none) becoming readable gives up: nothing is
 * published. 0; -ECANCELED; or a negative errno with *f filled.
 */
int live_snapshot(struct live *live, const struct keeper_snapshot *request,
                  int cancel_fd, struct keeper_snapshot_done *ret_done,
                  struct failure *f) __attribute__((warn_unused_result));

#endif
