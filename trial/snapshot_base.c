/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the base of each disk: stored, given, or an image's. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/image.h"
#include "trial/snapshot_internal.h"

/* Leaves of a given file that are compared to tell whether it is the one. */
#define LIKELY_CHUNKS 8u

static int fail_base(const struct snapshot_disk *disk, const char *path,
                     int error, const char *why, struct failure *f)
{
    return snapshot_fail(f, error, "snapshot_base", path,
                         "cannot use %s as the base of the disk '%s': %s", path,
                         disk->id, why);
}

/*
 * Opens a file that may be the base: regular, of the right size, and locked
 * like any disk that is read, so that nobody gets it for writing. 1 if it is
 * not of that size.
 */
static int open_base(const struct snapshot_disk *disk, const char *path,
                     struct snapshot_base *ret_base, struct failure *f)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int ret;

    if (fd < 0)
        return fail_base(disk, path, -errno, strerror(errno), f);
    ret = snapshot_mark_get(fd, &ret_base->entry.mark);
    if (ret != 0)
        ret = fail_base(disk, path, ret, "it is not a regular file", f);
    else if (ret_base->entry.mark.size != disk->bytes)
        ret = 1;
    else if (flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        ret = fail_base(disk, path, -EBUSY, "a machine has it open for writing",
                        f);
    if (ret == 0) {
        ret_base->path = strdup(path);
        ret =
            ret_base->path ? 0 : fail_base(disk, path, -ENOMEM, "no memory", f);
    }
    if (ret != 0) {
        io_close(&fd);
        return ret;
    }
    ret_base->entry.fd = fd;
    return 0;
}

/* ---- stored in a member of the chain ------------------------------------ */

static int use_stored(const struct snapshot_member *member,
                      const struct snapshot_disk *stored,
                      struct snapshot_base *ret_base)
{
    struct snapshot_name name =
        snapshot_disk_file_name(stored->id, SNAPSHOT_DISK_BASE);
    int fd = fcntl(snapshot_member_fd(member, name.text), F_DUPFD_CLOEXEC, 0);
    struct snapshot_path path = snapshot_path(member->dir, name.text);
    int ret = fd < 0 ? -errno : snapshot_mark_get(fd, &ret_base->entry.mark);

    if (ret == 0) {
        ret_base->path = strdup(path.text);
        ret = ret_base->path ? 0 : -ENOMEM;
    }
    if (ret != 0)
        io_close(&fd);
    else
        ret_base->entry.fd = fd;
    return ret;
}

const struct snapshot_member *
snapshot_chain_storing(const struct snapshot_watch *watch,
                       const struct snapshot_disk *disk)
{
    for (unsigned i = 0; i < watch->depth; i++) {
        const struct snapshot_disk *stored =
            snapshot_manifest_disk(&watch->chain[i].manifest, disk->id);

        if (stored && stored->stored && stored->bytes == disk->bytes &&
            strcmp(stored->sha256, disk->sha256) == 0)
            return &watch->chain[i];
    }
    return NULL;
}

/* 1 if no member has stored it. */
static int find_stored(const struct snapshot_watch *watch,
                       const struct snapshot_disk *disk,
                       struct snapshot_base *ret_base)
{
    const struct snapshot_member *member = snapshot_chain_storing(watch, disk);

    return member ? use_stored(member, disk, ret_base) : 1;
}

/* ---- given by the user -------------------------------------------------- */

static const struct snapshot_region *
region_of(const struct snapshot_region *regions, unsigned count, uint32_t disk)
{
    for (unsigned i = 0; i < count; i++)
        if (regions[i].kind == SNAPSHOT_REGION_BASE && regions[i].disk == disk)
            return &regions[i];
    return NULL;
}

/* A few of its chunks are the recorded ones; the level's check does the rest.
 */
static bool is_likely(const struct snapshot_member *member, uint32_t disk,
                      int fd)
{
    struct snapshot_region regions[SNAPSHOT_REGIONS_MAX];
    unsigned count = snapshot_regions(&member->manifest, regions);
    const struct snapshot_region *region = region_of(regions, count, disk);
    uint64_t chunks = region ? snapshot_chunks(region->bytes) : 0;
    uint64_t step = chunks / LIKELY_CHUNKS + 1;
    int leaves_fd = snapshot_member_fd(member, "leaves");

    for (uint64_t i = 0; i < chunks; i += step)
        if (snapshot_check_chunk(fd, region, i, leaves_fd) != 0)
            return false;
    return chunks > 0;
}

/* 1 if none of the given files is it. */
static int find_given(const struct snapshot_watch *watch, uint32_t disk,
                      const char *const *paths, struct snapshot_base *ret_base,
                      struct failure *f)
{
    const struct snapshot_member *member = &watch->chain[0];
    int ret;

    for (unsigned i = 0; paths && paths[i]; i++) {
        ret = open_base(&member->manifest.disks[disk], paths[i], ret_base, f);

        if (ret < 0)
            return ret;
        if (ret == 0 && is_likely(member, disk, ret_base->entry.fd))
            return 0;
        if (ret == 0) {
            io_close(&ret_base->entry.fd);
            free(ret_base->path);
            ret_base->path = NULL;
        }
    }
    return 1;
}

/* ---- an image's --------------------------------------------------------- */

/* The path of the part that is the base, or NULL. */
static const char *part_of(const struct image *image,
                           const struct snapshot_disk *disk)
{
    const struct image_part *parts[] = {&image->rootfs, &image->scratch};

    for (unsigned i = 0; i < 2; i++)
        if (parts[i]->bytes == disk->bytes &&
            strcmp(parts[i]->sha256, disk->sha256) == 0)
            return parts[i]->path;
    return NULL;
}

/* 1 if it has no such part, or is no image. */
static int try_image(const char *dir, const struct snapshot_disk *disk,
                     struct snapshot_base *ret_base, struct failure *f)
{
    char err[IMAGE_ERR_MAX];
    struct image image;
    const char *path;
    int ret;

    if (image_open(dir, &image, err, sizeof(err)) != 0)
        return 1;
    path = part_of(&image, disk);
    ret = path ? open_base(disk, path, ret_base, f) : 1;
    image_fini(&image);
    return ret;
}

static int find_in_images(const struct snapshot_disk *disk,
                          struct snapshot_base *ret_base, struct failure *f)
{
    char *folder = image_cache_dir();
    DIR *dir = folder ? opendir(folder) : NULL;
    const struct dirent *entry;
    int ret = 1;

    while (dir && ret == 1 && (entry = readdir(dir)) != NULL) {
        char *path = NULL;

        if (entry->d_name[0] == '.' ||
            asprintf(&path, "%s/%s", folder, entry->d_name) < 0)
            continue;
        ret = try_image(path, disk, ret_base, f);
        free(path);
    }
    if (dir)
        closedir(dir);
    free(folder);
    return ret;
}

/* ------------------------------------------------------------------------- */

static int find_base(const struct snapshot_open_options *options,
                     struct snapshot_watch *watch, uint32_t i,
                     struct failure *f)
{
    const struct snapshot_disk *disk = &watch->chain[0].manifest.disks[i];
    struct snapshot_base *base = &watch->bases[i];
    int ret = find_stored(watch, disk, base);

    if (ret < 0)
        return fail_base(disk, watch->chain[0].dir, ret, strerror(-ret), f);
    if (ret == 1 && options->no_bases)
        return 0;
    if (ret == 1)
        ret = find_given(watch, i, options->bases, base, f);
    if (ret == 1)
        ret = find_in_images(disk, base, f);
    if (ret != 1)
        return ret;
    return snapshot_fail(
        f, -ENOENT, "snapshot_base", disk->id,
        "the snapshot %s does not hold the base of its disk "
        "'%s', and no image here has it (%" PRIu64 " bytes, sha256 %.16s...)",
        watch->chain[0].dir, disk->id, disk->bytes, disk->sha256);
}

int snapshot_bases_open(const struct snapshot_open_options *options,
                        struct snapshot_watch *watch, struct failure *f)
{
    int ret = 0;

    for (uint32_t i = 0; ret == 0 && i < watch->chain[0].manifest.disk_count;
         i++)
        ret = find_base(options, watch, i, f);
    return ret;
}

/* ---- another base ------------------------------------------------------- */

static int fail_override(const char *id, const char *path, int error,
                         const char *why, struct failure *f)
{
    return snapshot_fail(f, error, "snapshot_disk", path,
                         "cannot use %s as the disk '%s' of the snapshot: %s",
                         path, id, why);
}

/* 1 if the snapshot's cow file holds any cluster, 0 if not. */
static int has_clusters(const struct snapshot *s, uint32_t i)
{
    struct snapshot_cow cow;
    uint64_t present = 0;
    int ret;

    if (s->manifest.disks[i].mode != VM_DISK_COW)
        return 0;
    ret =
        snapshot_cow_load(s->disks[i].cow_fd, s->manifest.disks[i].bytes, &cow);
    if (ret != 0)
        return ret;
    ret = cow_format_count(&cow.format, cow.bits, &present);
    snapshot_cow_fini(&cow);
    return ret == 0 ? present > 0 : ret;
}

/* Puts another file in the place of the base that was found. */
static int replace_base(struct snapshot *s, uint32_t i,
                        struct snapshot_base *base)
{
    struct snapshot_base *old = &s->watch->bases[i];
    int fd = fcntl(base->entry.fd, F_DUPFD_CLOEXEC, 0);
    char *path = base->path ? strdup(base->path) : NULL;

    if (fd < 0 || !path) {
        io_close(&fd);
        free(path);
        return -ENOMEM;
    }
    io_close(&s->disks[i].base_fd);
    s->disks[i].base_fd = fd;
    free(s->disks[i].replaced);
    s->disks[i].replaced = path;
    io_close(&old->entry.fd);
    free(old->path);
    *old = *base;
    return 0;
}

int snapshot_override_base(struct snapshot *snapshot, const char *id,
                           const char *path, struct failure *f)
{
    const struct snapshot_disk *disk =
        snapshot_manifest_disk(&snapshot->manifest, id);
    struct snapshot_base base = {.entry.fd = -1};
    uint32_t i;
    int ret;

    if (!disk)
        return fail_override(id, path, -ENOENT, "it has no disk of that id", f);
    i = (uint32_t)(disk - snapshot->manifest.disks);
    ret = has_clusters(snapshot, i);
    if (ret < 0)
        return fail_override(id, path, ret, strerror(-ret), f);
    if (ret == 1)
        return fail_override(id, path, -EINVAL,
                             "the guest had written to that disk before the "
                             "snapshot, which does not fit another one",
                             f);
    ret = open_base(disk, path, &base, f);
    if (ret == 1)
        return snapshot_fail(f, -EINVAL, "snapshot_disk", path,
                             "cannot use %s as the disk '%s' of the snapshot: "
                             "it has %" PRIu64 " bytes instead of %" PRIu64,
                             path, id, base.entry.mark.size, disk->bytes);
    if (ret == 0 && replace_base(snapshot, i, &base) != 0) {
        io_close(&base.entry.fd);
        free(base.path);
        ret = fail_override(id, path, -ENOMEM, "no memory", f);
    }
    return ret;
}
