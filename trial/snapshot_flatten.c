/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chain of diffs as one memory file and one cow file per disk: the oldest
 * ancestor's is copied (or its blocks are shared), and each younger member's
 * pages and clusters are written over it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "trial/snapshot_internal.h"

int snapshot_temporary(void)
{
    const char *dir = getenv("TMPDIR");
    char path[4096];
    int fd;

    if (!dir || dir[0] != '/')
        dir = "/var/tmp";
    fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    /* File systems without O_TMPFILE: a name for a moment. */
    snprintf(path, sizeof(path), "%s/microsbx-snapshot-XXXXXX", dir);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    unlink(path);
    return fd;
}

/* The same file again, but read-only: for the monitor. */
static int reopen_readonly(int fd)
{
    char path[64];
    int again;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    again = open(path, O_RDONLY | O_CLOEXEC);
    return again < 0 ? -errno : again;
}

/* ---- laying one file's pieces over another ------------------------------ */

/* Units of a file that are to be taken from another one. */
struct layer {
    int from, to;
    const uint8_t *bits; /* which */
    uint64_t units;
    uint64_t unit;  /* bytes of one */
    uint64_t start; /* offset of the first, in both files */
    uint64_t end;   /* of the files: the last unit may be shorter */
    const struct sparse_cancel *cancel;
};

/* Nothing but zeros from here to there; a hole where that can be. */
static int clear_range(int fd, uint64_t start, uint64_t end, uint8_t *buf)
{
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
                  (off_t)(end - start)) == 0)
        return 0;
    memset(buf, 0, SPARSE_BUFFER);
    while (start < end) {
        size_t len = (size_t)num_min(end - start, SPARSE_BUFFER);
        int ret = io_pwrite_full(fd, buf, len, start);

        if (ret != 0)
            return ret;
        start += len;
    }
    return 0;
}

static int copy_range(const struct layer *l, uint64_t start, uint64_t end,
                      uint8_t *buf)
{
    int ret = clear_range(l->to, start, end, buf);

    while (ret == 0 && start < end) {
        size_t len = (size_t)num_min(end - start, SPARSE_BUFFER);
        ssize_t n = sparse_cancelled(l->cancel)
                        ? -ECANCELED
                        : io_pread_full(l->from, buf, len, start);

        if (n < 0)
            return (int)n;
        if ((size_t)n != len)
            return -ENODATA;
        ret = sparse_write(l->to, buf, len, start);
        start += len;
    }
    return ret;
}

/* Run by run. from -1: clears. */
static int lay_over(const struct layer *l)
{
    uint8_t *buf = malloc(SPARSE_BUFFER);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t i = 0, n; ret == 0 && i < l->units; i += n) {
        uint64_t start = l->start + i * l->unit, end;

        for (n = 0; i + n < l->units && snapshot_bit_get(l->bits, i + n); n++)
            ;
        if (n == 0) {
            n = 1;
            continue;
        }
        end = num_min(start + n * l->unit, l->end);
        ret = l->from < 0 ? clear_range(l->to, start, end, buf)
                          : copy_range(l, start, end, buf);
    }
    free(buf);
    return ret;
}

/* A member's map file as bytes; the caller frees. */
static int read_map(const struct snapshot_member *member, const char *name,
                    uint8_t **ret_bits)
{
    const struct snapshot_file *file =
        snapshot_manifest_file(&member->manifest, name);
    uint8_t *bits = malloc(file->bytes);
    ssize_t n = bits ? io_pread_full(snapshot_member_fd(member, name), bits,
                                     file->bytes, 0)
                     : -ENOMEM;

    if (n >= 0 && (uint64_t)n != file->bytes)
        n = -ENODATA;
    if (n < 0) {
        free(bits);
        return (int)n;
    }
    *ret_bits = bits;
    return 0;
}

/* ---- memory ------------------------------------------------------------- */

static int lay_memory(const struct snapshot_member *member, int to,
                      const struct sparse_cancel *cancel)
{
    uint64_t bytes = member->manifest.memory_bytes;
    uint8_t *bits = NULL;
    int ret = read_map(member, "memory.map", &bits);

    if (ret == 0) {
        const struct layer layer = {
            .from = snapshot_member_fd(member, "memory"),
            .to = to,
            .bits = bits,
            .units = bytes / SNAPSHOT_PAGE,
            .unit = SNAPSHOT_PAGE,
            .end = bytes,
            .cancel = cancel,
        };

        ret = lay_over(&layer);
    }
    free(bits);
    return ret;
}

static int flatten_memory(const struct snapshot_watch *watch, int to)
{
    const struct snapshot_member *oldest = &watch->chain[watch->depth - 1];
    int ret = sparse_copy(snapshot_member_fd(oldest, "memory"), to,
                          oldest->manifest.memory_bytes, &watch->cancel);

    for (unsigned i = watch->depth - 1; ret == 0 && i-- > 0;)
        ret = lay_memory(&watch->chain[i], to, &watch->cancel);
    return ret;
}

/* ---- cow files ---------------------------------------------------------- */

/* A disk's file under way: what it holds so far. */
struct flat {
    int fd;
    struct cow_format format;
    uint8_t *bits; /* present clusters; owned */
    const struct sparse_cancel *cancel;
};

static int lay_units(const struct flat *flat, int from, const uint8_t *bits)
{
    const struct layer layer = {
        .from = from,
        .to = flat->fd,
        .bits = bits,
        .units = flat->format.clusters,
        .unit = COW_FORMAT_CLUSTER,
        .start = flat->format.data_start,
        .end = flat->format.file_len,
        .cancel = flat->cancel,
    };

    return lay_over(&layer);
}

/*
 * What the member holds is either in its own file (map) or below it, and what
 * it does not hold loses its data, so that the file is the very one that a
 * complete snapshot would have.
 */
static int lay_clusters(struct flat *flat, const struct snapshot_cow *cow,
                        const uint8_t *map)
{
    uint64_t len = flat->format.bits_len;
    int ret = 0;

    for (uint64_t i = 0; i < len; i++) {
        if ((map[i] & ~cow->bits[i]) != 0 ||
            (cow->bits[i] & ~(map[i] | flat->bits[i])) != 0)
            return -EBADMSG;
        flat->bits[i] &= (uint8_t)~cow->bits[i];
    }
    ret = lay_units(flat, -1, flat->bits);
    if (ret == 0)
        ret = lay_units(flat, cow->fd, map);
    if (ret == 0)
        ret = io_pwrite_full(flat->fd, cow->bits, len, COW_FORMAT_HEADER_SIZE);
    memcpy(flat->bits, cow->bits, len);
    return ret;
}

static int lay_disk(const struct snapshot_member *member,
                    const struct snapshot_disk *disk, struct flat *flat)
{
    struct snapshot_name cow_name =
        snapshot_disk_file_name(disk->id, SNAPSHOT_DISK_COW);
    struct snapshot_name map_name =
        snapshot_disk_file_name(disk->id, SNAPSHOT_DISK_MAP);
    struct snapshot_cow cow;
    uint8_t *map = NULL;
    int ret = snapshot_cow_load(snapshot_member_fd(member, cow_name.text),
                                disk->bytes, &cow);

    if (ret != 0)
        return ret;
    ret = read_map(member, map_name.text, &map);
    if (ret == 0)
        ret = lay_clusters(flat, &cow, map);
    free(map);
    snapshot_cow_fini(&cow);
    return ret;
}

static int flatten_disk(const struct snapshot_watch *watch, uint32_t disk,
                        int to)
{
    const struct snapshot_member *oldest = &watch->chain[watch->depth - 1];
    const struct snapshot_disk *d = &oldest->manifest.disks[disk];
    int from = snapshot_member_fd(
        oldest, snapshot_disk_file_name(d->id, SNAPSHOT_DISK_COW).text);
    struct snapshot_cow cow;
    struct flat flat = {.fd = to, .cancel = &watch->cancel};
    int ret = snapshot_cow_load(from, d->bytes, &cow);

    if (ret != 0)
        return ret;
    flat.format = cow.format;
    flat.bits = cow.bits;
    ret = sparse_copy(from, to, cow.format.file_len, &watch->cancel);
    for (unsigned i = watch->depth - 1; ret == 0 && i-- > 0;)
        ret = lay_disk(&watch->chain[i], d, &flat);
    snapshot_cow_fini(&cow);
    return ret;
}

/* ------------------------------------------------------------------------- */

int snapshot_flatten_file(const struct snapshot_watch *watch, int disk, int to)
{
    return disk < 0 ? flatten_memory(watch, to)
                    : flatten_disk(watch, (uint32_t)disk, to);
}

/* One flattened file, of the memory (disk -1) or of a disk: fd or -errno. */
static int flatten_one(const struct snapshot_watch *watch, int disk)
{
    int fd = snapshot_temporary();
    int ret = fd < 0 ? fd : 0;
    int readonly = -1;

    if (ret == 0)
        ret = snapshot_flatten_file(watch, disk, fd);
    if (ret == 0) {
        readonly = reopen_readonly(fd);
        ret = readonly < 0 ? readonly : 0;
    }
    io_close(&fd);
    return ret < 0 ? ret : readonly;
}

int snapshot_flatten_fail(const struct snapshot_watch *watch, int error,
                          struct failure *f)
{
    const char *dir = watch->chain[0].dir;

    if (error == -ECANCELED)
        return snapshot_fail(f, error, "cancelled", dir,
                             "putting the snapshot %s and its parents together "
                             "was interrupted",
                             dir);
    if (error == -EBADMSG || error == -ENODATA)
        return snapshot_fail(f, -EBADMSG, "snapshot_damaged", dir,
                             "the snapshot %s is damaged: it and its parents "
                             "do not fit together",
                             dir);
    return snapshot_fail(f, error, "snapshot_write", dir,
                         "cannot put the snapshot %s and its parents together "
                         "in TMPDIR (/var/tmp): %s",
                         dir, strerror(-error));
}

int snapshot_flatten(const struct snapshot_watch *watch, int *ret_memory_fd,
                     int ret_cows[VM_DISKS_MAX], struct failure *f)
{
    const struct snapshot_manifest *m = &watch->chain[0].manifest;
    int cows[VM_DISKS_MAX];
    int memory = flatten_one(watch, -1);
    int ret = memory < 0 ? memory : 0;

    for (int i = 0; i < (int)VM_DISKS_MAX; i++)
        cows[i] = -1;
    for (int i = 0; ret == 0 && i < (int)m->disk_count; i++) {
        if (m->disks[i].mode != VM_DISK_COW)
            continue;
        cows[i] = flatten_one(watch, i);
        ret = cows[i] < 0 ? cows[i] : 0;
    }
    if (ret != 0) {
        io_close(&memory);
        for (unsigned i = 0; i < VM_DISKS_MAX; i++)
            io_close(&cows[i]);
        return snapshot_flatten_fail(watch, ret, f);
    }
    *ret_memory_fd = memory;
    memcpy(ret_cows, cows, sizeof(cows));
    return 0;
}
