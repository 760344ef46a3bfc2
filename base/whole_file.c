/* SPDX-License-Identifier: Apache-2.0 */
/* Files that appear complete; see the header. */
#include "base/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

/* A file without a name in the folder of that path, or a negative errno. */
static int open_nameless(const char *path, mode_t mode)
{
    const char *slash = strrchr(path, '/');
    char *folder =
        slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int fd;

    if (!folder)
        return -ENOMEM;
    fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
    if (fd < 0)
        fd = -errno;
    free(folder);
    return fd;
}

/* Gives it the name; 1 if that cannot be done here, without /proc. */
static int give_name(int fd, const char *path)
{
    char link[32];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    for (int i = 0; i < 2; i++) {
        if (linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0)
            return 0;
        if (errno != EEXIST)
            return errno == ENOENT || errno == EOPNOTSUPP ? 1 : -errno;
        if (unlink(path) != 0 && errno != ENOENT)
            return -errno;
    }
    return -EEXIST;
}

/* A file of that name with something behind it: an errno, or a descriptor. */
static int open_beside(const char *path, mode_t mode, char **ret_beside)
{
    mode_t mask = umask(0);
    char *beside = NULL;
    int fd;

    umask(mask);
    if (asprintf(&beside, "%s.XXXXXX", path) < 0)
        return -ENOMEM;
    fd = mkostemp(beside, O_CLOEXEC);
    if (fd < 0 || fchmod(fd, mode & ~mask) != 0) {
        int ret = -errno;

        if (fd >= 0)
            (void)unlink(beside);
        io_close(&fd);
        free(beside);
        return ret;
    }
    *ret_beside = beside;
    return fd;
}

/* The same bytes, in a file that has a name. */
static int copy_beside(struct whole_file *w)
{
    uint8_t buf[8192];
    struct stat st;
    char *beside = NULL;
    uint64_t at = 0;
    ssize_t n = 1;
    int fd = fstat(w->fd, &st) != 0
                 ? -errno
                 : open_beside(w->path, st.st_mode & 0777, &beside);
    int ret = fd < 0 ? fd : 0;

    while (ret == 0 && n > 0) {
        n = io_pread_full(w->fd, buf, sizeof(buf), at);
        ret = n < 0 ? (int)n : io_write_full(fd, buf, (size_t)n);
        at += (uint64_t)(n > 0 ? n : 0);
    }
    if (fd >= 0) {
        io_close(&w->fd);
        w->fd = fd;
        w->beside = beside;
    }
    return ret;
}

int whole_file_begin(const char *path, mode_t mode, struct whole_file *ret_file)
{
    struct whole_file w = {.fd = open_nameless(path, mode),
                           .path = strdup(path)};
    int ret;

    if (w.fd == -EOPNOTSUPP || w.fd == -EISDIR || w.fd == -EINVAL)
        w.fd = open_beside(path, mode, &w.beside);
    ret = w.fd < 0 ? w.fd : w.path ? 0 : -ENOMEM;
    if (ret == 0)
        *ret_file = w;
    else
        whole_file_drop(&w);
    return ret;
}

int whole_file_publish(struct whole_file *w)
{
    int ret = w->beside ? 1 : give_name(w->fd, w->path);

    if (ret <= 0)
        return ret;
    ret = w->beside ? 0 : copy_beside(w);
    if (ret != 0)
        return ret;
    if (rename(w->beside, w->path) != 0)
        return -errno;
    free(w->beside);
    w->beside = NULL;
    return 0;
}

void whole_file_drop(struct whole_file *w)
{
    io_close(&w->fd);
    if (w->beside)
        (void)unlink(w->beside);
    free(w->beside);
    free(w->path);
    *w = (struct whole_file){.fd = -1};
}

int whole_file_write(const char *path, const void *bytes, size_t len)
{
    struct whole_file w = {.fd = -1};
    int ret = whole_file_begin(path, 0600, &w);

    if (ret == 0)
        ret = io_write_full(w.fd, bytes, len);
    if (ret == 0)
        ret = whole_file_publish(&w);
    whole_file_drop(&w);
    return ret;
}
