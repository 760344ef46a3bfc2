/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse files: on file systems that know holes, and on those that do not. */
#include "trial/sparse.h"

#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/snapshot_rig.h"

/* In front of libc's: a file system that cannot tell holes. */
static int no_holes; /* errno, or 1: answers as if all were data */

off_t lseek(int fd, off_t offset, int whence)
{
    struct stat st;

    if (no_holes > 1 && (whence == SEEK_DATA || whence == SEEK_HOLE)) {
        errno = no_holes;
        return -1;
    }
    if (no_holes == 1 && whence == SEEK_DATA)
        return offset;
    if (no_holes == 1 && whence == SEEK_HOLE && fstat(fd, &st) == 0)
        return st.st_size;
    return syscall(SYS_lseek, fd, offset, whence);
}

static int make_file(uint64_t size)
{
    int fd = memfd_create("sparse", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static const struct {
    size_t len, at;
    bool zero;
} zero_cases[] = {
    {0, 0, true},        {1, 1, true},     {1, 0, false},
    {4096, 4096, true},  {4096, 0, false}, {4096, 4095, false},
    {4097, 4096, false},
};

START_TEST(zeros_are_told)
{
    uint8_t buf[5000] = {0};

    if (zero_cases[_i].at < zero_cases[_i].len)
        buf[zero_cases[_i].at] = 0x80;
    ck_assert_int_eq(sparse_is_zero(buf, zero_cases[_i].len),
                     zero_cases[_i].zero);
}
END_TEST

START_TEST(extents_are_found)
{
    int fd = make_file(1 << 20);
    uint64_t start, end;

    ck_assert_int_eq(pwrite(fd, "x", 1, 300000), 1);
    ck_assert_int_eq(sparse_next(fd, 0, 1 << 20, &start, &end), 0);
    ck_assert_uint_le(start, 300000);
    ck_assert_uint_ge(start, 300000 - 4096);
    ck_assert_uint_gt(end, 300000);
    ck_assert_int_eq(sparse_next(fd, end, 1 << 20, &start, &end), 0);
    ck_assert_uint_eq(start, 1 << 20);
    ck_assert_uint_eq(end, 1 << 20);
    /* Up to a limit; nothing behind it. */
    ck_assert_int_eq(sparse_next(fd, 0, 300001, &start, &end), 0);
    ck_assert_uint_eq(end, 300001);
    ck_assert_int_eq(sparse_next(fd, 300001, 300001, &start, &end), 0);
    ck_assert_uint_eq(start, 300001);
    no_holes = _i;
    ck_assert_int_eq(sparse_next(fd, 10, 1 << 20, &start, &end), 0);
    ck_assert_uint_eq(start, 10);
    ck_assert_uint_eq(end, 1 << 20);
    no_holes = 0;
    close(fd);
}
END_TEST

static void copy_and_compare(uint64_t size)
{
    int from = make_file(size), to = make_file(0);
    struct stat st;

    ck_assert_int_eq(pwrite(from, "a", 1, 0), 1);
    ck_assert_int_eq(pwrite(from, "b", 1, (off_t)size - 1), 1);
    ck_assert_int_eq(pwrite(from, "c", 1, (off_t)size / 2), 1);
    ck_assert_int_eq(sparse_copy(from, to, size, NULL), 0);
    ck_assert(snapshot_rig_same(from, to));
    ck_assert_int_eq(fstat(to, &st), 0);
    ck_assert_int_le(st.st_blocks * 512, 3 * 4096);
    close(from);
    close(to);
}

START_TEST(copies_keep_holes)
{
    static const uint64_t sizes[] = {1, 4096, 4097, 3 << 20, (3 << 20) + 511};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        no_holes = 0;
        copy_and_compare(sizes[i]);
        no_holes = _i;
        copy_and_compare(sizes[i]);
    }
    no_holes = 0;
}
END_TEST

START_TEST(short_sources_are_told)
{
    int from = make_file(1000), to = make_file(0);

    ck_assert_int_eq(sparse_copy(from, to, 1001, NULL), -ENODATA);
    ck_assert_int_eq(sparse_copy(from, to, 500, NULL), 0);
    close(from);
    close(to);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sparse");
    TCase *tc = tcase_create("core");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, zeros_are_told, 0,
                        (int)(sizeof(zero_cases) / sizeof(zero_cases[0])));
    tcase_add_loop_test(tc, extents_are_found, 1, 2);
    tcase_add_loop_test(tc, extents_are_found, EINVAL, EINVAL + 1);
    tcase_add_loop_test(tc, copies_keep_holes, 1, 2);
    tcase_add_loop_test(tc, copies_keep_holes, EINVAL, EINVAL + 1);
    tcase_add_test(tc, short_sources_are_told);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
