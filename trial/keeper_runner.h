/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam between the runner's loop and a keeper: what the runner calls, and
 * when. Private to trial/. Without a keeper (NULL) each of them does nothing.
 */
#ifndef MICROSBX_TRIAL_KEEPER_RUNNER_H
#define MICROSBX_TRIAL_KEEPER_RUNNER_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#include "trial/keeper.h"
#include "trial/runner.h"

/* The socket, the starter, a snapshot's helper and each client. */
#define KEEPER_POLLS_MAX (KEEPER_CLIENTS_MAX + 3u)

/* Before the loop. runner outlives the loop, not the keeper. */
void keeper_attach(struct keeper *k, struct runner *runner);
/* After it: the machine has ended, clients wait for keeper_finish. */
void keeper_detach(struct keeper *k);

/* Fills at most KEEPER_POLLS_MAX; returns how many. */
size_t keeper_polls(const struct keeper *k, struct pollfd *ret_polls);
/* The very polls, after poll. */
void keeper_dispatch(struct keeper *k, const struct pollfd *polls,
                     size_t count);

/* When keeper_on_clock has something to do; UINT64_MAX: never. */
uint64_t keeper_due_ns(const struct keeper *k);
void keeper_on_clock(struct keeper *k, uint64_t now_ns);

/* Its time is over, which ends the trial: true. */
bool keeper_is_expired(struct keeper *k, uint64_t now_ns);

/* The machine answers and its command runs (or there is none). */
void keeper_on_ready(struct keeper *k);

/* The agent's events that are not about the trial's own command or files. */
void keeper_on_started(struct keeper *k, uint32_t id);
void keeper_on_failed(struct keeper *k, uint32_t id,
                      const struct agent_exec_failure *failure);
void keeper_on_output(struct keeper *k, uint32_t id, uint32_t stream,
                      const void *bytes, size_t len);
void keeper_on_stdin_ready(struct keeper *k, uint32_t id);
void keeper_on_exit(struct keeper *k, uint32_t id,
                    const struct proto_exec_exit *status);
/* The agent is ready to be frozen, and later: to go on. */
void keeper_on_quiesced(struct keeper *k,
                        const struct proto_quiesced *quiesced);
void keeper_on_restored(struct keeper *k,
                        const struct proto_restored *restored);
void keeper_on_file_done(struct keeper *k, uint32_t id,
                         const struct proto_file_done *done, int local_err);

#endif
