/* SPDX-License-Identifier: Apache-2.0 */
/* microsbx ps: the long-lived machines of this user and how they are. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "base/units.h"
#include "cli/cli.h"
#include "trial/json_make.h"
#include "trial/live.h"

static const struct option_spec SPECS[] = {
    {"json", 0, NULL, false, "Print all that is known as one line of JSON."},
    {NULL, 0, NULL, false, NULL},
};

static const struct option_group OPTIONS = {"Options", SPECS};

/* A machine as it is now. */
struct row {
    struct machine_record record;
    const char *state;
    bool has_status;
    struct keeper_status status;
};

static const char *live_state(enum keeper_state state)
{
    switch (state) {
    case KEEPER_IS_STARTING:
        return "starting";
    case KEEPER_IS_RUNNING:
        return "running";
    case KEEPER_IS_UNAVAILABLE:
        return "unavailable";
    case KEEPER_IS_ENDING:
        return "ending";
    }
    return "unknown";
}

/* False if it is gone meanwhile, or its record is damaged. */
static bool look_at(const char *name, struct row *ret)
{
    struct live *live = malloc(sizeof(*live));
    struct failure ignored;
    int status;

    if (!live || live_open(name, live, &ignored) != 0) {
        free(live);
        return false;
    }
    status = live_status(live, &ret->status);
    /* It may have ended between the two looks. */
    if (status != 0)
        (void)!live_reread(live, &ignored);
    ret->record = live->record;
    ret->has_status = status == 0;
    ret->state = status == 0 ? live_state(ret->status.state)
                             : machine_state_name(live->record.state);
    if (status == -ETIMEDOUT)
        ret->state = "busy";
    else if (status == -EHOSTDOWN)
        ret->state = "stopped";
    live_close(live);
    free(live);
    return true;
}

/* "3d", "5h", "12m" or "40s" */
static void format_age(uint64_t seconds, char *buf, size_t size)
{
    if (seconds >= 2 * 86400)
        snprintf(buf, size, "%llud", (unsigned long long)(seconds / 86400));
    else if (seconds >= 2 * 3600)
        snprintf(buf, size, "%lluh", (unsigned long long)(seconds / 3600));
    else if (seconds >= 120)
        snprintf(buf, size, "%llum", (unsigned long long)(seconds / 60));
    else
        snprintf(buf, size, "%llus", (unsigned long long)seconds);
}

static void print_row(const struct row *row)
{
    const struct machine_record *r = &row->record;
    char state[64], age[24], left[24] = "-", memory[32], execs[16] = "-";
    char image[64];
    int64_t now = (int64_t)time(NULL);

    format_age(now > r->created_at ? (uint64_t)(now - r->created_at) : 0, age,
               sizeof(age));
    units_format_size(r->memory_bytes, memory, sizeof(memory));
    text_escape(r->image, strlen(r->image), image, sizeof(image));
    if (row->has_status) {
        snprintf(execs, sizeof(execs), "%u", row->status.execs);
        if (row->status.ttl_left_ms > 0)
            format_age(row->status.ttl_left_ms / 1000, left, sizeof(left));
    }
    if (r->state == MACHINE_EXITED && !row->has_status)
        snprintf(state, sizeof(state), "exited (%d)", r->exit_status);
    else if (r->state == MACHINE_FAILED && !row->has_status)
        snprintf(state, sizeof(state), "failed (%s)", r->outcome);
    else
        snprintf(state, sizeof(state), "%s", row->state);
    printf("%-20s %-22s %-6s %-6s %-14s %4u %9s %5s  %s\n", r->name, state, age,
           left, image[0] ? image : "-", r->cpu_count, memory, execs,
           r->command);
}

/* A record that was read is printable but for what a hand wrote into it. */
static json_t *row_object(const struct row *row)
{
    struct json_make o = json_make_of(machine_record_to_json(&row->record));

    json_put(&o, "state", json_string(row->state));
    json_put(&o, "execs",
             row->has_status ? json_integer(row->status.execs) : json_null());
    json_put(&o, "ttl_left_ms",
             row->has_status ? json_integer((json_int_t)row->status.ttl_left_ms)
                             : json_null());
    return json_made(&o);
}

static int print_json(char **names, size_t count)
{
    struct json_make root = json_make_object();
    struct json_make list = json_make_array();
    json_t *all;
    int ret;

    for (size_t i = 0; i < count; i++) {
        struct row row = {0};

        if (look_at(names[i], &row))
            json_add(&list, row_object(&row));
    }
    json_put(&root, "schema", json_string("microsbx.machines/1"));
    json_put(&root, "machines", json_made(&list));
    all = json_made(&root);
    ret = json_dumpf(all, stdout,
                     JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);
    json_decref(all);
    putchar('\n');
    return ret;
}

static void print_table(char **names, size_t count)
{
    printf("%-20s %-22s %-6s %-6s %-14s %4s %9s %5s  %s\n", "NAME", "STATE",
           "AGE", "LEFT", "IMAGE", "CPUS", "MEMORY", "EXECS", "COMMAND");
    for (size_t i = 0; i < count; i++) {
        struct row row = {0};

        if (look_at(names[i], &row))
            print_row(&row);
        else
            printf("%-20s %s\n", names[i], "damaged");
    }
}

static int ps_main(const struct verb *verb, int argc, char **argv)
{
    struct options *options = calloc(1, sizeof(*options));
    struct failure f = {0};
    char **names = NULL;
    size_t count = 0;
    int ret = 0;
    int status = options ? cli_parse(verb, argc, argv, options) : EXIT_INFRA;

    if (status >= 0)
        goto out_free;
    status = 0;
    if (cli_need_names(options, 0, 0, &f) != 0 ||
        registry_names(&names, &count, &f) != 0) {
        status = cli_fail(verb, &f);
        goto out_free;
    }
    errno = ENOMEM; /* of a list that could not be made */
    if (options_has(options, "json"))
        ret = print_json(names, count);
    else
        print_table(names, count);
    registry_names_free(names, count);
    if (ret != 0 || fflush(stdout) != 0) {
        failure_set(&f, "output_failed", "standard output", NULL,
                    "cannot write the list: %s", strerror(errno));
        status = cli_fail(verb, &f);
    }
out_free:
    free(options);
    return status;
}

const struct verb VERB_PS = {
    .name = "ps",
    .synopsis = "[--json]",
    .summary = "List the long-lived machines.",
    .description =
        "Lists the machines that run -d started, those that have ended "
        "included until microsbx rm removes them. STATE: starting, running, "
        "busy (it does not answer within 2 s), stopped (somebody stopped its "
        "keeper: kill -CONT lets it go on), unavailable (its agent did "
        "not end a command in time), ending, exited with the status that "
        "microsbx wait gives, expired, failed with the outcome, or dead (its "
        "keeper was killed).",
    .example = "  microsbx ps\n"
               "  microsbx ps --json | python3 -m json.tool\n",
    .groups = {&OPTIONS, NULL},
    .main = ps_main,
};
