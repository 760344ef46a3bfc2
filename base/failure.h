/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An error as a person meets it: what could not be done, on which object, why,
 * and what to do. Filled where the reason is known, printed only by cli/.
 */
#ifndef MICROSBX_BASE_FAILURE_H
#define MICROSBX_BASE_FAILURE_H

#include <stdbool.h>

struct failure {
    char code[40];      /* stable word for programs: "kernel_truncated" */
    char object[512];   /* path, option or device it is about; may be "" */
    char message[1024]; /* what was attempted and why it failed */
    char remedy[512];   /* what to do; may be "" */
};

/* Fills all four; message is a printf format. Longer texts are cut. */
void failure_set(struct failure *f, const char *code, const char *object,
                 const char *remedy, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/*
 * What to do about an errno (either sign) that says that this host is short of
 * something, whatever was attempted: descriptors, room, memory, sound storage.
 * Of any other errno: otherwise.
 */
const char *failure_remedy(int error, const char *otherwise);

/* True once failure_set was called on it (start from a zeroed struct). */
bool failure_is_set(const struct failure *f);

#endif
