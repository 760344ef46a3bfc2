/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking two trees side by side; see the header. The kernel's own overlay
 * merges the layers, so that nothing here knows of whiteouts and the like: what
 * the layers themselves are asked is only whether they have a name at all.
 */
#include "guest/compare.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "guest/sysfile.h"

#define READ_SIZE 65536u
#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
/* A FIFO that was swapped in must not hang us. */
#define FILE_FLAGS (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

struct walk {
    int (*report)(void *ctx, const struct proto_compare *entry);
    void *ctx;
    struct proto_compare entry; /* its path: where the walk is; "": the root */
    uint32_t count;
    unsigned depth;
    bool moved; /* within a directory that a layer shows from elsewhere */
    uint8_t bufs[2][READ_SIZE];
};

static const struct compare_side NOWHERE = {-1, -1};

/* ---- names of a directory ----------------------------------------------- */

struct names {
    char **list; /* sorted */
    size_t count, room;
};

static void names_fini(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->list[i]);
    free(names->list);
}

static int names_add(struct names *names, const char *name)
{
    if (strchr(name, '/'))
        return -EUCLEAN;
    if (names->count == COMPARE_NAMES_MAX)
        return -E2BIG;
    if (names->count == names->room) {
        size_t room = names->room ? 2 * names->room : 16;
        char **list = reallocarray(names->list, room, sizeof(*list));

        if (!list)
            return -ENOMEM;
        names->list = list;
        names->room = room;
    }
    names->list[names->count] = strdup(name);
    if (!names->list[names->count])
        return -ENOMEM;
    names->count++;
    return 0;
}

static int by_bytes(const void *a, const void *b)
{
    const char *const *p = a, *const *q = b;

    return strcmp(*p, *q);
}

/* fd -1 has none. names_fini in any case. */
static int names_read(int fd, struct names *ret_names)
{
    const struct dirent *entry;
    DIR *dir;
    int ret = 0;

    *ret_names = (struct names){.list = NULL};
    if (fd < 0)
        return 0;
    fd = openat(fd, ".", DIR_FLAGS);
    dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        ret = -errno;
        sysfile_close(&fd);
        return ret;
    }
    errno = 0;
    while (ret == 0 && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            ret = names_add(ret_names, entry->d_name);
    }
    if (ret == 0)
        ret = -errno;
    closedir(dir);
    if (ret == 0 && ret_names->count > 1)
        qsort(ret_names->list, ret_names->count, sizeof(char *), by_bytes);
    return ret;
}

/* ---- one file ----------------------------------------------------------- */

static char type_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return 'f';
    case S_IFDIR:
        return 'd';
    case S_IFLNK:
        return 'l';
    case S_IFCHR:
        return 'c';
    case S_IFBLK:
        return 'b';
    case S_IFIFO:
        return 'p';
    case S_IFSOCK:
        return 's';
    default:
        return '\0';
    }
}

static int report(struct walk *w, enum proto_change change, mode_t mode)
{
    struct proto_compare *entry = &w->entry;
    bool root = entry->path_len == 0;
    int ret;

    if (w->count == PROTO_COMPARE_MAX)
        return -E2BIG;
    entry->change = change;
    entry->type = type_of(mode);
    if (!entry->type)
        return -EUCLEAN;
    w->count++;
    if (root)
        entry->path[entry->path_len++] = '/';
    ret = w->report(w->ctx, entry);
    if (root)
        entry->path_len = 0;
    return ret;
}

/* Up to READ_SIZE bytes, fewer only at the end of the file. */
static ssize_t read_piece(int fd, uint8_t *buf)
{
    size_t used = 0;

    while (used < READ_SIZE) {
        ssize_t n = read(fd, buf + used, READ_SIZE - used);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        used += (size_t)n;
    }
    return (ssize_t)used;
}

static int compare_bytes(struct walk *w, const int fds[2], bool *ret_same)
{
    for (;;) {
        ssize_t a = read_piece(fds[0], w->bufs[0]);
        ssize_t b = read_piece(fds[1], w->bufs[1]);

        if (a < 0 || b < 0)
            return (int)(a < 0 ? a : b);
        *ret_same = a == b && memcmp(w->bufs[0], w->bufs[1], (size_t)a) == 0;
        if (!*ret_same || a == 0)
            return 0;
    }
}

static int compare_files(struct walk *w, const struct compare_side sides[2],
                         const char *name, bool *ret_same)
{
    int fds[2] = {-1, -1};
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < 2; i++) {
        fds[i] = openat(sides[i].view, name, FILE_FLAGS);
        ret = fds[i] < 0 ? -errno : 0;
    }
    if (ret == 0)
        ret = compare_bytes(w, fds, ret_same);
    sysfile_close(&fds[0]);
    sysfile_close(&fds[1]);
    return ret;
}

static int compare_links(struct walk *w, const struct compare_side sides[2],
                         const char *name, bool *ret_same)
{
    ssize_t n[2];

    for (unsigned i = 0; i < 2; i++) {
        n[i] = readlinkat(sides[i].view, name, (char *)w->bufs[i], READ_SIZE);
        if (n[i] < 0)
            return -errno;
    }
    *ret_same = n[0] == n[1] && !memcmp(w->bufs[0], w->bufs[1], (size_t)n[0]);
    return 0;
}

/* Pre: of one type. */
static int compare_content(struct walk *w, const struct compare_side sides[2],
                           const char *name, const struct stat st[2],
                           bool *ret_same)
{
    switch (st[0].st_mode & S_IFMT) {
    case S_IFREG:
        *ret_same = st[0].st_size == st[1].st_size;
        return *ret_same ? compare_files(w, sides, name, ret_same) : 0;
    case S_IFLNK:
        return compare_links(w, sides, name, ret_same);
    case S_IFCHR:
    case S_IFBLK:
        *ret_same = st[0].st_rdev == st[1].st_rdev;
        return 0;
    default:
        *ret_same = true;
        return 0;
    }
}

static bool same_mode(const struct stat st[2])
{
    return st[0].st_mode == st[1].st_mode && st[0].st_uid == st[1].st_uid &&
           st[0].st_gid == st[1].st_gid;
}

/* ---- directories -------------------------------------------------------- */

static int walk_sides(struct walk *w, const struct compare_side sides[2]);

/* The directory of that name on one side, which has it in its view. */
static int open_child(const struct compare_side *side, const char *name,
                      struct compare_side *ret_child)
{
    *ret_child = NOWHERE;
    ret_child->view = openat(side->view, name, DIR_FLAGS);
    if (ret_child->view < 0)
        return -errno;
    if (side->upper < 0)
        return 0;
    ret_child->upper = openat(side->upper, name, DIR_FLAGS);
    /* Not written to, or something else there that the view does not show. */
    if (ret_child->upper < 0 && errno != ENOENT && errno != ENOTDIR &&
        errno != ELOOP)
        return -errno;
    return 0;
}

/*
 * A layer's directory that was renamed: below it are the root's files of
 * another place, and the layer has no names of them. Kernel documentation,
 * overlayfs.
 */
static bool is_moved(const struct compare_side sides[2])
{
    for (unsigned i = 0; i < 2; i++) {
        if (sides[i].upper >= 0 &&
            fgetxattr(sides[i].upper, "trusted.overlay.redirect", NULL, 0) > 0)
            return true;
    }
    return false;
}

/* Walks the directory of that name on the sides which have it. */
static int descend(struct walk *w, const struct compare_side sides[2],
                   const char *name, const bool has[2])
{
    struct compare_side children[2] = {NOWHERE, NOWHERE};
    int ret = w->depth == COMPARE_DEPTH_MAX ? -ELOOP : 0;
    bool moved = w->moved;

    for (unsigned i = 0; ret == 0 && i < 2; i++) {
        if (has[i])
            ret = open_child(&sides[i], name, &children[i]);
    }
    w->depth++;
    w->moved |= is_moved(children);
    if (ret == 0)
        ret = walk_sides(w, children);
    w->moved = moved;
    w->depth--;
    for (unsigned i = 0; i < 2; i++) {
        sysfile_close(&children[i].view);
        sysfile_close(&children[i].upper);
    }
    return ret;
}

/* All of it is there on one side alone. */
static int visit_one(struct walk *w, const struct compare_side sides[2],
                     const char *name, unsigned which)
{
    const bool has[2] = {which == 0, which == 1};
    struct stat st;
    int ret;

    if (fstatat(sides[which].view, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    ret = report(w, which == 0 ? PROTO_CHANGE_REMOVED : PROTO_CHANGE_ADDED,
                 st.st_mode);
    if (ret == 0 && S_ISDIR(st.st_mode))
        ret = descend(w, sides, name, has);
    return ret;
}

/* Has either layer something of that name? Else both show the root's. */
static int is_touched(const struct compare_side sides[2], const char *name,
                      bool *ret_touched)
{
    struct stat st;

    *ret_touched = false;
    for (unsigned i = 0; i < 2; i++) {
        if (sides[i].upper < 0)
            continue;
        if (fstatat(sides[i].upper, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            *ret_touched = true;
        else if (errno != ENOENT)
            return -errno;
    }
    return 0;
}

static int visit_both(struct walk *w, const struct compare_side sides[2],
                      const char *name)
{
    static const bool both[2] = {true, true};
    struct stat st[2];
    bool same = true;
    int ret;

    for (unsigned i = 0; i < 2; i++) {
        if (fstatat(sides[i].view, name, &st[i], AT_SYMLINK_NOFOLLOW) < 0)
            return -errno;
    }
    if ((st[0].st_mode & S_IFMT) != (st[1].st_mode & S_IFMT)) {
        ret = visit_one(w, sides, name, 0);
        return ret ? ret : visit_one(w, sides, name, 1);
    }
    ret = compare_content(w, sides, name, st, &same);
    if (ret == 0 && !same)
        ret = report(w, PROTO_CHANGE_CONTENT, st[1].st_mode);
    else if (ret == 0 && !same_mode(st))
        ret = report(w, PROTO_CHANGE_MODE, st[1].st_mode);
    if (ret == 0 && S_ISDIR(st[0].st_mode))
        ret = descend(w, sides, name, both);
    return ret;
}

/* One name; order as strcmp: below 0, a alone has it; above, b alone. */
static int visit(struct walk *w, const struct compare_side sides[2],
                 const char *name, int order)
{
    struct proto_compare *entry = &w->entry;
    size_t len = entry->path_len, n = strlen(name);
    bool touched;
    int ret;

    if (len + 1 + n >= sizeof(entry->path))
        return -ENAMETOOLONG;
    entry->path[len] = '/';
    memcpy(entry->path + len + 1, name, n + 1);
    entry->path_len = len + 1 + n;
    if (order != 0) {
        ret = visit_one(w, sides, name, order < 0 ? 0 : 1);
    } else {
        ret = is_touched(sides, name, &touched);
        if (ret == 0 && (touched || w->moved))
            ret = visit_both(w, sides, name);
    }
    entry->path_len = len;
    return ret;
}

static int merge(struct walk *w, const struct compare_side sides[2],
                 const struct names *a, const struct names *b)
{
    size_t i = 0, k = 0;
    int ret = 0;

    while (ret == 0 && (i < a->count || k < b->count)) {
        int order = i == a->count   ? 1
                    : k == b->count ? -1
                                    : strcmp(a->list[i], b->list[k]);

        ret = visit(w, sides, order > 0 ? b->list[k] : a->list[i], order);
        i += order <= 0;
        k += order >= 0;
    }
    return ret;
}

static int walk_sides(struct walk *w, const struct compare_side sides[2])
{
    struct names a, b;
    int ret = names_read(sides[0].view, &a);

    if (ret == 0) {
        ret = names_read(sides[1].view, &b);
        if (ret == 0)
            ret = merge(w, sides, &a, &b);
        names_fini(&b);
    }
    names_fini(&a);
    return ret;
}

int compare_trees(const struct compare_side sides[2],
                  int (*report_entry)(void *ctx,
                                      const struct proto_compare *entry),
                  void *ctx, uint32_t *ret_count)
{
    struct walk *w = calloc(1, sizeof(*w));
    struct stat st[2];
    int ret = 0;

    if (!w)
        return -ENOMEM;
    w->report = report_entry;
    w->ctx = ctx;
    w->entry.kind = PROTO_COMPARE_ENTRY;
    if (fstat(sides[0].view, &st[0]) < 0 || fstat(sides[1].view, &st[1]) < 0)
        ret = -errno;
    if (ret == 0 && !same_mode(st))
        ret = report(w, PROTO_CHANGE_MODE, st[1].st_mode);
    if (ret == 0)
        ret = walk_sides(w, sides);
    if (ret == 0)
        *ret_count = w->count;
    free(w);
    return ret;
}
