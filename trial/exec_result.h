/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent's last word about a command means for its result: the same
 * for the command of a trial and for one run in a long-lived machine.
 */
#ifndef MICROSBX_TRIAL_EXEC_RESULT_H
#define MICROSBX_TRIAL_EXEC_RESULT_H

#include <stdbool.h>

#include "base/failure.h"
#include "trial/trial.h"

/* What messages call the command; never NULL. */
const char *exec_result_name(const struct trial_spec *spec);

/*
 * It was not started, for `reason` (enum proto_exec_failure) and errno err; *f
 * says so in a sentence. True if that is a status (not found, not executable:
 * in result->facts); false if the guest refused before anything of it ran.
 */
bool exec_result_failed(struct trial_result *result,
                        const struct trial_spec *spec, uint32_t reason, int err,
                        struct failure *f);

/* It ended, and which limits it touched. */
void exec_result_exit(struct trial_result *result,
                      const struct trial_spec *spec,
                      const struct proto_exec_exit *status);

#endif
