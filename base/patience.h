/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long one process waits for another before it blames it. Only time in
 * which the waiting process itself was awake counts: one that was stopped
 * (SIGSTOP, a frozen control group, a host that slept) finds the clock far on,
 * and the other may have been stopped as long. This is no deadline: those are
 * kept by io_now_ns.
 */
#ifndef MICROSBX_BASE_PATIENCE_H
#define MICROSBX_BASE_PATIENCE_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

struct patience {
    uint64_t left_ns;
};

struct patience patience_of_ms(uint64_t ms);

/* Nothing of it is left. */
bool patience_is_over(const struct patience *p);

/*
 * Polls as poll does, for a part of the patience at most, and takes from it
 * what it lasted. Returns the count of ready descriptors; 0: none yet, look
 * whether it is over; or a negative errno, never -EINTR.
 */
int patience_poll(struct patience *p, struct pollfd *polls, nfds_t count)
    __attribute__((warn_unused_result));

#endif
