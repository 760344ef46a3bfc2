/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts that the agent reads: the image's passwd and group files, which a
 * workload may have rewritten, the kernel's command line and control files.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/cmdline.h"
#include "guest/sysfile.h"
#include "guest/users.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static const char passwd[] = "root:x:0:0:root:/root:/bin/bash\n"
                             "\n"
                             "broken:x:abc:0::/:/bin/sh\n"
                             "short:x:7\n"
                             ":x:8:8::/:/bin/sh\n"
                             "+@nis\n"
                             "huge:x:4294967295:1::/:/bin/sh\n"
                             "daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
                             "nohome:x:50:51::relative:\n"
                             "alice:x:2000:2001:A,B,C:/home/alice:/bin/sh\n"
                             "alice:x:0:0:second:/root:/bin/sh\n"
                             "last:x:9:10::/l:/bin/sh";

static const char group[] = "root:x:0:\n"
                            "wheel:x:10:alice,root\n"
                            "own:x:2001:alice\n"
                            "almost:x:11:alicex,xalice,alic\n"
                            "end:x:12:bob,alice\n"
                            "bad:x:zz:alice\n"
                            "alone:x:13:alice";

static const struct {
    const char *who;
    int ret;
    unsigned int uid, gid;
    const char *name, *home;
    size_t groups;
} users[] = {
    {"", 0, 1000, 1000, "sandbox", "/home/sandbox", 0},
    {"sandbox", 0, 1000, 1000, "sandbox", "/home/sandbox", 0},
    {"root", 0, 0, 0, "root", "/root", 1},
    {"0", 0, 0, 0, "root", "/root", 1},
    {"alice", 0, 2000, 2001, "alice", "/home/alice", 3},
    {"2000", 0, 2000, 2001, "alice", "/home/alice", 3},
    {"2000:77", 0, 2000, 77, "alice", "/home/alice", 4},
    {"1000", 0, 1000, 1000, "sandbox", "/home/sandbox", 0},
    {"5555", 0, 5555, 5555, "", "/", 0},
    {"nohome", 0, 50, 51, "nohome", "/", 0},
    {"last", 0, 9, 10, "last", "/l", 0},
    {"broken", -ENOENT, 0, 0, NULL, NULL, 0},
    {"short", -ENOENT, 0, 0, NULL, NULL, 0},
    {"huge", -ENOENT, 0, 0, NULL, NULL, 0},
    {"+@nis", -ENOENT, 0, 0, NULL, NULL, 0},
    {"nobody-here", -ENOENT, 0, 0, NULL, NULL, 0},
    {"alic", -ENOENT, 0, 0, NULL, NULL, 0},
    {"alice:x", -EINVAL, 0, 0, NULL, NULL, 0},
    {"1:", -EINVAL, 0, 0, NULL, NULL, 0},
    {"1:2:3", -EINVAL, 0, 0, NULL, NULL, 0},
    {"1x", -EINVAL, 0, 0, NULL, NULL, 0},
    {"4294967295", -EINVAL, 0, 0, NULL, NULL, 0},
    {"99999999999", -EINVAL, 0, 0, NULL, NULL, 0},
};

START_TEST(test_user)
{
    struct user user;

    ck_assert_int_eq(users_resolve(users[_i].who, passwd, group, &user),
                     users[_i].ret);
    if (users[_i].ret)
        return;
    ck_assert_uint_eq(user.uid, users[_i].uid);
    ck_assert_uint_eq(user.gid, users[_i].gid);
    ck_assert_str_eq(user.name, users[_i].name);
    ck_assert_str_eq(user.home, users[_i].home);
    ck_assert_uint_eq(user.group_count, users[_i].groups);
}
END_TEST

/* Without files there are root, the default user and numbers. */
START_TEST(test_no_files)
{
    struct user user;

    ck_assert_int_eq(users_resolve("root", "", "", &user), 0);
    ck_assert_str_eq(user.home, "/root");
    ck_assert_int_eq(users_resolve("12", "", "", &user), 0);
    ck_assert_int_eq(users_resolve("alice", "", "", &user), -ENOENT);
}
END_TEST

/* Every cut of the files is survived, and root stays root in it. */
START_TEST(test_cut)
{
    for (size_t len = 0; len < sizeof(passwd); len++) {
        char *text = strndup(passwd, len);
        struct user user;
        int ret;

        ck_assert_int_eq(users_resolve("root", text, group, &user), 0);
        ck_assert_uint_eq(user.uid, 0);
        ret = users_resolve("alice", text, group, &user);
        ck_assert(ret == -ENOENT || (ret == 0 && user.uid == 2000));
        free(text);
    }
}
END_TEST

START_TEST(test_many_groups)
{
    char text[100 * 24] = "";
    struct user user;

    for (int i = 0; i < 100; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text),
                 "g%d:x:%d:alice\n", i, 5000 + i);
    ck_assert_int_eq(users_resolve("alice", passwd, text, &user), 0);
    ck_assert_uint_eq(user.group_count, USERS_GROUPS_MAX);
}
END_TEST

/* The longest name there may be is a user like any other; one byte more is
   still found by its number, and has no name. */
START_TEST(test_long_name)
{
    char name[USERS_NAME_MAX + 1], text[2 * USERS_NAME_MAX + 40];
    struct user user;

    memset(name, 'n', sizeof(name));
    name[USERS_NAME_MAX - 1] = '\0';
    snprintf(text, sizeof(text), "%s:x:77:78::/h:/bin/sh\n", name);
    ck_assert_int_eq(users_resolve(name, text, "", &user), 0);
    ck_assert_uint_eq(user.uid, 77);
    ck_assert_uint_eq(user.gid, 78);
    ck_assert_str_eq(user.name, name);
    ck_assert_str_eq(user.home, "/h");
    name[USERS_NAME_MAX - 1] = 'n';
    name[USERS_NAME_MAX] = '\0';
    ck_assert_int_eq(users_resolve(name, text, "", &user), -ENOENT);
    snprintf(text, sizeof(text), "%s:x:77:78::/h:/bin/sh\n", name);
    ck_assert_int_eq(users_resolve("77", text, "", &user), 0);
    ck_assert_str_eq(user.name, "");
    ck_assert_str_eq(user.home, "/h");
}
END_TEST

/* A name or home that is too long is none. */
START_TEST(test_long_fields)
{
    char text[4096];
    struct user user;

    memset(text, 'h', sizeof(text));
    memcpy(text, "eve:x:1:1::/", 12);
    memcpy(text + 3000, ":/bin/sh\n", 10);
    ck_assert_int_eq(users_resolve("eve", text, "", &user), 0);
    ck_assert_str_eq(user.home, "/");
}
END_TEST

START_TEST(test_cmdline)
{
    struct cmdline c;

    cmdline_parse("console=ttyS0 quiet", &c);
    ck_assert(!c.shell && !c.init_line && !c.compare && c.rows == 0 &&
              c.term[0] == '\0');
    cmdline_parse("a microsbx.shell=1\tmicrosbx.term=xterm-256color "
                  "microsbx.rows=50 microsbx.cols=132 microsbx.init_line=1 "
                  "microsbx.scratch_limit=1073741824 microsbx.compare=1\n",
                  &c);
    ck_assert(c.shell && c.init_line && c.compare);
    ck_assert_str_eq(c.term, "xterm-256color");
    ck_assert_uint_eq(c.rows, 50);
    ck_assert_uint_eq(c.cols, 132);
    ck_assert_uint_eq(c.scratch_limit, 1ull << 30);
    cmdline_parse("microsbx.shell microsbx.rows=99999 xmicrosbx.shell=1 "
                  "microsbx.shellx=1 microsbx.cols= microsbx.",
                  &c);
    ck_assert(!c.shell && c.rows == 0 && c.cols == 0);
}
END_TEST

START_TEST(test_field)
{
    const char *text = "low 0\noom 3\noom_kill 7\nMemTotal:   1234 kB\n";

    ck_assert_uint_eq(sysfile_field(text, "oom_kill"), 7);
    ck_assert_uint_eq(sysfile_field(text, "oom"), 3);
    ck_assert_uint_eq(sysfile_field(text, "MemTotal"), 1234);
    ck_assert_uint_eq(sysfile_field(text, "kill"), 0);
    ck_assert_uint_eq(sysfile_field("", "oom"), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("guest text");
    TCase *tc = tcase_create("guest text");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_loop_test(tc, test_user, 0, COUNT(users));
    tcase_add_test(tc, test_no_files);
    tcase_add_test(tc, test_cut);
    tcase_add_test(tc, test_many_groups);
    tcase_add_test(tc, test_long_fields);
    tcase_add_test(tc, test_long_name);
    tcase_add_test(tc, test_cmdline);
    tcase_add_test(tc, test_field);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
