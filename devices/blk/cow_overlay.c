/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copy-on-write overlay as a block backend: which file a byte comes from,
 * and in what order a change is made. The file's format is cow_map's.
 *
 * Cluster i lies at data_start + i * COW_CLUSTER_SIZE, so neighbours on the
 * disk are neighbours in the file, and a request takes one system call as long
 * as its clusters are alike (reads) or whatever they are (writes).
 */
#include "devices/blk/cow_overlay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/num.h"
#include "devices/blk/block_file.h"
#include "devices/blk/cow_map.h"
#include "devices/blk/cow_overlay_internal.h"

static struct cow_overlay *cow_of(struct block_backend *b)
{
    return (struct cow_overlay *)b;
}

/* Counts a request's result on its way out. */
static int cow_count(struct cow_overlay *cow, int ret)
{
    cow->backend.stats.clusters_present = cow->map.present;
    if (ret == -ENOSPC)
        cow->backend.stats.no_space++;
    else if (ret < 0)
        cow->backend.stats.io_errors++;
    return ret;
}

static uint64_t cluster_start(uint64_t cluster)
{
    return cluster * COW_CLUSTER_SIZE;
}

/* The end of a cluster; the disk's last one may be shorter. */
static uint64_t cluster_end(const struct cow_overlay *cow, uint64_t cluster)
{
    return num_min(cluster_start(cluster) + COW_CLUSTER_SIZE,
                   cow->backend.size);
}

static int read_base(struct cow_overlay *cow, uint8_t *buf, uint64_t start,
                     uint64_t end)
{
    struct iovec iov = {.iov_base = buf, .iov_len = (size_t)(end - start)};

    return cow->base->ops->preadv(cow->base, &iov, 1, start, end - start);
}

/* Pre: len > 0. */
static bool is_zero(const uint8_t *p, uint64_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, (size_t)(len - 1)) == 0;
}

/* 1 if the base reads as zeros in a cluster, 0 if not, or a negative errno. */
static int base_is_zero(struct cow_overlay *cow, uint64_t cluster)
{
    uint64_t start = cluster_start(cluster);
    uint64_t end = cluster_end(cow, cluster);
    int ret;

    if (cow->base->ops->zeros(cow->base, start, end - start) == end - start)
        return 1;
    ret = read_base(cow, cow->scratch, start, end);
    return ret < 0 ? ret : is_zero(cow->scratch, end - start);
}

/* Asks for room for absent clusters that are about to become present. */
static int reserve(struct cow_overlay *cow, uint64_t clusters)
{
    if (cow->limit == 0 ||
        cow->map.present + clusters <= cow->limit / COW_CLUSTER_SIZE)
        return 0;
    cow->backend.stats.limit_hit = true;
    return -ENOSPC;
}

static int cow_preadv(struct block_backend *b, const struct iovec *iov,
                      unsigned count, uint64_t offset, uint64_t len)
{
    struct cow_overlay *cow = cow_of(b);
    struct iovec part[BLOCK_IOV_MAX];
    uint64_t pos = offset, end, last;
    int ret = 0;

    if (!num_range_within(offset, len, 0, b->size))
        return -EINVAL;
    if (len == 0)
        return 0;
    end = offset + len;
    last = (end - 1) / COW_CLUSTER_SIZE;
    while (pos < end && ret == 0) {
        uint64_t first = pos / COW_CLUSTER_SIZE;
        uint64_t run = cow_map_run_end(&cow->map, first, last);
        uint64_t n = num_min(cluster_end(cow, run), end) - pos;
        int parts = block_iov_slice(iov, count, pos - offset, n, part);

        if (parts < 0)
            ret = parts;
        else if (cow_map_get(&cow->map, first))
            ret = block_file_readv(cow->fd, part, (unsigned)parts,
                                   cow->map.data_start + pos, n);
        else
            ret = cow->base->ops->preadv(cow->base, part, (unsigned)parts, pos,
                                         n);
        pos += n;
    }
    return cow_count(cow, ret);
}

/* A write made to cover whole clusters where they are absent. */
struct merged_write {
    uint64_t start;
    uint64_t end;
    unsigned count;
    struct iovec iov[BLOCK_IOV_MAX];
};

/*
 * Reads from the base what is missing of the first and the last cluster, if
 * they are absent and [m->start, m->end) covers them only partly. Afterwards
 * *ret_head and *ret_tail are those bytes (of length 0 if nothing is missing)
 * and the range in m has grown by them. Within one cluster only the first half
 * of scratch is used: zero_part has its zeros in the second.
 */
static int merge_edges(struct cow_overlay *cow, struct merged_write *m,
                       struct iovec *ret_head, struct iovec *ret_tail)
{
    uint64_t start = m->start, end = m->end;
    uint64_t first = start / COW_CLUSTER_SIZE;
    uint64_t last = (end - 1) / COW_CLUSTER_SIZE;
    uint8_t *head = cow->scratch;
    uint8_t *tail = head + COW_CLUSTER_SIZE;
    int ret = 0;

    if (!cow_map_get(&cow->map, first))
        m->start = cluster_start(first);
    if (!cow_map_get(&cow->map, last))
        m->end = cluster_end(cow, last);
    if (first == last && m->start < start && m->end > end) {
        /* The middle of one cluster: one read instead of two. */
        ret = read_base(cow, head, m->start, m->end);
        tail = head + (end - m->start);
    } else {
        if (first == last) /* one of the two is empty */
            tail = head;
        if (m->start < start)
            ret = read_base(cow, head, m->start, start);
        if (ret == 0 && m->end > end)
            ret = read_base(cow, tail, end, m->end);
    }
    *ret_head = (struct iovec){head, (size_t)(start - m->start)};
    *ret_tail = (struct iovec){tail, (size_t)(m->end - end)};
    return ret;
}

/* Builds the write: bytes of the base, the guest's, bytes of the base. */
static int merge_build(struct cow_overlay *cow, const struct iovec *iov,
                       unsigned count, struct merged_write *m)
{
    struct iovec head, tail;
    int ret = merge_edges(cow, m, &head, &tail);

    if (ret < 0)
        return ret;
    m->count = 0;
    if (head.iov_len > 0)
        m->iov[m->count++] = head;
    memcpy(m->iov + m->count, iov, count * sizeof(*iov));
    m->count += count;
    if (tail.iov_len > 0)
        m->iov[m->count++] = tail;
    return 0;
}

/*
 * Gives back what a failed write may have left in clusters that stay absent,
 * so that a guest cannot hold space that is not counted. Best effort: there is
 * already an error to report, and the bytes are never read.
 */
static void undo_absent(struct cow_overlay *cow, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++) {
        uint64_t start = cluster_start(i);

        if (!cow_map_get(&cow->map, i))
            (void)!block_file_zero(cow->fd, cow->map.data_start + start,
                                   cluster_end(cow, i) - start,
                                   BLOCK_ZERO_PUNCH);
    }
}

/*
 * A write that touches absent clusters. Data first, map second: until all of a
 * cluster is in the file its bit stays clear, and the base is what is read.
 */
static int write_absent(struct cow_overlay *cow, const struct iovec *iov,
                        unsigned count, uint64_t offset, uint64_t len)
{
    uint64_t first = offset / COW_CLUSTER_SIZE;
    uint64_t last = (offset + len - 1) / COW_CLUSTER_SIZE;
    struct merged_write m = {.start = offset, .end = offset + len};
    int ret = reserve(cow, cow_map_count_absent(&cow->map, first, last));

    if (ret == 0)
        ret = merge_build(cow, iov, count, &m);
    if (ret < 0)
        return ret;
    ret = block_file_writev(cow->fd, m.iov, m.count,
                            cow->map.data_start + m.start, m.end - m.start);
    if (ret < 0) {
        undo_absent(cow, first, last);
        return ret;
    }
    for (uint64_t i = first; i <= last; i++)
        cow_map_put(&cow->map, i, true);
    return 0;
}

static int write_range(struct cow_overlay *cow, const struct iovec *iov,
                       unsigned count, uint64_t offset, uint64_t len)
{
    uint64_t first = offset / COW_CLUSTER_SIZE;
    uint64_t last = (offset + len - 1) / COW_CLUSTER_SIZE;

    cow->dirty = true;
    if (cow_map_get(&cow->map, first) &&
        cow_map_run_end(&cow->map, first, last) == last)
        return block_file_writev(cow->fd, iov, count,
                                 cow->map.data_start + offset, len);
    return write_absent(cow, iov, count, offset, len);
}

static int cow_pwritev(struct block_backend *b, const struct iovec *iov,
                       unsigned count, uint64_t offset, uint64_t len)
{
    struct cow_overlay *cow = cow_of(b);

    /* Two entries are kept for merging. */
    if (!num_range_within(offset, len, 0, b->size) || count > BLOCK_IOV_MAX - 2)
        return -EINVAL;
    if (b->readonly)
        return -EROFS;
    if (len == 0)
        return 0;
    return cow_count(cow, write_range(cow, iov, count, offset, len));
}

/*
 * Zeros in the file: a hole if the host can. A present cluster that is a hole
 * costs nothing but still counts, else a guest could fill holes later beyond
 * its limit.
 */
static int zero_file(struct cow_overlay *cow, uint64_t start, uint64_t end)
{
    uint64_t offset = cow->map.data_start + start;
    int ret = -EOPNOTSUPP;

    cow->dirty = true;
    if (!cow->no_punch)
        ret = block_file_zero(cow->fd, offset, end - start, BLOCK_ZERO_PUNCH);
    if (ret != -EOPNOTSUPP)
        return ret;
    cow->no_punch = true;
    return block_file_write_zeroes(cow->fd, offset, end - start);
}

/*
 * Makes a whole cluster read as zeros. It may only become absent if the base
 * has zeros there too, and if its bytes are no longer in the file.
 */
static int zero_cluster(struct cow_overlay *cow, uint64_t cluster, bool unmap)
{
    bool present = cow_map_get(&cow->map, cluster);
    bool give_back = false;
    int ret;

    if (!present || unmap) {
        ret = base_is_zero(cow, cluster);
        if (ret < 0 || (ret > 0 && !present))
            return ret < 0 ? ret : 0;
        give_back = ret > 0;
    }
    ret = present ? 0 : reserve(cow, 1);
    if (ret == 0)
        ret = zero_file(cow, cluster_start(cluster), cluster_end(cow, cluster));
    if (ret == 0)
        cow_map_put(&cow->map, cluster, !give_back || cow->no_punch);
    else if (!present)
        undo_absent(cow, cluster, cluster);
    return ret;
}

/* Zeros in a part of one cluster. */
static int zero_part(struct cow_overlay *cow, uint64_t start, uint64_t end)
{
    uint64_t cluster = start / COW_CLUSTER_SIZE;
    /* See merge_edges about which half is free. */
    struct iovec zeros = {cow->scratch + COW_CLUSTER_SIZE,
                          (size_t)(end - start)};
    int ret;

    if (cow_map_get(&cow->map, cluster))
        return zero_file(cow, start, end);
    ret = base_is_zero(cow, cluster);
    if (ret != 0)
        return ret < 0 ? ret : 0;
    memset(zeros.iov_base, 0, zeros.iov_len);
    return write_range(cow, &zeros, 1, start, end - start);
}

static int cow_write_zeroes(struct block_backend *b, uint64_t offset,
                            uint64_t len, bool unmap)
{
    struct cow_overlay *cow = cow_of(b);
    uint64_t pos = offset, end;
    int ret = 0;

    if (!num_range_within(offset, len, 0, b->size))
        return -EINVAL;
    if (b->readonly)
        return -EROFS;
    end = offset + len;
    while (pos < end && ret == 0) {
        uint64_t cluster = pos / COW_CLUSTER_SIZE;
        uint64_t next = num_min(cluster_end(cow, cluster), end);

        if (pos == cluster_start(cluster) && next == cluster_end(cow, cluster))
            ret = zero_cluster(cow, cluster, unmap);
        else
            ret = zero_part(cow, pos, next);
        pos = next;
    }
    return cow_count(cow, ret);
}

static int cow_discard(struct block_backend *b, uint64_t offset, uint64_t len)
{
    struct cow_overlay *cow = cow_of(b);
    uint64_t cluster, end;
    int ret = 0;

    if (!num_range_within(offset, len, 0, b->size))
        return -EINVAL;
    if (b->readonly)
        return -EROFS;
    end = offset + len;
    cluster = num_align_up(offset, COW_CLUSTER_SIZE) / COW_CLUSTER_SIZE;
    /* Only whole clusters; writing zeros would be no favour to anybody. */
    for (; cluster < cow->map.clusters && cluster_end(cow, cluster) <= end &&
           ret == 0 && !cow->no_punch;
         cluster++)
        if (cow_map_get(&cow->map, cluster))
            ret = zero_cluster(cow, cluster, true);
    return cow_count(cow, ret);
}

/* Syncs, and remembers a failure: see raw_flush about why it is for good. */
static int sync_file(struct cow_overlay *cow)
{
    int ret = block_file_sync(cow->fd);

    if (ret < 0)
        cow->sync_failed = true;
    return ret;
}

/*
 * Data, then map: a map on the disk never names a cluster whose data is not
 * there yet.
 */
static int flush_durable(struct cow_overlay *cow)
{
    int ret = cow->sync_failed ? -EIO : 0;

    if (ret == 0 && cow->dirty)
        ret = sync_file(cow);
    if (ret < 0)
        return ret;
    cow->dirty = false;
    if (!cow_map_is_dirty(&cow->map))
        return 0;
    ret = cow_map_write(&cow->map, cow->fd);
    return ret < 0 ? ret : sync_file(cow);
}

static int cow_flush(struct block_backend *b)
{
    struct cow_overlay *cow = cow_of(b);

    if (!cow->durable)
        return 0;
    return cow_count(cow, flush_durable(cow));
}

static void cow_free(struct block_backend *b)
{
    struct cow_overlay *cow = cow_of(b);

    if (!cow)
        return;
    /* Nothing was promised since the last FLUSH; keep what can be kept. */
    if (cow->durable && cow->map.bits)
        (void)!flush_durable(cow);
    cow_map_fini(&cow->map);
    free(cow->scratch);
    if (cow->base)
        cow->base->ops->free(cow->base);
    io_close(&cow->fd);
    free(cow);
}

static const struct block_backend_ops cow_ops = {
    .preadv = cow_preadv,
    .pwritev = cow_pwritev,
    .flush = cow_flush,
    .discard = cow_discard,
    .write_zeroes = cow_write_zeroes,
    .skip = cow_overlay_skip,
    .zeros = cow_overlay_zeros,
    .free = cow_free,
};

static enum cow_map_use map_use(const struct cow_overlay_options *options)
{
    if (options->readonly)
        return COW_MAP_READONLY;
    return options->durable ? COW_MAP_DURABLE : COW_MAP_SCRATCH;
}

int cow_overlay_open(struct block_backend *base, int fd,
                     const struct cow_overlay_options *options,
                     struct block_backend **ret_backend)
{
    struct cow_overlay *cow = calloc(1, sizeof(*cow));
    int ret = -ENOMEM;

    if (!cow) {
        base->ops->free(base);
        io_close(&fd);
        return ret;
    }
    cow->backend.ops = &cow_ops;
    cow->backend.size = base->size;
    cow->backend.readonly = options->readonly;
    cow->base = base;
    cow->fd = fd;
    cow->limit = options->limit;
    cow->durable = options->durable && !options->readonly;
    cow->scratch = malloc((size_t)2 * COW_CLUSTER_SIZE);
    if (!cow->scratch)
        goto out_free;
    ret = cow_map_open(&cow->map, fd, base->size, map_use(options));
    if (ret < 0)
        goto out_free;
    cow->backend.stats.clusters_present = cow->map.present;
    *ret_backend = &cow->backend;
    return 0;
out_free:
    cow_free(&cow->backend);
    return ret;
}

/* The layer below, or NULL if the base is the raw disk. */
static const struct cow_overlay *layer_of(const struct cow_overlay *cow)
{
    if (cow->base->ops != &cow_ops)
        return NULL;
    return (const struct cow_overlay *)cow->base;
}

/* Who holds a cluster: the topmost overlay that has it, or NULL. */
static const struct cow_overlay *holder_of(const struct cow_overlay *cow,
                                           uint64_t cluster)
{
    while (cow && !cow_map_get(&cow->map, cluster))
        cow = layer_of(cow);
    return cow;
}

/* One cluster of `from` into the file; zeros stay the hole that is there. */
static int copy_cluster(const struct cow_overlay *from, uint64_t cluster,
                        uint8_t *buf, int fd)
{
    uint64_t start = cluster_start(cluster);
    uint64_t len = cluster_end(from, cluster) - start;
    struct iovec iov = {.iov_base = buf, .iov_len = (size_t)len};
    uint64_t offset = from->map.data_start + start;
    int ret = block_file_readv(from->fd, &iov, 1, offset, len);

    if (ret < 0 || is_zero(buf, len))
        return ret;
    /* Same disk, same layout: the offset is the same in both files. */
    return block_file_writev(fd, &iov, 1, offset, len);
}

static int copy_clusters(const struct cow_overlay *cow, struct cow_map *map,
                         int fd)
{
    uint8_t *buf = malloc(COW_CLUSTER_SIZE);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < map->clusters && ret == 0; i++) {
        const struct cow_overlay *from = holder_of(cow, i);

        if (!from)
            continue;
        ret = copy_cluster(from, i, buf, fd);
        cow_map_put(map, i, true);
    }
    free(buf);
    return ret;
}

int cow_overlay_save(const struct block_backend *b, int fd,
                     uint64_t *ret_clusters)
{
    const struct cow_overlay *cow = (const struct cow_overlay *)b;
    struct cow_map map;
    struct stat st;
    int ret;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size != 0)
        return -EINVAL;
    ret = cow_map_open(&map, fd, b->size, COW_MAP_SCRATCH);
    if (ret < 0)
        return ret;
    ret = copy_clusters(cow, &map, fd);
    if (ret == 0)
        ret = cow_map_write(&map, fd);
    if (ret == 0)
        *ret_clusters = map.present;
    cow_map_fini(&map);
    return ret;
}

uint64_t cow_overlay_held(const struct block_backend *b, uint64_t *ret_first)
{
    const struct cow_map *map = &((const struct cow_overlay *)b)->map;
    uint64_t first = 0;

    while (map->present > 0 && !cow_map_get(map, first))
        first++;
    *ret_first = cluster_start(first);
    return map->present;
}

int cow_overlay_reset(struct block_backend *b)
{
    struct cow_overlay *cow = cow_of(b);
    int ret = 0;

    if (cow->durable || b->readonly)
        return -EINVAL;
    if (cow->dirty || cow->map.present > 0)
        ret = cow_map_clear(&cow->map, cow->fd);
    cow->dirty = false;
    b->stats = (struct block_backend_stats){0};
    return ret;
}
