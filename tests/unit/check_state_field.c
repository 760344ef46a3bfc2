/* SPDX-License-Identifier: Apache-2.0 */
/* Fields by a table: every width, both ways, and bytes that are no bool. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "base/state_field.h"

struct thing {
    uint64_t u64;
    bool on;
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint32_t not_saved;
    bool off;
};

static const struct state_field fields[] = {
    STATE_FIELD(struct thing, u8),  STATE_FIELD(struct thing, u16),
    STATE_FIELD(struct thing, u32), STATE_FIELD(struct thing, u64),
    STATE_FIELD(struct thing, on),  STATE_FIELD(struct thing, off),
};

static const struct thing sample = {
    .u64 = 0x1122334455667788u,
    .on = true,
    .u8 = 0x99,
    .u16 = 0xaabb,
    .u32 = 0xccddeeff,
    .not_saved = 7,
};

/* In the order of the table, little-endian. */
static const uint8_t bytes[17] = {0x99, 0xbb, 0xaa, 0xff, 0xee, 0xdd,
                                  0xcc, 0x88, 0x77, 0x66, 0x55, 0x44,
                                  0x33, 0x22, 0x11, 1,    0};

START_TEST(test_put)
{
    uint8_t out[32] = {0};
    struct state_writer w;

    state_writer_init(&w, out, sizeof(out));
    state_put_fields(&w, &sample, fields, ARRAY_SIZE(fields));
    ck_assert_int_eq(w.error, 0);
    ck_assert_uint_eq(w.used, sizeof(bytes));
    ck_assert_mem_eq(out, bytes, sizeof(bytes));
    state_writer_init(&w, out, sizeof(bytes) - 1);
    state_put_fields(&w, &sample, fields, ARRAY_SIZE(fields));
    ck_assert_int_eq(w.error, -ENOSPC);
}
END_TEST

START_TEST(test_get)
{
    struct thing t = {.not_saved = 5, .off = true};
    struct state_reader r;

    state_reader_init(&r, bytes, sizeof(bytes));
    state_get_fields(&r, &t, fields, ARRAY_SIZE(fields));
    ck_assert_int_eq(state_reader_finish(&r), 0);
    ck_assert_uint_eq(t.u8, sample.u8);
    ck_assert_uint_eq(t.u16, sample.u16);
    ck_assert_uint_eq(t.u32, sample.u32);
    ck_assert_uint_eq(t.u64, sample.u64);
    ck_assert(t.on && !t.off);
    ck_assert_uint_eq(t.not_saved, 5);
}
END_TEST

START_TEST(test_cut_short)
{
    struct thing t = sample;
    struct state_reader r;

    state_reader_init(&r, bytes, (size_t)_i);
    state_get_fields(&r, &t, fields, ARRAY_SIZE(fields));
    ck_assert_int_eq(r.error, -EBADMSG);
    ck_assert(!t.off);
    if (_i < 15)
        ck_assert_uint_eq(t.u64, 0);
}
END_TEST

/* An array is one field after the other. */
START_TEST(test_array)
{
    struct list {
        uint8_t before;
        uint16_t values[3];
        char name[2];
    } in = {1, {0x0203, 0x0405, 0x0607}, {'a', 'b'}}, out = {9, {0}, {0}};
    static const struct state_field list_fields[] = {
        STATE_FIELD_ARRAY(struct list, values),
        STATE_FIELD_ARRAY(struct list, name),
    };
    static const uint8_t want[8] = {3, 2, 5, 4, 7, 6, 'a', 'b'};
    uint8_t buf[8];
    struct state_writer w;
    struct state_reader r;

    state_writer_init(&w, buf, sizeof(buf));
    state_put_fields(&w, &in, list_fields, ARRAY_SIZE(list_fields));
    ck_assert_int_eq(w.error, 0);
    ck_assert_mem_eq(buf, want, sizeof(want));
    state_reader_init(&r, buf, sizeof(buf));
    state_get_fields(&r, &out, list_fields, ARRAY_SIZE(list_fields));
    ck_assert_int_eq(state_reader_finish(&r), 0);
    ck_assert_mem_eq(out.values, in.values, sizeof(in.values));
    ck_assert_mem_eq(out.name, in.name, sizeof(in.name));
    ck_assert_uint_eq(out.before, 9);
}
END_TEST

START_TEST(test_no_bool)
{
    uint8_t in[sizeof(bytes)];
    struct thing t = {0};
    struct state_reader r;

    memcpy(in, bytes, sizeof(in));
    in[15] = (uint8_t)_i;
    state_reader_init(&r, in, sizeof(in));
    state_get_fields(&r, &t, fields, ARRAY_SIZE(fields));
    ck_assert_int_eq(r.error, _i < 2 ? 0 : -EBADMSG);
    ck_assert_int_eq(t.on, _i == 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("state_field");
    TCase *tc = tcase_create("fields");
    SRunner *sr;
    int failed;

    tcase_add_test(tc, test_put);
    tcase_add_test(tc, test_get);
    tcase_add_loop_test(tc, test_cut_short, 0, (int)sizeof(bytes));
    tcase_add_test(tc, test_array);
    tcase_add_loop_test(tc, test_no_bool, 0, 256);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
