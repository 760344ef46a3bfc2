/* SPDX-License-Identifier: Apache-2.0 */
/* microsbx rm: removes what is left of long-lived machines. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "trial/live.h"

static const struct option_spec SPECS[] = {
    {"force", 'f', NULL, false,
     "Kill a machine that still runs, and remove one whose record or keeper "
     "is damaged."},
    {NULL, 0, NULL, false, NULL},
};

static const struct option_group OPTIONS = {"Options", SPECS};

/* Removes a folder whose keeper is gone; the entry is closed. */
static int remove_entry(struct registry_entry *entry, struct failure *f)
{
    char name[REGISTRY_NAME_MAX + 1];
    int ret;

    strcpy(name, entry->name);
    ret = registry_remove(entry);
    if (ret == -EBUSY)
        failure_set(f, "machine_runs", name, "microsbx stop, or rm -f",
                    "cannot remove the machine %s: it runs", name);
    else if (ret != 0)
        failure_set(f, "host", name, NULL, "cannot remove the machine %s: %s",
                    name, strerror(-ret));
    return ret;
}

static int remove_machine(const char *name, bool force, struct failure *f)
{
    struct registry_entry entry;
    int ret = registry_find(name, &entry, f);

    if (ret != 0)
        return ret;
    if (force && registry_is_alive(&entry)) {
        ret = live_end_keeper(&entry, f);
        if (ret != 0) {
            registry_close(&entry);
            return ret;
        }
    }
    live_remove_vsock(&entry);
    return remove_entry(&entry, f);
}

static int rm_main(const struct verb *verb, int argc, char **argv)
{
    struct options *options = calloc(1, sizeof(*options));
    struct failure f = {0};
    int status = options ? cli_parse(verb, argc, argv, options) : EXIT_INFRA;

    if (status >= 0) {
        free(options);
        return status;
    }
    status = 0;
    if (cli_need_names(options, 1, INT_MAX, &f) != 0)
        status = cli_fail(verb, &f);
    for (int i = 0; status == 0 && i < options->positional_count; i++) {
        if (remove_machine(options->positional[i],
                           options_has(options, "force"), &f) != 0)
            status = cli_fail(verb, &f);
        else
            puts(options->positional[i]);
    }
    free(options);
    return status;
}

const struct verb VERB_RM = {
    .name = "rm",
    .synopsis = "[-f] NAME...",
    .summary = "Remove long-lived machines that have ended.",
    .description =
        "Removes a machine's record, output and result; its name is free "
        "then. One that runs is refused without -f, which kills it first; its "
        "keeper, too, if that was stopped (after 2 s) or does not answer "
        "(after 30 s).",
    .example = "  microsbx rm box\n"
               "  microsbx rm -f box\n",
    .groups = {&OPTIONS, NULL},
    .main = rm_main,
};
