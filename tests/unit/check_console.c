/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal of boot: raw and back, its size, and the keys behind Ctrl-A. */
#include <check.h>
#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/console.h"

static int master, slave;
static struct console console;

static void set_up(void)
{
    struct winsize size = {.ws_row = 40, .ws_col = 100};

    ck_assert_int_eq(openpty(&master, &slave, NULL, NULL, &size), 0);
    console_init(&console, slave);
}

static void tear_down(void)
{
    console_restore(&console);
    close(master);
    close(slave);
}

static struct termios modes(void)
{
    struct termios t;

    memset(&t, 0, sizeof(t));
    ck_assert_int_eq(tcgetattr(slave, &t), 0);
    return t;
}

START_TEST(test_raw_and_back)
{
    struct termios before = modes(), raw, after;

    ck_assert_int_eq(console_make_raw(&console), 0);
    raw = modes();
    ck_assert_uint_eq(raw.c_lflag & (ICANON | ECHO | ISIG), 0);
    console_restore(&console);
    after = modes();
    ck_assert_mem_eq(&before, &after, sizeof(before));
    console_restore(&console); /* once more does nothing */
}
END_TEST

START_TEST(test_restore_without_raw)
{
    struct termios before = modes(), after;

    console_restore(&console);
    after = modes();
    ck_assert_mem_eq(&before, &after, sizeof(before));
}
END_TEST

START_TEST(test_dead_terminal)
{
    ck_assert_int_eq(console_make_raw(&console), 0);
    close(master);
    master = -1;
    console_restore(&console); /* nothing to put back, and no harm */
    ck_assert(!console.raw);
}
END_TEST

START_TEST(test_size)
{
    unsigned rows, columns;
    int null_fd = open("/dev/null", O_RDWR);

    console_size(&console, &rows, &columns);
    ck_assert_uint_eq(rows, 40);
    ck_assert_uint_eq(columns, 100);
    console_init(&console, null_fd);
    ck_assert_int_eq(console.fd, -1);
    ck_assert_int_eq(console_make_raw(&console), 0);
    console_size(&console, &rows, &columns);
    ck_assert_uint_eq(rows, 0);
    ck_assert_uint_eq(columns, 0);
    close(null_fd);
}
END_TEST

/* What is typed, what the guest gets, and the key. */
static const struct {
    const char *in, *out;
    enum console_key key;
} typed[] = {
    {"", "", CONSOLE_KEY_NONE},
    {"ls\r", "ls\r", CONSOLE_KEY_NONE},
    {"\003\032\034", "\003\032\034", CONSOLE_KEY_NONE},
    {"\001x", "", CONSOLE_KEY_END},
    {"\001X", "", CONSOLE_KEY_END},
    {"\001h", "", CONSOLE_KEY_HELP},
    {"ab\001xcd", "ab", CONSOLE_KEY_END},
    {"\001\001", "\001", CONSOLE_KEY_NONE},
    {"\001\001x", "\001x", CONSOLE_KEY_NONE},
    {"\001b", "\001b", CONSOLE_KEY_NONE},
    {"xh", "xh", CONSOLE_KEY_NONE},
};

START_TEST(test_keys)
{
    const uint8_t *in = (const uint8_t *)typed[_i].in;
    size_t in_len = strlen(typed[_i].in);
    enum console_key key = CONSOLE_KEY_NONE;
    uint8_t out[32];
    size_t len, used = 0;

    /* At once, and byte by byte: reads split anywhere. */
    key = console_filter(&console, in, in_len, out, &len);
    ck_assert_int_eq(key, typed[_i].key);
    ck_assert_uint_eq(len, strlen(typed[_i].out));
    ck_assert_mem_eq(out, typed[_i].out, len);
    console_init(&console, slave);
    key = CONSOLE_KEY_NONE;
    for (size_t i = 0; i < in_len && key == CONSOLE_KEY_NONE; i++) {
        key = console_filter(&console, in + i, 1, out + used, &len);
        ck_assert_uint_le(len, 2);
        used += len;
    }
    ck_assert_int_eq(key, typed[_i].key);
    ck_assert_uint_eq(used, strlen(typed[_i].out));
    ck_assert_mem_eq(out, typed[_i].out, used);
}
END_TEST

START_TEST(test_no_terminal)
{
    uint8_t out[8];
    size_t len;

    console_init(&console, -1);
    ck_assert_int_eq(
        console_filter(&console, (const uint8_t *)"\001x", 2, out, &len),
        CONSOLE_KEY_NONE);
    ck_assert_uint_eq(len, 2);
    ck_assert_mem_eq(out, "\001x", 2);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("console");
    TCase *t = tcase_create("console");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, test_raw_and_back);
    tcase_add_test(t, test_restore_without_raw);
    tcase_add_test(t, test_dead_terminal);
    tcase_add_test(t, test_size);
    tcase_add_loop_test(t, test_keys, 0,
                        (int)(sizeof(typed) / sizeof(typed[0])));
    tcase_add_test(t, test_no_terminal);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
