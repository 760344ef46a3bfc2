/* SPDX-License-Identifier: Apache-2.0 */
/* Small control files; see the header. */
#include "guest/sysfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

ssize_t sysfile_read(int dirfd, const char *path, char *ret_text, size_t size)
{
    size_t used = 0;
    int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return -errno;
    while (used < size - 1) {
        ssize_t n = read(fd, ret_text + used, size - 1 - used);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            sysfile_close(&fd);
            return -errno;
        }
        if (n == 0)
            break;
        used += (size_t)n;
    }
    close(fd);
    if (used > 0 && ret_text[used - 1] == '\n')
        used--;
    ret_text[used] = '\0';
    return (ssize_t)used;
}

int sysfile_write(int dirfd, const char *path, const char *text)
{
    ssize_t n;
    int ret;
    int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    do {
        n = write(fd, text, strlen(text));
    } while (n < 0 && errno == EINTR);
    ret = n < 0 ? -errno : 0;
    close(fd);
    return ret;
}

int sysfile_write_u64(int dirfd, const char *path, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    return sysfile_write(dirfd, path, text);
}

uint64_t sysfile_field(const char *text, const char *key)
{
    size_t len = strlen(key);

    while (text) {
        if (strncmp(text, key, len) == 0 &&
            (text[len] == ' ' || text[len] == ':'))
            return strtoull(text + len + 1, NULL, 10);
        text = strchr(text, '\n');
        if (text)
            text++;
    }
    return 0;
}

uint64_t sysfile_now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

void sysfile_close(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}
