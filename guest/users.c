/* SPDX-License-Identifier: Apache-2.0 */
/* Resolving users; see the header. passwd(5), group(5). */
#include "guest/users.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A field of a line: not terminated. */
struct field {
    const char *text;
    size_t len;
};

/*
 * Cuts the line at *text into `count` fields at colons; *text moves to the
 * next line. True if the line has that many fields at least.
 */
static bool next_line(const char **text, struct field *fields, size_t count)
{
    const char *line = *text;
    size_t len = strcspn(line, "\n");
    const char *end = line + len;
    size_t found = 0;

    *text = *end ? end + 1 : end;
    while (found < count) {
        size_t width = 0;

        while (line + width < end && line[width] != ':')
            width++;
        fields[found].text = line;
        fields[found].len = width;
        found++;
        if (line + width >= end)
            break;
        line += width + 1;
    }
    return found == count;
}

static bool field_is(const struct field *f, const char *text)
{
    return f->len == strlen(text) && memcmp(f->text, text, f->len) == 0;
}

/* Decimal digits only; (uid_t)-1 means "no change" to the kernel: refused. */
static int parse_id(const char *text, size_t len, uint32_t *ret_id)
{
    uint64_t value = 0;

    if (len == 0 || len > 10)
        return -EINVAL;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -EINVAL;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    if (value >= UINT32_MAX)
        return -EINVAL;
    *ret_id = (uint32_t)value;
    return 0;
}

static void copy_field(const struct field *f, char *ret_text, size_t size)
{
    size_t len = f->len < size ? f->len : 0;

    memcpy(ret_text, f->text, len);
    ret_text[len] = '\0';
}

/* Fills in from the first passwd line of that name, or of that uid. */
static int find_user(const char *passwd, const char *name, uint32_t uid,
                     struct user *user)
{
    struct field f[6]; /* name, password, uid, gid, comment, home */

    while (*passwd) {
        uint32_t line_uid, line_gid;

        if (!next_line(&passwd, f, 6) || f[0].len == 0 ||
            parse_id(f[2].text, f[2].len, &line_uid) ||
            parse_id(f[3].text, f[3].len, &line_gid))
            continue;
        if (name ? !field_is(&f[0], name) : line_uid != uid)
            continue;
        user->uid = line_uid;
        user->gid = line_gid;
        copy_field(&f[0], user->name, sizeof(user->name));
        copy_field(&f[5], user->home, sizeof(user->home));
        return 0;
    }
    return -ENOENT;
}

/* True if name is one of a comma-separated list. */
static bool list_has(const struct field *list, const char *name)
{
    const char *p = list->text;
    const char *end = p + list->len;
    size_t len = strlen(name);

    while (p < end) {
        size_t width = 0;

        while (p + width < end && p[width] != ',')
            width++;
        if (width == len && memcmp(p, name, len) == 0)
            return true;
        p += width + 1;
    }
    return false;
}

/* Supplementary groups; those beyond the maximum are left out. */
static void find_groups(const char *group, struct user *user)
{
    struct field f[4]; /* name, password, gid, members */

    while (*group && user->group_count < USERS_GROUPS_MAX) {
        uint32_t gid;

        if (!next_line(&group, f, 4) || parse_id(f[2].text, f[2].len, &gid) ||
            gid == user->gid)
            continue;
        if (user->name[0] && list_has(&f[3], user->name))
            user->groups[user->group_count++] = gid;
    }
}

static void default_user(struct user *user)
{
    user->uid = USERS_DEFAULT_ID;
    user->gid = USERS_DEFAULT_ID;
    strcpy(user->name, USERS_DEFAULT_NAME);
    strcpy(user->home, USERS_DEFAULT_HOME);
}

/* "uid" or "uid:gid"; a uid without a passwd line is fine. */
static int numeric_user(const char *who, const char *passwd, struct user *user)
{
    size_t len = strcspn(who, ":");
    uint32_t uid, gid;

    if (parse_id(who, len, &uid))
        return -EINVAL;
    if (find_user(passwd, NULL, uid, user)) {
        if (uid == USERS_DEFAULT_ID)
            default_user(user);
        user->uid = uid;
        user->gid = uid;
    }
    if (who[len] == ':') {
        if (parse_id(who + len + 1, strlen(who + len + 1), &gid))
            return -EINVAL;
        user->gid = gid;
    }
    return 0;
}

int users_resolve(const char *who, const char *passwd, const char *group,
                  struct user *ret_user)
{
    struct user user = {0};
    int ret = 0;

    if (who[0] == '\0')
        default_user(&user);
    else if (who[0] >= '0' && who[0] <= '9')
        ret = numeric_user(who, passwd, &user);
    else if (strchr(who, ':'))
        ret = -EINVAL;
    else
        ret = find_user(passwd, who, 0, &user);
    /* These two exist, whatever the image says or has lost. */
    if (ret == -ENOENT && strcmp(who, "root") == 0) {
        strcpy(user.name, "root");
        ret = 0;
    } else if (ret == -ENOENT && strcmp(who, USERS_DEFAULT_NAME) == 0) {
        default_user(&user);
        ret = 0;
    }
    if (ret)
        return ret;
    if (user.home[0] != '/')
        strcpy(user.home, user.uid == 0 ? "/root" : "/");
    if (who[0] != '\0')
        find_groups(group, &user);
    *ret_user = user;
    return 0;
}

/*
 * Reads a file of the image as text; "" if there is none that can be read.
 * It may be anything by now: only a regular file is read, and it is cut off
 * at the maximum.
 */
static char *read_text(int root_fd, const char *path)
{
    struct open_how how = {
        .flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    size_t used = 0;
    struct stat st;
    char *text = calloc(1, USERS_FILE_MAX + 1);
    int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));

    if (text && fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        ssize_t n = 1;

        while (n > 0 && used < USERS_FILE_MAX) {
            n = read(fd, text + used, USERS_FILE_MAX - used);
            used += n > 0 ? (size_t)n : 0;
        }
    }
    if (fd >= 0)
        close(fd);
    return text;
}

int users_resolve_at(int root_fd, const char *who, struct user *ret_user)
{
    char *passwd, *group = NULL;
    int ret = -ENOMEM;

    if (who[0] == '\0')
        return users_resolve(who, "", "", ret_user);
    passwd = read_text(root_fd, "etc/passwd");
    group = read_text(root_fd, "etc/group");
    if (passwd && group)
        ret = users_resolve(who, passwd, group, ret_user);
    free(passwd);
    free(group);
    return ret;
}
