/* SPDX-License-Identifier: Apache-2.0 */
/* What differs between two snapshots; see the header. */
#include "trial/snapshot_diff.h"

#include <errno.h>
#include <string.h>

#include "trial/snapshot_internal.h"

/* Collects single units into runs. */
struct collector {
    const char *disk;
    void (*report)(void *ctx, const struct snapshot_run *run);
    void *ctx;
    struct snapshot_run run; /* count 0: none under way */
    uint64_t total;
};

static void end_run(struct collector *c)
{
    if (c->run.count > 0 && c->report)
        c->report(c->ctx, &c->run);
    c->run.count = 0;
}

static int add_unit(void *ctx, uint64_t unit, const uint8_t *bytes, size_t len)
{
    struct collector *c = ctx;

    (void)bytes;
    (void)len;
    c->total++;
    if (c->run.count > 0 && c->run.first + c->run.count == unit) {
        c->run.count++;
        return 0;
    }
    end_run(c);
    c->run = (struct snapshot_run){.disk = c->disk, .first = unit, .count = 1};
    return 0;
}

static int fail_other_machine(const struct snapshot *a,
                              const struct snapshot *b, const char *why,
                              struct failure *f)
{
    return snapshot_fail(f, -EINVAL, "snapshot_disk", b->dir,
                         "cannot compare %s with %s: they are of different "
                         "machines: %s",
                         a->dir, b->dir, why);
}

static int check_same_machine(const struct snapshot *a,
                              const struct snapshot *b, struct failure *f)
{
    const struct snapshot_manifest *p = &a->manifest, *q = &b->manifest;

    if (p->memory_bytes != q->memory_bytes)
        return fail_other_machine(a, b, "their memory differs in size", f);
    if (p->disk_count != q->disk_count)
        return fail_other_machine(a, b, "one has more disks", f);
    for (uint32_t i = 0; i < p->disk_count; i++)
        if (strcmp(p->disks[i].id, q->disks[i].id) != 0 ||
            p->disks[i].mode != q->disks[i].mode ||
            p->disks[i].bytes != q->disks[i].bytes ||
            strcmp(p->disks[i].sha256, q->disks[i].sha256) != 0)
            return fail_other_machine(a, b, "their disks differ", f);
    return 0;
}

static int diff_disk(const struct snapshot *a, const struct snapshot *b,
                     uint32_t i, struct collector *c)
{
    const struct snapshot_compare compare = {
        .cancel = &a->watch->cancel, .differs = add_unit, .ctx = c};
    struct snapshot_cow a_cow, b_cow;
    struct snapshot_side a_side = {.cow = &a_cow,
                                   .base_fd = a->disks[i].base_fd};
    struct snapshot_side b_side = {.cow = &b_cow,
                                   .base_fd = b->disks[i].base_fd};
    uint64_t bytes = a->manifest.disks[i].bytes;
    int ret;

    if (a->manifest.disks[i].mode != VM_DISK_COW)
        return 0;
    ret = snapshot_cow_load(a->disks[i].cow_fd, bytes, &a_cow);
    if (ret != 0)
        return ret;
    ret = snapshot_cow_load(b->disks[i].cow_fd, bytes, &b_cow);
    if (ret == 0) {
        ret = snapshot_compare_disk(&a_side, &b_side, &compare);
        snapshot_cow_fini(&b_cow);
    }
    snapshot_cow_fini(&a_cow);
    end_run(c);
    return ret;
}

static int diff_all(const struct snapshot *a, const struct snapshot *b,
                    struct collector *c,
                    struct snapshot_difference *ret_difference)
{
    struct snapshot_difference d = {0};
    const struct snapshot_compare compare = {
        .cancel = &a->watch->cancel, .differs = add_unit, .ctx = c};
    int ret = snapshot_compare_memory(a->memory_fd, b->memory_fd,
                                      a->manifest.memory_bytes, &compare);

    end_run(c);
    d.pages = c->total;
    for (uint32_t i = 0; ret == 0 && i < a->manifest.disk_count; i++) {
        c->disk = a->manifest.disks[i].id;
        c->total = 0;
        ret = diff_disk(a, b, i, c);
        d.clusters[i] = c->total;
    }
    if (ret == 0)
        *ret_difference = d;
    return ret;
}

int snapshot_diff(const struct snapshot *a, const struct snapshot *b,
                  void (*report)(void *ctx, const struct snapshot_run *run),
                  void *ctx, struct snapshot_difference *ret_difference,
                  struct failure *f)
{
    struct collector c = {.report = report, .ctx = ctx};
    int ret = check_same_machine(a, b, f);

    if (ret != 0)
        return ret;
    ret = diff_all(a, b, &c, ret_difference);
    if (ret != 0)
        return snapshot_fail(f, ret, "snapshot_unreadable", a->dir,
                             "cannot compare %s with %s: %s", a->dir, b->dir,
                             strerror(-ret));
    return 0;
}
