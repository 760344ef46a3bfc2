/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines from tables: one table of options per verb drives the parser,
 * --help and the manual page, so they cannot drift.
 */
#ifndef MICROSBX_CLI_OPTIONS_H
#define MICROSBX_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/failure.h"

#define OPTION_VALUES_MAX 512u /* options on one command line */
#define OPTION_GROUPS_MAX 6u

struct option_spec {
    const char *name; /* long name, without dashes */
    char letter;      /* or 0 */
    const char *arg;  /* name of the value, or NULL for a flag */
    bool repeatable;
    const char *help; /* one or two plain sentences, default included */
};

struct option_group {
    const char *title;               /* "Machine options" */
    const struct option_spec *specs; /* ends with name == NULL */
};

struct verb {
    const char *name;        /* "run" */
    const char *synopsis;    /* "[OPTIONS] -- COMMAND [ARG...]" */
    const char *summary;     /* one line for the list of verbs */
    const char *description; /* a paragraph or two */
    const char *example;     /* lines to type, each with its own newline */
    const struct option_group *groups[OPTION_GROUPS_MAX + 1]; /* NULL-ended */
    /* Options end at the first word that is none (a COMMAND follows). */
    bool takes_command;
    /* Verbs of its own behind it ("snapshot create"), NULL-ended, or NULL. */
    const struct verb *const *verbs;
    /* argv[0] is the verb. Returns the program's exit status. */
    int (*main)(const struct verb *verb, int argc, char **argv);
};

struct option_value {
    const struct option_spec *spec;
    const char *value; /* NULL for a flag; borrowed from argv */
};

struct options {
    struct option_value values[OPTION_VALUES_MAX];
    size_t count;
    char **positional; /* borrowed from argv */
    int positional_count;
    bool help; /* --help was given; nothing else is checked */
};

/*
 * Cuts "SRC:DST" in place at its first colon, NULL if there is none or a side
 * is empty. A colon that is part of a name is written \:, and a backslash
 * before a colon \\; elsewhere a backslash is nothing special.
 */
char *options_cut_pair(char *text) __attribute__((warn_unused_result));

/*
 * Parses argv[1..]. Returns 0; or -EINVAL with *ret_failure naming the
 * option, the reason and the nearest valid spelling.
 */
int options_parse(const struct verb *verb, int argc, char **argv,
                  struct options *ret_options, struct failure *ret_failure)
    __attribute__((warn_unused_result));

/* Last value of an option, or NULL if it was not given (flags: ""). */
const char *options_get(const struct options *options, const char *name);
bool options_has(const struct options *options, const char *name);
/* The i-th value of a repeatable option, or NULL. */
const char *options_get_nth(const struct options *options, const char *name,
                            size_t i);

/* Typed values: unset leaves *ret_x alone. 0, or -EINVAL with a failure. */
int options_get_size(const struct options *options, const char *name,
                     unsigned long long *ret_bytes, struct failure *f)
    __attribute__((warn_unused_result));
int options_get_duration_ms(const struct options *options, const char *name,
                            unsigned long long *ret_ms, struct failure *f)
    __attribute__((warn_unused_result));
int options_get_number(const struct options *options, const char *name,
                       unsigned long long min, unsigned long long max,
                       unsigned long long *ret_value, struct failure *f)
    __attribute__((warn_unused_result));

#endif
