/* SPDX-License-Identifier: Apache-2.0 */
/* Errors as a person meets them; see the header. */
#include "base/failure.h"

#include <stdarg.h>
#include <stdio.h>

void failure_set(struct failure *f, const char *code, const char *object,
                 const char *remedy, const char *format, ...)
{
    va_list args;

    snprintf(f->code, sizeof(f->code), "%s", code);
    snprintf(f->object, sizeof(f->object), "%s", object ? object : "");
    snprintf(f->remedy, sizeof(f->remedy), "%s", remedy ? remedy : "");
    va_start(args, format);
    vsnprintf(f->message, sizeof(f->message), format, args);
    va_end(args);
}

bool failure_is_set(const struct failure *f)
{
    return f->code[0] != '\0';
}
