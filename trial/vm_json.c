/* SPDX-License-Identifier: Apache-2.0 */
/* vm.json, read strictly; see the header. */
#include "trial/vm_json.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "base/text.h"

/* One value of the file, with what is needed to complain about it. */
struct field {
    const char *file; /* name of the file */
    const char *key;
    const json_t *value;
    struct machine_spec *spec;
    struct failure *f;
};

struct key {
    const char *name;
    int (*read)(const struct field *field);
};

static int fail(const struct field *field, const char *why)
{
    failure_set(field->f, "config", field->file, "see microsbx boot --help",
                "cannot use the configuration %s: key \"%s\" %s", field->file,
                field->key, why);
    return -EINVAL;
}

static int fail_unknown(const struct field *field, const struct key *keys)
{
    const char *names[16];
    const char *near;
    char shown[64], why[160];
    size_t count = 0;
    struct field safe = *field;

    for (; keys[count].name; count++)
        names[count] = keys[count].name;
    names[count] = NULL;
    text_escape(field->key, strlen(field->key), shown, sizeof(shown));
    near = text_nearest(shown, names);
    snprintf(why, sizeof(why), "is not known%s%s%s",
             near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    safe.key = shown;
    return fail(&safe, why);
}

/* Reads each member of an object by its key's function. */
static int read_object(const struct field *field, const struct key *keys)
{
    const char *name;
    json_t *value;

    if (!json_is_object(field->value))
        return fail(field, "must be an object");
    json_object_foreach((json_t *)(uintptr_t)field->value, name, value)
    {
        struct field member = *field;
        const struct key *k = keys;
        int ret;

        member.key = name;
        member.value = value;
        while (k->name && strcmp(k->name, name) != 0)
            k++;
        ret = k->name ? k->read(&member) : fail_unknown(&member, keys);
        if (ret != 0)
            return ret;
    }
    return 0;
}

static int read_string(const struct field *field, char **ret)
{
    const char *text = json_string_value(field->value);

    if (!text || text[0] == '\0')
        return fail(field, "must be a string that is not empty");
    if (strlen(text) != json_string_length(field->value))
        return fail(field, "must not hold a NUL byte");
    return machine_spec_set(ret, text) == 0 ? 0 : fail(field, "out of memory");
}

static int read_number(const struct field *field, uint64_t min, uint64_t max,
                       uint64_t *ret)
{
    json_int_t value = json_integer_value(field->value);
    char why[80];

    if (!json_is_integer(field->value) || value < 0 || (uint64_t)value < min ||
        (uint64_t)value > max) {
        snprintf(why, sizeof(why), "must be a whole number from %llu to %llu",
                 (unsigned long long)min, (unsigned long long)max);
        return fail(field, why);
    }
    *ret = (uint64_t)value;
    return 0;
}

static int read_kernel(const struct field *field)
{
    return read_string(field, &field->spec->kernel);
}

static int read_initrd(const struct field *field)
{
    return read_string(field, &field->spec->initrd);
}

static int read_boot_args(const struct field *field)
{
    return read_string(field, &field->spec->cmdline);
}

static int read_boot_source(const struct field *field)
{
    static const struct key KEYS[] = {
        {"kernel_image_path", read_kernel},
        {"initrd_path", read_initrd},
        {"boot_args", read_boot_args},
        {NULL, NULL},
    };

    return read_object(field, KEYS);
}

static int read_vcpus(const struct field *field)
{
    return read_number(field, 1, VM_CPUS_MAX, &field->spec->cpu_count);
}

static int read_memory(const struct field *field)
{
    uint64_t mib = 0;
    int ret =
        read_number(field, VM_MEMORY_MIN / MIB, VM_MEMORY_MAX / MIB, &mib);

    if (ret == 0)
        field->spec->memory_bytes = mib * MIB;
    return ret;
}

static int read_machine_config(const struct field *field)
{
    static const struct key KEYS[] = {
        {"vcpu_count", read_vcpus},
        {"mem_size_mib", read_memory},
        {NULL, NULL},
    };

    return read_object(field, KEYS);
}

static int read_cid(const struct field *field)
{
    return read_number(field, 3, UINT32_MAX - 1, &field->spec->guest_cid);
}

static int read_uds(const struct field *field)
{
    return read_string(field, &field->spec->vsock_path);
}

static int read_vsock(const struct field *field)
{
    static const struct key KEYS[] = {
        {"guest_cid", read_cid},
        {"uds_path", read_uds},
        {NULL, NULL},
    };

    return read_object(field, KEYS);
}

static int read_entropy(const struct field *field)
{
    static const struct key KEYS[] = {{NULL, NULL}};

    return read_object(field, KEYS);
}

/* The drive in hand is the last of the list. */
static struct disk_spec *last_drive(const struct field *field)
{
    return &field->spec->disks[field->spec->disk_count - 1];
}

static int read_drive_id(const struct field *field)
{
    const char *text = json_string_value(field->value);
    struct disk_spec *disk = last_drive(field);

    if (!text || strlen(text) != json_string_length(field->value) ||
        !machine_spec_id_is_valid(text))
        return fail(field, "must be 1 to 20 letters, digits, '-', '_' or '.'");
    strcpy(disk->id, text);
    return 0;
}

static int read_drive_path(const struct field *field)
{
    return read_string(field, &last_drive(field)->path);
}

static int read_drive_readonly(const struct field *field)
{
    if (!json_is_boolean(field->value))
        return fail(field, "must be true or false");
    last_drive(field)->mode =
        json_is_true(field->value) ? VM_DISK_RO : VM_DISK_RW;
    return 0;
}

static int read_drive_root(const struct field *field)
{
    if (!json_is_boolean(field->value))
        return fail(field, "must be true or false");
    if (json_is_true(field->value) && field->spec->disk_count != 1)
        return fail(field, "can be true for the first drive only");
    return 0;
}

static int read_drive(const struct field *field)
{
    static const struct key KEYS[] = {
        {"drive_id", read_drive_id},
        {"path_on_host", read_drive_path},
        {"is_read_only", read_drive_readonly},
        {"is_root_device", read_drive_root},
        {NULL, NULL},
    };
    struct machine_spec *spec = field->spec;
    int ret;

    if (spec->disk_count == VM_DISKS_MAX)
        return fail(field, "has too many drives (8 at most)");
    spec->disks[spec->disk_count++] = (struct disk_spec){.mode = VM_DISK_RW};
    ret = read_object(field, KEYS);
    if (ret == 0 && !last_drive(field)->path)
        ret = fail(field, "has a drive without \"path_on_host\"");
    return ret;
}

static int read_drives(const struct field *field)
{
    const json_t *drive;
    size_t i;

    if (!json_is_array(field->value))
        return fail(field, "must be a list");
    json_array_foreach(field->value, i, drive)
    {
        struct field member = *field;
        int ret;

        member.value = drive;
        ret = read_drive(&member);
        if (ret != 0)
            return ret;
    }
    return 0;
}

int vm_json_parse(const char *text, size_t len, const char *name,
                  struct machine_spec *spec, struct failure *f)
{
    static const struct key KEYS[] = {
        {"boot-source", read_boot_source},
        {"drives", read_drives},
        {"machine-config", read_machine_config},
        {"vsock", read_vsock},
        {"entropy", read_entropy},
        {NULL, NULL},
    };
    json_error_t error;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    struct field field = {
        .file = name, .key = "(top)", .value = root, .spec = spec, .f = f};
    char shown[200];
    int ret;

    if (!root) {
        text_escape(error.text, strlen(error.text), shown, sizeof(shown));
        failure_set(f, "config", name, "correct the file",
                    "cannot read the configuration %s: line %d: %s", name,
                    error.line, shown);
        return -EBADMSG;
    }
    ret = read_object(&field, KEYS);
    json_decref(root);
    return ret;
}

int vm_json_read(const char *path, struct machine_spec *spec, struct failure *f)
{
    char *text = malloc(VM_JSON_MAX + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t n = fd < 0 ? -errno : -ENOMEM;

    if (fd >= 0 && text)
        n = io_read_full(fd, text, VM_JSON_MAX + 1);
    io_close(&fd);
    if (n < 0 || n > (ssize_t)VM_JSON_MAX) {
        failure_set(f, "config", path, "check the path given",
                    "cannot read the configuration %s: %s", path,
                    n < 0 ? strerror((int)-n) : "it is larger than 64 KiB");
        free(text);
        return n < 0 ? (int)n : -EFBIG;
    }
    n = vm_json_parse(text, (size_t)n, path, spec, f);
    free(text);
    return (int)n;
}
