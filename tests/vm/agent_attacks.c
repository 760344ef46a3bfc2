/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent as PID 1 of a real guest, attacked by what it runs. One machine
 * for all of it: after each attack the agent must still answer, and what it
 * says about the attack must be right.
 *
 *   agent_attacks IMAGE [KERNEL]     (an image with python3)
 *
 * One line per test; status 0 if all passed, 77 if the machine cannot start.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/agent_client.h"
#include "trial/agent_link.h"
#include "trial/machine_spec.h"
#include "trial/monitor.h"

#define STATUS_SKIPPED 77
#define MS 1000000ull
#define BOOT_NS (180000 * MS)
#define EVENT_NS (120000 * MS)
#define BIG (50u << 20)
#define SCRATCH_LIMIT (64ull << 20)

static struct {
    struct machine machine;
    struct monitor *monitor;
    int console;
    struct agent_client *client;
    struct proto_hello hello;
    bool has_hello;
    /* the exec or file operation in hand */
    bool started, over;
    struct agent_exec_failure failure; /* reason 0: it ran */
    struct proto_exec_exit exit;
    struct proto_file_done done;
    size_t bytes;
    uint64_t sum;
    char text[4096];
    unsigned passed, failed;
} t;

/* ---- reporting ---------------------------------------------------------- */

static void result(const char *name, bool good)
{
    if (good) {
        t.passed++;
        printf("ok - %s\n", name);
    } else {
        t.failed++;
        printf("not ok - %s: reason %u err %d, code %u signal %u flags %#x, "
               "file err %u, output: %.200s\n",
               name, t.failure.reason, t.failure.err, t.exit.code,
               t.exit.signal, t.exit.flags, t.done.err, t.text);
    }
    fflush(stdout);
}

static void __attribute__((noreturn)) give_up(const char *what)
{
    printf("not ok - %s\n", what);
    printf("# console: the guest said:\n");
    for (;;) {
        char line[512];
        ssize_t n = recv(t.console, line, sizeof(line), MSG_DONTWAIT);

        if (n <= 0)
            break;
        fwrite(line, 1, (size_t)n, stdout);
    }
    fflush(stdout);
    monitor_free(t.monitor);
    exit(1);
}

/* ---- events ------------------------------------------------------------- */

static void on_hello(void *arg, const struct proto_hello *hello)
{
    (void)arg;
    t.hello = *hello;
    t.has_hello = true;
}

static void on_started(void *arg, uint32_t id)
{
    (void)arg;
    (void)id;
    t.started = true;
}

static void on_failed(void *arg, uint32_t id,
                      const struct agent_exec_failure *failure)
{
    (void)arg;
    (void)id;
    t.failure = *failure;
    t.over = true;
}

static uint64_t add_up(uint64_t sum, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + bytes[i];
    return sum;
}

static void on_output(void *arg, uint32_t id, uint32_t stream,
                      const void *bytes, size_t len)
{
    size_t room = sizeof(t.text) - 1;

    (void)arg;
    if (t.bytes < room)
        memcpy(t.text + t.bytes, bytes,
               room - t.bytes < len ? room - t.bytes : len);
    t.bytes += len;
    t.sum = add_up(t.sum, bytes, len);
    agent_client_consumed(t.client, id, stream, len);
}

static void on_exec_exit(void *arg, uint32_t id,
                         const struct proto_exec_exit *status)
{
    (void)arg;
    (void)id;
    t.exit = *status;
    t.over = true;
}

static void on_file_done(void *arg, uint32_t id,
                         const struct proto_file_done *done, int local_err)
{
    (void)arg;
    (void)id;
    (void)local_err;
    t.done = *done;
    t.over = true;
}

static const struct agent_client_ops ops = {
    .hello = on_hello,
    .exec_started = on_started,
    .exec_failed = on_failed,
    .output = on_output,
    .exec_exit = on_exec_exit,
    .file_done = on_file_done,
};

/* ---- the machine -------------------------------------------------------- */

static int start_machine(const char *image, const char *kernel)
{
    struct failure f = {0};
    struct machine_spec spec;
    struct monitor_names names = {0};
    int pair[2], ret;

    machine_spec_init(&spec);
    spec.disk_limit = SCRATCH_LIMIT;
    if (machine_spec_set(&spec.image, image) ||
        (kernel && machine_spec_set(&spec.kernel, kernel)) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -ENOMEM;
    ret = machine_open(&spec, &t.machine, &f);
    machine_spec_fini(&spec);
    if (ret == 0) {
        machine_add_vsock(&t.machine);
        t.console = pair[0];
        t.machine.config.console_out_fd = pair[1];
        ret = monitor_spawn(&t.monitor, &f);
    }
    if (ret == 0)
        ret = monitor_build(t.monitor, &t.machine.config, &names, &f);
    vm_config_fini(&t.machine.config);
    if (ret == 0)
        ret = monitor_start(t.monitor);
    if (ret)
        printf("skipped: no machine: %s\n", f.message);
    return ret;
}

/* Takes what the monitor says; nothing may end before its time. */
static bool machine_ended(void)
{
    struct pollfd p = {monitor_fd(t.monitor), POLLIN, 0};
    struct monitor_event event;

    if (poll(&p, 1, 0) <= 0)
        return false;
    monitor_receive(t.monitor, &event);
    if (event.kind == MONITOR_EVENT_EXIT)
        printf("# the machine ended: %s: %s\n",
               monitor_exit_reason_name(event.exit.reason), event.exit.text);
    else if (event.kind == MONITOR_EVENT_GONE)
        printf("# the monitor is gone: %s\n", monitor_reason(t.monitor));
    return event.kind == MONITOR_EVENT_EXIT || event.kind == MONITOR_EVENT_GONE;
}

/* A stream to the agent, as soon as it listens. */
static int dial(void)
{
    uint64_t until = io_now_ns() + BOOT_NS;
    struct agent_link link;
    int fd = -1;

    agent_link_init(&link);
    while (io_now_ns() < until) {
        struct pollfd p;

        if (machine_ended() || agent_link_try(&link, t.monitor, io_now_ns()))
            break;
        p = (struct pollfd){link.fd, POLLIN, 0};
        (void)!poll(&p, 1, 50);
        if (p.revents && agent_link_read(&link, io_now_ns(), &fd) == 1)
            break;
    }
    agent_link_fini(&link);
    return fd;
}

static void turn(int ms)
{
    struct pollfd p = {agent_client_fd(t.client), agent_client_events(t.client),
                       0};

    (void)!poll(&p, 1, ms);
    if (machine_ended())
        give_up("the machine ended");
    if (agent_client_process(t.client, p.revents))
        give_up(agent_client_reason(t.client));
}

static void wait_for(const bool *flag, const char *what)
{
    uint64_t until = io_now_ns() + EVENT_NS;

    while (!*flag) {
        turn(100);
        if (io_now_ns() > until)
            give_up(what);
    }
}

static void connect_agent(void)
{
    int fd = dial();

    if (fd < 0 || agent_client_new(fd, &ops, NULL, &t.client))
        give_up("no connection to the agent");
    t.has_hello = false;
    wait_for(&t.has_hello, "no hello");
}

/* ---- execs and files ---------------------------------------------------- */

static void reset(void)
{
    t.started = t.over = false;
    memset(&t.failure, 0, sizeof(t.failure));
    memset(&t.exit, 0, sizeof(t.exit));
    memset(&t.done, 0, sizeof(t.done));
    memset(t.text, 0, sizeof(t.text));
    t.bytes = 0;
    t.sum = 0;
}

static uint32_t send_exec(const struct agent_exec_request *request)
{
    uint32_t id = 0;

    reset();
    if (agent_client_exec(t.client, request, &id))
        give_up("cannot ask for an exec");
    return id;
}

static void run(const char *user, const char *script, uint64_t timeout_ms,
                uint64_t memory, uint32_t pids)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    const struct agent_exec_request request = {
        .argv = argv,
        .user = user,
        .timeout_ms = timeout_ms,
        .memory_max = memory,
        .pids_max = pids,
    };

    send_exec(&request);
    wait_for(&t.over, script);
}

static bool exited(uint32_t code)
{
    return t.over && t.failure.reason == 0 && t.exit.signal == 0 &&
           t.exit.code == code;
}

/* The agent answers, and a fresh program runs. */
static bool alive(void)
{
    run(NULL, "echo $((6 * 7))", 60000, 0, 0);
    return exited(0) && strcmp(t.text, "42\n") == 0;
}

static void test_place(void)
{
    result("all limits are enforced, root and scratch are there",
           t.hello.features ==
               (PROTO_FEATURES_LIMITS | PROTO_FEATURE_SNAPSHOT));
    run(NULL, "id -u; id -g; pwd; cat /proc/1/comm; touch here && echo w", 0, 0,
        0);
    result("default user, home and pid namespace",
           exited(0) &&
               strcmp(t.text, "1000\n1000\n/home/sandbox\nkeeper\nw\n") == 0);
    run("root", "grep CapBnd /proc/self/status", 0, 0, 0);
    result("capabilities of root",
           strcmp(t.text, "CapBnd:\t00000000800405fb\n") == 0);
    run("root",
        "for f in /proc/sysrq-trigger /proc/sys/kernel/panic "
        "/sys/kernel/uevent_helper; do (: >$f) 2>/dev/null && echo $f; done; "
        "ls /dev/vd* /dev/ttyS0 /dev/console /dev/kmsg /dev/vsock 2>/dev/null;"
        "mount -t tmpfs x /mnt 2>/dev/null && echo mounted; "
        "mount -o remount,rw /sys 2>/dev/null && echo remounted; "
        "umount -l /proc/sys 2>/dev/null && echo unmounted; exit 0",
        0, 0, 0);
    result("root cannot reach the kernel's files, disks, mounts",
           exited(0) && t.bytes == 0);
    run("root",
        "unshare -UrCm sh -c 'mount -t cgroup2 c /mnt && "
        "echo cgroups; mount -t proc p /proc && echo proc' 2>/dev/null; "
        "exit 0",
        0, 0, 0);
    result("nor from a user namespace", exited(0) && t.bytes == 0);
}

/* CIDs 0 to 3, its own included: nobody serves a workload. */
static void test_vsock(void)
{
    static const char script[] =
        "python3 - <<'E'\n"
        "import socket\n"
        "for cid in range(5):\n"
        "    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)\n"
        "    s.settimeout(3)\n"
        "    try:\n"
        "        s.connect((cid, 1021))\n"
        "        if s.recv(1): print('served by', cid)\n"
        "    except OSError: pass\n"
        "print('done')\n"
        "E\n";

    run("root", script, 60000, 0, 0);
    result("no CID serves a workload",
           exited(0) && strcmp(t.text, "done\n") == 0);
}

static void test_limits(void)
{
    run(NULL, "b() { b | b & }; b; sleep 1; exit 0", 30000, 0, 40);
    result("a fork bomb meets its limit",
           (t.exit.flags & PROTO_EXIT_PIDS) && t.exit.pids_hits > 0);
    result("and the next exec runs", alive());
    run("root", "b() { b | b & }; b; while :; do :; done", 2000, 0, 0);
    result("root's fork bomb ends by its timeout",
           t.exit.flags & PROTO_EXIT_TIMED_OUT);
    result("and the next exec runs", alive());
    run(NULL, "tail /dev/zero; echo still here", 60000, 32u << 20, 0);
    result("a memory hog is killed as a whole",
           (t.exit.flags & PROTO_EXIT_OOM) && t.exit.signal == SIGKILL &&
               t.bytes == 0);
    run("root", "tail /dev/zero; echo still here", 120000, 0, 0);
    result("also without a limit of its own",
           (t.exit.flags & PROTO_EXIT_OOM) && t.bytes == 0);
    result("and the next exec runs", alive());
    run("root", "head -c 400M /dev/zero >/dev/shm/x; rm -f /dev/shm/x", 120000,
        0, 0);
    result("filling /dev/shm ends in it", t.over);
    result("and the next exec runs", alive());
    run("root", "dd if=/dev/zero of=/big bs=1M 2>&1 | grep -c 'No space'",
        120000, 0, 0);
    result("a full disk is told to the workload",
           exited(0) && strcmp(t.text, "1\n") == 0);
    result("and reported", t.exit.flags & PROTO_EXIT_DISK_FULL);
    result("and the next exec runs", alive());
    run("root", "rm /big; echo x >/y && cat /y", 60000, 0, 0);
    result("room that was freed can be used",
           exited(0) && strcmp(t.text, "x\n") == 0);
}

static void test_leftovers(void)
{
    run(NULL,
        "(setsid sh -c 'sleep 2; touch /tmp/late' &); "
        "trap '' TERM; sleep 100",
        500, 0, 0);
    result("a timeout kills", t.exit.flags == PROTO_EXIT_TIMED_OUT);
    run(NULL, "sleep 3; test ! -e /tmp/late", 0, 0, 0);
    result("the whole tree", exited(0));
    run("root", "kill -9 -1; kill -9 1; exit 9", 0, 0, 0);
    result("kill -9 -1", exited(9));
    result("and the next exec runs", alive());
    run("root",
        "reboot -f 2>/dev/null; poweroff -f 2>/dev/null; "
        "echo o >/proc/sysrq-trigger; exit 9",
        30000, 0, 0);
    result("root cannot end the machine", exited(9) && alive());
}

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 2654435761u >> 13);
}

static void test_stdin(void)
{
    const char *const argv[] = {"cat", NULL};
    const struct agent_exec_request request = {.argv = argv,
                                               .open_stdin = true};
    uint32_t id = send_exec(&request);
    static uint8_t buf[65536];
    uint64_t sum = 0;
    size_t sent = 0;

    while (!t.over) {
        size_t len = BIG - sent < sizeof(buf) ? BIG - sent : sizeof(buf);
        ssize_t n = 0;

        for (size_t i = 0; i < len; i++)
            buf[i] = pattern(sent + i);
        if (len)
            n = agent_client_stdin_write(t.client, id, buf, len);
        if (n > 0) {
            sum = add_up(sum, buf, (size_t)n);
            sent += (size_t)n;
        } else if (sent == BIG) {
            agent_client_stdin_close(t.client, id);
        }
        turn(n > 0 ? 0 : 1000);
    }
    result("50 MiB through stdin and back",
           exited(0) && t.bytes == BIG && t.sum == sum);
}

static void test_files(void)
{
    int there = memfd_create("there", MFD_CLOEXEC);
    int back = memfd_create("back", MFD_CLOEXEC);
    static uint8_t buf[65536], other[65536];
    uint32_t id;
    bool same = true;
    const size_t size = 20u << 20;

    for (size_t at = 0; at < size; at += sizeof(buf)) {
        for (size_t i = 0; i < sizeof(buf); i++)
            buf[i] = pattern(at + i);
        if (write(there, buf, sizeof(buf)) != (ssize_t)sizeof(buf))
            give_up("no memory for a file");
    }
    (void)!lseek(there, 0, SEEK_SET);
    reset();
    if (agent_client_write_file(t.client, "d/e/f", NULL, 0600, there, &id))
        give_up("cannot ask for a file");
    wait_for(&t.over, "write_file");
    result("a file goes in",
           t.done.err == 0 && t.done.bytes == size && t.done.uid == 1000);
    reset();
    if (agent_client_read_file(t.client, "d/e/f", NULL, size, back, &id))
        give_up("cannot ask for a file");
    wait_for(&t.over, "read_file");
    for (size_t at = 0; same && at < size; at += sizeof(buf)) {
        (void)!pread(there, buf, sizeof(buf), (off_t)at);
        (void)!pread(back, other, sizeof(other), (off_t)at);
        same = memcmp(buf, other, sizeof(buf)) == 0;
    }
    result("and comes back", t.done.err == 0 && same);
    close(there);
    close(back);
}

/* A second connection is not served, and the first not disturbed. */
static void test_connections(void)
{
    const char *const argv[] = {"sh", "-c",
                                "setsid sh -c 'sleep 3; touch /tmp/late2' &"
                                "sleep 100",
                                NULL};
    const struct agent_exec_request request = {.argv = argv};
    struct pollfd p = {.fd = dial(), .events = POLLIN};
    char byte;

    (void)!poll(&p, 1, 20000);
    result("a second connection is closed",
           p.fd >= 0 && recv(p.fd, &byte, 1, MSG_DONTWAIT) == 0);
    result("and the first one goes on", alive());
    close(p.fd);
    send_exec(&request);
    wait_for(&t.started, "start");
    agent_client_free(t.client);
    connect_agent();
    result("a new connection after the old one broke", alive());
    run(NULL, "sleep 4; test ! -e /tmp/late2", 0, 0, 0);
    result("what the old one ran is gone", exited(0));
}

static void test_destruction(void)
{
    uint32_t id;

    run("root", "chmod 000 /bin/sh /usr/bin/dash", 0, 0, 0);
    run(NULL, "true", 0, 0, 0);
    result("a shell that may not be executed is 126",
           t.failure.exit_code == 126);
    reset();
    if (agent_client_exec(
            t.client,
            &(struct agent_exec_request){
                .argv = (const char *const[]){"rm", "-rf", "--no-preserve-root",
                                              "/", NULL},
                .user = "root"},
            &id))
        give_up("cannot ask for an exec");
    wait_for(&t.over, "rm -rf /");
    result("rm -rf / ends", t.failure.reason == 0);
    run(NULL, "true", 0, 0, 0);
    result("then there is no shell: 127", t.failure.exit_code == 127);
    reset();
    if (agent_client_mkdir(t.client, "/again/there", "root", 0755, &id))
        give_up("cannot ask for a directory");
    wait_for(&t.over, "mkdir");
    result("and the agent still works", t.done.err == 0);
}

static void test_shutdown(void)
{
    uint64_t until = io_now_ns() + EVENT_NS;
    struct monitor_event event = {.kind = MONITOR_EVENT_NONE};

    (void)!agent_client_shutdown(t.client);
    (void)!agent_client_process(t.client, 0);
    while (event.kind != MONITOR_EVENT_EXIT &&
           event.kind != MONITOR_EVENT_GONE && io_now_ns() < until) {
        struct pollfd p = {monitor_fd(t.monitor), POLLIN, 0};

        if (poll(&p, 1, 100) > 0)
            monitor_receive(t.monitor, &event);
    }
    result("shutdown powers off",
           event.kind == MONITOR_EVENT_EXIT &&
               event.exit.reason == MONITOR_EXIT_POWER_OFF);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: agent_attacks IMAGE [KERNEL]\n");
        return 2;
    }
    if (start_machine(argv[1], argv[2]))
        return STATUS_SKIPPED;
    connect_agent();
    test_place();
    test_vsock();
    test_limits();
    test_leftovers();
    test_stdin();
    test_files();
    test_connections();
    test_destruction();
    test_shutdown();
    agent_client_free(t.client);
    monitor_free(t.monitor);
    printf("# %u passed, %u failed\n", t.passed, t.failed);
    return t.failed ? 1 : 0;
}
