/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens between fork and a workload: the child joins its cgroup and
 * the sandbox, becomes the user, sheds capabilities and executes the program.
 * A failure on the way is reported through a close-on-exec pipe as a struct
 * child_failure; a pipe that closes without a word means: executed.
 */
#ifndef MICROSBX_GUEST_CHILD_H
#define MICROSBX_GUEST_CHILD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/sandbox.h"
#include "guest/users.h"

struct child_failure {
    uint32_t reason; /* enum proto_exec_failure */
    uint32_t err;
};

struct child_exec {
    const char *const *argv; /* NULL-terminated */
    const char *const *env;  /* NULL-terminated */
    const char *user;
    const char *cwd;
    uint32_t flags; /* PROTO_EXEC_* */
    int fds[3];     /* become 0, 1, 2 */
    int procs_fd;   /* cgroup.procs to join */
};

/*
 * Forks the program into the sandbox. Returns its pid and the reading end of
 * the failure pipe (non-blocking, the caller's), or a negative errno. The fds
 * stay the caller's.
 */
pid_t child_spawn(struct sandbox *sandbox, const struct child_exec *spec,
                  int *ret_report_fd) __attribute__((warn_unused_result));

/*
 * Steps of it that file helpers share; called in the child. enter joins the
 * cgroup and the sandbox's root; oom_adj is what the child asks for. become
 * gives up root's identity and, in any case, the capabilities.
 */
int child_enter(const struct sandbox *sandbox, int procs_fd,
                const char *oom_adj) __attribute__((warn_unused_result));
int child_become(const struct user *user) __attribute__((warn_unused_result));

/* Moves the descriptors to 0..count-1 and closes all others. */
int child_keep_fds(const int *fds, unsigned int count)
    __attribute__((warn_unused_result));

#endif
