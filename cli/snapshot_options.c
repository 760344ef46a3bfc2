/* SPDX-License-Identifier: Apache-2.0 */
/* A trial from a snapshot; see the header. */
#include "cli/snapshot_options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "base/standard_fds.h"
#include "base/units.h"
#include "cli/snapshot_verbs.h"
#include "trial/fitness.h"
#include "trial/snapshot_compat.h"
#include "trial/snapshot_describe.h"

static const struct option_spec SPECS[] = {
    {"snapshot", 0, "DIR", false,
     "Start from this snapshot in place of booting. It fixes the machine: of "
     "the machine options only --image (compared), --disk FILE,id=ID (another "
     "base of the same size), --vsock, --overlay, --disk-limit and --jail go "
     "with it, and -m and --cpus as the most that it may ask for. By default a "
     "snapshot that was not made here may have half of this host's memory, all "
     "of its CPUs and --disk-limit 1G."},
    {"send", 0, "FILE", false,
     "Give FILE to the process that waits in the snapshot, in place of running "
     "a COMMAND; - or -i: standard input. Its input begins with one line, "
     "{\"seed\":\"64 hex digits\"}, with which it must re-key its own random "
     "generators."},
    {"check", 0, "full|sampled|none", false,
     "How much of memory and disks is read and compared first. Default: all, "
     "unless an earlier full check still holds (\"stamp\" in the result)."},
    {"prove", 0, NULL, false,
     "Before the first instruction, hash all memory through the guest's "
     "mapping, read devices and registers back, and compare."},
    {"reset", 0, "process|in-place", false,
     "How the next of several trials (--repeat) gets its state: process "
     "(default) is a fresh monitor process for each; in-place rolls the same "
     "machine back, which is faster, and only for trials that trust each "
     "other: a monitor that a guest has taken over survives it."},
    {"seed", 0, "N", false,
     "Pinned trial: no fresh randomness; N selects the stream. The snapshot "
     "must be --pinnable; needs --clock."},
    {"clock", 0, "TIME", false,
     "Pinned trial: the wall clock starts at TIME (2026-01-31T12:00:00Z, or "
     "seconds since 1970)."},
    {"parents", 0, "DIR", true,
     "Where else to look for the parent of a diff: a snapshot, or a folder of "
     "snapshots."},
    {"base", 0, "FILE", true,
     "A file that may be a base disk which the snapshot does not store."},
    {NULL, 0, NULL, false, NULL},
};

const struct option_group SNAPSHOT_OPTIONS = {"Snapshot options", SPECS};

void snapshot_source_init(struct snapshot_source *source)
{
    *source = (struct snapshot_source){.send_fd = -1, .signal_fd = -1};
}

void snapshot_source_fini(struct snapshot_source *source)
{
    snapshot_close(source->snapshot);
    io_close(&source->send_fd);
    snapshot_source_init(source);
}

static int fail_option(const char *option, const char *remedy,
                       struct failure *f, const char *why)
{
    failure_set(f, "usage", option, remedy, "option --%s %s", option, why);
    return -EINVAL;
}

/* ---- options that do not go together ---- */

/* The first of them that was given, or NULL. */
static const char *first_given(const struct options *options,
                               const char *const *names)
{
    for (; *names; names++) {
        if (options_has(options, *names))
            return *names;
    }
    return NULL;
}

static int check_alone(const struct options *options, struct failure *f)
{
    static const char *const NEED[] = {"send",  "check",   "prove",
                                       "reset", "seed",    "clock",
                                       "base",  "parents", NULL};
    const char *name = first_given(options, NEED);

    return name ? fail_option(name, "add --snapshot DIR, or leave it out", f,
                              "needs --snapshot")
                : 0;
}

static int check_fixed(const struct options *options, struct failure *f)
{
    static const char *const FIXED[] = {"kernel",   "initrd", "append",
                                        "platform", "config", NULL};
    const char *name = first_given(options, FIXED);

    return name ? fail_option(name,
                              "leave it out, or make another snapshot with it",
                              f, "does not go with --snapshot, which fixes it")
                : 0;
}

/* ---- pinned ---- */

/* Seconds since 1970, or a date and time in UTC. */
static int read_clock(const char *text, int64_t *ret_ns, struct failure *f)
{
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    uint64_t seconds = 0;

    if (end && *end == '\0')
        seconds = (uint64_t)timegm(&tm);
    else if (units_parse_number(text, 0, UINT32_MAX, &seconds) != 0)
        return fail_option("clock", "write it 2026-01-31T12:00:00Z", f,
                           "is no time");
    if (seconds > UINT32_MAX)
        return fail_option("clock", "give a time from 1970 to 2106", f,
                           "is out of range");
    *ret_ns = (int64_t)seconds * 1000000000;
    return 0;
}

static int read_pinned(const struct options *options,
                       struct trial_restore *restore, struct failure *f)
{
    unsigned long long seed = 0;
    const char *clock = options_get(options, "clock");
    bool has_seed = options_has(options, "seed");
    int ret;

    if (!has_seed && !clock)
        return 0;
    if (!has_seed || !clock)
        return fail_option(has_seed ? "seed" : "clock",
                           "give both --seed N and --clock TIME", f,
                           has_seed ? "needs --clock" : "needs --seed");
    ret = options_get_number(options, "seed", 0, UINT64_MAX, &seed, f);
    if (ret == 0)
        ret = read_clock(clock, &restore->clock_ns, f);
    restore->seed = seed;
    restore->pinned = true;
    return ret;
}

/* ---- opening ---- */

static int open_send(const char *path, struct snapshot_source *source,
                     struct failure *f)
{
    struct stat st;
    int fd;

    if (!strcmp(path, "-") && !standard_fd_is_usable(STDIN_FILENO)) {
        failure_set(f, "usage", "standard input", "give --send FILE",
                    "cannot send standard input: it is closed");
        return -EINVAL;
    }
    if (!strcmp(path, "-")) {
        source->send_fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
        source->send_start = lseek(source->send_fd, 0, SEEK_CUR);
        return 0;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
        io_close(&fd);
        errno = EINVAL;
    }
    if (fd < 0) {
        failure_set(
            f, "usage", path,
            failure_remedy(errno, errno == EINVAL
                                      ? "give a regular file, or - and a pipe"
                                      : "check the path given"),
            "cannot send %s: %s", path, strerror(errno));
        return -EINVAL;
    }
    source->send_fd = fd;
    return 0;
}

/* A command, or input for a process that waits: one of them. */
static int read_workload(const struct options *options, bool has_command,
                         struct snapshot_source *source, struct failure *f)
{
    const struct snapshot_manifest *m = &source->snapshot->manifest;
    const char *file = options_get(options, "send");
    bool input = file || options_has(options, "interactive");

    if (has_command)
        return file ? fail_option("send", "leave out the command, or --send", f,
                                  "does not go with a COMMAND")
                    : 0;
    if (!m->agent)
        return 0; /* the guest itself is the trial */
    if (!m->warmup_waiting || !input) {
        failure_set(f, "usage", "COMMAND",
                    m->warmup_waiting
                        ? "give its input by --send FILE, or a COMMAND"
                        : "microsbx run --snapshot DIR -- COMMAND",
                    m->warmup_waiting
                        ? "there is neither a command nor input for the "
                          "process that waits in %s"
                        : "there is no command to run, and no process waits "
                          "in %s",
                    source->snapshot->dir);
        return -EINVAL;
    }
    source->restore.send = true;
    return file ? open_send(file, source, f) : 0;
}

/* --image and --disk say what the user takes the snapshot for. */
static int check_request(const struct machine_spec *spec,
                         struct snapshot *snapshot, struct failure *f)
{
    char err[IMAGE_ERR_MAX];
    char sha256[DIGEST_HEX_SIZE];
    struct image image;
    char *dir = NULL;
    int ret = 0;

    if (spec->image) {
        ret = image_find(spec->image, &dir, err, sizeof(err));
        if (ret == 0)
            ret = image_open(dir, &image, err, sizeof(err));
        free(dir);
        if (ret != 0) {
            failure_set(f, "image", spec->image, NULL, "%s", err);
            return ret;
        }
        ret = snapshot_image_digest(&image, sha256);
        if (ret == 0)
            ret = snapshot_same_image(&snapshot->manifest, snapshot->dir,
                                      image.name, sha256, f);
        else
            failure_set(f, "image", spec->image, NULL,
                        "cannot read the image %s: %s", spec->image,
                        strerror(-ret));
        image_fini(&image);
    }
    for (unsigned i = 0; ret == 0 && i < spec->disk_count; i++)
        ret = snapshot_override_base(snapshot, spec->disks[i].id,
                                     spec->disks[i].path, f);
    return ret;
}

void snapshot_limits_read(const struct options *options,
                          struct machine_spec *spec)
{
    spec->memory_allowed =
        options_has(options, "memory") ? spec->memory_bytes : 0;
    spec->cpus_allowed = options_has(options, "cpus") ? spec->cpu_count : 0;
    if (!options_has(options, "disk-limit"))
        spec->disk_limit = 0;
}

void snapshot_limits_told(const struct verb *verb,
                          const struct machine *machine,
                          struct machine_spec *spec)
{
    const struct vm_config *config = &machine->config;
    char has[32];

    units_format_size(config->memory_bytes, has, sizeof(has));
    if (spec->memory_allowed > config->memory_bytes)
        fprintf(stderr, "microsbx %s: the snapshot fixes the memory: %s\n",
                verb->name, has);
    if (spec->cpus_allowed > config->cpu_count)
        fprintf(stderr, "microsbx %s: the snapshot fixes the CPUs: %u\n",
                verb->name, config->cpu_count);
    spec->memory_bytes = config->memory_bytes;
    spec->cpu_count = config->cpu_count;
    for (uint32_t i = 0; i < config->disk_count; i++) {
        if (config->disks[i].mode == VM_DISK_COW)
            spec->disk_limit = config->disks[i].overlay_limit;
    }
    if (spec->disk_limit == 0) /* it has no such disk */
        spec->disk_limit = MACHINE_DISK_LIMIT_DEFAULT;
    spec->disk_lowered = machine->disk_lowered;
    if (!spec->disk_lowered)
        return;
    units_format_size(spec->disk_limit, has, sizeof(has));
    fprintf(stderr,
            "microsbx %s: a disk may be changed by %s: the snapshot asks for "
            "more, and was not made here; --disk-limit allows it\n",
            verb->name, has);
}

static int check_manifest(const struct options *options,
                          const struct snapshot_source *source,
                          struct failure *f)
{
    const struct snapshot *snapshot = source->snapshot;
    bool no_agent = options_has(options, "no-agent");

    if (source->restore.pinned && !snapshot->manifest.pinned) {
        failure_set(f, "snapshot_not_pinnable", snapshot->dir,
                    "make it with snapshot create --pinnable",
                    "cannot pin a trial from the snapshot %s: its guest may "
                    "draw randomness from the CPU",
                    snapshot->dir);
        return -EINVAL;
    }
    if (snapshot->manifest.agent != !no_agent) {
        failure_set(f, "usage", snapshot->dir,
                    no_agent ? "leave out --no-agent" : "add --no-agent",
                    no_agent ? "the guest of the snapshot %s has an agent"
                             : "the guest of the snapshot %s has no agent",
                    snapshot->dir);
        return -EINVAL;
    }
    return 0;
}

static bool was_cancelled(void *ctx)
{
    const struct snapshot_source *source = ctx;

    return cli_signal_pending(source->signal_fd);
}

int snapshot_source_open(const struct options *options, bool has_command,
                         struct machine_spec *spec,
                         struct snapshot_source *source, struct failure *f)
{
    struct snapshot_open_options open_options = {.cancelled = was_cancelled,
                                                 .ctx = source};
    const char *dir = options_get(options, "snapshot");
    const char *reset = options_get(options, "reset");
    struct snapshot_places places;
    int ret;

    if (!dir)
        return check_alone(options, f);
    ret = check_fixed(options, f);
    if (ret == 0 && reset && strcmp(reset, "process") != 0 &&
        strcmp(reset, "in-place") != 0)
        ret = fail_option("reset", "use process or in-place", f,
                          "has no such value");
    source->in_place = reset && !strcmp(reset, "in-place");
    if (ret == 0)
        ret = read_pinned(options, &source->restore, f);
    if (ret == 0)
        ret = snapshot_check_read(options, &open_options.check, f);
    /* The monitor proves memory and registers; the disks are the check's. */
    if (ret == 0 && options_has(options, "prove") &&
        (open_options.check == SNAPSHOT_CHECK_SAMPLED ||
         open_options.check == SNAPSHOT_CHECK_NONE))
        ret = fail_option("prove", "leave out --check, or give --check full", f,
                          "needs a full check: it covers the disks, too");
    if (ret != 0)
        return ret;
    snapshot_places_read(options, &places, &open_options);
    open_options.many = options_has(options, "repeat");
    open_options.seal_max =
        open_options.many ? SNAPSHOT_SEAL_MANY : SNAPSHOT_SEAL_ONCE;
    ret = snapshot_open(dir, &open_options, &source->snapshot, f);
    if (ret != 0)
        return ret;
    source->restore.snapshot = source->snapshot;
    source->restore.prove = options_has(options, "prove");
    ret = check_manifest(options, source, f);
    if (ret == 0)
        ret = read_workload(options, has_command, source, f);
    if (ret == 0)
        ret = check_request(spec, source->snapshot, f);
    snapshot_limits_read(options, spec);
    spec->memory_bytes = source->snapshot->manifest.memory_bytes;
    spec->cpu_count = source->snapshot->manifest.cpus;
    return ret;
}

int snapshot_source_check_host(const struct snapshot_source *source, int kvm_fd,
                               struct failure *f)
{
    const struct snapshot_manifest *m = &source->snapshot->manifest;
    struct snapshot_host host;
    struct monitor_probe probe;
    int ret = m->agent ? fitness_probe(kvm_fd, &probe, f)
                       : fitness_probe_cpu(kvm_fd, &probe, f);

    if (ret == 0 && m->agent && !fitness_judge(&probe, f))
        ret = -ENODEV;
    if (ret != 0)
        return ret;
    snapshot_host_init(&host, &probe);
    return snapshot_compatible(m, source->snapshot->dir, &host, f);
}
