/* SPDX-License-Identifier: Apache-2.0 */
/* The lines in which a guest says what differs between two disks; proto.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "guest/proto.h"

#define BEGIN "files 1"
#define END "end "
#define FAILED "failed "
#define CHANGES "ADMm"
#define TYPES "fdlcbps"
#define HEAD 4u /* "M f " */
#define DIGITS "0123456789abcdef"

static bool is_plain(unsigned char c)
{
    return c >= ' ' && c <= '~' && c != '\\';
}

/* ---- writing ------------------------------------------------------------ */

static size_t format_entry(const struct proto_compare *m, char *line)
{
    size_t len = 0;

    line[len++] = (char)m->change;
    line[len++] = ' ';
    line[len++] = m->type;
    line[len++] = ' ';
    for (size_t i = 0; i < m->path_len; i++) {
        unsigned char c = (unsigned char)m->path[i];

        if (is_plain(c)) {
            line[len++] = (char)c;
            continue;
        }
        line[len++] = '\\';
        line[len++] = 'x';
        line[len++] = DIGITS[c >> 4];
        line[len++] = DIGITS[c & 15];
    }
    line[len++] = '\n';
    return len;
}

size_t proto_compare_format(const struct proto_compare *m,
                            char ret_line[PROTO_COMPARE_LINE_MAX])
{
    const size_t size = PROTO_COMPARE_LINE_MAX;

    switch (m->kind) {
    case PROTO_COMPARE_BEGIN:
        return (size_t)snprintf(ret_line, size, BEGIN "\n");
    case PROTO_COMPARE_ENTRY:
        return format_entry(m, ret_line);
    case PROTO_COMPARE_END:
        return (size_t)snprintf(ret_line, size, END "%u\n", m->count);
    case PROTO_COMPARE_FAILED:
        break;
    }
    return (size_t)snprintf(ret_line, size, FAILED "%u\n", m->err);
}

/* ---- reading ------------------------------------------------------------ */

/* True if the line begins so; steps over it. */
static bool take_word(const char **at, size_t *len, const char *word)
{
    size_t n = strlen(word);

    if (*len < n || memcmp(*at, word, n) != 0)
        return false;
    *at += n;
    *len -= n;
    return true;
}

/* Digits alone, and no more of them than needed. */
static int parse_number(const char *at, size_t len, uint32_t max,
                        uint32_t *ret_value)
{
    uint32_t value = 0;

    if (len == 0 || len > 7 || (at[0] == '0' && len > 1))
        return -EBADMSG;
    for (size_t i = 0; i < len; i++) {
        if (at[i] < '0' || at[i] > '9')
            return -EBADMSG;
        value = 10 * value + (uint32_t)(at[i] - '0');
    }
    if (value > max)
        return -EBADMSG;
    *ret_value = value;
    return 0;
}

/* The value of two lower-case digits that had to be escaped, or -EBADMSG. */
static int parse_escape(const char *at, size_t len)
{
    const char *high, *low;
    int value;

    if (len < 4 || at[1] != 'x' || !at[2] || !at[3])
        return -EBADMSG;
    high = strchr(DIGITS, at[2]);
    low = strchr(DIGITS, at[3]);
    if (!high || !low)
        return -EBADMSG;
    value = (int)(high - DIGITS) * 16 + (int)(low - DIGITS);
    return value == 0 || is_plain((unsigned char)value) ? -EBADMSG : value;
}

/* Absolute, and of names that a directory can have. */
static bool is_path(const char *path, size_t len)
{
    size_t begin = 1;

    if (len == 0 || path[0] != '/')
        return false;
    if (len == 1)
        return true;
    for (size_t i = 1; i <= len; i++) {
        size_t name = i - begin;

        if (i < len && path[i] != '/')
            continue;
        if (name == 0 || name > 255 || (name == 1 && path[begin] == '.') ||
            (name == 2 && path[begin] == '.' && path[begin + 1] == '.'))
            return false;
        begin = i + 1;
    }
    return true;
}

static int parse_path(const char *at, size_t len, struct proto_compare *m)
{
    m->path_len = 0;
    while (len > 0) {
        size_t used = *at == '\\' ? 4 : 1;
        int c = used == 1 ? (unsigned char)*at : parse_escape(at, len);

        if (c < 0 || (used == 1 && !is_plain((unsigned char)c)) ||
            m->path_len == PROTO_PATH_MAX - 1)
            return -EBADMSG;
        m->path[m->path_len++] = (char)c;
        at += used;
        len -= used;
    }
    m->path[m->path_len] = '\0';
    return is_path(m->path, m->path_len) ? 0 : -EBADMSG;
}

static int parse_entry(const char *at, size_t len, struct proto_compare *m)
{
    if (len <= HEAD || !at[0] || !at[2] || !strchr(CHANGES, at[0]) ||
        at[1] != ' ' || !strchr(TYPES, at[2]) || at[3] != ' ')
        return -EBADMSG;
    m->kind = PROTO_COMPARE_ENTRY;
    m->change = (enum proto_change)at[0];
    m->type = at[2];
    return parse_path(at + HEAD, len - HEAD, m);
}

int proto_compare_parse(const char *line, size_t len,
                        struct proto_compare *ret_m)
{
    struct proto_compare *m = ret_m;

    if (take_word(&line, &len, BEGIN)) {
        m->kind = PROTO_COMPARE_BEGIN;
        return len == 0 ? 0 : -EBADMSG;
    }
    if (take_word(&line, &len, END)) {
        m->kind = PROTO_COMPARE_END;
        return parse_number(line, len, PROTO_COMPARE_MAX, &m->count);
    }
    if (take_word(&line, &len, FAILED)) {
        m->kind = PROTO_COMPARE_FAILED;
        m->err = 0;
        if (parse_number(line, len, PROTO_ERRNO_MAX, &m->err) != 0)
            return -EBADMSG;
        return m->err > 0 ? 0 : -EBADMSG;
    }
    return parse_entry(line, len, m);
}
