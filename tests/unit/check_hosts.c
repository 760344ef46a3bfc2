/* SPDX-License-Identifier: Apache-2.0 */
/* /etc/hosts and /etc/hostname under a name that changes. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/hosts.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))
#define LOCALS "127.0.0.1\tlocalhost\n::1\tlocalhost\n"

/* ---- text --------------------------------------------------------------- */

static const struct {
    const char *old, *name, *text, *wanted;
} texts[] = {
    /* Nothing there: an image that came from a container. */
    {"", "a", "", LOCALS "127.0.1.1\ta\n"},
    {"", "a.b.c", "", LOCALS "127.0.1.1\ta.b.c\ta\n"},
    /* There already, by whatever line. */
    {"", "a", LOCALS "127.0.1.1\ta\n", LOCALS "127.0.1.1\ta\n"},
    {"", "a", "127.0.0.1 localhost a", "127.0.0.1 localhost a"},
    {"x", "a", "10.0.0.1 b  a # c\n::1 localhost\n",
     "10.0.0.1 b  a # c\n::1 localhost\n"},
    /* Its own line changes, no other does. */
    {"a", "b", "1.1.1.1 c\n127.0.1.1\ta\n::1 localhost\n2.2.2.2 a\n",
     "1.1.1.1 c\n127.0.1.1\tb\n::1 localhost\n2.2.2.2 a\n"},
    {"a", "b", "127.0.1.1\taa\n::1 localhost\n",
     "127.0.1.1\taa\n::1 localhost\n127.0.1.1\tb\n"},
    {"a", "b", "9127.0.1.1\ta\n::1 localhost\n",
     "9127.0.1.1\ta\n::1 localhost\n127.0.1.1\tb\n"},
    {"a.x", "b", "127.0.1.1\ta.x\ta\n::1 localhost\n",
     "127.0.1.1\tb\n::1 localhost\n"},
    {"a", "b.x", "::1 localhost\n127.0.1.1\ta\n",
     "::1 localhost\n127.0.1.1\tb.x\tb\n"},
    /* Not a name of a line: an address, part of a name, a comment. */
    {"", "a", "a localhost\n", "a localhost\n127.0.1.1\ta\n"},
    {"", "a", "1.1.1.1 ab localhost\n", "1.1.1.1 ab localhost\n127.0.1.1\ta\n"},
    {"", "a", "1.1.1.1 localhost # a", "1.1.1.1 localhost # a\n127.0.1.1\ta\n"},
    {"", "a", "#1.1.1.1 a localhost\n",
     "#1.1.1.1 a localhost\n" LOCALS "127.0.1.1\ta\n"},
};

START_TEST(test_text)
{
    char *text = hosts_text(texts[_i].text, texts[_i].old, texts[_i].name);

    ck_assert_str_eq(text, texts[_i].wanted);
    free(text);
}
END_TEST

/* ---- files -------------------------------------------------------------- */

static char dir[] = "/tmp/check_hosts.XXXXXX";
static int root_fd = -1;

static void make_dir(void)
{
    strcpy(dir, "/tmp/check_hosts.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    root_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(root_fd, 0);
}

static void remove_dir(void)
{
    char command[64];

    close(root_fd);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static void put(const char *path, const char *text, size_t len)
{
    int fd =
        openat(root_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, len), (ssize_t)len);
    close(fd);
}

static const char *get(const char *path)
{
    static char text[HOSTS_TEXT_MAX + 100];
    int fd = openat(root_fd, path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    ck_assert_int_ge(fd, 0);
    n = read(fd, text, sizeof(text) - 1);
    ck_assert_int_ge(n, 0);
    text[n] = '\0';
    close(fd);
    return text;
}

/* From nothing, and then from name to name, shorter and longer. */
START_TEST(test_names)
{
    static const char *const names[] = {"microsbx", "a",
                                        "microsbx-0123abcd.example", "b"};
    const char *old = "";

    for (size_t i = 0; i < 4; i++) {
        char line[100];

        ck_assert_int_eq(hosts_set_name(root_fd, old, names[i]), 0);
        snprintf(line, sizeof(line), "%s\n", names[i]);
        ck_assert_str_eq(get("etc/hostname"), line);
        snprintf(line, sizeof(line), LOCALS "127.0.1.1\t%s%s\n", names[i],
                 i == 2 ? "\tmicrosbx-0123abcd" : "");
        ck_assert_str_eq(get("etc/hosts"), line);
        old = names[i];
    }
}
END_TEST

/* What is right is not written; a file keeps its inode, owner and mode. */
START_TEST(test_untouched)
{
    const struct timespec past[2] = {{1000, 0}, {1000, 0}};
    struct stat a, b;

    ck_assert_int_eq(hosts_set_name(root_fd, "", "x"), 0);
    ck_assert_int_eq(fchmodat(root_fd, "etc/hosts", 0640, 0), 0);
    ck_assert_int_eq(utimensat(root_fd, "etc/hosts", past, 0), 0);
    ck_assert_int_eq(utimensat(root_fd, "etc/hostname", past, 0), 0);
    ck_assert_int_eq(hosts_set_name(root_fd, "x", "x"), 0);
    ck_assert_int_eq(hosts_set_name(root_fd, "", "x"), 0);
    ck_assert_int_eq(fstatat(root_fd, "etc/hostname", &a, 0), 0);
    ck_assert_int_eq(a.st_mtime, 1000);
    ck_assert_int_eq(fstatat(root_fd, "etc/hosts", &a, 0), 0);
    ck_assert_int_eq(a.st_mtime, 1000);
    ck_assert_int_eq(hosts_set_name(root_fd, "x", "y"), 0);
    ck_assert_int_eq(fstatat(root_fd, "etc/hosts", &b, 0), 0);
    ck_assert_int_ne(b.st_mtime, 1000);
    ck_assert(a.st_ino == b.st_ino && a.st_mode == b.st_mode);
}
END_TEST

/* A link is not followed, a pipe not waited for, other data not rewritten;
   and the host name is right for all that. */
static const struct {
    const char *make;
    int wanted;
} odd[] = {
    {"ln -s ../victim hosts", -ELOOP},
    {"ln -s ../../victim hosts", -ELOOP},
    {"mkfifo hosts", -EINVAL},
    {"mkdir hosts", -EINVAL},
    {"head -c 65537 /dev/zero | tr '\\0' '#' >hosts", -EFBIG},
    {"printf '1.1.1.1 a\\0b' >hosts", -EINVAL},
};

START_TEST(test_odd)
{
    char command[200];

    put("victim", "victim\n", 7);
    snprintf(command, sizeof(command), "mkdir %s/etc && cd %s/etc && %s", dir,
             dir, odd[_i].make);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(hosts_set_name(root_fd, "", "name"), odd[_i].wanted);
    ck_assert_str_eq(get("victim"), "victim\n");
    ck_assert_str_eq(get("etc/hostname"), "name\n");
}
END_TEST

START_TEST(test_linked_folder)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/real", dir);
    ck_assert_int_eq(mkdir(path, 0755), 0);
    ck_assert_int_eq(symlinkat("real", root_fd, "etc"), 0);
    ck_assert_int_eq(hosts_set_name(root_fd, "", "name"), -ELOOP);
    ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

/* The largest that is taken, to the byte. */
START_TEST(test_large)
{
    static char text[HOSTS_TEXT_MAX];
    size_t len;

    ck_assert_int_eq(hosts_set_name(root_fd, "", "name"), 0);
    memset(text, '#', sizeof(text));
    text[sizeof(text) - 1] = '\n';
    put("etc/hosts", text, sizeof(text));
    ck_assert_int_eq(hosts_set_name(root_fd, "", "name"), 0);
    len = strlen(get("etc/hosts"));
    ck_assert_uint_eq(len, sizeof(text) + strlen(LOCALS) +
                               strlen("127.0.1.1\tname\n"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("hosts");
    TCase *text = tcase_create("text"), *files = tcase_create("files");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_loop_test(text, test_text, 0, COUNT(texts));
    suite_add_tcase(s, text);
    tcase_add_checked_fixture(files, make_dir, remove_dir);
    tcase_add_test(files, test_names);
    tcase_add_test(files, test_untouched);
    tcase_add_loop_test(files, test_odd, 0, COUNT(odd));
    tcase_add_test(files, test_linked_folder);
    tcase_add_test(files, test_large);
    suite_add_tcase(s, files);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
