/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of `run` and `exec` about a command, and those of `run` about a
 * trial, read into a struct trial_spec and the lists it borrows from.
 */
#ifndef MICROSBX_CLI_RUN_OPTIONS_H
#define MICROSBX_CLI_RUN_OPTIONS_H

#include "cli/options.h"
#include "trial/trial.h"

#define RUN_ENV_MAX 1024u

extern const struct option_group COMMAND_OPTIONS; /* of run and exec */
extern const struct option_group TRIAL_OPTIONS;   /* of run */

/* What a trial_spec borrows; freed by run_options_fini. */
struct run_options {
    struct trial_spec spec;
    const char **argv;
    const char *env[RUN_ENV_MAX + 1];
    size_t env_count;
    char *env_text;                  /* --env-file's bytes */
    char *defaults[RUN_ENV_MAX + 2]; /* copies: environment, user, folder */
    size_t default_count;
    struct trial_file files[TRIAL_FILES_MAX];
    char *file_names[TRIAL_FILES_MAX]; /* "SRC\0DST" copies */
    const char *json;   /* FILE, "-" or NULL; this and below: results_open */
    const char *events; /* FILE or NULL */
    bool exit_code_json;
};

/* Nothing read yet; where output goes is results_open's to say. */
void run_options_init(struct run_options *run);

/*
 * Reads everything but where results go, and the image's defaults;
 * spec.timeout_ms is kept where the options say nothing, and spec.argv is NULL
 * without a command. On failure 0 is not returned, *f is filled, and
 * run_options_fini is still to be called.
 */
int run_options_read(const struct options *options, struct run_options *ret,
                     struct failure *f) __attribute__((warn_unused_result));
/* Only --put and --get: all that can be read of them, whatever is wrong. */
int run_options_read_files(const struct options *options,
                           struct run_options *ret, struct failure *f)
    __attribute__((warn_unused_result));
/* Only what goes into a guest: environment, user, folder, files; as above. */
int run_options_read_inputs(const struct options *options,
                            struct run_options *ret, struct failure *f)
    __attribute__((warn_unused_result));
void run_options_fini(struct run_options *run);

/* 0 if there is a command, else -EINVAL; the example is the remedy. */
int run_options_need_command(const struct run_options *run, const char *example,
                             struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Adds copies of the image's environment, user and folder where none was given:
 * the image may be closed, and opened again for the next trial.
 */
int run_options_add_image(struct run_options *run, const struct image *image,
                          struct failure *f)
    __attribute__((warn_unused_result));
/* The same of a snapshot, which remembers its image's. */
int run_options_add_manifest(struct run_options *run,
                             const struct snapshot_manifest *m,
                             struct failure *f)
    __attribute__((warn_unused_result));

#endif
