/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent protocol's codec: every message there and back, every header that
 * must be refused, every payload cut short at every byte.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guest/proto.h"

static uint8_t frame[PROTO_FRAME_MAX];

/* Decodes the one frame that the writer holds. */
static struct proto_header decode(const struct proto_writer *w,
                                  enum proto_sender sender)
{
    struct proto_header header;

    ck_assert(!w->overflow);
    ck_assert_int_eq(proto_get_header(w->buf, sender, &header), 0);
    ck_assert_uint_eq(header.length + PROTO_HEADER_SIZE, w->used);
    return header;
}

static struct proto_writer writer(void)
{
    struct proto_writer w;

    memset(frame, 0xee, sizeof(frame));
    proto_writer_init(&w, frame, sizeof(frame));
    return w;
}

START_TEST(test_exec_open)
{
    struct proto_writer w = writer();
    struct proto_exec_open in, out;
    struct proto_header header;
    const uint8_t *p = frame + PROTO_HEADER_SIZE;

    memset(&in, 0, sizeof(in));
    in = (struct proto_exec_open){
        .flags = PROTO_EXEC_TTY,
        .rows = 24,
        .cols = 80,
        .timeout_ms = 0x123456789abcull,
        .memory_max = 1ull << 40,
        .pids_max = 77,
        .argc = 3,
        .envc = 2,
        .argv_bytes = 1u << 20,
        .env_bytes = 1u << 20,
        .user = "1000:1000",
        .cwd = "/somewhere",
    };
    proto_put_exec_open(&w, 9, &in);
    header = decode(&w, PROTO_FROM_HOST);
    ck_assert_uint_eq(header.type, PROTO_EXEC_OPEN);
    ck_assert_uint_eq(header.id, 9);
    ck_assert_int_eq(proto_get_exec_open(p, header.length, &out), 0);
    ck_assert_uint_eq(out.flags, in.flags);
    ck_assert_uint_eq(out.rows, in.rows);
    ck_assert_uint_eq(out.cols, in.cols);
    ck_assert_uint_eq(out.timeout_ms, in.timeout_ms);
    ck_assert_uint_eq(out.memory_max, in.memory_max);
    ck_assert_uint_eq(out.pids_max, in.pids_max);
    ck_assert_uint_eq(out.argc, in.argc);
    ck_assert_uint_eq(out.envc, in.envc);
    ck_assert_uint_eq(out.argv_bytes, in.argv_bytes);
    ck_assert_uint_eq(out.env_bytes, in.env_bytes);
    ck_assert_str_eq(out.user, in.user);
    ck_assert_str_eq(out.cwd, in.cwd);
    /* Every cut that takes the fixed part or the user away is seen; in the
       last field the length of the frame is the length of the text. */
    for (size_t len = 0; len < header.length - strlen(in.cwd); len++)
        ck_assert_int_eq(proto_get_exec_open(p, len, &out), -EBADMSG);
}
END_TEST

/* What EXEC_OPEN must not say: a field, and a value for it. */
static const struct {
    size_t offset;
    uint32_t value;
} bad_open[] = {
    {0, 0x80}, /* unknown flag */
    {0, PROTO_EXEC_WARM},
    {0, PROTO_EXEC_WARM | PROTO_EXEC_STDIN | PROTO_EXEC_TTY},
    {28, 0}, /* no argument */
    {28, PROTO_ARGV_MAX + 1},
    {28, 11}, /* more strings than bytes */
    {32, PROTO_ENV_MAX + 1},
    {32, 0}, /* bytes without strings */
    {32, 11},
    {36, PROTO_ARGV_BYTES_MAX + 1},
    {40, PROTO_ENV_BYTES_MAX + 1},
    {40, 0xffffffffu},
    {44, 0xffffffffu}, /* user beyond the frame */
    {44, 5},           /* user with a NUL in it */
};

START_TEST(test_exec_open_refused)
{
    const struct proto_exec_open in = {
        .argc = 1,
        .envc = 1,
        .argv_bytes = 10,
        .env_bytes = 10,
        .user = "root",
        .cwd = "/",
    };
    struct proto_writer w = writer();
    uint8_t *p = frame + PROTO_HEADER_SIZE;
    struct proto_exec_open out;
    uint32_t value = bad_open[_i].value;
    size_t len;

    proto_put_exec_open(&w, 1, &in);
    len = decode(&w, PROTO_FROM_HOST).length;
    ck_assert_int_eq(proto_get_exec_open(p, len, &out), 0);
    if (bad_open[_i].offset == 44)
        p[48 + 4] = '\0'; /* cwd's only byte: of "user" if that is 5 long */
    for (size_t i = 0; i < 4; i++)
        p[bad_open[_i].offset + i] = (uint8_t)(value >> (8 * i));
    ck_assert_int_eq(proto_get_exec_open(p, len, &out), -EBADMSG);
}
END_TEST

START_TEST(test_exec_exit)
{
    const struct proto_exec_exit in = {
        .flags = PROTO_EXIT_OOM,
        .code = 200,
        .oom_kills = 3,
        .pids_hits = 4,
        .wall_ms = 5,
        .cpu_us = 6,
        .user_us = 7,
        .system_us = 8,
        .memory_peak = 9,
        .stdin_bytes = 10,
        .stdout_bytes = 11,
        .stderr_bytes = 1ull << 50,
    };
    struct proto_writer w = writer();
    uint8_t *p = frame + PROTO_HEADER_SIZE;
    struct proto_exec_exit out;
    size_t len;

    memset(&out, 0, sizeof(out));
    proto_put_exec_exit(&w, 2, &in);
    len = decode(&w, PROTO_FROM_GUEST).length;
    ck_assert_int_eq(proto_get_exec_exit(p, len, &out), 0);
    ck_assert_mem_eq(&out, &in, sizeof(in));
    for (size_t n = 0; n < len; n++)
        ck_assert_int_eq(proto_get_exec_exit(p, n, &out), -EBADMSG);
    p[5] = 1; /* code 256 and more */
    ck_assert_int_eq(proto_get_exec_exit(p, len, &out), -EBADMSG);
    p[5] = 0;
    p[8] = 9; /* code and signal */
    ck_assert_int_eq(proto_get_exec_exit(p, len, &out), -EBADMSG);
    p[4] = 0;
    ck_assert_int_eq(proto_get_exec_exit(p, len, &out), 0);
    p[8] = 65;
    ck_assert_int_eq(proto_get_exec_exit(p, len, &out), -EBADMSG);
    p[8] = 0;
    p[3] = 1; /* unknown flag */
    ck_assert_int_eq(proto_get_exec_exit(p, len, &out), -EBADMSG);
}
END_TEST

START_TEST(test_hello)
{
    const struct proto_hello in = {
        .version = 7,
        .features = 3,
        .boot_ms = 1234567890123ull,
        .memory_total = 1ull << 33,
        .release = "6.1.0-test",
    };
    struct proto_writer w = writer();
    uint8_t *p = frame + PROTO_HEADER_SIZE;
    struct proto_hello out;
    size_t len;

    proto_put_hello(&w, &in);
    len = decode(&w, PROTO_FROM_GUEST).length;
    ck_assert_int_eq(proto_get_hello(p, len, &out), 0);
    ck_assert_uint_eq(out.version, 7);
    ck_assert_uint_eq(out.features, 3);
    ck_assert_uint_eq(out.boot_ms, in.boot_ms);
    ck_assert_uint_eq(out.memory_total, in.memory_total);
    ck_assert_str_eq(out.release, in.release);
    p[27] = '\0'; /* a text that ends early */
    ck_assert_int_eq(proto_get_hello(p, len, &out), -EBADMSG);
    p[27] = 'x';
    p[0] ^= 1;
    ck_assert_int_eq(proto_get_hello(p, len, &out), -EBADMSG);
}
END_TEST

START_TEST(test_file)
{
    const struct proto_file_done done_in = {
        .err = 2,
        .mode = 0100644,
        .bytes = 1ull << 40,
        .uid = 1000,
        .gid = 1001,
        .mtime_s = -5,
    };
    struct proto_file_open in, out;
    struct proto_file_done done;
    struct proto_writer w = writer();
    uint8_t *p = frame + PROTO_HEADER_SIZE;
    size_t len;

    memset(&in, 0, sizeof(in));
    in.mode = 0640;
    in.limit = 99;
    strcpy(in.user, "root");
    memset(in.path, 'p', sizeof(in.path) - 1);
    proto_put_file_open(&w, PROTO_FILE_READ, 3, &in);
    len = decode(&w, PROTO_FROM_HOST).length;
    ck_assert_int_eq(proto_get_file_open(p, len, &out), 0);
    ck_assert_uint_eq(out.mode, in.mode);
    ck_assert_uint_eq(out.limit, in.limit);
    ck_assert_str_eq(out.user, in.user);
    ck_assert_str_eq(out.path, in.path);
    /* A path of one byte more than there is room for, and none at all. */
    ck_assert_int_eq(proto_get_file_open(p, len + 1, &out), -EBADMSG);
    ck_assert_int_eq(proto_get_file_open(p, 20 + 4, &out), -EBADMSG);
    p[5] = 0x10; /* mode with more than permission bits */
    ck_assert_int_eq(proto_get_file_open(p, len, &out), -EBADMSG);

    w = writer();
    proto_put_file_done(&w, 3, &done_in);
    len = decode(&w, PROTO_FROM_GUEST).length;
    ck_assert_int_eq(proto_get_file_done(p, len, &done), 0);
    ck_assert_mem_eq(&done, &done_in, sizeof(done));
    p[1] = 0x10; /* no errno is that large */
    ck_assert_int_eq(proto_get_file_done(p, len, &done), -EBADMSG);
}
END_TEST

START_TEST(test_small)
{
    struct proto_exec_failed failed = {PROTO_FAIL_CWD, 13};
    const uint8_t *bytes, *p = frame + PROTO_HEADER_SIZE;
    struct proto_writer w = writer();
    uint32_t stream, count;
    uint16_t rows, cols;
    size_t len;

    proto_put_data(&w, 1, PROTO_STDERR, "abc", 3);
    ck_assert_uint_eq(decode(&w, PROTO_FROM_GUEST).type, PROTO_DATA);
    ck_assert_int_eq(proto_get_data(p, 7, &stream, &bytes, &len), 0);
    ck_assert_uint_eq(stream, PROTO_STDERR);
    ck_assert_uint_eq(len, 3);
    ck_assert_mem_eq(bytes, "abc", 3);
    ck_assert_int_eq(proto_get_data(p, 4, &stream, &bytes, &len), -EBADMSG);
    frame[PROTO_HEADER_SIZE] = PROTO_STREAMS;
    ck_assert_int_eq(proto_get_data(p, 7, &stream, &bytes, &len), -EBADMSG);

    w = writer();
    proto_put_credit(&w, 1, PROTO_STDIN, PROTO_WINDOW);
    decode(&w, PROTO_FROM_GUEST);
    ck_assert_int_eq(proto_get_credit(p, 8, &stream, &count), 0);
    ck_assert_uint_eq(count, PROTO_WINDOW);
    w = writer();
    proto_put_credit(&w, 1, PROTO_STDIN, PROTO_WINDOW + 1);
    ck_assert_int_eq(proto_get_credit(p, 8, &stream, &count), -EBADMSG);
    w = writer();
    proto_put_credit(&w, 1, PROTO_STDIN, 0);
    ck_assert_int_eq(proto_get_credit(p, 8, &stream, &count), -EBADMSG);

    w = writer();
    proto_put_winsize(&w, 1, 3, 5);
    decode(&w, PROTO_FROM_HOST);
    ck_assert_int_eq(proto_get_winsize(p, 4, &rows, &cols), 0);
    ck_assert(rows == 3 && cols == 5);

    w = writer();
    proto_put_exec_failed(&w, 1, &failed);
    decode(&w, PROTO_FROM_GUEST);
    ck_assert_int_eq(proto_get_exec_failed(p, 8, &failed), 0);
    ck_assert_uint_eq(failed.err, 13);
    frame[PROTO_HEADER_SIZE] = PROTO_FAIL_LAST + 1;
    ck_assert_int_eq(proto_get_exec_failed(p, 8, &failed), -EBADMSG);
}
END_TEST

static bool known(uint16_t type, enum proto_sender sender)
{
    if (type == PROTO_DATA || type == PROTO_CREDIT)
        return true;
    if (sender == PROTO_FROM_HOST)
        return (type >= PROTO_EXEC_OPEN && type <= PROTO_EOF) ||
               (type >= PROTO_QUIESCE && type <= PROTO_ATTACH);
    return (type >= PROTO_HELLO && type <= PROTO_FILE_DONE) ||
           type == PROTO_QUIESCED || type == PROTO_RESTORED;
}

/* Types of the connection, not of a handle. */
static bool is_common(uint32_t type)
{
    return type == PROTO_HELLO || type == PROTO_SHUTDOWN ||
           type == PROTO_QUIESCE || type == PROTO_RESTORE ||
           type == PROTO_QUIESCED || type == PROTO_RESTORED;
}

/* All types, from both sides, with all small lengths and the bounds. */
START_TEST(test_headers)
{
    enum proto_sender sender = _i ? PROTO_FROM_GUEST : PROTO_FROM_HOST;
    struct proto_header header;

    for (uint32_t type = 0; type <= 0xffff; type++) {
        uint32_t accepted = 0;

        for (uint32_t length = 0; length <= 90; length++) {
            uint8_t bytes[PROTO_HEADER_SIZE] = {
                (uint8_t)length,
                0,
                0,
                0,
                (uint8_t)type,
                (uint8_t)(type >> 8),
                0,
                0,
                !is_common(type),
                0,
                0,
                0,
            };

            if (proto_get_header(bytes, sender, &header) == 0)
                accepted++;
        }
        ck_assert_msg((accepted > 0) == known((uint16_t)type, sender),
                      "type %u: %u", type, accepted);
    }
}
END_TEST

/*
 * Every type with its shortest and its longest payload; written down anew, so
 * that a wrong row of the codec's table is seen.
 */
#define USER_LEN (PROTO_USER_MAX - 1)
#define PATH_LEN (PROTO_PATH_MAX - 1)
static const struct {
    uint16_t type;
    enum proto_sender sender;
    uint32_t min, max;
} lengths[] = {
    {PROTO_EXEC_OPEN, PROTO_FROM_HOST, 48, 48 + USER_LEN + PATH_LEN},
    {PROTO_EXEC_STRINGS, PROTO_FROM_HOST, 1, 65536},
    {PROTO_EXEC_SIGNAL, PROTO_FROM_HOST, 4, 4},
    {PROTO_EXEC_WINSIZE, PROTO_FROM_HOST, 4, 4},
    {PROTO_FILE_WRITE, PROTO_FROM_HOST, 20, 20 + USER_LEN + PATH_LEN},
    {PROTO_FILE_READ, PROTO_FROM_HOST, 20, 20 + USER_LEN + PATH_LEN},
    {PROTO_FILE_STAT, PROTO_FROM_HOST, 20, 20 + USER_LEN + PATH_LEN},
    {PROTO_FILE_MKDIR, PROTO_FROM_HOST, 20, 20 + USER_LEN + PATH_LEN},
    {PROTO_CANCEL, PROTO_FROM_HOST, 0, 0},
    {PROTO_SHUTDOWN, PROTO_FROM_HOST, 0, 0},
    {PROTO_EOF, PROTO_FROM_HOST, 4, 4},
    {PROTO_QUIESCE, PROTO_FROM_HOST, 4, 4},
    {PROTO_RESTORE, PROTO_FROM_HOST, 20 + PROTO_ENTROPY_SIZE,
     20 + PROTO_ENTROPY_SIZE + 64},
    {PROTO_ATTACH, PROTO_FROM_HOST, 24, 24},
    {PROTO_DATA, PROTO_FROM_HOST, 5, 65536},
    {PROTO_DATA, PROTO_FROM_GUEST, 5, 65536},
    {PROTO_CREDIT, PROTO_FROM_HOST, 8, 8},
    {PROTO_CREDIT, PROTO_FROM_GUEST, 8, 8},
    {PROTO_HELLO, PROTO_FROM_GUEST, 26, 26 + 64},
    {PROTO_EXEC_STARTED, PROTO_FROM_GUEST, 0, 0},
    {PROTO_EXEC_FAILED, PROTO_FROM_GUEST, 8, 8},
    {PROTO_EXEC_EXIT, PROTO_FROM_GUEST, 84, 84},
    {PROTO_FILE_DONE, PROTO_FROM_GUEST, 32, 32},
    {PROTO_QUIESCED, PROTO_FROM_GUEST, 28, 28},
    {PROTO_RESTORED, PROTO_FROM_GUEST, 8, 8 + 36},
};

static int get_header(uint16_t type, enum proto_sender sender, uint32_t length)
{
    const uint8_t bytes[PROTO_HEADER_SIZE] = {
        (uint8_t)length,
        (uint8_t)(length >> 8),
        (uint8_t)(length >> 16),
        (uint8_t)(length >> 24),
        (uint8_t)type,
        (uint8_t)(type >> 8),
        0,
        0,
        !is_common(type),
    };
    struct proto_header header;

    return proto_get_header(bytes, sender, &header);
}

START_TEST(test_lengths)
{
    uint16_t type = lengths[_i].type;
    enum proto_sender sender = lengths[_i].sender;

    ck_assert_int_eq(get_header(type, sender, lengths[_i].min), 0);
    ck_assert_int_eq(get_header(type, sender, lengths[_i].max), 0);
    ck_assert_int_eq(get_header(type, sender, lengths[_i].max + 1), -EBADMSG);
    ck_assert_int_eq(get_header(type, sender, UINT32_MAX), -EBADMSG);
    if (lengths[_i].min > 0)
        ck_assert_int_eq(get_header(type, sender, lengths[_i].min - 1),
                         -EBADMSG);
}
END_TEST

/* No type is missing above. */
START_TEST(test_lengths_of_all)
{
    size_t count = 0;

    for (uint32_t type = 0; type <= 0xffff; type++)
        count += (size_t)known((uint16_t)type, PROTO_FROM_HOST) +
                 (size_t)known((uint16_t)type, PROTO_FROM_GUEST);
    ck_assert_uint_eq(count, sizeof(lengths) / sizeof(lengths[0]));
}
END_TEST

/* The longest user and path that there is room for, and a byte more. */
START_TEST(test_longest_texts)
{
    struct proto_exec_open open_in = {
        .argc = 1, .argv_bytes = 2, .user = "", .cwd = ""};
    struct proto_file_open file_in = {.user = "", .path = ""};
    const uint8_t *p = frame + PROTO_HEADER_SIZE;
    static struct proto_exec_open open_out;
    static struct proto_file_open file_out;
    struct proto_writer w = writer();
    size_t len;

    memset(open_in.user, 'u', USER_LEN);
    memset(open_in.cwd, 'c', PATH_LEN);
    proto_put_exec_open(&w, 1, &open_in);
    len = decode(&w, PROTO_FROM_HOST).length;
    ck_assert_uint_eq(len, 48 + USER_LEN + PATH_LEN);
    ck_assert_int_eq(proto_get_exec_open(p, len, &open_out), 0);
    ck_assert_str_eq(open_out.user, open_in.user);
    ck_assert_str_eq(open_out.cwd, open_in.cwd);
    frame[PROTO_HEADER_SIZE + 44]++; /* the user's length: 255 */
    frame[PROTO_HEADER_SIZE + 45]++;
    ck_assert_int_eq(proto_get_exec_open(p, len, &open_out), -EBADMSG);

    memset(file_in.user, 'u', USER_LEN);
    memset(file_in.path, 'p', PATH_LEN);
    w = writer();
    proto_put_file_open(&w, PROTO_FILE_STAT, 1, &file_in);
    len = decode(&w, PROTO_FROM_HOST).length;
    ck_assert_uint_eq(len, 20 + USER_LEN + PATH_LEN);
    ck_assert_int_eq(proto_get_file_open(p, len, &file_out), 0);
    ck_assert_str_eq(file_out.user, file_in.user);
    ck_assert_str_eq(file_out.path, file_in.path);
}
END_TEST

START_TEST(test_header_fields)
{
    uint8_t good[PROTO_HEADER_SIZE] = {5, 0, 0, 0, PROTO_DATA, 0,
                                       0, 0, 1, 0, 0,          0};
    struct proto_header header;
    uint8_t bad[PROTO_HEADER_SIZE];

    ck_assert_int_eq(proto_get_header(good, PROTO_FROM_HOST, &header), 0);
    for (size_t i = 6; i < 8; i++) { /* reserved */
        memcpy(bad, good, sizeof(bad));
        bad[i] = 1;
        ck_assert_int_eq(proto_get_header(bad, PROTO_FROM_HOST, &header),
                         -EBADMSG);
    }
    memcpy(bad, good, sizeof(bad));
    bad[8] = 0; /* no handle */
    ck_assert_int_eq(proto_get_header(bad, PROTO_FROM_HOST, &header), -EBADMSG);
    memcpy(bad, good, sizeof(bad));
    bad[2] = 1; /* 65536 + 5 bytes */
    ck_assert_int_eq(proto_get_header(bad, PROTO_FROM_HOST, &header), -EBADMSG);
    bad[0] = 0; /* exactly the maximum */
    ck_assert_int_eq(proto_get_header(bad, PROTO_FROM_HOST, &header), 0);
    ck_assert_uint_eq(header.length, PROTO_PAYLOAD_MAX);
}
END_TEST

START_TEST(test_writer_is_bounded)
{
    struct proto_writer w;
    static uint8_t big[PROTO_PAYLOAD_MAX + 1];
    uint8_t small[20] = {0};

    proto_writer_init(&w, small, sizeof(small));
    proto_put_u32(&w, PROTO_EOF, 1, 0);
    ck_assert(!w.overflow);
    ck_assert_uint_eq(w.used, 16);
    proto_put_empty(&w, PROTO_CANCEL, 1);
    ck_assert(w.overflow);
    ck_assert_uint_eq(w.used, 16);
    w = writer();
    proto_put_strings(&w, 1, big, sizeof(big));
    ck_assert(w.overflow);
    ck_assert_uint_eq(w.used, 0);
}
END_TEST

/* A stream of frames of many sizes, delivered in pieces of _i + 1 bytes. */
START_TEST(test_inbox)
{
    static struct proto_inbox inbox;
    static uint8_t data[PROTO_DATA_MAX];
    static uint8_t stream[8 * PROTO_FRAME_MAX];
    static const size_t steps[] = {1, 2, 11, 12, 13, 4096, 65537, 200000};
    struct proto_writer w;
    size_t given = 0, frames = 0;
    uint64_t bytes = 0;

    proto_writer_init(&w, stream, sizeof(stream));
    for (size_t len = 1; len <= PROTO_DATA_MAX; len = len * 3 + 1)
        proto_put_data(&w, 1, PROTO_STDIN, data, len);
    proto_put_data(&w, 1, PROTO_STDIN, data, PROTO_DATA_MAX);
    proto_put_data(&w, 1, PROTO_STDIN, data, PROTO_DATA_MAX);
    proto_put_empty(&w, PROTO_CANCEL, 1);
    ck_assert(!w.overflow);
    proto_inbox_init(&inbox, PROTO_FROM_HOST);
    while (given < w.used || inbox.head < inbox.used) {
        size_t room, len = steps[_i];
        uint8_t *space = proto_inbox_space(&inbox, &room);
        const uint8_t *payload;
        struct proto_header header;

        ck_assert_uint_gt(room, 0);
        if (len > room)
            len = room;
        if (len > w.used - given)
            len = w.used - given;
        memcpy(space, stream + given, len);
        proto_inbox_add(&inbox, len);
        given += len;
        while (proto_inbox_next(&inbox, &header, &payload) == 1) {
            bytes += header.length;
            frames++;
        }
    }
    ck_assert_uint_eq(bytes + frames * PROTO_HEADER_SIZE, w.used);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("proto");
    TCase *tc = tcase_create("proto");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_test(tc, test_exec_open);
    tcase_add_loop_test(tc, test_exec_open_refused, 0,
                        (int)(sizeof(bad_open) / sizeof(bad_open[0])));
    tcase_add_test(tc, test_exec_exit);
    tcase_add_test(tc, test_hello);
    tcase_add_test(tc, test_file);
    tcase_add_test(tc, test_small);
    tcase_add_loop_test(tc, test_headers, 0, 2);
    tcase_add_loop_test(tc, test_lengths, 0,
                        (int)(sizeof(lengths) / sizeof(lengths[0])));
    tcase_add_test(tc, test_lengths_of_all);
    tcase_add_test(tc, test_longest_texts);
    tcase_add_test(tc, test_header_fields);
    tcase_add_test(tc, test_writer_is_bounded);
    tcase_add_loop_test(tc, test_inbox, 0, 8);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
