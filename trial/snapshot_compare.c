/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages and clusters of two snapshots differ. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/num.h"
#include "trial/snapshot_internal.h"

static int read_exactly(int fd, uint8_t *buf, size_t len, uint64_t offset)
{
    ssize_t n = io_pread_full(fd, buf, len, offset);

    if (n < 0)
        return (int)n;
    return (size_t)n == len ? 0 : -ENODATA;
}

/* Room for the same piece of both sides. */
struct pair {
    uint8_t *a, *b;
};

static int pair_init(struct pair *pair, size_t size)
{
    pair->a = malloc(2 * size);
    if (!pair->a)
        return -ENOMEM;
    pair->b = pair->a + size;
    return 0;
}

/* ---- memory ------------------------------------------------------------- */

/* Where either of two files has data next. */
static int next_data(int a, int b, uint64_t at, uint64_t bytes,
                     uint64_t *ret_start)
{
    uint64_t a_start, b_start, end;
    int ret = sparse_next(a, at, bytes, &a_start, &end);

    if (ret == 0)
        ret = sparse_next(b, at, bytes, &b_start, &end);
    if (ret == 0)
        *ret_start = num_min(a_start, b_start);
    return ret;
}

static int compare_pages(const struct pair *pair, uint64_t start, size_t len,
                         const struct snapshot_compare *compare)
{
    int ret = 0;

    if (memcmp(pair->a, pair->b, len) == 0)
        return 0;
    for (size_t at = 0; ret == 0 && at < len; at += SNAPSHOT_PAGE)
        if (memcmp(pair->a + at, pair->b + at, SNAPSHOT_PAGE) != 0)
            ret = compare->differs(compare->ctx, (start + at) / SNAPSHOT_PAGE,
                                   pair->a + at, SNAPSHOT_PAGE);
    return ret;
}

int snapshot_compare_memory(int a, int b, uint64_t bytes,
                            const struct snapshot_compare *compare)
{
    struct pair pair;
    uint64_t at = 0;
    int ret = pair_init(&pair, SPARSE_BUFFER);

    while (ret == 0 && at < bytes) {
        size_t len;

        ret = next_data(a, b, at, bytes, &at);
        if (ret != 0 || at >= bytes)
            break;
        at -= at % SNAPSHOT_PAGE;
        len = (size_t)num_min(SPARSE_BUFFER, bytes - at);
        if (sparse_cancelled(compare->cancel))
            ret = -ECANCELED;
        if (ret == 0)
            ret = read_exactly(a, pair.a, len, at);
        if (ret == 0)
            ret = read_exactly(b, pair.b, len, at);
        if (ret == 0)
            ret = compare_pages(&pair, at, len, compare);
        at += len;
    }
    free(pair.a);
    return ret;
}

/* ---- disks -------------------------------------------------------------- */

/* What the guest of this side reads: 1 if that is not known. */
static int read_cluster(const struct snapshot_side *side, uint64_t cluster,
                        uint8_t *buf, size_t len)
{
    const struct snapshot_cow *cow = side->cow;
    uint64_t at = cluster * COW_FORMAT_CLUSTER;

    if (snapshot_bit_get(cow->bits, cluster))
        return read_exactly(cow->fd, buf, len, cow->format.data_start + at);
    if (side->base_fd < 0)
        return 1;
    return read_exactly(side->base_fd, buf, len, at);
}

static int compare_cluster(const struct snapshot_side *a,
                           const struct snapshot_side *b, uint64_t cluster,
                           const struct pair *pair,
                           const struct snapshot_compare *compare)
{
    size_t len = snapshot_cow_cluster_len(a->cow, cluster);
    bool unknown;
    int ret = read_cluster(a, cluster, pair->a, len);

    if (ret < 0)
        return ret;
    unknown = ret == 1;
    ret = read_cluster(b, cluster, pair->b, len);
    if (ret < 0)
        return ret;
    if (ret == 0 && !unknown && memcmp(pair->a, pair->b, len) == 0)
        return 0;
    return compare->differs(compare->ctx, cluster, pair->a, len);
}

int snapshot_compare_disk(const struct snapshot_side *a,
                          const struct snapshot_side *b,
                          const struct snapshot_compare *compare)
{
    struct pair pair;
    int ret = pair_init(&pair, COW_FORMAT_CLUSTER);

    for (uint64_t i = 0; ret == 0 && i < a->cow->format.clusters; i++) {
        if (!snapshot_bit_get(a->cow->bits, i) &&
            !snapshot_bit_get(b->cow->bits, i))
            continue;
        if (sparse_cancelled(compare->cancel))
            ret = -ECANCELED;
        else
            ret = compare_cluster(a, b, i, &pair, compare);
    }
    free(pair.a);
    return ret;
}
