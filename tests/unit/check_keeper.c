/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper between clients and a guest, both played by the test: no virtual
 * machine, no agent. A slow, dead or wrong client harms nobody but itself; what
 * the guest owes is enforced.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/keeper_proto.h"
#include "trial/keeper_runner.h"
#include "trial/monitor_handle.h"

#define TURN_MS 5
#define PATIENCE 20000000000ull /* nanoseconds a test waits for anything */

static char dir[] = "/tmp/check_keeper.XXXXXX";
static struct runner r;
static struct trial_spec spec;
static struct trial_result result;
static struct keeper *keeper;
static int guest = -1;   /* the agent's end */
static int starter = -1; /* the starter's end */
static struct failure f;
static struct msg msg;
static union keeper_body body;
static struct proto_inbox inbox;
static struct proto_header header;
static const uint8_t *payload;

/* ---- the machine ---- */

static void turn(void)
{
    struct pollfd polls[KEEPER_POLLS_MAX + 1];
    size_t count = keeper_polls(keeper, polls + 1);

    polls[0] = (struct pollfd){agent_client_fd(r.client),
                               agent_client_events(r.client), 0};
    ck_assert_int_ge(poll(polls, count + 1, TURN_MS), 0);
    if (polls[0].revents)
        runner_agent_process(&r, polls[0].revents);
    keeper_dispatch(keeper, polls + 1, count);
    keeper_on_clock(keeper, io_now_ns());
}

static void turns(unsigned count)
{
    while (count-- > 0)
        turn();
}

static void set_up(void)
{
    static const char *const env[] = {"OWN=1", "BOTH=own", "SAME=1", NULL};

    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    setenv("XDG_RUNTIME_DIR", dir, 1);
    memset(&spec, 0, sizeof(spec));
    spec.stdin_fd = spec.out.fd = spec.err.fd = spec.signal_fd = -1;
    spec.env = env;
    spec.user = "own-user";
    spec.workdir = "/own";
}

static void start(uint64_t ttl_ms)
{
    struct machine_record record = {.name = "box",
                                    .state = MACHINE_STARTING,
                                    .created_at = 1,
                                    .ttl_ms = ttl_ms};
    struct registry_entry entry;
    struct keeper_setup setup = {.entry = &entry, .record = &record};
    int pair[2];

    ck_assert_int_eq(registry_create("box", &entry, &f), 0);
    ck_assert_int_eq(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    setup.starter_fd = pair[0];
    starter = pair[1];
    ck_assert_int_eq(keeper_new(&setup, &keeper, &f), 0);
    memset(&result, 0, sizeof(result));
    spec.keeper = keeper;
    r = (struct runner){.spec = &spec,
                        .result = &result,
                        .facts = &result.facts,
                        .file_fd = -1,
                        .console_fd = -1};
    keeper_attach(keeper, &r);
    ck_assert_int_eq(socketpair(AF_UNIX,
                                SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                                pair),
                     0);
    guest = pair[1];
    ck_assert_int_eq(runner_agent_start(&r, pair[0]), 0);
    proto_inbox_init(&inbox, PROTO_FROM_HOST);
}

static void say(const struct proto_writer *w)
{
    size_t done = 0;

    ck_assert(!w->overflow);
    while (done < w->used) {
        ssize_t n = write(guest, w->buf + done, w->used - done);

        if (n > 0)
            done += (size_t)n;
        else
            turn();
    }
}

static void say_hello(void)
{
    struct proto_hello hello = {.version = PROTO_VERSION,
                                .features = PROTO_FEATURE_LEAVE |
                                            PROTO_FEATURE_SNAPSHOT,
                                .release = "test"};
    uint8_t buf[256];
    struct proto_writer w;

    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_hello(&w, &hello);
    say(&w);
}

/* Answers, and has told its starter. */
static void be_ready(uint64_t ttl_ms)
{
    start(ttl_ms);
    say_hello();
    while (!keeper_was_ready(keeper))
        turn();
    ck_assert_int_eq(msg_receive(starter, &msg), 1);
    ck_assert_uint_eq(msg.type, KEEPER_STARTED);
}

/* The machine ends here; the record and the clients are told. */
static void finish(void)
{
    result.outcome = outcome_decide(&result.facts);
    keeper_detach(keeper);
    agent_client_free(r.client);
    r.client = NULL;
    keeper_finish(keeper, &result, "{}");
}

static void tear_down(void)
{
    char command[100];

    if (r.client) {
        keeper_detach(keeper);
        agent_client_free(r.client);
    }
    keeper_free(keeper);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

/* ---- the guest ---- */

/* The next frame of the host: into header and payload. */
static void hear(void)
{
    uint64_t deadline = io_now_ns() + PATIENCE;

    while (proto_inbox_next(&inbox, &header, &payload) == 0) {
        size_t room;
        uint8_t *space = proto_inbox_space(&inbox, &room);
        ssize_t n = read(guest, space, room);

        ck_assert_uint_lt(io_now_ns(), deadline);
        if (n > 0)
            proto_inbox_add(&inbox, (size_t)n);
        else
            turn();
    }
}

static void hear_type(uint16_t type)
{
    hear();
    ck_assert_uint_eq(header.type, type);
}

/* Nothing comes from the host within some turns. */
static void hear_nothing(void)
{
    uint8_t byte;

    turns(10);
    ck_assert_int_eq(recv(guest, &byte, 1, MSG_PEEK), -1);
}

static void say_started(uint32_t id)
{
    uint8_t buf[64];
    struct proto_writer w;

    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_empty(&w, PROTO_EXEC_STARTED, id);
    say(&w);
}

/* len bytes of output, in frames. */
static void say_output(uint32_t id, size_t total)
{
    static uint8_t data[PROTO_DATA_MAX], buf[PROTO_FRAME_MAX];
    struct proto_writer w;

    memset(data, 'x', sizeof(data));
    while (total > 0) {
        size_t len = total < sizeof(data) ? total : sizeof(data);

        proto_writer_init(&w, buf, sizeof(buf));
        proto_put_data(&w, id, PROTO_STDOUT, data, len);
        say(&w);
        total -= len;
    }
}

static void say_exit(uint32_t id, uint32_t flags, uint64_t stdout_bytes)
{
    struct proto_exec_exit m = {.flags = flags,
                                .code = flags ? 0 : 7,
                                .signal = flags ? SIGKILL : 0,
                                .stdout_bytes = stdout_bytes};
    uint8_t buf[256];
    struct proto_writer w;

    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_exec_exit(&w, id, &m);
    say(&w);
}

/* ---- clients ---- */

static int dial(void)
{
    int sock = registry_connect(keeper_entry(keeper));

    ck_assert_int_ge(sock, 0);
    return sock;
}

static void tell(int sock, enum keeper_message type)
{
    uint64_t deadline = io_now_ns() + PATIENCE;
    int ret;

    while ((ret = keeper_send(sock, type, &body)) == -EAGAIN) {
        ck_assert_uint_lt(io_now_ns(), deadline);
        turn();
    }
    ck_assert_int_eq(ret, 0);
}

/* The next message: its type, or 0 if the keeper has hung up. */
static uint32_t listen_to(int sock)
{
    uint64_t deadline = io_now_ns() + PATIENCE;
    int ret;

    while ((ret = msg_receive(sock, &msg)) == -EAGAIN) {
        ck_assert_uint_lt(io_now_ns(), deadline);
        if (r.client)
            turn();
    }
    if (ret <= 0)
        return 0;
    ck_assert_int_eq(keeper_decode(msg.type, msg.payload, msg.len, &body), 0);
    return msg.type;
}

static int dial_exec(const char *strings, size_t len, uint32_t argc,
                     uint64_t timeout_ms)
{
    int sock = dial();

    memset(&body, 0, sizeof(body));
    body.exec = (struct keeper_exec){.flags = KEEPER_EXEC_STDIN,
                                     .timeout_ms = timeout_ms,
                                     .pids_max = 10,
                                     .argc = argc,
                                     .argv_bytes = (uint32_t)len};
    tell(sock, KEEPER_EXEC);
    body.data = (struct keeper_bytes){0, (const uint8_t *)strings, len};
    tell(sock, KEEPER_STRINGS);
    return sock;
}

/* A command that the guest has started; its id. */
static int exec_running(uint64_t timeout_ms, uint32_t *ret_id)
{
    int sock = dial_exec("cmd", 4, 1, timeout_ms);

    hear_type(PROTO_EXEC_OPEN);
    *ret_id = header.id;
    hear_type(PROTO_EXEC_STRINGS);
    say_started(*ret_id);
    ck_assert_uint_eq(listen_to(sock), KEEPER_STARTED);
    return sock;
}

/* ---- tests ---- */

/* Till its loop turns it says that it can answer nobody. */
START_TEST(test_busy_at_first)
{
    start(1000);
    ck_assert(registry_is_busy(keeper_entry(keeper)));
    turn();
    ck_assert(!registry_is_busy(keeper_entry(keeper)));
}
END_TEST

START_TEST(test_ready)
{
    struct machine_record got;

    be_ready(3600000);
    ck_assert_int_eq(machine_record_read(keeper_entry(keeper), &got, &f), 0);
    ck_assert_int_eq(got.state, MACHINE_RUNNING);
    ck_assert_str_eq(got.kernel, "test");
    close(starter);
    turns(3);
    ck_assert(!result.facts.cancelled);
}
END_TEST

START_TEST(test_not_ready)
{
    int sock;

    start(3600000);
    sock = dial_exec("cmd", 4, 1, 0);
    ck_assert_uint_eq(listen_to(sock), KEEPER_REFUSED);
    ck_assert_ptr_nonnull(strstr(body.refused.message, "still starting"));
    ck_assert_uint_eq(listen_to(sock), 0);
    sock = dial();
    tell(sock, KEEPER_STATUS);
    ck_assert_uint_eq(listen_to(sock), KEEPER_STATUS_REPLY);
    ck_assert_int_eq(body.status.state, KEEPER_IS_STARTING);
}
END_TEST

START_TEST(test_starter_leaves)
{
    start(3600000);
    close(starter);
    turns(3);
    ck_assert(result.facts.cancelled);
    ck_assert_int_eq(r.phase, RUNNER_OVER);
    finish();
    ck_assert_int_eq(registry_find("box", &(struct registry_entry){0}, &f),
                     -ENOENT);
}
END_TEST

START_TEST(test_exec)
{
    struct proto_exec_open open;
    int sock;
    uint32_t id;

    be_ready(3600000);
    sock = dial();
    memset(&body, 0, sizeof(body));
    body.exec = (struct keeper_exec){
        .argc = 2, .envc = 1, .argv_bytes = 4, .env_bytes = 10, .user = "me"};
    tell(sock, KEEPER_EXEC);
    body.data = (struct keeper_bytes){0, (const uint8_t *)"a\0b\0BOT", 7};
    tell(sock, KEEPER_STRINGS);
    body.data = (struct keeper_bytes){0, (const uint8_t *)"H=mine", 7};
    hear_nothing();
    tell(sock, KEEPER_STRINGS);
    hear_type(PROTO_EXEC_OPEN);
    ck_assert_int_eq(proto_get_exec_open(payload, header.length, &open), 0);
    ck_assert_str_eq(open.user, "me");
    ck_assert_str_eq(open.cwd, "/own");
    ck_assert_uint_eq(open.flags, PROTO_EXEC_LEAVE);
    ck_assert_uint_eq(open.envc, 3);
    id = header.id;
    hear_type(PROTO_EXEC_STRINGS);
    ck_assert_mem_eq(payload, "a\0b\0BOTH=mine\0OWN=1\0SAME=1", 27);
    say_started(id);
    say_output(id, 5);
    say_exit(id, 0, 5);
    ck_assert_uint_eq(listen_to(sock), KEEPER_STARTED);
    ck_assert_uint_eq(listen_to(sock), KEEPER_OUTPUT);
    ck_assert_uint_eq(body.data.len, 5);
    ck_assert_uint_eq(listen_to(sock), KEEPER_EXITED);
    ck_assert_uint_eq(body.exited.status.code, 7);
    ck_assert_uint_eq(listen_to(sock), 0);
}
END_TEST

START_TEST(test_not_started)
{
    const struct proto_exec_failed m = {PROTO_FAIL_USER, ENOENT};
    uint8_t buf[64];
    struct proto_writer w;
    int sock;

    be_ready(3600000);
    sock = dial_exec("cmd", 4, 1, 0);
    hear_type(PROTO_EXEC_OPEN);
    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_exec_failed(&w, header.id, &m);
    say(&w);
    ck_assert_uint_eq(listen_to(sock), KEEPER_NOT_STARTED);
    ck_assert_uint_eq(body.numbers.a, PROTO_FAIL_USER);
    ck_assert_uint_eq(listen_to(sock), 0);
}
END_TEST

/* Strings that are not what was announced. */
static const struct {
    const char *strings;
    size_t len;
    uint32_t argc;
} bad_strings[] = {{"ab", 2, 1}, {"a\0b", 4, 1}, {"ab\0", 3, 2}};

START_TEST(test_bad_strings)
{
    int sock;

    be_ready(3600000);
    sock = dial_exec(bad_strings[_i].strings, bad_strings[_i].len,
                     bad_strings[_i].argc, 0);
    ck_assert_uint_eq(listen_to(sock), KEEPER_REFUSED);
    ck_assert_str_eq(body.refused.code, "usage");
    hear_nothing();
}
END_TEST

/* Messages that fit no state end their connection and nothing else. */
START_TEST(test_wrong_messages)
{
    static const enum keeper_message wrong[] = {
        KEEPER_STRINGS, KEEPER_STDIN,   KEEPER_STDIN_END, KEEPER_CREDIT,
        KEEPER_SIGNAL,  KEEPER_STARTED, KEEPER_EXITED,    KEEPER_PUT,
    };
    uint32_t id;
    int good, sock;

    be_ready(3600000);
    good = exec_running(0, &id);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        memset(&body, 0, sizeof(body));
        if (wrong[i] == KEEPER_STRINGS || wrong[i] == KEEPER_STDIN)
            body.data = (struct keeper_bytes){0, (const uint8_t *)"x", 1};
        if (wrong[i] == KEEPER_CREDIT || wrong[i] == KEEPER_SIGNAL)
            body.numbers = (struct keeper_numbers){1, 0};
        if (wrong[i] == KEEPER_CREDIT)
            body.numbers.b = 1;
        if (wrong[i] == KEEPER_PUT) /* without a file */
            strcpy(body.file.path, "/x");
        sock = dial();
        tell(sock, wrong[i]);
        ck_assert_uint_eq(listen_to(sock), 0);
        close(sock);
    }
    sock = dial();
    ck_assert_int_eq(send(sock, "garbage", 7, 0), 7);
    ck_assert_uint_eq(listen_to(sock), 0);
    say_output(id, 1);
    ck_assert_uint_eq(listen_to(good), KEEPER_OUTPUT);
}
END_TEST

/* Credit for what was never sent. */
START_TEST(test_false_credit)
{
    uint32_t id;
    int sock;

    be_ready(3600000);
    sock = exec_running(0, &id);
    say_output(id, 10);
    ck_assert_uint_eq(listen_to(sock), KEEPER_OUTPUT);
    body.numbers = (struct keeper_numbers){PROTO_STDOUT, 11};
    tell(sock, KEEPER_CREDIT);
    ck_assert_uint_eq(listen_to(sock), 0);
    hear_type(PROTO_CANCEL);
}
END_TEST

/* Stdin within the window arrives; credit comes back as the guest gives it. */
START_TEST(test_stdin)
{
    static const uint8_t piece[KEEPER_DATA_MAX];
    size_t sent = 0, got = 0;
    uint8_t buf[64];
    struct proto_writer w;
    uint32_t id;
    int sock;

    be_ready(3600000);
    sock = exec_running(0, &id);
    while (sent < 2 * KEEPER_WINDOW) {
        body.data = (struct keeper_bytes){0, piece, sizeof(piece)};
        tell(sock, KEEPER_STDIN);
        sent += sizeof(piece);
        if (sent == KEEPER_WINDOW) {
            /* All that the guest took is free again for the client. */
            while (got < KEEPER_WINDOW) {
                hear_type(PROTO_DATA);
                got += header.length - 4;
            }
            while (got > 0) {
                ck_assert_uint_eq(listen_to(sock), KEEPER_STDIN_CREDIT);
                got -= body.numbers.a;
            }
        }
    }
    hear_nothing(); /* the guest gave no credit */
    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_credit(&w, id, PROTO_STDIN, PROTO_WINDOW);
    say(&w);
    while (got < KEEPER_WINDOW) {
        hear_type(PROTO_DATA);
        got += header.length - 4;
    }
    tell(sock, KEEPER_STDIN_END);
    hear_type(PROTO_EOF);
}
END_TEST

START_TEST(test_stdin_beyond_credit)
{
    static const uint8_t piece[KEEPER_DATA_MAX];
    uint32_t id;
    int sock, other;

    be_ready(3600000);
    sock = exec_running(0, &id);
    for (size_t sent = 0; sent <= 2 * KEEPER_WINDOW; sent += sizeof(piece)) {
        body.data = (struct keeper_bytes){0, piece, sizeof(piece)};
        if (keeper_send(sock, KEEPER_STDIN, &body) != 0)
            break;
        turns(2);
    }
    while (listen_to(sock) == KEEPER_STDIN_CREDIT)
        ;
    ck_assert_int_eq(msg_receive(sock, &msg), 0);
    do {
        hear();
    } while (header.type == PROTO_DATA);
    ck_assert_uint_eq(header.type, PROTO_CANCEL);
    other = exec_running(0, &id);
    ck_assert_int_ge(other, 0);
}
END_TEST

/* A client that does not read stops its own command, and only that. */
START_TEST(test_slow_client)
{
    uint32_t slow, quick, stream, bytes;
    size_t got = 0;
    int sock, other;

    be_ready(3600000);
    sock = exec_running(0, &slow);
    say_output(slow, PROTO_WINDOW);
    hear_nothing();
    other = exec_running(0, &quick);
    say_output(quick, 3);
    say_exit(quick, 0, 3);
    ck_assert_uint_eq(listen_to(other), KEEPER_OUTPUT);
    ck_assert_uint_eq(listen_to(other), KEEPER_EXITED);
    while (got < PROTO_WINDOW) {
        ck_assert_uint_eq(listen_to(sock), KEEPER_OUTPUT);
        got += body.data.len;
    }
    body.numbers = (struct keeper_numbers){PROTO_STDOUT, PROTO_WINDOW};
    tell(sock, KEEPER_CREDIT);
    hear_type(PROTO_CREDIT);
    ck_assert_int_eq(proto_get_credit(payload, header.length, &stream, &bytes),
                     0);
    ck_assert_uint_eq(stream, PROTO_STDOUT);
    ck_assert_uint_eq(bytes, PROTO_WINDOW);
    say_output(slow, PROTO_WINDOW);
    say_exit(slow, 0, 2 * PROTO_WINDOW);
    while ((got = listen_to(sock)) == KEEPER_OUTPUT)
        ;
    ck_assert_uint_eq(got, KEEPER_EXITED);
}
END_TEST

START_TEST(test_hang_up)
{
    uint32_t id;
    int sock;

    be_ready(3600000);
    sock = exec_running(0, &id);
    close(sock);
    hear_type(PROTO_CANCEL);
    ck_assert_uint_eq(header.id, id);
    /* Its output is nobody's: the guest may get rid of it. */
    say_output(id, PROTO_WINDOW);
    hear_type(PROTO_CREDIT);
    say_exit(id, PROTO_EXIT_CANCELLED, PROTO_WINDOW);
    turns(5);
    ck_assert_uint_eq(agent_client_live(r.client), 0);
}
END_TEST

/*
 * A command whose time is over while its client does not read: the agent must
 * be able to report its end, so what comes too much is dropped, and counted.
 */
START_TEST(test_timeout_and_slow_client)
{
    uint32_t id;
    size_t got = 0, type;
    int sock;

    be_ready(3600000);
    sock = exec_running(200, &id);
    say_output(id, PROTO_WINDOW);
    hear_type(PROTO_CREDIT); /* comes with the deadline */
    say_output(id, PROTO_WINDOW);
    hear_type(PROTO_CREDIT);
    say_output(id, PROTO_WINDOW);
    say_exit(id, PROTO_EXIT_TIMED_OUT, 3 * PROTO_WINDOW);
    turns(5);
    while ((type = listen_to(sock)) == KEEPER_OUTPUT)
        got += body.data.len;
    ck_assert_uint_eq(type, KEEPER_EXITED);
    ck_assert_uint_eq(body.exited.status.flags, PROTO_EXIT_TIMED_OUT);
    ck_assert_uint_ge(got, PROTO_WINDOW);
    ck_assert_uint_eq(got + body.exited.dropped[0], 3 * PROTO_WINDOW);
    ck_assert_uint_gt(body.exited.dropped[0], 0);
}
END_TEST

/* It ended by itself, but who knows when: the keeper was stopped, say. */
START_TEST(test_late)
{
    uint64_t until;
    uint32_t id;
    int sock;

    be_ready(3600000);
    sock = exec_running(50, &id);
    until = io_now_ns() + 51 * 1000000u;
    while (io_now_ns() < until)
        continue;
    say_exit(id, _i ? PROTO_EXIT_TIMED_OUT : 0, 0);
    ck_assert_uint_eq(listen_to(sock), KEEPER_EXITED);
    ck_assert(body.exited.late == (_i == 0));
    /* One in time is none. */
    sock = exec_running(3600000, &id);
    say_exit(id, 0, 0);
    ck_assert_uint_eq(listen_to(sock), KEEPER_EXITED);
    ck_assert(!body.exited.late);
}
END_TEST

/* The agent does not end it: no result, and the machine is of no more use. */
START_TEST(test_unconfirmed_timeout)
{
    uint64_t began = io_now_ns();
    uint32_t id, other_id;
    int sock, other;

    be_ready(3600000);
    other = exec_running(0, &other_id);
    sock = exec_running(100, &id);
    ck_assert_uint_eq(listen_to(sock), KEEPER_ENDED);
    ck_assert_int_eq(body.ended.kind, OUTCOME_INFRA_UNKNOWN);
    ck_assert_str_eq(body.ended.cause, "machine_unavailable");
    ck_assert_uint_ge(io_now_ns() - began, 2000000000u);
    ck_assert_uint_eq(listen_to(sock), 0);
    ck_assert_uint_eq(listen_to(other), KEEPER_ENDED);
    /* A late word changes nothing. */
    say_exit(id, PROTO_EXIT_TIMED_OUT, 0);
    sock = dial_exec("cmd", 4, 1, 0);
    ck_assert_uint_eq(listen_to(sock), KEEPER_REFUSED);
    ck_assert_str_eq(body.refused.code, "machine_unavailable");
    sock = dial();
    tell(sock, KEEPER_STATUS);
    ck_assert_uint_eq(listen_to(sock), KEEPER_STATUS_REPLY);
    ck_assert_int_eq(body.status.state, KEEPER_IS_UNAVAILABLE);
}
END_TEST

/* Who stopped the monitor stopped the guest: nobody waits for that. */
START_TEST(test_stopped_monitor)
{
    struct monitor monitor = {.pid = fork(), .sock = -1};
    char remedy[40];
    uint32_t id;
    int sock, waiter;

    if (monitor.pid == 0) {
        for (;;)
            pause();
    }
    be_ready(3600000);
    r.monitor = &monitor;
    waiter = dial(); /* waits for the machine's end: it is left alone */
    sock = exec_running(0, &id);
    ck_assert_int_eq(kill(monitor.pid, SIGSTOP), 0);
    ck_assert_uint_eq(listen_to(sock), KEEPER_ENDED);
    ck_assert_int_eq(body.ended.kind, OUTCOME_INFRA_UNKNOWN);
    ck_assert(body.ended.by_host);
    ck_assert_str_eq(body.ended.cause, "monitor_stopped");
    snprintf(remedy, sizeof(remedy), "kill -CONT %d", (int)monitor.pid);
    ck_assert_ptr_nonnull(strstr(body.ended.failure.remedy, remedy));
    hear_type(PROTO_CANCEL); /* of what may still run there */
    ck_assert_int_eq(msg_receive(waiter, &msg), -EAGAIN);
    /* Continued, it serves as before. */
    ck_assert_int_eq(kill(monitor.pid, SIGCONT), 0);
    say_exit(id, PROTO_EXIT_CANCELLED, 0);
    sock = exec_running(0, &id);
    say_exit(id, 0, 0);
    ck_assert_uint_eq(listen_to(sock), KEEPER_EXITED);
    kill(monitor.pid, SIGKILL);
    waitpid(monitor.pid, NULL, 0);
    r.monitor = NULL;
}
END_TEST

/* The host could not store what a command wrote: its own status is no word. */
START_TEST(test_exit_and_full_host)
{
    static struct machine machine;
    struct monitor_stats stats = {.disk_count = 1};
    struct monitor monitor = {.pid = -1, .cancel_fd = -1};
    uint8_t buf[2048];
    size_t len = 0;
    int pair[2], sock;
    uint32_t id;

    ck_assert_int_eq(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    monitor.sock = pair[0];
    be_ready(3600000);
    r.machine = &machine;
    r.monitor = &monitor;
    sock = exec_running(0, &id);
    stats.disks[0].no_space = _i == 0;
    ck_assert_int_eq(monitor_stats_encode(&stats, buf, sizeof(buf), &len), 0);
    ck_assert_int_eq(msg_send(pair[1], MONITOR_STATS, buf, len, NULL, 0), 0);
    say_exit(id, 0, 0);
    turns(3);
    if (_i == 0) {
        ck_assert_int_eq(r.phase, RUNNER_OVER);
        result.outcome = outcome_decide(&result.facts);
        keeper_detach(keeper);
        keeper_finish(keeper, &result, "{}");
        ck_assert_int_eq(msg_receive(sock, &msg), 1);
        ck_assert_uint_eq(msg.type, KEEPER_ENDED);
        ck_assert_int_eq(keeper_decode(msg.type, msg.payload, msg.len, &body),
                         0);
        ck_assert_int_eq(body.ended.kind, OUTCOME_INFRA_UNKNOWN);
        ck_assert_str_eq(body.ended.cause, "host_disk_full");
    } else {
        ck_assert_uint_eq(listen_to(sock), KEEPER_EXITED);
    }
    r.monitor = NULL;
    close(pair[0]);
    close(pair[1]);
}
END_TEST

/* Nor is it where the monitor cannot tell any more. */
START_TEST(test_exit_and_stopped_monitor)
{
    struct monitor monitor = {.pid = fork(), .cancel_fd = -1};
    int pair[2], sock;
    uint32_t id;

    if (monitor.pid == 0) {
        for (;;)
            pause();
    }
    ck_assert_int_eq(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    monitor.sock = pair[0];
    be_ready(3600000);
    sock = exec_running(0, &id);
    r.monitor = &monitor;
    ck_assert_int_eq(kill(monitor.pid, SIGSTOP), 0);
    say_exit(id, 0, 0);
    ck_assert_uint_eq(listen_to(sock), KEEPER_ENDED);
    ck_assert_int_eq(body.ended.kind, OUTCOME_INFRA_UNKNOWN);
    ck_assert_str_eq(body.ended.cause, "monitor_stopped");
    kill(monitor.pid, SIGKILL);
    waitpid(monitor.pid, NULL, 0);
    r.monitor = NULL;
    close(pair[0]);
    close(pair[1]);
}
END_TEST

/* A machine without an agent can be asked how it is, and ended: no more. */
START_TEST(test_no_agent)
{
    int sock;

    spec.no_agent = true;
    be_ready(3600000);
    sock = dial_exec("cmd", 4, 1, 0);
    ck_assert_uint_eq(listen_to(sock), KEEPER_REFUSED);
    ck_assert_str_eq(body.refused.code, "no_agent");
    sock = dial();
    tell(sock, KEEPER_STATUS);
    ck_assert_uint_eq(listen_to(sock), KEEPER_STATUS_REPLY);
    ck_assert_int_eq(body.status.state, KEEPER_IS_RUNNING);
}
END_TEST

START_TEST(test_too_many)
{
    int socks[KEEPER_CLIENTS_MAX + 1];
    uint32_t id;

    be_ready(3600000);
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++)
        socks[i] = exec_running(0, &id);
    socks[16] = dial_exec("cmd", 4, 1, 0);
    ck_assert_uint_eq(listen_to(socks[16]), KEEPER_REFUSED);
    ck_assert_str_eq(body.refused.code, "busy");
    for (size_t i = PROTO_HANDLES_MAX; i < KEEPER_CLIENTS_MAX; i++) {
        socks[i] = dial();
        turns(1);
    }
    turns(2);
    socks[KEEPER_CLIENTS_MAX] = dial();
    ck_assert_uint_eq(listen_to(socks[KEEPER_CLIENTS_MAX]), KEEPER_REFUSED);
    ck_assert_str_eq(body.refused.code, "busy");
    close(socks[KEEPER_CLIENTS_MAX - 1]);
    turns(3);
    socks[0] = dial();
    tell(socks[0], KEEPER_STATUS);
    ck_assert_uint_eq(listen_to(socks[0]), KEEPER_STATUS_REPLY);
    ck_assert_uint_eq(body.status.execs, PROTO_HANDLES_MAX);
}
END_TEST

/* A keeper without descriptors tells its clients, and does not spin. */
START_TEST(test_no_descriptors)
{
    struct rlimit limit, before;
    int sock;

    be_ready(3600000);
    sock = dial();
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit = before;
    /* More than poll is given entries, and all of them taken. */
    do {
        limit.rlim_cur = (rlim_t)dup(sock) + 1;
    } while (limit.rlim_cur < 200);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_uint_eq(listen_to(sock), KEEPER_REFUSED);
    ck_assert_str_eq(body.refused.code, "host");
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    sock = dial();
    tell(sock, KEEPER_STATUS);
    ck_assert_uint_eq(listen_to(sock), KEEPER_STATUS_REPLY);
}
END_TEST

START_TEST(test_files)
{
    const struct proto_file_done done = {.bytes = 5}, none = {.err = ENOENT};
    int file = memfd_create("file", 0), pipes[2], sock;
    static uint8_t request[MSG_PAYLOAD_MAX];
    uint8_t buf[64], text[8] = {0};
    struct proto_writer w;
    size_t len;

    be_ready(3600000);
    ck_assert_int_eq(write(file, "hello", 5), 5);
    lseek(file, 0, SEEK_SET);
    memset(&body, 0, sizeof(body));
    strcpy(body.file.path, "/x");
    body.file.mode = 0644;
    sock = dial();
    ck_assert_int_eq(keeper_encode(KEEPER_PUT, &body, request, &len), 0);
    ck_assert_int_eq(msg_send(sock, KEEPER_PUT, request, len, &file, 1), 0);
    hear_type(PROTO_FILE_WRITE);
    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_file_done(&w, header.id, &done);
    hear_type(PROTO_DATA);
    hear_type(PROTO_EOF);
    say(&w);
    ck_assert_uint_eq(listen_to(sock), KEEPER_FILE_DONE);
    ck_assert_uint_eq(body.file_done.bytes, 5);
    /* Out of the guest, and not there. */
    memset(&body, 0, sizeof(body));
    strcpy(body.file.path, "/y");
    body.file.limit = 100;
    ck_assert_int_eq(keeper_encode(KEEPER_GET, &body, request, &len), 0);
    sock = dial();
    ck_assert_int_eq(msg_send(sock, KEEPER_GET, request, len, &file, 1), 0);
    hear_type(PROTO_FILE_READ);
    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_file_done(&w, header.id, &none);
    say(&w);
    ck_assert_uint_eq(listen_to(sock), KEEPER_FILE_DONE);
    ck_assert_uint_eq(body.file_done.err, ENOENT);
    /* What might block is not taken. */
    ck_assert_int_eq(pipe(pipes), 0);
    sock = dial();
    ck_assert_int_eq(msg_send(sock, KEEPER_GET, request, len, &pipes[1], 1), 0);
    ck_assert_uint_eq(listen_to(sock), KEEPER_REFUSED);
    ck_assert_int_eq(pread(file, text, 5, 0), 5);
    ck_assert_str_eq((const char *)text, "hello");
}
END_TEST

START_TEST(test_kill)
{
    struct machine_record got;
    uint32_t id;
    int sock, exec;

    be_ready(3600000);
    exec = exec_running(0, &id);
    sock = dial();
    tell(sock, KEEPER_KILL);
    turns(3);
    ck_assert_int_eq(r.phase, RUNNER_OVER);
    finish();
    ck_assert_uint_eq(listen_to(sock), KEEPER_ENDED);
    ck_assert_int_eq(body.ended.kind, OUTCOME_CANCELLED);
    ck_assert_str_eq(body.ended.cause, "killed");
    ck_assert_uint_eq(listen_to(exec), KEEPER_ENDED);
    ck_assert_uint_eq(listen_to(exec), 0);
    ck_assert_int_eq(machine_record_read(keeper_entry(keeper), &got, &f), 0);
    ck_assert_int_eq(got.state, MACHINE_EXITED);
    ck_assert_int_eq(got.exit_status, 130);
}
END_TEST

START_TEST(test_stop)
{
    int sock, late;

    be_ready(3600000);
    sock = dial();
    memset(&body, 0, sizeof(body));
    body.numbers.a = 300;
    tell(sock, KEEPER_STOP);
    hear_type(PROTO_SHUTDOWN);
    ck_assert_int_ne(r.phase, RUNNER_OVER);
    late = dial_exec("cmd", 4, 1, 0);
    ck_assert_uint_eq(listen_to(late), KEEPER_REFUSED);
    ck_assert_str_eq(body.refused.code, "machine_ended");
    /* The guest hangs up, as it should: no breach of the protocol. */
    close(guest);
    turns(5);
    ck_assert(!result.facts.protocol_broken);
    while (r.phase != RUNNER_OVER)
        turn(); /* and does not power off: the grace decides */
    finish();
    ck_assert_int_eq(result.outcome.kind, OUTCOME_CANCELLED);
    ck_assert_uint_eq(listen_to(sock), KEEPER_ENDED);
}
END_TEST

/* The machine's own command is asked to end. */
START_TEST(test_stop_command)
{
    static const char *const argv[] = {"own", NULL};
    uint32_t id, signal_number;
    int sock;

    spec.argv = argv;
    start(3600000);
    say_hello();
    hear_type(PROTO_EXEC_OPEN);
    id = header.id;
    hear_type(PROTO_EXEC_STRINGS);
    ck_assert(!keeper_was_ready(keeper));
    ck_assert_int_eq(output_init(&r.out, &spec.out, 100), 0);
    ck_assert_int_eq(output_init(&r.err, &spec.err, 100), 0);
    say_started(id);
    while (!keeper_was_ready(keeper))
        turn();
    sock = dial();
    memset(&body, 0, sizeof(body));
    body.numbers.a = 10000;
    tell(sock, KEEPER_STOP);
    hear_type(PROTO_EXEC_SIGNAL);
    ck_assert_int_eq(proto_get_u32(payload, header.length, &signal_number), 0);
    ck_assert_uint_eq(signal_number, SIGTERM);
    say_exit(id, 0, 0);
    while (r.phase != RUNNER_OVER)
        turn();
    finish();
    ck_assert_int_eq(result.outcome.kind, OUTCOME_FAIL);
    ck_assert_uint_eq(listen_to(sock), KEEPER_ENDED);
    output_fini(&r.out);
    output_fini(&r.err);
}
END_TEST

START_TEST(test_expiry)
{
    struct machine_record got;
    int sock;

    be_ready(150);
    sock = dial();
    while (r.phase != RUNNER_OVER)
        turn();
    ck_assert(result.facts.timed_out);
    finish();
    ck_assert_uint_eq(listen_to(sock), KEEPER_ENDED);
    ck_assert_int_eq(machine_record_read(keeper_entry(keeper), &got, &f), 0);
    ck_assert_int_eq(got.state, MACHINE_EXPIRED);
    ck_assert_int_eq(got.exit_status, 124);
    ck_assert_str_eq(got.cause, "ttl");
}
END_TEST

/* A guest that breaks the protocol ends the machine, not the keeper. */
START_TEST(test_hostile_guest)
{
    uint32_t id;
    int sock;

    be_ready(3600000);
    sock = exec_running(0, &id);
    say_output(id, PROTO_WINDOW);
    say_output(id, 1);
    while (!result.facts.protocol_broken)
        turn();
    r.phase = RUNNER_OVER;
    finish();
    while (listen_to(sock) == KEEPER_OUTPUT)
        ;
    ck_assert_uint_eq(msg.type, KEEPER_ENDED);
    ck_assert_int_eq(body.ended.kind, OUTCOME_PROTOCOL_VIOLATION);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("keeper");
    TCase *t = tcase_create("keeper");

    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, test_busy_at_first);
    tcase_add_test(t, test_ready);
    tcase_add_test(t, test_not_ready);
    tcase_add_test(t, test_starter_leaves);
    tcase_add_test(t, test_exec);
    tcase_add_test(t, test_not_started);
    tcase_add_loop_test(t, test_bad_strings, 0, 3);
    tcase_add_test(t, test_wrong_messages);
    tcase_add_test(t, test_false_credit);
    tcase_add_test(t, test_stdin);
    tcase_add_test(t, test_stdin_beyond_credit);
    tcase_add_test(t, test_slow_client);
    tcase_add_test(t, test_hang_up);
    tcase_add_test(t, test_timeout_and_slow_client);
    tcase_add_loop_test(t, test_late, 0, 2);
    tcase_add_test(t, test_unconfirmed_timeout);
    tcase_add_test(t, test_stopped_monitor);
    tcase_add_test(t, test_exit_and_stopped_monitor);
    tcase_add_loop_test(t, test_exit_and_full_host, 0, 2);
    tcase_add_test(t, test_no_agent);
    tcase_add_test(t, test_too_many);
    tcase_add_test(t, test_no_descriptors);
    tcase_add_test(t, test_files);
    tcase_add_test(t, test_kill);
    tcase_add_test(t, test_stop);
    tcase_add_test(t, test_stop_command);
    tcase_add_test(t, test_expiry);
    tcase_add_test(t, test_hostile_guest);
    suite_add_tcase(s, t);
    return s;
}

int main(void)
{
    SRunner *runner = srunner_create(suite());
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
