/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The standard streams as programs meet them: by name (/dev/stdin, /dev/fd/1),
 * which opens the pipe or terminal once more, with the rights of the user.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/agent_rig.h"

#define SKIPPED 77
#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static struct agent_rig rig;

static void start(void)
{
    agent_rig_start(&rig);
}

static void stop(void)
{
    ck_assert_int_eq(agent_rig_stop(&rig), 2);
}

/* What a script says when "in" and an end are what it is given. */
static struct rig_handle *run(const char *user, const char *script, bool tty)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    const struct agent_exec_request request = {
        .argv = argv, .user = user, .tty = tty, .open_stdin = true};
    uint32_t id;
    struct rig_handle *h = agent_rig_send(&rig, &request, &id);

    ck_assert_int_eq(agent_client_stdin_write(rig.client, id, "in\n", 3), 3);
    ck_assert_int_eq(agent_client_stdin_close(rig.client, id), 0);
    agent_rig_wait(&rig, &h->exited);
    return h;
}

static const char *const users[] = {NULL, "root", "nobody", "12345:7"};

static const struct {
    const char *script, *out, *err;
} pipes[] = {
    {"cat /dev/stdin", "in\n", ""},
    {"cat /dev/fd/0", "in\n", ""},
    {"cat /proc/self/fd/0", "in\n", ""},
    {"echo a >/dev/stdout", "a\n", ""},
    {"echo a >>/proc/self/fd/1", "a\n", ""},
    {"echo b >/dev/stderr", "", "b\n"},
    {"echo b >/dev/fd/2", "", "b\n"},
    {"echo c | tee /dev/stderr", "c\n", "c\n"},
    {"echo c | tee /dev/stdout", "c\nc\n", ""},
    /* As its owner: nobody else gets at it. */
    {"stat -L -c %a /dev/stdin /dev/stdout /dev/stderr", "600\n600\n600\n", ""},
    {"test $(stat -L -c %u:%g /dev/stdout) = $(id -u):$(id -g)", "", ""},
    /* What was there before is as it was. */
    {"stat -c %u:%a /dev/null", "0:666\n", ""},
    {"cat </dev/null", "", ""},
};

START_TEST(test_pipes)
{
    struct rig_handle *h;

    for (int i = 0; i < COUNT(users); i++) {
        h = run(users[i], pipes[_i].script, false);
        ck_assert_str_eq(h->text[1], pipes[_i].err);
        ck_assert_str_eq(h->text[0], pipes[_i].out);
        ck_assert_uint_eq(h->exit.code, 0);
    }
}
END_TEST

/* Without -i: the end at once, by any name; and /dev/null stays root's. */
START_TEST(test_no_stdin)
{
    struct rig_handle *h = agent_rig_sh(
        &rig, NULL, "cat /dev/stdin; stat -L -c %u:%a /dev/stdin; echo $?");

    ck_assert_str_eq(h->text[1], "");
    ck_assert_str_eq(h->text[0], "0:666\n0\n");
}
END_TEST

static const struct {
    const char *script, *out;
} terminals[] = {
    {"stty -echo; read x </dev/stdin; echo $x >/dev/stdout", "in\r\n"},
    {"stty -echo; read x <$(tty); echo $x >$(tty)", "in\r\n"},
    {"stty -echo; echo d >/dev/stderr; echo e >/dev/tty", "d\r\ne\r\n"},
    {"stty -echo; test -O $(tty) && stat -c %a:%G $(tty)", "620:tty\r\n"},
};

/* Echo may come before it is switched off: only what follows it counts. */
START_TEST(test_terminals)
{
    for (int i = 0; i < COUNT(users); i++) {
        struct rig_handle *h = run(users[i], terminals[_i].script, true);
        size_t len = strlen(terminals[_i].out);
        size_t got = strlen(h->text[0]);

        ck_assert_msg(got >= len && strcmp(h->text[0] + got - len,
                                           terminals[_i].out) == 0,
                      "'%s'", h->text[0]);
        ck_assert_uint_eq(h->exit.code, 0);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("agent_stdio");
    TCase *tc = tcase_create("stdio");
    SRunner *sr = srunner_create(s);
    uint32_t features;
    const char *why = agent_rig_probe(&features);
    int failed;

    if (why) {
        printf("skipped: check_agent_stdio: %s\n", why);
        return SKIPPED;
    }
    tcase_add_checked_fixture(tc, start, stop);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_pipes, 0, COUNT(pipes));
    tcase_add_test(tc, test_no_stdin);
    tcase_add_loop_test(tc, test_terminals, 0, COUNT(terminals));
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
