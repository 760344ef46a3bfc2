/* SPDX-License-Identifier: Apache-2.0 */
/* Files that appear complete; see the header. */
#include "base/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

/* A file without a name in the folder of that path, or a negative errno. */
static int open_nameless(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder =
        slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int fd;

    if (!folder)
        return -ENOMEM;
    fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
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

static int write_beside(const char *path, const void *bytes, size_t len)
{
    char *beside = NULL;
    int fd, ret;

    if (asprintf(&beside, "%s.XXXXXX", path) < 0)
        return -ENOMEM;
    fd = mkostemp(beside, O_CLOEXEC);
    ret = fd < 0 ? -errno : io_write_full(fd, bytes, len);
    if (ret == 0 && rename(beside, path) != 0)
        ret = -errno;
    if (ret != 0 && fd >= 0)
        (void)unlink(beside);
    io_close(&fd);
    free(beside);
    return ret;
}

int whole_file_write(const char *path, const void *bytes, size_t len)
{
    int fd = open_nameless(path);
    int ret;

    if (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL)
        return write_beside(path, bytes, len);
    if (fd < 0)
        return fd;
    ret = io_write_full(fd, bytes, len);
    if (ret == 0)
        ret = give_name(fd, path);
    io_close(&fd);
    return ret == 1 ? write_beside(path, bytes, len) : ret;
}
