/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines, right and wrong; and that every verb's own table is sound. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/machine_options.h"
#include "cli/options.h"
#include "cli/run_options.h"

#define WORDS_MAX 12

static const struct option_spec SPECS[] = {
    {"memory", 'm', "SIZE", false, "Memory."},
    {"disk", 0, "FILE", true, "A disk."},
    {"timeout", 0, "DURATION", false, "Time."},
    {"cpus", 0, "N", false, "CPUs."},
    {"tty", 't', NULL, false, "A terminal."},
    {"interactive", 'i', NULL, false, "Input."},
    {"json", 0, "FILE|-", false, "A result."},
    {"name", 0, "NAME", false, "A name."},
    {NULL, 0, NULL, false, NULL},
};
static const struct option_group GROUP = {"Options", SPECS};
static const struct verb COMMAND_VERB = {
    .name = "run", .groups = {&GROUP, NULL}, .takes_command = true};
static const struct verb PLAIN_VERB = {.name = "ls", .groups = {&GROUP, NULL}};

static struct options options;
static struct failure failure;

/* Parses words separated by spaces behind the verb's name. */
static int parse(const struct verb *verb, const char *line)
{
    static char text[512];
    static char *argv[WORDS_MAX + 1];
    int argc = 1;
    char *save = NULL;

    snprintf(text, sizeof(text), "%s", line);
    argv[0] = text + sizeof(text) - 1;
    for (char *w = strtok_r(text, " ", &save); w && argc < WORDS_MAX;
         w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    argv[argc] = NULL;
    memset(&failure, 0, sizeof(failure));
    return options_parse(verb, argc, argv, &options, &failure);
}

static void check_get(const char *name, const char *value)
{
    ck_assert_pstr_eq(options_get(&options, name), value);
}

START_TEST(test_forms)
{
    ck_assert_int_eq(parse(&COMMAND_VERB, "--memory 1G --disk a --disk=b,ro "
                                          "-it -- ls -l"),
                     0);
    check_get("memory", "1G");
    ck_assert_str_eq(options_get_nth(&options, "disk", 0), "a");
    ck_assert_str_eq(options_get_nth(&options, "disk", 1), "b,ro");
    ck_assert_ptr_null(options_get_nth(&options, "disk", 2));
    check_get("tty", "");
    ck_assert(options_has(&options, "interactive"));
    ck_assert(!options_has(&options, "cpus"));
    ck_assert_int_eq(options.positional_count, 2);
    ck_assert_str_eq(options.positional[0], "ls");
    ck_assert_str_eq(options.positional[1], "-l");
    ck_assert_int_eq(parse(&COMMAND_VERB, "-m64M -t"), 0);
    check_get("memory", "64M");
    ck_assert_int_eq(parse(&COMMAND_VERB, "-tm 64M"), 0);
    check_get("memory", "64M");
    ck_assert_int_eq(parse(&COMMAND_VERB, "--memory="), 0);
    check_get("memory", "");
}
END_TEST

/* The image may be closed, and what it gave still holds. */
START_TEST(test_image_defaults)
{
    static struct run_options run;
    char path[] = "PATH=/bin", shell[] = "SHELL=/bin/sh";
    char user[] = "sandbox", workdir[] = "/home/sandbox";
    char *env[] = {path, shell, NULL};
    const struct image image = {.env = env, .user = user, .workdir = workdir};

    run_options_init(&run);
    ck_assert_int_eq(parse(&VERB_RUN, "-e SHELL=mine -w / -- true"), 0);
    ck_assert_int_eq(run_options_read(&options, &run, &failure), 0);
    ck_assert_int_eq(run_options_add_image(&run, &image, &failure), 0);
    memset(path, 'x', sizeof(path) - 1);
    memset(user, 'x', sizeof(user) - 1);
    ck_assert_uint_eq(run.env_count, 2);
    ck_assert_str_eq(run.env[0], "SHELL=mine");
    ck_assert_str_eq(run.env[1], "PATH=/bin");
    ck_assert_ptr_null(run.env[2]);
    ck_assert_str_eq(run.spec.user, "sandbox");
    ck_assert_str_eq(run.spec.workdir, "/");
    run_options_fini(&run);
}
END_TEST

/* More variables than there is room for are refused, not written. */
START_TEST(test_image_env_max)
{
    static struct run_options run;
    static char names[RUN_ENV_MAX + 1][16];
    static char *env[RUN_ENV_MAX + 2];
    const struct image image = {.env = env, .user = names[0]};

    for (unsigned i = 0; i <= RUN_ENV_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "N%u=1", i);
        env[i] = names[i];
    }
    run_options_init(&run);
    ck_assert_int_eq(parse(&VERB_RUN, "-- true"), 0);
    ck_assert_int_eq(run_options_read(&options, &run, &failure), 0);
    ck_assert_int_eq(run_options_add_image(&run, &image, &failure), -EINVAL);
    ck_assert_ptr_nonnull(strstr(failure.message, "one variable too many"));
    run_options_fini(&run);

    env[RUN_ENV_MAX] = NULL;
    run_options_init(&run);
    ck_assert_int_eq(run_options_read(&options, &run, &failure), 0);
    ck_assert_int_eq(run_options_add_image(&run, &image, &failure), 0);
    ck_assert_str_eq(run.env[RUN_ENV_MAX - 1], names[RUN_ENV_MAX - 1]);
    run_options_fini(&run);
}
END_TEST

/* A command's own options are its own. */
START_TEST(test_command_ends_options)
{
    ck_assert_int_eq(parse(&COMMAND_VERB, "-t ls --no-such -m"), 0);
    ck_assert_int_eq(options.positional_count, 3);
    ck_assert_str_eq(options.positional[1], "--no-such");
    ck_assert_int_eq(parse(&COMMAND_VERB, "- x"), 0);
    ck_assert_str_eq(options.positional[0], "-");
    ck_assert_int_eq(parse(&PLAIN_VERB, "a -t b"), 0);
    ck_assert_int_eq(options.positional_count, 2);
    ck_assert_str_eq(options.positional[1], "b");
    ck_assert_int_eq(parse(&PLAIN_VERB, "a -- -t"), 0);
    ck_assert_str_eq(options.positional[1], "-t");
    ck_assert(!options_has(&options, "tty"));
}
END_TEST

START_TEST(test_help)
{
    ck_assert_int_eq(parse(&COMMAND_VERB, "--help --no-such"), 0);
    ck_assert(options.help);
    ck_assert_int_eq(parse(&COMMAND_VERB, "-h"), 0);
    ck_assert(options.help);
    ck_assert_int_eq(parse(&COMMAND_VERB, "ls --help"), 0);
    ck_assert(!options.help);
}
END_TEST

static const struct {
    const char *line, *object, *message, *remedy;
} refused[] = {
    {"--memroy 1G", "--memroy", "unknown option --memroy", "--memory"},
    {"--memroy=1G", "--memroy=1G", "unknown option", "--memory"},
    {"--zebra", "--zebra", "unknown option --zebra", "--help"},
    {"-x", "-x", "unknown option -x", "--help"},
    {"-tx", "-tx", "unknown option -tx", "--help"},
    {"--memory", "memory", "needs a value: SIZE", ""},
    {"-m", "memory", "needs a value: SIZE", ""},
    {"--tty=yes", "tty", "takes no value", ""},
    {"--memory 1G -m 2G", "memory", "was given twice", "once"},
    {"-tt", "tty", "was given twice", "once"},
    {"--json=", "json", "option --json: the value is empty", "leave it out"},
    {"--name=", "name", "option --name: the value is empty", "leave it out"},
};

START_TEST(test_refused)
{
    ck_assert_int_eq(parse(&COMMAND_VERB, refused[_i].line), -EINVAL);
    ck_assert_str_eq(failure.code, "usage");
    ck_assert_str_eq(failure.object, refused[_i].object);
    ck_assert_ptr_nonnull(strstr(failure.message, refused[_i].message));
    ck_assert_ptr_nonnull(strstr(failure.remedy, refused[_i].remedy));
}
END_TEST

static const struct {
    const char *text, *src, *dst;
} pairs[] = {
    {"a:b", "a", "b"},
    {"a:b:c", "a", "b:c"},
    {"a\\:b:/tmp/", "a:b", "/tmp/"},
    {"a\\:b\\:c:d", "a:b:c", "d"},
    {"a:b\\:c", "a", "b:c"},
    {"\\::\\:", ":", ":"},
    {"a\\\\:b", "a\\", "b"},
    {"a\\\\\\:b:c", "a\\:b", "c"},
    /* Elsewhere nothing special, as it always was. */
    {"a\\b:c\\d", "a\\b", "c\\d"},
    {"a\\\\b:c\\\\", "a\\\\b", "c\\\\"},
    {"", NULL, NULL},
    {"a", NULL, NULL},
    {":", NULL, NULL},
    {"a:", NULL, NULL},
    {":b", NULL, NULL},
    {"a\\:b", NULL, NULL},
    {"a\\", NULL, NULL},
};

START_TEST(test_pairs)
{
    char text[64];
    const char *dst;

    strcpy(text, pairs[_i].text);
    dst = options_cut_pair(text);
    ck_assert_pstr_eq(dst, pairs[_i].dst);
    if (pairs[_i].src)
        ck_assert_str_eq(text, pairs[_i].src);
}
END_TEST

START_TEST(test_too_many)
{
    static char *argv[OPTION_VALUES_MAX + 4];
    static char name[] = "run", disk[] = "--disk=x";
    int argc = 0;

    argv[argc++] = name;
    for (unsigned i = 0; i < OPTION_VALUES_MAX; i++)
        argv[argc++] = disk;
    ck_assert_int_eq(
        options_parse(&COMMAND_VERB, argc, argv, &options, &failure), 0);
    argv[argc++] = disk;
    ck_assert_int_eq(
        options_parse(&COMMAND_VERB, argc, argv, &options, &failure), -EINVAL);
}
END_TEST

START_TEST(test_typed_values)
{
    unsigned long long value = 7;

    ck_assert_int_eq(parse(&COMMAND_VERB, "-t"), 0);
    ck_assert_int_eq(options_get_size(&options, "memory", &value, &failure), 0);
    ck_assert_uint_eq(value, 7);
    ck_assert_int_eq(parse(&COMMAND_VERB, "-m 1M --timeout 2s --cpus 4"), 0);
    ck_assert_int_eq(options_get_size(&options, "memory", &value, &failure), 0);
    ck_assert_uint_eq(value, 1 << 20);
    ck_assert_int_eq(
        options_get_duration_ms(&options, "timeout", &value, &failure), 0);
    ck_assert_uint_eq(value, 2000);
    ck_assert_int_eq(
        options_get_number(&options, "cpus", 1, 8, &value, &failure), 0);
    ck_assert_uint_eq(value, 4);
}
END_TEST

START_TEST(test_typed_refused)
{
    static const char *const LINES[] = {
        "-m 256 --timeout 30 --cpus 0", "-m big --timeout soon --cpus many",
        "-m 99999999999G --timeout 99999999999999999999h --cpus 9"};
    unsigned long long value = 7;

    ck_assert_int_eq(parse(&COMMAND_VERB, LINES[_i]), 0);
    ck_assert_int_eq(options_get_size(&options, "memory", &value, &failure),
                     -EINVAL);
    ck_assert_ptr_nonnull(strstr(failure.message, "option --memory: '"));
    ck_assert_ptr_nonnull(strstr(failure.remedy, "256M"));
    ck_assert_int_eq(
        options_get_duration_ms(&options, "timeout", &value, &failure),
        -EINVAL);
    ck_assert_ptr_nonnull(strstr(failure.message, "option --timeout: '"));
    ck_assert_ptr_nonnull(strstr(failure.remedy, "30s"));
    ck_assert_int_eq(
        options_get_number(&options, "cpus", 1, 8, &value, &failure), -EINVAL);
    ck_assert_ptr_nonnull(strstr(failure.remedy, "from 1 to 8"));
    ck_assert_uint_eq(value, 7);
}
END_TEST

/* Longer than any clock of ours: it would be over at once. */
START_TEST(test_longest_duration)
{
    unsigned long long value = 7;

    ck_assert_int_eq(parse(&PLAIN_VERB, "--timeout 36500d"), 0);
    ck_assert_int_eq(
        options_get_duration_ms(&options, "timeout", &value, &failure), 0);
    ck_assert_uint_eq(value, 3153600000000);
    ck_assert_int_eq(parse(&PLAIN_VERB, "--timeout 3153600000001ms"), 0);
    ck_assert_int_eq(
        options_get_duration_ms(&options, "timeout", &value, &failure),
        -EINVAL);
    ck_assert_ptr_nonnull(strstr(failure.message, "out of range"));
    ck_assert_uint_eq(value, 3153600000000);
}
END_TEST

/* No name or letter twice in what a verb puts together; all have help. */
START_TEST(test_tables)
{
    const struct option_spec *specs[128];
    const struct option_group *groups[] = {&MACHINE_OPTIONS, &TRIAL_OPTIONS};
    size_t count = 0;

    for (size_t g = 0; g < 2; g++) {
        for (const struct option_spec *s = groups[g]->specs; s->name; s++)
            specs[count++] = s;
    }
    for (size_t i = 0; i < count; i++) {
        ck_assert_ptr_nonnull(specs[i]->help);
        for (size_t k = i + 1; k < count; k++) {
            ck_assert_str_ne(specs[i]->name, specs[k]->name);
            ck_assert(!specs[i]->letter ||
                      specs[i]->letter != specs[k]->letter);
        }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("options");
    TCase *t = tcase_create("options");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_test(t, test_forms);
    tcase_add_test(t, test_command_ends_options);
    tcase_add_test(t, test_image_defaults);
    tcase_add_test(t, test_image_env_max);
    tcase_add_test(t, test_help);
    tcase_add_loop_test(t, test_refused, 0,
                        (int)(sizeof(refused) / sizeof(refused[0])));
    tcase_add_loop_test(t, test_pairs, 0,
                        (int)(sizeof(pairs) / sizeof(pairs[0])));
    tcase_add_test(t, test_too_many);
    tcase_add_test(t, test_typed_values);
    tcase_add_loop_test(t, test_typed_refused, 0, 3);
    tcase_add_test(t, test_longest_duration);
    tcase_add_test(t, test_tables);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
