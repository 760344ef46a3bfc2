/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as JSON; see the header. */
#include "trial/json_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* Bytes of the sequence that begins here; 0: none that UTF-8 knows. */
static size_t sequence(const uint8_t *p)
{
    size_t len = p[0] < 0x80                    ? 1
                 : p[0] >= 0xc2 && p[0] <= 0xdf ? 2
                 : (p[0] & 0xf0) == 0xe0        ? 3
                 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4
                                                : 0;

    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80) /* the text's end, too */
            return 0;
    /* Not the shortest form; half a pair; beyond the last. */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

static bool is_utf8(const char *text)
{
    const uint8_t *p = (const uint8_t *)text;

    while (*p) {
        size_t len = sequence(p);

        if (len == 0)
            return false;
        p += len;
    }
    return true;
}

json_t *json_text(const char *text)
{
    json_t *value;
    char *shown;
    size_t size;

    if (!text)
        return json_null();
    if (is_utf8(text))
        return json_string(text);
    size = 4 * strlen(text) + 1;
    shown = malloc(size);
    if (!shown)
        return NULL;
    text_escape(text, strlen(text), shown, size);
    value = json_string(shown);
    free(shown);
    return value;
}
