/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner and its agent, without a machine: the test speaks for the guest.
 * What comes after the verdict changes nothing; and how a machine is made
 * ready to be frozen.
 */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/monitor_handle.h"
#include "trial/runner.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))
#define EXEC_ID 1u

static const char *const argv[] = {"true", NULL};

static struct trial_spec spec;
static struct trial_freeze freeze;
static struct trial_result *result;
static struct runner r;
static int guest;
static struct proto_inbox inbox; /* of the guest */
static uint64_t output_bytes;    /* that it sent */

static void start(void)
{
    int sv[2];

    memset(&spec, 0, sizeof(spec));
    memset(&freeze, 0, sizeof(freeze));
    memset(&r, 0, sizeof(r));
    spec.argv = argv;
    spec.stdin_fd = spec.out.fd = spec.err.fd = -1;
    spec.output_limit = 4;
    result = calloc(1, sizeof(*result));
    ck_assert_ptr_nonnull(result);
    r.spec = &spec;
    r.result = result;
    r.facts = &result->facts;
    r.facts->guest_ran = true;
    r.file_fd = r.fetched.fd = r.console_fd = r.timer_fd = -1;
    r.machine_memory = 1000;
    output_bytes = 0;
    ck_assert_int_eq(output_init(&r.out, &spec.out, spec.output_limit), 0);
    ck_assert_int_eq(output_init(&r.err, &spec.err, spec.output_limit), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    guest = sv[1];
    proto_inbox_init(&inbox, PROTO_FROM_HOST);
    ck_assert_int_eq(runner_agent_start(&r, sv[0]), 0);
}

static void stop(void)
{
    agent_client_free(r.client);
    output_fini(&r.out);
    output_fini(&r.err);
    close(guest);
    free(result);
}

/* ---- the guest ----------------------------------------------------------- */

static uint8_t room[PROTO_FRAME_MAX];
static struct proto_writer w;

static struct proto_writer *frame(void)
{
    proto_writer_init(&w, room, sizeof(room));
    return &w;
}

/* Says what is in `w`, and has the runner hear it. */
static void say(void)
{
    ck_assert(!w.overflow);
    ck_assert_int_eq(write(guest, w.buf, w.used), (ssize_t)w.used);
    runner_agent_process(&r, POLLIN);
}

static void say_hello(void)
{
    const struct proto_hello hello = {.version = PROTO_VERSION,
                                      .features = PROTO_FEATURE_SNAPSHOT,
                                      .release = "test"};

    proto_put_hello(frame(), &hello);
    say();
}

static void say_started(void)
{
    proto_put_empty(frame(), PROTO_EXEC_STARTED, EXEC_ID);
    say();
}

static void say_exit(uint32_t code)
{
    const struct proto_exec_exit m = {.code = code,
                                      .stdout_bytes = output_bytes};

    proto_put_exec_exit(frame(), EXEC_ID, &m);
    say();
}

static void say_output(const char *text)
{
    output_bytes += strlen(text);
    proto_put_data(frame(), EXEC_ID, PROTO_STDOUT, text, strlen(text));
    say();
}

static void say_quiesced(uint32_t err)
{
    const struct proto_quiesced m = {.err = err,
                                     .memory_free = err ? 0 : 300,
                                     .uptime_ms = err ? 0 : 70000,
                                     .pin_window_ms = err ? 0 : 60000};

    proto_put_quiesced(frame(), &m);
    say();
}

/* What the runner has asked for: the type of the next frame, and its flags if
   it is a QUIESCE; 0: nothing. */
static uint16_t heard(uint32_t *ret_flags)
{
    struct proto_header header;
    const uint8_t *payload;
    size_t space;
    uint8_t *p;
    ssize_t n;

    *ret_flags = 0;
    runner_agent_process(&r, POLLOUT);
    p = proto_inbox_space(&inbox, &space);
    n = recv(guest, p, space, MSG_DONTWAIT);
    if (n > 0)
        proto_inbox_add(&inbox, (size_t)n);
    if (proto_inbox_next(&inbox, &header, &payload) != 1)
        return 0;
    if (header.type == PROTO_QUIESCE)
        ck_assert_int_eq(proto_get_u32(payload, header.length, ret_flags), 0);
    return header.type;
}

/* The last of what it has asked for; credit is not asking. */
static uint16_t heard_last(uint32_t *ret_flags)
{
    uint32_t flags;
    uint16_t type, last = 0;

    *ret_flags = 0;
    while ((type = heard(&flags))) {
        if (type == PROTO_CREDIT)
            continue;
        last = type;
        *ret_flags = flags;
    }
    return last;
}

static enum outcome_kind outcome(void)
{
    return outcome_decide(&result->facts).kind;
}

/* ---- behind the verdict -------------------------------------------------- */

static void by_status(void)
{
    say_exit(3);
}

static void by_deadline(void)
{
    r.deadline_ns = 1;
    say_exit(0);
}

static void by_output(void)
{
    spec.output_ends = true;
    say_output("12345");
}

static void by_signal(void)
{
    runner_cancel(&r, "signal", "cancelled by signal TERM");
}

static void by_host(void)
{
    runner_fail(&r, "host_error", "x", NULL, "the host failed");
}

static const struct {
    void (*decide)(void);
    enum outcome_kind outcome;
    bool has_status;
} verdicts[] = {
    {by_status, OUTCOME_FAIL, true},
    {by_deadline, OUTCOME_TIMEOUT, false},
    {by_output, OUTCOME_OUTPUT_LIMIT, false},
    {by_signal, OUTCOME_CANCELLED, false},
    {by_host, OUTCOME_INFRA_UNKNOWN, false},
};

static void exit_again(void)
{
    say_exit(0);
}

static void fail_now(void)
{
    const struct proto_exec_failed m = {PROTO_FAIL_NOT_FOUND, ENOENT};

    proto_put_exec_failed(frame(), EXEC_ID, &m);
    say();
}

static void hello_again(void)
{
    say_hello();
}

static void unasked(void)
{
    say_quiesced(0);
}

static void no_frame(void)
{
    memset(room, 0xff, 64);
    w = (struct proto_writer){.buf = room, .size = 64, .used = 64};
    say();
}

static void hang_up(void)
{
    shutdown(guest, SHUT_RDWR);
    runner_agent_process(&r, POLLIN | POLLHUP);
}

static const struct {
    void (*say)(void);
    bool breaks; /* the protocol, where nothing is decided yet */
} later[] = {
    {exit_again, false}, {fail_now, true}, {hello_again, true},
    {unasked, true},     {no_frame, true}, {hang_up, true},
};

/* Which of it breaks the protocol is known: the same before any verdict. */
START_TEST(test_before)
{
    say_hello();
    say_started();
    ck_assert_int_eq(r.phase, RUNNER_EXEC);
    later[_i].say();
    ck_assert(r.facts->protocol_broken == later[_i].breaks);
    ck_assert((r.verdict_at_ns != 0) == later[_i].breaks);
}
END_TEST

START_TEST(test_after)
{
    int verdict = _i / COUNT(later), word = _i % COUNT(later);

    say_hello();
    say_started();
    verdicts[verdict].decide();
    ck_assert_int_eq(r.phase, RUNNER_OVER);
    ck_assert_int_eq(outcome(), verdicts[verdict].outcome);
    later[word].say();
    ck_assert_int_eq(r.phase, RUNNER_OVER);
    ck_assert_int_eq(outcome(), verdicts[verdict].outcome);
    ck_assert(!r.facts->protocol_broken);
    ck_assert_uint_eq(r.verdict_at_ns, 0);
    if (verdicts[verdict].has_status) {
        ck_assert(r.facts->has_status);
        ck_assert_int_eq(r.facts->exit_code, 3);
    }
}
END_TEST

/* ---- making ready to be frozen ------------------------------------------- */

static const struct trial_restore restore;

static void check_asked(uint32_t wanted)
{
    uint32_t flags;

    ck_assert_uint_eq(heard_last(&flags), PROTO_QUIESCE);
    ck_assert_uint_eq(flags, wanted);
    ck_assert_int_eq(r.phase, RUNNER_QUIESCE);
    ck_assert_uint_gt(r.deadline_ns, io_now_ns());
    ck_assert(!r.quiesced);
}

static void check_ready(void)
{
    ck_assert(r.quiesced);
    ck_assert_int_eq(r.phase, RUNNER_OVER);
    ck_assert(!r.facts->host_failed && !r.facts->protocol_broken);
    ck_assert_uint_eq(freeze.memory_used, 700);
    ck_assert_uint_eq(freeze.uptime_ms, 70000);
    ck_assert_uint_eq(freeze.window_ms, 60000);
    ck_assert(!freeze.done); /* nothing is saved yet */
}

static void check_failed(const char *cause)
{
    ck_assert(!r.quiesced);
    ck_assert_int_eq(r.phase, RUNNER_OVER);
    ck_assert(r.facts->host_failed);
    ck_assert_str_eq(r.facts->cause, cause);
    /* It does not get as far as the monitor, of which there is none. */
    runner_freeze(&r);
    ck_assert(!freeze.done);
}

/* No warm-up: at once. What is said later changes nothing. */
START_TEST(test_quiesce)
{
    spec.argv = NULL;
    spec.freeze = &freeze;
    say_hello();
    check_asked(PROTO_QUIESCE_FREE_MEMORY);
    say_quiesced(0);
    check_ready();
    say_quiesced(EBUSY);
    check_ready();
}
END_TEST

START_TEST(test_quiesce_refused)
{
    spec.argv = NULL;
    spec.freeze = &freeze;
    say_hello();
    check_asked(PROTO_QUIESCE_FREE_MEMORY);
    say_quiesced(EBUSY);
    check_failed("quiesce_failed");
    say_quiesced(0);
    check_failed("quiesce_failed");
}
END_TEST

/* A pinned one waits for its age first, unless it was restored. */
START_TEST(test_quiesce_pinned)
{
    uint32_t flags;

    freeze.pinned = true;
    spec.argv = NULL;
    spec.freeze = &freeze;
    spec.restore = _i ? &restore : NULL;
    if (_i == 0) {
        say_hello();
        ck_assert_uint_eq(heard_last(&flags), 0);
        ck_assert_int_eq(r.phase, RUNNER_AGE);
        ck_assert_uint_gt(r.old_enough_ns, 0);
        runner_is_old_enough(&r);
    } else {
        say_hello();
        ck_assert_uint_eq(heard_last(&flags), PROTO_RESTORE);
        proto_put_restored(frame(), &(struct proto_restored){
                                        .boot_id = "00000000-0000-4000-8000-"
                                                   "000000000000"});
        say();
    }
    check_asked(PROTO_QUIESCE_FREE_MEMORY | PROTO_QUIESCE_PINNED);
    say_quiesced(0);
    check_ready();
}
END_TEST

/* A warm-up that ends well, and one that does not. */
START_TEST(test_quiesce_after_warmup)
{
    uint32_t flags;

    spec.freeze = &freeze;
    say_hello();
    ck_assert_uint_ne(heard_last(&flags), 0);
    say_started();
    ck_assert_uint_eq(heard_last(&flags), 0);
    say_exit((uint32_t)_i);
    if (_i) {
        ck_assert_uint_eq(heard_last(&flags), 0);
        ck_assert_int_eq(r.phase, RUNNER_OVER);
        ck_assert(!r.quiesced);
        return;
    }
    check_asked(PROTO_QUIESCE_FREE_MEMORY);
    say_quiesced(0);
    check_ready();
}
END_TEST

/* One that waits has said so, by its whole line and not before. */
START_TEST(test_quiesce_waiting)
{
    uint32_t flags;

    freeze.ready = "go";
    spec.freeze = &freeze;
    say_hello();
    ck_assert_uint_ne(heard_last(&flags), 0);
    say_started();
    say_output("go");
    ck_assert_uint_eq(heard_last(&flags), 0);
    ck_assert_int_eq(r.phase, RUNNER_EXEC);
    say_output("\n");
    check_asked(PROTO_QUIESCE_FREE_MEMORY);
    ck_assert(freeze.waiting);
    if (_i == 0) {
        say_quiesced(0);
        check_ready();
        return;
    }
    /* It ends instead of waiting. */
    say_exit(0);
    ck_assert(!freeze.waiting);
    check_failed("warmup_failed");
    say_quiesced(0);
    check_failed("warmup_failed");
}
END_TEST

/* ---- the end of the machine ---------------------------------------------- */

static char disk_name[] = "/some/disk";

/* A monitor that sleeps in the kernel as in a call to a disk that is slow. */
static void hold_monitor(struct monitor *m, struct machine *machine)
{
    int sv[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv),
                     0);
    memset(m, 0, sizeof(*m));
    m->sock = sv[0];
    m->cancel_fd = -1;
    m->pid = fork();
    if (m->pid == 0) {
        /* It waits for its child, which waits for us. */
        long child =
            syscall(SYS_clone, CLONE_VFORK | SIGCHLD, NULL, NULL, NULL, NULL);
        char byte;

        close(sv[0]);
        while (child == 0 && read(sv[1], &byte, 1) > 0)
            continue;
        _exit(0);
    }
    ck_assert_int_gt(m->pid, 0);
    close(sv[1]);
    while (!monitor_in_storage(m))
        usleep(1000);
    machine->disk_paths[0] = disk_name;
    r.monitor = m;
    r.machine = machine;
}

static const struct {
    int exit_code; /* -1: none */
    bool timed_out;
    enum outcome_kind outcome;
    const char *cause;
} ends[] = {
    {0, false, OUTCOME_INFRA_UNKNOWN, "host_storage_slow"},
    {-1, true, OUTCOME_TIMEOUT, "host_storage_slow"},
};

/* What the host did with the last writes is not known: no status holds. */
START_TEST(test_storage_at_the_end)
{
    struct monitor *m = calloc(1, sizeof(*m));
    struct machine *machine = calloc(1, sizeof(*machine));

    ck_assert(m && machine);
    hold_monitor(m, machine);
    r.phase = RUNNER_OVER;
    r.facts->workload_may_run = true;
    r.facts->has_status = ends[_i].exit_code >= 0;
    r.facts->exit_code = ends[_i].exit_code;
    r.facts->timed_out = ends[_i].timed_out;
    if (ends[_i].timed_out)
        r.storage_slow = true;
    runner_stop_machine(&r);
    ck_assert_int_eq(outcome(), ends[_i].outcome);
    ck_assert_str_eq(outcome_decide(r.facts).cause, ends[_i].cause);
    ck_assert_int_eq(m->pid, -1);
    close(m->sock);
    free(m);
    free(machine);
}
END_TEST

/* It has said all, and dies of this host's limit, or of something else. */
START_TEST(test_dies_behind_its_word)
{
    static struct machine machine;
    struct rlimit cpu = {1, RLIM_INFINITY};
    struct monitor *m = calloc(1, sizeof(*m));

    ck_assert_ptr_nonnull(m);
    m->sock = m->cancel_fd = -1;
    m->pid = fork();
    if (m->pid == 0) {
        while (_i == 0 && clock() < CLOCKS_PER_SEC * 6 / 10)
            continue;
        signal(SIGSEGV, SIG_DFL); /* a sanitizer takes it otherwise */
        raise(_i ? SIGSEGV : SIGXCPU);
    }
    ck_assert_int_gt(m->pid, 0);
    ck_assert_int_eq(setrlimit(RLIMIT_CPU, &cpu), 0);
    r.monitor = m;
    r.machine = &machine;
    r.machine_ended = true;
    r.result->has_stats = true;
    r.facts->workload_may_run = r.facts->has_status = true;
    runner_stop_machine(&r);
    ck_assert_int_eq(outcome(), _i ? OUTCOME_MONITOR_FAULT : OUTCOME_OK);
    free(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("runner");
    TCase *tc = tcase_create("verdict");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_checked_fixture(tc, start, stop);
    tcase_add_loop_test(tc, test_before, 0, COUNT(later));
    tcase_add_loop_test(tc, test_after, 0, COUNT(verdicts) * COUNT(later));
    suite_add_tcase(s, tc);
    tc = tcase_create("quiesce");
    tcase_add_checked_fixture(tc, start, stop);
    tcase_add_test(tc, test_quiesce);
    tcase_add_test(tc, test_quiesce_refused);
    tcase_add_loop_test(tc, test_quiesce_pinned, 0, 2);
    tcase_add_loop_test(tc, test_quiesce_after_warmup, 0, 2);
    tcase_add_loop_test(tc, test_quiesce_waiting, 0, 2);
    suite_add_tcase(s, tc);
    tc = tcase_create("end");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, start, stop);
    tcase_add_loop_test(tc, test_storage_at_the_end, 0, COUNT(ends));
    tcase_add_loop_test(tc, test_dies_behind_its_word, 0, 2);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
