/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory: bounds by table, and guard pages that prove them. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/guest_mem.h"
#include "tests/fake_guest.h"

#define LOW_BASE 0x1000u
#define LOW_SIZE 0x2000u
#define HIGH_BASE 0x100000000u
#define HIGH_SIZE 0x1000u

static uint8_t low[LOW_SIZE];
static uint8_t high[HIGH_SIZE];

static struct guest_mem two_regions(void)
{
    struct guest_mem mem = {0};

    ck_assert_int_eq(guest_mem_add(&mem, LOW_BASE, LOW_SIZE, low), 0);
    ck_assert_int_eq(guest_mem_add(&mem, HIGH_BASE, HIGH_SIZE, high), 0);
    return mem;
}

static const struct {
    uint64_t gpa;
    uint64_t len;
    uint8_t *want; /* NULL: refused */
} ranges[] = {
    {LOW_BASE, 1, low},
    {LOW_BASE, LOW_SIZE, low},
    {LOW_BASE, LOW_SIZE + 1, NULL},
    {LOW_BASE, 0, NULL},
    {LOW_BASE - 1, 1, NULL},
    {LOW_BASE - 1, 2, NULL},
    {LOW_BASE + LOW_SIZE - 1, 1, low + LOW_SIZE - 1},
    {LOW_BASE + LOW_SIZE - 1, 2, NULL},
    {LOW_BASE + LOW_SIZE, 0, NULL},
    {LOW_BASE + LOW_SIZE, 1, NULL},
    {LOW_BASE + 8, UINT64_MAX, NULL},
    {LOW_BASE + 8, UINT64_MAX - LOW_BASE - 7, NULL},
    {0, UINT64_MAX, NULL},
    {UINT64_MAX, 1, NULL},
    {UINT64_MAX, UINT64_MAX, NULL},
    {UINT64_MAX - 7, 8, NULL},
    {HIGH_BASE, HIGH_SIZE, high},
    {HIGH_BASE - 1, 2, NULL},
    {HIGH_BASE + HIGH_SIZE - 8, 8, high + HIGH_SIZE - 8},
    {HIGH_BASE + HIGH_SIZE - 8, 9, NULL},
    {LOW_BASE, HIGH_BASE, NULL},
    {(uint32_t)HIGH_BASE, 1, NULL},
};

START_TEST(ptr_bounds)
{
    struct guest_mem mem = two_regions();
    void *p = guest_mem_ptr(&mem, ranges[_i].gpa, ranges[_i].len);

    ck_assert_ptr_eq(p, ranges[_i].want);
}
END_TEST

START_TEST(adjacent_regions_do_not_join)
{
    struct guest_mem mem = {0};

    ck_assert_int_eq(guest_mem_add(&mem, 0, 0x1000, low), 0);
    ck_assert_int_eq(guest_mem_add(&mem, 0x1000, 0x1000, high), 0);
    ck_assert_ptr_eq(guest_mem_ptr(&mem, 0xfff, 1), low + 0xfff);
    ck_assert_ptr_eq(guest_mem_ptr(&mem, 0x1000, 1), high);
    ck_assert_ptr_null(guest_mem_ptr(&mem, 0xfff, 2));
}
END_TEST

START_TEST(add_refuses)
{
    struct guest_mem mem = {0};

    ck_assert_int_eq(guest_mem_add(&mem, 0, 0, low), -EINVAL);
    ck_assert_int_eq(guest_mem_add(&mem, 0, 1, NULL), -EINVAL);
    ck_assert_int_eq(guest_mem_add(&mem, UINT64_MAX, 1, low), -EINVAL);
    ck_assert_int_eq(guest_mem_add(&mem, 0x1000, UINT64_MAX, low), -EINVAL);
    ck_assert_int_eq(guest_mem_add(&mem, 0x1000, 0x1000, low), 0);
    ck_assert_int_eq(guest_mem_add(&mem, 0x1000, 0x1000, low), -EEXIST);
    ck_assert_int_eq(guest_mem_add(&mem, 0x1fff, 1, low), -EEXIST);
    ck_assert_int_eq(guest_mem_add(&mem, 0xfff, 2, low), -EEXIST);
    ck_assert_int_eq(guest_mem_add(&mem, 0, 0x10000, low), -EEXIST);
    ck_assert_uint_eq(mem.region_count, 1);
    for (unsigned i = 1; i < GUEST_MEM_REGIONS_MAX; i++)
        ck_assert_int_eq(guest_mem_add(&mem, 0x10000u * i, 0x1000, low), 0);
    ck_assert_int_eq(guest_mem_add(&mem, 0x900000, 0x1000, low), -ENOSPC);
}
END_TEST

START_TEST(copies)
{
    struct guest_mem mem = two_regions();
    uint8_t buf[4] = {1, 2, 3, 4};
    gpa_t last = LOW_BASE + LOW_SIZE - 4;

    ck_assert_int_eq(guest_mem_write(&mem, last, buf, 4), 0);
    ck_assert_int_eq(memcmp(low + LOW_SIZE - 4, buf, 4), 0);
    memset(buf, 0, sizeof(buf));
    ck_assert_int_eq(guest_mem_read(&mem, last, buf, 4), 0);
    ck_assert_int_eq(buf[3], 4);

    /* A refused access touches neither side. */
    memset(buf, 9, sizeof(buf));
    ck_assert_int_eq(guest_mem_write(&mem, last + 1, buf, 4), -EFAULT);
    ck_assert_int_eq(low[LOW_SIZE - 3], 2);
    ck_assert_int_eq(guest_mem_read(&mem, last + 1, buf, 4), -EFAULT);
    ck_assert_int_eq(buf[0], 9);
}
END_TEST

/*
 * The fake guest's guard pages are real, so that tests that rely on them can
 * fail: the kernel refuses to read a byte beside guest memory.
 */
START_TEST(guard_pages)
{
    struct fake_guest guest;
    uint8_t *first;
    int fds[2];

    fake_guest_init(&guest, 4096);
    first = fake_guest_ptr(&guest, FAKE_GUEST_BASE, 4096);
    ck_assert_int_eq(pipe(fds), 0);
    ck_assert_int_eq(write(fds[1], first, 1), 1);
    ck_assert_int_eq(write(fds[1], first + 4095, 1), 1);
    ck_assert_int_eq(write(fds[1], first - 1, 1), -1);
    ck_assert_int_eq(errno, EFAULT);
    ck_assert_int_eq(write(fds[1], first + 4096, 1), -1);
    ck_assert_int_eq(errno, EFAULT);
    close(fds[0]);
    close(fds[1]);
    fake_guest_fini(&guest);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("guest_mem");
    TCase *tc = tcase_create("all");

    tcase_add_loop_test(tc, ptr_bounds, 0,
                        (int)(sizeof(ranges) / sizeof(ranges[0])));
    tcase_add_test(tc, adjacent_regions_do_not_join);
    tcase_add_test(tc, add_refuses);
    tcase_add_test(tc, copies);
    tcase_add_test(tc, guard_pages);
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
