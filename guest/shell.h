/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console shell of `microsbx.shell=1`: root's shell in the sandbox, with
 * the same restrictions as any workload of root's and a cgroup of its own.
 * Without a root file system: /bin/sh of the initrd, if it has one.
 */
#ifndef MICROSBX_GUEST_SHELL_H
#define MICROSBX_GUEST_SHELL_H

#include <sys/types.h>

#include "guest/cmdline.h"
#include "guest/handle.h"

/* Starts it: its pid, or a negative errno. */
pid_t shell_start(struct agent *agent, const struct cmdline *options)
    __attribute__((warn_unused_result));

#endif
