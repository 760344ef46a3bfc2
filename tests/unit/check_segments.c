/* SPDX-License-Identifier: Apache-2.0 */
/* Which bytes of segments mean something, and that all others are compared. */
#include "vmm/segments.h"

#include <check.h>
#include <string.h>

#include "base/codec.h"
#include "base/num.h"
#include "vmm/state_file.h"

#define SREGS_SIZE (SEGMENTS_SIZE + 40u) /* other registers follow */
#define CONTROL_REGISTER (SEGMENTS_SIZE + 20u)
#define FILE_SIZE 1024u

enum { CS, DS, ES, FS, GS, SS, TR, LDT };

/* What KVM has of a segment, in the order of its attributes' bytes. */
struct form {
    uint8_t type, present, dpl, db, s, l, g, avl, unusable;
};

/*
 * Null segments as various KVMs read them back: of Linux 6.1, and what becomes
 * of those when they are set on VT-x; on a Linux that cleared all; with what a
 * CPU left of the segment before; on SVM.
 */
static const struct form null_forms[] = {
    {0, 0, 0, 0, 0, 0, 0, 0, 1},  {1, 0, 0, 0, 0, 0, 0, 0, 1},
    {0, 0, 3, 1, 1, 0, 1, 0, 1},  {1, 0, 3, 1, 1, 0, 1, 0, 1},
    {15, 0, 2, 1, 1, 1, 1, 1, 1}, {2, 0, 0, 1, 1, 0, 1, 0, 0},
    {3, 1, 0, 1, 1, 0, 1, 0, 1},
};
#define NULL_FORMS ((int)ARRAY_SIZE(null_forms))

static uint8_t *byte_of(uint8_t *sregs, unsigned segment, unsigned byte)
{
    return sregs + segment * SEGMENT_SIZE + byte;
}

static void put_form(uint8_t *sregs, unsigned segment, const struct form *f)
{
    const uint8_t bytes[] = {f->type, f->present, f->dpl, f->db,      f->s,
                             f->l,    f->g,       f->avl, f->unusable};

    memcpy(byte_of(sregs, segment, SEGMENT_TYPE), bytes, sizeof(bytes));
}

/* All segments can be used; every byte of base, limit and selector is set. */
static void fill(uint8_t sregs[SREGS_SIZE])
{
    static const struct form data = {3, 1, 0, 1, 1, 0, 1, 0, 0};
    static const struct form code = {11, 1, 0, 0, 1, 1, 1, 0, 0};
    static const struct form task = {11, 1, 0, 0, 0, 0, 0, 0, 0};
    static const struct form table = {2, 1, 0, 0, 0, 0, 0, 0, 0};

    for (size_t i = 0; i < SREGS_SIZE; i++)
        sregs[i] = (uint8_t)(i * 7 + 1);
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        put_form(sregs, i, &data);
    put_form(sregs, CS, &code);
    put_form(sregs, TR, &task);
    put_form(sregs, LDT, &table);
}

/* A state of one CPU with these. */
static size_t make_state(uint8_t file[FILE_SIZE], const uint8_t *sregs)
{
    struct state_file_writer f;
    size_t len = 0, begun;

    state_file_writer_init(&f, file, FILE_SIZE);
    state_file_begin(&f, STATE_TAG_CPU, 1, 0);
    begun = state_group_begin(&f.w, STATE_GROUP_SREGS);
    state_put_bytes(&f.w, sregs, SREGS_SIZE);
    state_group_end(&f.w, begun);
    state_file_end(&f);
    ck_assert_int_eq(state_file_finish(&f, &len), 0);
    return len;
}

/* As state_file_compare, of states with these. */
static int compare(const uint8_t *a, const uint8_t *b,
                   struct state_difference *d)
{
    uint8_t file_a[FILE_SIZE], file_b[FILE_SIZE];
    size_t len_a = make_state(file_a, a), len_b = make_state(file_b, b);

    return state_file_compare(file_a, len_a, file_b, len_b, d);
}

/* Every bit of what can be used counts. */
START_TEST(usable_segments_are_compared)
{
    uint8_t a[SREGS_SIZE], b[SREGS_SIZE];
    struct state_difference d;

    fill(a);
    memcpy(b, a, sizeof(b));
    ck_assert_int_eq(compare(a, b, &d), 0);
    for (unsigned i = 0; i < SREGS_SIZE; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            b[i] ^= (uint8_t)(1u << bit);
            ck_assert_int_eq(compare(a, b, &d), 1);
            ck_assert_str_eq(d.group, STATE_GROUP_SREGS);
            ck_assert_uint_eq(d.offset, i);
            b[i] = a[i];
        }
}
END_TEST

/* A usable one stays as it is. */
START_TEST(usable_segments_are_kept)
{
    uint8_t a[SREGS_SIZE], b[SREGS_SIZE];

    fill(a);
    memcpy(b, a, sizeof(b));
    segments_settle(b, sizeof(b));
    ck_assert_mem_eq(a, b, sizeof(a));
}
END_TEST

/* The same null segment, as two KVMs have it. */
START_TEST(null_segments_are_the_same)
{
    const struct form *one = &null_forms[_i % NULL_FORMS];
    const struct form *other = &null_forms[_i / NULL_FORMS];
    static const unsigned segments[] = {DS, ES, FS, GS, LDT};
    uint8_t a[SREGS_SIZE], b[SREGS_SIZE];
    struct state_difference d;

    for (size_t i = 0; i < ARRAY_SIZE(segments); i++) {
        fill(a);
        fill(b);
        put_form(a, segments[i], one);
        ck_assert_int_eq(compare(a, b, &d), 1);
        ck_assert_int_eq(compare(b, a, &d), 1);
        put_form(b, segments[i], other);
        ck_assert_int_eq(compare(a, b, &d), 0);
        segments_settle(a, sizeof(a));
        segments_settle(b, sizeof(b));
        ck_assert_mem_eq(a, b, sizeof(a));
        ck_assert_uint_eq(*byte_of(a, segments[i], SEGMENT_UNUSABLE), 1);
        ck_assert_uint_eq(*byte_of(a, segments[i], SEGMENT_PRESENT), 0);
    }
}
END_TEST

/* What a null segment has all the same: selector, base, limit; SS's level. */
START_TEST(null_segments_have_values)
{
    uint8_t a[SREGS_SIZE], b[SREGS_SIZE];
    struct state_difference d;

    fill(a);
    for (unsigned i = DS; i <= SS; i++)
        put_form(a, i, &null_forms[0]);
    put_form(a, LDT, &null_forms[0]);
    memcpy(b, a, sizeof(b));
    for (unsigned i = 0; i < SREGS_SIZE; i++) {
        unsigned segment = i / SEGMENT_SIZE, byte = i % SEGMENT_SIZE;
        bool attribute = i < SEGMENTS_SIZE && segment != CS && segment != TR &&
                         byte >= SEGMENT_TYPE;

        if (segment == SS && byte == SEGMENT_DPL)
            attribute = false;
        if (attribute && byte == SEGMENT_UNUSABLE)
            continue; /* it says that it is null; see the next test */
        b[i] ^= 1;
        ck_assert_int_eq(compare(a, b, &d), attribute ? 0 : 1);
        b[i] = a[i];
    }
}
END_TEST

/* Null in one state only: they differ, whichever form says so. */
START_TEST(null_is_not_usable)
{
    uint8_t a[SREGS_SIZE], b[SREGS_SIZE];
    struct state_difference d;

    for (unsigned i = 0; i < SEGMENT_COUNT; i++) {
        fill(a);
        fill(b);
        *byte_of(b, i, SEGMENT_UNUSABLE) = 1;
        ck_assert_int_eq(compare(a, b, &d), 1);
        ck_assert_uint_eq(d.offset, i * SEGMENT_SIZE + SEGMENT_UNUSABLE);
        ck_assert_int_eq(compare(b, a, &d), 1);
        *byte_of(b, i, SEGMENT_PRESENT) = 0;
        ck_assert_int_eq(compare(a, b, &d), 1);
        ck_assert_int_eq(compare(b, a, &d), 1);
    }
}
END_TEST

/* Of code and task every byte counts, whatever it says of itself. */
START_TEST(code_and_task_are_compared)
{
    static const unsigned segments[] = {CS, TR};
    uint8_t a[SREGS_SIZE], b[SREGS_SIZE];
    struct state_difference d;

    for (size_t i = 0; i < ARRAY_SIZE(segments); i++)
        for (unsigned byte = 0; byte < SEGMENT_SIZE; byte++) {
            fill(a);
            put_form(a, segments[i], &null_forms[0]);
            memcpy(b, a, sizeof(b));
            *byte_of(b, segments[i], byte) ^= 1;
            ck_assert_int_eq(compare(a, b, &d), 1);
            memcpy(b, a, sizeof(b));
            segments_settle(b, sizeof(b));
            ck_assert_mem_eq(a, b, sizeof(a));
        }
}
END_TEST

/* A group that is too short, or another one: nothing is passed over. */
START_TEST(only_whole_groups)
{
    uint8_t a[SREGS_SIZE], b[SREGS_SIZE];

    fill(a);
    put_form(a, DS, &null_forms[4]);
    memcpy(b, a, sizeof(b));
    for (size_t at = 0; at < SREGS_SIZE; at++)
        ck_assert(!segments_idle_byte(a, SEGMENTS_SIZE - 1, at));
    segments_settle(b, SEGMENTS_SIZE - 1);
    ck_assert_mem_eq(a, b, sizeof(a));
    segments_settle(b, 0);
    ck_assert_mem_eq(a, b, sizeof(a));
    ck_assert(
        segments_idle_byte(a, SEGMENTS_SIZE, DS * SEGMENT_SIZE + SEGMENT_TYPE));
    ck_assert(!segments_idle_byte(a, sizeof(a), CONTROL_REGISTER));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("segments");
    TCase *tc = tcase_create("segments");
    SRunner *sr;
    int failed;

    tcase_add_test(tc, usable_segments_are_compared);
    tcase_add_test(tc, usable_segments_are_kept);
    tcase_add_loop_test(tc, null_segments_are_the_same, 0,
                        NULL_FORMS * NULL_FORMS);
    tcase_add_test(tc, null_segments_have_values);
    tcase_add_test(tc, null_is_not_usable);
    tcase_add_test(tc, code_and_task_are_compared);
    tcase_add_test(tc, only_whole_groups);
    suite_add_tcase(s, tc);
    sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
