/* SPDX-License-Identifier: Apache-2.0 */
/* microsbx stop and microsbx kill: the two ways to end a long-lived machine. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/dead.h"
#include "trial/live.h"

#define GRACE_DEFAULT_MS 10000u
#define GRACE_MAX_MS (24u * 3600u * 1000u)

static const struct option_spec STOP_SPECS[] = {
    {"grace", 0, "DURATION", false,
     "How long its command, or the guest, may take. Default 10s."},
    {NULL, 0, NULL, false, NULL},
};

static const struct option_spec KILL_SPECS[] = {
    {NULL, 0, NULL, false, NULL},
};

static const struct option_group STOP_OPTIONS = {"Options", STOP_SPECS};
static const struct option_group KILL_OPTIONS = {"Options", KILL_SPECS};

/* Its keeper had to be killed: 0, or a negative errno with *f filled. */
static int conclude(struct live *live, const struct verb *verb,
                    struct failure *f)
{
    struct trial_result *r = malloc(sizeof(*r));
    struct failure why;
    char *line;
    int ret = -ENOMEM;

    failure_set(&why, f->code, f->object, "microsbx rm removes it",
                "%s; it was killed, and the machine with it", f->message);
    fprintf(stderr, "microsbx %s: %s\n", verb->name, why.message);
    live_remove_vsock(&live->entry);
    line = r ? dead_result(&live->record, &why, r) : NULL;
    if (line)
        ret = live_conclude(live, r, line, f);
    else
        failure_set(f, "host", "memory", NULL, "out of memory");
    free(line);
    free(r);
    return ret;
}

/* One machine: 0, or a negative errno with *f filled. */
static int end_machine(const struct verb *verb, const char *name, int grace_ms,
                       struct failure *f)
{
    struct live *live = malloc(sizeof(*live));
    int ret = -ENOMEM;

    if (!live) {
        failure_set(f, "host", "memory", NULL, "out of memory");
        return ret;
    }
    ret = live_open(name, live, f);
    if (ret != 0) {
        free(live);
        return ret;
    }
    /* To stop what has stopped is no error; to kill it is. */
    if (grace_ms < 0 || live->record.state == MACHINE_RUNNING ||
        live->record.state == MACHINE_STARTING)
        ret = live_stop(live, grace_ms, f);
    if (ret > 0)
        ret = conclude(live, verb, f);
    live_close(live);
    free(live);
    return ret;
}

static int end_all(const struct verb *verb, const struct options *options,
                   int grace_ms)
{
    int status = 0;

    for (int i = 0; i < options->positional_count; i++) {
        struct failure f = {0};

        if (end_machine(verb, options->positional[i], grace_ms, &f) != 0)
            status = cli_fail(verb, &f);
        else
            puts(options->positional[i]);
    }
    return status;
}

static int end_main(const struct verb *verb, int argc, char **argv)
{
    struct options *options = calloc(1, sizeof(*options));
    unsigned long long grace = GRACE_DEFAULT_MS;
    struct failure f = {0};
    int status = options ? cli_parse(verb, argc, argv, options) : EXIT_INFRA;

    if (status >= 0) {
        free(options);
        return status;
    }
    if (cli_need_names(options, 1, INT_MAX, &f) != 0 ||
        options_get_duration_ms(options, "grace", &grace, &f) != 0)
        status = cli_fail(verb, &f);
    else
        status = end_all(verb, options,
                         verb == &VERB_KILL     ? -1
                         : grace < GRACE_MAX_MS ? (int)grace
                                                : (int)GRACE_MAX_MS);
    free(options);
    return status;
}

const struct verb VERB_STOP = {
    .name = "stop",
    .synopsis = "[--grace DURATION] NAME...",
    .summary = "End long-lived machines, giving their commands time.",
    .description =
        "Sends SIGTERM to the machine's own command, whose end is the "
        "machine's; a machine without one syncs its file systems and powers "
        "off. What is not over within the grace is stopped as by kill. "
        "Returns when the machine has ended; its record stays for microsbx "
        "wait, logs and rm. A keeper that was stopped (SIGSTOP) or does not "
        "answer is killed when the grace is over, as by microsbx kill.",
    .example = "  microsbx stop box\n",
    .groups = {&STOP_OPTIONS, NULL},
    .main = end_main,
};

const struct verb VERB_KILL = {
    .name = "kill",
    .synopsis = "NAME...",
    .summary = "End long-lived machines at once.",
    .description =
        "Stops the machine's virtual CPUs without asking anybody inside. Its "
        "record stays for microsbx wait, logs and rm. A keeper that was "
        "stopped (SIGSTOP) is killed after 2 s, one that does not answer "
        "after 30 s (90 s in an emulated host): the machine's result is then "
        "infra_unknown, keeper_stopped or keeper_hangs.",
    .example = "  microsbx kill box && microsbx rm box\n",
    .groups = {&KILL_OPTIONS, NULL},
    .main = end_main,
};
