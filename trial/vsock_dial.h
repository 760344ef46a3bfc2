/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy for connections a guest opens to the host: port P goes to the
 * Unix socket <path>_P, as Firecracker's users know it; without a path, or
 * without a listener there, it is refused.
 */
#ifndef MICROSBX_TRIAL_VSOCK_DIAL_H
#define MICROSBX_TRIAL_VSOCK_DIAL_H

#include "trial/monitor.h"

/* Answers a MONITOR_EVENT_DIAL; never waits. path may be NULL. */
void vsock_dial_answer(struct monitor *m, const struct monitor_event *event,
                       const char *path);

#endif
