/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a restore costs beyond what nobody can avoid: from the exec of the
 * monitor to the first OUT of a restored guest, beside a program that makes
 * only the unavoidable calls (floor.c) with the same memory file.
 *
 *   restore PAIRS MIB DIR
 *
 * The two take turns, both before any other program. Prints "PAIR SIDE NAME
 * VALUE" lines, SIDE ours or floor, in nanoseconds: out_ns for both; of ours
 * besides ready_ns (built and restored), run_ns (KVM_RUN is next) and gone_ns
 * (from STOP to the end of the process). Pair 0 warms up. The snapshot's files
 * lie in DIR. microsbx-vmm and floor must lie beside this program.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/msg.h"
#include "base/num.h"
#include "base/standard_fds.h"
#include "bench/bare/snapshot.h"
#include "vmm/monitor_proto.h"

#define GUEST "out_storm"
/* Where tests/bare_guests.c loads it, its first OUT, and vmm/x86/map.h. */
#define FLOOR_RIP "0x100007"
#define FLOOR_CR3 "0x9000"
#define FIRST_FD_CLOSED 4u

static volatile uint64_t *exec_ns; /* shared with the children */

/* The path of a program beside this one. */
static void find_program(const char *name, char *buf, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", buf, size - 1);
    char *slash;

    if (n <= 0)
        die("/proc/self/exe", strerror(errno));
    buf[n] = '\0';
    slash = strrchr(buf, '/');
    snprintf(slash + 1, size - (size_t)(slash + 1 - buf), "%s", name);
}

/*
 * Starts a program as the harness would: descriptor 3 is special, the others
 * are null but for its standard output. *exec_ns is the moment of the exec.
 */
static pid_t spawn(char *const *argv, int out, int special)
{
    char path[4096];
    pid_t pid;

    find_program(argv[0], path, sizeof(path));
    pid = fork();
    if (pid != 0)
        return pid;
    /* Copies high up first: what is to be 0 to 3 must not be overwritten. */
    out = fcntl(out >= 0 ? out : open("/dev/null", O_RDWR), F_DUPFD, 64);
    special = fcntl(special, F_DUPFD, 64);
    dup2(open("/dev/null", O_RDWR), STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(special, MONITOR_SOCKET_FD);
    close_range(FIRST_FD_CLOSED, ~0u, 0);
    *exec_ns = io_now_ns();
    execv(path, argv);
    _exit(127);
}

/* Waits for the guest's first OUT: nanoseconds since the exec. */
static uint64_t wait_for_out(int fd)
{
    uint64_t now;
    char byte;

    if (read(fd, &byte, 1) != 1)
        die("guest", "it said nothing");
    now = io_now_ns();
    return now - *exec_ns;
}

static void say(unsigned pair, const char *side, const char *name, uint64_t ns)
{
    printf("%u %s %s %" PRIu64 "\n", pair, side, name, ns);
}

static void run_floor(unsigned pair, const struct snapshot *s)
{
    char bytes[24], scrap[512];
    char *argv[] = {(char[]){"floor"},   (char[]){"0"},       bytes,
                    (char[]){FLOOR_RIP}, (char[]){FLOOR_CR3}, NULL};
    int out[2], status;
    pid_t pid;

    snprintf(bytes, sizeof(bytes), "%" PRIu64, s->bytes);
    if (pipe2(out, O_CLOEXEC) < 0)
        die("pipe", strerror(errno));
    pid = spawn(argv, out[1], s->memory_fd);
    io_close(&out[1]);
    say(pair, "floor", "out_ns", wait_for_out(out[0]));
    while (read(out[0], scrap, sizeof(scrap)) > 0)
        continue; /* its steps, which are not asked for here */
    io_close(&out[0]);
    if (waitpid(pid, &status, 0) != pid || status != 0)
        die("floor", "it failed");
}

/* The next message, which must be of that type. */
static void receive(int sock, uint32_t type, struct msg *m)
{
    struct monitor_error error;

    if (msg_receive(sock, m) != 1)
        die("monitor", "it is gone");
    msg_close_fds(m);
    if (m->type == MONITOR_ERROR &&
        monitor_error_decode(m->payload, m->len, &error) == 0)
        die("monitor", error.text);
    if (m->type != type)
        die("monitor", "it says something else");
}

static void order(int sock, enum monitor_msg type)
{
    if (msg_send(sock, type, NULL, 0, NULL, 0) < 0)
        die("monitor", "it does not listen");
}

/*
 * CONFIG is there before the monitor is, and START behind it, as
 * monitor_build_and_start has it. Returns the console.
 */
static int send_config(int sock, const struct snapshot *s)
{
    static uint8_t buf[MSG_PAYLOAD_MAX];
    struct vm_config config;
    int fds[MSG_FDS_MAX];
    size_t len, fd_count;
    int console[2];

    if (pipe2(console, O_CLOEXEC) < 0)
        die("pipe", strerror(errno));
    snapshot_config(s, console[1], &config);
    if (vm_config_encode(&config, buf, sizeof(buf), &len, fds, &fd_count) < 0 ||
        msg_send(sock, MONITOR_CONFIG, buf, len, fds, fd_count) < 0)
        die("monitor", "no CONFIG");
    order(sock, MONITOR_START);
    vm_config_fini(&config);
    return console[0];
}

static void stop(unsigned pair, int sock, pid_t pid, struct msg *m)
{
    uint64_t began = io_now_ns();
    int status;

    order(sock, MONITOR_STOP);
    receive(sock, MONITOR_EXIT, m);
    if (waitpid(pid, &status, 0) != pid || status != 0)
        die("monitor", "it failed");
    say(pair, "ours", "gone_ns", io_now_ns() - began);
}

static void run_monitor(unsigned pair, const struct snapshot *s)
{
    char *argv[] = {(char[]){"microsbx-vmm"}, NULL};
    static struct msg m;
    int console, socks[2];
    uint64_t ready;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0)
        die("socketpair", strerror(errno));
    console = send_config(socks[0], s);
    pid = spawn(argv, -1, socks[1]);
    io_close(&socks[1]);
    receive(socks[0], MONITOR_READY, &m);
    ready = io_now_ns();
    say(pair, "ours", "out_ns", wait_for_out(console));
    /* A guest that floods the console is not read any more. */
    io_close(&console);
    receive(socks[0], MONITOR_RUNNING, &m);
    say(pair, "ours", "ready_ns", ready - *exec_ns);
    say(pair, "ours", "run_ns", num_get_le64(m.payload) - *exec_ns);
    stop(pair, socks[0], pid, &m);
    io_close(&socks[0]);
}

int main(int argc, char **argv)
{
    unsigned long pairs = argc == 4 ? strtoul(argv[1], NULL, 10) : 0;
    unsigned long mib = argc == 4 ? strtoul(argv[2], NULL, 10) : 0;
    struct snapshot s;

    if (standard_fds_ensure() != 0)
        return 2;
    if (pairs == 0 || mib == 0) {
        fprintf(stderr, "usage: restore PAIRS MIB DIR\n");
        return 2;
    }
    exec_ns = mmap(NULL, sizeof(*exec_ns), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (exec_ns == MAP_FAILED)
        die("mmap", strerror(errno));
    snapshot_make(&s, GUEST, (uint64_t)mib << 20, argv[3]);
    go_first();
    for (unsigned pair = 0; pair <= pairs; pair++) {
        if (pair % 2)
            run_monitor(pair, &s);
        run_floor(pair, &s);
        if (!(pair % 2))
            run_monitor(pair, &s);
    }
    snapshot_close(&s);
    return 0;
}
