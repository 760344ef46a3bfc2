/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes and durations; see the header. */
#include "base/units.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"

struct unit {
    const char *suffix;
    uint64_t factor;
};

static const struct unit SIZE_UNITS[] = {
    {"K", KIB}, {"M", MIB}, {"G", GIB}, {"Ki", KIB}, {"Mi", MIB}, {"Gi", GIB},
};

static const struct unit DURATION_UNITS[] = {
    {"ms", 1},
    {"s", 1000},
    {"m", 60 * 1000},
    {"h", 3600 * 1000},
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

static int parse_with_units(const char *text, const struct unit *units,
                            size_t count, uint64_t *ret_value)
{
    uint64_t value = 0;
    const char *suffix = NULL;
    int ret = parse_digits(text, &value, &suffix);

    if (ret != 0)
        return ret;
    if (*suffix == '\0') {
        if (value != 0)
            return -ENOTUNIQ;
        *ret_value = 0;
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(suffix, units[i].suffix) != 0)
            continue;
        return num_mul_overflow(value, units[i].factor, ret_value) ? -ERANGE
                                                                   : 0;
    }
    return -EINVAL;
}

int units_parse_size(const char *text, uint64_t *ret_bytes)
{
    return parse_with_units(text, SIZE_UNITS, ARRAY_SIZE(SIZE_UNITS),
                            ret_bytes);
}

int units_parse_duration(const char *text, uint64_t *ret_ms)
{
    return parse_with_units(text, DURATION_UNITS, ARRAY_SIZE(DURATION_UNITS),
                            ret_ms);
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
