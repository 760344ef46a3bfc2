/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest's fields that are more than one value; see snapshot_json.c. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trial/snapshot_internal.h"
#include "trial/snapshot_json.h"

/* ---- machine.platform --------------------------------------------------- */

static const char *const platforms[] = {
    [VM_PLATFORM_ACPI] = "acpi",
    [VM_PLATFORM_DEVICE_TREE] = "device-tree",
};

int snapshot_json_read_platform(const struct json_parse *p, const char *key,
                                const json_t *value, void *object)
{
    struct snapshot_manifest *m = object;
    const char *text = json_string_value(value);

    for (unsigned i = 0; text && i < 2; i++) {
        if (strcmp(text, platforms[i]) == 0) {
            m->platform = (enum vm_platform)i;
            return 0;
        }
    }
    return snapshot_json_refuse(p, key, "must be \"acpi\" or \"device-tree\"");
}

json_t *snapshot_json_write_platform(const void *object)
{
    const struct snapshot_manifest *m = object;

    return json_string(
        platforms[m->platform == VM_PLATFORM_DEVICE_TREE ? 1 : 0]);
}

/* ---- machine.disks ------------------------------------------------------ */

#define DISK(member) .offset = offsetof(struct snapshot_disk, member)

static int read_mode(const struct json_parse *p, const char *key,
                     const json_t *value, void *object)
{
    struct snapshot_disk *disk = object;
    const char *text = json_string_value(value);

    if (text && strcmp(text, "ro") == 0)
        disk->mode = VM_DISK_RO;
    else if (text && strcmp(text, "cow") == 0)
        disk->mode = VM_DISK_COW;
    else
        return snapshot_json_refuse(p, key, "must be \"ro\" or \"cow\"");
    return 0;
}

static json_t *write_mode(const void *object)
{
    const struct snapshot_disk *disk = object;

    return json_string(disk->mode == VM_DISK_RO ? "ro" : "cow");
}

static const struct json_field base_fields[] = {
    {.key = "bytes",
     .kind = JSON_KIND_U64,
     DISK(bytes),
     .max = SNAPSHOT_DISK_MAX},
    {.key = "data",
     .kind = JSON_KIND_U64,
     DISK(data),
     .max = SNAPSHOT_DISK_MAX},
    {.key = "sha256", .kind = JSON_KIND_HEX, DISK(sha256)},
    {.key = "stored", .kind = JSON_KIND_BOOL, DISK(stored)},
    {.key = NULL},
};

static const struct json_field disk_fields[] = {
    {.key = "base", .kind = JSON_KIND_OBJECT, .children = base_fields},
    {.key = "id", .kind = JSON_KIND_TEXT, DISK(id), .max = VM_DISK_ID_MAX},
    {.key = "limit", .kind = JSON_KIND_U64, DISK(limit), .max = INT64_MAX},
    {.key = "mode",
     .kind = JSON_KIND_OWN,
     .read = read_mode,
     .write = write_mode},
    {.key = NULL},
};

int snapshot_json_read_disks(const struct json_parse *p, const char *key,
                             const json_t *value, void *object)
{
    struct snapshot_manifest *m = object;
    const json_t *item;
    size_t i;

    if (!json_is_array(value) || json_array_size(value) > VM_DISKS_MAX)
        return snapshot_json_refuse(p, key, "must be a list of at most %u",
                                    VM_DISKS_MAX);
    json_array_foreach(value, i, item)
    {
        struct json_parse inner = *p;
        char prefix[64];
        int ret;

        snprintf(prefix, sizeof(prefix), "%s%s[%zu].", p->prefix, key, i);
        inner.prefix = prefix;
        ret =
            snapshot_json_read_object(&inner, disk_fields, item, &m->disks[i]);
        if (ret != 0)
            return ret;
        m->disk_count = (uint32_t)i + 1;
    }
    return 0;
}

json_t *snapshot_json_write_disks(const void *object)
{
    const struct snapshot_manifest *m = object;
    json_t *array = json_array();

    for (uint32_t i = 0; array && i < m->disk_count; i++) {
        if (json_array_append_new(array, snapshot_json_write_object(
                                             disk_fields, &m->disks[i])) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

/* ---- cpu.features ------------------------------------------------------- */

static int read_word(const struct json_parse *p, const char *key,
                     const json_t *value, uint32_t *ret_word)
{
    const char *text = json_string_value(value);

    if (!text || strlen(text) != 8 || strspn(text, "0123456789abcdef") != 8)
        return snapshot_json_refuse(p, key, "must be 8 lower-case hex digits");
    *ret_word = (uint32_t)strtoul(text, NULL, 16);
    return 0;
}

int snapshot_json_read_features(const struct json_parse *p, const char *key,
                                const json_t *value, void *object)
{
    struct snapshot_manifest *m = object;

    if (json_object_size(value) != SNAPSHOT_CPUID_WORDS)
        return snapshot_json_refuse(p, key, "must be an object of %d words",
                                    SNAPSHOT_CPUID_WORDS);
    for (unsigned i = 0; i < SNAPSHOT_CPUID_WORDS; i++) {
        const char *name = snapshot_cpuid_name((enum snapshot_cpuid)i);
        const json_t *word = json_object_get(value, name);
        int ret = word
                      ? read_word(p, key, word, &m->cpuid[i])
                      : snapshot_json_refuse(p, key, "lacks the word %s", name);

        if (ret != 0)
            return ret;
    }
    return 0;
}

json_t *snapshot_json_write_features(const void *object)
{
    const struct snapshot_manifest *m = object;
    json_t *tree = json_object();
    char text[9];

    for (unsigned i = 0; tree && i < SNAPSHOT_CPUID_WORDS; i++) {
        snprintf(text, sizeof(text), "%08x", m->cpuid[i]);
        if (json_object_set_new(tree,
                                snapshot_cpuid_name((enum snapshot_cpuid)i),
                                json_string(text)) != 0) {
            json_decref(tree);
            tree = NULL;
        }
    }
    return tree;
}

/* ---- image.env ---------------------------------------------------------- */

int snapshot_json_read_env(const struct json_parse *p, const char *key,
                           const json_t *value, void *object)
{
    struct snapshot_manifest *m = object;
    size_t count = json_object_size(value), i = 0;
    const char *name;
    json_t *item;

    if (!json_is_object(value) || count > SNAPSHOT_STRINGS_MAX)
        return snapshot_json_refuse(p, key,
                                    "must be an object of at most %u strings",
                                    SNAPSHOT_STRINGS_MAX);
    m->env = calloc(count + 1, sizeof(*m->env));
    if (!m->env)
        return -ENOMEM;
    json_object_foreach((json_t *)(uintptr_t)value, name, item)
    {
        const char *text = json_string_value(item);

        if (!text || strchr(name, '=') || !name[0] ||
            strlen(name) + strlen(text) > SNAPSHOT_STRING_MAX)
            return snapshot_json_refuse(p, key,
                                        "holds something that is no variable");
        if (asprintf(&m->env[i], "%s=%s", name, text) < 0) {
            m->env[i] = NULL;
            return -ENOMEM;
        }
        i++;
    }
    return 0;
}

json_t *snapshot_json_write_env(const void *object)
{
    const struct snapshot_manifest *m = object;
    json_t *tree = json_object();

    for (size_t i = 0; tree && m->env && m->env[i]; i++) {
        const char *equals = strchr(m->env[i], '=');
        char *name =
            equals ? strndup(m->env[i], (size_t)(equals - m->env[i])) : NULL;

        if (!name ||
            json_object_set_new(tree, name, json_string(equals + 1)) != 0) {
            json_decref(tree);
            tree = NULL;
        }
        free(name);
    }
    return tree;
}

/* ---- files -------------------------------------------------------------- */

#define FILE_AT(member) .offset = offsetof(struct snapshot_file, member)
#define FILE_BYTES                                                             \
    {                                                                          \
        .key = "bytes", .kind = JSON_KIND_U64, FILE_AT(bytes),                 \
        .max = 2 * SNAPSHOT_DISK_MAX                                           \
    }

static const struct json_field plain_fields[] = {
    FILE_BYTES,
    {.key = "sha256", .kind = JSON_KIND_HEX, FILE_AT(digest)},
    {.key = NULL},
};

static const struct json_field tree_fields[] = {
    FILE_BYTES,
    {.key = "tree", .kind = JSON_KIND_HEX, FILE_AT(digest)},
    {.key = NULL},
};

static int compare_files(const void *a, const void *b)
{
    const struct snapshot_file *p = a, *q = b;

    return strcmp(p->name, q->name);
}

int snapshot_json_read_files(const struct json_parse *p, const char *key,
                             const json_t *value, void *object)
{
    struct snapshot_manifest *m = object;
    const char *name;
    json_t *item;

    if (!json_is_object(value) || json_object_size(value) > SNAPSHOT_FILES_MAX)
        return snapshot_json_refuse(p, key, "must be an object of at most %u",
                                    SNAPSHOT_FILES_MAX);
    json_object_foreach((json_t *)(uintptr_t)value, name, item)
    {
        struct snapshot_file *file = &m->files[m->file_count];
        struct json_parse inner = *p;
        char prefix[128];
        int ret;

        if (strlen(name) > SNAPSHOT_NAME_MAX || strchr(name, '/'))
            return snapshot_json_refuse(p, key, "holds a name that is none");
        snprintf(prefix, sizeof(prefix), "%s.", key);
        inner.prefix = prefix;
        strcpy(file->name, name);
        file->tree = json_object_get(item, "tree") != NULL;
        ret = snapshot_json_read_object(
            &inner, file->tree ? tree_fields : plain_fields, item, file);
        if (ret != 0)
            return ret;
        m->file_count++;
    }
    qsort(m->files, m->file_count, sizeof(m->files[0]), compare_files);
    return 0;
}

json_t *snapshot_json_write_files(const void *object)
{
    const struct snapshot_manifest *m = object;
    json_t *tree = json_object();

    for (uint32_t i = 0; tree && i < m->file_count; i++) {
        const struct snapshot_file *file = &m->files[i];

        if (json_object_set_new(
                tree, file->name,
                snapshot_json_write_object(
                    file->tree ? tree_fields : plain_fields, file)) != 0) {
            json_decref(tree);
            tree = NULL;
        }
    }
    return tree;
}
