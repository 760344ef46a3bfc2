/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer of the machine that compares disks: only a whole one counts, and
 * nothing in it is taken on trust. (The machine itself: tests/vm.)
 */
#include "trial/snapshot_files.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static unsigned reports;
static struct proto_compare last;

static void note(void *ctx, const struct proto_compare *entry)
{
    ck_assert_ptr_eq(ctx, &reports);
    reports++;
    last = *entry;
}

static int read_bytes(const void *text, size_t len, uint32_t *ret_count)
{
    int fd = memfd_create("answer", MFD_CLOEXEC);
    int ret;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, len), (ssize_t)len);
    reports = 0;
    ret = snapshot_files_read(fd, note, &reports, ret_count);
    close(fd);
    return ret;
}

static int read_text(const char *text, uint32_t *ret_count)
{
    return read_bytes(text, strlen(text), ret_count);
}

/* ---- lines -------------------------------------------------------------- */

static const char *const good_lines[] = {
    "files 1",
    "end 0",
    "end 1",
    "end 262144",
    "failed 1",
    "failed 4095",
    "A f /x",
    "D d /x/y",
    "M l /",
    "m c /x y ",
    "A b /...",
    "A p /.x/..y",
    "A s /\\x0a\\x1b\\x5c\\xff\\x7f",
};

START_TEST(test_good_line)
{
    const char *line = good_lines[_i];
    char again[PROTO_COMPARE_LINE_MAX];
    static struct proto_compare m;
    size_t len;

    ck_assert_int_eq(proto_compare_parse(line, strlen(line), &m), 0);
    len = proto_compare_format(&m, again);
    ck_assert_uint_eq(len, strlen(line) + 1);
    ck_assert_int_eq(again[len - 1], '\n');
    ck_assert_int_eq(memcmp(line, again, len - 1), 0);
}
END_TEST

static const char *const bad_lines[] = {
    "",
    "files",
    "files 2",
    "files 1 ",
    "files 10",
    "end",
    "end ",
    "end 01",
    "end -1",
    "end +1",
    "end 1 ",
    "end 262145",
    "end 4294967296",
    "end 18446744073709551617",
    "failed 0",
    "failed 4096",
    "failed EIO",
    "A f",
    "A f ",
    "A f x",
    "A f x/y",
    "A f //",
    "A f /x/",
    "A f /x//y",
    "A f /.",
    "A f /..",
    "A f /x/../y",
    "A f /x/.",
    "A  /x",
    "Af /x",
    "A f  /x",
    " A f /x",
    "B f /x",
    "a f /x",
    "A x /x",
    "A F /x",
    "A f /\t",
    "A f /\x1b[2J",
    "A f /\xc3\xa4",
    "A f /\x7f",
    "A f /\\",
    "A f /\\x",
    "A f /\\x1",
    "A f /\\n",
    "A f /\\\\",
    "A f /\\x00",
    "A f /\\x41",  /* needs no escape */
    "A f /\\x2fx", /* a slash in a name */
    "A f /\\x1B",  /* upper case */
    "A f /\\x1g",
    "A f \\x2fx",
    "\\x41 f /x",
};

START_TEST(test_bad_line)
{
    static struct proto_compare m;
    const char *line = bad_lines[_i];

    ck_assert_int_eq(proto_compare_parse(line, strlen(line), &m), -EBADMSG);
}
END_TEST

START_TEST(test_nul)
{
    static struct proto_compare m;

    ck_assert_int_eq(proto_compare_parse("A f /x\0y", 8, &m), -EBADMSG);
    ck_assert_int_eq(proto_compare_parse("\0 f /x", 6, &m), -EBADMSG);
    ck_assert_int_eq(proto_compare_parse("A \0 /x", 6, &m), -EBADMSG);
    ck_assert_int_eq(proto_compare_parse("A f /\\x\0"
                                         "0",
                                         9, &m),
                     -EBADMSG);
    ck_assert_int_eq(proto_compare_parse("end 1\0", 6, &m), -EBADMSG);
}
END_TEST

/* The longest path, all of it escaped, is the longest line. */
START_TEST(test_longest)
{
    static struct proto_compare m, again;
    char line[PROTO_COMPARE_LINE_MAX];
    size_t len;

    m = (struct proto_compare){.kind = PROTO_COMPARE_ENTRY,
                               .change = PROTO_CHANGE_ADDED,
                               .type = 'f',
                               .path_len = PROTO_PATH_MAX - 1};
    for (size_t i = 0; i < m.path_len; i++)
        m.path[i] = i % 256 == 0 ? '/' : '\x01';
    len = proto_compare_format(&m, line);
    ck_assert_uint_lt(len, PROTO_COMPARE_LINE_MAX);
    ck_assert_int_eq(proto_compare_parse(line, len - 1, &again), 0);
    ck_assert_uint_eq(again.path_len, m.path_len);
    ck_assert_int_eq(memcmp(again.path, m.path, m.path_len), 0);
    ck_assert_int_eq(proto_compare_parse(line, len - 2, &again), -EBADMSG);
    /* One byte more, and a name of 256 bytes. */
    line[len - 1] = '/';
    ck_assert_int_eq(proto_compare_parse(line, len, &again), -EBADMSG);
    memset(line + 4, 'x', 257);
    line[4] = '/';
    ck_assert_int_eq(proto_compare_parse(line, 4 + 256, &again), 0);
    ck_assert_int_eq(proto_compare_parse(line, 4 + 257, &again), -EBADMSG);
}
END_TEST

/* ---- answers ------------------------------------------------------------ */

static const char whole[] = "[    0.1] Booting paravirtualized kernel\r\n"
                            "A f /not-yet\r\n"
                            "end 0\r\n"
                            "\r\n"
                            "files 1\r\n"
                            "A f /with a space\r\n"
                            "D d /\\x1b\r\n"
                            "end 2\r\n"
                            "[    0.2] reboot: Power down\r\n"
                            "A f /after\r\n";

START_TEST(test_whole)
{
    uint32_t count = 7;

    ck_assert_int_eq(read_text(whole, &count), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert_uint_eq(reports, 2);
    ck_assert_int_eq(last.change, PROTO_CHANGE_REMOVED);
    ck_assert_str_eq(last.path, "/\x1b");
    ck_assert_int_eq(read_text("files 1\nend 0\n", &count), 0);
    ck_assert_uint_eq(count, 0);
}
END_TEST

/* Cut anywhere before its last line has ended, it is none. */
START_TEST(test_cut)
{
    size_t end = (size_t)(strstr(whole, "end 2\r\n") - whole) + 7;
    uint32_t count = 7;

    for (size_t len = 0; len < end; len++)
        ck_assert_int_eq(read_bytes(whole, len, &count), -EBADMSG);
    ck_assert_uint_eq(count, 7);
    ck_assert_int_eq(read_bytes(whole, end, &count), 0);
}
END_TEST

static const char *const bad_answers[] = {
    "",
    "\n\n\n",
    "files 1\n",
    "files 1\nend 1\n",                 /* none came */
    "files 1\nA f /x\nend 0\n",         /* one more came */
    "files 1\nA f /x\nA f /y\nend 1\n", /* the same */
    "files 1\nA f /x\nEXT4-fs error\nend 1\n",
    "files 1\n\nend 0\n",
    "files 1\nfiles 1\nend 0\n",
    "files 1\nA f /x\r\r\nend 1\n",
    "files 1\nA f /x\nend 1\r\r\n",
    "files 1\nA f /x[ 1.0] kernel\n speaks\nend 1\n",
    "end 0\n",
    "failed 5\n",
};

START_TEST(test_bad_answer)
{
    uint32_t count = 7;

    ck_assert_int_eq(read_text(bad_answers[_i], &count), -EBADMSG);
    ck_assert_uint_eq(count, 7);
}
END_TEST

START_TEST(test_gave_up)
{
    uint32_t count = 7;

    ck_assert_int_eq(read_text("files 1\nA f /x\nfailed 5\n", &count), EIO);
    ck_assert_uint_eq(count, 7);
}
END_TEST

/* A line without end is refused, not stored. */
START_TEST(test_endless_line)
{
    const size_t size = 1u << 20;
    char *text = malloc(size);
    uint32_t count;

    memset(text, 'x', size);
    ck_assert_int_eq(read_bytes(text, size, &count), -EBADMSG);
    memcpy(text, "files 1\nA f /", 13);
    ck_assert_int_eq(read_bytes(text, size, &count), -EBADMSG);
    free(text);
}
END_TEST

/* As many as may be listed, and one more. */
START_TEST(test_many)
{
    const size_t line = 7;
    const size_t room = 8 + line * (PROTO_COMPARE_MAX + 1) + 12;
    char *text = malloc(room);
    uint32_t count = 0;
    size_t len = 8;

    memcpy(text, "files 1\n", 8);
    for (unsigned i = 0; i < PROTO_COMPARE_MAX; i++, len += line)
        memcpy(text + len, "A f /x\n", line);
    memcpy(text + len, "end 262144\n", 11);
    ck_assert_int_eq(read_bytes(text, len + 11, &count), 0);
    ck_assert_uint_eq(count, PROTO_COMPARE_MAX);
    memcpy(text + len, "A f /x\n", line);
    len += line;
    memcpy(text + len, "end 262144\n", 11);
    ck_assert_int_eq(read_bytes(text, len + 11, &count), -EBADMSG);
    free(text);
}
END_TEST

START_TEST(test_unreadable)
{
    uint32_t count;

    ck_assert_int_eq(snapshot_files_read(-1, NULL, NULL, &count), -EBADF);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("snapshot files");
    TCase *tc = tcase_create("snapshot files");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_loop_test(tc, test_good_line, 0, COUNT(good_lines));
    tcase_add_loop_test(tc, test_bad_line, 0, COUNT(bad_lines));
    tcase_add_test(tc, test_nul);
    tcase_add_test(tc, test_longest);
    tcase_add_test(tc, test_whole);
    tcase_add_test(tc, test_cut);
    tcase_add_loop_test(tc, test_bad_answer, 0, COUNT(bad_answers));
    tcase_add_test(tc, test_gave_up);
    tcase_add_test(tc, test_endless_line);
    tcase_add_test(tc, test_many);
    tcase_add_test(tc, test_unreadable);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
