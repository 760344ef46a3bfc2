/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The result of a long-lived machine whose keeper could not tell it: it was
 * there, and nobody can say how it ended.
 */
#ifndef MICROSBX_CLI_DEAD_H
#define MICROSBX_CLI_DEAD_H

#include "trial/machine_record.h"
#include "trial/trial.h"

/*
 * Fills *ret_result with infra_unknown for this reason; its line of JSON, for
 * the caller to free, NULL if memory is short.
 */
char *dead_result(const struct machine_record *record,
                  const struct failure *why, struct trial_result *ret_result);

#endif
