/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gets from "a machine was started" to "a stream to its agent": hands the
 * monitor one end of a socketpair as a vsock client, says CONNECT, and tries
 * again while nobody listens in the guest yet.
 */
#ifndef MICROSBX_TRIAL_AGENT_LINK_H
#define MICROSBX_TRIAL_AGENT_LINK_H

#include <stdint.h>

#include "trial/monitor.h"

struct agent_link {
    int fd;            /* our end while a CONNECT is on its way; -1: none */
    uint64_t retry_ns; /* when to try again, if fd is -1 */
    char line[32];
    unsigned line_len;
};

void agent_link_init(struct agent_link *link);
void agent_link_fini(struct agent_link *link);

/* Starts an attempt if it is time: 0 or a negative errno of the host. */
int agent_link_try(struct agent_link *link, struct monitor *m, uint64_t now)
    __attribute__((warn_unused_result));

/*
 * Reads the answer when fd is readable. Returns 1 and gives the stream to
 * *ret_fd, or 0: not yet, or refused (it will be tried again).
 */
int agent_link_read(struct agent_link *link, uint64_t now, int *ret_fd);

#endif
