/* SPDX-License-Identifier: Apache-2.0 */
/* The address bus: who gets which access, and what nobody gets. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "devices/bus.h"

struct probe {
    uint64_t offset;
    unsigned size;
    uint64_t value;
    unsigned reads;
    unsigned writes;
};

static uint64_t probe_read(void *ctx, uint64_t offset, unsigned size)
{
    struct probe *p = ctx;

    p->offset = offset;
    p->size = size;
    p->reads++;
    return 0x1122334455667788u;
}

static void probe_write(void *ctx, uint64_t offset, unsigned size,
                        uint64_t value)
{
    struct probe *p = ctx;

    p->offset = offset;
    p->size = size;
    p->value = value;
    p->writes++;
}

static const struct bus_ops probe_ops = {probe_read, probe_write};

START_TEST(finds_the_device)
{
    struct bus bus = {0};
    struct probe a = {0}, b = {0};

    ck_assert_int_eq(bus_add(&bus, 0x1000, 0x10, &probe_ops, &a), 0);
    ck_assert_int_eq(bus_add(&bus, 0x1010, 0x10, &probe_ops, &b), 0);
    ck_assert_uint_eq(bus_read(&bus, 0x100f, 1), 0x88);
    ck_assert_uint_eq(a.offset, 0xf);
    ck_assert_uint_eq(bus_read(&bus, 0x1010, 2), 0x7788);
    ck_assert_uint_eq(b.offset, 0);
    ck_assert_uint_eq(b.size, 2);
    ck_assert_uint_eq(bus_read(&bus, 0x1018, 8), 0x1122334455667788u);
    bus_write(&bus, 0x1004, 4, 0xaabbccddeeff0011u);
    ck_assert_uint_eq(a.value, 0xeeff0011u);
    bus_write(&bus, 0x1008, 8, 0xaabbccddeeff0011u);
    ck_assert_uint_eq(a.value, 0xaabbccddeeff0011u);
    ck_assert_uint_eq(a.reads + a.writes + b.reads + b.writes, 5);
    ck_assert_uint_eq(bus.unclaimed, 0);
}
END_TEST

static const struct {
    uint64_t address;
    unsigned size;
    uint64_t want; /* all ones, of the access's width */
} unclaimed[] = {
    {0xfff, 1, 0xff},    {0xfff, 2, 0xffff},       {0x1010, 1, 0xff},
    {0x100f, 2, 0xffff}, {0x100d, 4, 0xffffffffu}, {0x1009, 8, UINT64_MAX},
    {0, 4, 0xffffffffu}, {UINT64_MAX, 1, 0xff},    {UINT64_MAX, 8, UINT64_MAX},
    {0x1000, 0, 0},      {0x1000, 3, 0xffffff},    {0x1000, 16, UINT64_MAX},
};

START_TEST(nobody_answers)
{
    struct bus bus = {0};
    struct probe a = {0};

    ck_assert_int_eq(bus_add(&bus, 0x1000, 0x10, &probe_ops, &a), 0);
    ck_assert_uint_eq(bus_read(&bus, unclaimed[_i].address, unclaimed[_i].size),
                      unclaimed[_i].want);
    bus_write(&bus, unclaimed[_i].address, unclaimed[_i].size, 1);
    ck_assert_uint_eq(bus.unclaimed, 2);
    ck_assert_uint_eq(a.reads + a.writes, 0);
}
END_TEST

START_TEST(add_refuses)
{
    struct bus bus = {0};

    ck_assert_int_eq(bus_add(&bus, 0, 0, &probe_ops, NULL), -EINVAL);
    ck_assert_int_eq(bus_add(&bus, UINT64_MAX, 1, &probe_ops, NULL), -EINVAL);
    ck_assert_int_eq(bus_add(&bus, 0x100, 0x100, &probe_ops, NULL), 0);
    ck_assert_int_eq(bus_add(&bus, 0x1ff, 1, &probe_ops, NULL), -EEXIST);
    ck_assert_int_eq(bus_add(&bus, 0xff, 2, &probe_ops, NULL), -EEXIST);
    ck_assert_int_eq(bus_add(&bus, 0, 0x1000, &probe_ops, NULL), -EEXIST);
    for (unsigned i = 1; i < BUS_RANGES_MAX; i++)
        ck_assert_int_eq(bus_add(&bus, 0x1000u * i, 1, &probe_ops, NULL), 0);
    ck_assert_int_eq(bus_add(&bus, 0x900000, 1, &probe_ops, NULL), -ENOSPC);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("bus");
    TCase *tc = tcase_create("all");

    tcase_add_test(tc, finds_the_device);
    tcase_add_loop_test(tc, nobody_answers, 0,
                        (int)(sizeof(unclaimed) / sizeof(unclaimed[0])));
    tcase_add_test(tc, add_refuses);
    suite_add_tcase(s, tc);
    return s;
}

int main(void)
{
    SRunner *sr = srunner_create(suite());
    int failed;

    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
