/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals that are meant for a whole group of processes: what a terminal, a
 * shell, a service manager or a batch system sends to all that it started.
 */
#ifndef MICROSBX_BASE_SIGNALS_H
#define MICROSBX_BASE_SIGNALS_H

/*
 * For a process whose parent alone decides when it ends: ignores what is sent
 * to groups, and what a closed pipe or a file size limit would kill it with.
 * Survives exec. Async-signal-safe. 0 or a negative errno.
 */
int signals_ignore_group(void) __attribute__((warn_unused_result));

#endif
