/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of JSON fields for the manifest, shared by snapshot_json.c and
 * snapshot_json_own.c, and by nobody else.
 */
#ifndef MICROSBX_TRIAL_SNAPSHOT_JSON_H
#define MICROSBX_TRIAL_SNAPSHOT_JSON_H

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trial/snapshot_manifest.h"

/* One parse: where in the document it is, and where the message goes. */
struct json_parse {
    const char *prefix; /* of keys in messages: "" or "machine." */
    char *err;          /* SNAPSHOT_ERR_MAX bytes */
};

enum json_kind {
    JSON_KIND_SCHEMA,  /* exactly SNAPSHOT_SCHEMA; stored nowhere */
    JSON_KIND_VERSION, /* exactly `max`; stored nowhere */
    JSON_KIND_U64,     /* min to max */
    JSON_KIND_U32,
    JSON_KIND_BOOL,
    JSON_KIND_HEX,    /* char[DIGEST_HEX_SIZE] */
    JSON_KIND_TEXT,   /* char[max + 1] */
    JSON_KIND_STRING, /* owned char * */
    JSON_KIND_LIST,   /* owned char ** */
    JSON_KIND_OBJECT, /* `children`, in the same struct */
    JSON_KIND_OWN,    /* `read` and `write` */
};

struct json_field {
    const char *key; /* NULL ends a table */
    enum json_kind kind;
    size_t offset; /* in the struct the table is of */
    uint64_t min, max;
    bool nullable; /* STRING: NULL is null */
    size_t flag;   /* not 0: null if the bool there is false */
    const struct json_field *children;
    int (*read)(const struct json_parse *p, const char *key,
                const json_t *value, void *object);
    json_t *(*write)(const void *object);
};

/* All readers: 0, -EBADMSG, -EPROTONOSUPPORT or -ENOMEM; err is filled but for
 * -ENOMEM. All writers: a new tree, or NULL. */
int snapshot_json_read_object(const struct json_parse *p,
                              const struct json_field *fields,
                              const json_t *tree, void *object);
json_t *snapshot_json_write_object(const struct json_field *fields,
                                   const void *object);

int snapshot_json_read_text(const struct json_parse *p, const char *key,
                            const json_t *value, char *slot, size_t max);
int snapshot_json_read_hex(const struct json_parse *p, const char *key,
                           const json_t *value, char slot[DIGEST_HEX_SIZE]);
json_t *snapshot_json_write_list(char *const *values);

/* Says what is wrong with a key: -EBADMSG. */
int snapshot_json_refuse(const struct json_parse *p, const char *key,
                         const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define SNAPSHOT_JSON_OWN(name)                                                \
    int snapshot_json_read_##name(const struct json_parse *p, const char *key, \
                                  const json_t *value, void *object);          \
    json_t *snapshot_json_write_##name(const void *object)

SNAPSHOT_JSON_OWN(disks);
SNAPSHOT_JSON_OWN(env);
SNAPSHOT_JSON_OWN(features);
SNAPSHOT_JSON_OWN(files);
SNAPSHOT_JSON_OWN(platform);

#endif
