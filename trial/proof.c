/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing what was loaded with what should have been; see the header. */
#include "trial/proof.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/io.h"
#include "vmm/state_file.h"

static int fail_place(const struct snapshot *snapshot, struct failure *f,
                      const char *place)
{
    failure_set(f, "snapshot_proof", snapshot->dir,
                "do not trust this host or this monitor before it is known "
                "why; microsbx snapshot verify reads the files again",
                "the machine is not in the state of the snapshot %s: %s",
                snapshot->dir, place);
    return -EBADMSG;
}

static int fail_read(const char *what, int error, struct failure *f)
{
    failure_set(f, "host", what, NULL, "cannot compare the %s: %s", what,
                strerror(-error));
    return error;
}

/* A whole file of at most max bytes (free() it): 0 or a negative errno. */
static int read_file(int fd, size_t max, uint8_t **ret_bytes, size_t *ret_len)
{
    struct stat st;
    uint8_t *bytes;
    ssize_t n;

    if (fstat(fd, &st) != 0)
        return -errno;
    if (st.st_size < 0 || (uint64_t)st.st_size > max)
        return -EFBIG;
    bytes = malloc((size_t)st.st_size + 1);
    if (!bytes)
        return -ENOMEM;
    n = io_pread_full(fd, bytes, (size_t)st.st_size, 0);
    if (n < 0) {
        free(bytes);
        return (int)n;
    }
    *ret_bytes = bytes;
    *ret_len = (size_t)n;
    return 0;
}

static int compare_state(int proven_fd, const struct snapshot *snapshot,
                         struct failure *f)
{
    struct state_difference difference;
    uint8_t *is = NULL, *should = NULL;
    size_t is_len = 0, should_len = 0;
    int ret = read_file(proven_fd, STATE_FILE_MAX, &is, &is_len);

    if (ret == 0)
        ret =
            read_file(snapshot->state_fd, STATE_FILE_MAX, &should, &should_len);
    if (ret < 0)
        ret = fail_read("state", ret, f);
    else if (state_file_compare(should, should_len, is, is_len, &difference))
        ret = fail_place(snapshot, f, difference.text);
    free(is);
    free(should);
    return ret;
}

static int compare_leaf(const struct snapshot *snapshot, uint64_t index,
                        int proven_fd, struct failure *f)
{
    uint64_t at = index * DIGEST_SIZE;
    uint8_t is[DIGEST_SIZE], should[DIGEST_SIZE];
    char place[96];
    ssize_t n = io_pread_full(proven_fd, is, sizeof(is), at);

    if (n == sizeof(is))
        n = io_pread_full(snapshot->leaves_fd, should, sizeof(should), at);
    if (n != sizeof(is))
        return fail_read("memory", n < 0 ? (int)n : -EIO, f);
    if (memcmp(is, should, sizeof(is)) == 0)
        return 0;
    snprintf(place, sizeof(place), "memory differs within 1 MiB at 0x%" PRIx64,
             index * SNAPSHOT_CHUNK);
    return fail_place(snapshot, f, place);
}

static int compare_memory(int proven_fd, const struct snapshot *snapshot,
                          struct failure *f)
{
    uint64_t chunks =
        (snapshot->manifest.memory_bytes + SNAPSHOT_CHUNK - 1) / SNAPSHOT_CHUNK;
    struct stat st;
    int ret = 0;

    if (fstat(proven_fd, &st) != 0)
        return fail_read("memory", -errno, f);
    if ((uint64_t)st.st_size != chunks * DIGEST_SIZE)
        return fail_place(snapshot, f, "its memory has another size");
    for (uint64_t i = 0; ret == 0 && i < chunks; i++)
        ret = compare_leaf(snapshot, i, proven_fd, f);
    return ret;
}

/* A restored disk is the snapshot's as long as its own overlay is empty. */
static int compare_disks(const struct monitor_proved *proved,
                         const struct snapshot *snapshot, struct failure *f)
{
    const struct snapshot_manifest *m = &snapshot->manifest;
    char place[160];

    if (proved->disk_count != m->disk_count)
        return fail_place(snapshot, f, "it has another number of disks");
    for (uint32_t i = 0; i < m->disk_count; i++) {
        if (proved->disks[i].clusters == 0)
            continue;
        snprintf(place, sizeof(place),
                 "the private overlay of its disk '%s' is not empty: %" PRIu64
                 " clusters, the first at 0x%" PRIx64,
                 m->disks[i].id, proved->disks[i].clusters,
                 proved->disks[i].first);
        return fail_place(snapshot, f, place);
    }
    return 0;
}

/* A disk that is not the snapshot's is none of what was recorded. */
static int refuse_replaced(const struct snapshot *snapshot, struct failure *f)
{
    for (uint32_t i = 0; i < snapshot->manifest.disk_count; i++) {
        const char *id = snapshot->manifest.disks[i].id;

        if (!snapshot->disks[i].replaced)
            continue;
        failure_set(f, "snapshot_proof", id, "leave out --prove, or --disk",
                    "cannot prove that this is the machine of the snapshot %s: "
                    "its disk '%s' is replaced by %s",
                    snapshot->dir, id, snapshot->disks[i].replaced);
        return -EINVAL;
    }
    return 0;
}

int proof_make(struct monitor *m, const struct snapshot *snapshot,
               struct proof *ret_proof, struct failure *f)
{
    int state_fd = memfd_create("microsbx-proof-state", MFD_CLOEXEC);
    int leaves_fd = memfd_create("microsbx-proof-leaves", MFD_CLOEXEC);
    struct monitor_proved proved = {0};
    int ret = refuse_replaced(snapshot, f);

    if (ret == 0 && (state_fd < 0 || leaves_fd < 0))
        ret = fail_read("proof", -errno, f);
    if (ret == 0)
        ret = monitor_prove(m, state_fd, leaves_fd, &proved, f);
    if (ret == 0)
        ret = compare_disks(&proved, snapshot, f);
    if (ret == 0)
        ret = compare_memory(leaves_fd, snapshot, f);
    if (ret == 0)
        ret = compare_state(state_fd, snapshot, f);
    if (ret == 0) {
        ret_proof->done = true;
        memcpy(ret_proof->root, snapshot->manifest.root,
               sizeof(ret_proof->root));
    }
    io_close(&state_fd);
    io_close(&leaves_fd);
    return ret;
}
