/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the results of `run` and `exec` go: the command's two streams, the
 * line of JSON, and what a person is told.
 */
#ifndef MICROSBX_CLI_RESULTS_H
#define MICROSBX_CLI_RESULTS_H

#include "cli/cli.h"
#include "cli/outputs.h"
#include "cli/run_options.h"
#include "trial/machine_record.h"
#include "trial/trial.h"

struct results {
    const struct verb *verb;
    int argc; /* borrowed: the command line, from results_parse on */
    char **argv;
    int json_fd; /* -1: none; STDOUT_FILENO for "-" */
    int out_fd;  /* ours to close, -1 if none */
    int err_fd;
    struct outputs outputs; /* what is read or written; results_open's */
};

void results_init(struct results *r, const struct verb *verb);

/*
 * As cli_parse, but says nothing of an error: 0, also for help, which is
 * printed; or -EINVAL with *f filled and the results opened that were named
 * before the word that is wrong.
 */
int results_parse(struct results *r, int argc, char **argv,
                  struct options *ret_options, struct run_options *run,
                  struct failure *f) __attribute__((warn_unused_result));

/*
 * Reads where results go, and opens it, if it is none of r->outputs, which the
 * caller has told what is read: JSON first, for what may go wrong with the
 * rest, then the sinks into run->spec, and the file for events. Files that an
 * earlier trial fetched go. To be called whatever is wrong with the options, so
 * that this replaces an earlier result, too. 0, or a negative errno with *f
 * filled; results_close in any case.
 */
int results_open(struct results *r, const struct options *options,
                 struct run_options *run, struct failure *f)
    __attribute__((warn_unused_result));
/*
 * The same where the command line is wrong, as far as it could be read: any
 * other word of it may name a file that is to be read.
 */
void results_open_wrong(struct results *r, const struct options *options,
                        struct run_options *run);

/*
 * The part of results_open about files to fetch, for a trial whose results go
 * elsewhere. 0, or a negative errno with *f filled.
 */
int results_clear_fetched(struct results *r, const struct trial_spec *spec,
                          struct failure *f)
    __attribute__((warn_unused_result));
void results_close(struct results *r, struct run_options *run);

/*
 * After the trial, before its line is made: are the events written? Says so in
 * the result.
 */
void results_settle(const struct run_options *run, struct trial_result *result);

/*
 * Creates a file for results: an error now is better than after the trial. 0,
 * or a negative errno with *f filled.
 */
int results_create(const char *option, const char *path, int *ret_fd,
                   struct failure *f) __attribute__((warn_unused_result));

/*
 * The result of what never ran, for this reason; error is -ECANCELED if
 * somebody ended it.
 */
void results_never_ran(struct trial_result *ret_result, int error,
                       const struct failure *f);

/*
 * The line of JSON about a long-lived machine, whose part of the result is what
 * its record says (NULL: there is none), set as spec->live. For the caller to
 * free; NULL if memory is short.
 */
char *results_live_line(const struct trial_result *result,
                        struct trial_spec *spec,
                        const struct machine_record *record);

/*
 * Tells the person, writes the line (NULL: out of memory) if one is wanted;
 * returns what to exit with.
 */
int results_finish(const struct results *r, const struct run_options *run,
                   const struct trial_result *result, const char *line);

#endif
