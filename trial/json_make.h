/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON that is made complete or not at all: where memory was short for one
 * member, there is no object, and none that holds it. What would drop a key in
 * silence, jansson's own json_object_set_new with its result ignored, is not
 * used here.
 *
 *     struct json_make o = json_make_object();
 *     json_put(&o, "bytes", json_integer(5));
 *     return json_made(&o);
 */
#ifndef MICROSBX_TRIAL_JSON_MAKE_H
#define MICROSBX_TRIAL_JSON_MAKE_H

#include <jansson.h>
#include <stdbool.h>

struct json_make {
    json_t *json; /* owned */
    bool failed;
};

struct json_make json_make_object(void);
struct json_make json_make_array(void);
/* To go on with one that is there, which is taken over; NULL is a failure. */
struct json_make json_make_of(json_t *json);

/* Takes value over; NULL is a failure. */
void json_put(struct json_make *make, const char *key, json_t *value);
void json_add(struct json_make *make, json_t *value);

/* What was made, for the caller; NULL if anything failed. Ends *make. */
json_t *json_made(struct json_make *make) __attribute__((warn_unused_result));

/*
 * JSON as text, which the caller frees; NULL if there is no JSON or memory was
 * short. In place of json_dumps, which leaves parts out when memory is short
 * for them (tried with jansson 2.14).
 */
char *json_write(const json_t *json, size_t flags)
    __attribute__((warn_unused_result));

#endif
