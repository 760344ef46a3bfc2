/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microsbx snapshot create: boots (or restores) a machine, runs the warm-up,
 * freezes it, and publishes what was saved.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/standard_fds.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/machine_options.h"
#include "cli/run_options.h"
#include "cli/snapshot_options.h"
#include "cli/snapshot_verbs.h"
#include "trial/fitness.h"
#include "trial/live.h"
#include "trial/snapshot_describe.h"
#include "trial/trial.h"

#define PAGE_SIZE 4096u

struct create {
    const struct verb *verb;
    struct options options;
    struct machine_spec machine_spec;
    struct machine machine;
    struct run_options opts;
    struct trial_freeze freeze;
    struct trial_restore restore; /* of --from */
    struct snapshot *parent;
    struct snapshot_places places;
    struct snapshot_writer *writer;
    struct snapshot_manifest manifest;
    struct trial_result result;
    const char *argv[4]; /* the warm-up */
    bool opened;
    bool progress;
    uint64_t started_ns;
};

static const struct option_spec SPECS[] = {
    {"output", 'o', "DIR", false,
     "Where the snapshot appears; must not exist."},
    {"warmup", 0, "CMD", false,
     "Shell command to run before the freeze, as the trial's user. Its code is "
     "trusted: what it loads is part of every trial's start."},
    {"warmup-ready", 0, "LINE", false,
     "The warm-up stays: freeze when it has written this line to its standard "
     "output and waits for input (with --no-agent: the console's line)."},
    {"warmup-timeout", 0, "DURATION", false,
     "How long the warm-up may take. Default 10m."},
    {"put", 0, "SRC:DST", true,
     "Copy a file of this host into the guest before the warm-up."},
    {"env", 'e', "NAME=VALUE", true, "Environment of the warm-up."},
    {"env-file", 0, "FILE", false,
     "Variables from a file, one NAME=VALUE a line; # begins a comment line."},
    {"workdir", 'w', "DIR", false, "Working directory of the warm-up."},
    {"user", 'u', "NAME|UID[:GID]", false,
     "User of the warm-up. Default: sandbox (uid 1000)."},
    {"ready-timeout", 0, "DURATION", false,
     "How long the machine may take to boot. Default 180s."},
    {"pinnable", 0, NULL, false,
     "For trials with --seed and --clock: RDRAND and RDSEED are hidden from "
     "the guest, and it runs for a minute before the freeze. One CPU."},
    {"from", 0, "BASE", false,
     "Start from another snapshot in place of booting, and store only what "
     "has changed since (pages, clusters). BASE must stay where it is found. "
     "It "
     "fixes the machine: -m and --cpus say what it may ask for at most."},
    {"from-vm", 0, "NAME", false,
     "A machine that runs (run -d --name NAME): it stands still for a moment, "
     "and goes on. What it is doing goes on in each trial, too."},
    {"without-base", 0, NULL, false,
     "Do not store the disks' base files: they are found by their digest."},
    {"no-agent", 0, NULL, false,
     "The guest has no agent; needs --warmup-ready."},
    {NULL, 0, NULL, false, NULL},
};

static const struct option_group CREATE_OPTIONS = {"Create options", SPECS};

/* ---- progress ---- */

static void show_progress(void *ctx, const char *phase)
{
    static const struct {
        const char *phase, *text;
    } TEXTS[] = {
        {"boot", "booting the machine"},
        {"start", "restoring the machine"},
        {"put", "copying files in"},
        {"run", "warming up"},
        {"age", "letting the guest get a minute old (--pinnable)"},
        {"quiesce", "making the guest ready to be frozen"},
        {"save", "saving memory, devices and disks"},
        {"publish", "checking and publishing"},
    };
    const struct create *c = ctx;

    for (size_t i = 0; c->progress && i < sizeof(TEXTS) / sizeof(TEXTS[0]);
         i++) {
        if (!strcmp(phase, TEXTS[i].phase))
            fprintf(stderr, "\r\033[K%s ...", TEXTS[i].text);
    }
    if (c->progress && !strcmp(phase, "end"))
        fputs("\r\033[K", stderr);
    fflush(stderr);
}

static bool was_cancelled(void *ctx)
{
    const struct create *c = ctx;

    return cli_signal_pending(c->opts.spec.signal_fd);
}

/* ---- what was asked for ---- */

static int fail_usage(const char *option, const char *why, const char *remedy,
                      struct failure *f)
{
    failure_set(f, "usage", option, remedy, "option --%s %s", option, why);
    return -EINVAL;
}

static int check_options(const struct options *options, struct failure *f)
{
    static const char *const PLACES[] = {"parents", "base", NULL};
    const bool no_agent = options_has(options, "no-agent");

    if (options->positional_count > 0) {
        failure_set(f, "usage", options->positional[0],
                    "give the warm-up as one word: --warmup 'CMD'",
                    "what is '%s' to be?", options->positional[0]);
        return -EINVAL;
    }
    if (!options_has(options, "output"))
        return fail_usage("output", "is missing", "add -o DIR", f);
    if (no_agent && options_has(options, "warmup"))
        return fail_usage("warmup", "needs the guest's agent",
                          "leave out --no-agent", f);
    if (!no_agent && options_has(options, "warmup-ready") &&
        !options_has(options, "warmup"))
        return fail_usage("warmup-ready", "needs --warmup CMD", NULL, f);
    if (no_agent && !options_has(options, "warmup-ready"))
        return fail_usage("no-agent", "needs --warmup-ready LINE",
                          "say which line of the console tells when to freeze",
                          f);
    for (const char *const *name = PLACES; *name; name++) {
        if (options_has(options, *name) && !options_has(options, "from"))
            return fail_usage(*name, "needs --from BASE", "leave it out", f);
    }
    return 0;
}

static int read_spec(struct create *c, struct failure *f)
{
    struct trial_spec *s = &c->opts.spec;
    unsigned long long timeout = TRIAL_TIMEOUT_DEFAULT_MS;
    const char *warmup = options_get(&c->options, "warmup");
    int ret = run_options_read_inputs(&c->options, &c->opts, f);

    if (ret == 0)
        ret =
            options_get_duration_ms(&c->options, "warmup-timeout", &timeout, f);
    if (ret != 0)
        return ret;
    s->timeout_ms = timeout;
    s->no_agent = options_has(&c->options, "no-agent");
    /* Standard output stays free; what the warm-up says is news of ours. */
    if (standard_fd_is_usable(STDERR_FILENO))
        s->out.fd = s->err.fd = STDERR_FILENO;
    if (warmup) {
        c->argv[0] = "/bin/sh";
        c->argv[1] = "-c";
        c->argv[2] = warmup;
        s->argv = c->argv;
    }
    c->freeze.ready = options_get(&c->options, "warmup-ready");
    c->freeze.pinned = options_has(&c->options, "pinnable");
    s->freeze = &c->freeze;
    return 0;
}

/* ---- the machine ---- */

static int open_parent(struct create *c, struct failure *f)
{
    static const char *const FIXED[] = {
        "image", "kernel",   "initrd", "append",       "disk",
        "vsock", "platform", "config", "without-base", NULL};
    struct snapshot_open_options open_options = {.cancelled = was_cancelled,
                                                 .ctx = c};
    const char *base = options_get(&c->options, "from");
    int ret;

    for (const char *const *name = FIXED; *name; name++) {
        if (options_has(&c->options, *name))
            return fail_usage(*name, "does not go with --from, which fixes it",
                              "leave out one of the two", f);
    }
    snapshot_places_read(&c->options, &c->places, &open_options);
    ret = snapshot_open(base, &open_options, &c->parent, f);
    if (ret == 0 && c->freeze.pinned && !c->parent->manifest.hide_rdrand)
        ret = fail_usage("pinnable", "needs a base that is pinnable", NULL, f);
    c->restore = (struct trial_restore){.snapshot = c->parent};
    c->opts.spec.restore = &c->restore;
    if (ret == 0)
        ret = machine_restore(&c->machine_spec, c->parent, &c->machine, f);
    if (ret == 0)
        snapshot_limits_told(c->verb, &c->machine, &c->machine_spec);
    if (ret == 0)
        ret = run_options_add_manifest(&c->opts, &c->parent->manifest, f);
    return ret;
}

static int open_machine(struct create *c, struct failure *f)
{
    int ret = machine_options_read(&c->options, &c->machine_spec, f);

    if (ret != 0)
        return ret;
    if (options_has(&c->options, "from")) {
        snapshot_limits_read(&c->options, &c->machine_spec);
        ret = open_parent(c, f);
    } else {
        c->machine_spec.debug_exit = c->opts.spec.no_agent;
        ret = machine_open(&c->machine_spec, &c->machine, f);
        c->machine.config.hide_rdrand = c->freeze.pinned;
        if (ret == 0 && c->freeze.pinned && c->machine_spec.cpu_count != 1)
            ret = fail_usage("pinnable", "needs --cpus 1",
                             "several CPUs are never reproducible", f);
        if (ret == 0 && c->machine.has_image)
            ret = run_options_add_image(&c->opts, &c->machine.image, f);
    }
    c->opened = ret == 0;
    if (ret == 0 && !c->opts.spec.no_agent)
        machine_add_vsock(&c->machine);
    return ret;
}

/* Whom this host can hold; then the folder, the bases and the manifest. */
static int begin_snapshot(struct create *c, struct failure *f)
{
    const struct snapshot_writer_options writer_options = {
        .parent = c->parent,
        .parents = c->places.parents,
        .without_base = options_has(&c->options, "without-base"),
        .cancelled = was_cancelled,
        .ctx = c,
    };
    struct monitor_probe probe;
    const bool no_agent = c->opts.spec.no_agent;
    int kvm_fd = c->machine.config.kvm_fd;
    int ret = no_agent ? fitness_probe_cpu(kvm_fd, &probe, f)
                       : fitness_probe(kvm_fd, &probe, f);

    if (ret == 0 && !no_agent && !fitness_judge(&probe, f))
        ret = -ENODEV;
    if (ret == 0)
        ret = snapshot_writer_begin(options_get(&c->options, "output"),
                                    &writer_options, &c->writer, f);
    if (ret == 0)
        ret = snapshot_describe(&c->machine, &probe, c->writer, &c->manifest,
                                &c->freeze.files, f);
    return ret;
}

static int prepare(struct create *c, struct failure *f)
{
    int ret = read_spec(c, f);

    if (ret == 0)
        ret = cli_watch_signals(CLI_IGNORE_STOP, &c->opts.spec.signal_fd, f);
    if (ret == 0)
        ret = open_machine(c, f);
    if (ret == 0)
        ret = begin_snapshot(c, f);
    c->progress = cli_is_terminal(stderr);
    c->opts.spec.progress = show_progress;
    c->opts.spec.progress_ctx = c;
    return ret;
}

/* ---- what came of it ---- */

/* The warm-up's own end, or a limit that it met: no accident of the machine. */
static bool warmup_decided(const struct trial_result *r)
{
    switch (r->outcome.kind) {
    case OUTCOME_OK:
    case OUTCOME_FAIL:
    case OUTCOME_SIGNAL:
    case OUTCOME_OOM:
    case OUTCOME_DISK_FULL:
    case OUTCOME_PIDS_LIMIT:
    case OUTCOME_OUTPUT_LIMIT:
        return r->facts.has_status;
    default:
        return false;
    }
}

/* The machine was not frozen: why, as a sentence. */
static void explain(const struct create *c, struct failure *f)
{
    const struct trial_result *r = &c->result;
    const char *ready = c->freeze.ready;

    if (failure_is_set(&r->failure) && !warmup_decided(r))
        *f = r->failure;
    else if (r->outcome.kind == OUTCOME_DISK_FULL && r->outcome.by_host)
        failure_set(f, "disk_full", "--disk-limit", "give more --disk-limit",
                    "the host refused what the guest wrote, at the limit of a "
                    "disk: the machine is not whole");
    else if (r->outcome.kind == OUTCOME_TIMEOUT)
        failure_set(f, "warmup_failed", "--warmup",
                    "give more --warmup-timeout, or look at what it does",
                    ready ? "the warm-up did not say its ready line in time"
                          : "the warm-up did not end in time");
    else if (warmup_decided(r) && r->facts.signal != 0)
        failure_set(f, "warmup_failed", "--warmup", "look at what it wrote",
                    "the warm-up was killed by signal %d", r->facts.signal);
    else if (warmup_decided(r))
        failure_set(f, "warmup_failed", "--warmup", "look at what it wrote",
                    ready ? "the warm-up ended with exit status %d without "
                            "saying its ready line"
                          : "the warm-up failed with exit status %d",
                    r->facts.exit_code);
    else
        failure_set(f, "warmup_failed", "the guest", "look at its console",
                    "the guest ended before it could be frozen (%s)",
                    outcome_name(r->outcome.kind));
}

static int record_warmup(struct create *c)
{
    const char *const commands[] = {options_get(&c->options, "warmup"), NULL};
    const struct snapshot_history history = {
        .commands = commands,
        .ready = c->freeze.ready,
        .waiting = c->freeze.waiting,
    };

    return snapshot_describe_history(&c->machine, &history, &c->manifest);
}

static int fill_manifest(struct create *c, struct failure *f)
{
    struct snapshot_manifest *m = &c->manifest;
    const struct trial_freeze *freeze = &c->freeze;
    char release[PROTO_RELEASE_MAX * 4];
    int ret = 0;

    text_escape(c->result.kernel_release, strlen(c->result.kernel_release),
                release, sizeof(release));
    if (release[0])
        ret = snapshot_manifest_set(&m->kernel_release, release);
    m->agent = !c->opts.spec.no_agent;
    m->pinned = freeze->pinned;
    m->window_ms = freeze->window_ms;
    m->memory_pages = freeze->saved.pages;
    m->memory_used = freeze->memory_used;
    if (ret == 0)
        ret = record_warmup(c);
    if (ret != 0)
        failure_set(f, "host", "memory", NULL, "out of memory");
    return ret;
}

static void report(const struct create *c, const char *id)
{
    uint64_t ms = (io_now_ns() - c->started_ns) / 1000000;
    char data[32], used[32];

    show_progress((void *)(uintptr_t)c, "end");
    units_format_size(c->freeze.saved.pages * PAGE_SIZE, data, sizeof(data));
    units_format_size(c->freeze.memory_used, used, sizeof(used));
    fprintf(stderr,
            "snapshot %s is ready after %" PRIu64 ".%" PRIu64
            " s: %s of memory",
            options_get(&c->options, "output"), ms / 1000, ms / 100 % 10, data);
    if (c->freeze.memory_used > 0)
        fprintf(stderr, " (the guest was using %s)", used);
    fputc('\n', stderr);
    if (c->opts.spec.argv)
        fputs("its memory holds all that the warm-up has seen: give it only to "
              "those who may see that\n",
              stderr);
    printf("%s\n", id);
}

/* From a frozen machine to a published snapshot. */
static int publish(struct create *c, struct failure *f)
{
    char id[DIGEST_HEX_SIZE];
    int ret = 0;

    if (!c->freeze.done) {
        explain(c, f);
        return c->result.facts.cancelled ? -ECANCELED : -EINVAL;
    }
    show_progress(c, "publish");
    ret = fill_manifest(c, f);
    if (ret == 0)
        ret = snapshot_writer_finish(c->writer, &c->manifest, id, f);
    if (ret == 0)
        report(c, id);
    return ret;
}

static void create_free(struct create *c)
{
    snapshot_manifest_fini(&c->manifest);
    snapshot_writer_free(c->writer);
    io_close(&c->opts.spec.signal_fd);
    if (c->opened)
        machine_close(&c->machine);
    snapshot_close(c->parent);
    run_options_fini(&c->opts);
    machine_spec_fini(&c->machine_spec);
    free(c);
}

/* ---- of a machine that runs ---- */

/* The folder as the keeper, whose folder is another, can find it. */
static int absolute_path(const char *path, char *ret_path, size_t size)
{
    char here[PATH_MAX] = "";
    int n;

    if (path[0] != '/' && !getcwd(here, sizeof(here)))
        return -errno;
    n = snprintf(ret_path, size, "%s%s%s", here, here[0] ? "/" : "", path);
    return n > 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

static int check_from_vm(const struct options *options, struct failure *f)
{
    static const char *const KNOWN[] = {"from-vm", "output", "without-base"};

    for (size_t i = 0; i < options->count; i++) {
        const char *name = options->values[i].spec->name;
        bool known = false;

        for (size_t k = 0; k < sizeof(KNOWN) / sizeof(KNOWN[0]); k++)
            known = known || !strcmp(name, KNOWN[k]);
        if (!known)
            return fail_usage(name, "does not go with --from-vm",
                              "leave out one of the two", f);
    }
    return 0;
}

static int ask_keeper(struct create *c, struct live *live, struct failure *f)
{
    struct keeper_snapshot_done done;
    struct keeper_snapshot request = {0};
    int ret = check_from_vm(&c->options, f);

    if (options_has(&c->options, "without-base"))
        request.flags = KEEPER_SNAPSHOT_WITHOUT_BASE;
    if (ret == 0) {
        ret = absolute_path(options_get(&c->options, "output"), request.dir,
                            sizeof(request.dir));
        if (ret != 0)
            failure_set(f, "usage", "output", "give a shorter path",
                        "cannot write the snapshot there: %s", strerror(-ret));
    }
    if (ret == 0)
        ret = cli_watch_signals(0, &c->opts.spec.signal_fd, f);
    if (ret == 0)
        ret = live_snapshot(live, &request, c->opts.spec.signal_fd, &done, f);
    if (ret != 0)
        return ret;
    fprintf(stderr, "the machine stood still for %" PRIu64 " ms\n",
            done.paused_ms);
    c->freeze.saved.pages = done.pages;
    report(c, done.id);
    return 0;
}

static int create_from_vm(struct create *c, struct failure *f)
{
    struct live *live = malloc(sizeof(*live));
    int ret = -ENOMEM;

    if (!live) {
        failure_set(f, "host", "memory", NULL, "out of memory");
        return ret;
    }
    ret = live_open(options_get(&c->options, "from-vm"), live, f);
    if (ret == 0) {
        ret = ask_keeper(c, live, f);
        live_close(live);
    }
    free(live);
    return ret;
}

/* ---- the verb ---- */

static int create(struct create *c, struct failure *f)
{
    int ret = check_options(&c->options, f);

    if (ret == 0 && options_has(&c->options, "from-vm"))
        return create_from_vm(c, f);
    if (ret == 0)
        ret = prepare(c, f);
    if (ret == 0) {
        trial_run(&c->opts.spec, &c->machine, &c->result);
        ret = publish(c, f);
    }
    return ret;
}

static int create_main(const struct verb *verb, int argc, char **argv)
{
    struct create *c = calloc(1, sizeof(*c));
    struct failure f = {0};
    int status, ret;

    if (!c) {
        failure_set(&f, "host", "memory", NULL, "out of memory");
        return cli_fail(verb, &f);
    }
    c->verb = verb;
    c->started_ns = io_now_ns();
    run_options_init(&c->opts);
    machine_spec_init(&c->machine_spec);
    snapshot_manifest_init(&c->manifest);
    status = cli_parse(verb, argc, argv, &c->options);
    if (status < 0) {
        ret = create(c, &f);
        if (ret != 0) {
            show_progress(c, "end");
            status = cli_fail(verb, &f);
        }
        status = ret == 0 ? 0 : ret == -ECANCELED ? EXIT_CANCELLED : status;
    }
    create_free(c);
    if (status == 0 && fflush(stdout) != 0) {
        failure_set(&f, "host", "standard output",
                    "microsbx snapshot inspect shows the id",
                    "the snapshot is there, but its id cannot be written to "
                    "standard output: %s",
                    strerror(errno));
        status = cli_fail(verb, &f);
    }
    return status;
}

const struct verb VERB_SNAPSHOT_CREATE = {
    .name = "snapshot create",
    .synopsis = "[MACHINE OPTIONS] [CREATE OPTIONS] -o DIR",
    .summary = "Boot a machine, warm it up, and freeze it.",
    .description =
        "Boots the machine, runs the warm-up, and writes memory, devices and "
        "disks as one directory, which appears complete or not at all. Prints "
        "the snapshot's id: the SHA-256 of its manifest, which has the digest "
        "of every byte. The snapshot holds all that the warm-up has seen, "
        "secrets included; untrusted files do not belong in it, they are given "
        "to each trial.",
    .example =
        "  microsbx snapshot create --image python -o ./warm \\\n"
        "      --warmup 'python3 -c \"import numpy\"'\n"
        "  microsbx snapshot create --image python --put serve.py:/tmp/ \\\n"
        "      --warmup 'exec python3 /tmp/serve.py' --warmup-ready ready "
        "-o ./warm\n",
    .groups = {&MACHINE_OPTIONS, &CREATE_OPTIONS, &SNAPSHOT_PLACES, NULL},
    .main = create_main,
};
