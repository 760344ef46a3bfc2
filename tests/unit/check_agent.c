/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Execs of the real agent, run as a process of this host and asked through
 * the real client: statuses, streams, users, limits, what is left behind.
 */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/agent_rig.h"

#define SKIPPED 77
#define BIG (50u << 20)
/* The agent's memory at its highest, whatever went through it. */
#define AGENT_KIB_MAX 16384

static struct agent_rig rig;

static void start(void)
{
    agent_rig_start(&rig);
}

static void stop(void)
{
    /* 2: SERVER_DISCONNECTED, the agent's orderly end without a listener. */
    ck_assert_int_eq(agent_rig_stop(&rig), 2);
}

/* VmHWM of a process in KiB. */
static long peak_kib(pid_t pid)
{
    char path[64], line[256];
    long kib = -1;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    }
    if (f)
        fclose(f);
    return kib;
}

static void check_peak(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(FUZZING)
    long kib = peak_kib(rig.agent);

    ck_assert_msg(kib > 0 && kib < AGENT_KIB_MAX, "%ld KiB", kib);
#else
    (void)peak_kib;
#endif
}

/* ---- statuses ----------------------------------------------------------- */

static const struct {
    const char *script;
    uint32_t code, signal;
} statuses[] = {
    {"exit 0", 0, 0},
    {"exit 1", 1, 0},
    {"exit 255", 255, 0},
    {"kill -9 $$", 0, 9},
    {"kill -TERM $$", 0, 15},
    {"kill -SEGV $$", 0, 11},
    {"ulimit -c unlimited; kill -ABRT $$; exit 3", 0, 6},
};

START_TEST(test_status)
{
    struct rig_handle *h = agent_rig_sh(&rig, NULL, statuses[_i].script);

    ck_assert(h->started && h->exited);
    ck_assert_uint_eq(h->exit.code, statuses[_i].code);
    ck_assert_uint_eq(h->exit.signal, statuses[_i].signal);
    ck_assert_uint_eq(h->exit.flags, 0);
}
END_TEST

static const struct {
    const char *program, *user, *cwd;
    uint32_t reason;
    int err, exit_code;
} failures[] = {
    {"no-such-program", NULL, NULL, PROTO_FAIL_NOT_FOUND, ENOENT, 127},
    {"/no/such/program", NULL, NULL, PROTO_FAIL_NOT_FOUND, ENOENT, 127},
    {"/etc/passwd/x", NULL, NULL, PROTO_FAIL_NOT_FOUND, ENOTDIR, 127},
    {"", NULL, NULL, PROTO_FAIL_NOT_FOUND, ENOENT, 127},
    {"/etc/passwd", NULL, NULL, PROTO_FAIL_NOT_EXECUTABLE, EACCES, 126},
    {"/etc", "root", NULL, PROTO_FAIL_NOT_EXECUTABLE, EACCES, 126},
    {"true", "no-such-user", NULL, PROTO_FAIL_USER, ENOENT, -1},
    {"true", "12:x", NULL, PROTO_FAIL_USER, EINVAL, -1},
    {"true", "4294967295", NULL, PROTO_FAIL_USER, EINVAL, -1},
    {"true", "root:0", NULL, PROTO_FAIL_USER, EINVAL, -1},
    {"true", NULL, "/no/such/place", PROTO_FAIL_CWD, ENOENT, -1},
    {"true", NULL, "/etc/passwd", PROTO_FAIL_CWD, ENOTDIR, -1},
    {"true", NULL, "/root", PROTO_FAIL_CWD, EACCES, -1},
};

START_TEST(test_failure)
{
    const char *const argv[] = {failures[_i].program, NULL};
    const struct agent_exec_request request = {
        .argv = argv,
        .user = failures[_i].user,
        .cwd = failures[_i].cwd,
    };
    struct rig_handle *h = agent_rig_run(&rig, &request);

    ck_assert(h->failed && !h->started);
    ck_assert_uint_eq(h->failure.reason, failures[_i].reason);
    ck_assert_int_eq(h->failure.err, failures[_i].err);
    ck_assert_int_eq(h->failure.exit_code, failures[_i].exit_code);
}
END_TEST

/* No shell is asked to run what the kernel does not take. */
START_TEST(test_no_shell_guess)
{
    const char *const argv[] = {"/tmp/text", NULL};
    const struct agent_exec_request request = {.argv = argv};
    struct rig_handle *h =
        agent_rig_sh(&rig, NULL, "echo echo hi >/tmp/text; chmod +x /tmp/text");

    ck_assert_uint_eq(h->exit.code, 0);
    h = agent_rig_run(&rig, &request);
    ck_assert_uint_eq(h->failure.reason, PROTO_FAIL_NOT_EXECUTABLE);
    ck_assert_int_eq(h->failure.err, ENOEXEC);
}
END_TEST

/* ---- what it finds ------------------------------------------------------ */

static const struct {
    const char *user, *script, *out;
} places[] = {
    {NULL, "echo $(id -u) $(id -g) $HOME $(pwd)",
     "1000 1000 /home/sandbox /home/sandbox\n"},
    {"root", "echo $(id -u) $(id -g) $HOME $USER", "0 0 /root root\n"},
    {"12345", "echo $(id -u) $(id -g) $HOME", "12345 12345 /\n"},
    {"12345:7", "echo $(id -u) $(id -g)", "12345 7\n"},
    {"nobody", "id -un", "nobody\n"},
    {NULL, "echo out; echo err >&2", "out\n"},
    {NULL, "cat", ""},
    {NULL, "hostname", "microsbx\n"},
    /* A process of the agent's is 1, and the host's are not to be seen. */
    {NULL, "test $(ls -d /proc/[0-9]* | wc -l) -lt 8 && cat /proc/1/comm",
     "keeper\n"},
    {NULL, "grep -c NoNewPrivs:.1 /proc/self/status", "1\n"},
    {"root", "grep CapBnd /proc/self/status", "CapBnd:\t00000000800405fb\n"},
    {NULL, "grep CapEff /proc/self/status", "CapEff:\t0000000000000000\n"},
    {"root", "ls -l /proc/self/fd | wc -l | tr -d ' '", "5\n"},
    {"root", "mount -t tmpfs x /mnt 2>/dev/null; echo $?", "32\n"},
    {"root", "mknod /tmp/n b 7 0 2>/dev/null; echo $?", "1\n"},
    {"root", "(: >/proc/sysrq-trigger) 2>/dev/null || echo no", "no\n"},
    {"root", "(: >/proc/sys/kernel/panic) 2>/dev/null || echo no", "no\n"},
    {"root", "(: >/sys/power/state) 2>/dev/null || echo no", "no\n"},
    {"root", "(: </proc/1/root/x) 2>/dev/null || echo no", "no\n"},
    {"root", "ls /dev/vsock /dev/console /dev/kmsg 2>/dev/null | wc -l", "0\n"},
    {NULL, "echo x >/dev/null; echo y >/dev/shm/y; cat /dev/shm/y", "y\n"},
    {NULL, "ulimit -c; ulimit -n", "0\n1024\n"},
    {NULL, "umask", "0022\n"},
};

START_TEST(test_place)
{
    struct rig_handle *h =
        agent_rig_sh(&rig, places[_i].user, places[_i].script);

    ck_assert_msg(h->exited, "not run");
    ck_assert_str_eq(h->text[0], places[_i].out);
}
END_TEST

/* A user whose name is as long as the protocol has room for. */
START_TEST(test_longest_user)
{
    char name[PROTO_USER_MAX], script[PROTO_USER_MAX + 128];
    char wanted[PROTO_USER_MAX + 16];
    struct rig_handle *h;

    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    snprintf(script, sizeof(script),
             "echo %s:x:4321:8765::/tmp:/bin/sh >>/etc/passwd", name);
    h = agent_rig_sh(&rig, "root", script);
    ck_assert_uint_eq(h->exit.code, 0);
    h = agent_rig_sh(&rig, name, "echo $(id -u) $(id -g) $USER");
    snprintf(wanted, sizeof(wanted), "4321 8765 %s\n", name);
    ck_assert_str_eq(h->text[0], wanted);
}
END_TEST

START_TEST(test_environment)
{
    const char *const argv[] = {"env", NULL};
    const char *const env[] = {"A=1", "PATH=/usr/bin:/bin", "B=x=y", NULL};
    const struct agent_exec_request request = {
        .argv = argv, .env = env, .cwd = "/etc"};
    struct rig_handle *h = agent_rig_run(&rig, &request);

    ck_assert_str_eq(h->text[0],
                     "HOME=/home/sandbox\nUSER=sandbox\nLOGNAME=sandbox\n"
                     "A=1\nPATH=/usr/bin:/bin\nB=x=y\n");
}
END_TEST

/* A mebibyte of arguments arrives, and a byte more is refused here. */
START_TEST(test_large_argv)
{
    enum { COUNT = 8190, LEN = 127 };
    static const char script[] = "echo $# ${#8189}";
    static const char *argv[COUNT + 4];
    static char text[LEN + 1], filler[512];
    struct agent_exec_request request = {.argv = argv};
    size_t left = PROTO_ARGV_BYTES_MAX - COUNT * (LEN + 1) - sizeof("sh") -
                  sizeof("-c") - sizeof(script);
    struct rig_handle *h;
    uint32_t id;

    memset(text, 'a', LEN);
    ck_assert_uint_lt(left, sizeof(filler));
    memset(filler, 'b', left - 1);
    argv[0] = "sh";
    argv[1] = "-c";
    argv[2] = script;
    argv[3] = filler; /* $0 */
    for (size_t i = 4; i < COUNT + 3; i++)
        argv[i] = text;
    filler[left - 1 + LEN + 1] = '\0';
    memset(filler + left - 1, 'b', LEN + 1); /* the place of one text */
    h = agent_rig_run(&rig, &request);
    ck_assert_msg(h->exited, "reason %u: %s", h->failure.reason,
                  strerror(h->failure.err));
    ck_assert_str_eq(h->text[0], "8189 127\n");
    filler[left - 1 + LEN + 1] = 'b';
    ck_assert_int_eq(agent_client_exec(rig.client, &request, &id), -E2BIG);
}
END_TEST

/* ---- streams ------------------------------------------------------------ */

static uint8_t pattern(uint64_t i)
{
    return (uint8_t)(i * 2654435761u >> 13);
}

/* Feeds `size` pattern bytes and EOF; turns until the exec is over. */
static uint64_t feed(uint32_t id, struct rig_handle *h, size_t size)
{
    static uint8_t buf[100000];
    uint64_t digest = 0;
    size_t sent = 0;

    while (!h->exited && !h->failed) {
        while (sent < size) {
            size_t len = size - sent < sizeof(buf) ? size - sent : sizeof(buf);
            ssize_t taken;

            for (size_t i = 0; i < len; i++)
                buf[i] = pattern(sent + i);
            taken = agent_client_stdin_write(rig.client, id, buf, len);
            ck_assert_int_ge(taken, 0);
            if (taken == 0)
                break;
            digest = rig_digest(digest, buf, (size_t)taken);
            sent += (size_t)taken;
        }
        if (sent == size)
            ck_assert_int_eq(agent_client_stdin_close(rig.client, id), 0);
        agent_rig_turn(&rig, 1000);
    }
    return digest;
}

START_TEST(test_stdin_50_mib_and_back)
{
    const char *const argv[] = {"cat", NULL};
    const struct agent_exec_request request = {.argv = argv,
                                               .open_stdin = true};
    uint32_t id;
    struct rig_handle *h = agent_rig_send(&rig, &request, &id);
    uint64_t digest = feed(id, h, BIG);

    ck_assert_uint_eq(h->exit.code, 0);
    ck_assert_uint_eq(h->bytes[0], BIG);
    ck_assert_uint_eq(h->exit.stdin_bytes, BIG);
    ck_assert_uint_eq(h->digest[0], digest);
    check_peak();
}
END_TEST

/* Nobody reads: the sender is not stuck, and the agent does not grow. */
START_TEST(test_stdin_not_read)
{
    const char *const argv[] = {"sh", "-c", "exec <&-; sleep 0.3; echo ok",
                                NULL};
    const struct agent_exec_request request = {.argv = argv,
                                               .open_stdin = true};
    uint32_t id;
    struct rig_handle *h = agent_rig_send(&rig, &request, &id);

    feed(id, h, 4u << 20);
    ck_assert_str_eq(h->text[0], "ok\n");
    ck_assert_uint_eq(h->exit.code, 0);
}
END_TEST

/* A reader that does not consume gets a window of each stream and no more. */
START_TEST(test_slow_reader)
{
    const char *const argv[] = {"sh", "-c",
                                "head -c 1000000 /dev/zero & "
                                "head -c 1000000 /dev/zero >&2; wait",
                                NULL};
    const struct agent_exec_request request = {.argv = argv};
    uint32_t id;
    struct rig_handle *h;

    rig.hold_output = true;
    h = agent_rig_send(&rig, &request, &id);
    /* Until both windows are full, however busy this host is ... */
    for (int i = 0;
         i < 1000 && (h->bytes[0] < PROTO_WINDOW || h->bytes[1] < PROTO_WINDOW);
         i++)
        agent_rig_turn(&rig, 20);
    /* ... and then nothing more. */
    for (int i = 0; i < 20; i++)
        agent_rig_turn(&rig, 20);
    ck_assert_uint_eq(h->bytes[0], PROTO_WINDOW);
    ck_assert_uint_eq(h->bytes[1], PROTO_WINDOW);
    ck_assert(!h->exited);
    rig.hold_output = false;
    ck_assert_int_eq(
        agent_client_consumed(rig.client, id, PROTO_STDOUT, PROTO_WINDOW + 1),
        -EINVAL);
    for (uint32_t s = PROTO_STDOUT; s <= PROTO_STDERR; s++)
        ck_assert_int_eq(agent_client_consumed(rig.client, id, s, PROTO_WINDOW),
                         0);
    agent_rig_wait(&rig, &h->exited);
    ck_assert_uint_eq(h->bytes[0], 1000000);
    ck_assert_uint_eq(h->bytes[1], 1000000);
    ck_assert_uint_eq(h->exit.flags, 0);
}
END_TEST

/* The output of a program that has ended waits for a reader that is slower
   than the second that leftovers get. */
START_TEST(test_slow_reader_after_exit)
{
    const char *const argv[] = {"head", "-c", "190000", "/dev/zero", NULL};
    const struct agent_exec_request request = {.argv = argv};
    uint32_t id;
    struct rig_handle *h;

    rig.hold_output = true;
    h = agent_rig_send(&rig, &request, &id);
    for (int i = 0; i < 75; i++)
        agent_rig_turn(&rig, 20);
    ck_assert(!h->exited);
    rig.hold_output = false;
    ck_assert_int_eq(
        agent_client_consumed(rig.client, id, PROTO_STDOUT, h->bytes[0]), 0);
    agent_rig_wait(&rig, &h->exited);
    ck_assert_uint_eq(h->bytes[0], 190000);
    ck_assert_uint_eq(h->exit.flags, 0);
}
END_TEST

/* Whatever a workload prints is output. */
START_TEST(test_forged_frames)
{
    struct rig_handle *h = agent_rig_sh(
        &rig, NULL,
        "printf '\\124\\0\\0\\0\\103\\0\\0\\0\\1\\0\\0\\0';"
        "head -c 84 /dev/zero;"
        "printf '{\"outcome\":\"ok\"}\\033[2J'; "
        "for f in 3 4 5 6 7 8 9; do echo x >&$f; done 2>/dev/null; exit 7");

    ck_assert_uint_eq(h->exit.code, 7);
    ck_assert_uint_eq(h->bytes[0], 12 + 84 + 20);
}
END_TEST

/* ---- limits and leftovers ----------------------------------------------- */

/* True if a file made in the sandbox exists there. */
static bool exists(const char *path)
{
    char script[128];

    snprintf(script, sizeof(script), "test -e %s", path);
    return agent_rig_sh(&rig, "root", script)->exit.code == 0;
}

/* Of a process that must not outlive its exec: it acts when the exec is over,
   and is given time to. */
#define LATE                                                                   \
    "until test -e /tmp/microsbx-go; do sleep 0.02; done; touch "              \
    "/tmp/microsbx-late"

static void check_not_late(void)
{
    agent_rig_sh(&rig, "root", "touch /tmp/microsbx-go");
    usleep(300000);
    ck_assert(!exists("/tmp/microsbx-late"));
}

START_TEST(test_timeout_kills_the_tree)
{
    const char *const argv[] = {"sh", "-c",
                                "echo partial; (setsid sh -c '" LATE "' &) ; "
                                "trap '' TERM INT HUP; sleep 100",
                                NULL};
    const struct agent_exec_request request = {.argv = argv,
                                               .timeout_ms = 1000};
    struct rig_handle *h = agent_rig_run(&rig, &request);

    ck_assert_uint_eq(h->exit.signal, SIGKILL);
    ck_assert_uint_eq(h->exit.flags, PROTO_EXIT_TIMED_OUT);
    ck_assert_str_eq(h->text[0], "partial\n");
    ck_assert_uint_ge(h->exit.wall_ms, 1000);
    check_not_late();
}
END_TEST

/* What a command leaves behind is killed, and holds up nothing. */
START_TEST(test_leftovers)
{
    struct rig_handle *h =
        agent_rig_sh(&rig, NULL,
                     "(setsid sh -c '" LATE "' &); sleep 50 & "
                     "echo done; exit 5");

    ck_assert_uint_eq(h->exit.code, 5);
    ck_assert_uint_eq(h->exit.flags, PROTO_EXIT_LEFTOVERS);
    ck_assert_uint_lt(h->exit.wall_ms, 50000);
    ck_assert_str_eq(h->text[0], "done\n");
    check_not_late();
}
END_TEST

/* With `leave` they go on, without holding up the end or what comes next. */
START_TEST(test_leave)
{
    const char *const argv[] = {
        "sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $! >/tmp/pid; exit 5",
        NULL};
    const struct agent_exec_request request = {.argv = argv, .leave = true};
    struct rig_handle *h = agent_rig_run(&rig, &request);

    ck_assert_uint_eq(h->exit.code, 5);
    ck_assert_uint_eq(h->exit.flags, PROTO_EXIT_LEFTOVERS);
    ck_assert_uint_lt(h->exit.wall_ms, 300000);
    h = agent_rig_sh(&rig, NULL,
                     "kill -0 $(cat /tmp/pid) && kill -9 $(cat "
                     "/tmp/pid); echo $?");
    ck_assert_str_eq(h->text[0], "0\n");
}
END_TEST

/* A timeout is a timeout all the same. */
START_TEST(test_leave_and_timeout)
{
    const char *const argv[] = {
        "sh", "-c", "setsid sleep 300 & echo $! >/tmp/pid; sleep 100", NULL};
    const struct agent_exec_request request = {
        .argv = argv, .timeout_ms = 300, .leave = true};
    struct rig_handle *h = agent_rig_run(&rig, &request);

    ck_assert_uint_eq(h->exit.flags, PROTO_EXIT_TIMED_OUT);
    h = agent_rig_sh(&rig, NULL, "kill -0 $(cat /tmp/pid)");
    ck_assert_uint_ne(h->exit.code, 0);
}
END_TEST

/* root against its own sandbox: the agent and the next exec do not care. */
static const char *const attacks[] = {
    "kill -9 -1; exit 3",
    "kill -9 1; kill -STOP 1; kill -SEGV 1; exit 3",
    "chmod 000 /bin/sh /usr/bin/dash; exit 3",
    "rm -rf /dev/* /home/sandbox /etc/passwd 2>/dev/null; exit 3",
    "rm -f /etc/passwd; mkfifo /etc/passwd; exit 3",
    "ln -sf /dev/zero /etc/passwd; exit 3",
};

START_TEST(test_attack)
{
    const char *const argv[] = {"/usr/bin/id", "-u", NULL};
    const struct agent_exec_request request = {.argv = argv, .user = "root"};
    struct rig_handle *h = agent_rig_sh(&rig, "root", attacks[_i]);

    ck_assert(h->exited);
    ck_assert_uint_eq(h->exit.code, 3);
    h = agent_rig_run(&rig, &request);
    ck_assert_msg(h->exited, "reason %u err %d", h->failure.reason,
                  h->failure.err);
    ck_assert_str_eq(h->text[0], "0\n");
}
END_TEST

/* Only where the host's cgroup2 has the controllers. */
START_TEST(test_pids_limit)
{
    const char *const argv[] = {
        "sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 0.5; exit 0", NULL};
    const struct agent_exec_request request = {.argv = argv, .pids_max = 20};
    struct rig_handle *h = agent_rig_run(&rig, &request);

    ck_assert(h->exit.flags & PROTO_EXIT_PIDS);
    ck_assert_uint_gt(h->exit.pids_hits, 0);
}
END_TEST

START_TEST(test_memory_limit)
{
    const char *const argv[] = {"sh", "-c", "tail /dev/zero", NULL};
    const struct agent_exec_request request = {.argv = argv,
                                               .memory_max = 32u << 20};
    struct rig_handle *h = agent_rig_run(&rig, &request);

    ck_assert(h->exit.flags & PROTO_EXIT_OOM);
    ck_assert_uint_eq(h->exit.signal, SIGKILL);
    ck_assert_uint_gt(h->exit.memory_peak, 16u << 20);
}
END_TEST

/* ---- control ------------------------------------------------------------ */

START_TEST(test_signal_and_cancel)
{
    const char *const argv[] = {"sh", "-c",
                                "trap 'echo got; exit 9' TERM; echo ready; "
                                "while :; do sleep 0.05; done",
                                NULL};
    const struct agent_exec_request request = {.argv = argv};
    uint32_t id[2];
    struct rig_handle *a = agent_rig_send(&rig, &request, &id[0]);
    struct rig_handle *b = agent_rig_send(&rig, &request, &id[1]);

    while (a->bytes[0] == 0 || b->bytes[0] == 0)
        agent_rig_turn(&rig, 1000);
    ck_assert_int_eq(agent_client_signal(rig.client, id[0], SIGTERM), 0);
    ck_assert_int_eq(agent_client_cancel(rig.client, id[1]), 0);
    agent_rig_wait(&rig, &a->exited);
    agent_rig_wait(&rig, &b->exited);
    ck_assert_str_eq(a->text[0], "ready\ngot\n");
    ck_assert_uint_eq(a->exit.code, 9);
    ck_assert_uint_eq(b->exit.signal, SIGKILL);
    ck_assert_uint_eq(b->exit.flags, PROTO_EXIT_CANCELLED);
    ck_assert_int_eq(agent_client_signal(rig.client, id[0], SIGTERM), -ENOENT);
}
END_TEST

START_TEST(test_many_at_once)
{
    const char *const argv[] = {"sh", "-c", "read x; echo $x", NULL};
    const struct agent_exec_request request = {.argv = argv,
                                               .open_stdin = true};
    struct rig_handle *h[PROTO_HANDLES_MAX];
    uint32_t id[PROTO_HANDLES_MAX], extra;

    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++)
        h[i] = agent_rig_send(&rig, &request, &id[i]);
    ck_assert_int_eq(agent_client_exec(rig.client, &request, &extra), -EBUSY);
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        char line[16];
        int len = snprintf(line, sizeof(line), "%zu\n", i);

        ck_assert_int_eq(
            agent_client_stdin_write(rig.client, id[i], line, (size_t)len),
            len);
    }
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        agent_rig_wait(&rig, &h[i]->exited);
        ck_assert_int_eq(atoi(h[i]->text[0]), (int)i);
    }
    ck_assert_uint_eq(agent_client_live(rig.client), 0);
}
END_TEST

START_TEST(test_terminal)
{
    const char *const argv[] = {
        "sh", "-c",
        "test -t 0 && test -t 1 && test -t 2 && stty size; "
        "trap 'stty size; exit 4' WINCH; echo ready >/dev/tty; "
        "while :; do sleep 0.05; done",
        NULL};
    const struct agent_exec_request request = {
        .argv = argv, .tty = true, .rows = 33, .cols = 101, .open_stdin = true};
    uint32_t id;
    struct rig_handle *h = agent_rig_send(&rig, &request, &id);

    while (!strstr(h->text[0], "ready"))
        agent_rig_turn(&rig, 1000);
    ck_assert_int_eq(agent_client_winsize(rig.client, id, 50, 60), 0);
    agent_rig_wait(&rig, &h->exited);
    ck_assert_str_eq(h->text[0], "33 101\r\nready\r\n50 60\r\n");
    ck_assert_uint_eq(h->exit.code, 4);
}
END_TEST

START_TEST(test_terminal_end_of_input)
{
    const char *const argv[] = {"cat", NULL};
    const struct agent_exec_request request = {
        .argv = argv, .tty = true, .open_stdin = true};
    uint32_t id;
    struct rig_handle *h = agent_rig_send(&rig, &request, &id);

    ck_assert_int_eq(agent_client_stdin_write(rig.client, id, "hi\n", 3), 3);
    ck_assert_int_eq(agent_client_stdin_close(rig.client, id), 0);
    agent_rig_wait(&rig, &h->exited);
    ck_assert_str_eq(h->text[0], "hi\r\nhi\r\n");
}
END_TEST

/* The connection breaks in the middle of everything: the agent ends by
   itself, which it does only when all its processes are gone. */
START_TEST(test_connection_lost)
{
    static const char *const scripts[] = {"sleep 100 & setsid sleep 100", "yes",
                                          "cat >/dev/null", "read x"};
    struct agent_exec_request request = {.open_stdin = true};
    struct timespec a, b;
    uint32_t id;

    for (size_t i = 0; i < 4; i++) {
        const char *const argv[] = {"sh", "-c", scripts[i], NULL};

        request.argv = argv;
        agent_rig_send(&rig, &request, &id);
    }
    for (int i = 0; i < 10; i++)
        agent_rig_turn(&rig, 20);
    clock_gettime(CLOCK_MONOTONIC, &a);
    stop();
    clock_gettime(CLOCK_MONOTONIC, &b);
    ck_assert_int_lt((int)(b.tv_sec - a.tv_sec), 3);
    start();
}
END_TEST

/* A guest without a root file system answers, and says so. */
START_TEST(test_no_root)
{
    struct rig_handle *h;
    uint32_t id;

    stop();
    rig_without_root = true;
    start();
    ck_assert_uint_eq(rig.hello_frame.features, PROTO_FEATURE_SNAPSHOT |
                                                    PROTO_FEATURE_LEAVE |
                                                    PROTO_FEATURE_DISK);
    h = agent_rig_sh(&rig, NULL, "true");
    ck_assert_uint_eq(h->failure.reason, PROTO_FAIL_NO_ROOT);
    ck_assert_int_eq(agent_client_stat(rig.client, "/", NULL, &id), 0);
    agent_rig_wait(&rig, &rig.handles[id].file_done);
    ck_assert_uint_eq(rig.handles[id].done.err, ENODEV);
}
END_TEST

static TCase *make_case(const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, start, stop);
    tcase_set_timeout(tc, 120);
    return tc;
}

static void add_streams(Suite *s)
{
    TCase *tc = make_case("streams");

    tcase_add_test(tc, test_environment);
    tcase_add_test(tc, test_large_argv);
    tcase_add_test(tc, test_stdin_50_mib_and_back);
    tcase_add_test(tc, test_stdin_not_read);
    tcase_add_test(tc, test_slow_reader);
    tcase_add_test(tc, test_slow_reader_after_exit);
    tcase_add_test(tc, test_forged_frames);
    suite_add_tcase(s, tc);
}

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

int main(void)
{
    Suite *s = suite_create("agent");
    TCase *tc = make_case("status");
    SRunner *sr = srunner_create(s);
    uint32_t features = 0;
    const char *why = agent_rig_probe(&features);
    int failed;

    if (why) {
        printf("skipped: check_agent: %s\n", why);
        return SKIPPED;
    }
    tcase_add_loop_test(tc, test_status, 0, COUNT(statuses));
    tcase_add_loop_test(tc, test_failure, 0, COUNT(failures));
    tcase_add_test(tc, test_no_shell_guess);
    tcase_add_loop_test(tc, test_place, 0, COUNT(places));
    tcase_add_test(tc, test_longest_user);
    suite_add_tcase(s, tc);
    add_streams(s);
    tc = make_case("limits");
    tcase_add_test(tc, test_timeout_kills_the_tree);
    tcase_add_test(tc, test_leftovers);
    tcase_add_test(tc, test_leave);
    tcase_add_test(tc, test_leave_and_timeout);
    tcase_add_loop_test(tc, test_attack, 0, COUNT(attacks));
    if (features & PROTO_FEATURE_PIDS)
        tcase_add_test(tc, test_pids_limit);
    else
        printf("skip - check_agent test_pids_limit: cgroup2 has no pids "
               "controller here\n");
    if (features & PROTO_FEATURE_MEMORY)
        tcase_add_test(tc, test_memory_limit);
    else
        printf("skip - check_agent test_memory_limit: cgroup2 has no memory "
               "controller here\n");
    suite_add_tcase(s, tc);
    tc = make_case("control");
    tcase_add_test(tc, test_signal_and_cancel);
    tcase_add_test(tc, test_many_at_once);
    tcase_add_test(tc, test_terminal);
    tcase_add_test(tc, test_terminal_end_of_input);
    tcase_add_test(tc, test_connection_lost);
    tcase_add_test(tc, test_no_root);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
