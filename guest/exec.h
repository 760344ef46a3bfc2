/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One exec, from EXEC_OPEN to EXEC_EXIT or EXEC_FAILED:
 *
 *     COLLECT --all strings--> START --execve--> RUN --ended--> DRAIN --> free
 *                                \--failed-----------------------^
 *
 * RUN ends when the command's own process does. In DRAIN all that is left in
 * its cgroup is killed, and output is read to its end: at most a second long
 * when something outside the cgroup holds a pipe open, and as long as the
 * host takes to give credit for what is there.
 *
 * A warm exec that has lost its connection waits in RUN, or ended in DRAIN,
 * until exec_attach.
 */
#ifndef MICROSBX_GUEST_EXEC_H
#define MICROSBX_GUEST_EXEC_H

#include "guest/handle.h"

#define EXEC_DRAIN_MS 1000u /* wait for output that does not end */
#define EXEC_KILL_MS 2000u  /* wait for killed processes to go */
#define EXEC_SAMPLE_MS 500u /* how often disk and processes are looked at */

/*
 * EXEC_OPEN: makes a free handle an exec. Failure is a state of the handle
 * that exec_step reports; it never fails here.
 */
void exec_open(struct handle *h, struct agent *agent, uint32_t id,
               const struct proto_exec_open *request);

/*
 * EXEC_STRINGS: 0 or -EBADMSG (more than announced, counts that do not fit,
 * or not expected). With the last byte the program is started.
 */
int exec_strings(struct handle *h, struct agent *agent, const void *bytes,
                 size_t len) __attribute__((warn_unused_result));

/* Frames for a live exec. Late ones (it is ending) are dropped. */
int exec_signal(struct handle *h, uint32_t signo)
    __attribute__((warn_unused_result));
int exec_winsize(struct handle *h, uint16_t rows, uint16_t cols)
    __attribute__((warn_unused_result));
void exec_cancel(struct handle *h);

/* A warm exec that could stay: it runs, and has taken all its stdin so far. */
bool exec_can_wait(const struct handle *h);

/* Its connection is gone, and it stays: to be attached, or unheard. */
void exec_wait(struct handle *h);
void exec_unhear(struct handle *h);

/*
 * ATTACH: a handle that is waiting becomes the live one `id`, and a STARTED is
 * queued. 0; else a negative errno, and it goes on waiting.
 */
int exec_attach(struct handle *h, const struct agent *agent, struct conn *conn,
                uint32_t id, const struct proto_attach *request)
    __attribute__((warn_unused_result));

/*
 * Does all that can be done at `now_ms` without waiting, queueing frames on
 * conn (NULL for an orphan). True: it is over, its last frame is queued, and
 * the caller may free the handle.
 */
bool exec_step(struct handle *h, struct agent *agent, struct conn *conn,
               uint64_t now_ms);

/* When exec_step has to be called at the latest; HANDLE_NO_TIME: not due. */
uint64_t exec_due_ms(const struct handle *h, uint64_t now_ms);

#endif
