/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors 0, 1 and 2; see the header. */
#include "base/standard_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

int standard_fds_ensure(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        int got;

        if (is_open(fd))
            continue;
        /* The lowest that is free: those below are open by now. */
        got = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
        if (got < 0)
            return -errno;
        if (got != fd)
            return -EBADF;
    }
    return 0;
}

bool standard_fds_are_open(void)
{
    return is_open(STDIN_FILENO) && is_open(STDOUT_FILENO) &&
           is_open(STDERR_FILENO);
}

bool standard_fd_is_usable(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    int wrong = fd == STDIN_FILENO ? O_WRONLY : O_RDONLY;

    return flags >= 0 && (flags & O_ACCMODE) != wrong && (flags & O_PATH) == 0;
}

int standard_fds_set_null(void)
{
    int null_fd;

    /* Then there is room for it, however few descriptors there may be. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        close(fd);
    null_fd = open("/dev/null", O_RDWR);
    if (null_fd != STDIN_FILENO)
        return null_fd < 0 ? -errno : -EBADF;
    for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++)
        if (dup2(null_fd, fd) != fd)
            return -errno;
    return 0;
}
