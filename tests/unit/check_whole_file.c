/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are there as a whole or not at all. The functions below stand in
 * front of libc's: hosts without nameless files, without /proc, without room.
 */
#include "base/whole_file.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool no_nameless, no_proc, no_space;

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    va_start(args, flags);
    if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE)
        mode = va_arg(args, mode_t);
    va_end(args);
    if (no_nameless && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    if (no_proc) {
        errno = ENOENT;
        return -1;
    }
    return (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
}

ssize_t write(int fd, const void *buf, size_t len)
{
    if (no_space) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_write, fd, buf, len);
}

static char dir[] = "/tmp/microsbx-XXXXXX";
static char path[64];

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/file", dir);
}

static void teardown(void)
{
    no_nameless = no_proc = no_space = false;
    (void)unlink(path);
    (void)rmdir(dir);
}

static unsigned entries(void)
{
    DIR *d = opendir(dir);
    unsigned count = 0;

    ck_assert_ptr_nonnull(d);
    while (readdir(d))
        count++;
    closedir(d);
    return count - 2;
}

static void must_hold(const char *text)
{
    char have[32] = "";
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_ge(read(fd, have, sizeof(have) - 1), 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0600);
    close(fd);
    ck_assert_str_eq(have, text);
    ck_assert_uint_eq(entries(), 1);
}

static void choose_host(int i)
{
    no_nameless = i == 1;
    no_proc = i == 2;
}

START_TEST(written_and_replaced)
{
    choose_host(_i);
    ck_assert_int_eq(whole_file_write(path, "one", 3), 0);
    must_hold("one");
    ck_assert_int_eq(whole_file_write(path, "another", 7), 0);
    must_hold("another");
}
END_TEST

/* What was there stays; nothing is beside it. */
START_TEST(no_space_leaves_nothing)
{
    choose_host(_i);
    no_space = true;
    ck_assert_int_eq(whole_file_write(path, "one", 3), -ENOSPC);
    ck_assert_uint_eq(entries(), 0);
    no_space = false;
    ck_assert_int_eq(whole_file_write(path, "one", 3), 0);
    no_space = true;
    ck_assert_int_eq(whole_file_write(path, "another", 7), -ENOSPC);
    no_space = false;
    must_hold("one");
}
END_TEST

/* Piece by piece: nothing is there before it is whole, and never a part. */
START_TEST(written_in_pieces)
{
    struct whole_file w;
    struct stat st;

    choose_host(_i);
    umask(027);
    ck_assert_int_eq(whole_file_begin(path, 0666, &w), 0);
    ck_assert_int_eq(write(w.fd, "on", 2), 2);
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert_int_eq(write(w.fd, "e", 1), 1);
    ck_assert_int_eq(whole_file_publish(&w), 0);
    whole_file_drop(&w);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0640);
    ck_assert_int_eq(chmod(path, 0600), 0);
    must_hold("one");
    ck_assert_int_eq(whole_file_begin(path, 0600, &w), 0);
    ck_assert_int_eq(write(w.fd, "anot", 4), 4);
    whole_file_drop(&w);
    ck_assert_int_eq(w.fd, -1);
    must_hold("one");
}
END_TEST

START_TEST(bad_places_are_told)
{
    char where[96];

    choose_host(_i);
    snprintf(where, sizeof(where), "%s/nowhere/file", dir);
    ck_assert_int_eq(whole_file_write(where, "one", 3), -ENOENT);
    ck_assert_int_lt(whole_file_write(dir, "one", 3), 0);
    ck_assert_uint_eq(entries(), 0);
    /* Without a slash: the folder one is in. */
    ck_assert_int_eq(chdir(dir), 0);
    ck_assert_int_eq(whole_file_write("file", "one", 3), 0);
    ck_assert_int_eq(chdir("/"), 0);
    must_hold("one");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("whole_file");
    TCase *tc = tcase_create("write");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, written_and_replaced, 0, 3);
    tcase_add_loop_test(tc, no_space_leaves_nothing, 0, 3);
    tcase_add_loop_test(tc, bad_places_are_told, 0, 3);
    tcase_add_loop_test(tc, written_in_pieces, 0, 3);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
