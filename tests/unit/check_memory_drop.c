/* SPDX-License-Identifier: Apache-2.0 */
/* Dropped memory is the file's again, all of it, with and without helpers. */
#include <check.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/memory_drop.h"

#define MIB ((uint64_t)1 << 20)
#define PAGE 4096u
#define LOW (21 * MIB) /* neither a multiple of a piece nor of the other */
#define HIGH (10 * MIB)

static struct guest_mem guest;
static uint8_t *low, *high;

static void *map(int fd, uint64_t at, uint64_t size)
{
    void *p =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, (off_t)at);

    ck_assert_ptr_ne(p, MAP_FAILED);
    return p;
}

/* What the file has at a page. */
static uint8_t pristine(uint64_t linear)
{
    return (uint8_t)(linear / PAGE % 251 + 1);
}

static void set_up(void)
{
    int fd = memfd_create("memory", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)(LOW + HIGH)), 0);
    for (uint64_t at = 0; at < LOW + HIGH; at += PAGE) {
        uint8_t byte = pristine(at);

        ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
    }
    low = map(fd, 0, LOW);
    high = map(fd, LOW, HIGH);
    close(fd);
    guest = (struct guest_mem){0};
    ck_assert_int_eq(guest_mem_add(&guest, 0, LOW, low), 0);
    ck_assert_int_eq(guest_mem_add(&guest, 4096 * MIB, HIGH, high), 0);
}

static uint8_t *byte_at(uint64_t linear)
{
    return linear < LOW ? low + linear : high + (linear - LOW);
}

START_TEST(all_of_it)
{
    cpu_set_t one;

    if (_i == 1) {
        CPU_ZERO(&one);
        CPU_SET((size_t)sched_getcpu(), &one);
        ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    }
    for (int round = 0; round < 3; round++) {
        for (uint64_t at = 0; at < LOW + HIGH; at += PAGE)
            *byte_at(at) = 0;
        ck_assert_int_eq(memory_drop(&guest), 0);
        for (uint64_t at = 0; at < LOW + HIGH; at += PAGE)
            ck_assert_uint_eq(*byte_at(at), pristine(at));
    }
}
END_TEST

START_TEST(failure_is_told)
{
    *low = 0;
    munmap(high + HIGH / 2, PAGE);
    ck_assert_int_lt(memory_drop(&guest), 0);
    /* The rest is dropped all the same. */
    ck_assert_uint_eq(*low, pristine(0));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("memory_drop");
    TCase *t = tcase_create("all");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, set_up, NULL);
    tcase_add_loop_test(t, all_of_it, 0, 2);
    tcase_add_test(t, failure_is_told);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
