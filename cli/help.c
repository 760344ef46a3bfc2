/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --help and the manual page, both from the verbs' tables. What belongs to no
 * verb (exit statuses, limits, files) stands here once for both.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

/* Columns where a help text starts and ends. */
#define HELP_INDENT 26
#define HELP_WIDTH 80

struct row {
    const char *term;
    const char *text;
};

static const struct row EXIT_ROWS[] = {
    {"0-255", "The workload's own exit status (128+n: killed by signal n)."},
    {"123", "The workload ended with 0, but something asked for could not be "
            "delivered: a file (--get), the result's line (--json), events."},
    {"124", "The wall-clock limit ended the trial."},
    {"125", "The workload did not run: usage, missing file, unfit host."},
    {"126", "The command was found but cannot be executed."},
    {"127", "The command was not found."},
    {"130",
     "Cancelled: SIGINT, SIGTERM or SIGHUP; a machine that was stopped or "
     "killed."},
    {"137", "Every other ending without a status of the workload."},
    {NULL, NULL},
};

static const struct row LIMIT_ROWS[] = {
    {"--timeout",
     "10m for run; enforced by the host's clock; outcome timeout, with the "
     "cause host_storage_slow if this host's disk did not answer."},
    {"--output-limit", "10M a stream; enforced by the host; noted, the rest is "
                       "counted and dropped."},
    {"--disk-limit",
     "1G, or what the snapshot was made with; enforced by the host's overlay. "
     "The guest's file system is as large as that and full before: noted. A "
     "write that the host refused: outcome disk_full."},
    {"--ready-timeout", "180s for run and snapshot create; enforced by the "
                        "host's clock; outcome infra_never_ran."},
    {"--warmup-timeout", "10m; enforced by the host's clock; no snapshot."},
    {"--pids-limit",
     "512; enforced by the guest's cgroup; outcome pids_limit."},
    {"exec --timeout", "none; enforced by the guest's agent, whose word the "
                       "host awaits for 2s; outcome timeout."},
    {"--ttl", "24h for run -d; enforced by the host's clock; the machine is "
              "stopped."},
    {"--memory", "256M; the machine's whole memory; outcome oom."},
    {NULL, NULL},
};

/* Prints text wrapped, continuing at column indent; starts at column. */
static void print_wrapped(FILE *out, const char *text, int column, int indent)
{
    while (*text) {
        size_t word = strcspn(text, " \n");

        if (column > indent && column + 1 + (int)word > HELP_WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", (int)word, text);
        column += (int)word;
        text += word;
        while (*text == ' ')
            text++;
        if (*text == '\n') {
            text++;
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        }
    }
    fputc('\n', out);
}

static void print_term(FILE *out, const char *term, const char *text)
{
    int used = fprintf(out, "  %s", term);

    if (used >= HELP_INDENT)
        fprintf(out, "\n%*s", HELP_INDENT, "");
    else
        fprintf(out, "%*s", HELP_INDENT - used, "");
    print_wrapped(out, text, HELP_INDENT, HELP_INDENT);
}

static void print_option(FILE *out, const struct option_spec *s)
{
    char term[96];
    char letter[8] = "";

    if (s->letter)
        snprintf(letter, sizeof(letter), "-%c, ", s->letter);
    snprintf(term, sizeof(term), "%s--%s%s%s", letter, s->name,
             s->arg ? " " : "", s->arg ? s->arg : "");
    print_term(out, term, s->help);
}

void cli_print_help(FILE *out, const struct verb *verb)
{
    fprintf(out, "Usage: microsbx %s %s\n\n", verb->name, verb->synopsis);
    print_wrapped(out, verb->description, 0, 0);
    for (size_t g = 0; verb->groups[g]; g++) {
        if (!verb->groups[g]->specs[0].name)
            continue;
        fprintf(out, "\n%s:\n", verb->groups[g]->title);
        for (const struct option_spec *s = verb->groups[g]->specs; s->name; s++)
            print_option(out, s);
    }
    if (verb->verbs)
        fputs("\nWords:\n", out);
    for (size_t i = 0; verb->verbs && verb->verbs[i]; i++)
        print_term(out, verb->verbs[i]->name, verb->verbs[i]->summary);
    fprintf(out, "\nExample:\n%s", verb->example);
}

void cli_print_usage(FILE *out)
{
    fputs("Usage: microsbx VERB [OPTIONS]\n\n"
          "Runs an untrusted model's workload inside a virtual machine and "
          "tells the truth\nabout what happened.\n\nVerbs:\n",
          out);
    for (const struct verb *const *v = cli_verbs(); *v; v++)
        print_term(out, (*v)->name, (*v)->summary);
    fputs("\nmicrosbx help VERB says more; microsbx version says which.\n"
          "Example:\n"
          "  microsbx run --image python -- python3 -c 'print(6 * 7)'\n",
          out);
}

/* One line of mdoc text: a leading dot or quote would be a request. */
static void man_text(FILE *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", out);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", out);
        else
            fputc(*text, out);
        if (*text == '\n' && (text[1] == '.' || text[1] == '\''))
            fputs("\\&", out);
    }
    fputc('\n', out);
}

static void man_rows(FILE *out, const struct row *rows)
{
    fputs(".Bl -tag -width Ds\n", out);
    for (; rows->term; rows++) {
        fprintf(out, ".It %s\n", rows->term);
        man_text(out, rows->text);
    }
    fputs(".El\n", out);
}

static void man_option(FILE *out, const struct option_spec *s)
{
    fputs(".It ", out);
    if (s->letter)
        fprintf(out, "Fl %c%s%s , ", s->letter, s->arg ? " Ar " : "",
                s->arg ? s->arg : "");
    fprintf(out, "Fl -%s%s%s\n", s->name, s->arg ? " Ar " : "",
            s->arg ? s->arg : "");
    man_text(out, s->help);
}

static void man_verb(FILE *out, const struct verb *verb)
{
    fprintf(out, ".Ss microsbx %s %s\n", verb->name, verb->synopsis);
    man_text(out, verb->description);
    for (size_t g = 0; verb->groups[g]; g++) {
        if (!verb->groups[g]->specs[0].name)
            continue;
        fprintf(out, ".Pp\n%s:\n.Bl -tag -width Ds\n", verb->groups[g]->title);
        for (const struct option_spec *s = verb->groups[g]->specs; s->name; s++)
            man_option(out, s);
        fputs(".El\n", out);
    }
    fputs(".Pp\nExample:\n.Bd -literal\n", out);
    man_text(out, verb->example);
    fputs(".Ed\n", out);
    for (size_t i = 0; verb->verbs && verb->verbs[i]; i++)
        man_verb(out, verb->verbs[i]);
}

void cli_print_manual(FILE *out)
{
    fputs(".Dd November 23, 2026\n.Dt MICROSBX 1\n.Os\n.Sh NAME\n.Nm microsbx\n"
          ".Nd run untrusted models in micro virtual machines\n"
          ".Sh SYNOPSIS\n.Nm\n.Ar verb\n.Op Ar options\n.Sh DESCRIPTION\n"
          "One trial is one virtual machine, which boots or goes on from a "
          "snapshot.\nThe monitor is a process of its own that holds only "
          "descriptors; in this\nversion it is not yet confined further (the "
          "result says jail: none).\n.Pp\n"
          "A snapshot's memory and disks hold all that its warm-up has seen, "
          "secrets\nincluded. Its id, the digest of its manifest, fixes every "
          "byte; it does not\nsay who made it. What the warm-up runs is "
          "trusted and recorded; untrusted\nfiles are given to each trial, "
          "after the restore.\n",
          out);
    for (const struct verb *const *v = cli_verbs(); *v; v++)
        man_verb(out, *v);
    fputs(".Sh LIMITS\nDefaults are on.\n", out);
    man_rows(out, LIMIT_ROWS);
    fputs(".Sh EXIT STATUS\nOf run, exec and wait. 123 to 137 can also come "
          "from a workload: "
          "the status is a hint,\nthe JSON is the truth. Of doctor: 0 fit, 1 "
          "unfit, 125 could not tell.\n",
          out);
    man_rows(out, EXIT_ROWS);
    fputs("With standard output or standard error closed, the command's goes "
          "nowhere, as\nwith --stdout none. What microsbx itself could not "
          "print is an error: 125.\n",
          out);
    fputs("Of cp: 0, 123 if only the line of --json could not be written, 1 if "
          "a file could not be read or written, 125 if the "
          "machine\ncould not be asked.\n",
          out);
    fputs(
        "Of snapshot verify and diff: 0, 1 if something is damaged or differs, "
        "125\nif it could not be told.\n",
        out);
    fputs(".Sh FILES\nImages and kernels lie under\n"
          ".Pa $XDG_CACHE_HOME/microsbx\n(default\n.Pa ~/.cache/microsbx ) ,\n"
          "and with them\n.Pa stamps ,\nwhat full checks of snapshots have "
          "found, and\n.Pa snapshots ,\nwhere parents of diffs are looked "
          "for.\n"
          "What was found out about this host (whether it is fit) is "
          "remembered until\nit boots in\n"
          ".Pa $XDG_RUNTIME_DIR/microsbx ,\n"
          "or without that variable in\n.Pa host\nof the cache.\n"
          "Long-lived machines have a folder each under\n"
          ".Pa $XDG_RUNTIME_DIR/microsbx/machines\n(without that variable\n"
          ".Pa /run/user/UID ,\nor\n.Pa /tmp/microsbx-UID ) :\n"
          "their record, their output, their result.\n",
          out);
}
