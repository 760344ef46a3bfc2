/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leaves of a file. Nearly all of an idle guest's memory and disks is
 * zero: holes are skipped, and the digest of a chunk of zeros is known.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/num.h"
#include "trial/snapshot_internal.h"

/* SHA-256 of SNAPSHOT_CHUNK zeros. */
static const uint8_t zero_leaf[DIGEST_SIZE] = {
    0x30, 0xe1, 0x49, 0x55, 0xeb, 0xf1, 0x35, 0x22, 0x66, 0xdc, 0x2f,
    0xf8, 0x06, 0x7e, 0x68, 0x10, 0x46, 0x07, 0xe7, 0x50, 0xab, 0xb9,
    0xd3, 0xb3, 0x65, 0x82, 0xb8, 0xaf, 0x90, 0x9f, 0xcb, 0x58,
};

void snapshot_leaf(const void *chunk, size_t len, uint8_t ret_leaf[DIGEST_SIZE])
{
    if (len == SNAPSHOT_CHUNK && sparse_is_zero(chunk, len))
        memcpy(ret_leaf, zero_leaf, DIGEST_SIZE);
    else
        digest_sum(chunk, len, ret_leaf);
}

/* True if the chunk is certainly nothing but zeros. */
static bool is_hole(int fd, uint64_t start, size_t len)
{
    uint64_t data, end;

    return sparse_next(fd, start, start + len, &data, &end) == 0 &&
           data >= start + len;
}

int snapshot_chunk_leaf(int fd, uint64_t start, size_t len,
                        uint8_t ret_leaf[DIGEST_SIZE])
{
    bool hole = is_hole(fd, start, len);
    uint8_t *buf;
    ssize_t n;

    if (hole && len == SNAPSHOT_CHUNK) {
        memcpy(ret_leaf, zero_leaf, DIGEST_SIZE);
        return 0;
    }
    buf = calloc(1, len);
    if (!buf)
        return -ENOMEM;
    n = hole ? (ssize_t)len : io_pread_full(fd, buf, len, start);
    if (n == (ssize_t)len)
        snapshot_leaf(buf, len, ret_leaf);
    free(buf);
    return n == (ssize_t)len ? 0 : n < 0 ? (int)n : -ENODATA;
}

/* A walk under way. */
struct state {
    const struct snapshot_walk *walk;
    uint8_t *buf;            /* one chunk */
    uint64_t data, data_end; /* the extent at or behind the current chunk */
};

/* True if nothing of the chunk is data: it need not be read. */
static int find_data(struct state *s, uint64_t start, size_t len,
                     bool *ret_hole)
{
    if (s->walk->trust_zeros && start >= s->walk->data) {
        *ret_hole = true;
        return 0;
    }
    if (s->data_end <= start) {
        int ret = sparse_next(s->walk->fd, start, s->walk->bytes, &s->data,
                              &s->data_end);

        if (ret != 0)
            return ret;
    }
    *ret_hole = s->data >= start + len;
    return 0;
}

static int read_chunk(const struct state *s, uint64_t start, size_t len,
                      bool hole)
{
    ssize_t n;

    if (hole) {
        memset(s->buf, 0, len);
        return 0;
    }
    n = io_pread_full(s->walk->fd, s->buf, len, start);
    if (n < 0)
        return (int)n;
    return (size_t)n == len ? 0 : -ENODATA;
}

/* Feeds the plain digest; what is behind the data must be zero. */
static int feed_plain(const struct state *s, uint64_t start, size_t len)
{
    const struct snapshot_walk *w = s->walk;
    size_t head = 0;

    if (start < w->data)
        head = (size_t)num_min(len, w->data - start);
    digest_update(w->plain, s->buf, head);
    return sparse_is_zero(s->buf + head, len - head) ? 0 : -EBADMSG;
}

static int walk_chunk(struct state *s, uint64_t chunk)
{
    const struct snapshot_walk *w = s->walk;
    uint64_t start = chunk * SNAPSHOT_CHUNK;
    size_t len = (size_t)num_min(SNAPSHOT_CHUNK, w->bytes - start);
    uint8_t leaf[DIGEST_SIZE];
    bool hole;
    int ret = find_data(s, start, len, &hole);

    if (ret != 0)
        return ret;
    if (hole && len == SNAPSHOT_CHUNK && (!w->plain || start >= w->data))
        return w->leaf(w->ctx, chunk, zero_leaf);
    ret = read_chunk(s, start, len, hole);
    if (ret == 0 && w->plain)
        ret = feed_plain(s, start, len);
    if (ret != 0)
        return ret;
    snapshot_leaf(s->buf, len, leaf);
    return w->leaf(w->ctx, chunk, leaf);
}

int snapshot_walk(const struct snapshot_walk *walk)
{
    struct state s = {.walk = walk, .buf = malloc(SNAPSHOT_CHUNK)};
    uint64_t count = snapshot_chunks(walk->bytes);
    int ret = s.buf ? 0 : -ENOMEM;

    for (uint64_t i = 0; ret == 0 && i < count; i++)
        ret = sparse_cancelled(walk->cancel) ? -ECANCELED : walk_chunk(&s, i);
    free(s.buf);
    return ret;
}

static int add_leaf(void *ctx, uint64_t chunk, const uint8_t leaf[DIGEST_SIZE])
{
    (void)chunk;
    merkle_add(ctx, leaf);
    return 0;
}

int snapshot_tree(int fd, uint64_t bytes, const struct sparse_cancel *cancel,
                  char ret_hex[DIGEST_HEX_SIZE])
{
    struct merkle tree;
    struct snapshot_walk walk = {.fd = fd,
                                 .bytes = bytes,
                                 .cancel = cancel,
                                 .leaf = add_leaf,
                                 .ctx = &tree};
    uint8_t root[DIGEST_SIZE];
    int ret;

    merkle_init(&tree);
    ret = snapshot_walk(&walk);
    if (ret != 0)
        return ret;
    merkle_root(&tree, root);
    digest_to_hex(root, ret_hex);
    return 0;
}
