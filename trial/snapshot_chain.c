/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshots a diff is made of. Nothing in a snapshot says where its parent
 * lies: it is found by its id.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/snapshot_internal.h"

/* Entries of a folder that are looked at: a cache may be large, not endless. */
#define FOLDER_ENTRIES_MAX 65536u

/* True if the directory says that it is the one; whether it lies is seen when
 * it is opened. */
static bool has_id(int folder_fd, const char *name, const char *id)
{
    int fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char found[DIGEST_HEX_SIZE];
    bool same =
        fd >= 0 && snapshot_read_id(fd, found) == 0 && strcmp(found, id) == 0;

    io_close(&fd);
    return same;
}

/* FOLDER/NAME if a snapshot in the folder has that id; the caller frees. */
static char *find_in_folder(const char *folder, const char *id)
{
    DIR *dir = opendir(folder);
    char *path = NULL;
    const struct dirent *entry;

    for (unsigned i = 0; dir && !path && i < FOLDER_ENTRIES_MAX; i++) {
        entry = readdir(dir);
        if (!entry)
            break;
        if (entry->d_name[0] == '.' || !has_id(dirfd(dir), entry->d_name, id))
            continue;
        if (asprintf(&path, "%s/%s", folder, entry->d_name) < 0)
            path = NULL;
    }
    if (dir)
        closedir(dir);
    return path;
}

static char *find_beside(const char *dir, const char *id)
{
    char *folder = NULL, *path;

    if (asprintf(&folder, "%s/..", dir) < 0)
        return NULL;
    path = find_in_folder(folder, id);
    free(folder);
    return path;
}

/* In the folder the child is in, or is to appear in. */
static char *find_in_its_folder(const struct snapshot_member *child,
                                const char *id)
{
    return child->stage ? find_in_folder(child->stage->folder, id)
                        : find_beside(child->path, id);
}

/* ${XDG_CACHE_HOME:-$HOME/.cache}/microsbx/snapshots, beside the images. */
static char *find_in_cache(const char *id)
{
    char *folder = snapshot_cache_dir("snapshots");
    char *path = folder ? find_in_folder(folder, id) : NULL;

    free(folder);
    return path;
}

static char *find_parent(const struct snapshot_member *child,
                         const struct snapshot_open_options *options)
{
    const char *id = child->manifest.parent_id;
    char *path = find_in_its_folder(child, id);

    for (unsigned i = 0; !path && options->parents && options->parents[i]; i++)
        path = has_id(AT_FDCWD, options->parents[i], id)
                   ? strdup(options->parents[i])
                   : find_in_folder(options->parents[i], id);
    return path ? path : find_in_cache(id);
}

static bool same_disks(const struct snapshot_manifest *a,
                       const struct snapshot_manifest *b)
{
    if (a->disk_count != b->disk_count)
        return false;
    for (uint32_t i = 0; i < a->disk_count; i++) {
        const struct snapshot_disk *p = &a->disks[i], *q = &b->disks[i];

        if (strcmp(p->id, q->id) != 0 || p->mode != q->mode ||
            p->bytes != q->bytes || strcmp(p->sha256, q->sha256) != 0)
            return false;
    }
    return true;
}

/* The id says that it is the parent; what a diff relies on must agree. */
static int check_link(const struct snapshot_member *child,
                      const struct snapshot_member *parent, struct failure *f)
{
    const struct snapshot_manifest *c = &child->manifest;
    const struct snapshot_manifest *p = &parent->manifest;

    if (strcmp(parent->id, c->parent_id) == 0 &&
        strcmp(p->root, c->parent_root) == 0 &&
        p->memory_bytes == c->memory_bytes && same_disks(p, c))
        return 0;
    return snapshot_fail(f, -EBADMSG, "snapshot_parent", parent->dir,
                         "the snapshot %s cannot be a diff to %s: that is "
                         "another machine",
                         child->dir, parent->dir);
}

int snapshot_chain_next(const struct snapshot_open_options *options,
                        struct snapshot_watch *watch, struct failure *f)
{
    const struct snapshot_member *child = &watch->chain[watch->depth - 1];
    struct snapshot_member *parent = &watch->chain[watch->depth];
    char *path;
    int ret;

    if (watch->depth == SNAPSHOT_CHAIN_MAX + 1)
        return snapshot_fail(f, -E2BIG, "snapshot_parent", child->dir,
                             "the snapshot %s has more than %u ancestors",
                             watch->chain[0].dir, SNAPSHOT_CHAIN_MAX);
    path = find_parent(child, options);
    if (!path)
        return snapshot_fail(f, -ENOENT, "snapshot_parent",
                             child->manifest.parent_id,
                             "the snapshot %s is a diff, and its parent %.16s "
                             "is not found: it was deleted or lies elsewhere",
                             child->dir, child->manifest.parent_id);
    watch->depth++;
    ret = snapshot_member_open(path, parent, f);
    free(path);
    return ret == 0 ? check_link(child, parent, f) : ret;
}

int snapshot_chain_open(const char *dir,
                        const struct snapshot_open_options *options,
                        struct snapshot_watch *watch, struct failure *f)
{
    int ret;

    watch->depth = 1;
    ret = options->stage
              ? snapshot_member_open_staged(options->stage, &watch->chain[0], f)
              : snapshot_member_open(dir, &watch->chain[0], f);
    if (ret == 0)
        ret = snapshot_member_open_files(&watch->chain[0], f);
    while (ret == 0 && !options->no_flatten &&
           watch->chain[watch->depth - 1].manifest.has_parent) {
        ret = snapshot_chain_next(options, watch, f);
        if (ret == 0)
            ret =
                snapshot_member_open_files(&watch->chain[watch->depth - 1], f);
    }
    return ret;
}
