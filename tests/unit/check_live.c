/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of a keeper: what it asks, and what it makes of every answer. The
 * keeper is a child of the test that plays a part, and leaves what it was asked
 * in shared memory: no machine, no agent.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/msg.h"
#include "trial/keeper_proto.h"
#include "trial/live.h"
#include "trial/process_look.h"

#define WAIT_MS 20000
#define PIECE 4096u

/* What the keeper was asked. */
struct asked {
    uint32_t type; /* of the first message */
    struct keeper_exec exec;
    struct keeper_file file;
    struct keeper_numbers numbers;
    uint8_t strings[256];
    size_t strings_len;
    uint8_t input[256];
    size_t input_len;
    bool input_ended;
    uint32_t credit[2];
    size_t file_bytes;
};

typedef void part(int sock);

static char dir[] = "/tmp/check_live.XXXXXX";
static struct registry_entry entry;
static struct live live;
static struct failure f;
static struct asked *asked;
static pid_t child = -1;
static struct trial_spec spec;
static struct trial_result result;
static int out = -1, err = -1;

/* ---- the keeper's side: in the child ---- */

static struct msg heard;
static union keeper_body said;

static void say(int sock, enum keeper_message type)
{
    struct pollfd p = {.fd = sock, .events = POLLOUT};
    int ret;

    while ((ret = keeper_send(sock, type, &said)) == -EAGAIN)
        (void)poll(&p, 1, WAIT_MS);
    if (ret != 0)
        _exit(3);
}

/* The next message: false when the client is gone. */
static bool hear(int sock, union keeper_body *ret)
{
    struct pollfd p = {.fd = sock, .events = POLLIN};
    int n;

    do {
        if (poll(&p, 1, WAIT_MS) <= 0)
            _exit(4);
        n = msg_receive(sock, &heard);
    } while (n == -EAGAIN);
    if (n != 1)
        return false;
    if (keeper_decode(heard.type, heard.payload, heard.len, ret) != 0)
        _exit(5);
    return true;
}

static void note(const union keeper_body *b)
{
    switch (heard.type) {
    case KEEPER_STRINGS:
        memcpy(asked->strings + asked->strings_len, b->data.bytes, b->data.len);
        asked->strings_len += b->data.len;
        break;
    case KEEPER_STDIN:
        memcpy(asked->input + asked->input_len, b->data.bytes, b->data.len);
        asked->input_len += b->data.len;
        break;
    case KEEPER_STDIN_END:
        asked->input_ended = true;
        break;
    case KEEPER_CREDIT:
        asked->credit[b->numbers.a == PROTO_STDERR] += b->numbers.b;
        break;
    default:
        break;
    }
}

/* The request as a whole. */
static void take_request(int sock)
{
    union keeper_body b;

    if (!hear(sock, &b))
        _exit(6);
    asked->type = heard.type;
    if (heard.type == KEEPER_EXEC) {
        asked->exec = b.exec;
        while (asked->strings_len < b.exec.argv_bytes + b.exec.env_bytes) {
            if (!hear(sock, &b))
                _exit(7);
            note(&b);
            b.exec = asked->exec;
        }
    } else if (heard.type == KEEPER_PUT || heard.type == KEEPER_GET) {
        char bytes[16] = "from the guest";

        asked->file = b.file;
        if (heard.type == KEEPER_PUT)
            asked->file_bytes = (size_t)pread(heard.fds[0], bytes, 16, 0);
        else
            (void)!pwrite(heard.fds[0], bytes, 14, 0);
        msg_close_fds(&heard);
    } else if (heard.type == KEEPER_STOP) {
        asked->numbers = b.numbers;
    }
}

/* What else it says, until it hangs up. */
static void hear_out(int sock)
{
    union keeper_body b;

    shutdown(sock, SHUT_WR);
    while (hear(sock, &b))
        note(&b);
}

static void output(int sock, uint32_t stream, const char *text)
{
    said.data =
        (struct keeper_bytes){stream, (const uint8_t *)text, strlen(text)};
    say(sock, KEEPER_OUTPUT);
}

static void ended(int sock, enum outcome_kind kind, const char *cause)
{
    memset(&said, 0, sizeof(said));
    said.ended.kind = kind;
    said.ended.by_host = true;
    strcpy(said.ended.cause, cause);
    say(sock, KEEPER_ENDED);
}

/* ---- set-up ---- */

static void set_up(void)
{
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    setenv("XDG_RUNTIME_DIR", dir, 1);
    asked = mmap(NULL, sizeof(*asked), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(asked, MAP_FAILED);
    out = memfd_create("out", MFD_CLOEXEC);
    err = memfd_create("err", MFD_CLOEXEC);
    memset(&result, 0, sizeof(result));
    memset(&spec, 0, sizeof(spec));
    spec.stdin_fd = spec.signal_fd = -1;
    spec.out.fd = out;
    spec.err.fd = err;
    spec.output_limit = 1 << 20;
    spec.pids_limit = 9;
}

/* A machine whose keeper plays this part with its one client. */
static void begin(part *play)
{
    struct machine_record record = {.name = "box",
                                    .protocol = KEEPER_PROTO_VERSION,
                                    .state = MACHINE_RUNNING,
                                    .created_at = 1};
    int listener;

    ck_assert_int_eq(registry_create("box", &entry, &f), 0);
    listener = registry_listen(&entry);
    ck_assert_int_ge(listener, 0);
    child = fork();
    if (child == 0) {
        struct pollfd p = {.fd = listener, .events = POLLIN};
        int sock;

        if (poll(&p, 1, WAIT_MS) != 1)
            _exit(1);
        sock = accept(listener, NULL, NULL);
        if (sock < 0)
            _exit(2);
        take_request(sock);
        play(sock);
        _exit(0);
    }
    close(listener);
    record.keeper = child;
    record.keeper_start = process_start_ticks(child);
    ck_assert_int_eq(machine_record_write(&entry, &record), 0);
    ck_assert_int_eq(registry_publish(&entry, &f), 0);
    registry_close(&entry); /* the child holds the lock, too */
    ck_assert_int_eq(live_open("box", &live, &f), 0);
}

static void connect_to(part *play)
{
    begin(play);
    ck_assert_msg(live_connect(&live, &f) == 0, "%s", f.message);
}

static void await_keeper(void)
{
    int status = 0;

    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    child = -1;
}

static void tear_down(void)
{
    char command[100];

    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    live_close(&live);
    close(out);
    close(err);
    munmap(asked, sizeof(*asked));
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static void check_file(int fd, const char *text)
{
    char bytes[64] = "";
    ssize_t n = pread(fd, bytes, sizeof(bytes), 0);

    ck_assert_int_eq(n, (ssize_t)strlen(text));
    ck_assert_mem_eq(bytes, text, strlen(text));
}

/* ---- exec: what is asked ---- */

static void play_done(int sock)
{
    memset(&said, 0, sizeof(said));
    said.exited.status.code = 7;
    said.exited.dropped[1] = 5;
    say(sock, KEEPER_STARTED);
    output(sock, PROTO_STDOUT, "out");
    output(sock, PROTO_STDERR, "err");
    output(sock, PROTO_STDOUT, "more");
    memset(&said, 0, sizeof(said));
    said.exited.status.code = 7;
    said.exited.dropped[1] = 5;
    say(sock, KEEPER_EXITED);
    hear_out(sock);
}

START_TEST(test_request)
{
    static const char *const argv[] = {"sh", "-c", "", NULL};
    static const char *const env[] = {"A=1", "B=", NULL};

    spec.argv = argv;
    spec.env = env;
    spec.user = "someone";
    spec.workdir = "/there";
    spec.timeout_ms = 12345;
    spec.tty = true;
    spec.tty_rows = 20;
    spec.tty_columns = 70;
    connect_to(play_done);
    live_exec(&live, &spec, false, &result);
    await_keeper();
    ck_assert_uint_eq(asked->type, KEEPER_EXEC);
    ck_assert_uint_eq(asked->exec.flags, KEEPER_EXEC_TTY);
    ck_assert_uint_eq(asked->exec.rows, 20);
    ck_assert_uint_eq(asked->exec.cols, 70);
    ck_assert_uint_eq(asked->exec.timeout_ms, 12345);
    ck_assert_uint_eq(asked->exec.pids_max, 9);
    ck_assert_uint_eq(asked->exec.argc, 3);
    ck_assert_uint_eq(asked->exec.envc, 2);
    ck_assert_uint_eq(asked->exec.argv_bytes, 7);
    ck_assert_uint_eq(asked->exec.env_bytes, 7);
    ck_assert_str_eq(asked->exec.user, "someone");
    ck_assert_str_eq(asked->exec.cwd, "/there");
    ck_assert_uint_eq(asked->strings_len, 14);
    ck_assert_mem_eq(asked->strings, "sh\0-c\0\0A=1\0B=\0", 14);
}
END_TEST

static const char *const TRUE[] = {"true", NULL};

/* A name of the longest length passes, one byte more is refused. */
START_TEST(test_long_user)
{
    char user[PROTO_USER_MAX + 1];

    memset(user, 'u', sizeof(user));
    user[PROTO_USER_MAX - (_i == 0)] = '\0';
    spec.argv = TRUE;
    spec.user = user;
    connect_to(play_done);
    live_exec(&live, &spec, false, &result);
    if (_i == 0) {
        await_keeper();
        ck_assert_uint_eq(strlen(asked->exec.user), PROTO_USER_MAX - 1);
        ck_assert_int_eq(result.outcome.kind, OUTCOME_FAIL);
    } else {
        ck_assert_int_eq(result.outcome.kind, OUTCOME_INFRA_NEVER_RAN);
        ck_assert_str_eq(result.failure.code, "usage");
    }
}
END_TEST

/* ---- exec: what becomes of it ---- */

START_TEST(test_exit)
{
    spec.argv = TRUE;
    connect_to(play_done);
    live_exec(&live, &spec, false, &result);
    await_keeper();
    ck_assert_int_eq(result.outcome.kind, OUTCOME_FAIL);
    ck_assert(!result.outcome.by_host);
    ck_assert_int_eq(outcome_exit_status(&result.outcome, &result.facts), 7);
    ck_assert_uint_eq(result.out.bytes, 7);
    ck_assert_uint_eq(result.err.bytes, 3);
    ck_assert_uint_eq(result.out.dropped, 0);
    ck_assert_uint_eq(result.err.dropped, 5); /* by the keeper */
    check_file(out, "outmore");
    check_file(err, "err");
    ck_assert_uint_ge(result.exec_end_ns, result.exec_ns);
    ck_assert_uint_ge(result.end_ns, result.exec_end_ns);
    ck_assert(!result.hit_output);
}
END_TEST

/* The beginning is kept, or the end; what is not is counted. */
START_TEST(test_output_limit)
{
    spec.argv = TRUE;
    spec.output_limit = 4;
    connect_to(play_done);
    live_exec(&live, &spec, _i == 1, &result);
    await_keeper();
    ck_assert_int_eq(result.outcome.kind, OUTCOME_FAIL);
    check_file(out, _i == 1 ? "more" : "outm");
    ck_assert_uint_eq(result.out.dropped, 3);
    ck_assert(result.hit_output);
}
END_TEST

static void play_credit(int sock)
{
    static char text[PIECE + 1];
    union keeper_body b;

    memset(text, 'x', sizeof(text) - 1);
    for (unsigned i = 0; i < KEEPER_WINDOW / 2 / PIECE; i++)
        output(sock, PROTO_STDERR, text);
    while (asked->credit[1] < KEEPER_WINDOW / 4 && hear(sock, &b))
        note(&b);
    memset(&said, 0, sizeof(said));
    say(sock, KEEPER_EXITED);
    hear_out(sock);
}

/* What was disposed of is given back, for the stream that it was. */
START_TEST(test_credit)
{
    spec.argv = TRUE;
    connect_to(play_credit);
    live_exec(&live, &spec, _i == 1, &result);
    await_keeper();
    ck_assert_int_eq(result.outcome.kind, OUTCOME_OK);
    ck_assert_uint_ge(asked->credit[1], KEEPER_WINDOW / 4);
    ck_assert_uint_le(asked->credit[1], KEEPER_WINDOW / 2);
    ck_assert_uint_eq(asked->credit[0], 0);
    ck_assert_uint_eq(result.err.bytes, KEEPER_WINDOW / 2);
}
END_TEST

static void play_input(int sock)
{
    union keeper_body b;

    say(sock, KEEPER_STARTED);
    while (!asked->input_ended && hear(sock, &b))
        note(&b);
    memset(&said, 0, sizeof(said));
    say(sock, KEEPER_EXITED);
    hear_out(sock);
}

START_TEST(test_input)
{
    int pair[2];

    connect_to(play_input);
    ck_assert_int_eq(pipe2(pair, O_CLOEXEC), 0); /* the child has no copy */
    ck_assert_int_eq(write(pair[1], "a\0b\n", 4), 4);
    close(pair[1]);
    spec.argv = TRUE;
    spec.stdin_fd = pair[0];
    live_exec(&live, &spec, false, &result);
    await_keeper();
    ck_assert_int_eq(result.outcome.kind, OUTCOME_OK);
    ck_assert_uint_eq(asked->exec.flags, KEEPER_EXEC_STDIN);
    ck_assert_uint_eq(asked->input_len, 4);
    ck_assert_mem_eq(asked->input, "a\0b\n", 4);
    ck_assert(asked->input_ended);
    close(pair[0]);
}
END_TEST

static int part_number; /* for the child, set before it is forked */

static const struct {
    enum outcome_kind said;
    const char *cause;
    enum outcome_kind kind;
    const char *told; /* the cause of the result */
} ends[] = {
    {OUTCOME_GUEST_PANIC, "", OUTCOME_GUEST_PANIC, "machine_ended"},
    {OUTCOME_GUEST_HALT, "power_off", OUTCOME_GUEST_HALT, "power_off"},
    {OUTCOME_PROTOCOL_VIOLATION, "", OUTCOME_PROTOCOL_VIOLATION,
     "machine_ended"},
    {OUTCOME_MONITOR_FAULT, "monitor_crashed", OUTCOME_MONITOR_FAULT,
     "monitor_crashed"},
    {OUTCOME_MONITOR_FAULT, "no such word", OUTCOME_MONITOR_FAULT,
     "machine_ended"},
    {OUTCOME_INFRA_UNKNOWN, "monitor_stopped", OUTCOME_INFRA_UNKNOWN,
     "monitor_stopped"},
    {OUTCOME_INFRA_UNKNOWN, "machine_unavailable", OUTCOME_INFRA_UNKNOWN,
     "machine_unavailable"},
    {OUTCOME_OK, "", OUTCOME_CANCELLED, "machine_ended"},
    {OUTCOME_FAIL, "power_off", OUTCOME_CANCELLED, "machine_ended"},
    {OUTCOME_TIMEOUT, "ttl", OUTCOME_CANCELLED, "machine_ended"},
};

static void play_end(int sock)
{
    say(sock, KEEPER_STARTED);
    ended(sock, ends[part_number].said, ends[part_number].cause);
    hear_out(sock);
}

START_TEST(test_ends)
{
    spec.argv = TRUE;
    part_number = _i;
    connect_to(play_end);
    live_exec(&live, &spec, false, &result);
    await_keeper();
    ck_assert_int_eq(result.outcome.kind, ends[_i].kind);
    ck_assert_str_eq(result.outcome.cause, ends[_i].told);
    ck_assert(result.outcome.by_host);
    ck_assert(failure_is_set(&result.failure));
}
END_TEST

static void play_refusal(int sock)
{
    memset(&said, 0, sizeof(said));
    failure_set(&said.refused, "busy", "box", "wait", "too many");
    say(sock, KEEPER_REFUSED);
    hear_out(sock);
}

static void play_other(int sock)
{
    say(sock, KEEPER_STARTED);
    memset(&said, 0, sizeof(said));
    said.status.state = KEEPER_IS_RUNNING;
    say(sock, KEEPER_STATUS_REPLY);
    hear_out(sock);
}

static void play_silence(int sock)
{
    say(sock, KEEPER_STARTED);
}

static void play_nonsense(int sock)
{
    if (msg_send(sock, KEEPER_EXITED, "x", 1, NULL, 0) != 0)
        _exit(8);
    hear_out(sock);
}

static void play_no_user(int sock)
{
    memset(&said, 0, sizeof(said));
    said.numbers.a = PROTO_FAIL_USER;
    said.numbers.b = ENOENT;
    say(sock, KEEPER_NOT_STARTED);
    hear_out(sock);
}

static void play_no_program(int sock)
{
    memset(&said, 0, sizeof(said));
    said.numbers.a = PROTO_FAIL_NOT_FOUND;
    said.numbers.b = ENOENT;
    say(sock, KEEPER_NOT_STARTED);
    hear_out(sock);
}

static const struct {
    part *play;
    enum outcome_kind kind;
    const char *code; /* of the failure */
    int status;
} wrongs[] = {
    {play_refusal, OUTCOME_INFRA_NEVER_RAN, "busy", 125},
    {play_other, OUTCOME_INFRA_UNKNOWN, "keeper_lied", 137},
    {play_silence, OUTCOME_INFRA_UNKNOWN, "keeper_died", 137},
    {play_nonsense, OUTCOME_INFRA_UNKNOWN, "keeper_died", 137},
    {play_no_user, OUTCOME_INFRA_NEVER_RAN, NULL, 125},
    {play_no_program, OUTCOME_FAIL, NULL, 127},
};

START_TEST(test_wrong)
{
    spec.argv = TRUE;
    connect_to(wrongs[_i].play);
    live_exec(&live, &spec, false, &result);
    await_keeper();
    ck_assert_int_eq(result.outcome.kind, wrongs[_i].kind);
    if (wrongs[_i].code)
        ck_assert_str_eq(result.failure.code, wrongs[_i].code);
    ck_assert_int_eq(outcome_exit_status(&result.outcome, &result.facts),
                     wrongs[_i].status);
}
END_TEST

/* ---- the other requests ---- */

static void play_file(int sock)
{
    memset(&said, 0, sizeof(said));
    said.file_done.bytes = 14;
    said.file_done.err = EISDIR;
    say(sock, KEEPER_FILE_DONE);
    hear_out(sock);
}

START_TEST(test_copy)
{
    struct keeper_file request = {.path = "/x", .user = "u", .mode = 0644};
    struct keeper_file_done done = {0};
    int fd = memfd_create("file", MFD_CLOEXEC);

    ck_assert_int_eq(write(fd, "0123456789", 10), 10);
    if (_i == 1) {
        request.mode = 0;
        request.limit = 1000;
    }
    connect_to(play_file);
    ck_assert_int_eq(live_copy(&live, _i == 0 ? KEEPER_PUT : KEEPER_GET,
                               &request, fd, &done, &f),
                     0);
    live_close(&live);
    await_keeper();
    ck_assert_uint_eq(done.bytes, 14);
    ck_assert_uint_eq(done.err, EISDIR);
    ck_assert_str_eq(asked->file.path, "/x");
    ck_assert_str_eq(asked->file.user, "u");
    if (_i == 0)
        ck_assert_uint_eq(asked->file_bytes, 10);
    else
        check_file(fd, "from the guest");
    close(fd);
}
END_TEST

START_TEST(test_copy_refused)
{
    static part *const parts[] = {play_refusal, play_silence};
    static const char *const codes[] = {"busy", "keeper_died"};
    struct keeper_file request = {.path = "/x"};
    struct keeper_file_done done;
    int fd = memfd_create("file", MFD_CLOEXEC);

    connect_to(parts[_i]);
    /* STARTED is no answer to a file. */
    ck_assert_int_lt(live_copy(&live, KEEPER_GET, &request, fd, &done, &f), 0);
    if (_i == 0)
        ck_assert_str_eq(f.code, codes[_i]);
    close(fd);
}
END_TEST

static void play_status(int sock)
{
    memset(&said, 0, sizeof(said));
    said.status.state = KEEPER_IS_RUNNING;
    said.status.execs = 3;
    said.status.ttl_left_ms = 99;
    say(sock, KEEPER_STATUS_REPLY);
    hear_out(sock);
}

START_TEST(test_status)
{
    struct keeper_status status = {0};

    begin(play_status);
    ck_assert_int_eq(live_status(&live, &status), 0);
    await_keeper();
    ck_assert_uint_eq(asked->type, KEEPER_STATUS);
    ck_assert_int_eq(status.state, KEEPER_IS_RUNNING);
    ck_assert_uint_eq(status.execs, 3);
    ck_assert_uint_eq(status.ttl_left_ms, 99);
}
END_TEST

static void play_snapshot(int sock)
{
    memset(&said, 0, sizeof(said));
    said.snapshot_done.pages = 11;
    memset(said.snapshot_done.id, 'a', 64);
    say(sock, KEEPER_SNAPSHOT_DONE);
    hear_out(sock);
}

static void play_wait(int sock)
{
    hear_out(sock);
}

static void play_ended(int sock)
{
    ended(sock, OUTCOME_GUEST_PANIC, "");
    hear_out(sock);
}

static const struct {
    part *play;
    int ret;
    const char *code;
} snapshots[] = {
    {play_snapshot, 0, NULL},
    {play_refusal, -EINVAL, "busy"},
    {play_ended, -EPROTO, "machine_ended"},
    {play_status, -EPROTO, "keeper_lied"},
    {play_wait, -ECANCELED, "interrupted"}, /* by the user */
};

START_TEST(test_snapshot)
{
    const struct keeper_snapshot request = {.dir = "/snapshot"};
    struct keeper_snapshot_done done = {0};
    int cancel = eventfd(snapshots[_i].ret == -ECANCELED, EFD_CLOEXEC);

    begin(snapshots[_i].play == play_wait ? play_wait : snapshots[_i].play);
    ck_assert_int_eq(live_snapshot(&live, &request, cancel, &done, &f),
                     snapshots[_i].ret);
    if (snapshots[_i].code)
        ck_assert_str_eq(f.code, snapshots[_i].code);
    else
        ck_assert_uint_eq(done.pages, 11);
    close(cancel);
}
END_TEST

static void play_stop(int sock)
{
    struct machine_record record = {.name = "box",
                                    .protocol = KEEPER_PROTO_VERSION,
                                    .state = MACHINE_EXITED,
                                    .created_at = 1,
                                    .ended_at = 2,
                                    .exit_status = 130};

    if (machine_record_write(&entry, &record) != 0)
        _exit(9);
    ended(sock, OUTCOME_CANCELLED, "stopped");
}

START_TEST(test_stop)
{
    begin(play_stop);
    ck_assert_int_eq(live_stop(&live, _i == 0 ? 1500 : -1, &f), 0);
    await_keeper();
    ck_assert_uint_eq(asked->type, _i == 0 ? KEEPER_STOP : KEEPER_KILL);
    ck_assert_uint_eq(asked->numbers.a, _i == 0 ? 1500 : 0);
    ck_assert_int_eq(live.record.state, MACHINE_EXITED);
    ck_assert_int_eq(live.record.exit_status, 130);
    /* To stop it again is refused: it has ended. */
    ck_assert_int_eq(live_connect(&live, &f), -ESHUTDOWN);
    ck_assert_str_eq(f.code, "machine_ended");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("live");
    TCase *t = tcase_create("live");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, test_request);
    tcase_add_loop_test(t, test_long_user, 0, 2);
    tcase_add_test(t, test_exit);
    tcase_add_loop_test(t, test_output_limit, 0, 2);
    tcase_add_loop_test(t, test_credit, 0, 2);
    tcase_add_test(t, test_input);
    tcase_add_loop_test(t, test_ends, 0, (int)(sizeof(ends) / sizeof(ends[0])));
    tcase_add_loop_test(t, test_wrong, 0,
                        (int)(sizeof(wrongs) / sizeof(wrongs[0])));
    tcase_add_loop_test(t, test_copy, 0, 2);
    tcase_add_loop_test(t, test_copy_refused, 0, 2);
    tcase_add_test(t, test_status);
    tcase_add_loop_test(t, test_snapshot, 0,
                        (int)(sizeof(snapshots) / sizeof(snapshots[0])));
    tcase_add_loop_test(t, test_stop, 0, 2);
    suite_add_tcase(s, t);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
