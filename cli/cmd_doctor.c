/* SPDX-License-Identifier: Apache-2.0 */
/* microsbx doctor: one line per finding, and a verdict. */
#include <jansson.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "trial/doctor.h"
#include "trial/json_make.h"

static const struct option_spec SPECS[] = {
    {"json", 0, NULL, false, "Print the findings as one line of JSON."},
    {NULL, 0, NULL, false, NULL},
};

static const struct option_group OPTIONS = {"Options", SPECS};

static const char *level_name(enum finding_level level)
{
    static const char *const NAMES[] = {"ok", "note", "fail", "unknown"};

    return NAMES[level];
}

static const char *verdict_name(enum doctor_verdict verdict)
{
    return verdict == DOCTOR_FIT     ? "fit"
           : verdict == DOCTOR_UNFIT ? "unfit"
                                     : "unknown";
}

static int print_json(const struct doctor *d, enum doctor_verdict verdict)
{
    struct json_make root = json_make_object();
    struct json_make list = json_make_array();
    json_t *all;
    int ret;

    json_put(&root, "schema", json_string("microsbx.doctor/1"));
    json_put(&root, "verdict", json_string(verdict_name(verdict)));
    for (size_t i = 0; i < d->count; i++) {
        const struct finding *f = &d->findings[i];

        json_add(&list, json_pack("{s:s, s:s, s:s, s:s}", "name", f->name,
                                  "level", level_name(f->level), "text",
                                  f->text, "remedy", f->remedy));
    }
    json_put(&root, "findings", json_made(&list));
    all = json_made(&root);
    ret = json_dumpf(all, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(all);
    putchar('\n');
    return ret;
}

static void print_findings(const struct doctor *d, enum doctor_verdict verdict)
{
    static const char *const COLOURS[] = {"32", "33", "31", "35"};
    static const char *const SENTENCES[] = {
        "This host is fit: it runs Linux guests.",
        "This host is unfit: it cannot run Linux guests.",
    };
    bool colour = cli_is_terminal(stdout);

    for (size_t i = 0; i < d->count; i++) {
        const struct finding *f = &d->findings[i];

        if (colour)
            printf("\033[%sm%-7s\033[0m", COLOURS[f->level],
                   level_name(f->level));
        else
            printf("%-7s", level_name(f->level));
        printf(" %-16s %s%s%s%s\n", f->name, f->text, f->remedy[0] ? " (" : "",
               f->remedy, f->remedy[0] ? ")" : "");
    }
    puts(verdict == DOCTOR_UNKNOWN ? "Whether this host is fit could not be "
                                     "told."
                                   : SENTENCES[verdict]);
}

/* 0, or -1: nobody can tell what was found. */
static int print(const struct doctor *d, enum doctor_verdict verdict, bool json)
{
    int ret = 0;

    if (json)
        ret = print_json(d, verdict);
    else
        print_findings(d, verdict);
    if (fflush(stdout) == 0 && ret == 0)
        return 0;
    fputs("microsbx doctor: cannot write what was found\n", stderr);
    return -1;
}

static int doctor_main(const struct verb *verb, int argc, char **argv)
{
    struct options *options = calloc(1, sizeof(*options));
    struct doctor *doctor = calloc(1, sizeof(*doctor));
    int status = EXIT_INFRA;

    if (!options || !doctor)
        goto out_free;
    status = cli_parse(verb, argc, argv, options);
    if (status >= 0)
        goto out_free;
    doctor_examine(doctor);
    status = (int)doctor_verdict(doctor);
    if (print(doctor, (enum doctor_verdict)status,
              options_has(options, "json")) != 0)
        status = EXIT_INFRA;
out_free:
    free(options);
    free(doctor);
    return status;
}

const struct verb VERB_DOCTOR = {
    .name = "doctor",
    .synopsis = "[--json]",
    .summary = "Measure whether this host can run and isolate guests.",
    .description =
        "Looks at KVM, runs a tiny guest to see how fast and how completely "
        "guest kernel code runs, and looks at what weakens isolation. One "
        "line a finding, with what to do. Exit status: 0 fit, 1 unfit, 125 "
        "could not tell.",
    .example = "  microsbx doctor\n",
    .groups = {&OPTIONS, NULL},
    .main = doctor_main,
};
