/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One monitor process; see the header. Every message that comes in is hostile
 * once the guest runs: what does not decode makes the monitor GONE.
 */
#include "trial/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/io.h"
#include "base/msg.h"
#include "base/patience.h"
#include "base/signals.h"
#include "base/standard_fds.h"
#include "base/wary.h"
#include "trial/monitor_handle.h"

/* A slow host may take long to touch and load a large kernel. */
#define BUILD_TIMEOUT_MS 60000
#define PROBE_TIMEOUT_MS 60000
/* The host has only to take it apart; a call that waits for storage may hold
 * even that up, and must not hold us. */
#define KILL_TIMEOUT_MS 3000

/* The monitor program lies beside this one. */
static int find_program(char *buf, size_t size, struct failure *f)
{
    ssize_t n = readlink("/proc/self/exe", buf, size - 1);
    char *slash = NULL;

    if (n > 0) {
        buf[n] = '\0';
        slash = strrchr(buf, '/');
    }
    if (!slash || (size_t)(slash - buf) + sizeof("/microsbx-vmm") > size) {
        failure_set(f, "monitor_missing", "/proc/self/exe", "mount /proc",
                    "cannot find the folder of this program");
        return -ENOENT;
    }
    strcpy(slash, "/microsbx-vmm");
    if (access(buf, X_OK) != 0) {
        failure_set(f, "monitor_missing", buf,
                    errno == ENOENT ? "run make, or make install"
                                    : "make it executable for this user",
                    "cannot start the monitor %s: %s", buf, strerror(errno));
        return -ENOENT;
    }
    return 0;
}

/* In the child: only async-signal-safe calls; never returns. */
static void exec_monitor(const char *path, int sock, pid_t parent)
{
    char *const argv[] = {(char *)(uintptr_t) "microsbx-vmm", NULL};
    char *const envp[] = {NULL};
    sigset_t none;
    bool ready;

    /* Also one that is sent to both of us now: blocked so far, it is lost. */
    if (signals_ignore_group() != 0)
        _exit(127);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    /* Descriptor 3 may be anything here; dup2 onto itself keeps CLOEXEC. */
    if (sock == MONITOR_SOCKET_FD)
        ready = fcntl(sock, F_SETFD, 0) == 0;
    else
        ready = dup2(sock, MONITOR_SOCKET_FD) == MONITOR_SOCKET_FD;
    /* It runs with nothing of ours, or not at all. */
    if (ready && standard_fds_set_null() == 0 &&
        close_range(MONITOR_SOCKET_FD + 1, ~0u, 0) == 0)
        execve(path, argv, envp);
    _exit(127);
}

int monitor_spawn(struct monitor **ret_monitor, struct failure *f)
{
    struct monitor *m = calloc(1, sizeof(*m));
    char path[4096];
    int pair[2] = {-1, -1};
    pid_t parent = getpid();
    int ret = -ENOMEM;

    if (!m)
        return -ENOMEM;
    m->pid = -1;
    m->sock = -1;
    m->cancel_fd = -1;
    ret = find_program(path, sizeof(path), f);
    if (ret != 0)
        goto out_free;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        ret = -errno;
        failure_set(f, "host", "socketpair", failure_remedy(ret, NULL),
                    "cannot make a socketpair: %s", strerror(errno));
        goto out_free;
    }
    m->pid = fork();
    if (m->pid == 0)
        exec_monitor(path, pair[1], parent);
    if (m->pid < 0) {
        ret = -errno;
        monitor_fail_threads(f, ret, "the monitor");
        goto out_free;
    }
    close(pair[1]);
    m->sock = pair[0];
    wary_refuse_fds(m->sock);
    *ret_monitor = m;
    return 0;
out_free:
    io_close(&pair[0]);
    io_close(&pair[1]);
    free(m);
    return ret;
}

/* Waits for one message while nothing else is to do: 1, 0 (gone), -errno. */
static int receive_within(struct monitor *m, unsigned timeout_ms)
{
    struct patience patience = patience_of_ms(timeout_ms);
    struct pollfd p = {.fd = m->sock, .events = POLLIN};
    int n;

    do {
        n = patience_poll(&patience, &p, 1);
    } while (n == 0 && !patience_is_over(&patience));
    if (n <= 0)
        return n == 0 ? -ETIMEDOUT : n;
    return msg_receive_wary(m->sock, &m->msg);
}

bool monitor_is_stopped(const struct monitor *m)
{
    siginfo_t info = {0};

    /* Looked at only: its end is still there to be reaped. */
    return m->pid > 0 &&
           waitid(P_PID, (id_t)m->pid, &info, WSTOPPED | WNOHANG | WNOWAIT) ==
               0 &&
           info.si_pid == m->pid;
}

static void fail_gone(struct monitor *m, int error, struct failure *f)
{
    char how[64];

    if (error == -ETIMEDOUT && monitor_is_held(m, "before the guest ran", f))
        return;
    if (error == -ETIMEDOUT) {
        failure_set(f, "monitor_hangs", "microsbx-vmm", "try again",
                    "the monitor did not answer");
        return;
    }
    m->end = monitor_finish(m, 1000);
    monitor_end_describe(&m->end, how, sizeof(how));
    failure_set(f, "monitor_died", "microsbx-vmm",
                "run microsbx doctor; report this if the host is fit",
                "the monitor ended before the guest ran (%s)", how);
}

static int fail_send(struct monitor *m, int error, struct failure *f)
{
    if (error == -ENOMEM)
        failure_set(f, "host", "memory", NULL, "out of memory");
    else
        fail_gone(m, error, f);
    return error;
}

static int send_config(struct monitor *m, const struct vm_config *config)
{
    static const size_t SIZE = MSG_PAYLOAD_MAX;
    int fds[MSG_FDS_MAX];
    size_t len = 0, fd_count = 0;
    uint8_t *buf = malloc(SIZE);
    int ret = -ENOMEM;

    if (!buf)
        return ret;
    m->memory_bytes = config->memory_bytes;
    ret = vm_config_encode(config, buf, SIZE, &len, fds, &fd_count);
    if (ret == 0)
        ret = msg_send(m->sock, MONITOR_CONFIG, buf, len, fds, fd_count);
    free(buf);
    return ret;
}

static int wait_until_built(struct monitor *m,
                            const struct monitor_names *names,
                            struct failure *f)
{
    struct monitor_error error;
    int ret = receive_within(m, BUILD_TIMEOUT_MS);

    if (ret == 0)
        ret = -EPIPE;
    if (ret < 0) {
        fail_gone(m, ret, f);
        return ret;
    }
    if (m->msg.type == MONITOR_READY && m->msg.len == 0)
        /* From here on it may stop reading and must not stop us. */
        return io_set_nonblock(m->sock);
    if (m->msg.type == MONITOR_ERROR &&
        monitor_error_decode(m->msg.payload, m->msg.len, &error) == 0) {
        monitor_fail_refused(&error, names, f);
        return error.error != 0 ? error.error : -EINVAL;
    }
    failure_set(f, "monitor_lied", "microsbx-vmm", "rebuild both programs",
                "the monitor answered with a message of type %u", m->msg.type);
    return -EPROTO;
}

int monitor_build(struct monitor *m, const struct vm_config *config,
                  const struct monitor_names *names, struct failure *f)
{
    int ret = send_config(m, config);

    return ret == 0 ? wait_until_built(m, names, f) : fail_send(m, ret, f);
}

int monitor_build_and_start(struct monitor *m, const struct vm_config *config,
                            const struct monitor_names *names,
                            struct failure *f)
{
    int ret = send_config(m, config);

    if (ret != 0)
        return fail_send(m, ret, f);
    /* Read once the machine is built. One that cannot be built has said so. */
    (void)!monitor_start(m);
    return wait_until_built(m, names, f);
}

int monitor_await_running(struct monitor *m, uint64_t *ret_running_ns,
                          struct failure *f)
{
    struct monitor_event e;
    int ret = receive_within(m, BUILD_TIMEOUT_MS);

    if (ret <= 0) {
        ret = ret == 0 ? -EPIPE : ret;
        fail_gone(m, ret, f);
        return ret;
    }
    monitor_message_event(m, &e);
    if (e.kind == MONITOR_EVENT_EXIT &&
        e.exit.reason == MONITOR_EXIT_HOST_ERROR) {
        monitor_fail_host(&e.exit, f);
        return e.exit.error < 0 ? e.exit.error : -EIO;
    }
    if (e.kind != MONITOR_EVENT_RUNNING || e.running_ns > io_now_ns()) {
        m->end.lied = true;
        failure_set(f, "monitor_lied", "microsbx-vmm", "rebuild both programs",
                    "the monitor did not say that the guest runs");
        return -EPROTO;
    }
    *ret_running_ns = e.running_ns;
    return 0;
}

int monitor_probe(struct monitor *m, int kvm_fd, enum monitor_probe_depth depth,
                  struct monitor_probe *ret_probe, struct failure *f)
{
    struct state_writer w;
    uint8_t payload[4];
    int ret;

    state_writer_init(&w, payload, sizeof(payload));
    state_put_u32(&w, depth);
    ret = msg_send(m->sock, MONITOR_PROBE, payload, w.used, &kvm_fd, 1);
    if (ret == 0) {
        ret = receive_within(m, PROBE_TIMEOUT_MS);
        if (ret == 0)
            ret = -EPIPE;
    }
    if (ret < 0) {
        fail_gone(m, ret, f);
        return ret;
    }
    if (m->msg.type != MONITOR_PROBE_RESULT ||
        monitor_probe_decode(m->msg.payload, m->msg.len, ret_probe) != 0) {
        failure_set(f, "monitor_lied", "microsbx-vmm", "rebuild both programs",
                    "the monitor's probe answer cannot be read");
        return -EPROTO;
    }
    return 0;
}

int monitor_start(struct monitor *m)
{
    return msg_send(m->sock, MONITOR_START, NULL, 0, NULL, 0);
}

int monitor_stop(struct monitor *m)
{
    return msg_send(m->sock, MONITOR_STOP, NULL, 0, NULL, 0);
}

int monitor_request_stats(struct monitor *m)
{
    return msg_send(m->sock, MONITOR_STATS_REQUEST, NULL, 0, NULL, 0);
}

int monitor_nudge(struct monitor *m)
{
    return msg_send(m->sock, MONITOR_NUDGE, NULL, 0, NULL, 0);
}

int monitor_add_vsock_client(struct monitor *m, int fd)
{
    return msg_send(m->sock, MONITOR_VSOCK_CLIENT, NULL, 0, &fd, 1);
}

int monitor_dial_reply(struct monitor *m, uint64_t token, int fd)
{
    uint8_t payload[8];
    struct state_writer w;

    state_writer_init(&w, payload, sizeof(payload));
    state_put_u64(&w, token);
    return msg_send(m->sock, MONITOR_VSOCK_DIAL_REPLY, payload, w.used, &fd,
                    fd >= 0 ? 1 : 0);
}

int monitor_fd(const struct monitor *m)
{
    return m->sock;
}

/* Decodes the message in hand into an event: 0, or -EBADMSG. */
static int decode_event(const struct msg *msg, struct monitor_event *e)
{
    struct state_reader r;

    state_reader_init(&r, msg->payload, msg->len);
    switch (msg->type) {
    case MONITOR_RUNNING:
        e->kind = MONITOR_EVENT_RUNNING;
        e->running_ns = state_get_u64(&r);
        return state_reader_finish(&r);
    case MONITOR_VSOCK_DIAL:
        e->kind = MONITOR_EVENT_DIAL;
        e->dial_token = state_get_u64(&r);
        e->dial_port = state_get_u32(&r);
        return state_reader_finish(&r);
    case MONITOR_STATS:
        e->kind = MONITOR_EVENT_STATS;
        return monitor_stats_decode(msg->payload, msg->len, &e->stats);
    case MONITOR_EXIT:
        e->kind = MONITOR_EVENT_EXIT;
        return monitor_exit_decode(msg->payload, msg->len, &e->exit);
    default:
        return -EBADMSG;
    }
}

static void set_gone(struct monitor *m, struct monitor_event *e,
                     const char *reason, bool lied)
{
    m->ended = true;
    m->end.lied = lied;
    e->kind = MONITOR_EVENT_GONE;
    snprintf(m->reason, sizeof(m->reason), "%s", reason);
}

int monitor_take(struct monitor *m, struct monitor_event *ret_event)
{
    struct pollfd p = {.fd = m->sock, .events = POLLIN};
    int ret;

    memset(ret_event, 0, sizeof(*ret_event));
    if (m->ended || poll(&p, 1, 0) <= 0)
        return 0;
    ret = msg_receive_wary(m->sock, &m->msg);
    if (ret == -EAGAIN)
        return 0;
    if (ret <= 0) {
        set_gone(m, ret_event,
                 ret == 0 ? "it closed its socket"
                          : "it sent a malformed message",
                 ret != 0);
        return -EPIPE;
    }
    return 1;
}

void monitor_message_event(struct monitor *m, struct monitor_event *ret_event)
{
    memset(ret_event, 0, sizeof(*ret_event));
    if (m->late_answer != 0 &&
        (m->msg.type == m->late_answer || m->msg.type == MONITOR_ERROR)) {
        m->late_answer = 0;
        return;
    }
    if (decode_event(&m->msg, ret_event) != 0) {
        memset(ret_event, 0, sizeof(*ret_event));
        set_gone(m, ret_event, "it sent a message that cannot be read", true);
    } else if (ret_event->kind == MONITOR_EVENT_EXIT) {
        m->ended = true;
    }
}

void monitor_receive(struct monitor *m, struct monitor_event *ret_event)
{
    if (m->queued > 0) {
        *ret_event = m->queue[0];
        m->queued--;
        memmove(m->queue, m->queue + 1, m->queued * sizeof(m->queue[0]));
    } else if (monitor_take(m, ret_event) > 0) {
        monitor_message_event(m, ret_event);
    }
}

const char *monitor_reason(const struct monitor *m)
{
    return m->reason;
}

/* Its own clock and the limit's are not the same: half a second is as good. */
static bool has_used_up_cpu(const struct rusage *used)
{
    const struct timeval *u = &used->ru_utime, *s = &used->ru_stime;
    uint64_t ms = (uint64_t)(u->tv_sec + s->tv_sec) * 1000 +
                  (uint64_t)(u->tv_usec + s->tv_usec) / 1000;
    struct rlimit limit;

    return getrlimit(RLIMIT_CPU, &limit) == 0 &&
           limit.rlim_cur != RLIM_INFINITY && ms + 500 >= limit.rlim_cur * 1000;
}

/* Reaps if it has ended; true if it is (already) reaped. */
static bool try_reap(struct monitor *m, int flags)
{
    struct rusage used = {0};
    int status = 0;
    pid_t pid;

    if (m->pid < 0)
        return true;
    do {
        pid = wait4(m->pid, &status, flags, &used);
    } while (pid < 0 && errno == EINTR);
    if (pid == 0)
        return false;
    m->pid = -1;
    m->end.exited = pid < 0 || WIFEXITED(status);
    m->end.exit_status = pid < 0 ? -1 : m->end.exited ? WEXITSTATUS(status) : 0;
    m->end.signal = m->end.exited ? 0 : WTERMSIG(status);
    m->end.cpu_limit = (m->end.signal == SIGXCPU || m->end.signal == SIGKILL) &&
                       !m->end.killed_here && has_used_up_cpu(&used);
    return true;
}

static bool reap_within(struct monitor *m, int timeout_ms)
{
    uint64_t deadline = io_now_ns() + (uint64_t)timeout_ms * 1000000u;

    while (!try_reap(m, WNOHANG)) {
        /* We may have been stopped just now, and it has ended since. */
        if (io_now_ns() >= deadline)
            return try_reap(m, WNOHANG);
        usleep(500);
    }
    return true;
}

struct monitor_end monitor_finish(struct monitor *m, int timeout_ms)
{
    if (m->end.left)
        timeout_ms = 0; /* it was given its time */
    if (reap_within(m, timeout_ms)) {
        m->end.left = false;
        return m->end;
    }
    if (!m->end.left) {
        /* To give back much memory or large files is no fault of its own. */
        m->end.killed_here = !monitor_is_exiting(m);
        kill(m->pid, SIGKILL);
        m->end.left = !reap_within(m, KILL_TIMEOUT_MS);
    }
    return m->end;
}

pid_t monitor_pid(const struct monitor *m)
{
    return m->pid;
}

void monitor_free(struct monitor *m)
{
    if (!m)
        return;
    monitor_finish(m, 0);
    wary_close_socket(&m->sock);
    free(m);
}

void monitor_end_describe(const struct monitor_end *end, char *buf,
                          unsigned size)
{
    if (end->left)
        snprintf(buf, size, "not taken apart by the host yet");
    else if (end->exited)
        snprintf(buf, size, "exit status %d", end->exit_status);
    else
        snprintf(buf, size, "killed by signal %d", end->signal);
}
