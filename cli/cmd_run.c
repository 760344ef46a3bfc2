/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microsbx run: one command in one fresh machine. Opens what the user named,
 * runs the trial, reports it: the JSON is the truth, the exit status a hint.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/console.h"
#include "cli/machine_options.h"
#include "cli/run_options.h"
#include "cli/snapshot_options.h"
#include "trial/fitness.h"
#include "trial/result.h"
#include "trial/trial.h"

struct run {
    const struct verb *verb;
    struct options options;
    struct machine_spec machine_spec;
    struct machine machine;
    struct run_options opts;
    struct snapshot_source source;
    struct console console;
    struct trial_result result;
    int json_fd; /* -1: none; STDOUT_FILENO for "-" */
    int out_fd;  /* ours to close, -1 if none */
    int err_fd;
    bool opened; /* machine_open has succeeded */
};

/* Creates a file for results; an error now is better than after the trial. */
static int open_file(const char *option, const char *path, int *ret_fd,
                     struct failure *f)
{
    int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);

    if (fd < 0) {
        failure_set(f, "usage", path, "check the path given",
                    "cannot open %s for --%s: %s", path, option,
                    strerror(errno));
        return -errno;
    }
    *ret_fd = fd;
    return 0;
}

/* --stdout or --stderr: FILE, none, or this process's own stream. */
static int open_sink(struct run *run, const char *option, int own_fd,
                     struct trial_sink *ret_sink, int *ret_owned,
                     struct failure *f)
{
    const char *value = options_get(&run->options, option);
    int ret = 0;

    *ret_sink = (struct trial_sink){.fd = own_fd};
    if (!value)
        return 0;
    ret_sink->fd = -1;
    if (!strcmp(value, "none"))
        return 0;
    ret = open_file(option, value, ret_owned, f);
    if (ret == 0)
        *ret_sink = (struct trial_sink){.fd = *ret_owned, .file = value};
    return ret;
}

static int open_results(struct run *run, struct failure *f)
{
    struct trial_spec *s = &run->opts.spec;
    int ret = open_sink(run, "stdout", STDOUT_FILENO, &s->out, &run->out_fd, f);

    if (ret == 0)
        ret = open_sink(run, "stderr", STDERR_FILENO, &s->err, &run->err_fd, f);
    if (ret == 0 && run->opts.json) {
        if (!strcmp(run->opts.json, "-"))
            run->json_fd = STDOUT_FILENO;
        else
            ret = open_file("json", run->opts.json, &run->json_fd, f);
    }
    if (ret == 0 && run->opts.events) {
        s->events = fopen(run->opts.events, "we");
        if (!s->events) {
            ret = -errno;
            failure_set(f, "usage", run->opts.events, "check the path given",
                        "cannot open %s for --events: %s", run->opts.events,
                        strerror(errno));
        }
    }
    return ret;
}

static void get_winsize(void *ctx, uint16_t *rows, uint16_t *columns)
{
    const struct run *run = ctx;
    unsigned r, c;

    console_size(&run->console, &r, &c);
    *rows = (uint16_t)r;
    *columns = (uint16_t)c;
}

/* A person who waits sees what for; the line goes when the output comes. */
static void show_progress(void *ctx, const char *phase)
{
    (void)ctx;
    if (!strcmp(phase, "boot"))
        fputs("booting the machine ...", stderr);
    else if (!strcmp(phase, "put") || !strcmp(phase, "run"))
        fputs("\r\033[K", stderr);
    fflush(stderr);
}

/* The machine to boot, and whether this host can. */
static int open_machine(struct run *run, struct failure *f)
{
    struct trial_spec *s = &run->opts.spec;
    int ret;

    run->machine_spec.debug_exit = s->no_agent;
    ret = machine_open(&run->machine_spec, &run->machine, f);
    run->opened = ret == 0;
    if (ret == 0 && run->machine.has_image)
        ret = run_options_add_image(&run->opts, &run->machine.image, f);
    /* Tiny guests run on a KVM that interprets guest kernels, too. */
    if (ret == 0 && !s->no_agent)
        ret = fitness_require(run->machine.config.kvm_fd, f);
    return ret;
}

/* The machine of the snapshot, and whether this host can. */
static int restore_machine(struct run *run, struct failure *f)
{
    const struct snapshot *snapshot = run->source.snapshot;
    struct trial_spec *s = &run->opts.spec;
    int ret = machine_restore(&run->machine_spec, snapshot, &run->machine, f);

    run->opened = ret == 0;
    if (ret == 0)
        ret = run_options_add_manifest(&run->opts, &snapshot->manifest, f);
    if (ret == 0)
        ret = snapshot_source_check_host(&run->source,
                                         run->machine.config.kvm_fd, f);
    s->restore = &run->source.restore;
    if (run->source.send_fd >= 0)
        s->stdin_fd = run->source.send_fd;
    return ret;
}

static int prepare(struct run *run, struct failure *f)
{
    struct trial_spec *s = &run->opts.spec;
    int ret = run_options_read(&run->options, &run->opts, f);

    /* Results first: what goes wrong from here on is in the JSON, too. */
    if (ret == 0)
        ret = open_results(run, f);
    if (ret == 0)
        ret = cli_watch_signals(true, &s->signal_fd, f);
    if (ret == 0)
        ret = machine_options_read(&run->options, &run->machine_spec, f);
    if (ret == 0)
        ret = snapshot_source_open(&run->options, s->argv != NULL,
                                   &run->machine_spec, &run->source, f);
    if (ret == 0)
        ret = run->source.snapshot ? restore_machine(run, f)
                                   : open_machine(run, f);
    if (ret == 0 && s->tty) {
        console_init(&run->console, STDIN_FILENO);
        get_winsize(run, &s->tty_rows, &s->tty_columns);
        s->winsize = get_winsize;
    }
    if (cli_is_terminal(stderr) && s->err.fd == STDERR_FILENO)
        s->progress = show_progress;
    s->progress_ctx = run;
    return ret;
}

/* Without a trial there still is a result: it never ran, and why. */
static void result_never_ran(struct run *run, const struct failure *f)
{
    run->result.failure = *f;
    run->result.facts.cause = run->result.failure.code;
    run->result.outcome = outcome_decide(&run->result.facts);
}

static int write_json(struct run *run)
{
    const struct image *image =
        run->opened && run->machine.has_image ? &run->machine.image : NULL;
    char *line = result_to_json(&run->result, &run->opts.spec,
                                &run->machine_spec, image);
    int ret = -ENOMEM;

    if (line)
        ret = io_write_full(run->json_fd, line, strlen(line));
    if (ret == 0)
        ret = io_write_full(run->json_fd, "\n", 1);
    if (ret == 0 && run->json_fd != STDOUT_FILENO && fsync(run->json_fd) != 0 &&
        errno != EINVAL && errno != EROFS)
        ret = -errno;
    free(line);
    if (ret != 0)
        fprintf(stderr,
                "microsbx run: cannot write the result to %s: %s\n"
                "  the trial's outcome was %s\n",
                run->opts.json, strerror(-ret),
                outcome_name(run->result.outcome.kind));
    return ret;
}

/* The last lines of the guest's console, harmless for a terminal. */
static void show_console(const struct trial_result *r)
{
    const char *at = (const char *)r->console;
    const char *end = at + r->console_len;

    if (r->console_len == 0)
        return;
    fputs("  the end of the guest's console:\n", stderr);
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((stop ? stop : end) - at);
        char shown[512];

        while (len > 0 && at[len - 1] == '\r')
            len--;
        text_escape(at, len, shown, sizeof(shown));
        fprintf(stderr, "  | %s\n", shown);
        at = stop ? stop + 1 : end;
    }
}

/* What a person should know that the exit status does not say. */
static void report(const struct run *run)
{
    const struct trial_result *r = &run->result;
    uint64_t dropped = r->out.dropped + r->err.dropped;

    if (failure_is_set(&r->failure))
        cli_fail(run->verb, &r->failure);
    else if (r->outcome.kind != OUTCOME_OK && r->outcome.kind != OUTCOME_FAIL &&
             r->outcome.kind != OUTCOME_SIGNAL)
        fprintf(stderr, "microsbx run: %s%s%s (decided by the %s)\n",
                outcome_name(r->outcome.kind), r->outcome.cause ? ": " : "",
                r->outcome.cause ? r->outcome.cause : "",
                r->outcome.by_host ? "host" : "guest");
    if (dropped > 0 && run->opts.spec.no_agent && !r->hit_output)
        fprintf(stderr,
                "microsbx run: the guest's console lost %" PRIu64 " bytes: it "
                "sent them although its port was not ready\n",
                dropped);
    else if (dropped > 0)
        fprintf(stderr,
                "microsbx run: output beyond --output-limit was dropped "
                "(%" PRIu64 " bytes)\n",
                dropped);
    /* Without an agent the console has been the output already. */
    if ((r->outcome.kind == OUTCOME_INFRA_NEVER_RAN ||
         r->outcome.kind == OUTCOME_GUEST_PANIC) &&
        !run->opts.spec.no_agent)
        show_console(r);
}

static int finish(struct run *run)
{
    int status = outcome_exit_status(&run->result.outcome, &run->result.facts);

    report(run);
    if (run->json_fd >= 0) {
        if (write_json(run) != 0)
            return EXIT_INFRA;
        if (run->opts.exit_code_json)
            return 0;
    }
    return status;
}

static void run_free(struct run *run)
{
    if (run->opts.spec.events)
        fclose(run->opts.spec.events);
    io_close(&run->out_fd);
    io_close(&run->err_fd);
    if (run->json_fd != STDOUT_FILENO)
        io_close(&run->json_fd);
    io_close(&run->opts.spec.signal_fd);
    if (run->opened)
        machine_close(&run->machine);
    snapshot_source_fini(&run->source);
    run_options_fini(&run->opts);
    machine_spec_fini(&run->machine_spec);
    free(run);
}

static int run_main(const struct verb *verb, int argc, char **argv)
{
    struct run *run = calloc(1, sizeof(*run));
    struct failure f = {0};
    int status;

    if (!run) {
        failure_set(&f, "host", "memory", NULL, "out of memory");
        return cli_fail(verb, &f);
    }
    run->verb = verb;
    run->json_fd = run->out_fd = run->err_fd = -1;
    run->opts.spec.signal_fd = -1;
    machine_spec_init(&run->machine_spec);
    snapshot_source_init(&run->source);
    status = cli_parse(verb, argc, argv, &run->options);
    if (status >= 0) {
        run_free(run);
        return status;
    }
    if (prepare(run, &f) != 0) {
        result_never_ran(run, &f);
    } else if (run->opts.spec.tty && console_make_raw(&run->console) != 0) {
        failure_set(&f, "host", "terminal", NULL,
                    "cannot put the terminal into raw mode");
        result_never_ran(run, &f);
    } else {
        trial_run(&run->opts.spec, &run->machine, &run->result);
        console_restore(&run->console);
    }
    if (run->opts.spec.progress)
        show_progress(run, "put");
    status = finish(run);
    run_free(run);
    return status;
}

const struct verb VERB_RUN = {
    .name = "run",
    .synopsis = "[MACHINE OPTIONS] [TRIAL OPTIONS] [-- COMMAND [ARG...]]",
    .summary = "Run one command in a fresh machine and report its outcome.",
    .description =
        "Boots a machine of its own, waits for its agent, runs the command as "
        "an unprivileged user, passes its output and exit status on, and "
        "leaves nothing behind. With --snapshot the machine goes on from where "
        "it was frozen, in place of booting. With --no-agent the guest itself "
        "is the trial. "
        "The monitor process is not confined further in this version (jail: "
        "none).",
    .example =
        "  microsbx run --image python -- python3 -c 'print(6 * 7)'\n"
        "  microsbx run --image python --put model.npz:/tmp/m.npz \\\n"
        "      --timeout 30s --json result.json -- python3 -c 'import numpy'\n"
        "  microsbx run --kernel unikernel.elf --no-agent --timeout 5s\n"
        "  microsbx run --snapshot ./warm -- python3 -c 'import numpy'\n",
    .groups = {&MACHINE_OPTIONS, &TRIAL_OPTIONS, &SNAPSHOT_OPTIONS, NULL},
    .takes_command = true,
    .main = run_main,
};
