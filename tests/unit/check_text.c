/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes made harmless for a terminal; the nearest word to a misspelt one. */
#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static bool is_harmless(const char *text)
{
    for (; *text; text++) {
        if (*text < ' ' || *text > '~')
            return false;
    }
    return true;
}

START_TEST(test_every_byte)
{
    char byte = (char)_i;
    char buf[8];

    text_escape(&byte, 1, buf, sizeof(buf));
    ck_assert(is_harmless(buf));
    ck_assert_uint_ge(strlen(buf), 1);
    if (byte > ' ' && byte <= '~' && byte != '\\') {
        ck_assert_uint_eq(strlen(buf), 1);
        ck_assert_int_eq(buf[0], byte);
    }
}
END_TEST

START_TEST(test_sequences)
{
    static const char HOSTILE[] = "a\x1b[2J\x1b]0;t\x07\r\n\t\\\0\xff\x9b"
                                  "1m\x7f";
    char buf[200];

    text_escape(HOSTILE, sizeof(HOSTILE) - 1, buf, sizeof(buf));
    ck_assert(is_harmless(buf));
    ck_assert_ptr_nonnull(strstr(buf, "\\x1b[2J"));
    ck_assert_ptr_nonnull(strstr(buf, "\\xff"));
    ck_assert_ptr_nonnull(strstr(buf, "\\x00"));
    ck_assert_ptr_nonnull(strstr(buf, "\\n"));
    ck_assert_ptr_nonnull(strstr(buf, "\\\\"));
}
END_TEST

/* Any room, down to none: always ended, never beyond it. */
START_TEST(test_cut)
{
    char buf[40];

    for (size_t size = 1; size < 20; size++) {
        memset(buf, '#', sizeof(buf));
        text_escape("\x1b\x1b\x1b\x1b\x1b\x1b", 6, buf, size);
        ck_assert_uint_lt(strnlen(buf, size), size);
        ck_assert_int_eq(buf[size], '#');
    }
}
END_TEST

START_TEST(test_nearest)
{
    static const char *const WORDS[] = {"memory", "cpus",    "disk",
                                        "image",  "timeout", NULL};
    static const struct {
        const char *word, *nearest;
    } rows[] = {
        {"memroy", "memory"}, {"memorry", "memory"},
        {"memor", "memory"},  {"cpu", "cpus"},
        {"Disk", "disk"},     {"time-out", "timeout"},
        {"zebra", NULL},      {"", NULL},
        {"networking", NULL},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *near = text_nearest(rows[i].word, WORDS);

        if (rows[i].nearest)
            ck_assert_pstr_eq(near, rows[i].nearest);
        else
            ck_assert_ptr_null(near);
    }
}
END_TEST

/* A word of any length is compared within bounds. */
START_TEST(test_long_word)
{
    static const char *const WORDS[] = {"memory", NULL};
    char *word = malloc(100001);

    memset(word, 'm', 100000);
    word[100000] = '\0';
    ck_assert_ptr_null(text_nearest(word, WORDS));
    free(word);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("text");
    TCase *t = tcase_create("text");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_loop_test(t, test_every_byte, 0, 256);
    tcase_add_test(t, test_sequences);
    tcase_add_test(t, test_cut);
    tcase_add_test(t, test_nearest);
    tcase_add_test(t, test_long_word);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
