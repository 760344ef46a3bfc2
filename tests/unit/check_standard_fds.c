/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors 0 to 2, closed in every combination, in children. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/standard_fds.h"

#define COMBINATIONS 8

static bool is_null(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) &&
           st.st_rdev == makedev(1, 3);
}

static void close_some(int which)
{
    int zero = fcntl(open("/dev/zero", O_RDWR), F_DUPFD, 10);

    for (int fd = 0; fd <= 2; fd++) {
        if (dup2(zero, fd) != fd)
            _exit(100);
        if (which & (1 << fd))
            close(fd);
    }
    close_range(3, ~0u, 0);
}

/* The number of the first expectation that does not hold, or 0. */
static int ensured(int which)
{
    char byte = 'x';

    close_some(which);
    if (standard_fds_are_open() != (which == 0))
        return 1;
    if (standard_fds_ensure() != 0 || !standard_fds_are_open())
        return 2;
    for (int fd = 0; fd <= 2; fd++) {
        bool closed = (which & (1 << fd)) != 0;

        if (is_null(fd) != closed || standard_fd_is_usable(fd) == closed)
            return 3;
    }
    /* Nobody takes the one for a file that can be read or written. */
    if ((which & 1) && (read(0, &byte, 1) != -1 || errno != EBADF))
        return 4;
    if ((which & 2) && (write(1, &byte, 1) != -1 || errno != EBADF))
        return 5;
    /* The next file is none of them. */
    return open("/dev/zero", O_RDONLY) == 3 ? 0 : 6;
}

static int set_null(int which)
{
    close_some(which);
    if (standard_fds_set_null() != 0)
        return 1;
    for (int fd = 0; fd <= 2; fd++)
        if (!is_null(fd) || !standard_fd_is_usable(fd))
            return 2;
    return open("/dev/zero", O_RDONLY) == 3 ? 0 : 3;
}

/* Neither may go on as if nothing were wrong. */
static int without_room(int which)
{
    struct rlimit none = {0};

    close_some(which);
    if (setrlimit(RLIMIT_NOFILE, &none) != 0)
        return 1;
    if (standard_fds_ensure() != (which == 0 ? 0 : -EMFILE))
        return 2;
    return standard_fds_set_null() == -EMFILE ? 0 : 3;
}

static void in_child(int (*run)(int), int which)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0)
        _exit(run(which));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0,
                  "combination %d: status %#x", which, (unsigned)status);
}

START_TEST(test_ensure)
{
    in_child(ensured, _i);
}
END_TEST

START_TEST(test_set_null)
{
    in_child(set_null, _i);
}
END_TEST

START_TEST(test_without_room)
{
    in_child(without_room, _i);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("standard_fds");
    TCase *all = tcase_create("closed");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(all, test_ensure, 0, COMBINATIONS);
    tcase_add_loop_test(all, test_set_null, 0, COMBINATIONS);
    tcase_add_loop_test(all, test_without_room, 0, COMBINATIONS);
    suite_add_tcase(suite, all);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
