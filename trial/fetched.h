/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that a trial fetches (--get). One that could not be fetched is not
 * there: an earlier one of its name would be taken for it.
 */
#ifndef MICROSBX_TRIAL_FETCHED_H
#define MICROSBX_TRIAL_FETCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/failure.h"
#include "trial/trial.h"

/*
 * Before a trial: removes the regular files at the places of those it is to
 * fetch, and looks whether they can be put there. Devices and such stay. 0; or
 * a negative errno with *f filled and the rest of them removed all the same.
 */
int fetched_forget(const struct trial_file *files, size_t count,
                   struct failure *f) __attribute__((warn_unused_result));

/*
 * The permissions of a file that came out of a guest: as there, by cp(1)'s
 * rule (less the umask, and no set-id bits), but its owner can read it.
 */
mode_t fetched_mode(uint32_t guest_mode);

/* True if it was to be fetched, was not, and is missed: not one that may be
 * absent, and is. */
bool fetched_is_missing(const struct trial_file *file,
                        const struct trial_file_result *result);

/* The trial is over: how many of its files are missing, if it ran. */
void fetched_count(const struct trial_spec *spec, struct trial_result *result);

/* Says why the missing file is. */
void fetched_explain(const struct trial_file *file,
                     const struct trial_file_result *result,
                     struct failure *ret_failure);

#endif
