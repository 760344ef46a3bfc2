/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microsbx run: one command in one fresh machine. Opens what the user named,
 * runs the trial, reports it: the JSON is the truth, the exit status a hint.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/io.h"
#include "base/standard_fds.h"
#include "cli/cli.h"
#include "cli/console.h"
#include "cli/detach.h"
#include "cli/machine_options.h"
#include "cli/results.h"
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
    struct results results;
    struct detach detach;
    struct console console;
    struct trial_result result;
    struct trial_vm vm; /* --reset in-place */
    unsigned long long repeat;
    unsigned long long number; /* of the trial, from 1 */
    unsigned long long reused; /* trials in a machine that was rolled back */
    unsigned long long same;   /* trials with a status and the first's output */
    char first[DIGEST_HEX_SIZE];
    char id[24];
    bool opened; /* machine_open has succeeded */
};

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
    else if (!strcmp(phase, TRIAL_NOT_STOPPED))
        fputs("\r\033[Kmicrosbx run: not stopped: the trial's clock would go "
              "on; Ctrl-C ends it\n",
              stderr);
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

static const char *state_digest(const struct snapshot *snapshot)
{
    return snapshot_manifest_file(&snapshot->manifest, "state")->digest;
}

static bool is_cpu_known(const struct snapshot *snapshot)
{
    return fitness_cpu_known(state_digest(snapshot));
}

/* The machine of the snapshot, and whether this host can. */
static int restore_machine(struct run *run, struct failure *f)
{
    const struct snapshot *snapshot = run->source.snapshot;
    struct trial_spec *s = &run->opts.spec;
    int ret = machine_restore(&run->machine_spec, snapshot, &run->machine, f);

    run->opened = ret == 0;
    if (ret == 0)
        snapshot_limits_told(run->verb, &run->machine, &run->machine_spec);
    if (ret == 0)
        ret = run_options_add_manifest(&run->opts, &snapshot->manifest, f);
    if (ret == 0)
        ret = snapshot_source_check_host(&run->source,
                                         run->machine.config.kvm_fd, f);
    run->machine_spec.cpu_compared = ret == 0 && is_cpu_known(snapshot);
    run->machine.config.cpu_compared = run->machine_spec.cpu_compared;
    s->restore = &run->source.restore;
    s->vm = run->source.in_place ? &run->vm : NULL;
    if (run->source.send_fd >= 0)
        s->stdin_fd = run->source.send_fd;
    return ret;
}

/* Standard input that each trial can be given from where it now is. */
static bool can_rewind_input(void)
{
    return standard_fd_is_usable(STDIN_FILENO) &&
           lseek(STDIN_FILENO, 0, SEEK_CUR) >= 0;
}

/* --repeat, and what does not go with it. */
static int read_repeat(struct run *run, struct failure *f)
{
    const char *send = options_get(&run->options, "send");
    const char *without = NULL;
    int ret;

    run->repeat = 1;
    ret = options_get_number(&run->options, "repeat", 1, 1000000, &run->repeat,
                             f);
    if (ret != 0 || run->repeat == 1)
        return ret;
    if (run->detach.wanted)
        without = "detach";
    else if (run->opts.spec.stdin_fd >= 0)
        without = run->opts.spec.tty ? "tty" : "interactive";
    if (!without && send && !strcmp(send, "-") && !can_rewind_input()) {
        failure_set(f, "usage", "send", "give --send FILE",
                    "option --repeat gives each trial the same input, and "
                    "standard input (--send -) can be read only once");
        return -EINVAL;
    }
    if (!without)
        return 0;
    failure_set(f, "usage", "repeat", "leave out one of the two",
                "option --repeat does not go with --%s", without);
    return -EINVAL;
}

/* What the command line says, with nothing opened yet. */
static int read_command_line(struct run *run, struct failure *f)
{
    bool detached = run->detach.wanted;
    struct trial_spec *s = &run->opts.spec;
    int ret;

    s->timeout_ms = detached ? 0 : TRIAL_TIMEOUT_DEFAULT_MS;
    ret = run_options_read(&run->options, &run->opts, f);
    if (ret == 0)
        ret = read_repeat(run, f);
    /* With a snapshot a process that waits there may do. */
    if (ret == 0 && !detached && !s->no_agent &&
        !options_has(&run->options, "snapshot"))
        ret = run_options_need_command(
            &run->opts, "microsbx run --image python -- python3 -c 'print(1)'",
            f);
    if (ret == 0)
        ret = machine_options_read(&run->options, &run->machine_spec, f);
    return ret;
}

/* ... and where its results go, which must be none of what it reads. */
static int read_options(struct run *run, struct failure *f)
{
    struct trial_spec *s = &run->opts.spec;
    bool detached = run->detach.wanted;
    int ret = read_command_line(run, f);

    outputs_add_options(&run->results.outputs, &run->options,
                        &run->machine_spec);
    /* What goes wrong, from here on or before, is in the JSON, too. */
    if (ret == 0 && !detached)
        ret = results_open(&run->results, &run->options, &run->opts, f);
    else if (ret == 0)
        ret = results_clear_fetched(&run->results, s, f);
    else if (!detached)
        results_open_wrong(&run->results, &run->options, &run->opts);
    if (ret == 0)
        ret = cli_watch_signals(CLI_WATCH_WINDOW | CLI_WATCH_TRIAL,
                                &s->signal_fd, f);
    if (ret == 0 && detached)
        ret = detach_take_name(&run->detach, &run->machine_spec, s, f);
    return ret;
}

static int prepare(struct run *run, struct failure *f)
{
    struct trial_spec *s = &run->opts.spec;
    int ret = read_options(run, f);

    run->source.signal_fd = s->signal_fd;
    if (ret == 0)
        ret = snapshot_source_open(&run->options,
                                   s->argv != NULL || run->detach.wanted,
                                   &run->machine_spec, &run->source, f);
    if (ret == 0)
        ret = run->source.snapshot ? restore_machine(run, f)
                                   : open_machine(run, f);
    if (ret == 0 && run->detach.wanted)
        ret = detach_set_machine(&run->detach, &run->machine,
                                 run->source.snapshot, f);
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

static int finish(struct run *run)
{
    const struct image *image =
        run->opened && run->machine.has_image ? &run->machine.image : NULL;
    char *line;
    int status = 0;

    results_settle(&run->opts, &run->result);
    line = result_to_json(&run->result, &run->opts.spec, &run->machine_spec,
                          image);
    if (run->detach.wanted)
        detach_finish(&run->detach, &run->result, line);
    else
        status = results_finish(&run->results, &run->opts, &run->result, line);
    free(line);
    return status;
}

/* ---- one trial, or several ---- */

/* The machine for the next trial; one that is kept needs none. */
static int reopen_machine(struct run *run, struct failure *f)
{
    int ret;

    if (run->vm.monitor)
        return 0;
    machine_close(&run->machine);
    run->opened = false;
    ret = run->source.snapshot
              ? machine_restore(&run->machine_spec, run->source.snapshot,
                                &run->machine, f)
              : machine_open(&run->machine_spec, &run->machine, f);
    run->opened = ret == 0;
    return ret;
}

/* The number of the next trial, and the id by which its result names it. */
static void set_number(struct run *run, unsigned long long number)
{
    run->number = number;
    if (run->repeat == 1)
        return;
    snprintf(run->id, sizeof(run->id), "%llu", number);
    run->opts.spec.id = run->id;
}

/* How many gave the same is said of trials that gave something. */
static void count_same(struct run *run)
{
    const char *output = run->result.out.sha256;

    if (!run->result.facts.has_status)
        return;
    if (run->number == 1)
        memcpy(run->first, output, sizeof(run->first));
    run->same += run->first[0] && !strcmp(run->first, output);
}

static void run_trial(struct run *run)
{
    const struct snapshot_source *source = &run->source;
    const struct trial_spec *s = &run->opts.spec;

    if (source->send_fd >= 0 && run->number > 1)
        (void)lseek(source->send_fd, source->send_start, SEEK_SET);
    trial_run(s, &run->machine, &run->result);
    if (s->restore && run->result.running_ns > 0)
        fitness_cpu_remember(state_digest(s->restore->snapshot));
    count_same(run);
    run->reused += run->result.proof.exposed;
}

static void keep_first(int *status, int one)
{
    if (*status == 0)
        *status = one;
}

/* True if there is another trial, with its machine ready. */
static bool next_trial(struct run *run, int *status)
{
    struct failure f = {0};
    int ret;

    if (run->number == run->repeat || run->result.facts.cancelled)
        return false;
    set_number(run, run->number + 1);
    ret = reopen_machine(run, &f);
    if (ret == 0)
        return true;
    results_never_ran(&run->result, ret, &f);
    keep_first(status, finish(run));
    return false;
}

/* Whoever asked for machines that are used again hears if they were not. */
static void report_reuse(const struct run *run)
{
    if (!run->source.in_place)
        return;
    if (run->repeat == 1)
        fputs("microsbx run: --reset in-place reused nothing: there was one "
              "trial; --repeat makes several\n",
              stderr);
    else if (run->reused + 1 < run->number)
        fprintf(stderr,
                "microsbx run: --reset in-place: %llu of %llu trials found a "
                "machine to use again\n",
                run->reused, run->number - 1);
}

/*
 * All trials and their results: the first exit status that is not 0; 130 if the
 * series was cut short.
 */
static int run_trials(struct run *run)
{
    int status = 0;

    set_number(run, 1);
    do {
        run_trial(run);
        console_restore(&run->console);
        if (run->opts.spec.progress)
            show_progress(run, "put");
        keep_first(&status, finish(run));
    } while (next_trial(run, &status));
    if (run->repeat > 1)
        fprintf(stderr, "%llu trials, %llu with the output of the first\n",
                run->number, run->same);
    report_reuse(run);
    return run->result.facts.cancelled && run->repeat > 1 ? EXIT_CANCELLED
                                                          : status;
}

static void run_free(struct run *run)
{
    results_close(&run->results, &run->opts);
    trial_vm_fini(&run->vm);
    io_close(&run->opts.spec.signal_fd);
    if (run->opened)
        machine_close(&run->machine);
    snapshot_source_fini(&run->source);
    run_options_fini(&run->opts);
    machine_spec_fini(&run->machine_spec);
    detach_close(&run->detach);
    free(run);
}

/* The command line as far as it can be read before anything is opened. */
static int read_words(struct run *run, int argc, char **argv, struct failure *f)
{
    int ret =
        results_parse(&run->results, argc, argv, &run->options, &run->opts, f);

    if (ret != 0 || run->options.help)
        return ret;
    ret = detach_read(&run->options, &run->detach, f);
    if (ret != 0) {
        run->detach.wanted = false;
        results_open_wrong(&run->results, &run->options, &run->opts);
    }
    return ret;
}

static int make_ready(struct run *run, struct failure *f)
{
    int ret = prepare(run, f);

    if (ret == 0 && run->opts.spec.tty && console_make_raw(&run->console)) {
        failure_set(f, "host", "terminal", NULL,
                    "cannot put the terminal into raw mode");
        ret = -EIO;
    }
    return ret;
}

static int run_main(const struct verb *verb, int argc, char **argv)
{
    struct run *run = calloc(1, sizeof(*run));
    struct failure f = {0};
    int status = -1;
    int ret;

    if (!run) {
        failure_set(&f, "host", "memory", NULL, "out of memory");
        return cli_fail(verb, &f);
    }
    run->verb = verb;
    results_init(&run->results, verb);
    run_options_init(&run->opts);
    machine_spec_init(&run->machine_spec);
    snapshot_source_init(&run->source);
    trial_vm_init(&run->vm);
    ret = read_words(run, argc, argv, &f);
    if (run->options.help)
        status = 0;
    else if (ret == 0 && run->detach.wanted)
        status = detach_fork(&run->detach, verb);
    if (status < 0 && ret == 0)
        ret = make_ready(run, &f);
    if (status < 0 && ret == 0) {
        status = run_trials(run);
    } else if (status < 0) {
        results_never_ran(&run->result, ret, &f);
        status = finish(run);
    }
    run_free(run);
    return status;
}

const struct verb VERB_RUN = {
    .name = "run",
    .synopsis = "[OPTIONS] [-- COMMAND [ARG...]]",
    .summary = "Run one command in a fresh machine and report its outcome.",
    .description =
        "Boots a machine of its own, waits for its agent, runs the command as "
        "an unprivileged user, passes its output and exit status on, and "
        "leaves nothing behind. With --snapshot the machine goes on from where "
        "it was frozen, in place of booting. With --no-agent the guest itself "
        "is the trial. With -d the machine stays in the background, for "
        "microsbx exec and the other verbs. "
        "The monitor process is not confined further in this version (jail: "
        "none).",
    .example =
        "  microsbx run --image python -- python3 -c 'print(6 * 7)'\n"
        "  microsbx run --image python --put model.npz:/tmp/m.npz \\\n"
        "      --timeout 30s --json result.json -- python3 -c 'import numpy'\n"
        "  microsbx run --kernel unikernel.elf --no-agent --timeout 5s\n"
        "  microsbx run --snapshot ./warm -- python3 -c 'import numpy'\n"
        "  microsbx run -d --name box --image python\n",
    .groups = {&MACHINE_OPTIONS, &COMMAND_OPTIONS, &TRIAL_OPTIONS,
               &SNAPSHOT_OPTIONS, &DETACH_OPTIONS, NULL},
    .takes_command = true,
    .main = run_main,
};
