/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A look at another process of this host by its number: whether it runs, and
 * ending it without ever meeting a stranger that was given the same number. Not
 * for children: of them the kernel tells more (waitid).
 */
#ifndef MICROSBX_TRIAL_PROCESS_LOOK_H
#define MICROSBX_TRIAL_PROCESS_LOOK_H

#include <stdint.h>
#include <sys/types.h>

enum process_look {
    PROCESS_GONE,    /* ended (reaped or not), or the number is another's now */
    PROCESS_STOPPED, /* by a signal (SIGSTOP, Ctrl-Z), until it is continued */
    PROCESS_THERE,   /* anything else, also where nothing can be seen */
};

/* Clock ticks from the host's start to its own: 0 if it cannot be seen. */
uint64_t process_start_ticks(pid_t pid);

/* start_ticks: as process_start_ticks told when it was known; 0: any. */
enum process_look process_look(pid_t pid, uint64_t start_ticks);

/*
 * SIGKILL to that process and to no other. 0; -ESRCH: it is gone; or another
 * negative errno.
 */
int process_kill(pid_t pid, uint64_t start_ticks)
    __attribute__((warn_unused_result));

#endif
