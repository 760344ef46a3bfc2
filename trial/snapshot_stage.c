/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a directory appear complete: a hidden folder beside it, filled,
 * synced, checked and renamed.
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
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/snapshot_internal.h"

#define MARK ".snapshot-" /* .NAME.snapshot-XXXXXXXXXXXXXXXX */
#define SUFFIX_LEN 16u    /* hex digits behind it */
#define NAME_LEN_MAX 200u /* of the output: the hidden name is longer */
#define TRIES 16u         /* to make a folder nobody removes */

int snapshot_stage_fail(const struct snapshot_stage *stage, int error,
                        const char *what, struct failure *f)
{
    if (error == -ECANCELED)
        return snapshot_fail(f, error, "cancelled", stage->out,
                             "the snapshot %s was not written: interrupted",
                             stage->out);
    return snapshot_fail(f, error, "snapshot_write", stage->out,
                         "cannot write the snapshot %s: cannot %s: %s",
                         stage->out, what, strerror(-error));
}

/* ---- removing ----------------------------------------------------------- */

/* All that a snapshot's folder can hold is files. */
static void empty_folder(int dir_fd)
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
            (void)unlinkat(dir_fd, entry->d_name, 0);
    closedir(dir);
}

static bool is_hidden_name(const char *name)
{
    size_t len = strlen(name), tail = strlen(MARK) + SUFFIX_LEN;
    const char *mark = len > tail ? name + len - tail : "";

    return name[0] == '.' && strncmp(mark, MARK, strlen(MARK)) == 0 &&
           strspn(mark + strlen(MARK), "0123456789abcdef") == SUFFIX_LEN;
}

/* Removes a hidden folder of ours if nobody holds its lock. */
static void remove_abandoned(int folder_fd, const char *name)
{
    int fd = openat(folder_fd, name,
                    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid() &&
        flock(fd, LOCK_EX | LOCK_NB) == 0) {
        empty_folder(fd);
        (void)unlinkat(folder_fd, name, AT_REMOVEDIR);
    }
    io_close(&fd);
}

static void remove_all_abandoned(int folder_fd)
{
    int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    if (!dir) {
        io_close(&fd);
        return;
    }
    while ((entry = readdir(dir)) != NULL)
        if (is_hidden_name(entry->d_name))
            remove_abandoned(folder_fd, entry->d_name);
    closedir(dir);
}

void snapshot_stage_end(struct snapshot_stage *stage)
{
    if (!stage->out)
        return;
    if (stage->temp[0]) {
        if (stage->dir_fd >= 0)
            empty_folder(stage->dir_fd);
        (void)unlinkat(stage->folder_fd, stage->temp, AT_REMOVEDIR);
    }
    io_close(&stage->dir_fd);
    io_close(&stage->folder_fd);
    free(stage->out);
    free(stage->folder);
    free(stage->name);
    memset(stage, 0, sizeof(*stage));
}

/* ---- beginning ---------------------------------------------------------- */

static int fail_name(struct snapshot_stage *stage, struct failure *f)
{
    return snapshot_fail(f, -EINVAL, "snapshot_write", stage->out,
                         "cannot write a snapshot named '%s': it needs a name "
                         "of at most %u characters",
                         stage->out, NAME_LEN_MAX);
}

/* Splits FOLDER/NAME; slashes at the end do not matter. */
static int split_path(const char *out_dir, struct snapshot_stage *stage,
                      struct failure *f)
{
    char *path = strdup(out_dir);
    size_t len = path ? strlen(path) : 0;
    char *slash;

    stage->out = strdup(out_dir);
    if (!path || !stage->out) {
        free(path);
        return snapshot_fail(f, -ENOMEM, "host", out_dir, "out of memory");
    }
    while (len > 1 && path[len - 1] == '/')
        path[--len] = '\0';
    slash = strrchr(path, '/');
    stage->name = strdup(slash ? slash + 1 : path);
    if (slash)
        slash[slash == path] = '\0';
    stage->folder = strdup(slash ? path : ".");
    free(path);
    if (!stage->name || !stage->folder)
        return snapshot_fail(f, -ENOMEM, "host", out_dir, "out of memory");
    if (!stage->name[0] || strcmp(stage->name, ".") == 0 ||
        strcmp(stage->name, "..") == 0 || strlen(stage->name) > NAME_LEN_MAX)
        return fail_name(stage, f);
    return 0;
}

static int fail_exists(const struct snapshot_stage *stage, struct failure *f)
{
    return snapshot_fail(f, -EEXIST, "snapshot_exists", stage->out,
                         "cannot write the snapshot %s: it exists already",
                         stage->out);
}

static int open_folder(struct snapshot_stage *stage, struct failure *f)
{
    struct stat st;

    stage->folder_fd = open(stage->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (stage->folder_fd < 0)
        return snapshot_fail(f, -errno, "snapshot_write", stage->folder,
                             "cannot write the snapshot %s: its folder %s: %s",
                             stage->out, stage->folder, strerror(errno));
    if (fstatat(stage->folder_fd, stage->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return fail_exists(stage, f);
    return 0;
}

/* Makes and locks a folder; 1 if somebody took it for abandoned. */
static int make_folder(struct snapshot_stage *stage)
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

int snapshot_stage_begin(const char *out_dir, struct snapshot_stage *ret_stage,
                         struct failure *f)
{
    struct snapshot_stage *stage = ret_stage;
    int ret;

    memset(stage, 0, sizeof(*stage));
    stage->folder_fd = stage->dir_fd = -1;
    ret = split_path(out_dir, stage, f);
    if (ret == 0)
        ret = open_folder(stage, f);
    if (ret != 0)
        return ret;
    remove_all_abandoned(stage->folder_fd);
    ret = 1;
    for (unsigned i = 0; ret == 1 && i < TRIES; i++)
        ret = make_folder(stage);
    if (ret == 0)
        return 0;
    return snapshot_stage_fail(stage, ret == 1 ? -EAGAIN : ret,
                               "make a folder for it", f);
}

int snapshot_stage_create(const struct snapshot_stage *stage, const char *name)
{
    int fd = openat(stage->dir_fd, name,
                    O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

    return fd < 0 ? -errno : fd;
}

int snapshot_stage_open(const struct snapshot_stage *stage, const char *name)
{
    int fd = openat(stage->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    return fd < 0 ? -errno : fd;
}

int snapshot_stage_nameless(const struct snapshot_stage *stage)
{
    int fd = openat(stage->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0)
        return fd;
    /* File systems without O_TMPFILE: a name for a moment. */
    fd = snapshot_stage_create(stage, "saved");
    if (fd >= 0)
        (void)unlinkat(stage->dir_fd, "saved", 0);
    return fd;
}

/* ---- publishing --------------------------------------------------------- */

/* Read-only for everybody, and on the disk. */
static int seal_file(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int ret = 0;

    if (fd < 0)
        return -errno;
    if (fchmod(fd, 0444) != 0 || fsync(fd) != 0)
        ret = -errno;
    io_close(&fd);
    return ret;
}

static int seal_files(const struct snapshot_stage *stage)
{
    int fd = openat(stage->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    int ret = 0;

    if (!dir) {
        ret = -errno;
        io_close(&fd);
        return ret;
    }
    while (ret == 0 && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            ret = seal_file(stage->dir_fd, entry->d_name);
    if (ret == 0 && fsync(stage->dir_fd) != 0)
        ret = -errno;
    closedir(dir);
    return ret;
}

/*
 * Waits until a later change of the files would be seen, so that the check can
 * leave a stamp; not where the file system counts in seconds.
 */
static void settle(void)
{
    const struct timespec pause = {.tv_nsec = 25000000};

    (void)nanosleep(&pause, NULL);
}

/* What was written is read back, by the reader that its users have. */
static int verify(const struct snapshot_stage *stage,
                  const struct snapshot_open_options *options,
                  struct failure *f)
{
    struct snapshot_open_options full = *options;
    struct snapshot *snapshot = NULL;
    struct failure why = {.code = ""};
    char *path = NULL;
    int ret;

    full.check = SNAPSHOT_CHECK_FULL;
    if (asprintf(&path, "%s/%s", stage->folder, stage->temp) < 0)
        return snapshot_stage_fail(stage, -ENOMEM, "verify it", f);
    ret = snapshot_open(path, &full, &snapshot, &why);
    snapshot_close(snapshot);
    free(path);
    if (ret == 0)
        return 0;
    if (ret == -ECANCELED)
        return snapshot_stage_fail(stage, ret, "verify it", f);
    return snapshot_fail(f, ret, why.code, stage->out,
                         "the snapshot %s was not written: reading it back "
                         "failed: %s",
                         stage->out, why.message);
}

/* Where the file system has no RENAME_NOREPLACE: a directory does not replace
 * anything but an empty directory anyway. */
static int rename_new(const struct snapshot_stage *stage)
{
    struct stat st;

    if (renameat2(stage->folder_fd, stage->temp, stage->folder_fd, stage->name,
                  RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (fstatat(stage->folder_fd, stage->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST;
    if (renameat(stage->folder_fd, stage->temp, stage->folder_fd,
                 stage->name) == 0)
        return 0;
    return -errno;
}

int snapshot_stage_publish(struct snapshot_stage *stage,
                           const struct snapshot_open_options *options,
                           struct failure *f)
{
    int ret = seal_files(stage);

    if (ret != 0)
        return snapshot_stage_fail(stage, ret, "sync its files", f);
    settle();
    ret = verify(stage, options, f);
    if (ret != 0)
        return ret;
    ret = rename_new(stage);
    if (ret == -EEXIST)
        return fail_exists(stage, f);
    if (ret != 0)
        return snapshot_stage_fail(stage, ret, "give it its name", f);
    /* It is there now: a failing sync of the folder cannot be undone. */
    stage->temp[0] = '\0';
    (void)fsync(stage->folder_fd);
    return 0;
}
