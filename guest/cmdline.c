/* SPDX-License-Identifier: Apache-2.0 */
/* Options on the kernel command line; see the header. */
#include "guest/cmdline.h"

#include <stdlib.h>
#include <string.h>

#define PREFIX "microsbx."

/* The value of "name=value" if the word is that option, else NULL. */
static const char *value_of(const char *word, size_t len, const char *name)
{
    size_t name_len = strlen(name);

    if (len <= name_len || memcmp(word, name, name_len) != 0 ||
        word[name_len] != '=')
        return NULL;
    return word + name_len + 1;
}

/* strtoull stops at the blank behind the value by itself. */
static uint64_t number_at(const char *value, uint64_t max)
{
    unsigned long long n = strtoull(value, NULL, 10);

    return n <= max ? n : 0;
}

static void parse_word(const char *word, size_t len, struct cmdline *options)
{
    const char *value;

    if ((value = value_of(word, len, "init_line")))
        options->init_line = *value == '1';
    else if ((value = value_of(word, len, "shell")))
        options->shell = *value == '1';
    else if ((value = value_of(word, len, "compare")))
        options->compare = *value == '1';
    else if ((value = value_of(word, len, "rows")))
        options->rows = (uint16_t)number_at(value, UINT16_MAX);
    else if ((value = value_of(word, len, "cols")))
        options->cols = (uint16_t)number_at(value, UINT16_MAX);
    else if ((value = value_of(word, len, "scratch_limit")))
        options->scratch_limit = number_at(value, UINT64_MAX);
    else if ((value = value_of(word, len, "term"))) {
        size_t size = len - (size_t)(value - word);

        if (size < sizeof(options->term)) {
            memcpy(options->term, value, size);
            options->term[size] = '\0';
        }
    }
}

void cmdline_parse(const char *text, struct cmdline *ret_options)
{
    const size_t prefix = strlen(PREFIX);

    memset(ret_options, 0, sizeof(*ret_options));
    while (*text) {
        size_t len = strcspn(text, " \t\n");

        if (len > prefix && memcmp(text, PREFIX, prefix) == 0)
            parse_word(text + prefix, len - prefix, ret_options);
        text += len;
        text += strspn(text, " \t\n");
    }
}
