/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing a snapshot's files with what its manifest records. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "trial/snapshot_internal.h"

/* Chunks that a sampled check looks at, of the whole machine. */
#define SAMPLES 32u
#define LEAVES_BUFFER 2048u /* leaves read at once: 64 KiB */

/* ---- regions of `leaves` ------------------------------------------------ */

static void add_region(struct snapshot_region *regions, unsigned *count,
                       enum snapshot_region_kind kind, uint32_t disk,
                       uint64_t bytes)
{
    const struct snapshot_region *last = &regions[*count - 1];

    regions[*count] = (struct snapshot_region){
        .kind = kind,
        .disk = disk,
        .bytes = bytes,
        .first = *count == 0 ? 0 : last->first + snapshot_chunks(last->bytes),
    };
    (*count)++;
}

unsigned
snapshot_regions(const struct snapshot_manifest *m,
                 struct snapshot_region ret_regions[SNAPSHOT_REGIONS_MAX])
{
    unsigned count = 0;

    add_region(ret_regions, &count, SNAPSHOT_REGION_MEMORY, 0, m->memory_bytes);
    for (uint32_t i = 0; i < m->disk_count; i++) {
        add_region(ret_regions, &count, SNAPSHOT_REGION_BASE, i,
                   m->disks[i].bytes);
        if (m->disks[i].mode == VM_DISK_COW)
            add_region(ret_regions, &count, SNAPSHOT_REGION_COW, i,
                       snapshot_cow_bytes(&m->disks[i]));
    }
    return count;
}

struct snapshot_name snapshot_region_name(const struct snapshot_manifest *m,
                                          const struct snapshot_region *region)
{
    const char *id = m->disks[region->disk].id;

    switch (region->kind) {
    case SNAPSHOT_REGION_BASE:
        return snapshot_disk_file_name(id, SNAPSHOT_DISK_BASE);
    case SNAPSHOT_REGION_COW:
        return snapshot_disk_file_name(id, SNAPSHOT_DISK_COW);
    case SNAPSHOT_REGION_MEMORY:
        break;
    }
    return (struct snapshot_name){"memory"};
}

/* ---- one file of a member ----------------------------------------------- */

static int fail_read(const char *path, int error, struct failure *f)
{
    if (error == -ECANCELED)
        return snapshot_fail(f, error, "cancelled", path,
                             "the check of %s was interrupted", path);
    if (error == -ENODATA)
        return snapshot_fail(f, -ESTALE, "snapshot_changed", path,
                             "%s became shorter while it was read", path);
    return snapshot_fail(f, error, "snapshot_unreadable", path,
                         "cannot read %s: %s", path, strerror(-error));
}

int snapshot_check_file(const struct snapshot_member *member, uint32_t i,
                        const struct sparse_cancel *cancel, struct failure *f)
{
    const struct snapshot_file *file = &member->manifest.files[i];
    struct snapshot_path path = snapshot_path(member->dir, file->name);
    char hex[DIGEST_HEX_SIZE];
    int fd = snapshot_member_file_fd(member, i);
    int ret = file->tree ? snapshot_tree(fd, file->bytes, cancel, hex)
                         : digest_file(fd, hex);

    if (ret != 0)
        return fail_read(path.text, ret, f);
    if (strcmp(hex, file->digest) == 0)
        return 0;
    return snapshot_fail(f, -EBADMSG, "snapshot_damaged", path.text,
                         "the snapshot %s is damaged: %s is not what the "
                         "manifest records (its digest differs)",
                         member->dir, file->name);
}

/* ---- leaves ------------------------------------------------------------- */

/* Reads `leaves` in order. */
struct leaf_reader {
    int fd;
    uint64_t next, count; /* leaves */
    uint8_t *buf;         /* owned; holds [start, next) */
    uint64_t start, end;
};

static int leaf_reader_init(struct leaf_reader *r, int fd, uint64_t first,
                            uint64_t count)
{
    *r = (struct leaf_reader){.fd = fd,
                              .next = first,
                              .count = first + count,
                              .start = first,
                              .end = first,
                              .buf = malloc(LEAVES_BUFFER * DIGEST_SIZE)};
    return r->buf ? 0 : -ENOMEM;
}

/* The next leaf, which stays valid until the next call; or NULL with errno. */
static const uint8_t *leaf_reader_next(struct leaf_reader *r, int *ret_error)
{
    if (r->next == r->end) {
        size_t want =
            (size_t)num_min(r->count - r->next, LEAVES_BUFFER) * DIGEST_SIZE;
        ssize_t n = io_pread_full(r->fd, r->buf, want, r->next * DIGEST_SIZE);

        if (want == 0 || n != (ssize_t)want) {
            *ret_error = n < 0 ? (int)n : -ENODATA;
            return NULL;
        }
        r->start = r->next;
        r->end = r->next + want / DIGEST_SIZE;
    }
    return r->buf + (r->next++ - r->start) * DIGEST_SIZE;
}

/* Adds a region's leaves to the machine's tree and gives its own root. */
static int add_leaves(struct leaf_reader *reader, uint64_t count,
                      struct merkle *all, char ret_tree[DIGEST_HEX_SIZE])
{
    struct merkle own;
    uint8_t root[DIGEST_SIZE];
    int error = 0;

    merkle_init(&own);
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *leaf = leaf_reader_next(reader, &error);

        if (!leaf)
            return error;
        merkle_add(all, leaf);
        merkle_add(&own, leaf);
    }
    merkle_root(&own, root);
    digest_to_hex(root, ret_tree);
    return 0;
}

/*
 * The tree of a file that the snapshot holds must be that of its leaves. (A
 * diff's memory and cow files are only part of what the leaves are of.)
 */
static bool tree_agrees(const struct snapshot_manifest *m,
                        const struct snapshot_region *region, const char *tree)
{
    const struct snapshot_file *file =
        snapshot_manifest_file(m, snapshot_region_name(m, region).text);

    if (!file || (m->has_parent && region->kind != SNAPSHOT_REGION_BASE))
        return true;
    return strcmp(file->digest, tree) == 0;
}

/* 0, 1 if something does not agree, or a negative errno. */
static int compare_trees(const struct snapshot_manifest *m,
                         struct leaf_reader *reader)
{
    struct snapshot_region regions[SNAPSHOT_REGIONS_MAX];
    unsigned count = snapshot_regions(m, regions);
    char tree[DIGEST_HEX_SIZE];
    uint8_t root[DIGEST_SIZE];
    struct merkle all;

    merkle_init(&all);
    for (unsigned i = 0; i < count; i++) {
        int ret =
            add_leaves(reader, snapshot_chunks(regions[i].bytes), &all, tree);

        if (ret != 0)
            return ret;
        if (!tree_agrees(m, &regions[i], tree))
            return 1;
    }
    merkle_root(&all, root);
    digest_to_hex(root, tree);
    return strcmp(tree, m->root) != 0;
}

int snapshot_check_leaves(const struct snapshot_member *member,
                          struct failure *f)
{
    struct snapshot_path path = snapshot_path(member->dir, "leaves");
    struct leaf_reader reader;
    int ret = leaf_reader_init(&reader, snapshot_member_fd(member, "leaves"), 0,
                               snapshot_leaf_count(&member->manifest));

    if (ret == 0)
        ret = compare_trees(&member->manifest, &reader);
    free(reader.buf);
    if (ret < 0)
        return fail_read(path.text, ret, f);
    if (ret == 0)
        return 0;
    return snapshot_fail(f, -EBADMSG, "snapshot_damaged", path.text,
                         "the snapshot %s is damaged: the root or a file's "
                         "tree is not that of its leaves",
                         member->dir);
}

/* ---- memory and disks --------------------------------------------------- */

/* Compares a walk's leaves with the recorded ones. */
struct comparison {
    struct leaf_reader reader;
    uint64_t differs; /* the first chunk that does */
};

static int compare_leaf(void *ctx, uint64_t chunk,
                        const uint8_t leaf[DIGEST_SIZE])
{
    struct comparison *c = ctx;
    int error = 0;
    const uint8_t *want = leaf_reader_next(&c->reader, &error);

    if (!want)
        return error;
    if (memcmp(want, leaf, DIGEST_SIZE) == 0)
        return 0;
    c->differs = chunk;
    return 1;
}

int snapshot_check_chunk(int fd, const struct snapshot_region *region,
                         uint64_t i, int leaves_fd)
{
    uint64_t start = i * SNAPSHOT_CHUNK;
    size_t len = (size_t)num_min(SNAPSHOT_CHUNK, region->bytes - start);
    uint8_t want[DIGEST_SIZE], have[DIGEST_SIZE];
    int ret = snapshot_chunk_leaf(fd, start, len, have);
    ssize_t n;

    if (ret != 0)
        return ret;
    n = io_pread_full(leaves_fd, want, sizeof(want),
                      (region->first + i) * DIGEST_SIZE);
    if (n != (ssize_t)sizeof(want))
        return n < 0 ? (int)n : -ENODATA;
    return memcmp(want, have, sizeof(want)) != 0;
}

/* The open file of a region; -1: it is not open. */
static int region_fd(const struct snapshot *s,
                     const struct snapshot_region *region)
{
    switch (region->kind) {
    case SNAPSHOT_REGION_MEMORY:
        return s->memory_fd;
    case SNAPSHOT_REGION_BASE:
        return s->disks[region->disk].base_fd;
    case SNAPSHOT_REGION_COW:
        return s->disks[region->disk].cow_fd;
    }
    return -1;
}

static const char *region_path(const struct snapshot *s,
                               const struct snapshot_region *region,
                               struct snapshot_path *path)
{
    if (region->kind == SNAPSHOT_REGION_BASE)
        return s->watch->bases[region->disk].path;
    *path =
        snapshot_path(s->dir, snapshot_region_name(&s->manifest, region).text);
    return path->text;
}

static int fail_chunk(const struct snapshot *s,
                      const struct snapshot_region *region, uint64_t chunk,
                      struct failure *f)
{
    struct snapshot_path buf;
    const char *path = region_path(s, region, &buf);
    bool elsewhere =
        region->kind == SNAPSHOT_REGION_BASE &&
        !snapshot_manifest_file(
            &s->manifest, snapshot_region_name(&s->manifest, region).text);
    uint64_t start = chunk * SNAPSHOT_CHUNK;

    return snapshot_fail(
        f, -EBADMSG, elsewhere ? "snapshot_base" : "snapshot_damaged", path,
        "the snapshot %s %s: %s differs from what was recorded in bytes "
        "%" PRIu64 " to %" PRIu64,
        s->dir, elsewhere ? "cannot be used" : "is damaged", path, start,
        num_min(start + SNAPSHOT_CHUNK, region->bytes) - 1);
}

static int check_region(const struct snapshot *s,
                        const struct snapshot_region *region, struct failure *f)
{
    struct comparison c = {.differs = 0};
    struct snapshot_walk walk = {.fd = region_fd(s, region),
                                 .bytes = region->bytes,
                                 .cancel = &s->watch->cancel,
                                 .leaf = compare_leaf,
                                 .ctx = &c};
    struct snapshot_path buf;
    int ret;

    if (walk.fd < 0)
        return 0;
    ret = leaf_reader_init(&c.reader, s->leaves_fd, region->first,
                           snapshot_chunks(region->bytes));
    if (ret == 0)
        ret = snapshot_walk(&walk);
    free(c.reader.buf);
    if (ret == 1)
        return fail_chunk(s, region, c.differs, f);
    return ret == 0 ? 0 : fail_read(region_path(s, region, &buf), ret, f);
}

static int check_regions(const struct snapshot *s, struct failure *f)
{
    struct snapshot_region regions[SNAPSHOT_REGIONS_MAX];
    unsigned count = snapshot_regions(&s->manifest, regions);
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < count; i++)
        ret = check_region(s, &regions[i], f);
    return ret;
}

/* One chunk of the machine, by the number of its leaf. */
static int check_sample(const struct snapshot *s,
                        const struct snapshot_region *regions, unsigned count,
                        uint64_t leaf, struct failure *f)
{
    const struct snapshot_region *region = &regions[count - 1];
    struct snapshot_path buf;
    int fd, ret;

    while (region->first > leaf)
        region--;
    fd = region_fd(s, region);
    if (fd < 0)
        return 0;
    ret = snapshot_check_chunk(fd, region, leaf - region->first, s->leaves_fd);
    if (ret == 1)
        return fail_chunk(s, region, leaf - region->first, f);
    return ret == 0 ? 0 : fail_read(region_path(s, region, &buf), ret, f);
}

/* Numbers of leaves, no two alike: up to SAMPLES of them. 0 or -EIO. */
static int choose_samples(uint64_t total, uint64_t ret_leaves[SAMPLES],
                          unsigned *ret_count)
{
    unsigned count = 0, i;
    uint64_t random;

    while (count < num_min(total, SAMPLES)) {
        /* Of few, all: a draw would take long to find the last of them. */
        if (total <= SAMPLES)
            random = count;
        else if (getrandom(&random, sizeof(random), 0) !=
                 (ssize_t)sizeof(random))
            return -EIO;
        for (i = 0; i < count && ret_leaves[i] != random % total; i++)
            ;
        if (i == count)
            ret_leaves[count++] = random % total;
    }
    *ret_count = count;
    return 0;
}

static int check_samples(const struct snapshot *s, struct failure *f)
{
    struct snapshot_region regions[SNAPSHOT_REGIONS_MAX];
    unsigned count = snapshot_regions(&s->manifest, regions), samples = 0;
    uint64_t leaves[SAMPLES];
    int ret =
        choose_samples(snapshot_leaf_count(&s->manifest), leaves, &samples);

    if (ret != 0)
        return snapshot_fail(f, ret, "host", s->dir, "no random numbers");
    for (unsigned i = 0; ret == 0 && i < samples; i++)
        ret = check_sample(s, regions, count, leaves[i], f);
    return ret;
}

/* ---- levels ------------------------------------------------------------- */

static bool is_map(const char *name)
{
    size_t len = strlen(name);

    return len > 4 && strcmp(name + len - 4, ".map") == 0;
}

/*
 * What is small, and decides how the rest is read: it is copied first, so that
 * it cannot change between the check and its use.
 */
int snapshot_check_small(struct snapshot_watch *watch, struct failure *f)
{
    int ret = 0;

    for (unsigned i = 0; i < watch->depth; i++) {
        struct snapshot_member *m = &watch->chain[i];

        for (uint32_t k = 0; ret == 0 && k < m->manifest.file_count; k++) {
            const char *name = m->manifest.files[k].name;
            bool own =
                strcmp(name, "state") == 0 || strcmp(name, "leaves") == 0;

            if (!(i == 0 && own) && !is_map(name))
                continue;
            ret = snapshot_member_copy_file(m, k, f);
            if (ret == 0)
                ret = snapshot_check_file(m, k, NULL, f);
        }
    }
    return ret;
}

/* Every file of a diff's chain: the leaves are of what they make together. */
static int check_members(const struct snapshot *s, struct failure *f)
{
    int ret = 0;

    for (unsigned i = 0; i < s->watch->depth; i++) {
        const struct snapshot_member *m = &s->watch->chain[i];

        for (uint32_t k = 0; ret == 0 && k < m->manifest.file_count; k++)
            if (m->manifest.files[k].tree)
                ret = snapshot_check_file(m, k, &s->watch->cancel, f);
    }
    return ret;
}

int snapshot_check_files(struct snapshot *snapshot, enum snapshot_check check,
                         struct failure *f)
{
    const struct snapshot_watch *watch = snapshot->watch;
    int ret = 0;

    if (check == SNAPSHOT_CHECK_DEFAULT) {
        bool sealing = watch->many && snapshot_seal_helps(snapshot);

        check = !sealing && snapshot_stamp_fits(snapshot) ? SNAPSHOT_CHECK_STAMP
                                                          : SNAPSHOT_CHECK_FULL;
    }
    if (check == SNAPSHOT_CHECK_FULL)
        ret = snapshot_check_leaves(&watch->chain[0], f);
    if (ret == 0 && check == SNAPSHOT_CHECK_FULL &&
        snapshot->manifest.has_parent)
        ret = check_members(snapshot, f);
    if (ret == 0)
        snapshot->checked = check;
    return ret;
}

int snapshot_check_content(const struct snapshot *snapshot, struct failure *f)
{
    switch (snapshot->checked) {
    case SNAPSHOT_CHECK_FULL:
        return check_regions(snapshot, f);
    case SNAPSHOT_CHECK_SAMPLED:
        return check_samples(snapshot, f);
    default:
        return 0;
    }
}

/* ---- a proof's leaves --------------------------------------------------- */

/* 0, 1 with the first that differs, or a negative errno. */
static int compare_files(int recorded, int proved, uint64_t count,
                         uint64_t *ret_chunk)
{
    struct leaf_reader want, have;
    int error = 0, ret = leaf_reader_init(&want, recorded, 0, count);

    if (ret != 0)
        return ret;
    ret = leaf_reader_init(&have, proved, 0, count);
    for (uint64_t i = 0; ret == 0 && i < count; i++) {
        const uint8_t *a = leaf_reader_next(&want, &error);
        const uint8_t *b = a ? leaf_reader_next(&have, &error) : NULL;

        if (!b) {
            ret = error;
        } else if (memcmp(a, b, DIGEST_SIZE) != 0) {
            *ret_chunk = i;
            ret = 1;
        }
    }
    free(want.buf);
    free(have.buf);
    return ret;
}

int snapshot_compare_leaves(const struct snapshot *snapshot, int leaves_fd,
                            uint64_t *ret_chunk, struct failure *f)
{
    uint64_t count = snapshot_chunks(snapshot->manifest.memory_bytes);
    struct snapshot_mark mark;
    int ret = snapshot_mark_get(leaves_fd, &mark);

    if (ret == 0 && mark.size != count * DIGEST_SIZE)
        ret = -EBADMSG;
    if (ret == 0)
        ret = compare_files(snapshot->leaves_fd, leaves_fd, count, ret_chunk);
    if (ret < 0)
        return snapshot_fail(f, ret, "snapshot_unreadable", snapshot->dir,
                             "cannot compare the memory with that of the "
                             "snapshot %s: %s",
                             snapshot->dir, strerror(-ret));
    return ret;
}
