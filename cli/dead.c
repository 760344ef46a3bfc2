/* SPDX-License-Identifier: Apache-2.0 */
/* Results of machines without a keeper; see the header. */
#include "cli/dead.h"

#include <stdlib.h>
#include <string.h>

#include "cli/results.h"
#include "cli/run_options.h"

char *dead_result(const struct machine_record *record,
                  const struct failure *why, struct trial_result *ret_result)
{
    struct run_options *opts = malloc(sizeof(*opts));
    struct trial_result *r = ret_result;
    char *line = NULL;

    memset(r, 0, sizeof(*r));
    r->failure = *why;
    r->started_at = (double)record->created_at;
    r->facts.workload_may_run = true;
    r->facts.host_failed = true;
    r->facts.cause = r->failure.code;
    r->outcome = outcome_decide(&r->facts);
    if (opts) {
        run_options_init(opts);
        line = results_live_line(r, &opts->spec, record);
        run_options_fini(opts);
    }
    free(opts);
    return line;
}
