/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the results of `run` and `exec` go: the command's two streams, the
 * line of JSON, and what a person is told.
 */
#ifndef MICROSBX_CLI_RESULTS_H
#define MICROSBX_CLI_RESULTS_H

#include "cli/cli.h"
#include "cli/run_options.h"
#include "trial/trial.h"

struct results {
    const struct verb *verb;
    int json_fd; /* -1: none; STDOUT_FILENO for "-" */
    int out_fd;  /* ours to close, -1 if none */
    int err_fd;
};

void results_init(struct results *r, const struct verb *verb);

/*
 * Opens the sinks into run->spec, and the files for JSON and events. 0, or a
 * negative errno with *f filled; results_close in any case.
 */
int results_open(struct results *r, const struct options *options,
                 struct run_options *run, struct failure *f)
    __attribute__((warn_unused_result));
void results_close(struct results *r, struct run_options *run);

/*
 * Creates a file for results: an error now is better than after the trial. 0,
 * or a negative errno with *f filled.
 */
int results_create(const char *option, const char *path, int *ret_fd,
                   struct failure *f) __attribute__((warn_unused_result));

/*
 * Tells the person, writes the line (NULL: out of memory) if one is wanted;
 * returns what to exit with.
 */
int results_finish(const struct results *r, const struct run_options *run,
                   const struct trial_result *result, const char *line);

#endif
