/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the monitor makes of its own process before it reads its first message:
 * dies with the harness, leaves no core, cannot be traced, holds no descriptor
 * it was not given and may be given as many as the hard limit allows, and
 * keeps its heap in one small arena.
 */
#ifndef MICROSBX_VMM_PROCESS_H
#define MICROSBX_VMM_PROCESS_H

/* Keeps descriptors 0, 1, 2 and MONITOR_SOCKET_FD. 0 or -errno. */
int process_confine(void) __attribute__((warn_unused_result));

/*
 * A guest's connections get descriptors below this number: what this process
 * may open, less what it needs to go on, for a snapshot in particular.
 */
int process_fd_end(void);

#endif
