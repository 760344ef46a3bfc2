/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that nobody can change any more. A digest says what a file held when it
 * was read; who has it open for writing, or a page of it mapped, may change it
 * a moment later, and through a mapping without a trace in its times. Two kinds
 * of files are beyond that:
 *
 *   - those whose file system refuses every change (fs-verity): enabling it
 *     fails while anybody has the file open or mapped for writing;
 *   - memory files with a seal against writing, into which the content is
 * copied before it is hashed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fsverity.h>
#include <linux/stat.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/snapshot_internal.h"

/* fs-verity hashes holes, too: of what is larger, nobody waits for the end. */
#define VERITY_BYTES_MAX ((uint64_t)2 << 30)

bool snapshot_is_sealed(int fd)
{
    struct statx st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals >= 0 && (seals & F_SEAL_WRITE))
        return true;
    return statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &st) == 0 &&
           (st.stx_attributes & STATX_ATTR_VERITY);
}

void snapshot_seal_file(int fd)
{
    struct fsverity_enable_arg arg = {
        .version = 1,
        .hash_algorithm = FS_VERITY_HASH_ALG_SHA256,
        .block_size = SNAPSHOT_PAGE,
    };
    struct stat st;

    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size <= VERITY_BYTES_MAX)
        (void)ioctl(fd, FS_IOC_ENABLE_VERITY, &arg);
}

uint64_t snapshot_seal_cost(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : UINT64_MAX;
}

int snapshot_seal_copy(int fd, uint64_t bytes,
                       const struct sparse_cancel *cancel)
{
    int copy =
        memfd_create("microsbx-snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int readonly = -1;
    char path[32];
    int ret = copy < 0 ? -errno : sparse_copy(fd, copy, bytes, cancel);

    if (ret == 0 &&
        fcntl(copy, F_ADD_SEALS,
              F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        ret = -errno;
    if (ret == 0) {
        /* As a file of a snapshot is opened: to read. */
        snprintf(path, sizeof(path), "/proc/self/fd/%d", copy);
        readonly = open(path, O_RDONLY | O_CLOEXEC);
        if (readonly < 0)
            readonly = fcntl(copy, F_DUPFD_CLOEXEC, 0);
        ret = readonly < 0 ? -errno : 0;
    }
    io_close(&copy);
    return ret < 0 ? ret : readonly;
}

/* ---- of an opened snapshot ---------------------------------------------- */

/* A descriptor of the snapshot's content, by its region. */
static int *content_fd(const struct snapshot *snapshot,
                       const struct snapshot_region *region)
{
    struct snapshot *s = (struct snapshot *)(uintptr_t)snapshot;

    switch (region->kind) {
    case SNAPSHOT_REGION_BASE:
        return &s->disks[region->disk].base_fd;
    case SNAPSHOT_REGION_COW:
        return &s->disks[region->disk].cow_fd;
    case SNAPSHOT_REGION_MEMORY:
        break;
    }
    return &s->memory_fd;
}

/*
 * Nobody can have changed it since the check, or it is not open. What a diff
 * was flattened to for this process has no name, and is what was checked in
 * full.
 */
static bool is_safe(const struct snapshot *s,
                    const struct snapshot_region *region)
{
    int fd = *content_fd(s, region);
    bool own = s->watch->flat_is_own && region->kind != SNAPSHOT_REGION_BASE;

    return fd < 0 || (own && s->checked == SNAPSHOT_CHECK_FULL) ||
           snapshot_is_sealed(fd);
}

/* Would its copy fit into what is left? Then that is less. */
static bool fits(int fd, uint64_t *left)
{
    uint64_t cost = snapshot_seal_cost(fd);

    if (cost > *left)
        return false;
    *left -= cost;
    return true;
}

bool snapshot_seal_helps(const struct snapshot *s)
{
    struct snapshot_region regions[SNAPSHOT_REGIONS_MAX];
    unsigned count = snapshot_regions(&s->manifest, regions);
    uint64_t left = s->watch->seal_max;

    for (unsigned i = 0; i < count; i++) {
        if (!is_safe(s, &regions[i]) &&
            fits(*content_fd(s, &regions[i]), &left))
            return true;
    }
    return false;
}

int snapshot_seal_content(struct snapshot *s)
{
    struct snapshot_region regions[SNAPSHOT_REGIONS_MAX];
    unsigned count = snapshot_regions(&s->manifest, regions);
    uint64_t left = s->watch->seal_max;

    for (unsigned i = 0; i < count; i++) {
        int *fd = content_fd(s, &regions[i]);
        int copy;

        if (is_safe(s, &regions[i]) || !fits(*fd, &left))
            continue;
        copy = snapshot_seal_copy(*fd, regions[i].bytes, &s->watch->cancel);
        if (copy == -ECANCELED)
            return copy;
        if (copy < 0)
            continue; /* no memory for it: it stays what it is */
        close(*fd);
        *fd = copy;
    }
    return 0;
}

void snapshot_unsealed(const struct snapshot *snapshot,
                       struct snapshot_names *ret_names)
{
    struct snapshot_region regions[SNAPSHOT_REGIONS_MAX];
    unsigned count = snapshot_regions(&snapshot->manifest, regions);

    ret_names->count = 0;
    for (unsigned i = 0; i < count; i++) {
        struct snapshot_name name =
            snapshot_region_name(&snapshot->manifest, &regions[i]);

        if (!is_safe(snapshot, &regions[i]))
            memcpy(ret_names->names[ret_names->count++], name.text,
                   sizeof(name.text));
    }
}
