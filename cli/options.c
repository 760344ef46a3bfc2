/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines from tables; see the header. */
#include "cli/options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "base/text.h"
#include "base/units.h"

#define NAMES_MAX 64

/* What people type out of habit, where a verb has the option it means. */
static const struct {
    const char *habit, *name;
} HABITS[] = {
    {"mem", "memory"},
    {"net", "network"},
};

static const struct option_spec *find_name(const struct verb *verb,
                                           const char *name, size_t len)
{
    for (size_t g = 0; verb->groups[g]; g++) {
        const struct option_spec *s = verb->groups[g]->specs;

        for (; s->name; s++) {
            if (strlen(s->name) == len && !memcmp(s->name, name, len))
                return s;
        }
    }
    return NULL;
}

static const struct option_spec *find_long(const struct verb *verb,
                                           const char *name, size_t len)
{
    const struct option_spec *s = find_name(verb, name, len);

    for (size_t i = 0; !s && i < ARRAY_SIZE(HABITS); i++) {
        if (strlen(HABITS[i].habit) == len &&
            !memcmp(HABITS[i].habit, name, len))
            s = find_name(verb, HABITS[i].name, strlen(HABITS[i].name));
    }
    return s;
}

static const struct option_spec *find_letter(const struct verb *verb,
                                             char letter)
{
    for (size_t g = 0; verb->groups[g]; g++) {
        const struct option_spec *s = verb->groups[g]->specs;

        for (; s->name; s++) {
            if (s->letter == letter)
                return s;
        }
    }
    return NULL;
}

/* The nearest option of a verb to a misspelt one, or NULL. */
static const char *nearest_name(const struct verb *verb, const char *word)
{
    const char *names[NAMES_MAX + 1];
    size_t count = 0;

    for (size_t g = 0; verb->groups[g]; g++) {
        const struct option_spec *s = verb->groups[g]->specs;

        for (; s->name && count < NAMES_MAX; s++)
            names[count++] = s->name;
    }
    names[count] = NULL;
    return text_nearest(word, names);
}

static int fail_unknown(const struct verb *verb, const char *word,
                        struct failure *f)
{
    char name[64], remedy[160];
    const char *near = NULL;

    if (word[1] == '-') {
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(word + 2, "="),
                 word + 2);
        near = nearest_name(verb, name);
    }
    if (near)
        snprintf(remedy, sizeof(remedy), "did you mean --%s?", near);
    else
        snprintf(remedy, sizeof(remedy), "see microsbx %s --help", verb->name);
    failure_set(f, "usage", word, remedy, "unknown option %s", word);
    return -EINVAL;
}

/* What cannot be named by nothing: most likely a variable that is unset. */
static bool needs_text(const struct option_spec *spec)
{
    static const char *const words[] = {"FILE", "UDS", "BASE", "NAME|DIR"};

    for (size_t i = 0; spec->arg && i < ARRAY_SIZE(words); i++) {
        if (strncmp(spec->arg, words[i], strlen(words[i])) == 0)
            return true;
    }
    return spec->arg && strcmp(spec->arg, "NAME") == 0;
}

static int add_value(struct options *o, const struct option_spec *spec,
                     const char *value, struct failure *f)
{
    if (!spec->repeatable && options_has(o, spec->name)) {
        failure_set(f, "usage", spec->name, "give it once",
                    "option --%s was given twice", spec->name);
        return -EINVAL;
    }
    if (value && value[0] == '\0' && needs_text(spec)) {
        failure_set(f, "usage", spec->name, "leave it out instead",
                    "option --%s: the value is empty", spec->name);
        return -EINVAL;
    }
    if (o->count == OPTION_VALUES_MAX) {
        failure_set(f, "usage", spec->name, NULL, "more than %u options",
                    OPTION_VALUES_MAX);
        return -EINVAL;
    }
    o->values[o->count++] = (struct option_value){spec, value};
    return 0;
}

static int fail_no_value(const struct option_spec *spec, struct failure *f)
{
    char remedy[160];

    snprintf(remedy, sizeof(remedy), "write it --%s %s", spec->name, spec->arg);
    failure_set(f, "usage", spec->name, remedy, "option --%s needs a value: %s",
                spec->name, spec->arg);
    return -EINVAL;
}

/* --name, --name=value or --name value; *at may move on by one word. */
static int parse_long(const struct verb *verb, char **argv, int argc, int *at,
                      struct options *o, struct failure *f)
{
    const char *word = argv[*at] + 2;
    const char *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    const struct option_spec *spec = find_long(verb, word, len);

    if (!spec)
        return fail_unknown(verb, argv[*at], f);
    if (!spec->arg) {
        if (equals) {
            failure_set(f, "usage", spec->name, NULL,
                        "option --%s takes no value", spec->name);
            return -EINVAL;
        }
        return add_value(o, spec, NULL, f);
    }
    if (equals)
        return add_value(o, spec, equals + 1, f);
    if (*at + 1 >= argc)
        return fail_no_value(spec, f);
    return add_value(o, spec, argv[++*at], f);
}

/* -x, -xVALUE, -x VALUE, and flags together: -it. */
static int parse_short(const struct verb *verb, char **argv, int argc, int *at,
                       struct options *o, struct failure *f)
{
    for (const char *p = argv[*at] + 1; *p; p++) {
        const struct option_spec *spec = find_letter(verb, *p);

        if (!spec)
            return fail_unknown(verb, argv[*at], f);
        if (!spec->arg) {
            if (add_value(o, spec, NULL, f) != 0)
                return -EINVAL;
            continue;
        }
        if (p[1] != '\0')
            return add_value(o, spec, p + 1, f);
        if (*at + 1 >= argc)
            return fail_no_value(spec, f);
        return add_value(o, spec, argv[++*at], f);
    }
    return 0;
}

int options_parse(const struct verb *verb, int argc, char **argv,
                  struct options *ret_options, struct failure *ret_failure)
{
    struct options *o = ret_options;
    int kept = 1;
    int i;

    *o = (struct options){0};
    for (i = 1; i < argc; i++) {
        int ret = 0;

        if (!strcmp(argv[i], "--")) {
            i++;
            break;
        }
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            o->help = true;
            return 0;
        }
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            if (verb->takes_command)
                break;
            argv[kept++] = argv[i];
            continue;
        }
        ret = argv[i][1] == '-'
                  ? parse_long(verb, argv, argc, &i, o, ret_failure)
                  : parse_short(verb, argv, argc, &i, o, ret_failure);
        if (ret != 0)
            return ret;
    }
    while (i < argc)
        argv[kept++] = argv[i++];
    o->positional = argv + 1;
    o->positional_count = kept - 1;
    return 0;
}

const char *options_get(const struct options *options, const char *name)
{
    for (size_t i = options->count; i > 0; i--) {
        const struct option_value *v = &options->values[i - 1];

        if (!strcmp(v->spec->name, name))
            return v->value ? v->value : "";
    }
    return NULL;
}

bool options_has(const struct options *options, const char *name)
{
    return options_get(options, name) != NULL;
}

const char *options_get_nth(const struct options *options, const char *name,
                            size_t i)
{
    for (size_t k = 0; k < options->count; k++) {
        const struct option_value *v = &options->values[k];

        if (!strcmp(v->spec->name, name) && i-- == 0)
            return v->value ? v->value : "";
    }
    return NULL;
}

/* A hundred years: in nanoseconds, and from now on, it is a time yet. */
#define DURATION_MAX_MS ((uint64_t)36500 * 24 * 3600 * 1000)

/* What a kind of value is called, and how one is written. */
struct value_kind {
    const char *name, *example;
    bool (*suggest)(const char *text, char *buf, size_t size);
};

static const struct value_kind SIZE = {"a size", "256M or 1.5G",
                                       units_suggest_size};
static const struct value_kind DURATION = {"a duration", "30s, 10m or 2d",
                                           units_suggest_duration};

/* The sentence for a value that a units_parse function refused. */
static int fail_value(const char *name, const char *text, int error,
                      const struct value_kind *kind, struct failure *f)
{
    char remedy[128], meant[40];

    if (error != -ERANGE && kind->suggest(text, meant, sizeof(meant)))
        snprintf(remedy, sizeof(remedy), "did you mean %s?", meant);
    else
        snprintf(remedy, sizeof(remedy), "write it like %s", kind->example);
    failure_set(f, "usage", name, remedy, "option --%s: '%s' %s %s", name, text,
                error == -ENOTUNIQ ? "has no unit and cannot be read as"
                : error == -ERANGE ? "is out of range for"
                                   : "is not",
                kind->name);
    return -EINVAL;
}

int options_get_size(const struct options *options, const char *name,
                     unsigned long long *ret_bytes, struct failure *f)
{
    const char *text = options_get(options, name);
    uint64_t bytes = 0;
    int ret;

    if (!text)
        return 0;
    ret = units_parse_size(text, &bytes);
    if (ret != 0)
        return fail_value(name, text, ret, &SIZE, f);
    *ret_bytes = bytes;
    return 0;
}

int options_get_duration_ms(const struct options *options, const char *name,
                            unsigned long long *ret_ms, struct failure *f)
{
    const char *text = options_get(options, name);
    uint64_t ms = 0;
    int ret;

    if (!text)
        return 0;
    ret = units_parse_duration(text, &ms);
    if (ret == 0 && ms > DURATION_MAX_MS)
        ret = -ERANGE;
    if (ret != 0)
        return fail_value(name, text, ret, &DURATION, f);
    *ret_ms = ms;
    return 0;
}

int options_get_number(const struct options *options, const char *name,
                       unsigned long long min, unsigned long long max,
                       unsigned long long *ret_value, struct failure *f)
{
    const char *text = options_get(options, name);
    uint64_t value = 0;
    char remedy[80];

    if (!text)
        return 0;
    if (units_parse_number(text, min, max, &value) != 0) {
        snprintf(remedy, sizeof(remedy),
                 "give a whole number from %llu to %llu", min, max);
        failure_set(f, "usage", name, remedy,
                    "option --%s: '%s' is not a number in range", name, text);
        return -EINVAL;
    }
    *ret_value = value;
    return 0;
}

/* ---- pairs --------------------------------------------------------------- */

char *options_cut_pair(char *text)
{
    char *out = text, *dst = NULL;

    for (const char *p = text; *p;) {
        size_t slashes = strspn(p, "\\");

        if (slashes == 0 && (*p != ':' || dst)) {
            *out++ = *p++;
            continue;
        }
        /* Before a colon two stand for one, and an odd one for the colon. */
        memmove(out, p, slashes);
        p += slashes;
        out += *p == ':' ? slashes / 2 : slashes;
        if (*p == ':' && (slashes % 2 || dst)) {
            *out++ = *p++;
        } else if (*p == ':') {
            *out++ = '\0';
            p++;
            dst = out;
        }
    }
    *out = '\0';
    return dst && text[0] != '\0' && dst[0] != '\0' ? dst : NULL;
}
