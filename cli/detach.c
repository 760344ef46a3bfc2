/* SPDX-License-Identifier: Apache-2.0 */
/* Long-lived machines are started here; see the header. */
#include "cli/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/io.h"
#include "base/msg.h"
#include "base/standard_fds.h"
#include "trial/keeper_proto.h"
#include "trial/live_watch.h"
#include "trial/process_look.h"

#define TTL_DEFAULT_MS (24ull * 3600 * 1000)
#define TTL_MAX_MS (365ull * 24 * 3600 * 1000)
#define STARTER_FD 3
/* Beside KEEPER_STARTED: it will not start, and why. */
#define DETACH_FAILED 1000u

static const struct option_spec SPECS[] = {
    {"detach", 'd', NULL, false,
     "Start a long-lived machine in the background, print its name once it "
     "answers, and leave it. Without a COMMAND it waits for microsbx exec; "
     "with one it ends when the command does."},
    {"name", 0, "NAME", false,
     "Its name: 1 to 64 letters, digits, '.', '_' or '-', no leading dot. "
     "Default: one is made."},
    {"ttl", 0, "DURATION", false,
     "How long it may live, from the moment it answers; then it is stopped "
     "and kept as expired until microsbx rm. Default 24h."},
    {NULL, 0, NULL, false, NULL},
};

const struct option_group DETACH_OPTIONS = {"Long-lived machines", SPECS};

/* ---- options ---- */

static int fail_with_detach(const char *option, const char *remedy,
                            struct failure *f)
{
    failure_set(f, "usage", option, remedy, "option --%s does not go with -d",
                option);
    return -EINVAL;
}

/* What only makes sense for a command that somebody waits for. */
static int check_others(const struct options *options, struct failure *f)
{
    static const struct {
        const char *option, *remedy;
    } OTHERS[] = {
        {"interactive", "give it with microsbx exec"},
        {"tty", "give it with microsbx exec"},
        {"json", "microsbx wait --json has the result"},
        {"exit-code", "microsbx wait has the status"},
        {"stdout", "microsbx logs has the output"},
        {"stderr", "microsbx logs has the output"},
        {"events", NULL},
        {"rm", "microsbx rm removes it when it has ended"},
        {"send", "give input with microsbx exec -i"},
    };

    for (size_t i = 0; i < sizeof(OTHERS) / sizeof(OTHERS[0]); i++) {
        if (options_has(options, OTHERS[i].option))
            return fail_with_detach(OTHERS[i].option, OTHERS[i].remedy, f);
    }
    return 0;
}

static int read_name(const struct options *options, struct detach *ret,
                     struct failure *f)
{
    const char *name = options_get(options, "name");

    if (!name) {
        registry_make_name(ret->name);
        return 0;
    }
    if (!registry_name_is_valid(name)) {
        failure_set(f, "usage", "name",
                    "give 1 to 64 letters, digits, '.', '_' or '-', no "
                    "leading dot",
                    "option --name: the name is not valid");
        return -EINVAL;
    }
    strcpy(ret->name, name);
    return 0;
}

int detach_read(const struct options *options, struct detach *ret,
                struct failure *f)
{
    const char *alone = options_has(options, "name")  ? "name"
                        : options_has(options, "ttl") ? "ttl"
                                                      : NULL;
    int error;

    ret->starter_fd = ret->out_fd = ret->err_fd = -1;
    ret->wanted = options_has(options, "detach");
    if (!ret->wanted && !alone)
        return 0;
    if (!ret->wanted) {
        failure_set(f, "usage", alone, "add -d",
                    "option --%s is for long-lived machines", alone);
        return -EINVAL;
    }
    ret->ttl_ms = TTL_DEFAULT_MS;
    error = check_others(options, f);
    if (error == 0)
        error = read_name(options, ret, f);
    if (error == 0)
        error = options_get_duration_ms(options, "ttl", &ret->ttl_ms, f);
    if (error == 0 && (ret->ttl_ms == 0 || ret->ttl_ms > TTL_MAX_MS)) {
        failure_set(f, "usage", "ttl", "give at most 8760h",
                    "option --ttl: the machine would %s",
                    ret->ttl_ms == 0 ? "end at once" : "live too long");
        error = -EINVAL;
    }
    return error;
}

/* ---- the word between keeper and starter ---- */

static void send_failure(int fd, const struct trial_result *result)
{
    const struct failure *f = &result->failure;
    uint8_t buf[MSG_PAYLOAD_MAX];
    struct state_writer w;

    state_writer_init(&w, buf, sizeof(buf));
    state_put_u32(
        &w, (uint32_t)outcome_exit_status(&result->outcome, &result->facts));
    state_put_string(&w, f->code);
    state_put_string(&w, f->object);
    state_put_string(&w, f->message);
    state_put_string(&w, f->remedy);
    state_put_bytes(&w, result->console, result->console_len);
    /* A starter that left is not told. */
    if (w.error == 0)
        (void)!msg_send(fd, DETACH_FAILED, buf, w.used, NULL, 0);
}

/* Says why, as `run` would have; the status to exit with. */
static int report_failure(const struct verb *verb, const struct msg *m)
{
    struct failure f = {0};
    struct state_reader r;
    uint32_t status;

    state_reader_init(&r, m->payload, m->len);
    status = state_get_u32(&r);
    state_get_string(&r, f.code, sizeof(f.code));
    state_get_string(&r, f.object, sizeof(f.object));
    state_get_string(&r, f.message, sizeof(f.message));
    state_get_string(&r, f.remedy, sizeof(f.remedy));
    if (r.error != 0 || status > 255) {
        failure_set(&f, "keeper_lied", "", NULL,
                    "the keeper said what cannot be read");
        return cli_fail(verb, &f);
    }
    if (!failure_is_set(&f))
        failure_set(&f, "machine_ended", "", NULL,
                    "the machine ended before it could be used");
    cli_fail(verb, &f);
    cli_show_console(m->payload + r.used, m->len - r.used);
    return (int)status;
}

/* ---- the two processes ---- */

/* As msg_receive; -EHOSTDOWN: it was stopped, and for longer than a moment. */
static int receive_from(pid_t pid, int fd, struct msg *m)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    unsigned stopped_ms = 0;
    int n = 0, ret;

    while (n <= 0) {
        n = poll(&p, 1, LIVE_LOOK_MS);
        if (n < 0 && errno != EINTR)
            return -errno;
        stopped_ms = n == 0 && process_look(pid, 0) == PROCESS_STOPPED
                         ? stopped_ms + LIVE_LOOK_MS
                         : 0;
        if (stopped_ms > LIVE_STOPPED_MS)
            return -EHOSTDOWN;
    }
    do {
        ret = msg_receive(fd, m);
    } while (ret == -EINTR);
    return ret;
}

static int wait_for_keeper(const struct detach *d, const struct verb *verb,
                           pid_t pid, int fd)
{
    static struct msg m; /* large; this process starts one machine */
    bool progress = cli_is_terminal(stderr);
    struct failure f = {0};
    int ret;

    if (progress)
        fputs("booting the machine ...", stderr);
    ret = receive_from(pid, fd, &m);
    if (progress)
        fputs("\r\033[K", stderr);
    if (ret == -EHOSTDOWN) {
        kill(pid, SIGKILL); /* our child, not waited for yet */
        failure_set(&f, "keeper_stopped", d->name,
                    "microsbx rm removes what is left of it",
                    "the keeper of the machine %s (process %d) was stopped "
                    "(SIGSTOP) before it answered; it was killed",
                    d->name, (int)pid);
        return cli_fail(verb, &f);
    }
    if (ret == 1 && m.type == KEEPER_STARTED) {
        printf("%s\n", d->name);
        if (fflush(stdout) == 0)
            return 0;
        failure_set(&f, "output_failed", "standard output", NULL,
                    "the machine %s runs, but its name cannot be written: %s",
                    d->name, strerror(errno));
        cli_fail(verb, &f);
        return EXIT_UNDELIVERED;
    }
    if (ret == 1 && m.type == DETACH_FAILED)
        return report_failure(verb, &m);
    failure_set(&f, "keeper_died", "",
                "microsbx ps tells whether something of it is left",
                "the keeper of the machine %s died before it answered",
                d->name);
    return cli_fail(verb, &f);
}

/* In the child: nothing of the caller's stays but its folder and environment.
 */
static void become_keeper(struct detach *d, int fd)
{
    setsid();
    /* Else the starter says that its keeper died. */
    if ((fd != STARTER_FD && dup2(fd, STARTER_FD) != STARTER_FD) ||
        standard_fds_set_null() != 0 ||
        close_range(STARTER_FD + 1, ~0u, 0) != 0 ||
        fcntl(STARTER_FD, F_SETFD, FD_CLOEXEC) != 0)
        _exit(EXIT_INFRA);
    d->starter_fd = STARTER_FD;
}

int detach_fork(struct detach *d, const struct verb *verb)
{
    struct failure f = {0};
    int pair[2];
    pid_t pid;
    int status;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        failure_set(&f, "host", "socketpair", failure_remedy(errno, NULL),
                    "cannot start: %s", strerror(errno));
        return cli_fail(verb, &f);
    }
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        become_keeper(d, pair[1]);
        return -1;
    }
    close(pair[1]);
    if (pid < 0) {
        failure_set(&f, "host", "fork", "free processes or memory",
                    "cannot start: %s", strerror(errno));
        close(pair[0]);
        return cli_fail(verb, &f);
    }
    status = wait_for_keeper(d, verb, pid, pair[0]);
    close(pair[0]);
    /* One that failed is gone when its caller hears of it. */
    if (status != 0 && status != EXIT_UNDELIVERED)
        waitpid(pid, NULL, 0);
    return status;
}

/* ---- the keeper's side ---- */

static int create_output(const struct keeper *k, const char *name, int *ret_fd,
                         struct failure *f)
{
    *ret_fd = openat(keeper_entry(k)->dir_fd, name,
                     O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (*ret_fd >= 0)
        return 0;
    failure_set(f, "host", name, failure_remedy(errno, NULL),
                "cannot make the file for the command's output: %s",
                strerror(errno));
    return -errno;
}

/* Vsock's path as others will find it, wherever they are. */
static void set_vsock(struct machine_record *record, const char *path)
{
    char here[400] = "";

    if (!path)
        return;
    if (path[0] != '/' && !getcwd(here, sizeof(here)))
        return;
    snprintf(record->vsock, sizeof(record->vsock), "%s%s%.107s", here,
             here[0] ? "/" : "", path);
}

int detach_take_name(struct detach *d, const struct machine_spec *machine,
                     struct trial_spec *spec, struct failure *f)
{
    struct registry_entry entry;
    struct machine_record record = {
        .protocol = KEEPER_PROTO_VERSION,
        .state = MACHINE_STARTING,
        .created_at = (int64_t)time(NULL),
        .ttl_ms = d->ttl_ms,
        .keeper = getpid(),
        .keeper_start = process_start_ticks(getpid()),
        .memory_bytes = machine->memory_bytes,
        .disk_limit = machine->disk_limit < INT64_MAX ? machine->disk_limit
                                                      : (uint64_t)INT64_MAX,
        .cpu_count = (uint32_t)machine->cpu_count,
    };
    struct keeper_setup setup = {
        .entry = &entry, .record = &record, .starter_fd = d->starter_fd};
    int ret;

    strcpy(record.name, d->name);
    machine_record_command(record.command, spec->argv);
    set_vsock(&record, machine->vsock_path);
    ret = registry_create(d->name, &entry, f);
    if (ret == 0)
        ret = keeper_new(&setup, &d->keeper, f);
    if (ret == 0)
        ret = create_output(d->keeper, "stdout", &d->out_fd, f);
    if (ret == 0)
        ret = create_output(d->keeper, "stderr", &d->err_fd, f);
    if (ret != 0)
        return ret;
    spec->out = (struct trial_sink){.fd = d->out_fd};
    spec->err = (struct trial_sink){.fd = d->err_fd};
    spec->keeper = d->keeper;
    return 0;
}

int detach_set_machine(struct detach *d, const struct machine *machine,
                       const struct snapshot *snapshot, struct failure *f)
{
    struct machine_record *record = keeper_record(d->keeper);
    const char *name = NULL, *sha256 = "";

    record->memory_bytes = machine->config.memory_bytes;
    record->cpu_count = machine->config.cpu_count;
    for (uint32_t i = 0; snapshot && i < machine->config.disk_count; i++) {
        if (machine->config.disks[i].mode == VM_DISK_COW)
            record->disk_limit = machine->config.disks[i].overlay_limit;
    }
    if (snapshot) {
        const struct snapshot_manifest *m = &snapshot->manifest;

        snprintf(record->snapshot, sizeof(record->snapshot), "%s",
                 snapshot->id);
        name = m->has_image ? m->image_name : NULL;
        sha256 = m->disk_count > 0 ? m->disks[0].sha256 : "";
    } else if (machine->has_image) {
        name = machine->image.name;
        sha256 = machine->image.rootfs.sha256;
    }
    snprintf(record->image, sizeof(record->image), "%s", name ? name : "");
    snprintf(record->image_sha256, sizeof(record->image_sha256), "%s", sha256);
    return keeper_set_machine(d->keeper, machine, f);
}

void detach_finish(struct detach *d, const struct trial_result *result,
                   const char *line)
{
    bool started = d->keeper && keeper_was_ready(d->keeper);

    if (d->keeper)
        keeper_finish(d->keeper, result, line);
    if (!started)
        send_failure(d->starter_fd, result);
}

void detach_close(struct detach *d)
{
    if (!d->wanted)
        return;
    io_close(&d->out_fd);
    io_close(&d->err_fd);
    io_close(&d->starter_fd);
    keeper_free(d->keeper);
    d->keeper = NULL;
}
