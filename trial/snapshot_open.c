/* SPDX-License-Identifier: Apache-2.0 */
/* A published snapshot, opened and watched; see trial/snapshot.h. */
#include "trial/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/snapshot_internal.h"

const char *snapshot_check_name(enum snapshot_check check)
{
    switch (check) {
    case SNAPSHOT_CHECK_FULL:
        return "full";
    case SNAPSHOT_CHECK_SAMPLED:
        return "sampled";
    case SNAPSHOT_CHECK_NONE:
        return "none";
    case SNAPSHOT_CHECK_STAMP:
        return "stamp";
    case SNAPSHOT_CHECK_DEFAULT:
        break;
    }
    return "default";
}

int64_t snapshot_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static struct snapshot *
snapshot_new(const struct snapshot_open_options *options)
{
    struct snapshot *s = calloc(1, sizeof(*s));
    struct snapshot_watch *watch = calloc(1, sizeof(*watch));

    if (!s || !watch) {
        free(s);
        free(watch);
        return NULL;
    }
    s->watch = watch;
    s->state_fd = s->memory_fd = s->leaves_fd = -1;
    watch->flat_memory.fd = -1;
    for (unsigned i = 0; i < VM_DISKS_MAX; i++) {
        s->disks[i].base_fd = s->disks[i].cow_fd = -1;
        watch->bases[i].entry.fd = watch->flat_cows[i].fd = -1;
    }
    watch->opened_ns = snapshot_now_ns();
    watch->cancel.cancelled = options->cancelled;
    watch->cancel.ctx = options->ctx;
    watch->seal_max = options->seal_max;
    watch->many = options->many;
    return s;
}

void snapshot_close(struct snapshot *snapshot)
{
    if (!snapshot)
        return;
    io_close(&snapshot->state_fd);
    io_close(&snapshot->memory_fd);
    io_close(&snapshot->leaves_fd);
    for (unsigned i = 0; i < VM_DISKS_MAX; i++) {
        io_close(&snapshot->disks[i].base_fd);
        io_close(&snapshot->disks[i].cow_fd);
        free(snapshot->disks[i].replaced);
        io_close(&snapshot->watch->bases[i].entry.fd);
        free(snapshot->watch->bases[i].path);
    }
    snapshot_flat_close(snapshot->watch);
    for (unsigned i = 0; i < snapshot->watch->depth; i++)
        snapshot_member_close(&snapshot->watch->chain[i]);
    free(snapshot->watch);
    free(snapshot);
}

/* ---- descriptors -------------------------------------------------------- */

static int duplicate(int fd, int *ret_fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (copy < 0)
        return -errno;
    *ret_fd = copy;
    return 0;
}

static int take_disk(struct snapshot *s, uint32_t i, bool with_cow)
{
    const struct snapshot_member *m = &s->watch->chain[0];
    const struct snapshot_disk *disk = &m->manifest.disks[i];
    struct snapshot_name name =
        snapshot_disk_file_name(disk->id, SNAPSHOT_DISK_COW);
    int ret = 0;

    if (s->watch->bases[i].path)
        ret = duplicate(s->watch->bases[i].entry.fd, &s->disks[i].base_fd);
    if (ret == 0 && with_cow && disk->mode == VM_DISK_COW)
        ret = duplicate(snapshot_member_fd(m, name.text), &s->disks[i].cow_fd);
    return ret;
}

/* What the files of the snapshot itself are, flattened or not. */
static int take_files(struct snapshot *s, bool with_memory)
{
    const struct snapshot_member *m = &s->watch->chain[0];
    int ret = duplicate(snapshot_member_fd(m, "state"), &s->state_fd);

    if (ret == 0)
        ret = duplicate(snapshot_member_fd(m, "leaves"), &s->leaves_fd);
    if (ret == 0 && with_memory)
        ret = duplicate(snapshot_member_fd(m, "memory"), &s->memory_fd);
    for (uint32_t i = 0; ret == 0 && i < m->manifest.disk_count; i++)
        ret = take_disk(s, i, with_memory);
    return ret;
}

/* Content from the kept files: 0 or a negative errno. */
static int take_flat(struct snapshot *s)
{
    int ret = duplicate(s->watch->flat_memory.fd, &s->memory_fd);

    for (unsigned i = 0; ret == 0 && i < VM_DISKS_MAX; i++)
        if (s->watch->flat_cows[i].fd >= 0)
            ret = duplicate(s->watch->flat_cows[i].fd, &s->disks[i].cow_fd);
    return ret;
}

static void drop_flat(struct snapshot *s)
{
    io_close(&s->memory_fd);
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        io_close(&s->disks[i].cow_fd);
    snapshot_flat_discard(s->watch);
}

/* What a diff is together with its parents: kept if that can be, else for this
 * process alone. */
static int flatten(struct snapshot *s, bool keep, struct failure *f)
{
    int cows[VM_DISKS_MAX];
    int ret = keep ? snapshot_flat_make(s->watch) : 1;

    if (ret == 0)
        ret = take_flat(s);
    if (ret <= 0)
        return ret == 0 ? 0 : snapshot_flatten_fail(s->watch, ret, f);
    ret = snapshot_flatten(s->watch, &s->memory_fd, cows, f);

    for (unsigned i = 0; ret == 0 && i < VM_DISKS_MAX; i++)
        s->disks[i].cow_fd = cows[i];
    s->watch->flat_is_own = ret == 0;
    return ret;
}

/* ------------------------------------------------------------------------- */

/* Opens everything and checks what decides how the rest is read. */
static int open_files(struct snapshot *s, const char *dir,
                      const struct snapshot_open_options *options,
                      struct failure *f)
{
    int ret = snapshot_chain_open(dir, options, s->watch, f);

    if (ret == 0)
        ret = snapshot_check_small(s->watch, f);
    if (ret == 0)
        ret = snapshot_bases_open(options, s->watch, f);
    if (ret != 0)
        return ret;
    s->dir = s->watch->chain[0].dir;
    s->manifest = s->watch->chain[0].manifest;
    memcpy(s->id, s->watch->chain[0].id, sizeof(s->id));
    ret = take_files(s, !s->manifest.has_parent);
    /* One that is being written is looked at once, and not kept. */
    if (ret == 0 && s->manifest.has_parent && !options->no_flatten &&
        !options->stage && snapshot_flat_open(s->watch))
        ret = take_flat(s);
    if (ret != 0)
        return snapshot_fail(f, ret, "host", dir,
                             "cannot open the snapshot %s: %s", dir,
                             strerror(-ret));
    return snapshot_check_files(s, options->check, f);
}

static int seal_content(struct snapshot *s, struct failure *f)
{
    if (snapshot_seal_content(s) == 0)
        return 0;
    return snapshot_fail(f, -ECANCELED, "cancelled", s->dir,
                         "the check of %s was interrupted", s->dir);
}

/* The content, sealed if it is to be, against its leaves. */
static int check_content(struct snapshot *s, struct failure *f)
{
    int ret = s->checked == SNAPSHOT_CHECK_FULL ? seal_content(s, f) : 0;

    return ret == 0 ? snapshot_check_content(s, f) : ret;
}

static int open_all(struct snapshot *s, const char *dir,
                    const struct snapshot_open_options *options,
                    struct failure *f)
{
    int ret = open_files(s, dir, options, f);
    bool flat = ret == 0 && s->manifest.has_parent && !options->no_flatten;
    bool kept = flat && s->watch->flat_memory.fd >= 0;

    if (flat && !kept)
        ret = flatten(s, !options->stage, f);
    if (ret == 0)
        ret = check_content(s, f);
    /* What was kept is no part of the snapshot: it goes, or its user's end is
     * waited for, and the next one makes it anew. */
    if (ret == -EBADMSG && kept) {
        drop_flat(s);
        ret = flatten(s, false, f);
        if (ret == 0)
            ret = check_content(s, f);
    }
    /* What changed while it was hashed was not checked. */
    return ret == 0 ? snapshot_unchanged(s, f) : ret;
}

int snapshot_open(const char *dir, const struct snapshot_open_options *options,
                  struct snapshot **ret_snapshot, struct failure *f)
{
    struct snapshot *s = snapshot_new(options);
    int ret;

    if (!s)
        return snapshot_fail(f, -ENOMEM, "host", dir, "out of memory");
    ret = open_all(s, dir, options, f);
    if (ret != 0) {
        snapshot_close(s);
        return ret;
    }
    if (s->checked == SNAPSHOT_CHECK_FULL && !options->no_bases &&
        !options->no_flatten && !options->stage)
        snapshot_stamp_leave(s);
    *ret_snapshot = s;
    return 0;
}

/* ---- watching ----------------------------------------------------------- */

static int compare_entry(const struct snapshot_entry *entry, const char *path,
                         const struct snapshot *s, struct failure *f)
{
    struct snapshot_mark now;

    if (entry->fd < 0)
        return 0;
    if (snapshot_mark_get(entry->fd, &now) == 0 &&
        snapshot_mark_same(&now, &entry->mark))
        return 0;
    return snapshot_fail(f, -ESTALE, "snapshot_changed", path,
                         "a file of the snapshot %s was changed while it was "
                         "in use: %s",
                         s->dir, path);
}

static int compare_member(const struct snapshot_member *m,
                          const struct snapshot *s, struct failure *f)
{
    struct snapshot_path path = snapshot_path(m->dir, SNAPSHOT_MANIFEST_NAME);
    int ret = compare_entry(&m->manifest_entry, path.text, s, f);

    path = snapshot_path(m->dir, SNAPSHOT_ID_NAME);
    if (ret == 0)
        ret = compare_entry(&m->id_entry, path.text, s, f);
    for (uint32_t i = 0; ret == 0 && i < m->manifest.file_count; i++) {
        path = snapshot_path(m->dir, m->manifest.files[i].name);
        ret = compare_entry(&m->files[i], path.text, s, f);
    }
    return ret;
}

int snapshot_unchanged(const struct snapshot *snapshot, struct failure *f)
{
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < snapshot->watch->depth; i++)
        ret = compare_member(&snapshot->watch->chain[i], snapshot, f);
    for (unsigned i = 0; ret == 0 && i < VM_DISKS_MAX; i++)
        if (snapshot->watch->bases[i].path)
            ret = compare_entry(&snapshot->watch->bases[i].entry,
                                snapshot->watch->bases[i].path, snapshot, f);
    if (ret == 0)
        ret = compare_entry(&snapshot->watch->flat_memory, "flat/memory",
                            snapshot, f);
    for (unsigned i = 0; ret == 0 && i < VM_DISKS_MAX; i++)
        ret = compare_entry(&snapshot->watch->flat_cows[i], "flat/disk",
                            snapshot, f);
    return ret;
}
