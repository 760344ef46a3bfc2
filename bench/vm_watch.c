/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a monitor, ours or another, and takes the time until its guest says
 * something on the console.
 *
 *   vm_watch [-t SECONDS] [-e TRACEFS] [-x COMMAND] [-v CID:PORT] -u TEXT
 *            -- PROGRAM [ARG...]
 *
 * Both monitors are measured by this one program, from just before the exec to
 * the read that completes TEXT; with -v, TEXT counts as said once the guest has
 * sent something on a connection to that vsock port, dialled through the host
 * kernel's vhost. It prints, one "name value" a line:
 *
 *   line_us    until TEXT was there
 *   entry_us   until a virtual CPU was entered first, as the host kernel's
 *              tracepoint kvm_entry saw it (with -e, the tracefs to use)
 *   ...        whatever the guest said behind "bench: NAME VALUE"
 *   ...        whatever COMMAND prints, which sh runs once TEXT is there, with
 *              the program's process id in VM_PID
 *
 * Then it ends PROGRAM. Status 0, or 1 with the console's last words on stderr
 * if TEXT did not come, PROGRAM ended first or COMMAND failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

#include "base/io.h"
#include "base/standard_fds.h"

#define CONSOLE_MAX (64u * 1024u) /* remembered; a chattier guest is cut */
#define TERM_WAIT_MS 3000
#define NS_PER_S 1000000000ull

struct watch {
    unsigned timeout_s;
    const char *tracefs; /* or NULL */
    const char *command; /* or NULL */
    const char *text;
    unsigned cid, port; /* who says it; cid 0: the console */
    char **program;

    pid_t pid;
    pid_t dialler; /* -1: none */
    int console;   /* read end; -1 at its end */
    int trace;     /* trace_pipe; -1 when not, or no longer, wanted */
    uint64_t started_ns;
    uint64_t line_ns;  /* 0 until TEXT came */
    uint64_t entry_ns; /* 0 until the first entry */
    char log[CONSOLE_MAX + 1];
    size_t log_len;
};

static int fail(const struct watch *w, const char *why)
{
    size_t from = w->log_len > 2000 ? w->log_len - 2000 : 0;

    fprintf(stderr, "vm_watch: %s: %s; its last words:\n%s\n", w->program[0],
            why, w->log + from);
    return 1;
}

/* ---- the host kernel's tracepoint ---- */

static int trace_write(const char *tracefs, const char *name, const char *value)
{
    char path[512];
    int fd, ret;

    snprintf(path, sizeof(path), "%s/%s", tracefs, name);
    fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ret = io_write_full(fd, value, strlen(value));
    io_close(&fd);
    return ret;
}

static int trace_open(struct watch *w)
{
    char path[512];
    int ret = trace_write(w->tracefs, "trace_clock", "mono");

    if (ret == 0)
        ret = trace_write(w->tracefs, "events/kvm/kvm_entry/enable", "1");
    if (ret < 0)
        return ret;
    snprintf(path, sizeof(path), "%s/trace_pipe", w->tracefs);
    w->trace = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return w->trace < 0 ? -errno : 0;
}

static void trace_close(struct watch *w)
{
    if (w->trace < 0)
        return;
    (void)trace_write(w->tracefs, "events/kvm/kvm_entry/enable", "0");
    io_close(&w->trace);
    (void)trace_write(w->tracefs, "trace", "");
}

/*
 * True for the thread a process began with. Both monitors run their machine's
 * CPUs on other threads; what is entered on the first one is only a trial of
 * what this KVM can do.
 */
static bool is_first_thread(unsigned long tid)
{
    char path[64], line[128];
    unsigned long tgid = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%lu/status", tid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "Tgid: %lu", &tgid) == 1)
            break;
    if (f)
        fclose(f);
    return tgid == tid;
}

/* "  comm-tid  [000] d.... 12.345678: kvm_entry: vcpu 0, ..." */
static void trace_read_line(struct watch *w, const char *line)
{
    const char *mark = strstr(line, ": kvm_entry:");
    const char *cpu = strstr(line, " [");
    unsigned long long seconds, micros;
    const char *at;

    if (!mark || !cpu || cpu > mark)
        return;
    for (at = mark; at > line && at[-1] != ' ';)
        at--;
    if (sscanf(at, "%llu.%llu", &seconds, &micros) != 2)
        return;
    for (at = cpu; at > line && *at == ' ';)
        at--;
    while (at > line && *at != '-')
        at--;
    if (!is_first_thread(strtoul(at + 1, NULL, 10)))
        w->entry_ns = seconds * NS_PER_S + micros * 1000;
}

/* The first entry is enough: the tracepoint is switched off, so that entries
   cost nothing later. */
static void trace_read(struct watch *w)
{
    char buf[4097];
    ssize_t n = read(w->trace, buf, sizeof(buf) - 1);
    char *rest = buf, *line;

    if (n <= 0)
        return;
    buf[n] = '\0';
    while (w->entry_ns == 0 && (line = strsep(&rest, "\n")))
        trace_read_line(w, line);
    if (w->entry_ns != 0)
        trace_close(w);
}

/* ---- a guest that answers on vsock ---- */

/* True once the guest has accepted a connection and said something. */
static bool guest_answers(const struct sockaddr_vm *address)
{
    const struct timeval patience = {.tv_usec = 200000};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool answered = false;
    char byte;

    if (fd < 0)
        return false;
    /* A guest that is not there yet must be dialled anew soon. */
    (void)setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience,
                     sizeof(patience));
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        answered = read(fd, &byte, 1) == 1;
    io_close(&fd);
    return answered;
}

/* A child that dials until it is answered, and then says TEXT for the guest. */
static int dial(struct watch *w, int say)
{
    const struct sockaddr_vm address = {
        .svm_family = AF_VSOCK, .svm_cid = w->cid, .svm_port = w->port};
    const struct timespec step = {.tv_nsec = 1000000};

    if (w->cid == 0)
        return 0;
    w->dialler = fork();
    if (w->dialler != 0)
        return w->dialler < 0 ? -errno : 0;
    while (!guest_answers(&address))
        (void)nanosleep(&step, NULL);
    _exit(io_write_full(say, w->text, strlen(w->text)) == 0 ? 0 : 1);
}

/* ---- the program ---- */

/* stdin empty, stdout and stderr to our pipe. */
static int spawn(struct watch *w)
{
    posix_spawn_file_actions_t actions;
    int fds[2];
    int ret;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
    posix_spawn_file_actions_adddup2(&actions, fds[1], 2);
    ret = dial(w, fds[1]);
    if (ret < 0)
        return ret;
    w->started_ns = io_now_ns();
    ret = -posix_spawnp(&w->pid, w->program[0], &actions, NULL, w->program,
                        environ);
    posix_spawn_file_actions_destroy(&actions);
    io_close(&fds[1]);
    w->console = fds[0];
    if (ret < 0)
        w->pid = -1;
    return ret;
}

static void console_read(struct watch *w)
{
    char scrap[4096];
    bool room = w->log_len < CONSOLE_MAX;
    ssize_t n =
        room ? read(w->console, w->log + w->log_len, CONSOLE_MAX - w->log_len)
             : read(w->console, scrap, sizeof(scrap));

    if (n <= 0) {
        io_close(&w->console);
        return;
    }
    if (room)
        w->log_len += (size_t)n;
    w->log[w->log_len] = '\0';
    if (strstr(w->log, w->text))
        w->line_ns = io_now_ns();
}

/* 0 once TEXT is there, else why not. */
static const char *wait_for_text(struct watch *w)
{
    uint64_t end = w->started_ns + w->timeout_s * NS_PER_S;

    while (w->line_ns == 0) {
        struct pollfd p[2] = {{.fd = w->console, .events = POLLIN},
                              {.fd = w->trace, .events = POLLIN}};

        if (w->console < 0)
            return "it ended too early";
        if (io_now_ns() > end)
            return "nothing came in time";
        (void)poll(p, 2, 1000);
        /* Our own clock is read first thing, whatever else there is. */
        if (p[0].revents)
            console_read(w);
        if (p[1].revents)
            trace_read(w);
    }
    return NULL;
}

/* The guest goes on talking while COMMAND runs; nobody reads it then, and a
   pipe holds more than a quiet guest says. */
static int run_command(const struct watch *w)
{
    char pid[16];
    int status;

    snprintf(pid, sizeof(pid), "%d", (int)w->pid);
    setenv("VM_PID", pid, 1);
    fflush(stdout);
    status = system(w->command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* "bench: NAME VALUE" lines of the guest, without their mark. */
static void print_guest_lines(struct watch *w)
{
    static const char mark[] = "bench: ";
    char *rest = w->log, *line;

    while ((line = strsep(&rest, "\r\n"))) {
        if (strncmp(line, mark, sizeof(mark) - 1) == 0 &&
            strchr(line + sizeof(mark) - 1, ' '))
            printf("%s\n", line + sizeof(mark) - 1);
    }
}

static void end_program(struct watch *w)
{
    const struct timespec step = {.tv_nsec = 5000000};
    uint64_t end = io_now_ns() + TERM_WAIT_MS * 1000000ull;

    if (w->dialler > 0) {
        kill(w->dialler, SIGKILL);
        (void)waitpid(w->dialler, NULL, 0);
    }
    if (w->pid <= 0)
        return;
    kill(w->pid, SIGTERM);
    while (waitpid(w->pid, NULL, WNOHANG) == 0) {
        if (io_now_ns() > end) {
            kill(w->pid, SIGKILL);
            (void)waitpid(w->pid, NULL, 0);
            break;
        }
        (void)nanosleep(&step, NULL);
    }
}

static int watch(struct watch *w)
{
    const char *why;
    int ret;

    if (w->tracefs && trace_open(w) < 0)
        fprintf(stderr, "vm_watch: no tracepoint kvm_entry in %s\n",
                w->tracefs);
    ret = spawn(w);
    if (ret < 0)
        return fail(w, strerror(-ret));
    why = wait_for_text(w);
    trace_close(w);
    ret = why ? fail(w, why) : 0;
    if (ret == 0) {
        printf("line_us %" PRIu64 "\n", (w->line_ns - w->started_ns) / 1000);
        if (w->entry_ns > w->started_ns)
            printf("entry_us %" PRIu64 "\n",
                   (w->entry_ns - w->started_ns) / 1000);
        print_guest_lines(w);
    }
    if (ret == 0 && w->command && run_command(w) != 0)
        ret = fail(w, "the measuring command failed");
    end_program(w);
    return ret;
}

int main(int argc, char **argv)
{
    static struct watch w = {
        .timeout_s = 120, .pid = -1, .dialler = -1, .console = -1, .trace = -1};
    int c;

    if (standard_fds_ensure() != 0)
        return 2;
    while ((c = getopt(argc, argv, "+t:e:x:v:u:")) != -1) {
        switch (c) {
        case 't':
            w.timeout_s = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'e':
            w.tracefs = optarg;
            break;
        case 'x':
            w.command = optarg;
            break;
        case 'v':
            if (sscanf(optarg, "%u:%u", &w.cid, &w.port) != 2)
                return 2;
            break;
        case 'u':
            w.text = optarg;
            break;
        default:
            return 2;
        }
    }
    if (!w.text || optind >= argc) {
        fprintf(stderr, "usage: vm_watch [-t SECONDS] [-e TRACEFS] "
                        "[-x COMMAND] [-v CID:PORT] -u TEXT -- PROGRAM "
                        "[ARG...]\n");
        return 2;
    }
    w.program = argv + optind;
    return watch(&w);
}
