/* SPDX-License-Identifier: Apache-2.0 */
/* What a manifest says of all that ran before the freeze. */
#include "trial/snapshot_describe.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trial/snapshot_internal.h"

static struct snapshot parent;
static struct machine machine;
static struct snapshot_manifest m;

static void setup(void)
{
    static const char *const warmup[] = {"first", "second", NULL};

    snapshot_manifest_init(&parent.manifest);
    snapshot_manifest_init(&m);
    parent.manifest.has_warmup = true;
    parent.manifest.warmup_waiting = true;
    ck_assert_int_eq(
        snapshot_manifest_set_list(&parent.manifest.warmup, warmup), 0);
    ck_assert_int_eq(snapshot_manifest_set(&parent.manifest.warmup_ready, "up"),
                     0);
    memset(&machine, 0, sizeof(machine));
}

static void teardown(void)
{
    snapshot_manifest_fini(&m);
    snapshot_manifest_fini(&parent.manifest);
}

static void must_be(const char *const *commands, const char *ready,
                    bool waiting)
{
    size_t i = 0;

    ck_assert(m.has_warmup);
    for (; commands[i]; i++)
        ck_assert_str_eq(m.warmup[i], commands[i]);
    ck_assert_ptr_null(m.warmup[i]);
    ck_assert(m.warmup_waiting == waiting);
    if (ready)
        ck_assert_str_eq(m.warmup_ready, ready);
    else
        ck_assert_ptr_null(m.warmup_ready);
}

START_TEST(nothing_ran)
{
    const struct snapshot_history none = {.commands = NULL};

    ck_assert_int_eq(snapshot_describe_history(&machine, &none, &m), 0);
    ck_assert(!m.has_warmup && !m.warmup && !m.warmup_waiting);
}
END_TEST

START_TEST(booted)
{
    static const char *const own[] = {"one", "two", NULL};
    const struct snapshot_history history = {own, "go", true};

    ck_assert_int_eq(snapshot_describe_history(&machine, &history, &m), 0);
    must_be(own, "go", true);
}
END_TEST

/* A machine that came from a snapshot, and ran nothing, or something. */
START_TEST(restored)
{
    static const char *const own[] = {"third", NULL};
    static const char *const before[] = {"first", "second", NULL};
    static const char *const all[] = {"first", "second", "third", NULL};
    const struct snapshot_history none = {.commands = NULL};
    const struct snapshot_history more = {.commands = own};
    const struct snapshot_history waits = {own, "now", true};

    machine.snapshot = &parent;
    ck_assert_int_eq(snapshot_describe_history(&machine, &none, &m), 0);
    must_be(before, "up", true);
    ck_assert_int_eq(snapshot_describe_history(&machine, &more, &m), 0);
    must_be(all, "up", true);
    parent.manifest.warmup_waiting = false;
    ck_assert_int_eq(snapshot_describe_history(&machine, &more, &m), 0);
    must_be(all, "up", false);
    ck_assert_int_eq(snapshot_describe_history(&machine, &waits, &m), 0);
    must_be(all, "now", true);
}
END_TEST

/* As many as a manifest holds, and one more: what is cut is said. */
START_TEST(too_many)
{
    const char *own[SNAPSHOT_STRINGS_MAX + 1] = {NULL};
    const struct snapshot_history history = {.commands = own};

    for (size_t i = 0; i < SNAPSHOT_STRINGS_MAX - 2; i++)
        own[i] = "x";
    machine.snapshot = &parent;
    ck_assert_int_eq(snapshot_describe_history(&machine, &history, &m), 0);
    ck_assert_str_eq(m.warmup[0], "first");
    ck_assert_str_eq(m.warmup[SNAPSHOT_STRINGS_MAX - 2], "x");
    ck_assert_ptr_nonnull(strstr(m.warmup[SNAPSHOT_STRINGS_MAX - 1], "more"));
    ck_assert_ptr_null(m.warmup[SNAPSHOT_STRINGS_MAX]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot_describe");
    TCase *tc = tcase_create("history");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, nothing_ran);
    tcase_add_test(tc, booted);
    tcase_add_test(tc, restored);
    tcase_add_test(tc, too_many);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
