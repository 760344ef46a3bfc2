/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs behind `microsbx snapshot`, and what they share. */
#ifndef MICROSBX_CLI_SNAPSHOT_VERBS_H
#define MICROSBX_CLI_SNAPSHOT_VERBS_H

#include "cli/cli.h"
#include "trial/snapshot.h"

extern const struct verb VERB_SNAPSHOT_CREATE;
extern const struct verb VERB_SNAPSHOT_INSPECT;
extern const struct verb VERB_SNAPSHOT_VERIFY;
extern const struct verb VERB_SNAPSHOT_DIFF;
extern const struct verb VERB_SNAPSHOT_EXPORT;
extern const struct verb VERB_SNAPSHOT_IMPORT;

/* Exit status of verify and diff: something is damaged, or differs. */
#define SNAPSHOT_EXIT_NO 1

/* As cli_parse, for a verb that takes exactly `count` operands. */
int snapshot_parse(const struct verb *verb, int argc, char **argv, int count,
                   struct options *ret_options);

/*
 * status, or that of an error that is reported here: standard output could not
 * be written.
 */
int snapshot_flushed(const struct verb *verb, int status);

/* Reports it, and returns the exit status for ret (-ECANCELED, or another). */
int snapshot_fail_verb(const struct verb *verb, int ret,
                       const struct failure *f);

/* --parents and --base, where snapshots are opened. */
extern const struct option_group SNAPSHOT_PLACES;

/* What snapshot_open_options borrows. */
struct snapshot_places {
    const char *parents[OPTION_VALUES_MAX + 1];
    const char *bases[OPTION_VALUES_MAX + 1];
};

/* Fills the places of *ret_open from the options. */
void snapshot_places_read(const struct options *options,
                          struct snapshot_places *places,
                          struct snapshot_open_options *ret_open);

/* --check full|sampled|none: 0, or -EINVAL with *f filled. */
int snapshot_check_read(const struct options *options,
                        enum snapshot_check *ret_check, struct failure *f)
    __attribute__((warn_unused_result));

#endif
