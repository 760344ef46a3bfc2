/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's own name in files; see the header. hosts(5), hostname(5). */
#include "guest/hosts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/sysfile.h"

#define LINE_MAX_LEN 256u /* our own line */
#define BLANKS " \t\r"

/* ---- text --------------------------------------------------------------- */

/*
 * Our own line, of an address that other lines seldom have. As is the custom,
 * a name with a domain has the name without it behind it.
 */
static size_t own_line(const char *name, char ret_line[LINE_MAX_LEN])
{
    int host = (int)strcspn(name, ".");
    int len;

    if (name[host])
        len = snprintf(ret_line, LINE_MAX_LEN, "127.0.1.1\t%s\t%.*s\n", name,
                       host, name);
    else
        len = snprintf(ret_line, LINE_MAX_LEN, "127.0.1.1\t%s\n", name);
    return len < (int)LINE_MAX_LEN ? (size_t)len : LINE_MAX_LEN - 1;
}

/* True if a line has the name behind its address, before any comment. */
static bool line_has(const char *line, size_t len, const char *name)
{
    const char *hash = memchr(line, '#', len);
    const char *end = hash ? hash : line + len;
    bool address = true;

    while (line < end) {
        size_t width = 0;

        while (line + width < end && !strchr(BLANKS, line[width]))
            width++;
        if (width && !address && width == strlen(name) &&
            memcmp(line, name, width) == 0)
            return true;
        if (width)
            address = false;
        line += width + 1;
    }
    return false;
}

static bool text_has(const char *text, const char *name)
{
    while (*text) {
        size_t len = strcspn(text, "\n");

        if (line_has(text, len, name))
            return true;
        text += len + (text[len] == '\n');
    }
    return false;
}

/* Where that whole line begins in the text, or NULL. */
static const char *find_line(const char *text, const char *line)
{
    const char *found = text;

    while ((found = strstr(found, line))) {
        if (found == text || found[-1] == '\n')
            return found;
        found++;
    }
    return NULL;
}

static void append(char *text, const char *line)
{
    size_t len = strlen(text);

    if (len && text[len - 1] != '\n')
        text[len++] = '\n';
    strcpy(text + len, line);
}

char *hosts_text(const char *text, const char *old, const char *name)
{
    static const char locals[] = "127.0.0.1\tlocalhost\n::1\tlocalhost\n";
    char own[LINE_MAX_LEN], before[LINE_MAX_LEN];
    size_t own_len = own_line(name, own);
    size_t before_len = own_line(old, before);
    const char *found = old[0] ? find_line(text, before) : NULL;
    char *out = malloc(strlen(text) + sizeof(locals) + 2 * own_len + 3);

    if (!out)
        return NULL;
    if (found) {
        sprintf(out, "%.*s%s%s", (int)(found - text), text, own,
                found + before_len);
    } else {
        strcpy(out, text);
    }
    if (!text_has(out, "localhost"))
        append(out, locals);
    if (!text_has(out, name))
        append(out, own);
    return out;
}

/* ---- files -------------------------------------------------------------- */

/* Never waits: not for a pipe's other end, nor for somebody's lease. */
static int open_in_etc(int root_fd, const char *path, int flags)
{
    struct open_how how = {
        .flags = (unsigned int)(flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC),
        .mode = flags & O_CREAT ? 0644 : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
    };
    int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
    struct stat st;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return -EINVAL;
}

/* Its text, "" if there is no such file. The caller's to free. */
static int read_file(int root_fd, const char *path, char **ret_text)
{
    int fd = open_in_etc(root_fd, path, O_RDONLY);
    char *text;
    ssize_t n = 0;

    if (fd < 0 && fd != -ENOENT)
        return fd;
    text = calloc(1, HOSTS_TEXT_MAX + 1);
    if (text && fd >= 0)
        n = pread(fd, text, HOSTS_TEXT_MAX + 1, 0);
    if (n < 0)
        n = -errno;
    sysfile_close(&fd);
    if (!text)
        n = -ENOMEM;
    else if (n > HOSTS_TEXT_MAX)
        n = -EFBIG;
    else if (n >= 0 && strlen(text) != (size_t)n)
        n = -EINVAL; /* not a text */
    if (n < 0) {
        free(text);
        return (int)n;
    }
    *ret_text = text;
    return 0;
}

/*
 * In place, so that owner, mode and other names of it stay. A full disk has
 * room for what was there: then it is as before.
 */
static int write_file(int root_fd, const char *path, const char *text,
                      const char *before)
{
    size_t len = strlen(text);
    int fd = open_in_etc(root_fd, path, O_WRONLY | O_CREAT);
    int ret = 0;

    if (fd < 0)
        return fd;
    if (pwrite(fd, text, len, 0) != (ssize_t)len) {
        ret = -ENOSPC;
        len = strlen(before);
        (void)!pwrite(fd, before, len, 0);
    }
    if (ftruncate(fd, (off_t)len) < 0 && ret == 0)
        ret = -errno;
    close(fd);
    return ret;
}

static int set_hosts(int root_fd, const char *old, const char *name)
{
    char *text, *before;
    int ret = read_file(root_fd, "etc/hosts", &before);

    if (ret)
        return ret;
    text = hosts_text(before, old, name);
    if (!text)
        ret = -ENOMEM;
    else if (strcmp(text, before) != 0)
        ret = write_file(root_fd, "etc/hosts", text, before);
    free(text);
    free(before);
    return ret;
}

static int set_hostname(int root_fd, const char *name)
{
    char line[LINE_MAX_LEN];
    char *before;
    int ret = read_file(root_fd, "etc/hostname", &before);

    if (ret)
        return ret;
    snprintf(line, sizeof(line), "%s\n", name);
    if (strcmp(line, before) != 0)
        ret = write_file(root_fd, "etc/hostname", line, before);
    free(before);
    return ret;
}

int hosts_set_name(int root_fd, const char *old, const char *name)
{
    int ret, hosts;

    (void)!mkdirat(root_fd, "etc", 0755);
    ret = set_hostname(root_fd, name);
    hosts = set_hosts(root_fd, old, name);
    return ret ? ret : hosts;
}
