/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest as data, and what must hold in it; see the header. */
#include "trial/snapshot_manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cow_format.h"
#include "base/num.h"
#include "trial/machine_spec.h"
#include "trial/snapshot_internal.h"

const char *snapshot_cpuid_name(enum snapshot_cpuid word)
{
    return word < SNAPSHOT_CPUID_WORDS ? PROBE_CPUID[word].name : "unknown";
}

static void free_list(char **list)
{
    for (size_t i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}

int snapshot_manifest_set(char **field, const char *value)
{
    char *copy = value ? strdup(value) : NULL;

    if (value && !copy)
        return -ENOMEM;
    free(*field);
    *field = copy;
    return 0;
}

int snapshot_manifest_set_list(char ***field, const char *const *values)
{
    size_t count = 0;
    char **copy = NULL;

    while (values && values[count])
        count++;
    if (values) {
        copy = calloc(count + 1, sizeof(*copy));
        if (!copy)
            return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        copy[i] = strdup(values[i]);
        if (!copy[i]) {
            free_list(copy);
            return -ENOMEM;
        }
    }
    free_list(*field);
    *field = copy;
    return 0;
}

void snapshot_manifest_init(struct snapshot_manifest *m)
{
    memset(m, 0, sizeof(*m));
    m->page_size = SNAPSHOT_PAGE;
}

void snapshot_manifest_fini(struct snapshot_manifest *m)
{
    free_list(m->kvm_needed);
    free_list(m->env);
    free_list(m->warmup);
    free(m->kernel_release);
    free(m->image_name);
    free(m->user);
    free(m->workdir);
    free(m->warmup_ready);
    snapshot_manifest_init(m);
}

const struct snapshot_file *
snapshot_manifest_file(const struct snapshot_manifest *m, const char *name)
{
    for (uint32_t i = 0; i < m->file_count; i++)
        if (strcmp(m->files[i].name, name) == 0)
            return &m->files[i];
    return NULL;
}

const struct snapshot_disk *
snapshot_manifest_disk(const struct snapshot_manifest *m, const char *id)
{
    for (uint32_t i = 0; i < m->disk_count; i++)
        if (strcmp(m->disks[i].id, id) == 0)
            return &m->disks[i];
    return NULL;
}

struct snapshot_name snapshot_disk_file_name(const char *id,
                                             enum snapshot_disk_file which)
{
    static const char *const formats[] = {
        [SNAPSHOT_DISK_BASE] = "base-%.20s",
        [SNAPSHOT_DISK_COW] = "disk-%.20s.cow",
        [SNAPSHOT_DISK_MAP] = "disk-%.20s.map",
    };
    struct snapshot_name name;

    snprintf(name.text, sizeof(name.text), formats[which], id);
    return name;
}

uint64_t snapshot_chunks(uint64_t bytes)
{
    return bytes / SNAPSHOT_CHUNK + (bytes % SNAPSHOT_CHUNK != 0);
}

/* Pre: the disk's size was checked. */
static struct cow_format disk_format(const struct snapshot_disk *disk)
{
    struct cow_format format = {0};

    if (cow_format_init(&format, disk->bytes) < 0)
        format.file_len = 0;
    return format;
}

uint64_t snapshot_cow_bytes(const struct snapshot_disk *disk)
{
    return disk_format(disk).file_len;
}

uint64_t snapshot_leaf_count(const struct snapshot_manifest *m)
{
    uint64_t count = snapshot_chunks(m->memory_bytes);

    for (uint32_t i = 0; i < m->disk_count; i++) {
        count += snapshot_chunks(m->disks[i].bytes);
        if (m->disks[i].mode == VM_DISK_COW)
            count += snapshot_chunks(snapshot_cow_bytes(&m->disks[i]));
    }
    return count;
}

/* The files that are expected, so far. */
struct expected {
    struct snapshot_file *files;
    unsigned count;
};

static void add_file(struct expected *e, const char *name, uint64_t bytes,
                     bool tree)
{
    struct snapshot_file *file = &e->files[e->count++];

    memset(file, 0, sizeof(*file));
    snprintf(file->name, sizeof(file->name), "%s", name);
    file->bytes = bytes;
    file->tree = tree;
}

static int compare_names(const void *a, const void *b)
{
    const struct snapshot_file *p = a, *q = b;

    return strcmp(p->name, q->name);
}

static void expect_disk(struct expected *e, const struct snapshot_disk *disk,
                        bool is_diff)
{
    struct cow_format format = disk_format(disk);

    if (disk->stored)
        add_file(e, snapshot_disk_file_name(disk->id, SNAPSHOT_DISK_BASE).text,
                 disk->bytes, true);
    if (disk->mode != VM_DISK_COW)
        return;
    add_file(e, snapshot_disk_file_name(disk->id, SNAPSHOT_DISK_COW).text,
             format.file_len, true);
    if (is_diff)
        add_file(e, snapshot_disk_file_name(disk->id, SNAPSHOT_DISK_MAP).text,
                 format.bits_len, false);
}

unsigned
snapshot_manifest_expect(const struct snapshot_manifest *m,
                         struct snapshot_file ret_files[SNAPSHOT_FILES_MAX])
{
    struct expected e = {.files = ret_files};

    add_file(&e, "leaves", snapshot_leaf_count(m) * DIGEST_SIZE, false);
    add_file(&e, "memory", m->memory_bytes, true);
    add_file(&e, "state", 0, false);
    if (m->has_parent)
        add_file(&e, "memory.map", m->memory_bytes / SNAPSHOT_PAGE / 8, false);
    for (uint32_t i = 0; i < m->disk_count; i++)
        expect_disk(&e, &m->disks[i], m->has_parent);
    qsort(ret_files, e.count, sizeof(ret_files[0]), compare_names);
    return e.count;
}

static int complain(char err[SNAPSHOT_ERR_MAX], const char *what)
{
    snprintf(err, SNAPSHOT_ERR_MAX, "%s", what);
    return -EINVAL;
}

static int check_disk(const struct snapshot_manifest *m, uint32_t i,
                      char err[SNAPSHOT_ERR_MAX])
{
    const struct snapshot_disk *disk = &m->disks[i];

    if (!machine_spec_id_is_valid(disk->id))
        return complain(err, "a disk has no valid id");
    if (snapshot_manifest_disk(m, disk->id) != disk)
        return complain(err, "two disks have the same id");
    if (disk->mode != VM_DISK_RO && disk->mode != VM_DISK_COW)
        return complain(err, "a disk is neither ro nor cow");
    if (disk->mode == VM_DISK_RO && disk->limit != 0)
        return complain(err, "a read-only disk has a limit");
    if (disk->bytes == 0 || disk->bytes % 512 != 0 ||
        disk->bytes > SNAPSHOT_DISK_MAX)
        return complain(err, "a disk has no valid size");
    if (disk->data > disk->bytes)
        return complain(err, "a disk has more data than bytes");
    return 0;
}

/* Exactly the expected files, each of its expected size. */
static int check_files(const struct snapshot_manifest *m,
                       char err[SNAPSHOT_ERR_MAX])
{
    struct snapshot_file expected[SNAPSHOT_FILES_MAX];
    unsigned count = snapshot_manifest_expect(m, expected);

    if (count != m->file_count)
        return complain(err, "the files are not those of such a machine");
    for (unsigned i = 0; i < count; i++) {
        const struct snapshot_file *want = &expected[i], *have = &m->files[i];
        bool is_state = strcmp(want->name, "state") == 0;

        if (strcmp(want->name, have->name) != 0 || want->tree != have->tree)
            return complain(err, "the files are not those of such a machine");
        if (is_state ? have->bytes == 0 || have->bytes > SNAPSHOT_STATE_MAX
                     : have->bytes != want->bytes) {
            snprintf(err, SNAPSHOT_ERR_MAX,
                     "the file %.63s cannot have this size in such a machine",
                     want->name);
            return -EINVAL;
        }
    }
    return 0;
}

int snapshot_manifest_check(const struct snapshot_manifest *m,
                            char err[SNAPSHOT_ERR_MAX])
{
    int ret = 0;

    if (m->memory_bytes < VM_MEMORY_MIN || m->memory_bytes > VM_MEMORY_MAX ||
        m->memory_bytes % VM_MEMORY_ALIGN != 0)
        return complain(err, "the size of memory is not one a machine has");
    if (m->cpus < 1 || m->cpus > VM_CPUS_MAX)
        return complain(err, "the number of CPUs is not one a machine has");
    if (m->disk_count > VM_DISKS_MAX)
        return complain(err, "there are too many disks");
    if (m->vsock && (m->guest_cid < 3 || m->guest_cid > 0xfffffffe))
        return complain(err, "the guest's CID is not one a guest can have");
    if (m->memory_pages > m->memory_bytes / SNAPSHOT_PAGE ||
        m->memory_used > m->memory_bytes)
        return complain(err, "more memory is in use than there is");
    if (m->has_warmup && (!m->warmup || !m->warmup[0]))
        return complain(err, "the warm-up has no command");
    for (uint32_t i = 0; ret == 0 && i < m->disk_count; i++)
        ret = check_disk(m, i, err);
    return ret == 0 ? check_files(m, err) : ret;
}
