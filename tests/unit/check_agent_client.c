/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client against a guest that lies: every frame that does not fit the
 * protocol or its state ends the connection with a reason, and nothing else
 * happens. The other end of a socketpair is the guest.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "trial/agent_client.h"

/* Ids of the three handles every test starts with. */
#define EXEC_ID 1u
#define READ_ID 2u
#define WRITE_ID 3u
#define READ_LIMIT 1000u

static struct agent_client *client;
static int guest = -1;
static int local = -1;
static struct {
    unsigned hellos, starts, fails, exits, dones, quiesced, restored;
    size_t output, ready;
    int code;
} seen;

static void on_hello(void *arg, const struct proto_hello *hello)
{
    (void)arg;
    (void)hello;
    seen.hellos++;
}

static void on_started(void *arg, uint32_t id)
{
    (void)arg;
    ck_assert_uint_eq(id, EXEC_ID);
    seen.starts++;
}

static void on_failed(void *arg, uint32_t id,
                      const struct agent_exec_failure *failure)
{
    (void)arg;
    ck_assert_uint_eq(id, EXEC_ID);
    seen.fails++;
    seen.code = failure->exit_code;
}

static void on_output(void *arg, uint32_t id, uint32_t stream,
                      const void *bytes, size_t len)
{
    (void)arg;
    (void)id;
    (void)stream;
    (void)bytes;
    seen.output += len;
}

static void on_ready(void *arg, uint32_t id, size_t room)
{
    (void)arg;
    ck_assert_uint_eq(id, EXEC_ID);
    ck_assert_uint_gt(room, 0);
    seen.ready++;
}

static void on_exec_exit(void *arg, uint32_t id,
                         const struct proto_exec_exit *status)
{
    (void)arg;
    ck_assert_uint_eq(id, EXEC_ID);
    seen.exits++;
    seen.code = (int)status->code;
}

static void on_done(void *arg, uint32_t id, const struct proto_file_done *done,
                    int local_err)
{
    (void)arg;
    (void)id;
    (void)done;
    (void)local_err;
    seen.dones++;
}

static void on_quiesced(void *arg, const struct proto_quiesced *quiesced)
{
    (void)arg;
    seen.quiesced++;
    seen.code = (int)quiesced->err;
}

static void on_restored(void *arg, const struct proto_restored *restored)
{
    (void)arg;
    seen.restored++;
    seen.code = (int)restored->err;
}

static int process(void)
{
    return agent_client_process(client, POLLIN);
}

static void say(const struct proto_writer *w)
{
    ck_assert(!w->overflow);
    ck_assert_int_eq(write(guest, w->buf, w->used), (ssize_t)w->used);
}

static struct proto_hello good_hello(void)
{
    struct proto_hello hello = {.version = PROTO_VERSION,
                                .features = PROTO_FEATURE_SNAPSHOT,
                                .release = "test"};

    return hello;
}

static void say_hello(void)
{
    struct proto_hello hello = good_hello();
    uint8_t buf[256];
    struct proto_writer w;

    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_hello(&w, &hello);
    say(&w);
}

static void connect_client(void)
{
    static const struct agent_client_ops ops = {
        .hello = on_hello,
        .exec_started = on_started,
        .exec_failed = on_failed,
        .output = on_output,
        .stdin_ready = on_ready,
        .exec_exit = on_exec_exit,
        .quiesced = on_quiesced,
        .restored = on_restored,
        .file_done = on_done,
    };
    int sv[2];

    memset(&seen, 0, sizeof(seen));
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    ck_assert_int_eq(agent_client_new(sv[0], &ops, NULL, &client), 0);
    guest = sv[1];
}

static void disconnect_client(void)
{
    agent_client_free(client);
    client = NULL;
    close(guest);
}

/* HELLO done; one exec, one read and one write are open. */
static void start(void)
{
    const char *const argv[] = {"true", NULL};
    const struct agent_exec_request request = {.argv = argv,
                                               .open_stdin = true};
    uint32_t id;

    connect_client();
    say_hello();
    ck_assert_int_eq(process(), 0);
    local = memfd_create("local", MFD_CLOEXEC);
    ck_assert_int_eq(agent_client_exec(client, &request, &id), 0);
    ck_assert_uint_eq(id, EXEC_ID);
    ck_assert_int_eq(
        agent_client_read_file(client, "/f", NULL, READ_LIMIT, local, &id), 0);
    ck_assert_uint_eq(id, READ_ID);
    ck_assert_int_eq(ftruncate(local, 1 << 20), 0);
    ck_assert_int_eq(
        agent_client_write_file(client, "/f", NULL, 0600, local, &id), 0);
    ck_assert_uint_eq(id, WRITE_ID);
}

static void stop(void)
{
    disconnect_client();
    close(local);
}

/* ---- before HELLO ------------------------------------------------------- */

START_TEST(test_no_requests_before_hello)
{
    const char *const argv[] = {"true", NULL};
    const struct agent_exec_request request = {.argv = argv};
    uint32_t id;

    connect_client();
    ck_assert_int_eq(agent_client_exec(client, &request, &id), -ENOTCONN);
    ck_assert_int_eq(agent_client_stat(client, "/", NULL, &id), -ENOTCONN);
    ck_assert_int_eq(agent_client_shutdown(client), -ENOTCONN);
    ck_assert_str_eq(agent_client_reason(client), "");
    disconnect_client();
}
END_TEST

START_TEST(test_first_frame_is_hello)
{
    struct proto_writer w;
    uint8_t buf[64];

    connect_client();
    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_empty(&w, PROTO_EXEC_STARTED, 1);
    say(&w);
    ck_assert_int_eq(process(), -EPROTO);
    ck_assert_ptr_nonnull(strstr(agent_client_reason(client), "HELLO"));
    disconnect_client();
}
END_TEST

START_TEST(test_version)
{
    struct proto_hello hello = good_hello();
    struct proto_writer w;
    uint8_t buf[256];

    connect_client();
    hello.version = PROTO_VERSION + 1;
    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_hello(&w, &hello);
    say(&w);
    ck_assert_int_eq(process(), -EPROTO);
    ck_assert_ptr_nonnull(strstr(agent_client_reason(client), "version 2"));
    ck_assert_uint_eq(seen.hellos, 0);
    disconnect_client();
}
END_TEST

START_TEST(test_byte_by_byte)
{
    struct proto_hello hello = good_hello();
    struct proto_writer w;
    uint8_t buf[256];

    connect_client();
    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_hello(&w, &hello);
    for (size_t i = 0; i < w.used; i++) {
        ck_assert_uint_eq(seen.hellos, 0);
        ck_assert_int_eq(write(guest, buf + i, 1), 1);
        ck_assert_int_eq(process(), 0);
    }
    ck_assert_uint_eq(seen.hellos, 1);
    disconnect_client();
}
END_TEST

/* ---- lies --------------------------------------------------------------- */

static void lie_second_hello(struct proto_writer *w)
{
    struct proto_hello hello = good_hello();

    proto_put_hello(w, &hello);
}

static void lie_host_frame(struct proto_writer *w)
{
    proto_put_empty(w, PROTO_CANCEL, EXEC_ID);
}

static void lie_unknown_handle(struct proto_writer *w)
{
    proto_put_empty(w, PROTO_EXEC_STARTED, 99);
}

static void lie_started_twice(struct proto_writer *w)
{
    proto_put_empty(w, PROTO_EXEC_STARTED, EXEC_ID);
    proto_put_empty(w, PROTO_EXEC_STARTED, EXEC_ID);
}

static void lie_started_file(struct proto_writer *w)
{
    proto_put_empty(w, PROTO_EXEC_STARTED, READ_ID);
}

static void lie_early_output(struct proto_writer *w)
{
    proto_put_data(w, EXEC_ID, PROTO_STDOUT, "x", 1);
}

static void lie_wrong_stream(struct proto_writer *w)
{
    proto_put_empty(w, PROTO_EXEC_STARTED, EXEC_ID);
    proto_put_data(w, EXEC_ID, PROTO_STDIN, "x", 1);
}

static void lie_file_stream(struct proto_writer *w)
{
    proto_put_data(w, WRITE_ID, PROTO_FILE, "x", 1);
}

static void lie_no_credit(struct proto_writer *w)
{
    static uint8_t data[PROTO_DATA_MAX];

    proto_put_empty(w, PROTO_EXEC_STARTED, EXEC_ID);
    for (size_t sent = 0; sent <= PROTO_WINDOW; sent += sizeof(data))
        proto_put_data(w, EXEC_ID, PROTO_STDERR, data, sizeof(data));
}

static void lie_read_limit(struct proto_writer *w)
{
    static uint8_t data[READ_LIMIT + 1];

    proto_put_data(w, READ_ID, PROTO_FILE, data, sizeof(data));
}

static void lie_credit(struct proto_writer *w)
{
    proto_put_credit(w, EXEC_ID, PROTO_STDIN, 1);
}

static void lie_credit_stream(struct proto_writer *w)
{
    proto_put_credit(w, EXEC_ID, PROTO_STDOUT, 1);
}

static void lie_credit_read(struct proto_writer *w)
{
    proto_put_credit(w, READ_ID, PROTO_FILE, 1);
}

static void lie_early_exit(struct proto_writer *w)
{
    const struct proto_exec_exit status = {0};

    proto_put_exec_exit(w, EXEC_ID, &status);
}

static void lie_counts(struct proto_writer *w)
{
    const struct proto_exec_exit status = {.stdout_bytes = 1};

    proto_put_empty(w, PROTO_EXEC_STARTED, EXEC_ID);
    proto_put_exec_exit(w, EXEC_ID, &status);
}

static void lie_stdin_count(struct proto_writer *w)
{
    const struct proto_exec_exit status = {.stdin_bytes = 1};

    proto_put_empty(w, PROTO_EXEC_STARTED, EXEC_ID);
    proto_put_exec_exit(w, EXEC_ID, &status);
}

static void lie_after_exit(struct proto_writer *w)
{
    const struct proto_exec_exit status = {0};

    proto_put_empty(w, PROTO_EXEC_STARTED, EXEC_ID);
    proto_put_exec_exit(w, EXEC_ID, &status);
    proto_put_data(w, EXEC_ID, PROTO_STDOUT, "x", 1);
}

static void lie_failed_after_start(struct proto_writer *w)
{
    const struct proto_exec_failed failed = {PROTO_FAIL_NOT_FOUND, 2};

    proto_put_empty(w, PROTO_EXEC_STARTED, EXEC_ID);
    proto_put_exec_failed(w, EXEC_ID, &failed);
}

static void lie_done_exec(struct proto_writer *w)
{
    const struct proto_file_done done = {0};

    proto_put_file_done(w, EXEC_ID, &done);
}

static void lie_exit_file(struct proto_writer *w)
{
    const struct proto_exec_exit status = {0};

    proto_put_exec_exit(w, READ_ID, &status);
}

static void lie_done_size(struct proto_writer *w)
{
    const struct proto_file_done done = {.bytes = 5};

    proto_put_file_done(w, READ_ID, &done);
}

static void lie_done_unsent(struct proto_writer *w)
{
    const struct proto_file_done done = {0};

    proto_put_file_done(w, WRITE_ID, &done);
}

static void lie_length(struct proto_writer *w)
{
    proto_put_empty(w, PROTO_EXEC_STARTED, EXEC_ID);
    w->buf[2] = 2; /* 128 KiB to come, it says */
}

static void lie_quiesced(struct proto_writer *w)
{
    proto_put_quiesced(w, &(struct proto_quiesced){.err = EBUSY});
}

static void ask_to_quiesce(void)
{
    ck_assert_int_eq(agent_client_quiesce(client, PROTO_QUIESCE_PINNED), 0);
}

static void lie_quiesced_twice(struct proto_writer *w)
{
    ask_to_quiesce();
    lie_quiesced(w);
    lie_quiesced(w);
}

static void lie_quiesced_figures(struct proto_writer *w)
{
    ask_to_quiesce();
    proto_put_quiesced(
        w, &(struct proto_quiesced){.err = EBUSY, .pin_window_ms = 1});
}

static void lie_restored(struct proto_writer *w)
{
    const struct proto_restored m = {EPERM, PROTO_STEP_CLOCK, ""};

    proto_put_restored(w, &m);
}

static void ask_to_restore(void)
{
    const struct proto_restore request = {.flags = PROTO_RESTORE_SAME};

    ck_assert_int_eq(agent_client_restore(client, &request), 0);
}

static void lie_restored_twice(struct proto_writer *w)
{
    ask_to_restore();
    lie_restored(w);
    lie_restored(w);
}

static void lie_restored_boot_id(struct proto_writer *w)
{
    const struct proto_restored m = {.boot_id = "\033[2J"};

    ask_to_restore();
    proto_put_restored(w, &m);
}

static const struct {
    void (*tell)(struct proto_writer *w);
    const char *reason; /* a part of it */
} lies[] = {
    {lie_second_hello, "second HELLO"},
    {lie_host_frame, "header"},
    {lie_unknown_handle, "not live"},
    {lie_started_twice, "second EXEC_STARTED"},
    {lie_started_file, "for a file operation"},
    {lie_early_output, "before the start"},
    {lie_wrong_stream, "does not exist"},
    {lie_file_stream, "does not exist"},
    {lie_no_credit, "credit"},
    {lie_read_limit, "limit"},
    {lie_credit, "CREDIT"},
    {lie_credit_stream, "does not exist"},
    {lie_credit_read, "does not exist"},
    {lie_early_exit, "before the start"},
    {lie_counts, "not true"},
    {lie_stdin_count, "not true"},
    {lie_after_exit, "not live"},
    {lie_failed_after_start, "after the start"},
    {lie_done_exec, "for an exec"},
    {lie_exit_file, "for a file operation"},
    {lie_done_size, "not true"},
    {lie_done_unsent, "not all sent"},
    {lie_length, "header"},
    {lie_quiesced, "not asked for"},
    {lie_quiesced_twice, "not asked for"},
    {lie_quiesced_figures, "malformed"},
    {lie_restored, "not asked for"},
    {lie_restored_twice, "not asked for"},
    {lie_restored_boot_id, "malformed"},
};

START_TEST(test_lie)
{
    static uint8_t buf[4 * PROTO_FRAME_MAX];
    struct proto_writer w;
    uint32_t id;
    int ret = 0;

    proto_writer_init(&w, buf, sizeof(buf));
    lies[_i].tell(&w);
    ck_assert(!w.overflow);
    /* More than the socket holds: in turns. */
    for (size_t sent = 0; sent < w.used && ret == 0;) {
        ssize_t n = send(guest, buf + sent, w.used - sent, MSG_DONTWAIT);

        if (n > 0)
            sent += (size_t)n;
        ret = process();
    }
    ck_assert_int_eq(ret, -EPROTO);
    ck_assert_msg(strstr(agent_client_reason(client), lies[_i].reason), "%s",
                  agent_client_reason(client));
    /* And so it stays. */
    ck_assert_int_eq(process(), -EPROTO);
    ck_assert_int_eq(agent_client_stat(client, "/", NULL, &id), -EPROTO);
    ck_assert_int_eq(agent_client_shutdown(client), -EPROTO);
}
END_TEST

/* ---- no lies ------------------------------------------------------------ */

START_TEST(test_exit)
{
    const struct proto_exec_exit status = {.code = 3, .stdout_bytes = 2};
    struct proto_writer w;
    uint8_t buf[512];

    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_empty(&w, PROTO_EXEC_STARTED, EXEC_ID);
    proto_put_data(&w, EXEC_ID, PROTO_STDOUT, "hi", 2);
    proto_put_exec_exit(&w, EXEC_ID, &status);
    say(&w);
    ck_assert_int_eq(process(), 0);
    ck_assert_uint_eq(seen.starts, 1);
    ck_assert_uint_eq(seen.output, 2);
    ck_assert_uint_eq(seen.exits, 1);
    ck_assert_int_eq(seen.code, 3);
    ck_assert_uint_eq(agent_client_live(client), 2);
    /* Late calls for it are races, not errors of the connection. */
    ck_assert_int_eq(agent_client_consumed(client, EXEC_ID, PROTO_STDOUT, 2),
                     0);
    ck_assert_int_eq(agent_client_stdin_write(client, EXEC_ID, "x", 1),
                     -ENOENT);
    ck_assert_int_eq(agent_client_cancel(client, EXEC_ID), -ENOENT);
}
END_TEST

START_TEST(test_end_of_stream)
{
    struct proto_writer w;
    uint8_t buf[64];

    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_empty(&w, PROTO_EXEC_STARTED, EXEC_ID);
    ck_assert_int_eq(write(guest, buf, w.used - 1), (ssize_t)w.used - 1);
    shutdown(guest, SHUT_WR);
    ck_assert_int_eq(process(), -ECONNRESET);
    ck_assert_uint_eq(seen.starts + seen.exits, 0);
    ck_assert_str_ne(agent_client_reason(client), "");
}
END_TEST

/* A guest that never reads: what we queue for it is bounded. */
START_TEST(test_guest_does_not_read)
{
    static uint8_t data[1 << 20];
    size_t total = 0;
    int ret = 0;

    for (int i = 0; i < 50; i++) {
        ssize_t n =
            agent_client_stdin_write(client, EXEC_ID, data, sizeof(data));

        ck_assert_int_ge(n, 0);
        total += (size_t)n;
        ck_assert_int_eq(process(), 0);
    }
    ck_assert_uint_eq(total, PROTO_WINDOW);
    ck_assert_uint_eq(agent_client_stdin_room(client, EXEC_ID), 0);
    /* Frames without credit end in -EAGAIN, not in memory. */
    for (int i = 0; i < 1000000 && ret == 0; i++)
        ret = agent_client_winsize(client, EXEC_ID, 1, 1);
    ck_assert_int_eq(ret, -EAGAIN);
}
END_TEST

/* Credit comes back: the owner who was told 0 is called. */
START_TEST(test_stdin_ready)
{
    static uint8_t data[PROTO_WINDOW + 1], sink[1 << 20];
    struct proto_writer w;
    uint8_t buf[64];

    ck_assert_int_eq(agent_client_cancel(client, WRITE_ID), 0);
    ck_assert_int_eq(
        agent_client_stdin_write(client, EXEC_ID, data, sizeof(data)),
        PROTO_WINDOW);
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(process(), 0);
        (void)!recv(guest, sink, sizeof(sink), MSG_DONTWAIT);
    }
    ck_assert_uint_eq(seen.ready, 0);
    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_credit(&w, EXEC_ID, PROTO_STDIN, 100);
    say(&w);
    ck_assert_int_eq(process(), 0);
    ck_assert_uint_eq(seen.ready, 1);
    ck_assert_uint_eq(agent_client_stdin_room(client, EXEC_ID), 100);
}
END_TEST

/* Answers are counted, and the same may be asked again after one. */
START_TEST(test_freeze)
{
    const struct agent_attach_request attach = {.timeout_ms = 5};
    struct proto_writer w;
    uint8_t buf[512];
    uint32_t id;

    for (unsigned i = 1; i <= 3; i++) {
        const struct proto_restored m = {
            .boot_id = "01234567-89ab-4cde-8f01-23456789abcd"};

        ask_to_quiesce();
        ck_assert_int_eq(agent_client_quiesce(client, 0), -EBUSY);
        proto_writer_init(&w, buf, sizeof(buf));
        proto_put_quiesced(&w, &(struct proto_quiesced){.memory_free = 1});
        say(&w);
        ck_assert_int_eq(process(), 0);
        ck_assert_uint_eq(seen.quiesced, i);
        ask_to_restore();
        ck_assert_int_eq(
            agent_client_restore(
                client, &(struct proto_restore){.flags = PROTO_RESTORE_SAME}),
            -EBUSY);
        proto_writer_init(&w, buf, sizeof(buf));
        proto_put_restored(&w, &m);
        say(&w);
        ck_assert_int_eq(process(), 0);
        ck_assert_uint_eq(seen.restored, i);
    }
    ck_assert_int_eq(agent_client_attach(client, &attach, &id), 0);
    ck_assert_uint_eq(id, WRITE_ID + 1);
    ck_assert_uint_eq(agent_client_live(client), 4);
    ck_assert_uint_eq(agent_client_stdin_room(client, id), PROTO_WINDOW);
}
END_TEST

/* An image from before there were snapshots. */
START_TEST(test_old_agent)
{
    const char *const argv[] = {"true", NULL};
    const struct agent_exec_request request = {.argv = argv, .warm = true};
    const struct agent_attach_request attach = {0};
    const struct proto_restore restore = {.flags = PROTO_RESTORE_SAME};
    struct proto_hello hello = good_hello();
    struct proto_writer w;
    uint8_t buf[256];
    uint32_t id;

    connect_client();
    ck_assert_int_eq(agent_client_quiesce(client, 0), -ENOTCONN);
    hello.features = PROTO_FEATURES_LIMITS;
    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_hello(&w, &hello);
    say(&w);
    ck_assert_int_eq(process(), 0);
    ck_assert_int_eq(agent_client_quiesce(client, 0), -EOPNOTSUPP);
    ck_assert_int_eq(agent_client_restore(client, &restore), -EOPNOTSUPP);
    ck_assert_int_eq(agent_client_attach(client, &attach, &id), -EOPNOTSUPP);
    ck_assert_int_eq(agent_client_exec(client, &request, &id), -EOPNOTSUPP);
    ck_assert_uint_eq(agent_client_live(client), 0);
    disconnect_client();
}
END_TEST

/* The next frame that the client sent: its payload. */
static size_t take_frame(uint16_t type, uint8_t *ret_payload, size_t size)
{
    uint8_t bytes[PROTO_HEADER_SIZE];
    struct proto_header header;

    ck_assert_int_eq(agent_client_process(client, POLLOUT), 0);
    ck_assert_int_eq(read(guest, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
    ck_assert_int_eq(proto_get_header(bytes, PROTO_FROM_HOST, &header), 0);
    ck_assert_uint_eq(header.type, type);
    ck_assert_uint_le(header.length, size);
    ck_assert_int_eq(read(guest, ret_payload, header.length),
                     (ssize_t)header.length);
    return header.length;
}

/* The limit of the disk is told to an agent that knows of it, only. */
START_TEST(test_disk_limit)
{
    static const char *const argv[] = {"true", NULL};
    const struct agent_exec_request request = {.argv = argv, .disk_ends = true};
    const struct agent_attach_request attach = {.disk_ends = true};
    struct proto_restore restore = {
        .flags = PROTO_RESTORE_PINNED | PROTO_RESTORE_LIMIT,
        .scratch_limit = 1 << 20,
    };
    struct proto_hello hello = good_hello();
    uint8_t bytes[4096];
    struct proto_writer w;
    struct proto_restore got;
    struct proto_attach got_attach;
    struct proto_exec_open open;
    uint32_t id;

    connect_client();
    if (_i)
        hello.features |= PROTO_FEATURE_DISK;
    proto_writer_init(&w, bytes, sizeof(bytes));
    proto_put_hello(&w, &hello);
    say(&w);
    ck_assert_int_eq(process(), 0);
    ck_assert_int_eq(agent_client_restore(client, &restore), 0);
    ck_assert_int_eq(
        proto_get_restore(bytes, take_frame(PROTO_RESTORE, bytes, 4096), &got),
        0);
    ck_assert_uint_eq(got.scratch_limit, _i ? restore.scratch_limit : 0);
    ck_assert_int_eq(agent_client_attach(client, &attach, &id), 0);
    ck_assert_int_eq(proto_get_attach(bytes,
                                      take_frame(PROTO_ATTACH, bytes, 4096),
                                      &got_attach),
                     0);
    ck_assert_uint_eq(got_attach.flags, _i ? PROTO_EXEC_END_DISK : 0);
    ck_assert_int_eq(agent_client_exec(client, &request, &id), 0);
    ck_assert_int_eq(
        proto_get_exec_open(bytes, take_frame(PROTO_EXEC_OPEN, bytes, 4096),
                            &open),
        0);
    ck_assert_uint_eq(open.flags, _i ? PROTO_EXEC_END_DISK : 0);
    disconnect_client();
}
END_TEST

START_TEST(test_bad_requests)
{
    static char user[PROTO_USER_MAX + 1];
    const char *const none[] = {NULL};
    const char *const argv[] = {"true", NULL};
    const char *const env[] = {"NOEQUALS", NULL};
    const char *const nameless[] = {"=x", NULL};
    struct agent_exec_request request = {.argv = none};
    uint32_t id;

    ck_assert_int_eq(agent_client_exec(client, &request, &id), -EINVAL);
    request.argv = argv;
    request.env = env;
    ck_assert_int_eq(agent_client_exec(client, &request, &id), -EINVAL);
    request.env = nameless;
    ck_assert_int_eq(agent_client_exec(client, &request, &id), -EINVAL);
    request.env = NULL;
    memset(user, 'u', sizeof(user) - 1);
    request.user = user;
    ck_assert_int_eq(agent_client_exec(client, &request, &id), -EINVAL);
    ck_assert_int_eq(agent_client_signal(client, EXEC_ID, 65), -EINVAL);
    ck_assert_int_eq(agent_client_signal(client, READ_ID, 9), -ENOENT);
    ck_assert_uint_eq(agent_client_live(client), 3);
}
END_TEST

/* ---- what an exec sends ------------------------------------------------- */

/* All that the client has to say, as frames into *ret_bytes. */
static struct proto_exec_open receive_exec(uint8_t *ret_bytes, size_t size,
                                           size_t *ret_len, size_t *ret_frames)
{
    static struct proto_inbox inbox;
    static struct proto_exec_open request;
    struct proto_header header;
    const uint8_t *payload;
    size_t wanted = 0;

    *ret_len = *ret_frames = 0;
    proto_inbox_init(&inbox, PROTO_FROM_HOST);
    do {
        size_t room;
        uint8_t *space = proto_inbox_space(&inbox, &room);
        ssize_t n = recv(guest, space, room, MSG_DONTWAIT);

        if (n > 0)
            proto_inbox_add(&inbox, (size_t)n);
        else
            ck_assert_int_eq(agent_client_process(client, POLLOUT), 0);
        while (proto_inbox_next(&inbox, &header, &payload) == 1) {
            ck_assert_uint_eq(header.id, EXEC_ID);
            if (wanted == 0) {
                ck_assert_uint_eq(header.type, PROTO_EXEC_OPEN);
                ck_assert_int_eq(
                    proto_get_exec_open(payload, header.length, &request), 0);
                wanted = (size_t)request.argv_bytes + request.env_bytes;
                continue;
            }
            ck_assert_uint_eq(header.type, PROTO_EXEC_STRINGS);
            ck_assert_uint_le(*ret_len + header.length, size);
            /* Full frames, except for the last. */
            ck_assert(header.length == PROTO_PAYLOAD_MAX ||
                      *ret_len + header.length == wanted);
            memcpy(ret_bytes + *ret_len, payload, header.length);
            *ret_len += header.length;
            ++*ret_frames;
        }
    } while (wanted == 0 || *ret_len < wanted);
    return request;
}

START_TEST(test_exec_frames)
{
    static const char *const argv[] = {"a", "", "bb c", NULL};
    static const char *const env[] = {"X=1", "EMPTY=", NULL};
    static const char wanted[] = "a\0\0bb c\0X=1\0EMPTY=";
    const struct agent_exec_request request = {.argv = argv, .env = env};
    struct proto_exec_open m;
    uint8_t bytes[64];
    size_t len, frames;
    uint32_t id;

    say_hello();
    ck_assert_int_eq(process(), 0);
    ck_assert_int_eq(agent_client_exec(client, &request, &id), 0);
    m = receive_exec(bytes, sizeof(bytes), &len, &frames);
    ck_assert_uint_eq(m.argc, 3);
    ck_assert_uint_eq(m.envc, 2);
    ck_assert_uint_eq(m.argv_bytes, 8);
    ck_assert_uint_eq(m.env_bytes, 11);
    ck_assert_uint_eq(len, sizeof(wanted));
    ck_assert_mem_eq(bytes, wanted, len);
    ck_assert_uint_eq(frames, 1);
}
END_TEST

/* Strings across the ends of frames, and one that ends with a frame. */
START_TEST(test_exec_many_frames)
{
    static char one[PROTO_PAYLOAD_MAX], two[3 * PROTO_PAYLOAD_MAX];
    static uint8_t bytes[sizeof(one) + sizeof(two) + 100];
    const char *const argv[] = {one, NULL};
    const char *const env[] = {two, NULL};
    const struct agent_exec_request request = {.argv = argv, .env = env};
    struct proto_exec_open m;
    size_t len, frames;
    uint32_t id;

    memset(one, 'a', sizeof(one) - 1);
    for (size_t i = 0; i < sizeof(two) - 1 - (size_t)_i; i++)
        two[i] = (char)('a' + i % 23);
    two[1] = '=';
    say_hello();
    ck_assert_int_eq(process(), 0);
    ck_assert_int_eq(agent_client_exec(client, &request, &id), 0);
    m = receive_exec(bytes, sizeof(bytes), &len, &frames);
    ck_assert_uint_eq(m.argc + m.envc, 2);
    ck_assert_uint_eq(len, sizeof(one) + strlen(two) + 1);
    ck_assert_mem_eq(bytes, one, sizeof(one));
    ck_assert_mem_eq(bytes + sizeof(one), two, strlen(two) + 1);
    ck_assert_uint_eq(frames, 4);
}
END_TEST

/* Texts that have just room, and a byte more. */
START_TEST(test_exec_longest_user)
{
    static const char *const argv[] = {"a", NULL};
    char user[PROTO_USER_MAX + 1] = "";
    struct agent_exec_request request = {.argv = argv, .user = user};
    struct proto_exec_open m;
    uint8_t bytes[16];
    size_t len, frames;
    uint32_t id;

    say_hello();
    ck_assert_int_eq(process(), 0);
    memset(user, 'u', PROTO_USER_MAX);
    ck_assert_int_eq(agent_client_exec(client, &request, &id), -EINVAL);
    user[PROTO_USER_MAX - 1] = '\0';
    ck_assert_int_eq(agent_client_exec(client, &request, &id), 0);
    m = receive_exec(bytes, sizeof(bytes), &len, &frames);
    ck_assert_str_eq(m.user, user);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("agent client");
    TCase *tc = tcase_create("hello");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_test(tc, test_no_requests_before_hello);
    tcase_add_test(tc, test_first_frame_is_hello);
    tcase_add_test(tc, test_version);
    tcase_add_test(tc, test_byte_by_byte);
    tcase_add_test(tc, test_old_agent);
    tcase_add_loop_test(tc, test_disk_limit, 0, 2);
    suite_add_tcase(s, tc);
    tc = tcase_create("exec");
    tcase_add_checked_fixture(tc, connect_client, disconnect_client);
    tcase_add_test(tc, test_exec_frames);
    tcase_add_loop_test(tc, test_exec_many_frames, 0, 2);
    tcase_add_test(tc, test_exec_longest_user);
    suite_add_tcase(s, tc);
    tc = tcase_create("frames");
    tcase_add_checked_fixture(tc, start, stop);
    tcase_add_loop_test(tc, test_lie, 0, (int)(sizeof(lies) / sizeof(lies[0])));
    tcase_add_test(tc, test_exit);
    tcase_add_test(tc, test_end_of_stream);
    tcase_add_test(tc, test_guest_does_not_read);
    tcase_add_test(tc, test_stdin_ready);
    tcase_add_test(tc, test_freeze);
    tcase_add_test(tc, test_bad_requests);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
