/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes and durations; see the header. */
#include "base/units.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/num.h"

#define FRACTION_DIGITS_MAX 9

struct unit {
    const char *suffix;
    uint64_t factor;
};

/* Capitals do not matter: there are no milli-bytes. */
static const struct unit SIZE_UNITS[] = {
    {"K", KIB},  {"M", MIB},  {"G", GIB},  {"T", TIB},
    {"Ki", KIB}, {"Mi", MIB}, {"Gi", GIB}, {"Ti", TIB},
};

/* Here they do: M is no minute. */
static const struct unit DURATION_UNITS[] = {
    {"ms", 1},
    {"s", 1000},
    {"m", 60 * 1000},
    {"h", 3600 * 1000},
    {"d", 24 * 3600 * 1000},
};

/* What a number is made of before its unit: 1.5 is 1, 5 and 10. */
struct number {
    uint64_t whole, part, parts;
};

/* Reads decimal digits; *ret_end points behind them. */
static int parse_digits(const char *text, uint64_t *ret_value,
                        const char **ret_end)
{
    uint64_t value = 0;
    const char *p = text;

    if (*p < '0' || *p > '9')
        return -EINVAL;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (num_mul_overflow(value, 10, &value) ||
            num_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return -ERANGE;
    }
    *ret_value = value;
    *ret_end = p;
    return 0;
}

/* Reads digits, and a dot with up to nine more. */
static int parse_decimal(const char *text, struct number *ret,
                         const char **ret_end)
{
    const char *start;
    int error = parse_digits(text, &ret->whole, ret_end);

    ret->part = 0;
    ret->parts = 1;
    if (error != 0 || **ret_end != '.')
        return error;
    start = *ret_end + 1;
    error = parse_digits(start, &ret->part, ret_end);
    if (error != 0 || *ret_end - start > FRACTION_DIGITS_MAX)
        return error ? error : -EINVAL;
    for (ptrdiff_t i = *ret_end - start; i > 0; i--)
        ret->parts *= 10;
    return 0;
}

/* Rounded down; what is more than nothing does not become nothing. */
static int apply(const struct number *n, uint64_t factor, uint64_t *ret_value)
{
    uint64_t whole, part;

    /* part < parts <= 10^9, and no factor is above 2^40: nothing wraps. */
    part = factor / n->parts * n->part + factor % n->parts * n->part / n->parts;
    if (num_mul_overflow(n->whole, factor, &whole) ||
        num_add_overflow(whole, part, ret_value))
        return -ERANGE;
    return *ret_value == 0 && (n->whole > 0 || n->part > 0) ? -ERANGE : 0;
}

static int parse_with_units(const char *text, const struct unit *units,
                            size_t count, bool any_case, uint64_t *ret_value)
{
    struct number number;
    const char *suffix = NULL;
    uint64_t value;
    int ret = parse_decimal(text, &number, &suffix);

    if (ret != 0)
        return ret;
    if (*suffix == '\0') {
        if (number.whole != 0 || number.part != 0)
            return -ENOTUNIQ;
        *ret_value = 0;
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        if (any_case ? strcasecmp(suffix, units[i].suffix) != 0
                     : strcmp(suffix, units[i].suffix) != 0)
            continue;
        ret = apply(&number, units[i].factor, &value);
        if (ret == 0)
            *ret_value = value;
        return ret;
    }
    return -EINVAL;
}

/* The number in front, and the unit that its first letter may mean. */
static bool suggest(const char *text, const struct unit *units, size_t count,
                    const char *plain, char *buf, size_t size)
{
    struct number ignored;
    const char *end = NULL, *suffix;
    const char *unit = NULL;

    text += strspn(text, " +");
    if (parse_decimal(text, &ignored, &end) != 0)
        return false;
    suffix = end + strspn(end, " ");
    if (*suffix == '\0')
        unit = plain;
    for (size_t i = 0; i < count && *suffix && !unit; i++) {
        if (!strncasecmp(suffix, units[i].suffix, 1))
            unit = units[i].suffix;
    }
    if (!unit || (size_t)snprintf(buf, size, "%.*s%s", (int)(end - text), text,
                                  unit) >= size)
        return false;
    return true;
}

bool units_suggest_size(const char *text, char *buf, size_t size)
{
    return suggest(text, SIZE_UNITS, ARRAY_SIZE(SIZE_UNITS), "M", buf, size);
}

bool units_suggest_duration(const char *text, char *buf, size_t size)
{
    /* "ms" begins with the letter of minutes, but is more than it. */
    if (strstr(text, "ms") || strstr(text, "msec") || strstr(text, "milli"))
        return suggest(text, DURATION_UNITS, 1, "s", buf, size);
    return suggest(text, DURATION_UNITS + 1, ARRAY_SIZE(DURATION_UNITS) - 1,
                   "s", buf, size);
}

int units_parse_size(const char *text, uint64_t *ret_bytes)
{
    return parse_with_units(text, SIZE_UNITS, ARRAY_SIZE(SIZE_UNITS), true,
                            ret_bytes);
}

int units_parse_duration(const char *text, uint64_t *ret_ms)
{
    return parse_with_units(text, DURATION_UNITS, ARRAY_SIZE(DURATION_UNITS),
                            false, ret_ms);
}

int units_parse_number(const char *text, uint64_t min, uint64_t max,
                       uint64_t *ret_value)
{
    uint64_t value = 0;
    const char *end = NULL;
    int ret = parse_digits(text, &value, &end);

    if (ret != 0)
        return ret;
    if (*end != '\0')
        return -EINVAL;
    if (value < min || value > max)
        return -ERANGE;
    *ret_value = value;
    return 0;
}

void units_format_duration(uint64_t ms, char *buf, size_t size)
{
    if (ms % 1000 == 0)
        snprintf(buf, size, "%llu s", (unsigned long long)ms / 1000);
    else
        snprintf(buf, size, "%llu ms", (unsigned long long)ms);
}

void units_format_size(uint64_t bytes, char *buf, size_t size)
{
    static const char *const NAMES[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < ARRAY_SIZE(NAMES)) {
        value /= 1024;
        unit++;
    }
    if (value == (double)(uint64_t)value)
        snprintf(buf, size, "%llu %s", (unsigned long long)value, NAMES[unit]);
    else
        snprintf(buf, size, "%.1f %s", value, NAMES[unit]);
}
