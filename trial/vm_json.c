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

#define PARTUUID_MAX 40u

/* One value of the file, with what is needed to complain about it. */
struct field {
    const char *file; /* name of the file */
    const char *key;
    const json_t *value;
    struct machine_spec *spec;
    struct failure *f;
};

/*
 * What is not there in a file (null, as Firecracker's own exported ones have
 * it, or nothing in a list or an object) is always taken. Of what is there,
 * `read` makes something; without it, `why` says why nothing can be made of it.
 */
struct key {
    const char *name;
    int (*read)(const struct field *field);
    const char *why; /* a clause that goes on "cannot be honoured: " */
};

static const char RATES[] =
    "there are no rates; a limit of the host's control group (io.max) does it";
static const char NETWORK[] =
    "a machine has no network; use vsock, microsbx exec and microsbx cp";

static int fail(const struct field *field, const char *why)
{
    failure_set(field->f, "config", field->file, "see microsbx boot --help",
                "cannot use the configuration %s: key \"%s\" %s", field->file,
                field->key, why);
    return -EINVAL;
}

static int fail_unknown(const struct field *field, const struct key *keys)
{
    const char *names[32];
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

static bool is_nothing(const json_t *value)
{
    const char *name;
    json_t *member;

    if (json_is_array(value))
        return json_array_size(value) == 0;
    if (!json_is_object(value))
        return json_is_null(value);
    json_object_foreach((json_t *)(uintptr_t)value, name, member)
    {
        if (!json_is_null(member))
            return false;
    }
    return true;
}

/* One that is known: read, or refused with its reason. */
static int read_known(const struct field *field, const struct key *key)
{
    char why[200];

    if (json_is_null(field->value))
        return 0;
    if (key->read)
        return key->read(field);
    if (!key->why || is_nothing(field->value))
        return 0;
    snprintf(why, sizeof(why), "cannot be honoured: %s", key->why);
    return fail(field, why);
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
        ret = k->name ? read_known(&member, k) : fail_unknown(&member, keys);
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
        {"kernel_image_path", read_kernel, NULL},
        {"initrd_path", read_initrd, NULL},
        {"boot_args", read_boot_args, NULL},
        {NULL, NULL, NULL},
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

/* A word of a list that means what is so here anyway. */
static int read_word(const struct field *field, const char *const *words,
                     const char *why)
{
    const char *word = json_string_value(field->value);
    char shown[40], all[160];

    for (size_t i = 0; word && words[i]; i++) {
        if (!strcmp(word, words[i]))
            return 0;
    }
    if (!word)
        return fail(field, "must be a string");
    text_escape(word, strlen(word), shown, sizeof(shown));
    snprintf(all, sizeof(all), "cannot be honoured: \"%s\": %s", shown, why);
    return fail(field, all);
}

static int read_smt(const struct field *field)
{
    if (!json_is_boolean(field->value))
        return fail(field, "must be true or false");
    return json_is_false(field->value)
               ? 0
               : fail(field, "cannot be honoured: true: a guest's CPUs are "
                             "cores of their own");
}

/* A diff is made by comparing; pages are tracked when they need to be. */
static int read_track_dirty(const struct field *field)
{
    return json_is_boolean(field->value) ? 0
                                         : fail(field, "must be true or false");
}

static int read_huge_pages(const struct field *field)
{
    static const char *const WORDS[] = {"None", NULL};

    return read_word(field, WORDS, "guest memory has pages of 4 KiB");
}

static int read_cpu_template(const struct field *field)
{
    static const char *const WORDS[] = {"None", NULL};

    return read_word(field, WORDS,
                     "guests have the host's CPU; where a snapshot may go is "
                     "checked when it is restored");
}

static int read_machine_config(const struct field *field)
{
    static const struct key KEYS[] = {
        {"vcpu_count", read_vcpus, NULL},
        {"mem_size_mib", read_memory, NULL},
        {"smt", read_smt, NULL},
        {"ht_enabled", read_smt, NULL}, /* as smt was called before */
        {"track_dirty_pages", read_track_dirty, NULL},
        {"huge_pages", read_huge_pages, NULL},
        {"cpu_template", read_cpu_template, NULL},
        {"gdb_socket_path", NULL, "there is no debugger's stub"},
        {NULL, NULL, NULL},
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

/* Firecracker takes it, and makes nothing of it any more. */
static int read_vsock_id(const struct field *field)
{
    return json_is_string(field->value) ? 0 : fail(field, "must be a string");
}

static int read_vsock(const struct field *field)
{
    static const struct key KEYS[] = {
        {"guest_cid", read_cid, NULL},
        {"uds_path", read_uds, NULL},
        {"vsock_id", read_vsock_id, NULL},
        {NULL, NULL, NULL},
    };

    return read_object(field, KEYS);
}

static int read_entropy(const struct field *field)
{
    static const struct key KEYS[] = {
        {"rate_limiter", NULL, RATES},
        {NULL, NULL, NULL},
    };

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

/* The kernel is told, as Firecracker tells it; by read_drive, at its end. */
static int read_drive_root(const struct field *field)
{
    if (!json_is_boolean(field->value))
        return fail(field, "must be true or false");
    if (json_is_true(field->value) && field->spec->disk_count != 1)
        return fail(field, "can be true for the first drive only");
    return 0;
}

/* It goes into the kernel's command line: nothing but what an id is made of. */
static int read_drive_partuuid(const struct field *field)
{
    const char *text = json_string_value(field->value);

    if (!text || strlen(text) != json_string_length(field->value) ||
        text[0] == '\0' || strlen(text) > PARTUUID_MAX ||
        strspn(text, "0123456789abcdefABCDEF-") != strlen(text))
        return fail(field, "must be 1 to 40 hexadecimal digits or '-'");
    return 0;
}

/* A flush is a flush, whatever the file says: "Unsafe" gets more than asked. */
static int read_cache_type(const struct field *field)
{
    static const char *const WORDS[] = {"Unsafe", "Writeback", NULL};

    return read_word(field, WORDS, "give Unsafe or Writeback");
}

static int read_io_engine(const struct field *field)
{
    static const char *const WORDS[] = {"Sync", NULL};

    return read_word(field, WORDS,
                     "the monitor reads and writes synchronously; give Sync");
}

static int set_root(const struct field *field)
{
    const json_t *partuuid = json_object_get(field->value, "partuuid");
    const char *id = json_string_value(partuuid);
    const char *mode = last_drive(field)->mode == VM_DISK_RO ? "ro" : "rw";
    char words[PARTUUID_MAX + 32];

    if (!json_is_true(json_object_get(field->value, "is_root_device")))
        return 0;
    if (id)
        snprintf(words, sizeof(words), "root=PARTUUID=%s %s", id, mode);
    else
        snprintf(words, sizeof(words), "root=/dev/vda %s", mode);
    return machine_spec_set(&field->spec->root, words) == 0
               ? 0
               : fail(field, "out of memory");
}

static int read_drive(const struct field *field)
{
    static const struct key KEYS[] = {
        {"drive_id", read_drive_id, NULL},
        {"path_on_host", read_drive_path, NULL},
        {"is_read_only", read_drive_readonly, NULL},
        {"is_root_device", read_drive_root, NULL},
        {"partuuid", read_drive_partuuid, NULL},
        {"cache_type", read_cache_type, NULL},
        {"io_engine", read_io_engine, NULL},
        {"rate_limiter", NULL, RATES},
        {"socket", NULL, "a disk is a file here; give path_on_host"},
        {NULL, NULL, NULL},
    };
    struct machine_spec *spec = field->spec;
    int ret;

    if (spec->disk_count == VM_DISKS_MAX)
        return fail(field, "has too many drives (8 at most)");
    spec->disks[spec->disk_count++] = (struct disk_spec){.mode = VM_DISK_RW};
    ret = read_object(field, KEYS);
    if (ret == 0 && !last_drive(field)->path)
        ret = fail(field, "has a drive without \"path_on_host\"");
    return ret ? ret : set_root(field);
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
        {"boot-source", read_boot_source, NULL},
        {"drives", read_drives, NULL},
        {"machine-config", read_machine_config, NULL},
        {"vsock", read_vsock, NULL},
        {"entropy", read_entropy, NULL},
        {"network-interfaces", NULL, NETWORK},
        {"mmds-config", NULL, NETWORK},
        {"balloon", NULL, "there is no balloon; a machine has its memory"},
        {"memory-hotplug", NULL, "give all of it as mem_size_mib"},
        {"pmem", NULL, "give the file as a drive"},
        {"cpu-config", NULL, "guests have the host's CPU"},
        {"logger", NULL, "there is no log; --events tells what happens"},
        {"metrics", NULL, "the result (--json) has the counters"},
        {"serial", NULL, "the console goes to standard output"},
        {NULL, NULL, NULL},
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
        failure_set(f, "config", path,
                    failure_remedy(n < 0 ? (int)n : 0, "check the path given"),
                    "cannot read the configuration %s: %s", path,
                    n < 0 ? strerror((int)-n) : "it is larger than 64 KiB");
        free(text);
        return n < 0 ? (int)n : -EFBIG;
    }
    n = vm_json_parse(text, (size_t)n, path, spec, f);
    free(text);
    return (int)n;
}
