/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes and durations as people write them. Strict: the whole string must be
 * the number and its unit.
 */
#ifndef MICROSBX_BASE_UNITS_H
#define MICROSBX_BASE_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * "256M", "1.5G", "64Ki", "2t": K M G T (or Ki Mi Gi Ti), all binary, capital
 * or not, rounded down. A bare number has no unit and is refused, except 0.
 * Returns 0, -EINVAL (not a size), -ENOTUNIQ (a number without a unit) or
 * -ERANGE (does not fit, or is less than 1).
 */
int units_parse_size(const char *text, uint64_t *ret_bytes)
    __attribute__((warn_unused_result));

/* "250ms", "30s", "10m", "1.5h", "2d"; returns as above. */
int units_parse_duration(const char *text, uint64_t *ret_ms)
    __attribute__((warn_unused_result));

/* What a refused one may have meant, as one would write it; false: nothing. */
bool units_suggest_size(const char *text, char *buf, size_t size);
bool units_suggest_duration(const char *text, char *buf, size_t size);

/* A whole decimal number in [min, max]: 0, -EINVAL or -ERANGE. */
int units_parse_number(const char *text, uint64_t min, uint64_t max,
                       uint64_t *ret_value) __attribute__((warn_unused_result));

/* "180 s", "500 ms", "1500 ms" into buf: as exact as it was given. */
void units_format_duration(uint64_t ms, char *buf, size_t size);

/* "1.5 GiB", "64 KiB", "12 B" into buf. */
void units_format_size(uint64_t bytes, char *buf, size_t size);

#endif
