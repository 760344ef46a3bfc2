/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a long-lived machine ended, in its folder: told by its keeper, or by who
 * had to kill the keeper.
 */
#ifndef MICROSBX_TRIAL_MACHINE_END_H
#define MICROSBX_TRIAL_MACHINE_END_H

#include "trial/machine_record.h"
#include "trial/trial.h"

/*
 * Writes result.json (line; NULL: none), then the record with its end: who
 * reads the record finds the result. expired: its time to live was over. 0 or a
 * negative errno, and then the record says nothing of an end.
 */
int machine_end_write(const struct registry_entry *entry,
                      struct machine_record *record,
                      const struct trial_result *result, bool expired,
                      const char *line) __attribute__((warn_unused_result));

#endif
