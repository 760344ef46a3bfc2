/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot into one file; the format is trial/snapshot_archive.h's. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "trial/snapshot_archive.h"
#include "trial/snapshot_internal.h"
#include "trial/snapshot_stream.h"

/* ---- the file ----------------------------------------------------------- */

/*
 * A file that gets its name when it is complete. Where the file system has
 * files without a name, nothing is left of one whose writer was killed.
 */
struct output {
    const char *path;
    char *beside; /* its name so far; NULL: it has none; owned */
    int fd;
};

static int output_open(struct output *o)
{
    const char *slash = strrchr(o->path, '/');
    char *folder =
        slash ? strndup(o->path, (size_t)(slash - o->path) + 1) : strdup(".");
    uint64_t random = 0;

    if (!folder || getrandom(&random, sizeof(random), 0) < 0) {
        free(folder);
        return -ENOMEM;
    }
    o->fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
    free(folder);
    if (o->fd >= 0)
        return 0;
    if (asprintf(&o->beside, "%s.%016" PRIx64, o->path, random) < 0) {
        o->beside = NULL;
        return -ENOMEM;
    }
    o->fd = open(o->beside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return o->fd < 0 ? -errno : 0;
}

/* Never replaces anything: link, unlike rename, fails if the name exists. */
static int output_publish(struct output *o)
{
    char path[64];

    if (fsync(o->fd) != 0)
        return -errno;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", o->fd);
    if (linkat(AT_FDCWD, o->beside ? o->beside : path, AT_FDCWD, o->path,
               AT_SYMLINK_FOLLOW) == 0)
        return 0;
    if (!o->beside || (errno != EPERM && errno != EOPNOTSUPP))
        return -errno;
    /* No links there. */
    if (access(o->path, F_OK) == 0)
        return -EEXIST;
    if (rename(o->beside, o->path) != 0)
        return -errno;
    free(o->beside);
    o->beside = NULL;
    return 0;
}

static void output_close(struct output *o)
{
    io_close(&o->fd);
    if (o->beside)
        (void)unlink(o->beside);
    free(o->beside);
}

/* ---- its content -------------------------------------------------------- */

/* An export under way. */
struct exporter {
    struct snapshot_stream stream;
    struct sparse_cancel cancel;
    uint8_t *buf; /* SPARSE_BUFFER bytes; owned */
};

static int put_u32(struct exporter *e, uint32_t value)
{
    uint8_t bytes[4];

    num_put_le32(bytes, value);
    return stream_write(&e->stream, bytes, sizeof(bytes));
}

static int put_extent(struct exporter *e, uint64_t offset, uint64_t len)
{
    uint8_t bytes[16];

    num_put_le64(bytes, offset);
    num_put_le64(bytes + 8, len);
    return stream_write(&e->stream, bytes, sizeof(bytes));
}

/* The length of the run of blocks at `at` that are (not) zero. */
static size_t block_run(const uint8_t *buf, size_t len, size_t at, bool zero)
{
    size_t start = at;

    while (at < len) {
        size_t block = (size_t)num_min(SPARSE_BLOCK, len - at);

        if (sparse_is_zero(buf + at, block) != zero)
            break;
        at += block;
    }
    return at - start;
}

/* What is in the buffer, without the blocks of zeros. */
static int put_buffer(struct exporter *e, size_t len, uint64_t offset)
{
    size_t at = 0;

    while (at < len) {
        size_t run;
        int ret;

        at += block_run(e->buf, len, at, true);
        run = block_run(e->buf, len, at, false);
        if (run == 0)
            continue;
        ret = put_extent(e, offset + at, run);
        if (ret == 0)
            ret = stream_write(&e->stream, e->buf + at, run);
        if (ret != 0)
            return ret;
        at += run;
    }
    return 0;
}

static int put_data(struct exporter *e, int fd, uint64_t bytes)
{
    uint64_t at = 0, end;
    int ret = 0;

    while (ret == 0 && at < bytes) {
        size_t len;
        ssize_t n;

        ret = sparse_next(fd, at, bytes, &at, &end);
        if (ret != 0 || at >= bytes)
            break;
        len = (size_t)num_min(end - at, SPARSE_BUFFER);
        n = io_pread_full(fd, e->buf, len, at);
        if (n != (ssize_t)len)
            return n < 0 ? (int)n : -ENODATA;
        ret =
            sparse_cancelled(&e->cancel) ? -ECANCELED : put_buffer(e, len, at);
        at += len;
    }
    return ret;
}

static int put_file(struct exporter *e, const char *name, int fd,
                    uint64_t bytes)
{
    uint8_t size[8];
    int ret = put_u32(e, (uint32_t)strlen(name));

    num_put_le64(size, bytes);
    if (ret == 0)
        ret = stream_write(&e->stream, name, strlen(name));
    if (ret == 0)
        ret = stream_write(&e->stream, size, sizeof(size));
    if (ret == 0)
        ret = put_data(e, fd, bytes);
    return ret == 0 ? put_extent(e, bytes, 0) : ret;
}

static int put_all(struct exporter *e, const struct snapshot_member *m)
{
    int ret = put_u32(e, m->manifest.file_count + 2);

    if (ret == 0)
        ret = put_file(e, SNAPSHOT_MANIFEST_NAME, m->manifest_entry.fd,
                       m->manifest_entry.mark.size);
    if (ret == 0)
        ret = put_file(e, SNAPSHOT_ID_NAME, m->id_entry.fd, SNAPSHOT_ID_LEN);
    for (uint32_t i = 0; ret == 0 && i < m->manifest.file_count; i++)
        ret = put_file(e, m->manifest.files[i].name, m->files[i].fd,
                       m->manifest.files[i].bytes);
    return ret == 0 ? stream_finish_write(&e->stream) : ret;
}

static int write_archive(const struct snapshot *s,
                         const struct snapshot_archive_options *options, int fd)
{
    struct exporter e = {.cancel = {options->cancelled, options->ctx},
                         .buf = malloc(SPARSE_BUFFER)};
    uint8_t header[ARCHIVE_HEADER_SIZE];
    int ret = e.buf ? 0 : -ENOMEM;

    memcpy(header, ARCHIVE_MAGIC, 8);
    num_put_le32(header + 8, ARCHIVE_VERSION);
    if (ret == 0)
        ret = io_write_full(fd, header, sizeof(header));
    if (ret == 0)
        ret = stream_begin_write(&e.stream, fd);
    if (ret == 0)
        ret = put_all(&e, &s->watch->chain[0]);
    stream_end(&e.stream);
    free(e.buf);
    return ret;
}

static int fail_output(const char *path, int error, struct failure *f)
{
    if (error == -EEXIST)
        return snapshot_fail(f, error, "snapshot_exists", path,
                             "cannot write the archive %s: it exists already",
                             path);
    if (error == -ECANCELED)
        return snapshot_fail(f, error, "cancelled", path,
                             "the archive %s was not written: interrupted",
                             path);
    return snapshot_fail(f, error, "snapshot_write", path,
                         "cannot write the archive %s: %s", path,
                         strerror(-error));
}

static int export_to(const struct snapshot *s, const char *path,
                     const struct snapshot_archive_options *options,
                     struct failure *f)
{
    struct output o = {.path = path, .fd = -1};
    int ret = output_open(&o);

    if (ret == 0)
        ret = write_archive(s, options, o.fd);
    if (ret == 0) {
        ret = snapshot_unchanged(s, f);
        if (ret != 0)
            goto out_close;
        ret = output_publish(&o);
    }
    if (ret != 0)
        ret = fail_output(path, ret, f);
out_close:
    output_close(&o);
    return ret;
}

int snapshot_export(const char *dir, const char *path,
                    const struct snapshot_archive_options *options,
                    struct failure *f)
{
    const struct snapshot_open_options open_options = {
        .check = SNAPSHOT_CHECK_FULL,
        .no_bases = true,
        .no_flatten = true,
        .cancelled = options->cancelled,
        .ctx = options->ctx,
    };
    struct snapshot *s = NULL;
    struct stat st;
    int ret;

    if (lstat(path, &st) == 0)
        return fail_output(path, -EEXIST, f);
    ret = snapshot_open(dir, &open_options, &s, f);
    if (ret == 0)
        ret = export_to(s, path, options, f);
    snapshot_close(s);
    return ret;
}
