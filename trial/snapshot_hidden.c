/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hidden folder ".NAME.snapshot-XXXXXX" in which a snapshot is put together
 * before it gets its name.
 *
 * Who is killed leaves the folder behind. Its lock (flock on the folder) is
 * then free, and the next who publishes in the same place removes it. Between
 * making a folder and locking it there is a moment in which it looks abandoned:
 * its maker sees that it is gone and makes another one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/snapshot_internal.h"

#define MARK ".snapshot-" /* .NAME.snapshot-XXXXXXXXXXXXXXXX */
#define SUFFIX_LEN 16u    /* hex digits behind it */
#define TRIES 16u         /* to make a folder nobody removes */

/* ---- removing ----------------------------------------------------------- */

void snapshot_each_entry(int dir_fd, snapshot_entry_fn *take, void *ctx)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    if (!dir) {
        io_close(&fd);
        return;
    }
    while ((entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            take(dir_fd, entry->d_name, ctx);
    closedir(dir);
}

/* All that a snapshot's folder can hold is files. */
void snapshot_remove_file(int dir_fd, const char *name, void *ctx)
{
    (void)ctx;
    (void)unlinkat(dir_fd, name, 0);
}

void snapshot_hidden_remove(struct snapshot_stage *stage)
{
    if (stage->temp[0]) {
        if (stage->dir_fd >= 0)
            snapshot_each_entry(stage->dir_fd, snapshot_remove_file, NULL);
        (void)unlinkat(stage->folder_fd, stage->temp, AT_REMOVEDIR);
        stage->temp[0] = '\0';
    }
    io_close(&stage->dir_fd);
}

static bool is_hidden_name(const char *name)
{
    size_t len = strlen(name), tail = strlen(MARK) + SUFFIX_LEN;
    const char *mark = len > tail ? name + len - tail : "";

    return name[0] == '.' && strncmp(mark, MARK, strlen(MARK)) == 0 &&
           strspn(mark + strlen(MARK), "0123456789abcdef") == SUFFIX_LEN;
}

/* Removes a hidden folder of ours if nobody holds its lock. */
static void remove_abandoned(int folder_fd, const char *name, void *ctx)
{
    struct stat st;
    int fd;

    (void)ctx;
    if (!is_hidden_name(name))
        return;
    fd = openat(folder_fd, name,
                O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid() &&
        flock(fd, LOCK_EX | LOCK_NB) == 0) {
        snapshot_each_entry(fd, snapshot_remove_file, NULL);
        (void)unlinkat(folder_fd, name, AT_REMOVEDIR);
    }
    io_close(&fd);
}

void snapshot_hidden_sweep(int folder_fd)
{
    snapshot_each_entry(folder_fd, remove_abandoned, NULL);
}

/* ---- making ------------------------------------------------------------- */

/* Makes and locks a folder; 1 if somebody took it for abandoned. */
static int try_make(struct snapshot_stage *stage)
{
    uint64_t random;
    struct stat st;

    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return -EIO;
    snprintf(stage->temp, sizeof(stage->temp), ".%s" MARK "%016" PRIx64,
             stage->name, random);
    if (mkdirat(stage->folder_fd, stage->temp, 0777) != 0) {
        stage->temp[0] = '\0';
        return errno == EEXIST ? 1 : -errno;
    }
    stage->dir_fd = openat(stage->folder_fd, stage->temp,
                           O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (stage->dir_fd < 0 && errno == ENOENT)
        return 1;
    if (stage->dir_fd < 0 || flock(stage->dir_fd, LOCK_EX) != 0)
        return -errno;
    /* Ours now, unless it was removed before we had the lock. */
    if (fstatat(stage->folder_fd, stage->temp, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    io_close(&stage->dir_fd);
    return 1;
}

int snapshot_hidden_make(struct snapshot_stage *stage)
{
    int ret = 1;

    for (unsigned i = 0; ret == 1 && i < TRIES; i++)
        ret = try_make(stage);
    return ret == 1 ? -EAGAIN : ret;
}
