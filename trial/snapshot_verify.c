/* SPDX-License-Identifier: Apache-2.0 */
/* Checking every file of a snapshot and telling of each; see snapshot.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trial/snapshot_internal.h"

/* A verification under way. */
struct verifier {
    const struct snapshot_open_options *options;
    struct sparse_cancel cancel;
    void (*report)(void *ctx, const struct snapshot_verdict *verdict);
    void *ctx;
    struct failure *f; /* the first failure */
    int error;         /* of it; 0: none so far */
};

/* Tells of one file; keeps the first failure. */
static void tell(struct verifier *v, const char *file, uint64_t bytes,
                 int error, const struct failure *why)
{
    const struct snapshot_verdict verdict = {
        .file = file, .bytes = bytes, .failure = error != 0 ? why : NULL};

    if (error != 0 && v->error == 0) {
        v->error = error;
        *v->f = *why;
    }
    if (v->report)
        v->report(v->ctx, &verdict);
}

static int verify_file(struct verifier *v, struct snapshot_member *m,
                       uint32_t i, struct failure *why)
{
    int ret = snapshot_member_open_file(m, i, why);

    if (ret == 0)
        ret = snapshot_check_file(m, i, &v->cancel, why);
    if (ret == 0 && strcmp(m->manifest.files[i].name, "leaves") == 0)
        ret = snapshot_check_leaves(m, why);
    return ret;
}

/* All files of a member; a parent's are named by its id. */
static void verify_member(struct verifier *v, struct snapshot_member *m,
                          bool is_parent)
{
    char name[DIGEST_HEX_SIZE + SNAPSHOT_NAME_MAX + 1];

    for (uint32_t i = 0; i < m->manifest.file_count && v->error != -ECANCELED;
         i++) {
        const struct snapshot_file *file = &m->manifest.files[i];
        struct failure why = {.code = ""};
        int ret = verify_file(v, m, i, &why);

        snprintf(name, sizeof(name), "%s%s%s", is_parent ? m->id : "",
                 is_parent ? "/" : "", file->name);
        tell(v, name, file->bytes, ret, &why);
    }
}

static void verify_parents(struct verifier *v, struct snapshot_watch *watch)
{
    while (v->error != -ECANCELED &&
           watch->chain[watch->depth - 1].manifest.has_parent) {
        const char *id = watch->chain[watch->depth - 1].manifest.parent_id;
        struct failure why = {.code = ""};
        char name[DIGEST_HEX_SIZE + sizeof(SNAPSHOT_MANIFEST_NAME)];
        const struct snapshot_member *parent;
        int ret = snapshot_chain_next(v->options, watch, &why);

        if (ret != 0) {
            tell(v, id, 0, ret, &why);
            return;
        }
        parent = &watch->chain[watch->depth - 1];
        snprintf(name, sizeof(name), "%s/" SNAPSHOT_MANIFEST_NAME, parent->id);
        tell(v, name, parent->manifest_entry.mark.size, 0, NULL);
        verify_member(v, &watch->chain[watch->depth - 1], true);
    }
}

/*
 * All files are as recorded: do they make the machine that was recorded? Bases
 * that are not stored are looked at here, and the stamp is left.
 */
static void verify_whole(struct verifier *v, const char *dir,
                         const struct snapshot_member *m)
{
    struct snapshot_open_options full = *v->options;
    struct snapshot *snapshot = NULL;
    struct failure why = {.code = ""};
    char name[64];
    int ret;

    full.check = SNAPSHOT_CHECK_FULL;
    ret = snapshot_open(dir, &full, &snapshot, &why);
    if (ret != 0)
        tell(v, strcmp(why.code, "snapshot_base") == 0 ? "base" : "(together)",
             0, ret, &why);
    for (uint32_t i = 0; ret == 0 && i < m->manifest.disk_count; i++) {
        const struct snapshot_disk *disk = &m->manifest.disks[i];

        if (snapshot->disks[i].base_fd < 0 ||
            snapshot_chain_storing(snapshot->watch, disk))
            continue;
        snprintf(name, sizeof(name), "base-%s (not stored)", disk->id);
        tell(v, name, disk->bytes, 0, NULL);
    }
    snapshot_close(snapshot);
}

static void verify_all(struct verifier *v, const char *dir,
                       struct snapshot_watch *watch)
{
    struct snapshot_member *m = &watch->chain[0];
    struct failure why = {.code = ""};
    int ret = snapshot_member_open(dir, m, &why);

    watch->depth = 1;
    tell(v, SNAPSHOT_MANIFEST_NAME, m->manifest_entry.mark.size, ret, &why);
    if (ret != 0)
        return;
    verify_member(v, m, false);
    if (!v->options->no_flatten)
        verify_parents(v, watch);
    if (v->error == 0)
        verify_whole(v, dir, m);
}

int snapshot_verify(const char *dir,
                    const struct snapshot_open_options *options,
                    void (*report)(void *ctx, const struct snapshot_verdict *),
                    void *ctx, struct failure *f)
{
    struct verifier v = {.options = options,
                         .cancel = {options->cancelled, options->ctx},
                         .report = report,
                         .ctx = ctx,
                         .f = f};
    struct snapshot_watch *watch = calloc(1, sizeof(*watch));

    if (!watch)
        return snapshot_fail(f, -ENOMEM, "host", dir, "out of memory");
    verify_all(&v, dir, watch);
    for (unsigned i = 0; i < watch->depth; i++)
        snapshot_member_close(&watch->chain[i]);
    free(watch);
    return v.error;
}
