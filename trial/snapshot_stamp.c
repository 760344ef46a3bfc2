/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stamps: what every file of a snapshot was like when it was last checked in
 * full. A stamp is compared, never parsed: the text that describes the files
 * now is made anew and must be the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/whole_file.h"
#include "trial/image.h"
#include "trial/snapshot_internal.h"

#define STAMP_MAX (256u * 1024u)

/*
 * A change within the same tick of the file system's clock would leave no
 * trace: 10 ms at 100 Hz, two seconds where times are whole seconds.
 */
#define TICK_NS ((int64_t)20 * 1000 * 1000)
#define COARSE_TICK_NS ((int64_t)2100 * 1000 * 1000)

char *snapshot_cache_dir(const char *name)
{
    char *images = image_cache_dir();
    char *slash = images ? strrchr(images, '/') : NULL;
    char *dir = NULL;

    if (slash) {
        *slash = '\0';
        if (asprintf(&dir, "%s/%s", images, name) < 0)
            dir = NULL;
    }
    free(images);
    return dir;
}

static void describe(FILE *out, const char *what,
                     const struct snapshot_mark *mark)
{
    fprintf(out,
            "%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 " %" PRId64
            "%s\n",
            what, mark->dev, mark->ino, mark->size, mark->mtime_ns,
            mark->ctime_ns, mark->sealed ? " sealed" : "");
}

/* Calls for each file that was opened, with a name for it. */
typedef void visit_fn(void *ctx, const char *name,
                      const struct snapshot_mark *mark);

static void visit_all(const struct snapshot *s, visit_fn *visit, void *ctx)
{
    for (unsigned i = 0; i < s->watch->depth; i++) {
        const struct snapshot_member *m = &s->watch->chain[i];

        visit(ctx, m->id, &m->manifest_entry.mark);
        visit(ctx, SNAPSHOT_ID_NAME, &m->id_entry.mark);
        for (uint32_t k = 0; k < m->manifest.file_count; k++)
            visit(ctx, m->manifest.files[k].name, &m->files[k].mark);
    }
    for (uint32_t i = 0; i < s->manifest.disk_count; i++)
        if (s->watch->bases[i].path)
            visit(ctx, "base", &s->watch->bases[i].entry.mark);
    if (s->watch->flat_memory.fd >= 0)
        visit(ctx, "flat", &s->watch->flat_memory.mark);
    for (uint32_t i = 0; i < s->manifest.disk_count; i++)
        if (s->watch->flat_cows[i].fd >= 0)
            visit(ctx, "flat", &s->watch->flat_cows[i].mark);
}

static void visit_describe(void *ctx, const char *name,
                           const struct snapshot_mark *mark)
{
    describe(ctx, name, mark);
}

/* The caller frees; NULL if memory is short. */
static char *make_text(const struct snapshot *s, size_t *ret_len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, ret_len);

    if (!out)
        return NULL;
    fprintf(out, "microsbx.stamp/2\nroot %s\n", s->manifest.root);
    visit_all(s, visit_describe, out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* By id and directory: two copies of a snapshot have a stamp each. */
static char *make_path(const struct snapshot *s, const char *folder)
{
    const struct snapshot_mark *mark = &s->watch->chain[0].manifest_entry.mark;
    char *path;

    if (asprintf(&path, "%s/%s-%" PRIx64 "-%" PRIx64, folder, s->id, mark->dev,
                 mark->ino) < 0)
        return NULL;
    return path;
}

/* Nobody else can have written it. */
static bool is_ours(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
           st.st_uid == geteuid() && !(st.st_mode & 0022);
}

bool snapshot_stamp_fits(const struct snapshot *snapshot)
{
    char *folder = snapshot_cache_dir("stamps");
    char *path = folder ? make_path(snapshot, folder) : NULL;
    int fd =
        path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    size_t len = 0;
    char *text = fd >= 0 && is_ours(fd) ? make_text(snapshot, &len) : NULL;
    char *have = text ? malloc(len + 1) : NULL;
    bool fits = have && io_pread_full(fd, have, len + 1, 0) == (ssize_t)len &&
                memcmp(have, text, len) == 0;

    free(have);
    free(text);
    io_close(&fd);
    free(path);
    free(folder);
    return fits;
}

static void visit_settled(void *ctx, const char *name,
                          const struct snapshot_mark *mark)
{
    int64_t *newest = ctx;
    int64_t tick = mark->ctime_ns % 1000000000 == 0 ? COARSE_TICK_NS : TICK_NS;

    (void)name;
    if (mark->ctime_ns + tick > *newest)
        *newest = mark->ctime_ns + tick;
}

int64_t snapshot_settles_at(const struct snapshot *snapshot)
{
    int64_t newest = 0;

    visit_all(snapshot, visit_settled, &newest);
    return newest;
}

void snapshot_make_folders(const char *folder)
{
    char *path = NULL;

    if (mkdir(folder, 0700) != 0 && errno == ENOENT)
        path = strdup(folder);
    for (char *slash = path ? strchr(path + 1, '/') : NULL; slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    if (path)
        (void)mkdir(folder, 0700);
    free(path);
}

void snapshot_stamp_leave(const struct snapshot *snapshot)
{
    char *folder = snapshot_cache_dir("stamps");
    char *path = folder ? make_path(snapshot, folder) : NULL;
    size_t len = 0;
    char *text = make_text(snapshot, &len);

    if (path && text && len <= STAMP_MAX &&
        snapshot_settles_at(snapshot) < snapshot->watch->opened_ns) {
        snapshot_make_folders(folder);
        (void)!whole_file_write(path, text, len);
    }
    free(text);
    free(path);
    free(folder);
}

/* Takes what a file is like now: false if more than its ctime is new. */
static bool renew_mark(struct snapshot_entry *entry)
{
    struct snapshot_mark now, then = entry->mark;

    if (entry->fd < 0 || snapshot_mark_get(entry->fd, &now) != 0)
        return false;
    then.ctime_ns = now.ctime_ns;
    entry->mark = now;
    return snapshot_mark_same(&now, &then);
}

/* Bases that it stores are files of it, opened once more. */
static bool renew_bases(const struct snapshot *s)
{
    const struct snapshot_member *own = &s->watch->chain[0];
    bool same = true;

    for (uint32_t i = 0; same && i < s->manifest.disk_count; i++) {
        struct snapshot_base *base = &s->watch->bases[i];

        if (base->path &&
            snapshot_chain_storing(s->watch, &s->manifest.disks[i]) == own)
            same = renew_mark(&base->entry);
    }
    return same;
}

void snapshot_stamp_renew(struct snapshot *snapshot)
{
    struct snapshot_member *own = &snapshot->watch->chain[0];
    bool same;

    /* What was checked had not settled when it was opened. */
    if (snapshot_settles_at(snapshot) >= snapshot->watch->opened_ns)
        return;
    snapshot->watch->opened_ns = snapshot_now_ns();
    same = renew_mark(&own->manifest_entry) && renew_mark(&own->id_entry);
    for (uint32_t i = 0; same && i < own->manifest.file_count; i++)
        same = renew_mark(&own->files[i]);
    if (same && renew_bases(snapshot))
        snapshot_stamp_leave(snapshot);
}
