/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One snapshot directory: opening what lies in it without following links, the
 * manifest and its id, and the sentences that refuse it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "trial/snapshot_internal.h"

/* ---- failures ----------------------------------------------------------- */

static const struct {
    const char *code, *remedy;
} remedies[] = {
    {"snapshot_missing", "check the path given"},
    {"snapshot_invalid",
     "give a directory that microsbx snapshot create or import made"},
    {"snapshot_incomplete", "copy or import the whole snapshot again"},
    {"snapshot_damaged",
     "copy or import the snapshot again, or create it anew"},
    {"snapshot_version",
     "use the version of microsbx that made it, or create it anew"},
    {"snapshot_parent",
     "keep the snapshots a diff is made of beside it, or name their folder"},
    {"snapshot_base", "give the disk's file, or build the image it belongs to"},
    {"snapshot_cpu", "create the snapshot anew on a host like this one"},
    {"snapshot_kvm", "use a host whose kernel offers it"},
    {"snapshot_page_size", "use a host with pages of that size"},
    {"snapshot_image", "leave the image out, or create the snapshot anew"},
    {"snapshot_limit", "say by an option that this host is to give it"},
    {"snapshot_changed",
     "leave the files of a snapshot alone while it is used"},
    {"snapshot_exists", "choose another name, or remove it first"},
    {"snapshot_write", "make room, or write somewhere else"},
    {"snapshot_archive", "get the archive again, or export it anew"},
    {"snapshot_size", "make room, or give a --size-limit, if you trust it"},
    {"host", "free some memory, or raise ulimit -n"},
    {"snapshot_unreadable", "check permissions and the disk"},
};

static const char *remedy_of(const char *code)
{
    for (size_t i = 0; i < ARRAY_SIZE(remedies); i++)
        if (strcmp(remedies[i].code, code) == 0)
            return remedies[i].remedy;
    return NULL;
}

/* A path of a stranger's choosing must not drive the terminal. */
static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

int snapshot_fail(struct failure *f, int error, const char *code,
                  const char *object, const char *format, ...)
{
    char message[sizeof(f->message)];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    failure_set(f, code, object, failure_remedy(error, remedy_of(code)), "%s",
                message);
    make_printable(f->message);
    make_printable(f->object);
    return error;
}

struct snapshot_path snapshot_path(const char *dir, const char *name)
{
    struct snapshot_path path;

    snprintf(path.text, sizeof(path.text), "%.440s/%.64s", dir, name);
    return path;
}

/* ---- files -------------------------------------------------------------- */

static int64_t to_ns(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int snapshot_mark_get(int fd, struct snapshot_mark *ret_mark)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    *ret_mark = (struct snapshot_mark){
        .dev = st.st_dev,
        .ino = st.st_ino,
        .size = (uint64_t)st.st_size,
        .mtime_ns = to_ns(st.st_mtim),
        .ctime_ns = to_ns(st.st_ctim),
        .sealed = snapshot_is_sealed(fd),
    };
    return 0;
}

bool snapshot_mark_same(const struct snapshot_mark *a,
                        const struct snapshot_mark *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

/* Not blocking: it may be a FIFO. */
static int open_name(const struct snapshot_member *member, const char *name)
{
    int fd;

    if (member->stage)
        return snapshot_stage_open(member->stage, name);
    fd = openat(member->dir_fd, name,
                O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? -errno : fd;
}

/* Opens a regular file of the directory. */
static int open_entry(const struct snapshot_member *member, const char *name,
                      struct snapshot_entry *entry, struct failure *f)
{
    struct snapshot_path path = snapshot_path(member->dir, name);
    int fd = open_name(member, name);
    int ret;

    if (fd == -ENOENT)
        return snapshot_fail(f, -ENOENT, "snapshot_incomplete", path.text,
                             "the snapshot %s is incomplete: its file %s is "
                             "missing",
                             member->dir, name);
    if (fd < 0 && fd != -ELOOP)
        return snapshot_fail(f, fd, "snapshot_unreadable", path.text,
                             "cannot open %s of the snapshot %s: %s", name,
                             member->dir, strerror(-fd));
    ret = fd < 0 ? -EINVAL : snapshot_mark_get(fd, &entry->mark);
    if (ret == 0) {
        entry->fd = fd;
        return 0;
    }
    io_close(&fd);
    return snapshot_fail(f, -EBADMSG, "snapshot_damaged", path.text,
                         "the snapshot %s is damaged: %s is not a regular file",
                         member->dir, name);
}

int snapshot_member_open_file(struct snapshot_member *member, uint32_t i,
                              struct failure *f)
{
    const struct snapshot_file *file = &member->manifest.files[i];
    struct snapshot_entry *entry = &member->files[i];
    int ret = open_entry(member, file->name, entry, f);

    if (ret != 0 || entry->mark.size == file->bytes)
        return ret;
    return snapshot_fail(
        f, -EBADMSG, "snapshot_damaged",
        snapshot_path(member->dir, file->name).text,
        "the snapshot %s is damaged: %s was %s: it has %" PRIu64
        " bytes instead of %" PRIu64,
        member->dir, file->name,
        entry->mark.size < file->bytes ? "truncated" : "extended",
        entry->mark.size, file->bytes);
}

int snapshot_member_open_files(struct snapshot_member *member,
                               struct failure *f)
{
    int ret = 0;

    for (uint32_t i = 0; ret == 0 && i < member->manifest.file_count; i++)
        ret = snapshot_member_open_file(member, i, f);
    return ret;
}

int snapshot_member_copy_file(struct snapshot_member *member, uint32_t i,
                              struct failure *f)
{
    const struct snapshot_file *file = &member->manifest.files[i];
    int fd = snapshot_seal_copy(member->files[i].fd, file->bytes, NULL);

    if (fd < 0)
        return snapshot_fail(f, fd, "host",
                             snapshot_path(member->dir, file->name).text,
                             "cannot read %s of the snapshot %s into memory: "
                             "%s",
                             file->name, member->dir, strerror(-fd));
    member->copies[i] = fd;
    return 0;
}

int snapshot_member_file_fd(const struct snapshot_member *member, uint32_t i)
{
    return member->copies[i] >= 0 ? member->copies[i] : member->files[i].fd;
}

int snapshot_member_fd(const struct snapshot_member *member, const char *name)
{
    for (uint32_t i = 0; i < member->manifest.file_count; i++)
        if (strcmp(member->manifest.files[i].name, name) == 0)
            return snapshot_member_file_fd(member, i);
    return -1;
}

/* ---- the manifest ------------------------------------------------------- */

/* The digits, if that is all there is. */
static int parse_id(const char *text, size_t len, char ret_id[DIGEST_HEX_SIZE])
{
    if (len != SNAPSHOT_ID_LEN || text[SNAPSHOT_ID_LEN - 1] != '\n')
        return -EBADMSG;
    memcpy(ret_id, text, SNAPSHOT_ID_LEN - 1);
    ret_id[SNAPSHOT_ID_LEN - 1] = '\0';
    return strspn(ret_id, "0123456789abcdef") == SNAPSHOT_ID_LEN - 1 ? 0
                                                                     : -EBADMSG;
}

int snapshot_read_id(int dir_fd, char ret_id[DIGEST_HEX_SIZE])
{
    int fd = openat(dir_fd, SNAPSHOT_ID_NAME,
                    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    char text[SNAPSHOT_ID_LEN + 1] = "";
    struct snapshot_mark mark;
    ssize_t n = fd < 0 ? -errno : snapshot_mark_get(fd, &mark);

    if (n == 0)
        n = io_pread_full(fd, text, sizeof(text), 0);
    io_close(&fd);
    return n < 0 ? (int)n : parse_id(text, (size_t)n, ret_id);
}

/* A small file as a whole. The caller frees *ret_text. */
static int read_entry(const struct snapshot_member *member, const char *name,
                      const struct snapshot_entry *entry, char **ret_text,
                      size_t *ret_len, struct failure *f)
{
    struct snapshot_path path = snapshot_path(member->dir, name);
    char *text;
    ssize_t n;

    if (entry->mark.size > SNAPSHOT_MANIFEST_MAX)
        return snapshot_fail(f, -EFBIG, "snapshot_damaged", path.text,
                             "the snapshot %s is damaged: %s is larger than "
                             "%u bytes",
                             member->dir, name, SNAPSHOT_MANIFEST_MAX);
    text = malloc(entry->mark.size + 1);
    /* One byte more, in case it is growing. */
    n = text ? io_pread_full(entry->fd, text, entry->mark.size + 1, 0)
             : -ENOMEM;
    if (n < 0) {
        free(text);
        return snapshot_fail(f, (int)n, "snapshot_unreadable", path.text,
                             "cannot read %s of the snapshot %s: %s", name,
                             member->dir, strerror((int)-n));
    }
    *ret_text = text;
    *ret_len = (size_t)n;
    return 0;
}

static int read_id(struct snapshot_member *member, struct failure *f)
{
    char *text = NULL;
    size_t len = 0;
    int ret =
        read_entry(member, SNAPSHOT_ID_NAME, &member->id_entry, &text, &len, f);

    if (ret == 0 && parse_id(text, len, member->id) != 0)
        ret = snapshot_fail(f, -EBADMSG, "snapshot_damaged",
                            snapshot_path(member->dir, SNAPSHOT_ID_NAME).text,
                            "the snapshot %s is damaged: " SNAPSHOT_ID_NAME
                            " is not 64 hex digits and a newline",
                            member->dir);
    free(text);
    return ret;
}

/* Compares the text with the id and parses it. */
static int use_manifest(struct snapshot_member *member, const char *text,
                        size_t len, struct failure *f)
{
    struct snapshot_path path =
        snapshot_path(member->dir, SNAPSHOT_MANIFEST_NAME);
    char err[SNAPSHOT_ERR_MAX], hex[DIGEST_HEX_SIZE];
    uint8_t sum[DIGEST_SIZE];
    int ret;

    digest_sum(text, len, sum);
    digest_to_hex(sum, hex);
    if (strcmp(hex, member->id) != 0)
        return snapshot_fail(
            f, -EBADMSG, "snapshot_damaged", path.text,
            "the snapshot %s is damaged: " SNAPSHOT_MANIFEST_NAME
            " is not the one whose digest is in " SNAPSHOT_ID_NAME,
            member->dir);
    ret = snapshot_manifest_parse(text, len, &member->manifest, err);
    if (ret == -EPROTONOSUPPORT)
        return snapshot_fail(
            f, ret, "snapshot_version", path.text,
            "the snapshot %s is of another version: in " SNAPSHOT_MANIFEST_NAME
            " %s",
            member->dir, err);
    if (ret != 0)
        return snapshot_fail(
            f, ret, "snapshot_damaged", path.text,
            "the snapshot %s is damaged: in its " SNAPSHOT_MANIFEST_NAME " %s",
            member->dir, err);
    return 0;
}

static int read_manifest(struct snapshot_member *member, struct failure *f)
{
    char *text = NULL;
    size_t len = 0;
    int ret = read_entry(member, SNAPSHOT_MANIFEST_NAME,
                         &member->manifest_entry, &text, &len, f);

    if (ret == 0)
        ret = use_manifest(member, text, len, f);
    free(text);
    return ret;
}

/* Neither of the two: it never was a snapshot. */
static bool is_something_else(int dir_fd)
{
    return faccessat(dir_fd, SNAPSHOT_MANIFEST_NAME, F_OK,
                     AT_SYMLINK_NOFOLLOW) != 0 &&
           faccessat(dir_fd, SNAPSHOT_ID_NAME, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
}

static int open_dir(struct snapshot_member *member, const char *dir,
                    struct failure *f)
{
    member->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir[0] == '\0')
        return snapshot_fail(f, -ENOENT, "snapshot_missing", "DIR",
                             "the path of the snapshot is empty");
    if (member->dir_fd < 0 && errno == ENOENT)
        return snapshot_fail(f, -ENOENT, "snapshot_missing", dir,
                             "there is no snapshot %s", dir);
    if (member->dir_fd < 0 && errno == ENOTDIR)
        return snapshot_fail(f, -ENOTDIR, "snapshot_missing", dir,
                             "%s is not a snapshot: it is not a directory",
                             dir);
    if (member->dir_fd < 0)
        return snapshot_fail(f, -errno, "snapshot_unreadable", dir,
                             "cannot open the snapshot %s: %s", dir,
                             strerror(errno));
    if (is_something_else(member->dir_fd))
        return snapshot_fail(
            f, -EINVAL, "snapshot_invalid", dir,
            "%s is not a snapshot: there is no " SNAPSHOT_MANIFEST_NAME
            " in it",
            dir);
    return 0;
}

/* All fields such that it can be closed, and its names. */
static int init_member(struct snapshot_member *m, const char *dir,
                       struct failure *f)
{
    memset(m, 0, sizeof(*m));
    m->dir_fd = m->manifest_entry.fd = m->id_entry.fd = -1;
    for (unsigned i = 0; i < SNAPSHOT_FILES_MAX; i++)
        m->files[i].fd = m->copies[i] = -1;
    m->path = strdup(dir);
    m->dir = strdup(dir);
    if (!m->path || !m->dir)
        return snapshot_fail(f, -ENOMEM, "host", dir, "out of memory");
    make_printable(m->dir);
    return 0;
}

static int read_member(struct snapshot_member *m, struct failure *f)
{
    int ret = open_entry(m, SNAPSHOT_ID_NAME, &m->id_entry, f);

    if (ret == 0)
        ret = open_entry(m, SNAPSHOT_MANIFEST_NAME, &m->manifest_entry, f);
    if (ret == 0)
        ret = read_id(m, f);
    return ret == 0 ? read_manifest(m, f) : ret;
}

int snapshot_member_open(const char *dir, struct snapshot_member *ret_member,
                         struct failure *f)
{
    int ret = init_member(ret_member, dir, f);

    if (ret == 0)
        ret = open_dir(ret_member, dir, f);
    return ret == 0 ? read_member(ret_member, f) : ret;
}

int snapshot_member_open_staged(const struct snapshot_stage *stage,
                                struct snapshot_member *ret_member,
                                struct failure *f)
{
    int ret = init_member(ret_member, stage->out, f);

    ret_member->stage = stage;
    return ret == 0 ? read_member(ret_member, f) : ret;
}

void snapshot_member_close(struct snapshot_member *member)
{
    if (!member->path)
        return; /* never opened */
    for (unsigned i = 0; i < SNAPSHOT_FILES_MAX; i++) {
        io_close(&member->files[i].fd);
        io_close(&member->copies[i]);
    }
    io_close(&member->manifest_entry.fd);
    io_close(&member->id_entry.fd);
    io_close(&member->dir_fd);
    snapshot_manifest_fini(&member->manifest);
    free(member->dir);
    free(member->path);
    member->dir = member->path = NULL;
}
