/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flattened diffs, kept. Putting the memory of a chain together copies all of
 * it, which each trial from a diff would pay for: so it is done once, in
 *
 *     ${XDG_CACHE_HOME:-$HOME/.cache}/microsbx/flat/ID/{memory,disk-ID.cow}
 *
 * by the id of the diff. What lies there is not believed: it is checked against
 * the diff's leaves, or by a stamp that an earlier check left, like the files
 * of a snapshot. It is bounded: those not used for longest go first. Who uses
 * one has a shared lock on its memory file, which keeps it from being removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/snapshot_internal.h"

#define FLAT_ENTRIES_MAX 8u
#define FLAT_BYTES_MAX ((uint64_t)4 << 30)

static char *flat_path(const struct snapshot_watch *watch)
{
    char *folder = snapshot_cache_dir("flat");
    char *path = NULL;

    if (folder && asprintf(&path, "%s/%s", folder, watch->chain[0].id) < 0)
        path = NULL;
    free(folder);
    return path;
}

static struct snapshot_name cow_name(const struct snapshot_watch *watch,
                                     uint32_t disk)
{
    return snapshot_disk_file_name(watch->chain[0].manifest.disks[disk].id,
                                   SNAPSHOT_DISK_COW);
}

/* ---- using one ---------------------------------------------------------- */

void snapshot_flat_close(struct snapshot_watch *watch)
{
    io_close(&watch->flat_memory.fd);
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        io_close(&watch->flat_cows[i].fd);
}

/* A file of ours, of that size: true, and it is open. */
static bool open_one(int dir_fd, const char *name, uint64_t bytes,
                     struct snapshot_entry *entry)
{
    struct stat st;

    entry->fd =
        openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return entry->fd >= 0 && fstat(entry->fd, &st) == 0 &&
           st.st_uid == geteuid() && (uint64_t)st.st_size == bytes;
}

/* Locked, and not removed just before. */
static bool hold(int fd)
{
    struct stat st;

    return flock(fd, LOCK_SH | LOCK_NB) == 0 && fstat(fd, &st) == 0 &&
           st.st_nlink > 0;
}

static bool open_files(struct snapshot_watch *watch, int dir_fd)
{
    const struct snapshot_manifest *m = &watch->chain[0].manifest;

    if (!open_one(dir_fd, "memory", m->memory_bytes, &watch->flat_memory) ||
        !hold(watch->flat_memory.fd) ||
        snapshot_mark_get(watch->flat_memory.fd, &watch->flat_memory.mark))
        return false;
    for (uint32_t i = 0; i < m->disk_count; i++) {
        struct snapshot_entry *entry = &watch->flat_cows[i];

        if (m->disks[i].mode != VM_DISK_COW)
            continue;
        if (!open_one(dir_fd, cow_name(watch, i).text,
                      snapshot_cow_bytes(&m->disks[i]), entry) ||
            snapshot_mark_get(entry->fd, &entry->mark) != 0)
            return false;
    }
    return true;
}

bool snapshot_flat_open(struct snapshot_watch *watch)
{
    char *path = flat_path(watch);
    int dir_fd =
        path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;
    bool is_open = dir_fd >= 0 && open_files(watch, dir_fd);

    if (!is_open)
        snapshot_flat_close(watch);
    else
        (void)futimens(dir_fd, NULL); /* it was used now */
    io_close(&dir_fd);
    free(path);
    return is_open;
}

/* ---- removing ----------------------------------------------------------- */

/* Unless somebody uses it. */
static void remove_flat(int folder_fd, const char *name)
{
    int dir_fd = openat(folder_fd, name,
                        O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int memory = dir_fd < 0
                     ? -1
                     : openat(dir_fd, "memory",
                              O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (dir_fd >= 0 && (memory < 0 || flock(memory, LOCK_EX | LOCK_NB) == 0)) {
        snapshot_each_entry(dir_fd, snapshot_remove_file, NULL);
        (void)unlinkat(folder_fd, name, AT_REMOVEDIR);
    }
    io_close(&memory);
    io_close(&dir_fd);
}

void snapshot_flat_discard(struct snapshot_watch *watch)
{
    char *folder = snapshot_cache_dir("flat");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    snapshot_flat_close(watch);
    if (fd >= 0)
        remove_flat(fd, watch->chain[0].id);
    io_close(&fd);
    free(folder);
}

/* What lies in the folder: how much, and which was not used for longest, of
 * those that were last used after `than`. */
struct survey {
    unsigned count;
    uint64_t bytes;
    struct timespec than;
    char oldest[NAME_MAX + 1]; /* "": none */
    struct timespec used;      /* the oldest one */
};

static void add_blocks(int dir_fd, const char *name, void *ctx)
{
    uint64_t *bytes = ctx;
    struct stat st;

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISREG(st.st_mode))
        *bytes += (uint64_t)st.st_blocks * 512;
}

static bool is_before(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec < b->tv_sec ||
           (a->tv_sec == b->tv_sec && a->tv_nsec < b->tv_nsec);
}

static void survey_one(int folder_fd, const char *name, void *ctx)
{
    struct survey *survey = ctx;
    struct stat st;
    int fd;

    if (name[0] == '.') /* one that is being made */
        return;
    fd = openat(folder_fd, name,
                O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && fstat(fd, &st) == 0) {
        if (is_before(&survey->than, &st.st_mtim) &&
            (!survey->oldest[0] || is_before(&st.st_mtim, &survey->used))) {
            survey->used = st.st_mtim;
            snprintf(survey->oldest, sizeof(survey->oldest), "%s", name);
        }
        survey->count++;
        snapshot_each_entry(fd, add_blocks, &survey->bytes);
    }
    io_close(&fd);
}

/* Room for one more: false if there is none, because all are in use. */
static bool make_room(int folder_fd, uint64_t bytes)
{
    struct timespec than = {0};

    for (;;) {
        struct survey survey = {.than = than};

        snapshot_each_entry(folder_fd, survey_one, &survey);
        if (survey.count < FLAT_ENTRIES_MAX &&
            survey.bytes + bytes <= FLAT_BYTES_MAX)
            return true;
        if (!survey.oldest[0])
            return false;
        remove_flat(folder_fd, survey.oldest);
        than = survey.used; /* whether it went or is in use */
    }
}

/* ---- making one --------------------------------------------------------- */

/* At most so much, if nothing is the same. */
static uint64_t estimate(const struct snapshot_watch *watch)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < watch->depth; i++) {
        const struct snapshot_member *m = &watch->chain[i];

        for (uint32_t k = 0; k < m->manifest.file_count; k++)
            if (strncmp(m->manifest.files[k].name, "base-", 5) != 0)
                bytes += snapshot_seal_cost(m->files[k].fd);
    }
    return bytes;
}

/* Half of what is free is left to others. */
static bool is_worth_keeping(int folder_fd, uint64_t bytes)
{
    struct statvfs fs;

    return fstatvfs(folder_fd, &fs) == 0 &&
           bytes <= (uint64_t)fs.f_bavail * fs.f_frsize / 2 &&
           make_room(folder_fd, bytes);
}

static int flatten_to(const struct snapshot_watch *watch, int disk,
                      const char *name, struct snapshot_stage *stage)
{
    int fd = snapshot_stage_create(stage, name);
    int ret = fd < 0 ? fd : snapshot_flatten_file(watch, disk, fd);

    io_close(&fd);
    return ret;
}

static int flatten_all(const struct snapshot_watch *watch,
                       struct snapshot_stage *stage)
{
    const struct snapshot_manifest *m = &watch->chain[0].manifest;
    int ret = flatten_to(watch, -1, "memory", stage);

    for (uint32_t i = 0; ret == 0 && i < m->disk_count; i++)
        if (m->disks[i].mode == VM_DISK_COW)
            ret = flatten_to(watch, (int)i, cow_name(watch, i).text, stage);
    return ret;
}

int snapshot_flat_make(struct snapshot_watch *watch)
{
    char *folder = snapshot_cache_dir("flat"), *path = flat_path(watch);
    struct snapshot_stage stage = {.out = NULL};
    struct failure ignored = {.code = ""};
    int fd = -1, ret = -ENOENT;

    if (folder && path) {
        snapshot_make_folders(folder);
        fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd >= 0) /* one that is not whole, which could not be opened */
        remove_flat(fd, watch->chain[0].id);
    if (fd >= 0 && is_worth_keeping(fd, estimate(watch)))
        ret = snapshot_stage_begin(path, &stage, &ignored);
    if (ret == 0)
        ret = flatten_all(watch, &stage);
    if (ret == 0)
        ret = snapshot_stage_appear(&stage, &ignored);
    snapshot_stage_end(&stage);
    io_close(&fd);
    free(path);
    free(folder);
    if (ret == -ECANCELED || ret == -EBADMSG || ret == -ENODATA)
        return ret;
    /* Somebody else may have been faster. */
    return snapshot_flat_open(watch) ? 0 : 1;
}
