/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last step of writing a snapshot: what was saved is checked, cut down to
 * what differs from the parent, hashed and recorded.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "trial/snapshot_limits.h"
#include "trial/snapshot_writer_internal.h"

static int fail_saved(const struct snapshot_writer *w, const char *what,
                      struct failure *f)
{
    return snapshot_fail(f, -EBADMSG, "snapshot_write", w->stage.out,
                         "cannot write the snapshot %s: the monitor saved %s",
                         w->stage.out, what);
}

/* ---- what the monitor saved --------------------------------------------- */

/* Only zeros in [start, end) of a file. */
static int check_zero(int fd, uint64_t start, uint64_t end, uint8_t *buf)
{
    while (start < end) {
        size_t len = (size_t)num_min(end - start, SPARSE_BUFFER);
        ssize_t n = io_pread_full(fd, buf, len, start);

        if (n < 0)
            return (int)n;
        if ((size_t)n != len || !sparse_is_zero(buf, len))
            return -EBADMSG;
        start += len;
    }
    return 0;
}

/* The end of the run of clusters, from this offset, that are like the first. */
static uint64_t run_end(const struct snapshot_cow *cow, uint64_t at)
{
    uint64_t i = (at - cow->format.data_start) / COW_FORMAT_CLUSTER;
    bool present = snapshot_bit_get(cow->bits, i);

    while (i < cow->format.clusters &&
           snapshot_bit_get(cow->bits, i) == present)
        i++;
    return num_min(cow->format.data_start + i * COW_FORMAT_CLUSTER,
                   cow->format.file_len);
}

/* Within one extent of data. */
static int check_extent(const struct snapshot_cow *cow, uint64_t start,
                        uint64_t end, uint8_t *buf)
{
    int ret = 0;

    while (ret == 0 && start < end) {
        uint64_t i = (start - cow->format.data_start) / COW_FORMAT_CLUSTER;
        uint64_t stop = num_min(run_end(cow, start), end);

        if (!snapshot_bit_get(cow->bits, i))
            ret = check_zero(cow->fd, start, stop, buf);
        start = stop;
    }
    return ret;
}

/*
 * What lies where no cluster is, is never read, and would make two snapshots of
 * the same disk differ: there is nothing.
 */
static int check_absent(const struct snapshot_cow *cow)
{
    uint8_t *buf = malloc(SPARSE_BUFFER);
    uint64_t at = cow->format.data_start, end;
    int ret = buf ? 0 : -ENOMEM;

    while (ret == 0 && at < cow->format.file_len) {
        ret = sparse_next(cow->fd, at, cow->format.file_len, &at, &end);
        if (ret == 0 && at < end)
            ret = check_extent(cow, at, end, buf);
        at = end;
    }
    free(buf);
    return ret;
}

static int check_cow(const struct snapshot_disk *disk, int fd)
{
    struct snapshot_cow cow;
    int ret = snapshot_cow_load(fd, disk->bytes, &cow);

    if (ret != 0)
        return ret;
    ret = check_absent(&cow);
    snapshot_cow_fini(&cow);
    return ret;
}

/* The saved one, or what was made of it. */
static int pick(const struct saved_file *file, bool kept)
{
    return kept ? file->fd : file->saved_fd;
}

/* The disks of the manifest are those that were added. */
static int check_disks(struct snapshot_writer *w,
                       const struct snapshot_manifest *m, bool kept,
                       struct failure *f)
{
    for (uint32_t i = 0; i < m->disk_count; i++) {
        const struct snapshot_disk *disk = &m->disks[i];
        const struct writer_disk *saved = snapshot_writer_disk(w, disk->id);
        bool is_cow = disk->mode == VM_DISK_COW;

        if (!saved || !saved->leaves || is_cow != (saved->cow.fd >= 0))
            return fail_saved(w, "disks that are not the machine's", f);
        if (is_cow && check_cow(disk, pick(&saved->cow, kept)) != 0)
            return fail_saved(w, "a disk that is not one, or is damaged", f);
    }
    if (w->disk_count != m->disk_count)
        return fail_saved(w, "disks that are not the machine's", f);
    return 0;
}

/* Of the saved files; once more of the kept ones, which no monitor can change.
 */
static int check_saved(struct snapshot_writer *w,
                       const struct snapshot_manifest *m, bool kept,
                       struct failure *f)
{
    struct snapshot_mark memory, state;

    if (snapshot_mark_get(pick(&w->memory, kept), &memory) != 0 ||
        memory.size != m->memory_bytes)
        return fail_saved(w, "memory of another size than the machine's", f);
    if (snapshot_mark_get(pick(&w->state, kept), &state) != 0 ||
        state.size == 0 || state.size > SNAPSHOT_STATE_MAX)
        return fail_saved(w, "a state of an impossible size", f);
    return check_disks(w, m, kept, f);
}

/* The parent must be of the same machine, or the diff means nothing. */
static int check_parent(const struct snapshot_writer *w,
                        const struct snapshot_manifest *m, struct failure *f)
{
    const struct snapshot_manifest *p = w->parent ? &w->parent->manifest : m;
    bool same =
        p->memory_bytes == m->memory_bytes && p->disk_count == m->disk_count;

    for (uint32_t i = 0; same && i < m->disk_count; i++)
        same = strcmp(p->disks[i].id, m->disks[i].id) == 0 &&
               p->disks[i].mode == m->disks[i].mode &&
               p->disks[i].bytes == m->disks[i].bytes &&
               strcmp(p->disks[i].sha256, m->disks[i].sha256) == 0;
    if (same)
        return 0;
    return snapshot_fail(f, -EINVAL, "snapshot_parent", w->parent->dir,
                         "cannot write the snapshot %s as a diff to %s: it is "
                         "another machine (memory or disks differ)",
                         w->stage.out, w->parent->dir);
}

/* ---- what is kept ------------------------------------------------------- */

/* What differs goes to a file, at its own offset, and into a map. */
struct difference {
    int fd;
    uint8_t *map;
    const uint8_t *present; /* clusters that may be stored; NULL: all */
    uint64_t unit, start;
};

static int store_unit(void *ctx, uint64_t unit, const uint8_t *bytes,
                      size_t len)
{
    struct difference *d = ctx;

    if (d->present && !snapshot_bit_get(d->present, unit))
        return 0;
    snapshot_bit_set(d->map, unit);
    return sparse_write(d->fd, bytes, len, d->start + unit * d->unit);
}

static int write_new(struct snapshot_writer *w, const char *name,
                     const void *bytes, size_t len)
{
    int fd = snapshot_stage_create(&w->stage, name);
    int ret = fd < 0 ? fd : io_write_full(fd, bytes, len);

    io_close(&fd);
    return ret;
}

static int keep_memory_difference(struct snapshot_writer *w, uint64_t bytes)
{
    uint64_t map_len = bytes / SNAPSHOT_PAGE / 8;
    struct difference d = {
        .fd = w->memory.fd, .map = calloc(1, map_len), .unit = SNAPSHOT_PAGE};
    const struct snapshot_compare compare = {
        .cancel = &w->cancel, .differs = store_unit, .ctx = &d};
    int ret = d.map ? 0 : -ENOMEM;

    if (ret == 0 && ftruncate(d.fd, (off_t)bytes) != 0)
        ret = -errno;
    if (ret == 0)
        ret = snapshot_compare_memory(w->memory.saved_fd, w->parent->memory_fd,
                                      bytes, &compare);
    if (ret == 0)
        ret = write_new(w, "memory.map", d.map, map_len);
    free(d.map);
    return ret;
}

/* Header, the bitmap of what is present, and the clusters that differ. */
static int store_clusters(const struct snapshot_writer *w, struct difference *d,
                          const struct snapshot_cow *cow,
                          const struct snapshot_cow *parent)
{
    const struct snapshot_compare compare = {
        .cancel = &w->cancel, .differs = store_unit, .ctx = d};
    const struct snapshot_side own = {.cow = cow, .base_fd = -1};
    const struct snapshot_side theirs = {.cow = parent, .base_fd = -1};
    uint8_t page[COW_FORMAT_HEADER_SIZE];
    int ret = 0;

    cow_format_header(&cow->format, page);
    if (ftruncate(d->fd, (off_t)cow->format.file_len) != 0)
        ret = -errno;
    if (ret == 0)
        ret = io_pwrite_full(d->fd, page, sizeof(page), 0);
    if (ret == 0)
        ret = io_pwrite_full(d->fd, cow->bits, cow->format.bits_len,
                             COW_FORMAT_HEADER_SIZE);
    return ret == 0 ? snapshot_compare_disk(&own, &theirs, &compare) : ret;
}

static int keep_cow_difference(struct snapshot_writer *w,
                               const struct snapshot_disk *disk, uint32_t index,
                               const struct writer_disk *saved)
{
    struct snapshot_cow cow, parent;
    struct difference d = {.fd = saved->cow.fd, .unit = COW_FORMAT_CLUSTER};
    int ret = snapshot_cow_load(saved->cow.saved_fd, disk->bytes, &cow);

    if (ret != 0)
        return ret;
    ret =
        snapshot_cow_load(w->parent->disks[index].cow_fd, disk->bytes, &parent);
    if (ret != 0) {
        snapshot_cow_fini(&cow);
        return ret;
    }
    d.present = cow.bits;
    d.start = cow.format.data_start;
    d.map = calloc(1, cow.format.bits_len);
    ret = d.map ? store_clusters(w, &d, &cow, &parent) : -ENOMEM;
    if (ret == 0)
        ret = write_new(
            w, snapshot_disk_file_name(disk->id, SNAPSHOT_DISK_MAP).text, d.map,
            cow.format.bits_len);
    free(d.map);
    snapshot_cow_fini(&parent);
    snapshot_cow_fini(&cow);
    return ret;
}

static int copy_saved(const struct snapshot_writer *w,
                      const struct saved_file *file)
{
    struct snapshot_mark mark;
    int ret = snapshot_mark_get(file->saved_fd, &mark);

    return ret == 0
               ? sparse_copy(file->saved_fd, file->fd, mark.size, &w->cancel)
               : ret;
}

/* Makes the published files out of the saved ones, where those are others. */
static int keep_files(struct snapshot_writer *w,
                      const struct snapshot_manifest *m)
{
    int ret = copy_saved(w, &w->state);

    if (ret == 0)
        ret = w->parent ? keep_memory_difference(w, m->memory_bytes)
                        : copy_saved(w, &w->memory);
    for (uint32_t i = 0; ret == 0 && i < m->disk_count; i++) {
        const struct snapshot_disk *disk = &m->disks[i];
        const struct writer_disk *saved = snapshot_writer_disk(w, disk->id);

        if (disk->mode != VM_DISK_COW)
            continue;
        ret = w->parent ? keep_cow_difference(w, disk, i, saved)
                        : copy_saved(w, &saved->cow);
    }
    return ret;
}

/* ---- digests ------------------------------------------------------------ */

/* Where the next leaf of a walk goes. */
struct leaf_sink {
    uint8_t *next;
};

static int put_leaf(void *ctx, uint64_t chunk, const uint8_t leaf[DIGEST_SIZE])
{
    struct leaf_sink *sink = ctx;

    (void)chunk;
    memcpy(sink->next, leaf, DIGEST_SIZE);
    sink->next += DIGEST_SIZE;
    return 0;
}

/*
 * Of the whole machine: a diff's leaves are those of what was saved, which the
 * check before publishing compares with what the chain gives.
 */
static int hash_region(struct snapshot_writer *w,
                       const struct snapshot_manifest *m,
                       const struct snapshot_region *region)
{
    struct leaf_sink sink = {w->leaves + region->first * DIGEST_SIZE};
    struct snapshot_walk walk = {.bytes = region->bytes,
                                 .cancel = &w->cancel,
                                 .leaf = put_leaf,
                                 .ctx = &sink};
    const struct writer_disk *disk =
        region->kind == SNAPSHOT_REGION_MEMORY
            ? NULL
            : snapshot_writer_disk(w, m->disks[region->disk].id);

    if (region->kind == SNAPSHOT_REGION_BASE) {
        memcpy(sink.next, disk->leaves,
               snapshot_chunks(region->bytes) * DIGEST_SIZE);
        return 0;
    }
    /* Not the saved file, which its writer may still change; where only part of
     * it is kept, the check before publishing finds that out. */
    walk.fd = disk ? disk->cow.fd : w->memory.fd;
    if (w->parent)
        walk.fd = disk ? disk->cow.saved_fd : w->memory.saved_fd;
    return snapshot_walk(&walk);
}

static void tree_of(const uint8_t *leaves, uint64_t count,
                    char ret_hex[DIGEST_HEX_SIZE])
{
    struct merkle tree;
    uint8_t root[DIGEST_SIZE];

    merkle_init(&tree);
    for (uint64_t i = 0; i < count; i++)
        merkle_add(&tree, leaves + i * DIGEST_SIZE);
    merkle_root(&tree, root);
    digest_to_hex(root, ret_hex);
}

static int hash_machine(struct snapshot_writer *w, struct snapshot_manifest *m)
{
    struct snapshot_region regions[SNAPSHOT_REGIONS_MAX];
    unsigned count = snapshot_regions(m, regions);
    uint64_t leaves = snapshot_leaf_count(m);
    int ret = 0;

    free(w->leaves);
    w->leaves = malloc(leaves * DIGEST_SIZE);
    if (!w->leaves)
        return -ENOMEM;
    for (unsigned i = 0; ret == 0 && i < count; i++)
        ret = hash_region(w, m, &regions[i]);
    if (ret != 0)
        return ret;
    tree_of(w->leaves, leaves, m->root);
    return write_new(w, "leaves", w->leaves, leaves * DIGEST_SIZE);
}

/* The tree of a file whose leaves are known; false: it must be hashed. */
static bool known_tree(const struct snapshot_writer *w,
                       const struct snapshot_manifest *m,
                       struct snapshot_file *file)
{
    struct snapshot_region regions[SNAPSHOT_REGIONS_MAX];
    unsigned count = snapshot_regions(m, regions);

    for (unsigned i = 0; i < count; i++) {
        bool whole = !m->has_parent || regions[i].kind == SNAPSHOT_REGION_BASE;

        if (!whole ||
            strcmp(snapshot_region_name(m, &regions[i]).text, file->name) != 0)
            continue;
        tree_of(w->leaves + regions[i].first * DIGEST_SIZE,
                snapshot_chunks(regions[i].bytes), file->digest);
        return true;
    }
    return false;
}

static int hash_file(const struct snapshot_writer *w,
                     const struct snapshot_manifest *m,
                     struct snapshot_file *file)
{
    struct snapshot_mark mark;
    int fd, ret;

    if (file->tree && known_tree(w, m, file))
        return 0;
    fd = snapshot_stage_open(&w->stage, file->name);
    ret = fd < 0 ? fd : snapshot_mark_get(fd, &mark);
    if (ret == 0) {
        file->bytes = mark.size;
        ret = file->tree
                  ? snapshot_tree(fd, file->bytes, &w->cancel, file->digest)
                  : digest_file(fd, file->digest);
    }
    io_close(&fd);
    return ret;
}

static int hash_files(const struct snapshot_writer *w,
                      struct snapshot_manifest *m)
{
    int ret = 0;

    m->file_count = snapshot_manifest_expect(m, m->files);
    for (uint32_t i = 0; ret == 0 && i < m->file_count; i++)
        ret = hash_file(w, m, &m->files[i]);
    return ret;
}

/* ---- the manifest ------------------------------------------------------- */

static int write_manifest(struct snapshot_writer *w,
                          const struct snapshot_manifest *m,
                          char ret_id[DIGEST_HEX_SIZE], struct failure *f)
{
    char err[SNAPSHOT_ERR_MAX], line[SNAPSHOT_ID_LEN + 1];
    uint8_t sum[DIGEST_SIZE];
    char *text = NULL;
    size_t len = 0;
    int ret = snapshot_manifest_encode(m, &text, &len, err);

    if (ret != 0)
        return snapshot_fail(f, ret, "snapshot_write", w->stage.out,
                             "cannot write the snapshot %s: its manifest "
                             "would not be valid: %s",
                             w->stage.out, err);
    digest_sum(text, len, sum);
    digest_to_hex(sum, ret_id);
    snprintf(line, sizeof(line), "%s\n", ret_id);
    ret = write_new(w, SNAPSHOT_MANIFEST_NAME, text, len);
    if (ret == 0)
        ret = write_new(w, SNAPSHOT_ID_NAME, line, SNAPSHOT_ID_LEN);
    free(text);
    return ret == 0
               ? 0
               : snapshot_stage_fail(&w->stage, ret, "write its manifest", f);
}

static void set_parent(const struct snapshot_writer *w,
                       struct snapshot_manifest *m)
{
    m->has_parent = w->parent != NULL;
    if (!w->parent)
        return;
    memcpy(m->parent_id, w->parent->id, sizeof(m->parent_id));
    memcpy(m->parent_root, w->parent->manifest.root, sizeof(m->parent_root));
}

static int publish(struct snapshot_writer *w, const char *id, struct failure *f)
{
    struct snapshot_open_options options = {
        .no_bases = w->without_base,
        .cancelled = w->cancel.cancelled,
        .ctx = w->cancel.ctx,
    };
    const char **places;
    size_t count = 0, used = 0;
    int ret;

    while (w->parents && w->parents[count])
        count++;
    places = calloc(count + 2, sizeof(*places));
    if (!places)
        return snapshot_stage_fail(&w->stage, -ENOMEM, "verify it", f);
    if (w->parent)
        places[used++] = w->parent->watch->chain[0].path;
    for (size_t i = 0; i < count; i++)
        places[used++] = w->parents[i];
    options.parents = places;
    ret = snapshot_stage_publish(&w->stage, &options, f);
    if (ret == 0)
        snapshot_made_leave(id);
    free(places);
    return ret;
}

int snapshot_writer_finish(struct snapshot_writer *w,
                           struct snapshot_manifest *m,
                           char ret_id[DIGEST_HEX_SIZE], struct failure *f)
{
    int ret = check_saved(w, m, false, f);

    if (ret == 0)
        ret = check_parent(w, m, f);
    if (ret != 0)
        return ret;
    m->page_size = SNAPSHOT_PAGE;
    set_parent(w, m);
    ret = keep_files(w, m);
    if (ret == 0 && check_saved(w, m, true, f) != 0)
        return -EBADMSG;
    if (ret == 0)
        ret = hash_machine(w, m);
    if (ret == 0)
        ret = hash_files(w, m);
    if (ret != 0)
        return snapshot_stage_fail(&w->stage, ret, "write its files", f);
    snapshot_writer_close_files(w);
    ret = write_manifest(w, m, ret_id, f);
    return ret == 0 ? publish(w, ret_id, f) : ret;
}
