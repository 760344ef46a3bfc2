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
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "tests/guest_rig.h"

#define END_NS 120000000000ull
#define BIG (50u << 20)
#define SCRATCH_LIMIT (64ull << 20)

static struct guest_rig t;

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

    guest_rig_send(&t, &request);
    guest_rig_wait(&t, &t.over, script);
}

static bool exited(uint32_t code)
{
    return guest_rig_exited(&t, code);
}

static void result(const char *name, bool good)
{
    guest_rig_result(&t, name, good);
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
           t.hello.features == (PROTO_FEATURES_LIMITS | PROTO_FEATURE_SNAPSHOT |
                                PROTO_FEATURE_LEAVE | PROTO_FEATURE_DISK));
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

/* Whose process limit is only noted: else that may end it first. */
static void run_bomb(void)
{
    const char *const argv[] = {
        "sh", "-c", "b() { b | b & }; b; while :; do :; done", NULL};
    const struct agent_exec_request request = {
        .argv = argv,
        .user = "root",
        .timeout_ms = 2000,
        .pids_note = true,
    };

    guest_rig_send(&t, &request);
    guest_rig_wait(&t, &t.over, "a fork bomb");
}

static void test_limits(void)
{
    run(NULL, "b() { b | b & }; b; sleep 1; exit 0", 30000, 0, 40);
    result("a fork bomb meets its limit",
           (t.exit.flags & PROTO_EXIT_PIDS) && t.exit.pids_hits > 0);
    result("and the next exec runs", alive());
    run_bomb();
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
    uint32_t id = guest_rig_send(&t, &request);
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
            sum = guest_rig_sum(sum, buf, (size_t)n);
            sent += (size_t)n;
        } else if (sent == BIG) {
            agent_client_stdin_close(t.client, id);
        }
        guest_rig_turn(&t, n > 0 ? 0 : 1000);
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
            guest_rig_give_up(&t, "no memory for a file");
    }
    (void)!lseek(there, 0, SEEK_SET);
    guest_rig_reset(&t);
    if (agent_client_write_file(t.client, "d/e/f", NULL, 0600, there, &id))
        guest_rig_give_up(&t, "cannot ask for a file");
    guest_rig_wait(&t, &t.over, "write_file");
    result("a file goes in",
           t.done.err == 0 && t.done.bytes == size && t.done.uid == 1000);
    guest_rig_reset(&t);
    if (agent_client_read_file(t.client, "d/e/f", NULL, size, back, &id))
        guest_rig_give_up(&t, "cannot ask for a file");
    guest_rig_wait(&t, &t.over, "read_file");
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
    struct pollfd p = {.fd = guest_rig_dial(&t), .events = POLLIN};
    char byte;

    (void)!poll(&p, 1, 20000);
    result("a second connection is closed",
           p.fd >= 0 && recv(p.fd, &byte, 1, MSG_DONTWAIT) == 0);
    result("and the first one goes on", alive());
    close(p.fd);
    guest_rig_send(&t, &request);
    guest_rig_wait(&t, &t.started, "start");
    guest_rig_connect(&t);
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
    guest_rig_reset(&t);
    if (agent_client_exec(
            t.client,
            &(struct agent_exec_request){
                .argv = (const char *const[]){"rm", "-rf", "--no-preserve-root",
                                              "/", NULL},
                .user = "root"},
            &id))
        guest_rig_give_up(&t, "cannot ask for an exec");
    guest_rig_wait(&t, &t.over, "rm -rf /");
    result("rm -rf / ends", t.failure.reason == 0);
    run(NULL, "true", 0, 0, 0);
    result("then there is no shell: 127", t.failure.exit_code == 127);
    guest_rig_reset(&t);
    if (agent_client_mkdir(t.client, "/again/there", "root", 0755, &id))
        guest_rig_give_up(&t, "cannot ask for a directory");
    guest_rig_wait(&t, &t.over, "mkdir");
    result("and the agent still works", t.done.err == 0);
}

static void test_shutdown(void)
{
    uint64_t until = io_now_ns() + END_NS;
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
    struct machine_spec spec;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: agent_attacks IMAGE [KERNEL]\n");
        return 2;
    }
    machine_spec_init(&spec);
    spec.disk_limit = SCRATCH_LIMIT;
    if (machine_spec_set(&spec.image, argv[1]) ||
        (argc > 2 && machine_spec_set(&spec.kernel, argv[2])) ||
        guest_rig_start(&t, &spec))
        return GUEST_RIG_SKIPPED;
    guest_rig_connect(&t);
    test_place();
    test_vsock();
    test_limits();
    test_leftovers();
    test_stdin();
    test_files();
    test_connections();
    test_destruction();
    test_shutdown();
    return guest_rig_end(&t);
}
