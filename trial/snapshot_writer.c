/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a snapshot; see the header. What is saved goes to files without a
 * name, from which the published ones are made: who wrote them never had those,
 * and can keep no page of them in a mapping to change it later.
 */
#include "trial/snapshot_writer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/snapshot_internal.h"
#include "trial/snapshot_writer_internal.h"

/* ---- beginning ---------------------------------------------------------- */

/* The file `name`, and where the monitor writes it. */
static int add_saved(struct snapshot_writer *w, const char *name,
                     struct saved_file *ret_file, struct failure *f)
{
    int fd = snapshot_stage_create(&w->stage, name);
    int saved = -1;

    if (fd >= 0) {
        saved = snapshot_stage_nameless(&w->stage);
        if (saved < 0) {
            io_close(&fd);
            fd = saved;
        }
    }
    if (fd < 0)
        return snapshot_stage_fail(&w->stage, fd, "make a file", f);
    *ret_file = (struct saved_file){.fd = fd, .saved_fd = saved};
    return 0;
}

int snapshot_writer_begin(const char *out_dir,
                          const struct snapshot_writer_options *options,
                          struct snapshot_writer **ret_writer,
                          struct failure *f)
{
    struct snapshot_writer *w = calloc(1, sizeof(*w));
    int ret;

    if (!w)
        return snapshot_fail(f, -ENOMEM, "host", out_dir, "out of memory");
    w->parent = options->parent;
    w->parents = options->parents;
    w->without_base = options->without_base;
    w->cancel.cancelled = options->cancelled;
    w->cancel.ctx = options->ctx;
    w->state = w->memory = (struct saved_file){.fd = -1, .saved_fd = -1};
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        w->disks[i].cow = (struct saved_file){.fd = -1, .saved_fd = -1};
    ret = snapshot_stage_begin(out_dir, &w->stage, f);
    if (ret == 0)
        ret = add_saved(w, "state", &w->state, f);
    if (ret == 0)
        ret = add_saved(w, "memory", &w->memory, f);
    if (ret != 0) {
        snapshot_writer_free(w);
        return ret;
    }
    *ret_writer = w;
    return 0;
}

static void close_saved(struct saved_file *file)
{
    io_close(&file->fd);
    io_close(&file->saved_fd);
}

void snapshot_writer_close_files(struct snapshot_writer *w)
{
    close_saved(&w->state);
    close_saved(&w->memory);
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        close_saved(&w->disks[i].cow);
}

void snapshot_writer_free(struct snapshot_writer *w)
{
    if (!w)
        return;
    snapshot_writer_close_files(w);
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        free(w->disks[i].leaves);
    free(w->leaves);
    snapshot_stage_end(&w->stage);
    free(w);
}

int snapshot_writer_state_fd(const struct snapshot_writer *w)
{
    return w->state.saved_fd;
}

int snapshot_writer_memory_fd(const struct snapshot_writer *w)
{
    return w->memory.saved_fd;
}

/* ---- disks -------------------------------------------------------------- */

struct writer_disk *snapshot_writer_disk(struct snapshot_writer *w,
                                         const char *id)
{
    for (unsigned i = 0; i < w->disk_count; i++)
        if (strcmp(w->disks[i].id, id) == 0)
            return &w->disks[i];
    return NULL;
}

/* The disk of that id, made if it is new; NULL if there are too many. */
static struct writer_disk *get_disk(struct snapshot_writer *w, const char *id)
{
    struct writer_disk *disk = snapshot_writer_disk(w, id);

    if (disk || w->disk_count == VM_DISKS_MAX)
        return disk;
    disk = &w->disks[w->disk_count++];
    snprintf(disk->id, sizeof(disk->id), "%s", id);
    return disk;
}

static int fail_disk(const struct snapshot_writer *w, const char *id, int error,
                     const char *why, struct failure *f)
{
    return snapshot_fail(f, error, "snapshot_disk", id,
                         "cannot write the snapshot %s: its disk '%s' %s",
                         w->stage.out, id, why);
}

int snapshot_writer_add_cow(struct snapshot_writer *w, const char *id,
                            int *ret_fd, struct failure *f)
{
    struct writer_disk *disk = get_disk(w, id);
    int ret;

    if (!disk || disk->cow.fd >= 0)
        return fail_disk(w, id, -EINVAL, "is one too many", f);
    ret = add_saved(w, snapshot_disk_file_name(id, SNAPSHOT_DISK_COW).text,
                    &disk->cow, f);
    if (ret == 0)
        *ret_fd = disk->cow.saved_fd;
    return ret;
}

/* Keeps the leaves of a base until its place in `leaves` is known. */
static int keep_leaf(void *ctx, uint64_t chunk, const uint8_t leaf[DIGEST_SIZE])
{
    struct writer_disk *disk = ctx;

    memcpy(disk->leaves + chunk * DIGEST_SIZE, leaf, DIGEST_SIZE);
    return 0;
}

static int hash_base(const struct snapshot_writer *w, struct writer_disk *disk,
                     int fd, struct snapshot_disk *ret_disk)
{
    struct snapshot_walk walk = {.fd = fd,
                                 .bytes = ret_disk->bytes,
                                 .data = ret_disk->data,
                                 .plain = digest_new(),
                                 .trust_zeros = sparse_hides_holes(fd),
                                 .cancel = &w->cancel,
                                 .leaf = keep_leaf,
                                 .ctx = disk};
    uint64_t count = snapshot_chunks(ret_disk->bytes);
    int ret = -ENOMEM;

    free(disk->leaves);
    disk->leaves = malloc(count * DIGEST_SIZE);
    if (walk.plain && disk->leaves)
        ret = snapshot_walk(&walk);
    if (ret == 0)
        digest_hex(walk.plain, ret_disk->sha256);
    digest_free(walk.plain);
    return ret;
}

/* True if the parent, or one it is made of, has stored the same. */
static bool parent_has(const struct snapshot_writer *w,
                       const struct snapshot_disk *disk)
{
    return w->parent && snapshot_chain_storing(w->parent->watch, disk);
}

static int store_base(struct snapshot_writer *w, int fd,
                      struct snapshot_disk *disk)
{
    int copy = snapshot_stage_create(
        &w->stage, snapshot_disk_file_name(disk->id, SNAPSHOT_DISK_BASE).text);
    /* Where holes are hidden, the copy's zeros are made, not read. */
    uint64_t len = sparse_hides_holes(fd) ? disk->data : disk->bytes;
    int ret = copy < 0 ? copy : sparse_copy(fd, copy, len, &w->cancel);

    if (ret == 0 && len < disk->bytes &&
        ftruncate(copy, (off_t)disk->bytes) != 0)
        ret = -errno;
    io_close(&copy);
    disk->stored = ret == 0;
    return ret;
}

int snapshot_writer_add_base(struct snapshot_writer *w, const char *id, int fd,
                             uint64_t data, struct snapshot_disk *ret_disk,
                             struct failure *f)
{
    struct writer_disk *disk = get_disk(w, id);
    struct snapshot_disk found = *ret_disk;
    struct snapshot_mark mark;
    int ret;

    if (!disk || disk->leaves)
        return fail_disk(w, id, -EINVAL, "is one too many", f);
    if (snapshot_mark_get(fd, &mark) != 0 || mark.size == 0 ||
        mark.size > SNAPSHOT_DISK_MAX || data > mark.size)
        return fail_disk(w, id, -EINVAL,
                         "has no file of a size that a snapshot can hold", f);
    snprintf(found.id, sizeof(found.id), "%s", id);
    found.bytes = mark.size;
    found.data = data == 0 ? mark.size : data;
    found.stored = false;
    ret = hash_base(w, disk, fd, &found);
    if (ret == -EBADMSG)
        return fail_disk(w, id, ret, "is not zero where it is known to be zero",
                         f);
    if (ret == 0 && !w->without_base && !parent_has(w, &found))
        ret = store_base(w, fd, &found);
    if (ret != 0)
        return snapshot_stage_fail(&w->stage, ret, "copy a base disk", f);
    *ret_disk = found;
    return 0;
}
