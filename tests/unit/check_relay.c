/* SPDX-License-Identifier: Apache-2.0 */
/* The bounded buffer in front of slow, full, closed and absent readers. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "trial/output.h"
#include "trial/relay.h"

#define SIZE 10000u
#define TOTAL 1000000u

static struct relay relay;
static int ends[2];

static void set_up(void)
{
    signal(SIGPIPE, SIG_IGN);
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(relay_init(&relay, ends[1], SIZE), 0);
}

static void tear_down(void)
{
    relay_fini(&relay);
    close(ends[0]);
    close(ends[1]);
}

static bool is_writable(void)
{
    struct pollfd p = {.fd = ends[1], .events = POLLOUT};

    return poll(&p, 1, 0) > 0 && (p.revents & POLLOUT);
}

/* Odd pieces in and out: every byte arrives, once, in order. */
START_TEST(test_order)
{
    static uint8_t piece[777];
    size_t in = 0, out = 0;
    uint8_t got[333];

    while (out < TOTAL) {
        ssize_t n;

        for (size_t i = 0; i < sizeof(piece); i++)
            piece[i] = (uint8_t)((in + i) % 251);
        if (in < TOTAL)
            in += relay_add(&relay, piece, sizeof(piece));
        ck_assert_uint_le(SIZE - relay_room(&relay), SIZE);
        if (is_writable())
            ck_assert_int_ge(relay_write(&relay), 0);
        n = read(ends[0], got, sizeof(got));
        ck_assert_int_gt(n, 0);
        for (ssize_t i = 0; i < n; i++)
            ck_assert_uint_eq(got[i], (out + (size_t)i) % 251);
        out += (size_t)n;
    }
}
END_TEST

START_TEST(test_full)
{
    static uint8_t bytes[SIZE + 1];

    ck_assert_uint_eq(relay_room(&relay), SIZE);
    ck_assert_uint_eq(relay_add(&relay, bytes, sizeof(bytes)), SIZE);
    ck_assert_uint_eq(relay_room(&relay), 0);
    ck_assert_uint_eq(relay_add(&relay, bytes, 1), 0);
    ck_assert(!relay_is_empty(&relay));
    ck_assert_int_eq(relay_write(&relay), 4096); /* never waits */
    ck_assert_uint_eq(relay_room(&relay), 4096);
}
END_TEST

/* A blocking pipe that poll calls writable takes a piece without waiting. */
START_TEST(test_never_blocks)
{
    static uint8_t bytes[SIZE];
    size_t capacity = 0;

    alarm(20);
    while (is_writable()) {
        relay_add(&relay, bytes, sizeof(bytes));
        ck_assert_int_gt(relay_write(&relay), 0);
        capacity++;
    }
    ck_assert_uint_gt(capacity, 10);
    /* Nor does one that has filled up since the caller's poll. */
    relay_add(&relay, bytes, sizeof(bytes));
    ck_assert_int_eq(relay_write(&relay), 0);
}
END_TEST

START_TEST(test_reader_gone)
{
    static uint8_t bytes[100];

    close(ends[0]);
    ends[0] = -1;
    relay_add(&relay, bytes, sizeof(bytes));
    ck_assert_int_eq(relay_write(&relay), -EPIPE);
    ck_assert_int_eq(relay_write(&relay), -EPIPE);
    ck_assert(relay_is_empty(&relay));
    /* What comes now is dropped, for ever. */
    ck_assert_uint_eq(relay_add(&relay, bytes, sizeof(bytes)), 100);
    ck_assert(relay_is_empty(&relay));
}
END_TEST

START_TEST(test_no_reader)
{
    struct relay none;

    ck_assert_int_eq(relay_init(&none, -1, 16), 0);
    ck_assert_uint_eq(relay_add(&none, "0123456789abcdefgh", 18), 18);
    ck_assert(relay_is_empty(&none));
    relay_fini(&none);
}
END_TEST

START_TEST(test_disk_full)
{
    int full = open("/dev/full", O_WRONLY);

    relay.fd = full;
    relay_add(&relay, "x", 1);
    ck_assert_int_eq(relay_write(&relay), -ENOSPC);
    close(full);
}
END_TEST

/* A stream's limit: exactly that much is kept, hashed and delivered. */
START_TEST(test_output_limit)
{
    /* of "0123456789" */
    static const char DIGEST[] = "84d89877f0d4041efb6bf91a16f0248f"
                                 "2fd573e6af05c19f96bedb9f882f7882";
    struct trial_sink sink = {.fd = _i ? ends[1] : -1};
    struct trial_stream stream;
    struct output o;

    ck_assert_int_eq(output_init(&o, &sink, 10), 0);
    /* What goes nowhere or beyond is disposed of at once. */
    ck_assert_uint_eq(output_add(&o, "01234567", 8), _i ? 0 : 8);
    ck_assert_uint_eq(output_add(&o, "89abcdef", 8), _i ? 6 : 8);
    ck_assert_uint_eq(output_add(&o, "gh", 2), 2);
    ck_assert_int_eq(output_pending(&o), _i);
    if (_i)
        ck_assert_int_eq(output_write(&o), 10);
    ck_assert(!output_pending(&o));
    output_result(&o, &stream);
    ck_assert_uint_eq(stream.bytes, 10);
    ck_assert_uint_eq(stream.dropped, 8);
    ck_assert_str_eq(stream.sha256, DIGEST);
    output_fini(&o);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("relay");
    TCase *t = tcase_create("relay");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, test_order);
    tcase_add_test(t, test_full);
    tcase_add_test(t, test_never_blocks);
    tcase_add_test(t, test_reader_gone);
    tcase_add_test(t, test_no_reader);
    tcase_add_test(t, test_disk_full);
    tcase_add_loop_test(t, test_output_limit, 0, 2);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
