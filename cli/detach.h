/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `run -d`: the process that becomes the keeper of a long-lived machine, and
 * the one that waits until the machine answers, says its name and leaves.
 *
 * The keeper is forked before anything is opened, and opens and checks all that
 * `run` does: it holds no descriptor of its caller, has a session of its own,
 * and /dev/null for its streams. It keeps the working directory, by which
 * relative paths of the command line are meant.
 */
#ifndef MICROSBX_CLI_DETACH_H
#define MICROSBX_CLI_DETACH_H

#include "cli/cli.h"
#include "cli/run_options.h"
#include "trial/keeper.h"

extern const struct option_group DETACH_OPTIONS;

struct detach {
    bool wanted; /* -d was given */
    char name[REGISTRY_NAME_MAX + 1];
    unsigned long long ttl_ms;
    int starter_fd; /* the keeper's end to its starter; -1 */
    int out_fd, err_fd;
    struct keeper *keeper;
};

/* The options about it. 0, or -EINVAL with *f filled. */
int detach_read(const struct options *options, struct detach *ret,
                struct failure *f) __attribute__((warn_unused_result));

/*
 * Forks. In the keeper's process: -1, and it goes on as `run` does. In the
 * starter's: the machine answered or did not, all is said, and this is what to
 * exit with.
 */
int detach_fork(struct detach *d, const struct verb *verb);

/*
 * In the keeper's process, before the machine is opened: takes the name, and
 * makes the files of output the sinks of spec. 0, or a negative errno with *f
 * filled.
 */
int detach_take_name(struct detach *d, const struct machine_spec *machine,
                     struct trial_spec *spec, struct failure *f)
    __attribute__((warn_unused_result));

/* What was opened, for the record; snapshot may be NULL. Before trial_run. */
int detach_set_machine(struct detach *d, const struct machine *machine,
                       const struct snapshot *snapshot, struct failure *f)
    __attribute__((warn_unused_result));

/* The trial is over: leaves its result, and tells a starter that waits. */
void detach_finish(struct detach *d, const struct trial_result *result,
                   const char *line);

/* Last of all, when nothing of the machine is left: lets the name go. */
void detach_close(struct detach *d);

#endif
