/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser of image.json, one table of fields per object. It knows nothing
 * of files: image.c looks at those. The tree that jansson builds lives for
 * one call; every string that is kept is copied into the image.
 */
#include "trial/image.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/text.h"

#define PART_BYTES_MAX ((uint64_t)1 << 44)
#define RELEASE_MAX 64u
#define SHA256_SIZE 65u /* as hex, with its NUL */
#define FIELDS_MAX 16u  /* keys in one object */
#define QUOTE_MAX 40u   /* of a stranger's text in a message of ours */

enum kind {
    KIND_SCHEMA,  /* exactly IMAGE_SCHEMA; stored nowhere */
    KIND_NAME,    /* letters, digits, . _ -, no dot first; char * */
    KIND_TEXT,    /* printable ASCII; char * */
    KIND_PATH,    /* an absolute path; char * */
    KIND_CHOICE,  /* exactly the string in `choice`; char * */
    KIND_SHA256,  /* char[65] */
    KIND_BYTES,   /* uint64_t, 1 to PART_BYTES_MAX */
    KIND_OBJECT,  /* `children` */
    KIND_STRINGS, /* an object of strings: the environment */
};

struct field {
    const char *key; /* NULL ends a table */
    enum kind kind;
    bool optional;
    size_t offset; /* in struct image, for children too */
    size_t max;    /* length of a string */
    const char *choice;
    const struct field *children;
};

#define AT(member) .offset = offsetof(struct image, member)
#define PART_FIELDS(part)                                                      \
    {.key = "file", .kind = KIND_NAME, AT(part.path), .max = IMAGE_FILE_MAX},  \
        {.key = "sha256", .kind = KIND_SHA256, AT(part.sha256)},               \
    {                                                                          \
        .key = "bytes", .kind = KIND_BYTES, AT(part.bytes)                     \
    }

static const struct field kernel_fields[] = {
    PART_FIELDS(kernel),
    {.key = "release",
     .kind = KIND_TEXT,
     AT(kernel_release),
     .max = RELEASE_MAX},
    {.key = NULL},
};

static const struct field initrd_fields[] = {
    PART_FIELDS(initrd),
    {.key = NULL},
};

static const struct field rootfs_fields[] = {
    PART_FIELDS(rootfs),
    {.key = "type", .kind = KIND_CHOICE, AT(rootfs_type), .choice = "erofs"},
    {.key = NULL},
};

static const struct field scratch_fields[] = {
    PART_FIELDS(scratch),
    {.key = "type", .kind = KIND_CHOICE, AT(scratch_type), .choice = "ext4"},
    {.key = "data", .kind = KIND_BYTES, AT(scratch_data)},
    {.key = NULL},
};

static const struct field recipe_fields[] = {
    {.key = "sha256", .kind = KIND_SHA256, AT(recipe_sha256)},
    {.key = NULL},
};

static const struct field packages_fields[] = {
    {.key = "file",
     .kind = KIND_NAME,
     AT(packages_file),
     .max = IMAGE_FILE_MAX},
    {.key = "sha256", .kind = KIND_SHA256, AT(packages_sha256)},
    {.key = NULL},
};

static const struct field image_fields[] = {
    {.key = "schema", .kind = KIND_SCHEMA},
    {.key = "name", .kind = KIND_NAME, AT(name), .max = IMAGE_NAME_MAX},
    {.key = "kernel", .kind = KIND_OBJECT, .children = kernel_fields},
    {.key = "initrd", .kind = KIND_OBJECT, .children = initrd_fields},
    {.key = "rootfs", .kind = KIND_OBJECT, .children = rootfs_fields},
    {.key = "scratch", .kind = KIND_OBJECT, .children = scratch_fields},
    {.key = "cmdline",
     .kind = KIND_TEXT,
     AT(cmdline),
     .max = IMAGE_CMDLINE_MAX},
    {.key = "recipe", .kind = KIND_OBJECT, .children = recipe_fields},
    {.key = "packages",
     .kind = KIND_OBJECT,
     .optional = true,
     .children = packages_fields},
    {.key = "user",
     .kind = KIND_TEXT,
     .optional = true,
     AT(user),
     .max = IMAGE_FILE_MAX},
    {.key = "workdir",
     .kind = KIND_PATH,
     .optional = true,
     AT(workdir),
     .max = IMAGE_VALUE_MAX - 1},
    {.key = "env", .kind = KIND_STRINGS, .optional = true},
    {.key = NULL},
};

_Static_assert(ARRAY_SIZE(image_fields) <= FIELDS_MAX + 1,
               "an unknown key is compared with all of them");

/* One parse: where results and the message go. */
struct parse {
    struct image *image;
    const char *prefix; /* of keys in messages: "" or "kernel." */
    char *err;
    size_t err_size;
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct parse *p,
                                                        const char *format, ...)
{
    static const char head[] = "image.json is not usable: ";
    size_t used = sizeof(head) - 1;
    va_list args;

    if (p->err_size <= used)
        return -EBADMSG;
    memcpy(p->err, head, sizeof(head));
    va_start(args, format);
    (void)vsnprintf(p->err + used, p->err_size - used, format, args);
    va_end(args);
    return -EBADMSG;
}

/* A piece of the file, made fit for one line on a terminal. */
struct quoted {
    char text[QUOTE_MAX + 4];
};

static struct quoted quote(const char *s)
{
    struct quoted q;
    size_t i;

    for (i = 0; i < QUOTE_MAX && s[i] != '\0'; i++)
        q.text[i] = s[i] >= ' ' && s[i] <= '~' ? s[i] : '?';
    strcpy(q.text + i, s[i] != '\0' ? "..." : "");
    return q;
}

static int refuse_unknown_key(const struct parse *p, const char *key,
                              const struct field *fields)
{
    const char *names[FIELDS_MAX + 1];
    const char *nearest;
    size_t count = 0;

    for (const struct field *f = fields; f->key != NULL; f++)
        names[count++] = f->key;
    names[count] = NULL;
    nearest = text_nearest(key, names);
    if (nearest == NULL)
        return refuse(p,
                      "unknown key '%s%s'; remove it, or use a version of "
                      "microsbx that knows it",
                      p->prefix, quote(key).text);
    return refuse(p, "unknown key '%s%s'; did you mean '%s%s'?", p->prefix,
                  quote(key).text, p->prefix, nearest);
}

static bool is_printable(const char *s)
{
    for (; *s != '\0'; s++)
        if (*s < ' ' || *s > '~')
            return false;
    return true;
}

/* What may be a file's or an image's name: nothing that could be a path. */
static bool is_plain_name(const char *s)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    return s[0] != '\0' && s[0] != '.' && strspn(s, allowed) == strlen(s);
}

static bool is_sha256(const char *s)
{
    return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

static bool is_env_name(const char *s)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";

    return s[0] != '\0' && (s[0] < '0' || s[0] > '9') &&
           strspn(s, allowed) == strlen(s);
}

/* The rule a string must keep, or NULL if it keeps it. */
static const char *string_fault(const struct field *f, const char *s)
{
    if (f->max != 0 && strlen(s) > f->max)
        return "is too long";
    switch (f->kind) {
    case KIND_SCHEMA:
        return strcmp(s, IMAGE_SCHEMA) == 0
                   ? NULL
                   : "must be \"" IMAGE_SCHEMA
                     "\", the only format this version reads";
    case KIND_NAME:
        return is_plain_name(s) ? NULL
                                : "must be a plain name of letters, digits and "
                                  ". _ -, without a "
                                  "slash and not starting with a dot";
    case KIND_SHA256:
        return is_sha256(s) ? NULL : "must be 64 lower-case hex digits";
    case KIND_CHOICE:
        return strcmp(s, f->choice) == 0
                   ? NULL
                   : "names a type of file system this version does not know";
    case KIND_PATH:
        return s[0] == '/' && is_printable(s) ? NULL
                                              : "must be an absolute path";
    default:
        return is_printable(s) ? NULL : "must be printable ASCII";
    }
}

static int read_string(const struct parse *p, const struct field *f,
                       const json_t *value)
{
    char *slot = (char *)p->image + f->offset;
    const char *s = json_string_value(value);
    const char *fault;
    char *copy;

    if (s == NULL)
        return refuse(p, "'%s%s' must be a string", p->prefix, f->key);
    fault = string_fault(f, s);
    if (fault != NULL)
        return refuse(p, "'%s%s' (\"%s\") %s", p->prefix, f->key, quote(s).text,
                      fault);
    if (f->kind == KIND_SCHEMA)
        return 0;
    if (f->kind == KIND_SHA256) {
        (void)snprintf(slot, SHA256_SIZE, "%s", s);
        return 0;
    }
    copy = strdup(s);
    if (copy == NULL)
        return -ENOMEM;
    *(char **)(void *)slot = copy;
    return 0;
}

static int read_bytes(const struct parse *p, const struct field *f,
                      const json_t *value)
{
    char *slot = (char *)p->image + f->offset;
    json_int_t n = json_integer_value(value);

    if (!json_is_integer(value))
        return refuse(p, "'%s%s' must be a whole number", p->prefix, f->key);
    if (n < 1 || (uint64_t)n > PART_BYTES_MAX)
        return refuse(p, "'%s%s' must be between 1 and %" PRIu64, p->prefix,
                      f->key, PART_BYTES_MAX);
    *(uint64_t *)(void *)slot = (uint64_t)n;
    return 0;
}

static int read_env(const struct parse *p, const json_t *value)
{
    struct image *image = p->image;
    const char *name;
    json_t *item;

    if (!json_is_object(value))
        return refuse(p, "'env' must be an object of strings");
    if (json_object_size(value) > IMAGE_ENV_MAX)
        return refuse(p, "'env' has more than %u variables", IMAGE_ENV_MAX);
    /* The iterator takes a non-const tree, but changes nothing. */
    json_object_foreach((json_t *)(uintptr_t)value, name, item)
    {
        const char *s = json_string_value(item);

        if (!is_env_name(name))
            return refuse(p,
                          "'env' names \"%s\", which is no name of an "
                          "environment variable",
                          quote(name).text);
        if (s == NULL || strlen(s) > IMAGE_VALUE_MAX || !is_printable(s))
            return refuse(p,
                          "'env.%s' must be a string of at most %u "
                          "printable ASCII characters",
                          quote(name).text, IMAGE_VALUE_MAX);
        if (asprintf(&image->env[image->env_count], "%s=%s", name, s) < 0) {
            image->env[image->env_count] = NULL;
            return -ENOMEM;
        }
        image->env_count++;
    }
    return 0;
}

static int read_object(const struct parse *p, const json_t *object,
                       const struct field *fields);

static int read_child(const struct parse *p, const struct field *f,
                      const json_t *value)
{
    struct parse inner = *p;
    char prefix[32];

    if (!json_is_object(value))
        return refuse(p, "'%s%s' must be an object", p->prefix, f->key);
    (void)snprintf(prefix, sizeof(prefix), "%s.", f->key);
    inner.prefix = prefix;
    return read_object(&inner, value, f->children);
}

static int read_field(const struct parse *p, const struct field *f,
                      const json_t *value)
{
    switch (f->kind) {
    case KIND_BYTES:
        return read_bytes(p, f, value);
    case KIND_OBJECT:
        return read_child(p, f, value);
    case KIND_STRINGS:
        return read_env(p, value);
    default:
        return read_string(p, f, value);
    }
}

static const struct field *find_field(const struct field *fields,
                                      const char *key)
{
    for (; fields->key != NULL; fields++)
        if (strcmp(fields->key, key) == 0)
            return fields;
    return NULL;
}

static int read_object(const struct parse *p, const json_t *object,
                       const struct field *fields)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)object, key,
                        value) if (find_field(fields, key) ==
                                   NULL) return refuse_unknown_key(p, key,
                                                                   fields);
    for (const struct field *f = fields; f->key != NULL; f++) {
        int ret;

        value = json_object_get(object, f->key);
        if (value == NULL && f->optional)
            continue;
        if (value == NULL)
            return refuse(p, "the key '%s%s' is missing", p->prefix, f->key);
        ret = read_field(p, f, value);
        if (ret != 0)
            return ret;
    }
    return 0;
}

static int read_document(const struct parse *p, const json_t *root)
{
    const json_t *schema = json_object_get(root, "schema");

    if (!json_is_object(root))
        return refuse(p, "it must be one JSON object");
    /* A newer format is named as such, before its keys look unknown. */
    if (schema != NULL) {
        int ret = read_string(p, image_fields, schema);

        if (ret != 0)
            return ret;
    }
    return read_object(p, root, image_fields);
}

static int read_text(const struct parse *p, const char *text, size_t len)
{
    json_error_t error;
    json_t *root;
    int ret;

    if (len > IMAGE_JSON_MAX)
        return refuse(p, "it is larger than %u bytes", IMAGE_JSON_MAX);
    root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return refuse(p, "it is not JSON: line %d: %s", error.line,
                      quote(error.text).text);
    ret = read_document(p, root);
    json_decref(root);
    return ret;
}

int image_parse(const char *text, size_t len, struct image *ret_image,
                char *err, size_t err_size)
{
    char **env = calloc(IMAGE_ENV_MAX + 1, sizeof(*env));
    struct image image = {.env = env};
    struct parse p = {&image, "", err, err_size};
    int ret = env == NULL ? -ENOMEM : read_text(&p, text, len);

    if (ret == -ENOMEM && err_size > 0)
        (void)snprintf(err, err_size, "cannot read image.json: no memory");
    if (ret != 0) {
        image_fini(&image);
        return ret;
    }
    *ret_image = image;
    return 0;
}

static void part_fini(struct image_part *part)
{
    free(part->path);
}

void image_fini(struct image *image)
{
    if (image == NULL)
        return;
    for (size_t i = 0; i < image->env_count; i++)
        free(image->env[i]);
    free(image->env);
    part_fini(&image->kernel);
    part_fini(&image->initrd);
    part_fini(&image->rootfs);
    part_fini(&image->scratch);
    free(image->dir);
    free(image->name);
    free(image->kernel_release);
    free(image->rootfs_type);
    free(image->scratch_type);
    free(image->cmdline);
    free(image->packages_file);
    free(image->user);
    free(image->workdir);
    memset(image, 0, sizeof(*image));
}
