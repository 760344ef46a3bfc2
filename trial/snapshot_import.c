/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot from an archive, which is untrusted: the manifest comes first and
 * says which files of which sizes may follow; nothing else is ever written.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "base/units.h"
#include "trial/snapshot_archive.h"
#include "trial/snapshot_internal.h"
#include "trial/snapshot_stream.h"

/* Where the file system does not say how much is free. */
#define SIZE_LIMIT_UNKNOWN ((uint64_t)16 << 30)

/* An import under way. */
struct importer {
    const char *path; /* of the archive */
    struct snapshot_stream stream;
    struct sparse_cancel cancel;
    struct snapshot_stage stage;
    struct snapshot_member member; /* what was unpacked: the manifest */
    uint32_t count;                /* files in the archive */
    uint64_t limit;                /* bytes that may be written */
    uint64_t written;              /* so far, in blocks */
    bool limit_given;              /* by the user */
    uint8_t *buf;                  /* SPARSE_BUFFER bytes; owned */
    struct failure *f;
};

static int fail_archive(const struct importer *im, const char *why)
{
    return snapshot_fail(im->f, -EBADMSG, "snapshot_archive", im->path,
                         "cannot import %s: %s", im->path, why);
}

static int fail_size(const struct importer *im)
{
    char limit[32], why[128];

    units_format_size(im->limit, limit, sizeof(limit));
    snprintf(why, sizeof(why), "it unpacks to more than %s, %s", limit,
             im->limit_given ? "the --size-limit"
                             : "nine tenths of what is free there");
    return snapshot_fail(im->f, -EFBIG, "snapshot_size", im->path,
                         "cannot import %s: %s", im->path, why);
}

/* What reading the stream, or writing a file, has ended with. */
static int fail_error(const struct importer *im, int error)
{
    if (error == -EBADMSG)
        return fail_archive(im, "the archive is damaged or cut short");
    if (error == -EFBIG && im->written > im->limit)
        return fail_size(im);
    return snapshot_stage_fail(&im->stage, error, "unpack the archive into it",
                               im->f);
}

static int get_u32(struct importer *im, uint32_t *ret_value)
{
    uint8_t bytes[4];
    int ret = stream_read(&im->stream, bytes, sizeof(bytes));

    if (ret == 0)
        *ret_value = num_get_le32(bytes);
    return ret;
}

static int get_u64(struct importer *im, uint64_t *ret_value)
{
    uint8_t bytes[8];
    int ret = stream_read(&im->stream, bytes, sizeof(bytes));

    if (ret == 0)
        *ret_value = num_get_le64(bytes);
    return ret;
}

/* ---- one file ----------------------------------------------------------- */

/* The next file must have this name. */
static int expect_name(struct importer *im, const char *name)
{
    char found[SNAPSHOT_NAME_MAX + 1];
    uint32_t len = 0;
    int ret = get_u32(im, &len);

    if (ret == 0 && len != strlen(name))
        ret = -EBADMSG;
    if (ret == 0)
        ret = stream_read(&im->stream, found, len);
    if (ret == 0 && memcmp(found, name, len) != 0)
        ret = -EBADMSG;
    return ret;
}

/*
 * Counts the blocks from `offset` on that are not counted yet, up to *counted:
 * a single byte takes a whole one. -EFBIG if they are too many.
 */
static int count_blocks(struct importer *im, uint64_t offset, uint64_t len,
                        uint64_t *counted)
{
    uint64_t start = offset / SPARSE_BLOCK * SPARSE_BLOCK;
    uint64_t end = num_align_up(offset + len, SPARSE_BLOCK);

    if (start < *counted)
        start = *counted;
    if (end > start) {
        im->written += end - start;
        *counted = end;
    }
    return im->written > im->limit ? -EFBIG : 0;
}

static int copy_extent(struct importer *im, int fd, uint64_t offset,
                       uint64_t len)
{
    int ret = 0;

    while (ret == 0 && len > 0) {
        size_t piece = (size_t)num_min(len, SPARSE_BUFFER);

        ret = sparse_cancelled(&im->cancel)
                  ? -ECANCELED
                  : stream_read(&im->stream, im->buf, piece);
        /* Zeros that were packed as data become holes again. */
        if (ret == 0)
            ret = sparse_write(fd, im->buf, piece, offset);
        offset += piece;
        len -= piece;
    }
    return ret;
}

/* Extents up to the end mark, within the file and in order. */
static int copy_extents(struct importer *im, int fd, uint64_t bytes)
{
    uint64_t at = 0, counted = 0;

    for (;;) {
        uint64_t offset = 0, len = 0;
        int ret = get_u64(im, &offset);

        if (ret == 0)
            ret = get_u64(im, &len);
        if (ret != 0)
            return ret;
        if (offset < at || !num_range_within(offset, len, 0, bytes))
            return -EBADMSG;
        if (len == 0)
            return offset == bytes ? 0 : -EBADMSG;
        ret = count_blocks(im, offset, len, &counted);
        if (ret == 0)
            ret = copy_extent(im, fd, offset, len);
        if (ret != 0)
            return ret;
        at = offset + len;
    }
}

/* Its size must be in this range. */
static int import_file(struct importer *im, const char *name, uint64_t min,
                       uint64_t max)
{
    uint64_t bytes = 0;
    int ret = expect_name(im, name);
    int fd;

    if (ret == 0)
        ret = get_u64(im, &bytes);
    if (ret == 0 && (bytes < min || bytes > max))
        ret = -EBADMSG;
    if (ret != 0)
        return ret;
    fd = snapshot_stage_create(&im->stage, name);
    if (fd < 0)
        return fd;
    if (ftruncate(fd, (off_t)bytes) != 0)
        ret = -errno;
    if (ret == 0)
        ret = copy_extents(im, fd, bytes);
    io_close(&fd);
    return ret;
}

/* ---- the manifest, which comes first ------------------------------------ */

/* Opens what was unpacked so far like any snapshot: id, text, everything. */
static int read_manifest(struct importer *im)
{
    struct failure why = {.code = ""};
    int ret = snapshot_member_open_staged(&im->stage, &im->member, &why);

    if (ret == 0)
        return 0;
    if (strcmp(why.code, "snapshot_version") == 0)
        return snapshot_fail(im->f, ret, why.code, im->path,
                             "cannot import %s: it is of another version",
                             im->path);
    return fail_archive(im, "its manifest is damaged");
}

static int import_manifest(struct importer *im)
{
    int ret = get_u32(im, &im->count);

    if (ret == 0 && (im->count < 2 || im->count > SNAPSHOT_FILES_MAX + 2))
        ret = -EBADMSG;
    if (ret == 0)
        ret = import_file(im, SNAPSHOT_MANIFEST_NAME, 2, SNAPSHOT_MANIFEST_MAX);
    if (ret == 0)
        ret =
            import_file(im, SNAPSHOT_ID_NAME, SNAPSHOT_ID_LEN, SNAPSHOT_ID_LEN);
    return ret == 0 ? read_manifest(im) : fail_error(im, ret);
}

/* ---- all ---------------------------------------------------------------- */

static int import_files(struct importer *im)
{
    int ret = im->count == im->member.manifest.file_count + 2 ? 0 : -EBADMSG;

    for (uint32_t i = 0; ret == 0 && i < im->member.manifest.file_count; i++) {
        const struct snapshot_file *file = &im->member.manifest.files[i];

        ret = import_file(im, file->name, file->bytes, file->bytes);
    }
    if (ret == 0)
        ret = stream_finish_read(&im->stream);
    return ret == 0 ? 0 : fail_error(im, ret);
}

static int read_header(const struct importer *im, int fd)
{
    uint8_t header[ARCHIVE_HEADER_SIZE];
    ssize_t n = io_read_full(fd, header, sizeof(header));

    if (n < 0)
        return snapshot_fail(im->f, (int)n, "snapshot_unreadable", im->path,
                             "cannot read %s: %s", im->path, strerror((int)-n));
    if (n != (ssize_t)sizeof(header) || memcmp(header, ARCHIVE_MAGIC, 8) != 0)
        return fail_archive(im, "it is not an archive of a snapshot");
    if (num_get_le32(header + 8) != ARCHIVE_VERSION)
        return snapshot_fail(
            im->f, -EPROTONOSUPPORT, "snapshot_version", im->path,
            "cannot import %s: it is of version %u, and this "
            "version of microsbx reads %u",
            im->path, num_get_le32(header + 8), ARCHIVE_VERSION);
    return 0;
}

static int unpack(struct importer *im, int fd)
{
    int ret = read_header(im, fd);

    if (ret != 0)
        return ret;
    im->buf = malloc(SPARSE_BUFFER);
    ret = im->buf ? stream_begin_read(&im->stream, fd) : -ENOMEM;
    if (ret != 0)
        return fail_error(im, ret);
    ret = import_manifest(im);
    return ret == 0 ? import_files(im) : ret;
}

/* A diff is checked without its parents, which need not be here. */
static int publish(struct importer *im)
{
    struct snapshot_open_options options = {
        .no_flatten = im->member.manifest.has_parent,
        .no_bases = im->member.manifest.has_parent,
        .cancelled = im->cancel.cancelled,
        .ctx = im->cancel.ctx,
    };

    for (uint32_t i = 0; i < im->member.manifest.disk_count; i++)
        if (!im->member.manifest.disks[i].stored)
            options.no_bases = true;
    return snapshot_stage_publish(&im->stage, &options, im->f);
}

/* Nobody said how much: most of what is free, but not all of it. */
static int set_limit(struct importer *im)
{
    struct statvfs fs;

    if (im->limit_given)
        return 0;
    if (fstatvfs(im->stage.folder_fd, &fs) != 0)
        return fail_error(im, -errno);
    /* Some file systems of programs tell nothing. */
    im->limit = fs.f_blocks == 0 ? SIZE_LIMIT_UNKNOWN
                                 : fs.f_bavail * fs.f_frsize / 10 * 9;
    return 0;
}

static int import_fd(struct importer *im, int fd, const char *out_dir,
                     char ret_id[DIGEST_HEX_SIZE])
{
    int ret = snapshot_stage_begin(out_dir, &im->stage, im->f);

    if (ret == 0)
        ret = set_limit(im);
    if (ret == 0)
        ret = unpack(im, fd);
    if (ret == 0)
        ret = publish(im);
    if (ret == 0)
        memcpy(ret_id, im->member.id, DIGEST_HEX_SIZE);
    snapshot_member_close(&im->member);
    stream_end(&im->stream);
    free(im->buf);
    snapshot_stage_end(&im->stage);
    return ret;
}

int snapshot_import(const char *path, const char *out_dir,
                    const struct snapshot_archive_options *options,
                    char ret_id[DIGEST_HEX_SIZE], struct failure *f)
{
    struct importer im = {
        .path = path,
        .cancel = {options->cancelled, options->ctx},
        .limit = options->size_limit,
        .limit_given = options->size_limit != 0,
        .f = f,
    };
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int ret;

    if (fd < 0)
        return snapshot_fail(f, -errno, "snapshot_missing", path,
                             "cannot open the archive %s: %s", path,
                             strerror(errno));
    ret = import_fd(&im, fd, out_dir, ret_id);
    io_close(&fd);
    return ret;
}
