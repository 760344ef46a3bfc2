/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is remembered of this host, and whom it is believed: nobody else's file,
 * and nothing about a host that has changed. In a folder of the test's own.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trial/fitness.h"
#include "trial/host_stamp.h"

static char dir[] = "/tmp/check_host_stamp.XXXXXX";
static char file[128]; /* where "fact" is remembered */
static char folder[100];
static uint8_t got[64];

static void set_up(void)
{
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    unsetenv("XDG_RUNTIME_DIR");
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", dir, 1);
    snprintf(folder, sizeof(folder), "%s/.cache/microsbx/host", dir);
    snprintf(file, sizeof(file), "%s/fact", folder);
}

static void tear_down(void)
{
    char command[100];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static void expect_fact(void)
{
    ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), 4);
    ck_assert_mem_eq(got, "yes\0", 4);
}

static void remember_fact(void)
{
    host_stamp_write("fact", "yes\0", 4);
    expect_fact();
}

START_TEST(test_places)
{
    char other[128];

    ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -ENOENT);
    remember_fact();
    ck_assert_int_eq(access(file, F_OK), 0);
    ck_assert_int_eq(host_stamp_read("other", got, sizeof(got)), -ENOENT);
    ck_assert_int_eq(host_stamp_read("fact", got, 3), -EMSGSIZE);
    host_stamp_write("none", "", 0);
    ck_assert_int_eq(host_stamp_read("none", got, 0), 0);
    /* A runtime folder comes first. */
    setenv("XDG_RUNTIME_DIR", dir, 1);
    ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -ENOENT);
    remember_fact();
    snprintf(other, sizeof(other), "%s/microsbx/fact", dir);
    ck_assert_int_eq(access(other, F_OK), 0);
    /* Nowhere to remember anything. */
    unsetenv("XDG_RUNTIME_DIR");
    unsetenv("HOME");
    host_stamp_write("fact", "yes\0", 4);
    ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -ENOENT);
}
END_TEST

/* Every byte of what names the host counts. */
START_TEST(test_other_host)
{
    uint8_t all[1024];
    ssize_t len;
    int fd;

    remember_fact();
    fd = open(file, O_RDWR);
    len = read(fd, all, sizeof(all));
    ck_assert_int_gt(len, 60);
    for (ssize_t i = 0; i < len - 4; i++) {
        uint8_t changed = (uint8_t)(all[i] ^ 1);

        ck_assert_int_eq(pwrite(fd, &changed, 1, i), 1);
        ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -ESTALE);
        ck_assert_int_eq(pwrite(fd, all + i, 1, i), 1);
    }
    expect_fact();
    ck_assert_int_eq(ftruncate(fd, 20), 0);
    ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -ESTALE);
    close(fd);
    remember_fact(); /* in its place */
}
END_TEST

START_TEST(test_not_believed)
{
    char target[128];

    remember_fact();
    ck_assert_int_eq(chmod(file, 0620), 0);
    ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -EPERM);
    ck_assert_int_eq(chmod(file, 0602), 0);
    ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -EPERM);
    ck_assert_int_eq(chmod(file, 0600), 0);
    expect_fact();
    ck_assert_int_eq(chmod(folder, 0770), 0);
    ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -EPERM);
    ck_assert_int_eq(chmod(folder, 0700), 0);
    expect_fact();
    /* A link, a pipe. */
    snprintf(target, sizeof(target), "%s/target", dir);
    ck_assert_int_eq(rename(file, target), 0);
    ck_assert_int_eq(symlink(target, file), 0);
    ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -ELOOP);
    ck_assert_int_eq(unlink(file), 0);
    ck_assert_int_eq(mkfifo(file, 0600), 0);
    ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -EPERM);
    ck_assert_int_eq(unlink(file), 0);
    if (geteuid() == 0) {
        remember_fact();
        ck_assert_int_eq(chown(file, 65534, 65534), 0);
        ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -EPERM);
        ck_assert_int_eq(unlink(file), 0);
        remember_fact();
        ck_assert_int_eq(chown(folder, 65534, 65534), 0);
        ck_assert_int_eq(host_stamp_read("fact", got, sizeof(got)), -EPERM);
    }
}
END_TEST

START_TEST(test_cpu)
{
    static const char ONE[] = "0123456789abcdef0123456789abcdef"
                              "0123456789abcdef0123456789abcdef";
    static const char OTHER[] = "1123456789abcdef0123456789abcdef"
                                "0123456789abcdef0123456789abcdef";

    ck_assert(!fitness_cpu_known(ONE));
    fitness_cpu_remember(ONE);
    ck_assert(fitness_cpu_known(ONE));
    ck_assert(!fitness_cpu_known(OTHER));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("host_stamp");
    TCase *t = tcase_create("host_stamp");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, test_places);
    tcase_add_test(t, test_other_host);
    tcase_add_test(t, test_not_believed);
    tcase_add_test(t, test_cpu);
    suite_add_tcase(s, t);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
