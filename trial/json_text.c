/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as JSON; see the header. */
#include "trial/json_text.h"

#include <string.h>

#include "base/text.h"

json_t *json_text(const char *text)
{
    char shown[4096];
    json_t *value;

    if (!text)
        return json_null();
    value = json_string(text);
    if (value)
        return value;
    text_escape(text, strlen(text), shown, sizeof(shown));
    return json_string(shown);
}
