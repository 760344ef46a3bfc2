/* SPDX-License-Identifier: Apache-2.0 */
/* microsbx exec: one more command in a machine that `run -d` started. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/console.h"
#include "cli/results.h"
#include "cli/run_options.h"
#include "trial/live.h"

static const struct option_spec SPECS[] = {
    {"timeout", 0, "DURATION", false,
     "Wall-clock limit of the command, by the guest's clock: its processes are "
     "killed, what it wrote is kept, the machine lives on. Default none."},
    {"output-keep", 0, "head|tail", false,
     "Which part of longer output is kept: the beginning, passed on as it "
     "comes, or the end, passed on when the command has ended. Default head."},
    {NULL, 0, NULL, false, NULL},
};

static const struct option_group EXEC_OPTIONS = {"Options of exec", SPECS};

struct exec {
    const struct verb *verb;
    struct options options;
    struct run_options opts;
    struct results results;
    struct console console;
    struct live live;
    struct trial_result result;
    bool keep_tail;
    bool opened; /* live is */
};

static void get_winsize(void *ctx, uint16_t *rows, uint16_t *columns)
{
    const struct exec *x = ctx;
    unsigned r, c;

    console_size(&x->console, &r, &c);
    *rows = (uint16_t)r;
    *columns = (uint16_t)c;
}

/* NAME is the first word; the command is what follows, behind a -- or not. */
static const char *take_name(struct options *options, struct failure *f)
{
    const char *name;

    if (options->positional_count == 0) {
        failure_set(f, "usage", "NAME", "microsbx ps lists the machines",
                    "there is no machine named");
        return NULL;
    }
    name = options->positional[0];
    options->positional++;
    options->positional_count--;
    if (options->positional_count > 0 &&
        !strcmp(options->positional[0], "--")) {
        options->positional++;
        options->positional_count--;
    }
    return name;
}

static int read_keep(struct exec *x, struct failure *f)
{
    static const char *const WORDS[] = {"head", "tail", NULL};
    const char *word = options_get(&x->options, "output-keep");
    const char *near;

    x->keep_tail = word && !strcmp(word, "tail");
    if (!word || x->keep_tail || !strcmp(word, "head"))
        return 0;
    near = text_nearest(word, WORDS);
    failure_set(f, "usage", "output-keep", "use head or tail",
                "option --output-keep: '%s' is not known%s%s", word,
                near ? "; did you mean " : "", near ? near : "");
    return -EINVAL;
}

/* What the command line says, and where its results go: the machine's name. */
static int read_command_line(struct exec *x, const char **ret_name,
                             struct failure *f)
{
    const char *name = take_name(&x->options, f);
    int ret = name ? run_options_read(&x->options, &x->opts, f) : -EINVAL;

    if (ret == 0)
        ret = read_keep(x, f);
    if (ret == 0)
        ret = run_options_need_command(
            &x->opts, "microsbx exec NAME -- python3 -c 'print(1)'", f);
    outputs_add_options(&x->results.outputs, &x->options, NULL);
    /* What goes wrong, from here on or before, is in the JSON, too. */
    if (ret == 0)
        ret = results_open(&x->results, &x->options, &x->opts, f);
    else
        results_open_wrong(&x->results, &x->options, &x->opts);
    *ret_name = name;
    return ret;
}

static int prepare(struct exec *x, struct failure *f)
{
    struct trial_spec *s = &x->opts.spec;
    const char *name;
    int ret = read_command_line(x, &name, f);

    s->timeout_by_guest = true;
    if (ret == 0)
        ret = cli_watch_signals(CLI_WATCH_WINDOW, &s->signal_fd, f);
    if (ret == 0)
        ret = live_open(name, &x->live, f);
    if (ret != 0)
        return ret;
    x->opened = true;
    ret = live_connect(&x->live, f);
    if (ret == 0 && s->tty) {
        console_init(&x->console, STDIN_FILENO);
        get_winsize(x, &s->tty_rows, &s->tty_columns);
        s->winsize = get_winsize;
        s->progress_ctx = x;
        if (console_make_raw(&x->console) != 0) {
            failure_set(f, "host", "terminal", NULL,
                        "cannot put the terminal into raw mode");
            ret = -EIO;
        }
    }
    return ret;
}

static void exec_free(struct exec *x)
{
    results_close(&x->results, &x->opts);
    io_close(&x->opts.spec.signal_fd);
    if (x->opened)
        live_close(&x->live);
    run_options_fini(&x->opts);
    free(x);
}

static int exec_main(const struct verb *verb, int argc, char **argv)
{
    struct exec *x = calloc(1, sizeof(*x));
    struct failure f = {0};
    char *line;
    int ret, status;

    if (!x) {
        failure_set(&f, "host", "memory", NULL, "out of memory");
        return cli_fail(verb, &f);
    }
    x->verb = verb;
    run_options_init(&x->opts);
    results_init(&x->results, verb);
    ret = results_parse(&x->results, argc, argv, &x->options, &x->opts, &f);
    if (x->options.help) {
        exec_free(x);
        return 0;
    }
    if (ret == 0)
        ret = prepare(x, &f);
    if (ret == 0)
        live_exec(&x->live, &x->opts.spec, x->keep_tail, &x->result);
    else
        results_never_ran(&x->result, ret, &f);
    console_restore(&x->console);
    line = results_live_line(&x->result, &x->opts.spec,
                             x->opened ? &x->live.record : NULL);
    status = results_finish(&x->results, &x->opts, &x->result, line);
    free(line);
    exec_free(x);
    return status;
}

const struct verb VERB_EXEC = {
    .name = "exec",
    .synopsis = "[OPTIONS] NAME [--] COMMAND [ARG...]",
    .summary = "Run a command in a long-lived machine.",
    .description =
        "Runs one more command in a machine that run -d started, as the "
        "machine's user and with its environment unless the options say "
        "otherwise, and passes its output and exit status on as run does. "
        "Processes it leaves behind go on until the machine ends. Up to 16 "
        "commands and copies may be under way at once. Interrupting exec "
        "kills the command. A machine that cannot answer ends exec, and every "
        "other verb that waits for it, with infra_unknown: one whose keeper or "
        "monitor was stopped (SIGSTOP) within 4 s, one whose keeper does not "
        "answer within 32 s (92 s in an emulated host).",
    .example =
        "  microsbx exec box -- python3 -c 'print(6 * 7)'\n"
        "  microsbx exec -it box sh\n"
        "  microsbx exec --timeout 30s --json r.json --stdout out box make\n",
    .groups = {&COMMAND_OPTIONS, &EXEC_OPTIONS, NULL},
    .takes_command = true,
    .main = exec_main,
};
