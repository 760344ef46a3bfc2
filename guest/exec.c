/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an exec; see the header, and exec_wait.c for the rest of it. */
#include "guest/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "guest/child.h"
#include "guest/sysfile.h"

#define KILL_POLL_MS 5u /* between looks at a dying cgroup */

/* Ends of the three pipes (or one terminal) while an exec is being forked. */
struct exec_ends {
    int child[3]; /* for the child; closed here after the fork */
    int mine[3];  /* ours, non-blocking; stdin's writing end first */
};

/* ---- descriptors -------------------------------------------------------- */

static void ends_init(struct exec_ends *e)
{
    for (size_t i = 0; i < 3; i++) {
        e->child[i] = -1;
        e->mine[i] = -1;
    }
}

static void ends_close(struct exec_ends *e)
{
    for (size_t i = 0; i < 3; i++) {
        sysfile_close(&e->child[i]);
        sysfile_close(&e->mine[i]);
    }
}

/* A pipe whose end `mine` does not block; the child's end does. */
static int make_pipe(struct exec_ends *e, size_t i, int mine)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    e->mine[i] = fds[mine];
    e->child[i] = fds[!mine];
    if (fcntl(e->mine[i], F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

static int make_pipes(struct exec_ends *e, uint32_t flags)
{
    int ret = make_pipe(e, 1, 0);

    if (ret == 0)
        ret = make_pipe(e, 2, 0);
    if (ret)
        return ret;
    if (flags & PROTO_EXEC_STDIN)
        return make_pipe(e, 0, 1);
    /* The agent's own /dev/null: the sandbox's may be gone. */
    e->child[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return e->child[0] < 0 ? -errno : 0;
}

static int set_winsize(int fd, uint16_t rows, uint16_t cols)
{
    struct winsize size = {.ws_row = rows, .ws_col = cols};

    return ioctl(fd, TIOCSWINSZ, &size) < 0 ? -errno : 0;
}

/* One terminal for all three; `mine` are the master and its copies. */
static int make_terminal(struct exec_ends *e, const struct sandbox *sandbox,
                         const struct proto_exec_open *request, int *ret_tty)
{
    int ret = sandbox_open_pty(sandbox, &e->mine[1], &e->child[0]);

    if (ret)
        return ret;
    e->child[1] = fcntl(e->child[0], F_DUPFD_CLOEXEC, 0);
    e->child[2] = fcntl(e->child[0], F_DUPFD_CLOEXEC, 0);
    *ret_tty = fcntl(e->mine[1], F_DUPFD_CLOEXEC, 0);
    if (request->flags & PROTO_EXEC_STDIN)
        e->mine[0] = fcntl(e->mine[1], F_DUPFD_CLOEXEC, 0);
    if (e->child[1] < 0 || e->child[2] < 0 || *ret_tty < 0 ||
        ((request->flags & PROTO_EXEC_STDIN) && e->mine[0] < 0))
        return -EMFILE;
    if (request->rows && request->cols)
        return set_winsize(e->mine[1], request->rows, request->cols);
    return 0;
}

/* ---- start -------------------------------------------------------------- */

static void exec_fail(struct handle *h, uint32_t reason, int err)
{
    h->failure.reason = reason;
    h->failure.err = (uint32_t)err;
    h->state = HANDLE_DRAIN;
    h->kill_ms = sysfile_now_ms() + EXEC_KILL_MS;
    inlet_shut(&h->in);
}

void exec_open(struct handle *h, struct agent *agent, uint32_t id,
               const struct proto_exec_open *request)
{
    h->kind = HANDLE_EXEC;
    h->state = HANDLE_COLLECT;
    h->id = id;
    h->warm = (request->flags & PROTO_EXEC_WARM) != 0;
    if (request->flags & PROTO_EXEC_STDIN)
        inlet_expect(&h->in);
    h->strings = malloc(request->argv_bytes + request->env_bytes);
    h->request = malloc(sizeof(*h->request));
    if (h->request)
        *h->request = *request;
    if (!h->strings || !h->request)
        exec_fail(h, PROTO_FAIL_SYSTEM, ENOMEM);
    else if (!(agent->features & PROTO_FEATURE_ROOT))
        exec_fail(h, PROTO_FAIL_NO_ROOT, ENODEV);
}

/*
 * An array over `bytes` of NUL-terminated strings, of which there must be
 * exactly `count`; ret_list has room for count + 1 pointers.
 */
static int split_strings(const char *text, size_t bytes, size_t count,
                         const char **ret_list)
{
    const char *end = text + bytes;
    size_t found = 0;

    while (text < end) {
        const char *nul = memchr(text, '\0', (size_t)(end - text));

        if (!nul || found == count)
            return -EBADMSG;
        ret_list[found++] = text;
        text = nul + 1;
    }
    ret_list[found] = NULL;
    return found == count ? 0 : -EBADMSG;
}

/* Forks with everything prepared; takes the ends over in any case. */
static int exec_fork(struct handle *h, struct agent *agent, struct exec_ends *e,
                     const char *const *argv, const char *const *env)
{
    struct child_exec spec = {
        .argv = argv,
        .env = env,
        .user = h->request->user,
        .cwd = h->request->cwd,
        .flags = h->request->flags,
        .fds = {e->child[0], e->child[1], e->child[2]},
    };
    pid_t pid;
    int ret = spec.procs_fd = cgroup_open_procs(h->cgroup.fd);

    if (ret < 0)
        goto out_ends;
    pid = child_spawn(&agent->sandbox, &spec, &h->report_fd);
    close(spec.procs_fd);
    ret = pid < 0 ? pid : 0;
    if (ret)
        goto out_ends;
    h->pid = pid;
    outlet_init(&h->out[0], e->mine[1]);
    outlet_init(&h->out[1], e->mine[2]);
    e->mine[1] = e->mine[2] = -1;
    if (e->mine[0] >= 0) {
        ret =
            inlet_open(&h->in, e->mine[0], h->request->flags & PROTO_EXEC_TTY);
        if (ret == 0)
            e->mine[0] = -1;
    }
out_ends:
    ends_close(e);
    return ret;
}

static int exec_prepare(struct handle *h, struct agent *agent,
                        const char *const *argv, const char *const *env)
{
    const struct proto_exec_open *request = h->request;
    struct exec_ends e;
    int ret;

    ends_init(&e);
    ret = sandbox_ensure(&agent->sandbox);
    if (ret)
        return ret;
    ret = cgroup_create(&agent->cgroups, request->memory_max, request->pids_max,
                        &h->cgroup);
    if (ret)
        return ret;
    if (request->flags & PROTO_EXEC_TTY)
        ret = make_terminal(&e, &agent->sandbox, request, &h->tty_fd);
    else
        ret = make_pipes(&e, request->flags);
    if (ret) {
        ends_close(&e);
        return ret;
    }
    return exec_fork(h, agent, &e, argv, env);
}

/* All strings are here: 0 (started, or failed as a state), or -EBADMSG. */
static int exec_start(struct handle *h, struct agent *agent)
{
    const struct proto_exec_open *request = h->request;
    const char **argv = calloc(request->argc + 1u, sizeof(*argv));
    const char **env = calloc(request->envc + 1u, sizeof(*env));
    int ret = -ENOMEM;

    h->started_ms = sysfile_now_ms();
    if (!argv || !env)
        goto out_free;
    ret = split_strings(h->strings, request->argv_bytes, request->argc, argv);
    if (ret == 0)
        ret = split_strings(h->strings + request->argv_bytes,
                            request->env_bytes, request->envc, env);
    if (ret)
        goto out_free;
    h->state = HANDLE_START;
    h->note_pids = (request->flags & PROTO_EXEC_NOTE_PIDS) != 0;
    h->end_disk = (request->flags & PROTO_EXEC_END_DISK) != 0;
    h->leave = (request->flags & PROTO_EXEC_LEAVE) != 0;
    if (request->timeout_ms &&
        request->timeout_ms < HANDLE_NO_TIME - h->started_ms)
        h->deadline_ms = h->started_ms + request->timeout_ms;
    ret = exec_prepare(h, agent, argv, env);
out_free:
    free(argv);
    free(env);
    if (ret == -EBADMSG)
        return ret;
    if (ret) {
        exec_fail(h, PROTO_FAIL_SYSTEM, -ret);
        handle_kill(h);
    }
    free(h->strings);
    free(h->request);
    h->strings = NULL;
    h->request = NULL;
    return 0;
}

int exec_strings(struct handle *h, struct agent *agent, const void *bytes,
                 size_t len)
{
    size_t total;

    if (h->kind != HANDLE_EXEC)
        return -EBADMSG;
    /* It failed already, and the host cannot know yet. */
    if (h->failure.reason)
        return 0;
    if (h->state != HANDLE_COLLECT)
        return -EBADMSG;
    total = (size_t)h->request->argv_bytes + h->request->env_bytes;
    if (len > total - h->strings_used)
        return -EBADMSG;
    memcpy(h->strings + h->strings_used, bytes, len);
    h->strings_used += len;
    return h->strings_used == total ? exec_start(h, agent) : 0;
}

/* ---- frames for a running one ------------------------------------------- */

int exec_signal(struct handle *h, uint32_t signo)
{
    if (h->kind != HANDLE_EXEC || signo < 1 || signo > 64)
        return -EBADMSG;
    if (signo == SIGKILL)
        handle_kill(h);
    else if (h->pid > 0 && !h->reaped)
        kill(h->pid, (int)signo);
    return 0;
}

int exec_winsize(struct handle *h, uint16_t rows, uint16_t cols)
{
    if (h->kind != HANDLE_EXEC)
        return -EBADMSG;
    /* Setting it signals SIGWINCH to the terminal's foreground group. */
    if (h->tty_fd >= 0)
        (void)!set_winsize(h->tty_fd, rows, cols);
    return 0;
}

void exec_cancel(struct handle *h)
{
    if (h->state == HANDLE_COLLECT) {
        exec_fail(h, PROTO_FAIL_SYSTEM, ECANCELED);
        return;
    }
    h->exit_flags |= PROTO_EXIT_CANCELLED;
    h->leave = false;
    handle_kill(h);
}

/* ---- stepping ----------------------------------------------------------- */

/* Anything in the report pipe means that execve was not reached. */
static void read_report(struct handle *h, struct conn *conn)
{
    struct child_failure failure;
    struct proto_writer w;
    ssize_t n;

    /* STARTED is owed if it went well: have the room before asking. */
    if (conn && !handle_has_room(conn))
        return;
    n = read(h->report_fd, &failure, sizeof(failure));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    sysfile_close(&h->report_fd);
    if (n == (ssize_t)sizeof(failure)) {
        exec_fail(h, failure.reason, (int)failure.err);
        handle_kill(h);
        return;
    }
    h->state = HANDLE_RUN;
    if (!conn)
        return;
    w = conn_writer(conn);
    proto_put_empty(&w, PROTO_EXEC_STARTED, h->id);
    conn_commit(conn, &w);
}

/* A fork was refused: that ends the exec, unless it is only to be noted. */
static void sample_pids(struct handle *h, const struct agent *agent)
{
    struct cgroup_usage usage;

    if (!agent->cgroups.has_pids || h->note_pids || h->reaped)
        return;
    cgroup_read_usage_since(&h->cgroup, &h->before, &usage);
    if (usage.pids_hits)
        handle_kill(h);
}

/* A full disk may be empty again at the end: remember having seen it. */
static void sample_disk(struct handle *h, const struct agent *agent)
{
    if (!scratch_is_full(&agent->scratch))
        return;
    h->exit_flags |= PROTO_EXIT_DISK_FULL;
    if (h->end_disk && !h->reaped)
        handle_kill(h);
}

static void sample(struct handle *h, const struct agent *agent, uint64_t now_ms)
{
    sample_disk(h, agent);
    sample_pids(h, agent);
    h->sample_ms = now_ms + EXEC_SAMPLE_MS;
}

static void check_deadline(struct handle *h, uint64_t now_ms)
{
    if (now_ms < h->deadline_ms || h->reaped)
        return;
    h->deadline_ms = HANDLE_NO_TIME;
    h->exit_flags |= PROTO_EXIT_TIMED_OUT;
    h->leave = false;
    handle_kill(h);
}

static void step_run(struct handle *h, const struct agent *agent,
                     uint64_t now_ms)
{
    if (!handle_is_waiting(h) &&
        (h->sample_ms == HANDLE_NO_TIME || now_ms >= h->sample_ms || h->reaped))
        sample(h, agent, now_ms);
    check_deadline(h, now_ms);
    if (!h->reaped)
        return;
    h->ended_ms = now_ms;
    h->state = HANDLE_DRAIN;
    h->drain_ms = now_ms + EXEC_DRAIN_MS;
    h->kill_ms = now_ms + EXEC_KILL_MS;
    /* What its killing leaves for a moment is not worth a word. */
    if (cgroup_is_populated(&h->cgroup) &&
        !(h->exit_flags & (PROTO_EXIT_TIMED_OUT | PROTO_EXIT_CANCELLED)))
        h->exit_flags |= PROTO_EXIT_LEFTOVERS;
    if (!h->leave)
        handle_kill(h);
    inlet_shut(&h->in);
}

static void pump_output(struct handle *h, struct conn *conn, uint64_t now_ms)
{
    /* What is being killed takes its time to let go of the pipes: a large
       process must be torn down first. Bounded by kill_ms. */
    if (h->state == HANDLE_DRAIN && now_ms < h->kill_ms && !h->leave &&
        cgroup_is_populated(&h->cgroup))
        h->drain_ms = now_ms + EXEC_DRAIN_MS;
    for (size_t i = 0; i < 2; i++) {
        uint32_t stream = i == 0 ? PROTO_STDOUT : PROTO_STDERR;

        if (h->out[i].fd < 0)
            continue;
        (void)!outlet_pump(&h->out[i], conn, h->id, stream);
        /* Waiting for the host is not waiting for the workload. */
        if (h->state == HANDLE_DRAIN && !outlet_can_read(&h->out[i], conn))
            h->drain_ms = now_ms + EXEC_DRAIN_MS;
    }
}

/* True if nothing of the exec is left, or waiting for it has lasted enough. */
static bool is_cleared(struct handle *h, bool output, uint64_t now_ms)
{
    if (h->pid > 0 && !h->reaped)
        return false;
    if (!h->leave && cgroup_is_populated(&h->cgroup)) {
        if (now_ms < h->kill_ms)
            return false;
        h->exit_flags |= PROTO_EXIT_UNKILLED;
    }
    if (output && (h->out[0].fd >= 0 || h->out[1].fd >= 0)) {
        if (now_ms < h->drain_ms)
            return false;
        h->exit_flags |= PROTO_EXIT_UNDRAINED;
    }
    return true;
}

static void put_exit(const struct handle *h, struct proto_writer *w)
{
    struct proto_exec_exit m = {
        .flags = h->exit_flags,
        .wall_ms = h->ended_ms - h->started_ms,
        .stdin_bytes = h->in.bytes,
        .stdout_bytes = h->out[0].bytes,
        .stderr_bytes = h->out[1].bytes,
    };
    struct cgroup_usage usage;

    cgroup_read_usage_since(&h->cgroup, &h->before, &usage);
    if (WIFSIGNALED(h->wait_status))
        m.signal = (uint32_t)WTERMSIG(h->wait_status);
    else
        m.code = (uint32_t)WEXITSTATUS(h->wait_status);
    m.oom_kills = usage.oom_kills;
    m.pids_hits = usage.pids_hits;
    m.cpu_us = usage.cpu_us;
    m.user_us = usage.user_us;
    m.system_us = usage.system_us;
    m.memory_peak = usage.memory_peak;
    if (usage.oom_kills)
        m.flags |= PROTO_EXIT_OOM;
    if (usage.pids_hits)
        m.flags |= PROTO_EXIT_PIDS;
    proto_put_exec_exit(w, h->id, &m);
}

/* The last frame and the cgroup's end. */
static bool finish(struct handle *h, struct agent *agent, struct conn *conn)
{
    if (conn) {
        struct proto_writer w;

        if (!handle_has_room(conn))
            return false;
        w = conn_writer(conn);
        if (h->failure.reason)
            proto_put_exec_failed(&w, h->id, &h->failure);
        else
            put_exit(h, &w);
        conn_commit(conn, &w);
    }
    /* One too many to be left is not: what lives in it is killed. */
    if (h->leave && cgroup_remove(&agent->cgroups, &h->cgroup) != 0 &&
        cgroup_leave(&agent->cgroups, &h->cgroup) != 0)
        handle_kill(h);
    (void)!cgroup_remove(&agent->cgroups, &h->cgroup);
    return true;
}

bool exec_step(struct handle *h, struct agent *agent, struct conn *conn,
               uint64_t now_ms)
{
    bool output = conn && !h->failure.reason;

    if (h->state == HANDLE_COLLECT)
        return !conn;
    if (h->state == HANDLE_START) {
        check_deadline(h, now_ms);
        read_report(h, conn);
    }
    if (h->state == HANDLE_START)
        return false;
    inlet_pump(&h->in);
    if (h->state == HANDLE_RUN)
        step_run(h, agent, now_ms);
    if (output && !h->failure.reason)
        pump_output(h, conn, now_ms);
    for (size_t i = 0; handle_is_unheard(h) && i < 2; i++)
        outlet_drop(&h->out[i]);
    if (conn)
        inlet_give_credit(&h->in, conn, h->id, PROTO_STDIN);
    if (h->state != HANDLE_DRAIN)
        return false;
    output = conn && !h->failure.reason;
    if (!is_cleared(h, output, now_ms) || handle_is_waiting(h))
        return false;
    return finish(h, agent, conn);
}

uint64_t exec_due_ms(const struct handle *h, uint64_t now_ms)
{
    uint64_t due = HANDLE_NO_TIME;

    if (h->state == HANDLE_RUN || h->state == HANDLE_START) {
        due = h->deadline_ms;
        if (h->sample_ms < due)
            due = h->sample_ms;
    } else if (handle_is_waiting(h)) {
        due = HANDLE_NO_TIME;
    } else if (h->state == HANDLE_DRAIN && !h->leave &&
               cgroup_is_populated(&h->cgroup)) {
        due = now_ms + KILL_POLL_MS; /* nothing wakes us when it empties */
    } else if (h->state == HANDLE_DRAIN &&
               (h->out[0].fd >= 0 || h->out[1].fd >= 0)) {
        due = h->drain_ms;
    }
    return due;
}
