/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's messages as bytes: round trip, and what is refused. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "trial/keeper_proto.h"

static uint8_t bytes[MSG_PAYLOAD_MAX];
static size_t len;
static union keeper_body in, out;

/* One good message of each type: its contents in `in`. */
static void fill(enum keeper_message type)
{
    memset(&in, 0, sizeof(in));
    switch (type) {
    case KEEPER_EXEC:
        in.exec = (struct keeper_exec){.flags = KEEPER_EXEC_FLAGS_KNOWN,
                                       .rows = 24,
                                       .cols = 80,
                                       .timeout_ms = UINT64_MAX,
                                       .pids_max = 512,
                                       .argc = 2,
                                       .envc = 1,
                                       .argv_bytes = 9,
                                       .env_bytes = 4,
                                       .user = "root",
                                       .cwd = "/tmp"};
        break;
    case KEEPER_STRINGS:
    case KEEPER_STDIN:
        in.data = (struct keeper_bytes){0, (const uint8_t *)"abc", 3};
        break;
    case KEEPER_OUTPUT:
        in.data =
            (struct keeper_bytes){PROTO_STDERR, (const uint8_t *)"abc", 3};
        break;
    case KEEPER_SIGNAL:
        in.numbers.a = 64;
        break;
    case KEEPER_WINSIZE:
        in.numbers = (struct keeper_numbers){UINT16_MAX, 1};
        break;
    case KEEPER_CREDIT:
        in.numbers = (struct keeper_numbers){PROTO_STDOUT, KEEPER_WINDOW};
        break;
    case KEEPER_STOP:
        in.numbers.a = 10000;
        break;
    case KEEPER_NOT_STARTED:
        in.numbers = (struct keeper_numbers){PROTO_FAIL_NOT_FOUND, ENOENT};
        break;
    case KEEPER_STDIN_CREDIT:
        in.numbers.a = 1;
        break;
    case KEEPER_PUT:
        in.file = (struct keeper_file){.mode = 0644, .user = "u", .path = "/a"};
        break;
    case KEEPER_GET:
        in.file = (struct keeper_file){.limit = 100, .path = "a"};
        break;
    case KEEPER_EXITED:
        in.exited = (struct keeper_exited){
            .status = {.flags = PROTO_EXIT_TIMED_OUT, .signal = 9},
            .dropped = {1, UINT64_MAX},
            .disk_refused = true,
            .late = true};
        break;
    case KEEPER_FILE_DONE:
        in.file_done = (struct keeper_file_done){ENOENT, EIO, 0100644, 7};
        break;
    case KEEPER_STATUS_REPLY:
        in.status = (struct keeper_status){KEEPER_IS_UNAVAILABLE, 3, 99};
        break;
    case KEEPER_REFUSED:
        failure_set(&in.refused, "code", "object", "remedy", "message");
        break;
    case KEEPER_ENDED:
        in.ended = (struct keeper_ended){
            .kind = OUTCOME_LAST, .by_host = true, .cause = "cause"};
        break;
    case KEEPER_SNAPSHOT:
        in.snapshot = (struct keeper_snapshot){1, "/a"};
        break;
    case KEEPER_SNAPSHOT_DONE:
        in.snapshot_done = (struct keeper_snapshot_done){1, 2, 3, "id"};
        break;
    default:
        break;
    }
}

static const enum keeper_message types[] = {
    KEEPER_EXEC,     KEEPER_STRINGS, KEEPER_STDIN,         KEEPER_STDIN_END,
    KEEPER_SIGNAL,   KEEPER_WINSIZE, KEEPER_CREDIT,        KEEPER_PUT,
    KEEPER_GET,      KEEPER_STATUS,  KEEPER_STOP,          KEEPER_KILL,
    KEEPER_SNAPSHOT, KEEPER_STARTED, KEEPER_NOT_STARTED,   KEEPER_STDIN_CREDIT,
    KEEPER_OUTPUT,   KEEPER_EXITED,  KEEPER_FILE_DONE,     KEEPER_STATUS_REPLY,
    KEEPER_REFUSED,  KEEPER_ENDED,   KEEPER_SNAPSHOT_DONE,
};
#define TYPES ((int)ARRAY_SIZE(types))

static void encode(enum keeper_message type)
{
    fill(type);
    ck_assert_int_eq(keeper_encode(type, &in, bytes, &len), 0);
}

START_TEST(test_round_trip)
{
    uint8_t again[MSG_PAYLOAD_MAX];
    size_t again_len = 0;

    encode(types[_i]);
    ck_assert_int_eq(keeper_decode(types[_i], bytes, len, &out), 0);
    ck_assert_int_eq(keeper_encode(types[_i], &out, again, &again_len), 0);
    ck_assert_uint_eq(again_len, len);
    ck_assert_mem_eq(again, bytes, len);
}
END_TEST

/* Every other length is refused, but where the rest is bytes. */
START_TEST(test_lengths)
{
    enum keeper_message type = types[_i];
    bool is_bytes =
        type == KEEPER_STRINGS || type == KEEPER_STDIN || type == KEEPER_OUTPUT;

    encode(type);
    for (size_t cut = 0; cut < len && !is_bytes; cut++)
        ck_assert_int_eq(keeper_decode(type, bytes, cut, &out), -EBADMSG);
    bytes[len] = 0;
    if (!is_bytes)
        ck_assert_int_eq(keeper_decode(type, bytes, len + 1, &out), -EBADMSG);
    if (is_bytes)
        ck_assert_int_eq(keeper_decode(type, bytes, len - 3, &out), -EBADMSG);
}
END_TEST

START_TEST(test_unknown_types)
{
    for (uint32_t type = 0; type < 2000; type++) {
        bool known = false;

        for (int i = 0; i < TYPES; i++)
            known = known || type == (uint32_t)types[i];
        if (!known)
            ck_assert_int_eq(keeper_decode(type, bytes, 0, &out), -EBADMSG);
        if (!known)
            ck_assert_int_eq(
                keeper_encode((enum keeper_message)type, NULL, bytes, &len),
                -EINVAL);
    }
}
END_TEST

/* A number out of range, as u32 at an offset of a good message. */
static const struct {
    enum keeper_message type;
    size_t offset;
    uint32_t value;
} bad[] = {
    {KEEPER_EXEC, 0, KEEPER_EXEC_FLAGS_KNOWN + 1},
    {KEEPER_EXEC, 20, 0}, /* no argument */
    {KEEPER_EXEC, 20, PROTO_ARGV_MAX + 1},
    {KEEPER_EXEC, 20, 10}, /* more strings than bytes */
    {KEEPER_EXEC, 24, PROTO_ENV_MAX + 1},
    {KEEPER_EXEC, 24, 0}, /* bytes without strings */
    {KEEPER_EXEC, 28, PROTO_ARGV_BYTES_MAX + 1},
    {KEEPER_EXEC, 32, PROTO_ENV_BYTES_MAX + 1},
    {KEEPER_EXEC, 36, PROTO_USER_MAX}, /* user's length */
    {KEEPER_EXEC, 36, UINT32_MAX},
    {KEEPER_SIGNAL, 0, 0},
    {KEEPER_SIGNAL, 0, 65},
    {KEEPER_SIGNAL, 4, 1},
    {KEEPER_WINSIZE, 0, UINT16_MAX + 1},
    {KEEPER_CREDIT, 0, PROTO_STDIN},
    {KEEPER_CREDIT, 0, PROTO_FILE},
    {KEEPER_CREDIT, 4, 0},
    {KEEPER_CREDIT, 4, KEEPER_WINDOW + 1},
    {KEEPER_STOP, 4, 1},
    {KEEPER_NOT_STARTED, 0, 0},
    {KEEPER_NOT_STARTED, 0, PROTO_FAIL_LAST + 1},
    {KEEPER_NOT_STARTED, 4, PROTO_ERRNO_MAX + 1},
    {KEEPER_STDIN_CREDIT, 0, 0},
    {KEEPER_STDIN_CREDIT, 0, KEEPER_WINDOW + 1},
    {KEEPER_PUT, 0, 010000},
    {KEEPER_PUT, 4, 1}, /* a limit */
    {KEEPER_GET, 0, 1}, /* a mode */
    {KEEPER_OUTPUT, 0, PROTO_STDIN},
    {KEEPER_OUTPUT, 0, PROTO_FILE},
    {KEEPER_EXITED, 0, PROTO_EXIT_FLAGS_KNOWN + 1},
    {KEEPER_EXITED, 4, 1}, /* a code beside the signal */
    {KEEPER_EXITED, 8, 65},
    {KEEPER_FILE_DONE, 0, PROTO_ERRNO_MAX + 1},
    {KEEPER_FILE_DONE, 4, PROTO_ERRNO_MAX + 1},
    {KEEPER_STATUS_REPLY, 0, 0},
    {KEEPER_STATUS_REPLY, 0, KEEPER_STATE_LAST + 1},
    {KEEPER_REFUSED, 0, 0},          /* no code: then no text fits */
    {KEEPER_REFUSED, 4, 0x00616263}, /* a NUL in the code */
    {KEEPER_ENDED, 0, OUTCOME_LAST + 1},
    {KEEPER_ENDED, 4, 2}, /* neither host nor guest */
};

START_TEST(test_bad_numbers)
{
    encode(bad[_i].type);
    ck_assert_uint_le(bad[_i].offset + 4, len);
    num_put_le32(bytes + bad[_i].offset, bad[_i].value);
    ck_assert_int_eq(keeper_decode(bad[_i].type, bytes, len, &out), -EBADMSG);
}
END_TEST

/* What the decoder would refuse is not sent either. */
START_TEST(test_encoder_refuses)
{
    fill(KEEPER_PUT);
    in.file.path[0] = '\0';
    ck_assert_int_eq(keeper_encode(KEEPER_PUT, &in, bytes, &len), -EINVAL);
    fill(KEEPER_STDIN);
    in.data.len = 0;
    ck_assert_int_eq(keeper_encode(KEEPER_STDIN, &in, bytes, &len), -EINVAL);
    in.data.len = KEEPER_DATA_MAX + 1;
    ck_assert_int_eq(keeper_encode(KEEPER_STDIN, &in, bytes, &len), -EINVAL);
    fill(KEEPER_CREDIT);
    in.numbers.b = 0;
    ck_assert_int_eq(keeper_encode(KEEPER_CREDIT, &in, bytes, &len), -EINVAL);
}
END_TEST

/* The largest of everything is within one message. */
START_TEST(test_largest)
{
    fill(KEEPER_EXEC);
    memset(in.exec.user, 'u', sizeof(in.exec.user) - 1);
    memset(in.exec.cwd, 'c', sizeof(in.exec.cwd) - 1);
    ck_assert_int_eq(keeper_encode(KEEPER_EXEC, &in, bytes, &len), 0);
    ck_assert_int_eq(keeper_decode(KEEPER_EXEC, bytes, len, &out), 0);
    ck_assert_str_eq(out.exec.cwd, in.exec.cwd);
    memset(&in, 0, sizeof(in));
    memset(in.refused.code, 'c', sizeof(in.refused.code) - 1);
    memset(in.refused.object, 'o', sizeof(in.refused.object) - 1);
    memset(in.refused.message, 'm', sizeof(in.refused.message) - 1);
    memset(in.refused.remedy, 'r', sizeof(in.refused.remedy) - 1);
    ck_assert_int_eq(keeper_encode(KEEPER_REFUSED, &in, bytes, &len), 0);
    ck_assert_int_eq(keeper_decode(KEEPER_REFUSED, bytes, len, &out), 0);
    ck_assert_str_eq(out.refused.message, in.refused.message);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("keeper_proto");
    TCase *t = tcase_create("keeper_proto");

    tcase_add_loop_test(t, test_round_trip, 0, TYPES);
    tcase_add_loop_test(t, test_lengths, 0, TYPES);
    tcase_add_test(t, test_unknown_types);
    tcase_add_loop_test(t, test_bad_numbers, 0, (int)ARRAY_SIZE(bad));
    tcase_add_test(t, test_encoder_refuses);
    tcase_add_test(t, test_largest);
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
