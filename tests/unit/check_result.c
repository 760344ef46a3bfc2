/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The result's line: valid JSON on one line, its keys in the contract's order,
 * whatever the trial was and whatever bytes the guest and the user put into it.
 */
#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/json_memory.h"
#include "trial/json_text.h"
#include "trial/result.h"

static struct trial_result result;
static struct trial_spec spec;
static struct machine_spec machine;
static json_t *root;

static void set_up(void)
{
    memset(&result, 0, sizeof(result));
    memset(&spec, 0, sizeof(spec));
    machine_spec_init(&machine);
    root = NULL;
}

static void tear_down(void)
{
    json_decref(root);
    machine_spec_fini(&machine);
}

/* Writes and reads the line; the caller looks at root. */
static void write_line(void)
{
    json_error_t error;
    char *line;

    result.outcome = outcome_decide(&result.facts);
    line = result_to_json(&result, &spec, &machine, NULL);
    ck_assert_ptr_nonnull(line);
    ck_assert_ptr_null(strchr(line, '\n'));
    for (const char *p = line; *p; p++)
        ck_assert(*p != '\x1b' && *p != '\x7f');
    json_decref(root);
    root = json_loads(line, JSON_REJECT_DUPLICATES, &error);
    ck_assert_msg(root != NULL, "%s: %s", error.text, line);
    free(line);
}

static const char *word(const char *key)
{
    return json_string_value(json_object_get(root, key));
}

START_TEST(test_keys)
{
    static const char *const KEYS[] = {
        "schema",     "trial",      "attempt",        "outcome",
        "outcome_by", "cause",      "error",          "exit_code",
        "signal",     "limits_hit", "truncated",      "stdout",
        "stderr",     "files",      "started_at",     "time",
        "peak",       "limits",     "command",        "labels",
        "baseline",   "host",       "jail",           "checked",
        "unsealed",   "reset",      "monitor_reused", "proof",
        "seed",       "clock",      "pinned",         "dirty",
        "brokers",    "violations", "machine",        "undelivered",
    };
    size_t i = 0;
    const char *key;
    json_t *value;

    write_line();
    json_object_foreach(root, key, value)
    {
        ck_assert_uint_lt(i, sizeof(KEYS) / sizeof(KEYS[0]));
        ck_assert_str_eq(key, KEYS[i++]);
    }
    ck_assert_uint_eq(i, sizeof(KEYS) / sizeof(KEYS[0]));
    ck_assert_str_eq(word("schema"), "microsbx.trial/1");
    ck_assert_str_eq(word("outcome"), "infra_never_ran");
    ck_assert_str_eq(json_string_value(json_object_get(
                         json_object_get(root, "jail"), "level")),
                     "none");
}
END_TEST

START_TEST(test_exit_code_or_signal)
{
    result.facts.guest_ran = result.facts.workload_may_run = true;
    result.facts.has_status = true;
    result.facts.exit_code = 3;
    write_line();
    ck_assert_str_eq(word("outcome"), "fail");
    ck_assert_str_eq(word("outcome_by"), "guest");
    ck_assert_int_eq(json_integer_value(json_object_get(root, "exit_code")), 3);
    ck_assert(json_is_null(json_object_get(root, "signal")));
    ck_assert(json_is_null(json_object_get(root, "error")));
    result.facts.exit_code = 0;
    result.facts.signal = 9;
    write_line();
    ck_assert_str_eq(word("outcome"), "signal");
    ck_assert(json_is_null(json_object_get(root, "exit_code")));
    ck_assert_int_eq(json_integer_value(json_object_get(root, "signal")), 9);
    result.facts.has_status = false;
    write_line();
    ck_assert(json_is_null(json_object_get(root, "exit_code")));
    ck_assert(json_is_null(json_object_get(root, "signal")));
}
END_TEST

START_TEST(test_limits)
{
    json_t *list;

    result.hit_timeout = result.hit_cpu = result.hit_memory = true;
    result.hit_pids = result.hit_disk = result.hit_output = true;
    result.out.dropped = 1;
    write_line();
    list = json_object_get(root, "limits_hit");
    ck_assert_uint_eq(json_array_size(list), 6);
    ck_assert_str_eq(json_string_value(json_array_get(list, 0)), "timeout");
    list = json_object_get(root, "truncated");
    ck_assert(json_is_true(json_object_get(list, "stdout")));
    ck_assert(json_is_false(json_object_get(list, "stderr")));
}
END_TEST

/* Terminal codes, quotes and bytes that are no UTF-8, wherever they fit. */
START_TEST(test_hostile_text)
{
    static const char HOSTILE[] = "\x1b[2J\",\"outcome\":\"ok\"}\n\xff\xc0";
    static const char *const ARGV[] = {HOSTILE, "", NULL};
    const struct trial_file files[] = {{false, false, HOSTILE, HOSTILE},
                                       {true, false, HOSTILE, HOSTILE}};

    spec.argv = ARGV;
    spec.files = files;
    spec.file_count = 2;
    spec.out.file = HOSTILE;
    result.files[1].status = TRIAL_FILE_ERROR;
    result.files[1].error = 4000; /* no errno: the guest's word */
    memcpy(result.kernel_release, HOSTILE, sizeof(HOSTILE));
    failure_set(&result.failure, "code", "\xff", HOSTILE, "%s", HOSTILE);
    write_line();
    ck_assert_str_eq(word("outcome"), "infra_never_ran");
    ck_assert_uint_eq(json_array_size(json_object_get(root, "command")), 2);
    ck_assert_uint_eq(json_array_size(json_object_get(root, "files")), 2);
    ck_assert_str_eq(
        json_string_value(json_array_get(json_object_get(root, "command"), 1)),
        "");
}
END_TEST

START_TEST(test_files)
{
    const struct trial_file files[] = {{false, false, "a", "/a"},
                                       {true, false, "/b", "b"},
                                       {true, true, "/c", "c"}};
    json_t *list;

    spec.files = files;
    spec.file_count = 3;
    result.files[0].status = TRIAL_FILE_OK;
    result.files[0].bytes = 5;
    result.files[1].status = TRIAL_FILE_ERROR;
    result.files[1].error = ENOENT;
    write_line();
    list = json_object_get(root, "files");
    ck_assert_str_eq(
        json_string_value(json_object_get(json_array_get(list, 0), "status")),
        "ok");
    ck_assert_str_eq(
        json_string_value(json_object_get(json_array_get(list, 1), "errno")),
        "ENOENT");
    ck_assert_str_eq(
        json_string_value(json_object_get(json_array_get(list, 2), "status")),
        "not_fetched");
    ck_assert(
        json_is_false(json_object_get(json_array_get(list, 1), "optional")));
    ck_assert(
        json_is_true(json_object_get(json_array_get(list, 2), "optional")));
    ck_assert_uint_eq(json_array_size(json_object_get(root, "undelivered")), 0);
    result.missing = 2;
    result.events_error = ENOSPC;
    write_line();
    list = json_object_get(root, "undelivered");
    ck_assert_str_eq(json_string_value(json_array_get(list, 0)), "files");
    ck_assert_str_eq(json_string_value(json_array_get(list, 1)), "events");
}
END_TEST

/* ---- memory that is short ---- */

static void fill_all(void)
{
    static const struct trial_file files[] = {{false, false, "a", "/a"},
                                              {true, true, "\xff\n\"", "b"}};
    static const char *const argv[] = {"sh", "-c", "x=\xff\n", NULL};

    spec.files = files;
    spec.file_count = 2;
    spec.argv = argv;
    result.files[1].error = ENOENT;
    result.missing = 1;
    result.hit_disk = result.hit_timeout = true;
    result.has_exit = result.has_stats = true;
    result.stats.violations = 3;
    failure_set(&result.failure, "code", "\xff", "do this", "why \xc3\xa4");
}

static char *write_result(const void *object)
{
    (void)object;
    return result_to_json(&result, &spec, &machine, NULL);
}

/* Whichever allocation fails, there is the whole line or none. */
START_TEST(test_memory)
{
    const char *said;

    fill_all();
    said = json_memory_check(write_result, NULL);
    ck_assert_msg(!said, "%s", said);
}
END_TEST

/* Text that is none of UTF-8 is shown whole, whatever its length. */
static const struct {
    const char *text, *shown;
} texts[] = {
    {"plain", "plain"},
    {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
     "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
    {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf",
     "\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"},
    {"a\xff", "a\\xff"},
    {"\xc0\x80", "\\xc0\\x80"},
    {"\xc3", "\\xc3"},
    {"\xe0\x9f\xbf", "\\xe0\\x9f\\xbf"},
    {"\xed\xa0\x80", "\\xed\\xa0\\x80"},
    {"\xf0\x8f\xbf\xbf", "\\xf0\\x8f\\xbf\\xbf"},
    {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},
    {"\xf5\x80\x80\x80", "\\xf5\\x80\\x80\\x80"},
};

START_TEST(test_text)
{
    json_t *value = json_text(texts[_i].text);

    ck_assert_str_eq(json_string_value(value), texts[_i].shown);
    json_decref(value);
}
END_TEST

START_TEST(test_long_text)
{
    char *text = malloc(100002);
    json_t *value;

    memset(text, 'x', 100000);
    strcpy(text + 100000, "\xff");
    value = json_text(text);
    ck_assert_uint_eq(json_string_length(value), 100004);
    json_decref(value);
    free(text);
}
END_TEST

/* One of the times of the result; below 0: it is null. */
static bool is_ms(const char *name, double ms)
{
    const json_t *got = json_object_get(json_object_get(root, "time"), name);
    double off = json_real_value(got) - ms;

    return ms < 0 ? json_is_null(got) : json_is_real(got) && off * off < 1e-6;
}

/* Without an agent: the same keys, and null where nobody could know. */
START_TEST(test_no_agent)
{
    spec.no_agent = true;
    spec.pids_limit = 512;
    result.facts.guest_ran = result.facts.workload_may_run = true;
    result.facts.has_status = true;
    result.facts.cause = "power_off";
    result.exec_ns = 1;
    result.exec_end_ns = result.over_ns = 2000001;
    result.end_ns = 5000001;
    write_line();
    ck_assert_str_eq(word("outcome"), "ok");
    ck_assert_str_eq(word("cause"), "power_off");
    ck_assert(json_is_null(json_object_get(root, "command")));
    ck_assert(json_is_null(json_object_get(root, "stderr")));
    ck_assert(json_is_object(json_object_get(root, "stdout")));
    ck_assert(
        json_is_null(json_object_get(json_object_get(root, "limits"), "pids")));
    ck_assert(json_is_null(
        json_object_get(json_object_get(root, "time"), "ready_ms")));
    ck_assert(is_ms("exec_ms", 2.0));
    ck_assert(is_ms("teardown_ms", 3.0));
    ck_assert(is_ms("get_ms", -1));
}
END_TEST

/* Each number is the time from one thing to another, or null. */
START_TEST(test_times)
{
    static const struct trial_file files[] = {
        {.src = "a", .dst = "b"}, {.get = true, .src = "c", .dst = "d"}};

    spec.files = files;
    spec.file_count = 2;
    result.started_ns = 1000000;
    result.running_ns = 3000000;
    result.ready_ns = 6000000;
    result.exec_ns = 10000000;
    result.exec_end_ns = 15000000;
    result.over_ns = 21000000;
    result.end_ns = 28000000;
    write_line();
    ck_assert(is_ms("first_run_ms", 2.0) && is_ms("ready_ms", 5.0));
    ck_assert(is_ms("put_ms", 4.0) && is_ms("exec_ms", 5.0));
    ck_assert(is_ms("get_ms", 6.0) && is_ms("teardown_ms", 7.0));
    ck_assert(is_ms("restore_ms", -1) && is_ms("guest_cpu_ms", -1));
    /* Given up: no file was fetched. */
    result.exec_end_ns = result.over_ns;
    write_line();
    ck_assert(is_ms("exec_ms", 11.0) && is_ms("get_ms", -1));
    /* Before it came to run anything: no time of it is known. */
    memset(&result, 0, sizeof(result));
    write_line();
    ck_assert(is_ms("exec_ms", -1) && is_ms("teardown_ms", -1));
    ck_assert(json_is_null(
        json_object_get(json_object_get(root, "stdout"), "sha256")));
}
END_TEST

/* Names of variables may appear, their values never. */
START_TEST(test_no_secrets)
{
    static const char *const ENV[] = {"TOKEN=hunter2secret", NULL};
    char *line;

    spec.env = ENV;
    line = result_to_json(&result, &spec, &machine, NULL);
    ck_assert_ptr_null(strstr(line, "hunter2secret"));
    free(line);
}
END_TEST

START_TEST(test_extremes)
{
    memset(&result.stats, 0xff, sizeof(result.stats));
    memset(&result.exit, 0xff, sizeof(result.exit));
    result.has_stats = result.has_exit = true;
    result.stats.disk_count = VM_DISKS_MAX;
    result.out.bytes = UINT64_MAX;
    result.exec_end_ns = 5;
    result.end_ns = 1; /* a clock that went back */
    write_line();
    ck_assert(json_is_null(
        json_object_get(json_object_get(root, "time"), "teardown_ms")));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("result");
    TCase *t = tcase_create("result");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, test_keys);
    tcase_add_test(t, test_exit_code_or_signal);
    tcase_add_test(t, test_limits);
    tcase_add_test(t, test_hostile_text);
    tcase_add_test(t, test_files);
    tcase_add_test(t, test_no_agent);
    tcase_add_test(t, test_times);
    tcase_add_test(t, test_no_secrets);
    tcase_add_test(t, test_extremes);
    tcase_add_test(t, test_memory);
    tcase_add_loop_test(t, test_text, 0,
                        (int)(sizeof(texts) / sizeof(texts[0])));
    tcase_add_test(t, test_long_text);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
