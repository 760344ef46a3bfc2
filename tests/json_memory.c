/* SPDX-License-Identifier: Apache-2.0 */
/* JSON writers under short memory; see the header. */
#include "tests/json_memory.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEW 10u /* no writer of ours needs fewer */

static unsigned allocation, failing; /* failing 0: none */
static bool all_behind;

static void *allocate(size_t size)
{
    allocation++;
    if (failing != 0 &&
        (allocation == failing || (all_behind && allocation > failing)))
        return NULL;
    return malloc(size);
}

const char *json_memory_check(char *(*write)(const void *object),
                              const void *object)
{
    static char said[4096];
    unsigned count;
    char *whole;

    json_set_alloc_funcs(allocate, free);
    allocation = failing = 0;
    whole = write(object);
    count = allocation;
    said[0] = '\0';
    if (!whole || count < FEW)
        snprintf(said, sizeof(said), "%u allocations: %s", count, whole);
    for (unsigned i = 0; i < 2 * count && !said[0]; i++) {
        char *text;

        failing = i / 2 + 1;
        all_behind = i % 2 == 1;
        allocation = 0;
        text = write(object);
        if (text && (all_behind || strcmp(text, whole) != 0))
            snprintf(said, sizeof(said), "allocation %u of %u: %s", failing,
                     count, text);
        free(text);
    }
    free(whole);
    failing = 0;
    return said[0] ? said : NULL;
}
