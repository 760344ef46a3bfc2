/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON writers under short memory: each allocation of jansson's fails in turn,
 * alone and with all behind it. There must be the whole text, or none.
 */
#ifndef MICROSBX_TESTS_JSON_MEMORY_H
#define MICROSBX_TESTS_JSON_MEMORY_H

/*
 * The writer returns a text to be freed, or NULL. NULL if it always does as it
 * should, else what it did (a text of this function's, till it is called
 * again). jansson's allocator is replaced for good.
 */
const char *json_memory_check(char *(*write)(const void *object),
                              const void *object);

#endif
