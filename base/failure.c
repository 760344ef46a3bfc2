/* SPDX-License-Identifier: Apache-2.0 */
/* Errors as a person meets them; see the header. */
#include "base/failure.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

const char *failure_remedy(int error, const char *otherwise)
{
    switch (abs(error)) {
    case EMFILE:
        return "raise this process's limit of open files (ulimit -n)";
    case ENFILE:
        return "raise this host's limit of open files (sysctl fs.file-max)";
    case ENOMEM:
        return "free memory on this host";
    case ENOSPC:
        return "make room there";
    case EDQUOT:
        return "make room there: the quota is used up";
    case EROFS:
        return "choose a place that can be written to";
    case EIO:
        return "look at the host's log: its storage fails";
    default:
        return otherwise;
    }
}

bool failure_is_set(const struct failure *f)
{
    return f->code[0] != '\0';
}
