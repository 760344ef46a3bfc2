/* SPDX-License-Identifier: Apache-2.0 */
/* The options that say what machine is meant; shared by boot and run. */
#ifndef MICROSBX_CLI_MACHINE_OPTIONS_H
#define MICROSBX_CLI_MACHINE_OPTIONS_H

#include "cli/options.h"
#include "trial/machine_spec.h"

extern const struct option_group MACHINE_OPTIONS;

/*
 * Fills spec (initialised by the caller) from --config first, then from the
 * other options, which win. 0, or -EINVAL with *f filled.
 */
int machine_options_read(const struct options *options,
                         struct machine_spec *spec, struct failure *f)
    __attribute__((warn_unused_result));

#endif
