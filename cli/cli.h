/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verbs share: exit statuses, how errors reach the user, the verbs'
 * table. cli/ is the only folder that prints to the user or ends the process.
 */
#ifndef MICROSBX_CLI_CLI_H
#define MICROSBX_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/failure.h"
#include "cli/options.h"
#include "trial/outcome.h"

/* Exit statuses of our own making; see the manual's table. */
enum {
    EXIT_UNDELIVERED = OUTCOME_STATUS_UNDELIVERED,
    EXIT_TIMEOUT = 124,
    EXIT_INFRA = 125,
    EXIT_NOT_EXECUTABLE = 126,
    EXIT_NOT_FOUND = 127,
    EXIT_CANCELLED = 130,
    EXIT_NO_STATUS = 137,
};

extern const struct verb VERB_BOOT;
extern const struct verb VERB_CP;
extern const struct verb VERB_DOCTOR;
extern const struct verb VERB_EXEC;
extern const struct verb VERB_IMAGE;
extern const struct verb VERB_KILL;
extern const struct verb VERB_LOGS;
extern const struct verb VERB_PS;
extern const struct verb VERB_RM;
extern const struct verb VERB_RUN;
extern const struct verb VERB_SNAPSHOT;
extern const struct verb VERB_STOP;
extern const struct verb VERB_WAIT;

/* All verbs, NULL-ended. */
const struct verb *const *cli_verbs(void);

/*
 * Parses for a verb and handles --help and wrong usage, printing either.
 * Returns -1 to go on, else the exit status to return.
 */
int cli_parse(const struct verb *verb, int argc, char **argv,
              struct options *ret_options);

/*
 * Checks how many words beside options there are: 0, or -EINVAL with *f filled
 * (names of machines are wanted, or nothing is).
 */
int cli_need_names(const struct options *options, int min, int max,
                   struct failure *f) __attribute__((warn_unused_result));

/* Prints "microsbx VERB: message" and the remedy to stderr; returns 125. */
int cli_fail(const struct verb *verb, const struct failure *failure);

/* Signals that are watched beside SIGINT, SIGTERM and SIGHUP. */
#define CLI_WATCH_WINDOW (1u << 0) /* SIGWINCH */
/* For who runs a trial: SIGTSTP, since its clock cannot be stopped, and
 * SIGXCPU, which is the host's limit and not the trial's. */
#define CLI_WATCH_TRIAL (1u << 1)
#define CLI_IGNORE_STOP (1u << 2) /* SIGTSTP: the same, without a word */

/*
 * Turns signals into reads of a descriptor, and ignores what would end or stop
 * this process in passing (SIGPIPE, SIGTTOU, SIGXFSZ). One that was ignored
 * when this process started (nohup, a shell's background) stays so. 0, or a
 * negative errno with *f filled.
 */
int cli_watch_signals(unsigned also, int *ret_fd, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * True if one of them has come that is to end this process (not SIGWINCH); it
 * stays to be read.
 */
bool cli_signal_pending(int fd);

/* The end of a guest's console to stderr, harmless for a terminal. */
void cli_show_console(const uint8_t *bytes, size_t len);

/* True if colours and moving lines are welcome on this stream. */
bool cli_is_terminal(FILE *stream);

void cli_print_help(FILE *out, const struct verb *verb);
void cli_print_usage(FILE *out);
void cli_print_manual(FILE *out); /* the manual page, in mdoc */

#endif
