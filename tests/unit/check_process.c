/* SPDX-License-Identifier: Apache-2.0 */
/* What the monitor does to its own process, in a child that tells by status. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/process.h"

#define SOFT 64u

static bool ignored(int signal_number)
{
    struct sigaction now;

    return sigaction(signal_number, NULL, &now) == 0 &&
           now.sa_handler == SIG_IGN;
}

/* The number of the first expectation that does not hold, or 0. */
static int confined(void)
{
    struct rlimit files, core;
    int death = 0, stray = open("/dev/null", O_RDONLY);

    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return 1;
    files.rlim_cur = SOFT;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0 || stray < 0 ||
        dup2(stray, 40) != 40)
        return 2;
    close(STDOUT_FILENO);
    if (process_confine() != -EBADF || dup2(stray, STDOUT_FILENO) < 0)
        return 10;
    if (process_confine() != 0)
        return 3;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0 ||
        files.rlim_cur != files.rlim_max)
        return 4;
    if (getrlimit(RLIMIT_CORE, &core) < 0 || core.rlim_max != 0)
        return 5;
    if (fcntl(40, F_GETFD) >= 0)
        return 6;
    if (prctl(PR_GET_DUMPABLE) != 0)
        return 7;
    if (prctl(PR_GET_PDEATHSIG, &death) != 0 || death != SIGKILL)
        return 8;
    if (!ignored(SIGPIPE) || !ignored(SIGXFSZ) || !ignored(SIGINT) ||
        !ignored(SIGTERM) || !ignored(SIGHUP) || !ignored(SIGUSR1))
        return 9;
    return 0;
}

START_TEST(test_confined)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0)
        _exit(confined());
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("process");
    TCase *t = tcase_create("process");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_test(t, test_confined);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
