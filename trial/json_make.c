/* SPDX-License-Identifier: Apache-2.0 */
/* JSON that is made complete; see the header. */
#include "trial/json_make.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct json_make json_make_of(json_t *json)
{
    return (struct json_make){.json = json, .failed = json == NULL};
}

struct json_make json_make_object(void)
{
    return json_make_of(json_object());
}

struct json_make json_make_array(void)
{
    return json_make_of(json_array());
}

void json_put(struct json_make *make, const char *key, json_t *value)
{
    if (json_object_set_new(make->json, key, value) != 0)
        make->failed = true;
}

void json_add(struct json_make *make, json_t *value)
{
    if (json_array_append_new(make->json, value) != 0)
        make->failed = true;
}

json_t *json_made(struct json_make *make)
{
    json_t *json = make->json;

    if (make->failed) {
        json_decref(json);
        json = NULL;
    }
    make->json = NULL;
    return json;
}

struct text {
    char *bytes;
    size_t len, size;
    bool failed;
};

/* After a piece that found no room there is no text, whatever follows. */
static int add_piece(const char *piece, size_t len, void *data)
{
    struct text *t = data;

    if (!t->failed && t->size - t->len <= len) {
        size_t size = 2 * t->size + len + 1;
        char *bytes = realloc(t->bytes, size);

        t->failed = !bytes;
        if (bytes) {
            t->bytes = bytes;
            t->size = size;
        }
    }
    if (t->failed)
        return -1;
    memcpy(t->bytes + t->len, piece, len);
    t->len += len;
    t->bytes[t->len] = '\0';
    return 0;
}

char *json_write(const json_t *json, size_t flags)
{
    struct text t = {.size = 0};

    if (json && json_dump_callback(json, add_piece, &t, flags) == 0 &&
        !t.failed)
        return t.bytes;
    free(t.bytes);
    return NULL;
}
