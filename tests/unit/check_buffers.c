/* SPDX-License-Identifier: Apache-2.0 */
/* The byte queue and the tail of a stream, against the plainest models. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/fifo.h"
#include "trial/tail.h"

#define TOTAL 200000u

static uint8_t stream[TOTAL];

static void set_up(void)
{
    for (size_t i = 0; i < TOTAL; i++)
        stream[i] = (uint8_t)(i * 7 + i / 251);
}

START_TEST(test_fifo_order)
{
    struct fifo f;
    size_t in = 0, at = 0;

    ck_assert_int_eq(fifo_init(&f, 1000), 0);
    srand(1);
    while (at < TOTAL) {
        size_t want = (size_t)rand() % 700, len;
        const uint8_t *bytes;

        if (want > TOTAL - in)
            want = TOTAL - in;
        in += fifo_add(&f, stream + in, want);
        ck_assert_uint_eq(fifo_used(&f), in - at);
        ck_assert_uint_eq(fifo_room(&f), 1000 - (in - at));
        bytes = fifo_peek(&f, &len);
        ck_assert_uint_eq(len, in - at);
        ck_assert_mem_eq(bytes, stream + at, len);
        want = (size_t)rand() % (len + 1);
        fifo_drop(&f, want);
        at += want;
    }
    fifo_fini(&f);
    fifo_fini(&f);
}
END_TEST

START_TEST(test_fifo_full)
{
    struct fifo f;

    ck_assert_int_eq(fifo_init(&f, 10), 0);
    ck_assert_uint_eq(fifo_add(&f, stream, 11), 10);
    ck_assert_uint_eq(fifo_add(&f, stream, 1), 0);
    fifo_drop(&f, 4);
    ck_assert_uint_eq(fifo_add(&f, stream + 10, 9), 4);
    fifo_fini(&f);
}
END_TEST

static const size_t limits[] = {1, 100, 65536, 65537, 150000, TOTAL, 300000};

/* In pieces of any size: what is kept is the end of what came. */
START_TEST(test_tail)
{
    size_t limit = limits[_i], in = 0;
    struct tail t;

    tail_init(&t, limit);
    srand(2);
    while (in < TOTAL) {
        size_t want = 1 + (size_t)rand() % 9000, kept, at = 0, len;
        const uint8_t *bytes;

        if (want > TOTAL - in)
            want = TOTAL - in;
        ck_assert_int_eq(tail_add(&t, stream + in, want), 0);
        in += want;
        kept = in < limit ? in : limit;
        while ((bytes = tail_peek(&t, at, &len))) {
            ck_assert_uint_gt(len, 0);
            ck_assert_mem_eq(bytes, stream + in - kept + at, len);
            at += len;
        }
        ck_assert_uint_eq(at, kept);
        ck_assert_uint_eq(t.total, in);
    }
    tail_fini(&t);
}
END_TEST

/* One piece that is larger than all that is kept. */
START_TEST(test_tail_large_piece)
{
    struct tail t;
    size_t len;

    tail_init(&t, 100);
    ck_assert_int_eq(tail_add(&t, stream, 50), 0);
    ck_assert_int_eq(tail_add(&t, stream, 5000), 0);
    ck_assert_mem_eq(tail_peek(&t, 0, &len), stream + 4900, len);
    ck_assert_uint_eq(t.used, 100);
    ck_assert_uint_eq(t.total, 5050);
    tail_fini(&t);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("buffers");
    TCase *t = tcase_create("buffers");

    tcase_add_checked_fixture(t, set_up, NULL);
    tcase_add_test(t, test_fifo_order);
    tcase_add_test(t, test_fifo_full);
    tcase_add_loop_test(t, test_tail, 0,
                        (int)(sizeof(limits) / sizeof(limits[0])));
    tcase_add_test(t, test_tail_large_piece);
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
