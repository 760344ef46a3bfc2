/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real agent around a freeze, as a process of this host: what it does to
 * be frozen, what it refuses until it was restored, what goes on and what does
 * not. Its kernel is the rig's, which only writes down what it is asked for.
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

#include "guest/identity.h"
#include "guest/kernel.h"
#include "guest/sysfile.h"
#include "tests/agent_rig.h"

#define SKIPPED 77
#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))
/* A part of a script that waits for a file. */
#define UNTIL(file) "until test -e " file "; do sleep 0.02; done; "
#define READ_BOOT_ID "cat " IDENTITY_KERNEL_BOOT_ID

static struct agent_rig rig;

static void start(void)
{
    agent_rig_start(&rig);
}

static void stop(void)
{
    ck_assert_int_eq(agent_rig_stop(&rig), 2);
}

static struct proto_restore fresh(void)
{
    struct proto_restore m;

    memset(&m, 0, sizeof(m));
    m.flags = PROTO_RESTORE_FRESH;
    m.realtime_ns = 1700000000123456789;
    for (size_t i = 0; i < sizeof(m.entropy); i++)
        m.entropy[i] = (uint8_t)(i + 1);
    return m;
}

static struct proto_restore pinned(uint64_t seed)
{
    struct proto_restore m;

    memset(&m, 0, sizeof(m));
    m.flags = PROTO_RESTORE_PINNED;
    m.realtime_ns = 1000000000000000000;
    m.seed = seed;
    return m;
}

static struct proto_restore same(void)
{
    struct proto_restore m;

    memset(&m, 0, sizeof(m));
    m.flags = PROTO_RESTORE_SAME;
    return m;
}

static void quiesce(uint32_t flags)
{
    ck_assert_uint_eq(agent_rig_quiesce(&rig, flags)->err, 0);
}

/* What a machine of the snapshot does first. */
static void wake_up(const struct proto_restore *request)
{
    agent_rig_reconnect(&rig);
    ck_assert(rig.hello_frame.features & PROTO_FEATURE_PARKED);
    ck_assert_uint_eq(agent_rig_restore(&rig, request)->err, 0);
}

static const char *sh(const char *script)
{
    struct rig_handle *h = agent_rig_sh(&rig, NULL, script);

    ck_assert_msg(h->exited && h->exit.code == 0, "%s: code %u, reason %u",
                  script, h->exit.code, h->failure.reason);
    return h->text[0];
}

/* Kernel, files and resolver agree on the machine's own name. */
static void check_own_name(void)
{
    ck_assert_str_eq(sh("n=$(hostname) && test $(cat /etc/hostname) = $n && "
                        "set -- $(getent -s files hosts $n) && echo $1"),
                     "127.0.1.1\n");
}

/* ---- quiesce ------------------------------------------------------------ */

static const struct {
    uint32_t flags;
    const char *calls;
} quiesces[] = {
    {0, "sync "},
    {PROTO_QUIESCE_FREE_MEMORY, "sync drop_caches zero_free "},
    {PROTO_QUIESCE_PINNED, "sync draw reseed "},
    {PROTO_QUIESCE_FREE_MEMORY | PROTO_QUIESCE_PINNED,
     "sync drop_caches zero_free draw reseed "},
    {PROTO_QUIESCE_KEEP, "sync "},
    {PROTO_QUIESCE_KEEP | PROTO_QUIESCE_PINNED, "sync draw reseed "},
};

START_TEST(test_quiesce)
{
    const struct proto_quiesced *q =
        agent_rig_quiesce(&rig, quiesces[_i].flags);
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    ck_assert_uint_eq(q->err, 0);
    ck_assert_str_eq(rig.kernel->calls, quiesces[_i].calls);
    ck_assert_uint_gt(q->memory_free, 1u << 20);
    ck_assert_uint_le(q->uptime_ms / 1000, (uint64_t)now.tv_sec);
    ck_assert_uint_gt(q->uptime_ms / 1000 + 10, (uint64_t)now.tv_sec);
    if (!(quiesces[_i].flags & PROTO_QUIESCE_PINNED))
        ck_assert_uint_eq(q->pin_window_ms, 0);
}
END_TEST

static const struct {
    const char *fails;
    uint32_t flags;
} faults[] = {
    {"sync", 0},
    {"sync", PROTO_QUIESCE_KEEP},
    {"drop_caches", PROTO_QUIESCE_FREE_MEMORY},
    {"zero_free", PROTO_QUIESCE_FREE_MEMORY},
    {"draw", PROTO_QUIESCE_PINNED},
    {"reseed", PROTO_QUIESCE_PINNED},
};

/* What fails is said, and nothing was parked. */
START_TEST(test_quiesce_fails)
{
    strcpy(rig.kernel->fails, faults[_i].fails);
    ck_assert_uint_eq(agent_rig_quiesce(&rig, faults[_i].flags)->err, EPERM);
    ck_assert_str_eq(sh("echo still here"), "still here\n");
    agent_rig_reconnect(&rig);
    ck_assert(!(rig.hello_frame.features & PROTO_FEATURE_PARKED));
    /* A parked machine stays parked when asked in vain. */
    rig.kernel->fails[0] = '\0';
    quiesce(0);
    strcpy(rig.kernel->fails, faults[_i].fails);
    ck_assert_uint_eq(agent_rig_quiesce(&rig, faults[_i].flags)->err, EPERM);
    agent_rig_reconnect(&rig);
    ck_assert(rig.hello_frame.features & PROTO_FEATURE_PARKED);
}
END_TEST

/* A kernel out of memory takes the helper, which had done what is needed. */
START_TEST(test_quiesce_out_of_memory)
{
    rig.kernel->out_of_memory = true;
    quiesce(PROTO_QUIESCE_FREE_MEMORY);
}
END_TEST

static const char *const busy[] = {"sleep 100", "read x; sleep 100", "cat"};

START_TEST(test_quiesce_busy)
{
    const char *const argv[] = {"sh", "-c", busy[_i], NULL};
    const struct agent_exec_request request = {.argv = argv,
                                               .open_stdin = true};
    uint32_t id;
    struct rig_handle *h = agent_rig_send(&rig, &request, &id);

    /* Asked for in one breath with the exec, and of one that runs. */
    ck_assert_uint_eq(agent_rig_quiesce(&rig, 0)->err, EBUSY);
    agent_rig_wait(&rig, &h->started);
    ck_assert_uint_eq(agent_rig_quiesce(&rig, 0)->err, EBUSY);
    ck_assert_str_eq(rig.kernel->calls, "");
    ck_assert_int_eq(agent_client_cancel(rig.client, id), 0);
    agent_rig_wait(&rig, &h->exited);
    quiesce(0);
}
END_TEST

/* A second one while the first is at work has its own answer; the client does
   not even ask. */
START_TEST(test_quiesce_twice)
{
    ck_assert_int_eq(agent_client_quiesce(rig.client, 0), 0);
    ck_assert_int_eq(agent_client_quiesce(rig.client, 0), -EBUSY);
    agent_rig_wait(&rig, &rig.quiesced);
    ck_assert_uint_eq(rig.quiesced_frame.err, 0);
    quiesce(PROTO_QUIESCE_FREE_MEMORY);
}
END_TEST

START_TEST(test_bad_requests)
{
    struct proto_restore request = fresh();

    ck_assert_int_eq(agent_client_quiesce(rig.client, 8), -EINVAL);
    ck_assert_int_eq(
        agent_client_quiesce(rig.client,
                             PROTO_QUIESCE_KEEP | PROTO_QUIESCE_FREE_MEMORY),
        -EINVAL);
    request.flags = 0;
    ck_assert_int_eq(agent_client_restore(rig.client, &request), -EINVAL);
}
END_TEST

/* ---- parked ------------------------------------------------------------- */

static void expect_refusals(void)
{
    struct agent_attach_request attach = {0};
    struct rig_handle *h = agent_rig_sh(&rig, NULL, "true");
    uint32_t id;

    ck_assert(h->failed);
    ck_assert_uint_eq(h->failure.reason, PROTO_FAIL_PARKED);
    ck_assert_int_eq(h->failure.err, EAGAIN);
    ck_assert_int_eq(agent_client_stat(rig.client, "/", NULL, &id), 0);
    agent_rig_wait(&rig, &rig.handles[id].file_done);
    ck_assert_uint_eq(rig.handles[id].done.err, EAGAIN);
    ck_assert_int_eq(agent_client_mkdir(rig.client, "/tmp/d", NULL, 0755, &id),
                     0);
    agent_rig_wait(&rig, &rig.handles[id].file_done);
    ck_assert_uint_eq(rig.handles[id].done.err, EAGAIN);
    ck_assert_int_eq(agent_client_attach(rig.client, &attach, &id), 0);
    agent_rig_wait(&rig, &rig.handles[id].failed);
    ck_assert_uint_eq(rig.handles[id].failure.reason, PROTO_FAIL_PARKED);
}

START_TEST(test_parked_refuses)
{
    const struct proto_restore request = fresh();

    quiesce(0);
    expect_refusals();
    agent_rig_reconnect(&rig);
    ck_assert(rig.hello_frame.features & PROTO_FEATURE_PARKED);
    expect_refusals();
    agent_rig_reconnect(&rig);
    expect_refusals();
    ck_assert_uint_eq(agent_rig_restore(&rig, &request)->err, 0);
    ck_assert_str_eq(sh("test ! -e /tmp/d && echo alive"), "alive\n");
    agent_rig_reconnect(&rig);
    ck_assert(!(rig.hello_frame.features & PROTO_FEATURE_PARKED));
    ck_assert_str_eq(sh("echo alive"), "alive\n");
}
END_TEST

/* It goes on without having been frozen, on a new connection or the same. */
START_TEST(test_same)
{
    const struct proto_restore request = same();
    char before[PROTO_BOOT_ID_MAX + 1];

    strcpy(before, sh(READ_BOOT_ID));
    quiesce(0);
    if (_i)
        agent_rig_reconnect(&rig);
    rig.kernel->calls[0] = '\0';
    ck_assert_uint_eq(agent_rig_restore(&rig, &request)->err, 0);
    ck_assert_str_eq(rig.kernel->calls, "");
    ck_assert_int_eq(
        strncmp(rig.restored_frame.boot_id, before, PROTO_BOOT_ID_MAX - 1), 0);
    ck_assert_str_eq(sh(READ_BOOT_ID), before);
    ck_assert_str_eq(sh("hostname"), "microsbx\n");
    /* There is nothing to restore any more. */
    ck_assert_uint_eq(agent_rig_restore(&rig, &request)->err, EALREADY);
    ck_assert_uint_eq(rig.restored_frame.step, PROTO_STEP_STATE);
}
END_TEST

/* ---- restore ------------------------------------------------------------ */

START_TEST(test_fresh)
{
    struct proto_restore request = fresh();
    char ids[3][PROTO_BOOT_ID_MAX + 1];
    char expected[PROTO_HOSTNAME_MAX];

    strcpy(ids[0], sh(READ_BOOT_ID));
    check_own_name();
    agent_rig_sh(&rig, "root", "echo 10.0.0.1 mine >>/etc/hosts");
    for (size_t i = 1; i < 3; i++) {
        quiesce(0);
        rig.kernel->calls[0] = '\0';
        wake_up(&request);
        ck_assert_str_eq(rig.kernel->calls,
                         "add_entropy reseed set_clock set_hostname ");
        ck_assert_mem_eq(rig.kernel->entropy, request.entropy,
                         sizeof(request.entropy));
        ck_assert_int_eq(rig.kernel->realtime_ns, request.realtime_ns);
        strcpy(ids[i], sh(READ_BOOT_ID));
        ck_assert_int_eq(
            strncmp(ids[i], rig.restored_frame.boot_id, PROTO_BOOT_ID_MAX - 1),
            0);
        snprintf(expected, sizeof(expected), "microsbx-%.8s\n", ids[i]);
        ck_assert_str_eq(sh("hostname"), expected);
        ck_assert_int_eq(strncmp(rig.kernel->hostname, expected,
                                 strlen(rig.kernel->hostname)),
                         0);
        check_own_name();
    }
    ck_assert_str_ne(ids[0], ids[1]);
    ck_assert_str_ne(ids[1], ids[2]);
    ck_assert_str_ne(ids[0], ids[2]);
    quiesce(0);
    strcpy(request.hostname, "trial-7.example");
    wake_up(&request);
    ck_assert_str_eq(sh("hostname"), "trial-7.example\n");
    check_own_name();
    /* One line of ours, and what root wrote is still there. */
    ck_assert_str_eq(sh("grep -e microsbx -e trial-7 -e mine /etc/hosts"),
                     "127.0.1.1\ttrial-7.example\ttrial-7\n10.0.0.1 mine\n");
}
END_TEST

/* Root in the sandbox neither changes the boot id nor looks below it. */
START_TEST(test_boot_id_is_out_of_reach)
{
    const struct proto_restore request = fresh();
    struct rig_handle *h;

    quiesce(0);
    wake_up(&request);
    h = agent_rig_sh(&rig, "root",
                     "cd /proc/sys/kernel/random; "
                     "(echo x >boot_id) 2>/dev/null && echo written; "
                     "chmod 777 boot_id 2>/dev/null && echo mode; "
                     "rm -f boot_id 2>/dev/null && echo removed; "
                     "umount boot_id 2>/dev/null && echo unmounted; "
                     "unshare -Urm sh -c 'umount boot_id' 2>/dev/null && "
                     "echo uncovered; cat boot_id");
    ck_assert_uint_eq(h->bytes[0], PROTO_BOOT_ID_MAX);
    ck_assert_int_eq(
        strncmp(h->text[0], rig.restored_frame.boot_id, PROTO_BOOT_ID_MAX - 1),
        0);
}
END_TEST

/* The same seed is the same machine, another one another. */
START_TEST(test_pinned)
{
    static const uint64_t seeds[] = {1, 2, 1, UINT64_MAX};
    char ids[4][PROTO_BOOT_ID_MAX + 1];

    for (size_t i = 0; i < 4; i++) {
        struct proto_restore request = pinned(seeds[i]);

        /* Whether it is also told a limit makes no difference. */
        if (i > 1) {
            request.flags |= PROTO_RESTORE_LIMIT;
            request.scratch_limit = 1 << 20;
        }
        quiesce(PROTO_QUIESCE_PINNED);
        rig.kernel->calls[0] = '\0';
        wake_up(&request);
        ck_assert_str_eq(rig.kernel->calls, "draw set_clock set_hostname ");
        ck_assert_uint_eq(rig.kernel->draws, identity_seed_draws(seeds[i]));
        ck_assert_int_eq(rig.kernel->realtime_ns, request.realtime_ns);
        strcpy(ids[i], sh(READ_BOOT_ID));
    }
    ck_assert_str_eq(ids[0], ids[2]);
    ck_assert_str_ne(ids[0], ids[1]);
    ck_assert_str_ne(ids[0], ids[3]);
}
END_TEST

static const struct {
    const char *fails;
    bool pinned;
    uint32_t step;
} restore_faults[] = {
    {"add_entropy", false, PROTO_STEP_RANDOM},
    {"reseed", false, PROTO_STEP_RANDOM},
    {"draw", true, PROTO_STEP_RANDOM},
    {"set_clock", false, PROTO_STEP_CLOCK},
    {"set_clock", true, PROTO_STEP_CLOCK},
    {"set_hostname", false, PROTO_STEP_HOSTNAME},
};

START_TEST(test_restore_fails)
{
    const struct proto_restore request =
        restore_faults[_i].pinned ? pinned(5) : fresh();

    quiesce(0);
    agent_rig_reconnect(&rig);
    strcpy(rig.kernel->fails, restore_faults[_i].fails);
    ck_assert_uint_eq(agent_rig_restore(&rig, &request)->err, EPERM);
    ck_assert_uint_eq(rig.restored_frame.step, restore_faults[_i].step);
    ck_assert_str_eq(rig.restored_frame.boot_id, "");
    expect_refusals();
    rig.kernel->fails[0] = '\0';
    ck_assert_uint_eq(agent_rig_restore(&rig, &request)->err, 0);
    ck_assert_str_eq(sh("echo alive"), "alive\n");
}
END_TEST

/* Without a root file system there is no boot id to give: it is said. */
START_TEST(test_restore_without_root)
{
    const struct proto_restore request = fresh();

    stop();
    rig_without_root = true;
    start();
    quiesce(0);
    ck_assert_uint_eq(agent_rig_restore(&rig, &request)->err, ENODEV);
    ck_assert_uint_eq(rig.restored_frame.step, PROTO_STEP_BOOT_ID);
}
END_TEST

/* The keeper dies: the namespaces that come after it look the same. */
START_TEST(test_identity_survives_the_sandbox)
{
    const struct proto_restore request = fresh();
    char command[64], before[128];
    char pid[16] = "";
    FILE *f;

    quiesce(0);
    wake_up(&request);
    strcpy(before, sh(READ_BOOT_ID "; hostname"));
    snprintf(command, sizeof(command), "pgrep -P %d -x keeper", rig.agent);
    f = popen(command, "re");
    ck_assert(f && fgets(pid, sizeof(pid), f));
    pclose(f);
    ck_assert_int_eq(kill(atoi(pid), SIGKILL), 0);
    /* Gone when the agent has seen it. */
    while (kill(atoi(pid), 0) == 0)
        agent_rig_turn(&rig, 20);
    ck_assert_str_eq(sh(READ_BOOT_ID "; hostname"), before);
    check_own_name();
}
END_TEST

START_TEST(test_seeds)
{
    uint8_t seen[65536 / 8] = {0};
    unsigned int distinct = 0;
    char id[PROTO_BOOT_ID_MAX], other[PROTO_BOOT_ID_MAX];

    for (uint64_t seed = 0; seed < 65536; seed++) {
        uint32_t draws = identity_seed_draws(seed);

        ck_assert_uint_lt(draws, 65536);
        distinct += !(seen[draws / 8] & (1u << draws % 8));
        seen[draws / 8] |= (uint8_t)(1u << draws % 8);
    }
    /* As many as of that many random numbers: 1 - 1/e of them. */
    ck_assert_uint_gt(distinct, 65536 * 62 / 100);
    ck_assert_uint_lt(distinct, 65536 * 65 / 100);
    identity_seed_boot_id(0, id);
    identity_seed_boot_id(1, other);
    ck_assert_str_ne(id, other);
    ck_assert_int_eq(id[14], '4');
    ck_assert(strchr("89ab", id[19]));
}
END_TEST

static const struct {
    const char *release;
    uint64_t uptime_ms, window_ms;
} windows[] = {
    {"6.1.0-49-cloud-amd64", 200000, 60000},
    {"6.1.192", 120000, 60000},
    {"6.1.192", 62000, 60000},
    {"6.1.192", 61999, 59999},
    {"6.1.192", 30000, 28000},
    {"6.1.192", 3000, 1000},
    {"6.1.192", 500, 1000},
    {"5.18.0", 200000, 60000},
    {"5.17.0", 200000, 0},
    {"6.2.0", 200000, 0},
    {"6.18.44", 200000, 0},
    {"7.0", 200000, 0},
    {"Linux", 200000, 0},
    {"", 200000, 0},
};

START_TEST(test_pin_window)
{
    ck_assert_uint_eq(
        kernel_pin_window_ms(windows[_i].release, windows[_i].uptime_ms),
        windows[_i].window_ms);
}
END_TEST

/*
 * The rule against the kernel's own, crng_reseed_interval() of Linux 6.1, at
 * every uptime and every moment of the window: never too long.
 */
START_TEST(test_pin_window_holds)
{
    for (uint64_t u = 1000; u < 130000; u += 137) {
        uint64_t window = kernel_pin_window_ms("6.1.0", u);

        for (uint64_t t = u; t <= u + window; t += 93) {
            uint64_t interval = t / 1000 / 2 * 1000;

            if (interval < 1000)
                interval = 1000;
            if (t / 1000 >= 120)
                interval = 60000;
            ck_assert_msg(t - u <= interval, "key of %u is too old at %u",
                          (unsigned)u, (unsigned)t);
        }
    }
}
END_TEST

/* As a guest of 6 GiB says it, shortened. */
START_TEST(test_reserve)
{
    char text[] = "Node 0, zone      DMA\n"
                  "  per-node stats\n"
                  "      nr_inactive_anon 59\n"
                  "  pages free     3840\n"
                  "        boost    0\n"
                  "        min      41\n"
                  "        low      51\n"
                  "        high     61\n"
                  "        spanned  4095\n"
                  "        present  3998\n"
                  "        managed  3840\n"
                  "        protection: (0, 2943, 5905, 5905)\n"
                  "  pagesets\n"
                  "    cpu: 0\n"
                  "              count: 0\n"
                  "              high:  14\n"
                  "Node 0, zone    DMA32\n"
                  "  pages free     753486\n"
                  "        high     12000\n"
                  "        managed  753486\n"
                  "        protection: (0, 0, 2961, 2961)\n"
                  "Node 0, zone   Normal\n"
                  "  pages free     700000\n"
                  "        high     13000\n"
                  "        managed  758123\n"
                  "        protection: (0, 0, 0, 0)\n"
                  "Node 0, zone  Movable\n"
                  "  pages free     0\n"
                  "        high     32\n"
                  "        managed  0\n"
                  "        protection: (0, 0, 0, 0)\n";
    char nothing[] = "";

    ck_assert_uint_eq(kernel_reserve(text),
                      (3840u + 12000 + 2961 + 13000) *
                          (uint64_t)sysconf(_SC_PAGESIZE));
    ck_assert_uint_eq(kernel_reserve(nothing), 0);
}
END_TEST

/* ---- the warm process --------------------------------------------------- */

#define SERVER                                                                 \
    "echo ready; while read line; do echo got $line; done; echo end; exit 3"

static uint32_t start_warm(const char *script)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    const struct agent_exec_request request = {.argv = argv, .warm = true};
    uint32_t id;
    struct rig_handle *h = agent_rig_send(&rig, &request, &id);

    while (!strchr(h->text[0], '\n'))
        agent_rig_turn(&rig, 1000);
    ck_assert_str_eq(h->text[0], "ready\n");
    return id;
}

static struct rig_handle *attach(const struct agent_attach_request *request,
                                 uint32_t *ret_id)
{
    struct rig_handle *h;

    ck_assert_int_eq(agent_client_attach(rig.client, request, ret_id), 0);
    h = &rig.handles[*ret_id];
    while (!h->started && !h->failed)
        agent_rig_turn(&rig, 1000);
    return h;
}

static void feed(uint32_t id, const char *text)
{
    ck_assert_int_eq(
        agent_client_stdin_write(rig.client, id, text, strlen(text)),
        (ssize_t)strlen(text));
}

static void wait_text(struct rig_handle *h, const char *text)
{
    while (!h->exited && strlen(h->text[0]) < strlen(text))
        agent_rig_turn(&rig, 1000);
    ck_assert_str_eq(h->text[0], text);
}

START_TEST(test_warm)
{
    const struct proto_restore request = fresh();
    const struct agent_attach_request limits = {0};
    struct rig_handle *h;
    uint32_t id = start_warm(SERVER);

    feed(id, "one\n");
    wait_text(&rig.handles[id], "ready\ngot one\n");
    quiesce(PROTO_QUIESCE_FREE_MEMORY);
    agent_rig_reconnect(&rig);
    usleep(50000);
    ck_assert_uint_eq(agent_rig_restore(&rig, &request)->err, 0);
    /* Other execs have ids beside it. */
    ck_assert_str_eq(sh("echo beside"), "beside\n");
    h = attach(&limits, &id);
    ck_assert(h->started);
    ck_assert_uint_eq(h->bytes[0], 0);
    feed(id, "two\n");
    wait_text(h, "got two\n");
    ck_assert_int_eq(agent_client_stdin_close(rig.client, id), 0);
    agent_rig_wait(&rig, &h->exited);
    ck_assert_str_eq(h->text[0], "got two\nend\n");
    ck_assert_uint_eq(h->exit.code, 3);
    ck_assert_uint_eq(h->exit.flags, 0);
    ck_assert_uint_eq(h->exit.stdin_bytes, 4);
    /* There is none any more. */
    h = attach(&limits, &id);
    ck_assert(h->failed);
    ck_assert_uint_eq(h->failure.reason, PROTO_FAIL_NO_WARM);
}
END_TEST

/* Ten freezes deep, answering between them. */
START_TEST(test_warm_again_and_again)
{
    const struct proto_restore request = fresh();
    const struct agent_attach_request limits = {0};
    struct rig_handle *h;
    uint32_t id = start_warm(SERVER);

    for (int i = 0; i < 10; i++) {
        quiesce(0);
        wake_up(&request);
        if (i % 3 == 2) /* not attached this time */
            continue;
        h = attach(&limits, &id);
        feed(id, "x\n");
        wait_text(h, "got x\n");
    }
}
END_TEST

/* A process without a connection is not read: what it says waits for it. */
START_TEST(test_warm_output_waits)
{
    const struct proto_restore request = fresh();
    const struct agent_attach_request limits = {0};
    struct rig_handle *h;
    uint32_t id = start_warm("echo ready; " UNTIL(
        "/tmp/microsbx-go") "echo late; "
                            "echo bad >&2; touch /tmp/microsbx-done; read x");

    quiesce(0);
    wake_up(&request);
    ck_assert_str_eq(sh("touch /tmp/microsbx-go; " UNTIL(
                         "/tmp/microsbx-done") "echo beside"),
                     "beside\n");
    h = attach(&limits, &id);
    wait_text(h, "late\n");
    while (!h->bytes[1])
        agent_rig_turn(&rig, 1000);
    ck_assert_str_eq(h->text[1], "bad\n");
}
END_TEST

/* One that ends while nobody listens is told of when somebody does. */
START_TEST(test_warm_ended)
{
    const struct proto_restore request = fresh();
    const struct agent_attach_request limits = {0};
    struct rig_handle *h;
    uint32_t id = start_warm("echo $$ >/tmp/pid; echo ready; " UNTIL(
        "/tmp/microsbx-go") "kill -SEGV $$");

    quiesce(0);
    wake_up(&request);
    /* Its number is gone when the agent has seen it end. */
    ck_assert_str_eq(
        sh("touch /tmp/microsbx-go; while kill -0 $(cat /tmp/pid) 2>&-; do "
           "sleep 0.02; done; echo beside"),
        "beside\n");
    h = attach(&limits, &id);
    ck_assert(h->started);
    agent_rig_wait(&rig, &h->exited);
    ck_assert_uint_eq(h->exit.signal, SIGSEGV);
    ck_assert_uint_eq(h->exit.wall_ms, 0);
}
END_TEST

/* Its limits are those of the one who attaches. */
START_TEST(test_warm_limits)
{
    const struct proto_restore request = fresh();
    struct agent_attach_request limits = {.timeout_ms = 300};
    struct rig_handle *h;
    uint32_t id = start_warm(SERVER);

    quiesce(0);
    wake_up(&request);
    h = attach(&limits, &id);
    agent_rig_wait(&rig, &h->exited);
    ck_assert_uint_eq(h->exit.flags, PROTO_EXIT_TIMED_OUT);
    ck_assert_uint_ge(h->exit.wall_ms, 300);
}
END_TEST

/*
 * A warm process that was frozen before its timeout of timeout_ms, restored
 * and attached after it; NULL: this host was too busy for that.
 */
static struct rig_handle *outlive(uint64_t timeout_ms, uint32_t *ret_id)
{
    const char *const argv[] = {"sh", "-c", SERVER, NULL};
    const struct agent_exec_request warm = {
        .argv = argv, .warm = true, .timeout_ms = timeout_ms};
    const struct proto_restore request = fresh();
    const struct agent_attach_request limits = {0};
    struct rig_handle *h = agent_rig_send(&rig, &warm, ret_id);

    while (!h->exited && !strchr(h->text[0], '\n'))
        agent_rig_turn(&rig, 1000);
    while (agent_rig_quiesce(&rig, 0)->err == EBUSY)
        ; /* it is being killed */
    wake_up(&request);
    usleep((useconds_t)(timeout_ms * 1000 + 200000));
    h = attach(&limits, ret_id);
    return h->failed ? NULL : h;
}

/* The timeout of the warm-up ends with the warm-up. */
START_TEST(test_warm_timeout_ends)
{
    struct rig_handle *h = NULL;
    uint64_t began = 0;
    uint32_t id;

    for (uint64_t ms = 500; !h && ms <= 8000; ms *= 2) {
        h = outlive(ms, &id);
        began = sysfile_now_ms();
    }
    ck_assert_ptr_nonnull(h);
    feed(id, "x\n");
    wait_text(h, "got x\n");
    ck_assert_int_eq(agent_client_stdin_close(rig.client, id), 0);
    agent_rig_wait(&rig, &h->exited);
    ck_assert_uint_eq(h->exit.flags, 0);
    /* Since it was attached, which took less than it had waited. */
    ck_assert_uint_lt(h->exit.wall_ms, sysfile_now_ms() - began + 500);
}
END_TEST

START_TEST(test_warm_only_one)
{
    const char *const argv[] = {"cat", NULL};
    const struct agent_exec_request another = {.argv = argv, .warm = true};
    const struct agent_attach_request limits = {0};
    const struct proto_restore request = fresh();
    struct rig_handle *h;
    uint32_t id;

    start_warm(SERVER);
    h = agent_rig_run(&rig, &another);
    ck_assert(h->failed);
    ck_assert_uint_eq(h->failure.reason, PROTO_FAIL_BUSY);
    ck_assert_int_eq(h->failure.err, EEXIST);
    /* Nor can one be attached that never lost its connection. */
    h = attach(&limits, &id);
    ck_assert_uint_eq(h->failure.reason, PROTO_FAIL_NO_WARM);
    ck_assert_int_eq(h->failure.err, EBUSY);
    quiesce(0);
    wake_up(&request);
    h = agent_rig_run(&rig, &another);
    ck_assert_uint_eq(h->failure.reason, PROTO_FAIL_BUSY);
}
END_TEST

/* Without a QUIESCE it dies with its connection like any other. */
START_TEST(test_warm_connection_lost)
{
    const struct agent_attach_request limits = {0};
    struct rig_handle *h;
    uint32_t id;

    start_warm(SERVER);
    agent_rig_reconnect(&rig);
    h = attach(&limits, &id);
    ck_assert_uint_eq(h->failure.reason, PROTO_FAIL_NO_WARM);
    ck_assert_str_eq(sh("pgrep -c -f 'got [$]line' || true"), "0\n");
}
END_TEST

/* Input that it has not taken, or an end of it, would be lost. */
START_TEST(test_warm_must_wait)
{
    static char much[PROTO_WINDOW];
    struct rig_handle *h;
    uint32_t id = start_warm(
        "echo ready; " UNTIL("/tmp/microsbx-go") "cat >/dev/null; read x");

    memset(much, 'x', sizeof(much));
    ck_assert_int_eq(
        agent_client_stdin_write(rig.client, id, much, sizeof(much)),
        (ssize_t)sizeof(much));
    ck_assert_uint_eq(agent_rig_quiesce(&rig, 0)->err, EBUSY);
    h = &rig.handles[id];
    sh("touch /tmp/microsbx-go");
    while (agent_rig_quiesce(&rig, 0)->err == EBUSY)
        agent_rig_turn(&rig, 20);
    ck_assert_uint_eq(rig.quiesced_frame.err, 0);
    ck_assert(!h->exited);
    ck_assert_int_eq(agent_client_stdin_close(rig.client, id), 0);
    ck_assert_uint_eq(agent_rig_quiesce(&rig, 0)->err, EBUSY);
}
END_TEST

START_TEST(test_warm_bad_requests)
{
    const char *const argv[] = {"cat", NULL};
    const struct agent_exec_request request = {
        .argv = argv, .warm = true, .tty = true};
    uint32_t id;

    ck_assert_int_eq(agent_client_exec(rig.client, &request, &id), -EINVAL);
}
END_TEST

/* ---- a machine that is frozen while it runs ----------------------------- */

static uint32_t start_loop(const char *script, bool stdin_open)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    const struct agent_exec_request request = {.argv = argv,
                                               .open_stdin = stdin_open};
    uint32_t id;
    struct rig_handle *h = agent_rig_send(&rig, &request, &id);

    agent_rig_wait(&rig, &h->started);
    return id;
}

/* In the machine that goes on nothing has happened. */
START_TEST(test_keep_here)
{
    const struct proto_restore request = same();
    uint32_t id = start_loop("read x; echo got $x; exit 4", true);
    struct rig_handle *h = &rig.handles[id];

    quiesce(PROTO_QUIESCE_KEEP);
    ck_assert_str_eq(sh("echo served"), "served\n");
    feed(id, "it\n");
    agent_rig_wait(&rig, &h->exited);
    ck_assert_str_eq(h->text[0], "got it\n");
    ck_assert_uint_eq(h->exit.code, 4);
    ck_assert_uint_eq(agent_rig_restore(&rig, &request)->err, 0);
    /* And from now on a lost connection is a lost connection. */
    start_loop("echo $$ >/tmp/pid; sleep 100", false);
    agent_rig_reconnect(&rig);
    ck_assert(!(rig.hello_frame.features & PROTO_FEATURE_PARKED));
    ck_assert_str_eq(sh("kill -0 $(cat /tmp/pid) 2>/dev/null || echo gone"),
                     "gone\n");
}
END_TEST

/* In one that is restored from there the connection breaks, and what ran goes
   on: also one that says more than a pipe holds, to nobody. */
START_TEST(test_keep_there)
{
    const struct proto_restore request = fresh();

    start_loop("read x; echo end >/tmp/reader", true);
    start_loop("i=0; while [ $i -lt 3000 ]; do echo "
               "0123456789012345678901234567890123456789012345678901234567890;"
               "i=$((i + 1)); done; echo end >/tmp/talker.new; mv "
               "/tmp/talker.new /tmp/talker; sleep 100",
               false);
    rig.hold_output = true;
    quiesce(PROTO_QUIESCE_KEEP);
    agent_rig_reconnect(&rig);
    rig.hold_output = false;
    ck_assert(rig.hello_frame.features & PROTO_FEATURE_PARKED);
    expect_refusals();
    ck_assert_uint_eq(agent_rig_restore(&rig, &request)->err, 0);
    ck_assert_str_eq(sh(UNTIL("/tmp/talker") "cat /tmp/talker"), "end\n");
    /* The reader's input was not closed for it. */
    ck_assert_str_eq(sh("test ! -e /tmp/reader && echo waits"), "waits\n");
    /* They stay through the next freeze, too, and end with the machine. */
    quiesce(0);
    wake_up(&request);
    ck_assert_str_eq(sh("pgrep -c 'sleep'"), "1\n");
}
END_TEST

/* A warm process that was at rest can be attached in both. */
START_TEST(test_keep_warm)
{
    const struct proto_restore request = fresh();
    const struct agent_attach_request limits = {0};
    struct rig_handle *h;
    uint32_t id = start_warm(SERVER);

    quiesce(PROTO_QUIESCE_KEEP);
    wake_up(&request);
    h = attach(&limits, &id);
    ck_assert(h->started);
    feed(id, "x\n");
    wait_text(h, "got x\n");
}
END_TEST

/* The connection breaks before the answer: nothing was promised. */
START_TEST(test_lost_while_quiescing)
{
    ck_assert_int_eq(agent_client_quiesce(rig.client, 0), 0);
    agent_rig_reconnect(&rig);
    if (rig.hello_frame.features & PROTO_FEATURE_PARKED) {
        const struct proto_restore request = same();

        ck_assert_uint_eq(agent_rig_restore(&rig, &request)->err, 0);
    }
    ck_assert_str_eq(sh("echo alive"), "alive\n");
    quiesce(0);
}
END_TEST

/* ------------------------------------------------------------------------- */

static TCase *make_case(const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, start, stop);
    return tc;
}

static void add_freeze(Suite *s)
{
    TCase *tc = make_case("quiesce");

    tcase_add_loop_test(tc, test_quiesce, 0, COUNT(quiesces));
    tcase_add_loop_test(tc, test_quiesce_fails, 0, COUNT(faults));
    tcase_add_test(tc, test_quiesce_out_of_memory);
    tcase_add_loop_test(tc, test_quiesce_busy, 0, COUNT(busy));
    tcase_add_test(tc, test_quiesce_twice);
    tcase_add_test(tc, test_bad_requests);
    tcase_add_test(tc, test_parked_refuses);
    tcase_add_test(tc, test_lost_while_quiescing);
    suite_add_tcase(s, tc);
    tc = make_case("restore");
    tcase_add_loop_test(tc, test_same, 0, 2);
    tcase_add_test(tc, test_fresh);
    tcase_add_test(tc, test_boot_id_is_out_of_reach);
    tcase_add_test(tc, test_pinned);
    tcase_add_loop_test(tc, test_restore_fails, 0, COUNT(restore_faults));
    tcase_add_test(tc, test_restore_without_root);
    tcase_add_test(tc, test_identity_survives_the_sandbox);
    suite_add_tcase(s, tc);
}

static void add_processes(Suite *s)
{
    TCase *tc = make_case("warm");

    tcase_add_test(tc, test_warm);
    tcase_add_test(tc, test_warm_again_and_again);
    tcase_add_test(tc, test_warm_output_waits);
    tcase_add_test(tc, test_warm_ended);
    tcase_add_test(tc, test_warm_limits);
    tcase_add_test(tc, test_warm_timeout_ends);
    tcase_add_test(tc, test_warm_only_one);
    tcase_add_test(tc, test_warm_connection_lost);
    tcase_add_test(tc, test_warm_must_wait);
    tcase_add_test(tc, test_warm_bad_requests);
    suite_add_tcase(s, tc);
    tc = make_case("keep");
    tcase_add_test(tc, test_keep_here);
    tcase_add_test(tc, test_keep_there);
    tcase_add_test(tc, test_keep_warm);
    suite_add_tcase(s, tc);
}

int main(void)
{
    Suite *s = suite_create("agent freeze");
    TCase *tc = tcase_create("rules");
    SRunner *sr = srunner_create(s);
    uint32_t features = 0;
    const char *why = agent_rig_probe(&features);
    int failed;

    tcase_add_test(tc, test_seeds);
    tcase_add_test(tc, test_reserve);
    tcase_add_loop_test(tc, test_pin_window, 0, COUNT(windows));
    tcase_add_test(tc, test_pin_window_holds);
    suite_add_tcase(s, tc);
    if (why) {
        printf("skip - check_agent_freeze, all with an agent: %s\n", why);
    } else {
        add_freeze(s);
        add_processes(s);
    }
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
