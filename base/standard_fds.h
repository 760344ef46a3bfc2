/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors 0, 1 and 2. A program that is started with one of them closed
 * would get its next file there, and whatever writes to standard output then
 * writes into that file. So each program of ours sees to them before anything
 * else.
 */
#ifndef MICROSBX_BASE_STANDARD_FDS_H
#define MICROSBX_BASE_STANDARD_FDS_H

#include <stdbool.h>

/*
 * Opens what is closed of 0, 1 and 2, as /dev/null the wrong way round: reading
 * and writing there stay errors (EBADF), as without a descriptor. 0 or a
 * negative errno.
 */
int standard_fds_ensure(void) __attribute__((warn_unused_result));

/* True if all three are open. Opens nothing. */
bool standard_fds_are_open(void);

/* False if it was closed, or is open for the other direction only. */
bool standard_fd_is_usable(int fd);

/*
 * /dev/null in place of all three, for a child that shall have none of its
 * parent's. Only async-signal-safe calls. 0 or a negative errno: then the child
 * must not go on.
 */
int standard_fds_set_null(void) __attribute__((warn_unused_result));

#endif
