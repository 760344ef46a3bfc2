/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest.json: one table of fields per object, which drives the writer as
 * well as the reader, so that they cannot drift. What is no plain field has a
 * pair of functions in snapshot_json_own.c. The trees that jansson builds live
 * for one call.
 *
 * The reader ends by writing what it has read: a text that is not the canonical
 * one is refused, so that a manifest has one text and one id.
 */
#include "trial/snapshot_json.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/text.h"
#include "trial/json_make.h"
#include "trial/snapshot_internal.h"

#define AT(member) .offset = offsetof(struct snapshot_manifest, member)
#define FLAG(member)                                                           \
    .nullable = true, .flag = offsetof(struct snapshot_manifest, member)
#define OWN(name)                                                              \
    .kind = JSON_KIND_OWN, .read = snapshot_json_read_##name,                  \
    .write = snapshot_json_write_##name

static const struct json_field cpu_fields[] = {
    {.key = "features", OWN(features)},
    {.key = "model", .kind = JSON_KIND_TEXT, AT(cpu_model), .max = 48},
    {.key = "vendor", .kind = JSON_KIND_TEXT, AT(cpu_vendor), .max = 12},
    {.key = NULL},
};

static const struct json_field image_fields[] = {
    {.key = "env", OWN(env)},
    {.key = "name", .kind = JSON_KIND_STRING, AT(image_name)},
    {.key = "sha256", .kind = JSON_KIND_HEX, AT(image_sha256)},
    {.key = "user", .kind = JSON_KIND_STRING, .nullable = true, AT(user)},
    {.key = "workdir", .kind = JSON_KIND_STRING, .nullable = true, AT(workdir)},
    {.key = NULL},
};

static const struct json_field kernel_fields[] = {
    {.key = "release",
     .kind = JSON_KIND_STRING,
     .nullable = true,
     AT(kernel_release)},
    {.key = "sha256", .kind = JSON_KIND_HEX, AT(kernel_sha256)},
    {.key = NULL},
};

static const struct json_field kvm_fields[] = {
    {.key = "needed", .kind = JSON_KIND_LIST, AT(kvm_needed)},
    {.key = NULL},
};

static const struct json_field machine_fields[] = {
    {.key = "cmdline",
     .kind = JSON_KIND_TEXT,
     AT(cmdline),
     .max = VM_CMDLINE_MAX},
    {.key = "cpus",
     .kind = JSON_KIND_U32,
     AT(cpus),
     .min = 1,
     .max = VM_CPUS_MAX},
    {.key = "debug_exit", .kind = JSON_KIND_BOOL, AT(debug_exit)},
    {.key = "disks", OWN(disks)},
    {.key = "guest_cid",
     .kind = JSON_KIND_U64,
     AT(guest_cid),
     FLAG(vsock),
     .min = 3,
     .max = 0xfffffffe},
    {.key = "hide_rdrand", .kind = JSON_KIND_BOOL, AT(hide_rdrand)},
    {.key = "memory_bytes",
     .kind = JSON_KIND_U64,
     AT(memory_bytes),
     .min = VM_MEMORY_MIN,
     .max = VM_MEMORY_MAX},
    {.key = "platform", OWN(platform)},
    {.key = "version",
     .kind = JSON_KIND_VERSION,
     .max = SNAPSHOT_MACHINE_VERSION},
    {.key = NULL},
};

static const struct json_field memory_fields[] = {
    {.key = "pages",
     .kind = JSON_KIND_U64,
     AT(memory_pages),
     .max = VM_MEMORY_MAX / SNAPSHOT_PAGE},
    {.key = "used",
     .kind = JSON_KIND_U64,
     AT(memory_used),
     .max = VM_MEMORY_MAX},
    {.key = NULL},
};

static const struct json_field parent_fields[] = {
    {.key = "id", .kind = JSON_KIND_HEX, AT(parent_id)},
    {.key = "root", .kind = JSON_KIND_HEX, AT(parent_root)},
    {.key = NULL},
};

static const struct json_field pinned_fields[] = {
    {.key = "window_ms",
     .kind = JSON_KIND_U64,
     AT(window_ms),
     .max = INT64_MAX},
    {.key = NULL},
};

static const struct json_field warmup_fields[] = {
    {.key = "command", .kind = JSON_KIND_LIST, AT(warmup)},
    {.key = "ready",
     .kind = JSON_KIND_STRING,
     .nullable = true,
     AT(warmup_ready)},
    {.key = "waiting", .kind = JSON_KIND_BOOL, AT(warmup_waiting)},
    {.key = NULL},
};

#define OBJECT(fields) .kind = JSON_KIND_OBJECT, .children = (fields)

static const struct json_field manifest_fields[] = {
    {.key = "agent", .kind = JSON_KIND_BOOL, AT(agent)},
    {.key = "chunk", .kind = JSON_KIND_VERSION, .max = SNAPSHOT_CHUNK},
    {.key = "cpu", OBJECT(cpu_fields)},
    {.key = "files", OWN(files)},
    {.key = "image", OBJECT(image_fields), FLAG(has_image)},
    {.key = "kernel", OBJECT(kernel_fields)},
    {.key = "kvm", OBJECT(kvm_fields)},
    {.key = "machine", OBJECT(machine_fields)},
    {.key = "memory", OBJECT(memory_fields)},
    {.key = "page_size",
     .kind = JSON_KIND_U32,
     AT(page_size),
     .min = SNAPSHOT_PAGE,
     .max = 1u << 20},
    {.key = "parent", OBJECT(parent_fields), FLAG(has_parent)},
    {.key = "pinned", OBJECT(pinned_fields), FLAG(pinned)},
    {.key = "root", .kind = JSON_KIND_HEX, AT(root)},
    {.key = "schema", .kind = JSON_KIND_SCHEMA},
    {.key = "warmup", OBJECT(warmup_fields), FLAG(has_warmup)},
    {.key = NULL},
};

/* ---- writing ------------------------------------------------------------ */

json_t *snapshot_json_write_list(char *const *values)
{
    json_t *array = json_array();

    for (size_t i = 0; array && values && values[i]; i++) {
        if (json_array_append_new(array, json_string(values[i])) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

/* The value of one field; NULL: no memory, or text that is not UTF-8. */
static json_t *write_field(const struct json_field *f, const void *object)
{
    const char *slot = (const char *)object + f->offset;
    uint64_t number = f->max;

    if (f->flag != 0 && !*((const bool *)object + f->flag))
        return json_null();
    switch (f->kind) {
    case JSON_KIND_SCHEMA:
        return json_string(SNAPSHOT_SCHEMA);
    case JSON_KIND_U64:
        memcpy(&number, slot, sizeof(number));
        return number <= INT64_MAX ? json_integer((json_int_t)number) : NULL;
    case JSON_KIND_U32:
        return json_integer(*(const uint32_t *)(const void *)slot);
    case JSON_KIND_VERSION:
        return json_integer((json_int_t)number);
    case JSON_KIND_BOOL:
        return json_boolean(*(const bool *)slot);
    case JSON_KIND_HEX:
    case JSON_KIND_TEXT:
        return json_string(slot);
    case JSON_KIND_STRING:
        slot = *(char *const *)(const void *)slot;
        return slot ? json_string(slot) : json_null();
    case JSON_KIND_LIST:
        return snapshot_json_write_list(*(char **const *)(const void *)slot);
    case JSON_KIND_OBJECT:
        return snapshot_json_write_object(f->children, object);
    case JSON_KIND_OWN:
        return f->write(object);
    }
    return NULL;
}

json_t *snapshot_json_write_object(const struct json_field *fields,
                                   const void *object)
{
    json_t *tree = json_object();

    for (const struct json_field *f = fields; tree && f->key; f++) {
        if (json_object_set_new(tree, f->key, write_field(f, object)) != 0) {
            json_decref(tree);
            tree = NULL;
        }
    }
    return tree;
}

/* The text, which the caller frees, or NULL as above. */
static char *write_text(const struct snapshot_manifest *m, size_t *ret_len)
{
    json_t *tree = snapshot_json_write_object(manifest_fields, m);
    char *text = json_write(tree, JSON_COMPACT | JSON_SORT_KEYS);
    size_t len = text ? strlen(text) : 0;
    char *line = text ? realloc(text, len + 2) : NULL;

    json_decref(tree);
    if (!line) {
        free(text);
        return NULL;
    }
    strcpy(line + len, "\n");
    *ret_len = len + 1;
    return line;
}

/* ---- reading ------------------------------------------------------------ */

int snapshot_json_refuse(const struct json_parse *p, const char *key,
                         const char *format, ...)
{
    char shown[80];
    size_t used;
    va_list args;

    text_escape(key, strlen(key), shown, sizeof(shown));
    used =
        (size_t)snprintf(p->err, SNAPSHOT_ERR_MAX, "'%s%s' ", p->prefix, shown);
    if (used >= SNAPSHOT_ERR_MAX)
        return -EBADMSG;
    va_start(args, format);
    vsnprintf(p->err + used, SNAPSHOT_ERR_MAX - used, format, args);
    va_end(args);
    return -EBADMSG;
}

static int read_number(const struct json_parse *p, const struct json_field *f,
                       const json_t *value, void *slot)
{
    json_int_t n = json_integer_value(value);

    if (!json_is_integer(value))
        return snapshot_json_refuse(p, f->key, "must be a whole number");
    if (n < 0 || (uint64_t)n < f->min || (uint64_t)n > f->max)
        return snapshot_json_refuse(p, f->key,
                                    "must be between %" PRIu64 " and %" PRIu64,
                                    f->min, f->max);
    if (f->kind == JSON_KIND_U64)
        *(uint64_t *)slot = (uint64_t)n;
    else
        *(uint32_t *)slot = (uint32_t)n;
    return 0;
}

static int read_version(const struct json_parse *p, const struct json_field *f,
                        const json_t *value)
{
    if (!json_is_integer(value))
        return snapshot_json_refuse(p, f->key, "must be a whole number");
    if (json_integer_value(value) == (json_int_t)f->max)
        return 0;
    (void)snapshot_json_refuse(
        p, f->key,
        "is %" PRId64 ", but this version of microsbx knows %" PRIu64 " only",
        (int64_t)json_integer_value(value), f->max);
    return -EPROTONOSUPPORT;
}

static int read_schema(const struct json_parse *p, const json_t *value)
{
    const char *text = json_string_value(value);

    if (!text)
        return snapshot_json_refuse(p, "schema", "must be a string");
    if (strcmp(text, SNAPSHOT_SCHEMA) == 0)
        return 0;
    (void)snapshot_json_refuse(p, "schema",
                               "is not \"" SNAPSHOT_SCHEMA
                               "\", the only format this version of microsbx "
                               "reads");
    return -EPROTONOSUPPORT;
}

int snapshot_json_read_text(const struct json_parse *p, const char *key,
                            const json_t *value, char *slot, size_t max)
{
    const char *text = json_string_value(value);

    if (!text)
        return snapshot_json_refuse(p, key, "must be a string");
    if (json_string_length(value) > max)
        return snapshot_json_refuse(p, key, "is longer than %zu bytes", max);
    strcpy(slot, text);
    return 0;
}

int snapshot_json_read_hex(const struct json_parse *p, const char *key,
                           const json_t *value, char slot[DIGEST_HEX_SIZE])
{
    const char *text = json_string_value(value);

    if (!text || strlen(text) != DIGEST_HEX_SIZE - 1 ||
        strspn(text, "0123456789abcdef") != DIGEST_HEX_SIZE - 1)
        return snapshot_json_refuse(p, key, "must be 64 lower-case hex digits");
    strcpy(slot, text);
    return 0;
}

static int read_string(const struct json_parse *p, const struct json_field *f,
                       const json_t *value, char **slot)
{
    const char *text = json_string_value(value);

    if (f->nullable && json_is_null(value))
        return 0;
    if (!text)
        return snapshot_json_refuse(p, f->key, "must be a string");
    if (strlen(text) > SNAPSHOT_STRING_MAX)
        return snapshot_json_refuse(p, f->key, "is longer than %u bytes",
                                    SNAPSHOT_STRING_MAX);
    return snapshot_manifest_set(slot, text);
}

static int read_list(const struct json_parse *p, const struct json_field *f,
                     const json_t *value, char ***slot)
{
    const char *values[SNAPSHOT_STRINGS_MAX + 1] = {NULL};
    const json_t *item;
    size_t i;

    if (!json_is_array(value) || json_array_size(value) > SNAPSHOT_STRINGS_MAX)
        return snapshot_json_refuse(p, f->key,
                                    "must be a list of at most %u strings",
                                    SNAPSHOT_STRINGS_MAX);
    json_array_foreach(value, i, item)
    {
        values[i] = json_string_value(item);
        if (!values[i] || strlen(values[i]) > SNAPSHOT_STRING_MAX)
            return snapshot_json_refuse(p, f->key,
                                        "must hold strings of at most %u bytes",
                                        SNAPSHOT_STRING_MAX);
    }
    return snapshot_manifest_set_list(slot, values);
}

static int read_child(const struct json_parse *p, const struct json_field *f,
                      const json_t *value, void *object)
{
    struct json_parse inner = *p;
    char prefix[64];

    snprintf(prefix, sizeof(prefix), "%s%s.", p->prefix, f->key);
    inner.prefix = prefix;
    return snapshot_json_read_object(&inner, f->children, value, object);
}

static int read_field(const struct json_parse *p, const struct json_field *f,
                      const json_t *value, void *object)
{
    char *slot = (char *)object + f->offset;

    if (f->flag != 0) {
        if (json_is_null(value))
            return 0;
        *((bool *)object + f->flag) = true;
    }
    switch (f->kind) {
    case JSON_KIND_SCHEMA:
        return read_schema(p, value);
    case JSON_KIND_U64:
    case JSON_KIND_U32:
        return read_number(p, f, value, slot);
    case JSON_KIND_VERSION:
        return read_version(p, f, value);
    case JSON_KIND_BOOL:
        if (!json_is_boolean(value))
            return snapshot_json_refuse(p, f->key, "must be true or false");
        *(bool *)slot = json_is_true(value);
        return 0;
    case JSON_KIND_HEX:
        return snapshot_json_read_hex(p, f->key, value, slot);
    case JSON_KIND_TEXT:
        return snapshot_json_read_text(p, f->key, value, slot, f->max);
    case JSON_KIND_STRING:
        return read_string(p, f, value, (char **)(void *)slot);
    case JSON_KIND_LIST:
        return read_list(p, f, value, (char ***)(void *)slot);
    case JSON_KIND_OBJECT:
        return read_child(p, f, value, object);
    case JSON_KIND_OWN:
        return f->read(p, f->key, value, object);
    }
    return -EBADMSG;
}

static bool is_known(const struct json_field *fields, const char *key)
{
    for (; fields->key; fields++)
        if (strcmp(fields->key, key) == 0)
            return true;
    return false;
}

int snapshot_json_read_object(const struct json_parse *p,
                              const struct json_field *fields,
                              const json_t *tree, void *object)
{
    const char *key;
    json_t *value;

    if (!json_is_object(tree))
        return snapshot_json_refuse(p, "", "must be an object");
    /* The iterator takes a non-const tree, but changes nothing. */
    json_object_foreach((json_t *)(uintptr_t)tree, key, value)
    {
        if (!is_known(fields, key))
            return snapshot_json_refuse(p, key, "is not a key of a manifest");
    }
    for (const struct json_field *f = fields; f->key; f++) {
        int ret;

        value = json_object_get(tree, f->key);
        if (!value)
            return snapshot_json_refuse(p, f->key, "is missing");
        ret = read_field(p, f, value, object);
        if (ret != 0)
            return ret;
    }
    return 0;
}

/* A newer format is named as such, before its keys look unknown. */
static int read_versions(const struct json_parse *p, const json_t *tree)
{
    const json_t *schema = json_object_get(tree, "schema");
    const json_t *machine = json_object_get(tree, "machine");
    const json_t *version = json_object_get(machine, "version");
    static const struct json_field field = {.key = "version",
                                            .max = SNAPSHOT_MACHINE_VERSION};
    struct json_parse inner = {.prefix = "machine.", .err = p->err};
    int ret = schema ? read_schema(p, schema) : 0;

    return ret == 0 && version ? read_version(&inner, &field, version) : ret;
}

/* The text must be the one we would have written. */
static int check_canonical(const struct snapshot_manifest *m, const char *text,
                           size_t len, char *err)
{
    size_t own_len = 0;
    char *own = write_text(m, &own_len);
    bool same = own && own_len == len && memcmp(own, text, len) == 0;

    free(own);
    if (!own)
        return -ENOMEM;
    if (same)
        return 0;
    snprintf(err, SNAPSHOT_ERR_MAX, "it is not canonical JSON");
    return -EBADMSG;
}

static int read_text(const char *text, size_t len, struct snapshot_manifest *m,
                     char *err)
{
    struct json_parse p = {.prefix = "", .err = err};
    json_error_t error;
    char shown[160];
    json_t *tree;
    int ret;

    if (len > SNAPSHOT_MANIFEST_MAX) {
        snprintf(err, SNAPSHOT_ERR_MAX, "it is larger than %u bytes",
                 SNAPSHOT_MANIFEST_MAX);
        return -EBADMSG;
    }
    tree = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (!tree) {
        text_escape(error.text, strlen(error.text), shown, sizeof(shown));
        snprintf(err, SNAPSHOT_ERR_MAX, "it is not JSON: %s", shown);
        return -EBADMSG;
    }
    ret = read_versions(&p, tree);
    if (ret == 0)
        ret = snapshot_json_read_object(&p, manifest_fields, tree, m);
    if (ret == 0)
        ret = snapshot_manifest_check(m, err);
    if (ret == 0)
        ret = check_canonical(m, text, len, err);
    json_decref(tree);
    return ret == -EINVAL ? -EBADMSG : ret;
}

int snapshot_manifest_parse(const char *text, size_t len,
                            struct snapshot_manifest *ret_m,
                            char err[SNAPSHOT_ERR_MAX])
{
    struct snapshot_manifest m;
    int ret;

    snapshot_manifest_init(&m);
    snprintf(err, SNAPSHOT_ERR_MAX, "no memory");
    ret = read_text(text, len, &m, err);
    if (ret != 0) {
        snapshot_manifest_fini(&m);
        return ret;
    }
    *ret_m = m;
    return 0;
}

int snapshot_manifest_encode(const struct snapshot_manifest *m, char **ret_text,
                             size_t *ret_len, char err[SNAPSHOT_ERR_MAX])
{
    struct snapshot_manifest back;
    size_t len = 0;
    char *text;
    int ret = snapshot_manifest_check(m, err);

    if (ret != 0)
        return ret;
    text = write_text(m, &len);
    if (!text) {
        snprintf(err, SNAPSHOT_ERR_MAX, "some text in it is not UTF-8");
        return -EINVAL;
    }
    /* What we write can be read: whatever a string or a list holds. */
    ret = snapshot_manifest_parse(text, len, &back, err);
    if (ret != 0) {
        free(text);
        return ret == -ENOMEM ? ret : -EINVAL;
    }
    snapshot_manifest_fini(&back);
    *ret_text = text;
    *ret_len = len;
    return 0;
}
