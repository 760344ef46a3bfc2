/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trial's result as one line of JSON, "microsbx.trial/1", in a stable order
 * of keys. Values of environment variables never appear.
 */
#ifndef MICROSBX_TRIAL_RESULT_H
#define MICROSBX_TRIAL_RESULT_H

#include "trial/trial.h"

/*
 * The line without its newline, for the caller to free; NULL if memory is
 * short. spec and machine are what was asked for; image is NULL without one.
 */
char *result_to_json(const struct trial_result *result,
                     const struct trial_spec *spec,
                     const struct machine_spec *machine,
                     const struct image *image);

#endif
