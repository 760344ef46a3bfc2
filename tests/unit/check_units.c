/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, durations and numbers as people write them, and as nobody should. */
#include <check.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"

struct row {
    const char *text;
    int ret;
    uint64_t value;
};

static const struct row sizes[] = {
    {"0", 0, 0},
    {"1K", 0, 1024},
    {"64Ki", 0, 65536},
    {"256M", 0, 256u << 20},
    {"256Mi", 0, 256u << 20},
    {"1G", 0, 1u << 30},
    {"3Gi", 0, 3221225472u},
    {"17179869183G", 0, 17179869183u * (1ull << 30)},
    {"17179869184G", -ERANGE, 0},
    {"18446744073709551616K", -ERANGE, 0},
    {"99999999999999999999999999", -ERANGE, 0},
    {"512", -ENOTUNIQ, 0},
    {"", -EINVAL, 0},
    {"M", -EINVAL, 0},
    {"-1M", -EINVAL, 0},
    {"+1M", -EINVAL, 0},
    {" 1M", -EINVAL, 0},
    {"1M ", -EINVAL, 0},
    {"1 M", -EINVAL, 0},
    {"1MB", -EINVAL, 0},
    {"1m", 0, 1u << 20},
    {"1g", 0, 1u << 30},
    {"1T", 0, 1ull << 40},
    {"2ti", 0, 2ull << 40},
    {"1.5G", 0, 3u << 29},
    {"0.5k", 0, 512},
    {"0.0001K", -ERANGE, 0},
    {"1.0000000001G", -EINVAL, 0},
    {"1.999999999K", 0, 2047},
    {"16777215T", 0, 16777215ull << 40},
    {"16777216T", -ERANGE, 0},
    {"16777215.9T", 0, 18446743963758388838ull},
    {"0.123456789T", 0, 135742175033ull},
    {"0.0K", 0, 0},
    {"0.0", 0, 0},
    {"1.5", -ENOTUNIQ, 0},
    {"1.G", -EINVAL, 0},
    {".5G", -EINVAL, 0},
    {"1.5.5G", -EINVAL, 0},
    {"1.-5G", -EINVAL, 0},
    {"1GB", -EINVAL, 0},
    {"0x10M", -EINVAL, 0},
    {"1s", -EINVAL, 0},
};

static const struct row durations[] = {
    {"0", 0, 0},
    {"250ms", 0, 250},
    {"30s", 0, 30000},
    {"10m", 0, 600000},
    {"24h", 0, 86400000},
    {"18446744073709551615ms", 0, UINT64_MAX},
    {"18446744073709551616ms", -ERANGE, 0},
    {"18446744073709552s", -ERANGE, 0},
    {"30", -ENOTUNIQ, 0},
    {"", -EINVAL, 0},
    {"s", -EINVAL, 0},
    {"-5s", -EINVAL, 0},
    {"5 s", -EINVAL, 0},
    {"5sec", -EINVAL, 0},
    {"1h30m", -EINVAL, 0},
    {"2d", 0, 172800000},
    {"1.5h", 0, 5400000},
    {"0.5s", 0, 500},
    {"0.5ms", -ERANGE, 0},
    {"5D", -EINVAL, 0},
    {"5M", -EINVAL, 0},
};

static const struct row numbers[] = {
    /* from 1 to 64 */
    {"1", 0, 1},          {"64", 0, 64},
    {"007", 0, 7},        {"0", -ERANGE, 0},
    {"65", -ERANGE, 0},   {"18446744073709551617", -ERANGE, 0},
    {"", -EINVAL, 0},     {"-1", -EINVAL, 0},
    {"+1", -EINVAL, 0},   {" 1", -EINVAL, 0},
    {"1 ", -EINVAL, 0},   {"1x", -EINVAL, 0},
    {"four", -EINVAL, 0},
};

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))
#define UNTOUCHED 0x5555u

static void check_row(const struct row *row, int ret, uint64_t value)
{
    ck_assert_msg(ret == row->ret, "'%s' gives %d, not %d", row->text, ret,
                  row->ret);
    ck_assert_msg(value == (ret == 0 ? row->value : UNTOUCHED), "'%s' is %llu",
                  row->text, (unsigned long long)value);
}

START_TEST(test_size)
{
    uint64_t value = UNTOUCHED;
    int ret = units_parse_size(sizes[_i].text, &value);

    check_row(&sizes[_i], ret, value);
}
END_TEST

START_TEST(test_duration)
{
    uint64_t value = UNTOUCHED;
    int ret = units_parse_duration(durations[_i].text, &value);

    check_row(&durations[_i], ret, value);
}
END_TEST

/* What is refused is often nearly right. */
static const struct {
    const char *text, *size, *duration;
} suggestions[] = {
    {"512", "512M", "512s"}, {"512MB", "512M", "512m"},
    {"1.5 G", "1.5G", NULL}, {"2gb", "2G", NULL},
    {"+5T", "5T", NULL},     {"10min", "10M", "10m"},
    {"5sec", NULL, "5s"},    {"5M", "5M", "5m"},
    {"3days", NULL, "3d"},   {"20msec", "20M", "20ms"},
    {"much", NULL, NULL},    {"", NULL, NULL},
    {"1e9", NULL, NULL},
};

START_TEST(test_suggestion)
{
    const char *size = suggestions[_i].size;
    const char *duration = suggestions[_i].duration;
    char buf[16] = "";

    ck_assert(units_suggest_size(suggestions[_i].text, buf, sizeof(buf)) ==
              (size != NULL));
    if (size)
        ck_assert_str_eq(buf, size);
    ck_assert(units_suggest_duration(suggestions[_i].text, buf, sizeof(buf)) ==
              (duration != NULL));
    if (duration)
        ck_assert_str_eq(buf, duration);
    ck_assert(!units_suggest_size("123456789012345", buf, sizeof(buf)));
}
END_TEST

START_TEST(test_number)
{
    uint64_t value = UNTOUCHED;
    int ret = units_parse_number(numbers[_i].text, 1, 64, &value);

    check_row(&numbers[_i], ret, value);
}
END_TEST

START_TEST(test_format)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } rows[] = {
        {0, "0 B"},
        {12, "12 B"},
        {65536, "64 KiB"},
        {(uint64_t)3 << 29, "1.5 GiB"},
        {256u << 20, "256 MiB"},
    };
    char buf[32];

    for (int i = 0; i < COUNT(rows); i++) {
        units_format_size(rows[i].bytes, buf, sizeof(buf));
        ck_assert_str_eq(buf, rows[i].text);
    }
    units_format_size(UINT64_MAX, buf, 4); /* cut, and ended */
    ck_assert_uint_lt(strlen(buf), 4);
}
END_TEST

START_TEST(test_format_duration)
{
    static const struct {
        uint64_t ms;
        const char *text;
    } rows[] = {
        {0, "0 s"},    {1, "1 ms"},       {500, "500 ms"},
        {1000, "1 s"}, {1500, "1500 ms"}, {180000, "180 s"},
    };
    char buf[32];

    for (int i = 0; i < COUNT(rows); i++) {
        units_format_duration(rows[i].ms, buf, sizeof(buf));
        ck_assert_str_eq(buf, rows[i].text);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("units");
    TCase *t = tcase_create("units");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_loop_test(t, test_size, 0, COUNT(sizes));
    tcase_add_loop_test(t, test_duration, 0, COUNT(durations));
    tcase_add_loop_test(t, test_suggestion, 0, COUNT(suggestions));
    tcase_add_loop_test(t, test_number, 0, COUNT(numbers));
    tcase_add_test(t, test_format);
    tcase_add_test(t, test_format_duration);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
