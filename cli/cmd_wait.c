/* SPDX-License-Identifier: Apache-2.0 */
/* microsbx wait: until a long-lived machine has ended, and how it did. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "cli/cli.h"
#include "cli/dead.h"
#include "cli/results.h"
#include "trial/live.h"

static const struct option_spec SPECS[] = {
    {"json", 0, "FILE|-", false,
     "Write the machine's result, as of a trial, as one line of JSON."},
    {NULL, 0, NULL, false, NULL},
};

static const struct option_group OPTIONS = {"Options", SPECS};

/* The line that its keeper left. */
static int copy_result(const struct live *live, int to, struct failure *f)
{
    int from = openat(live->entry.dir_fd, "result.json",
                      O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char buf[16384];
    ssize_t n = from < 0 ? -errno : io_read_full(from, buf, sizeof(buf));
    int ret = 0;

    while (n > 0 && ret == 0) {
        ret = io_write_full(to, buf, (size_t)n);
        if (ret == 0)
            n = io_read_full(from, buf, sizeof(buf));
    }
    io_close(&from);
    if (ret == 0 && n < 0)
        ret = (int)n;
    if (ret != 0)
        failure_set(f, "output_failed", live->record.name, NULL,
                    "cannot write the result of the machine %s: %s",
                    live->record.name,
                    ret == -ENOENT ? "it left none" : strerror(-ret));
    return ret;
}

/* Of a machine whose keeper was killed there is no line, but this is known. */
static char *dead_line(const struct machine_record *record)
{
    struct trial_result *r = malloc(sizeof(*r));
    struct failure why;
    char *line;

    failure_set(&why, "keeper_died", record->name, "microsbx rm removes it",
                "the machine %s is dead: its keeper was killed", record->name);
    line = r ? dead_result(record, &why, r) : NULL;
    free(r);
    return line;
}

static int write_dead(const struct machine_record *record, int to,
                      struct failure *f)
{
    char *line = dead_line(record);
    int ret = line ? io_write_full(to, line, strlen(line)) : -ENOMEM;

    if (ret == 0)
        ret = io_write_full(to, "\n", 1);
    if (ret != 0)
        failure_set(f, "output_failed", record->name, NULL,
                    "cannot write the result of the machine %s: %s",
                    record->name, strerror(-ret));
    free(line);
    return ret;
}

static int wait_for(struct live *live, struct failure *f)
{
    int ret = 0;

    if (live->record.state == MACHINE_RUNNING ||
        live->record.state == MACHINE_STARTING) {
        ret = live_connect(live, f);
        /* It may just have ended. */
        if (ret == 0 || ret == -ESHUTDOWN)
            ret = live_wait_end(live, -1, -1, f);
    }
    return ret;
}

static int finish(const struct verb *verb, const struct live *live,
                  const char *json)
{
    const struct machine_record *r = &live->record;
    struct failure f = {0};
    int fd = STDOUT_FILENO;
    int ret = 0;

    if (json && strcmp(json, "-") != 0)
        ret = results_create("json", json, &fd, &f);
    if (ret == 0 && json)
        ret = r->state == MACHINE_DEAD ? write_dead(r, fd, &f)
                                       : copy_result(live, fd, &f);
    if (fd != STDOUT_FILENO)
        io_close(&fd);
    if (ret != 0)
        cli_fail(verb, &f);
    if (ret != 0 && r->exit_status == 0 && r->state != MACHINE_DEAD)
        return EXIT_UNDELIVERED;
    if (r->state == MACHINE_DEAD)
        fprintf(stderr,
                "microsbx wait: the machine %s is dead: its keeper was "
                "killed\n",
                r->name);
    else if (r->message[0])
        fprintf(stderr, "microsbx wait: %s\n", r->message);
    return r->state == MACHINE_DEAD ? EXIT_NO_STATUS : r->exit_status;
}

static int wait_main(const struct verb *verb, int argc, char **argv)
{
    struct options *options = calloc(1, sizeof(*options));
    struct live *live = calloc(1, sizeof(*live));
    struct failure f = {0};
    int status =
        options && live ? cli_parse(verb, argc, argv, options) : EXIT_INFRA;

    if (status >= 0)
        goto out_free;
    if (cli_need_names(options, 1, 1, &f) != 0 ||
        live_open(options->positional[0], live, &f) != 0) {
        status = cli_fail(verb, &f);
        goto out_free;
    }
    if (wait_for(live, &f) != 0)
        status = cli_fail(verb, &f);
    else
        status = finish(verb, live, options_get(options, "json"));
    live_close(live);
out_free:
    free(live);
    free(options);
    return status;
}

const struct verb VERB_WAIT = {
    .name = "wait",
    .synopsis = "[--json FILE|-] NAME",
    .summary =
        "Wait until a long-lived machine has ended; exit with its status.",
    .description =
        "Waits for the machine's end (of its own command, if it has one) and "
        "exits as run would have: with the command's status, 124 when its "
        "time was over (--timeout or --ttl), 130 when it was stopped or "
        "killed, 137 otherwise. Of a machine whose keeper was killed the "
        "result is infra_unknown. A machine that has ended is not waited for. "
        "A keeper that was stopped (SIGSTOP) or does not answer ends the "
        "waiting with 125.",
    .example = "  microsbx run -d --name job --image base -- sleep 60\n"
               "  microsbx wait --json result.json job\n",
    .groups = {&OPTIONS, NULL},
    .main = wait_main,
};
