/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a directory appear complete. Its files are made without names, filled,
 * synced and checked; then a hidden folder beside the output is made, they are
 * linked into it, and it is renamed. Whoever is killed before the folder leaves
 * nothing, because the kernel frees what has no name; in the few system calls
 * after that, the folder (snapshot_hidden.c).
 *
 * Where the file system has no files without names (9p, NFS), or there is no
 * /proc to name them by, the folder is made at the beginning and the files in
 * it: there a kill leaves it, with all that was written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/snapshot_internal.h"

#define NAME_LEN_MAX 200u /* of the output: the hidden name is longer */

/* The path by which a file without a name is opened again, and linked. */
struct fd_path {
    char text[32];
};

static struct fd_path fd_path(int fd)
{
    struct fd_path path;

    snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", fd);
    return path;
}

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

void snapshot_stage_end(struct snapshot_stage *stage)
{
    if (!stage->out)
        return;
    for (unsigned i = 0; i < stage->file_count; i++)
        io_close(&stage->files[i].fd);
    snapshot_hidden_remove(stage);
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

/* A new file without a name in that folder, or -errno. */
static int open_nameless(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    return fd < 0 ? -errno : fd;
}

/* Files can be made without names here, and found again: 1, 0 or -errno. */
static int probe_nameless(const struct snapshot_stage *stage)
{
    int fd = open_nameless(stage->folder_fd);
    int again = -1;

    if (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL)
        return 0;
    if (fd < 0)
        return fd;
    again = open(fd_path(fd).text, O_RDONLY | O_CLOEXEC);
    io_close(&fd);
    if (again < 0)
        return 0;
    io_close(&again);
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
    snapshot_hidden_sweep(stage->folder_fd);
    ret = probe_nameless(stage);
    if (ret < 0)
        return snapshot_stage_fail(stage, ret, "make a file for it", f);
    stage->named = ret == 0;
    ret = stage->named ? snapshot_hidden_make(stage) : 0;
    return ret == 0
               ? 0
               : snapshot_stage_fail(stage, ret, "make a folder for it", f);
}

/* ---- files -------------------------------------------------------------- */

static const struct stage_file *find_file(const struct snapshot_stage *stage,
                                          const char *name)
{
    for (unsigned i = 0; i < stage->file_count; i++)
        if (strcmp(stage->files[i].name, name) == 0)
            return &stage->files[i];
    return NULL;
}

static int create_named(const struct snapshot_stage *stage, const char *name)
{
    int fd = openat(stage->dir_fd, name,
                    O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

    return fd < 0 ? -errno : fd;
}

/* To read, with a position of its own. */
static int open_again(const struct snapshot_stage *stage, const char *name,
                      int fd)
{
    int again = stage->named ? openat(stage->dir_fd, name,
                                      O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
                             : open(fd_path(fd).text, O_RDONLY | O_CLOEXEC);

    return again < 0 ? -errno : again;
}

int snapshot_stage_create(struct snapshot_stage *stage, const char *name)
{
    struct stage_file *file = &stage->files[stage->file_count];
    int fd, again;

    if (find_file(stage, name))
        return -EEXIST;
    if (stage->file_count == STAGE_FILES_MAX ||
        strlen(name) > SNAPSHOT_NAME_MAX)
        return -EINVAL;
    fd = stage->named ? create_named(stage, name)
                      : open_nameless(stage->folder_fd);
    if (fd < 0)
        return fd;
    again = open_again(stage, name, fd);
    if (again < 0) {
        io_close(&fd);
        return again;
    }
    snprintf(file->name, sizeof(file->name), "%s", name);
    file->fd = again;
    stage->file_count++;
    return fd;
}

int snapshot_stage_open(const struct snapshot_stage *stage, const char *name)
{
    const struct stage_file *file = find_file(stage, name);

    return file ? open_again(stage, name, file->fd) : -ENOENT;
}

int snapshot_stage_nameless(const struct snapshot_stage *stage)
{
    int fd = open_nameless(stage->folder_fd);

    if (fd >= 0 || !stage->named)
        return fd;
    /* A name for a moment. */
    fd = create_named(stage, "saved");
    if (fd >= 0)
        (void)unlinkat(stage->dir_fd, "saved", 0);
    return fd;
}

/* ---- publishing --------------------------------------------------------- */

/* Read-only for everybody, where it can be for good, and on the disk. */
static int seal_files(const struct snapshot_stage *stage)
{
    for (unsigned i = 0; i < stage->file_count; i++)
        snapshot_seal_file(stage->files[i].fd);
    for (unsigned i = 0; i < stage->file_count; i++)
        if (fchmod(stage->files[i].fd, 0444) != 0 ||
            fsync(stage->files[i].fd) != 0)
            return -errno;
    return 0;
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
                  struct snapshot **ret_snapshot, struct failure *f)
{
    struct snapshot_open_options full = *options;
    struct failure why = {.code = ""};
    int ret;

    full.check = SNAPSHOT_CHECK_FULL;
    full.stage = stage;
    ret = snapshot_open(stage->out, &full, ret_snapshot, &why);
    if (ret == 0)
        return 0;
    if (ret == -ECANCELED)
        return snapshot_stage_fail(stage, ret, "verify it", f);
    return snapshot_fail(f, ret, why.code, stage->out,
                         "the snapshot %s was not written: reading it back "
                         "failed: %s",
                         stage->out, why.message);
}

/*
 * The hidden folder with all files in it. They are synced once more: a file
 * system may think it in vain to log a file that nobody could find after a
 * crash (btrfs does). What is in them is on the disk already, so it is quick.
 */
static int link_files(struct snapshot_stage *stage)
{
    int ret = snapshot_hidden_make(stage);

    for (unsigned i = 0; ret == 0 && i < stage->file_count; i++) {
        const struct stage_file *file = &stage->files[i];

        if (linkat(AT_FDCWD, fd_path(file->fd).text, stage->dir_fd, file->name,
                   AT_SYMLINK_FOLLOW) != 0)
            ret = -errno;
    }
    for (unsigned i = 0; ret == 0 && i < stage->file_count; i++)
        if (fsync(stage->files[i].fd) != 0)
            ret = -errno;
    return ret;
}

static int make_folder(struct snapshot_stage *stage)
{
    int ret = stage->named ? 0 : link_files(stage);

    if (ret == 0 && fsync(stage->dir_fd) != 0)
        ret = -errno;
    return ret;
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

/* From checked files to a directory of that name. */
static int publish(struct snapshot_stage *stage, struct failure *f)
{
    int ret = make_folder(stage);

    if (ret != 0)
        return snapshot_stage_fail(stage, ret, "put its files into a folder",
                                   f);
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

int snapshot_stage_appear(struct snapshot_stage *stage, struct failure *f)
{
    int ret = seal_files(stage);

    if (ret != 0)
        return snapshot_stage_fail(stage, ret, "sync its files", f);
    return publish(stage, f);
}

int snapshot_stage_publish(struct snapshot_stage *stage,
                           const struct snapshot_open_options *options,
                           struct failure *f)
{
    struct snapshot *checked = NULL;
    int ret = seal_files(stage);

    if (ret != 0)
        return snapshot_stage_fail(stage, ret, "sync its files", f);
    settle();
    ret = verify(stage, options, &checked, f);
    if (ret == 0)
        ret = publish(stage, f);
    if (ret == 0 && !options->no_bases && !options->no_flatten) {
        /* Who got names was changed by that. */
        if (!stage->named)
            settle();
        snapshot_stamp_renew(checked);
    }
    snapshot_close(checked);
    return ret;
}
