/* SPDX-License-Identifier: Apache-2.0 */
/* Checks and runs one request; see the header. */
#include "devices/blk/virtio_blk_request.h"

#include <errno.h>

#include "base/num.h"

/* struct virtio_blk_req (VirtIO 1.2, 5.2.6): type, reserved, sector. */
#define HEADER_SIZE 16u
#define HEADER_TYPE 0u
#define HEADER_SECTOR 8u

/* struct virtio_blk_discard_write_zeroes: sector, num_sectors, flags. */
#define SEGMENT_SIZE 16u
#define SEGMENT_SECTOR 0u
#define SEGMENT_SECTORS 8u
#define SEGMENT_FLAGS 12u
#define SEGMENT_F_UNMAP 1u
#define SEGMENTS_MAX VIRTIO_BLK_DISCARD_SEG_MAX

/* Discards and zeros are cut at its multiples, which are ends of clusters. */
#define RANGE_CUT ((uint64_t)1 << 20)
/* To see that there is nothing to do, however much it is. */
#define SKIP_COST 4096u

/* No status yet: there is more to do. No status byte has this value. */
#define STATUS_MORE 0xffu

/* A sync takes about as long as moving this much. */
#define SYNC_COST ((uint64_t)4 << 20)

bool virtio_blk_request_parse(const struct desc_chain *chain,
                              struct virtio_blk_request *ret_request)
{
    uint8_t header[HEADER_SIZE];

    *ret_request = (struct virtio_blk_request){.chain = chain};
    if (chain->writable_len == 0)
        return false;
    ret_request->data_in = chain->writable_len - 1;
    if (desc_chain_read(chain, 0, header, sizeof(header)) < 0) {
        ret_request->malformed = true;
        return true;
    }
    ret_request->data_out = chain->readable_len - HEADER_SIZE;
    ret_request->type = num_get_le32(header + HEADER_TYPE);
    ret_request->sector = num_get_le64(header + HEADER_SECTOR);
    return true;
}

static uint8_t refuse(struct virtio_blk_request *r)
{
    r->malformed = true;
    return VIRTIO_BLK_S_IOERR;
}

static uint8_t status_of(int ret)
{
    return ret == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

/* A range of sectors in bytes. False if any of it is beyond the disk. */
static bool sectors_to_bytes(const struct block_backend *b, uint64_t sector,
                             uint64_t sectors, uint64_t *ret_offset,
                             uint64_t *ret_len)
{
    if (!num_range_within(sector, sectors, 0, b->size / VIRTIO_BLK_SECTOR_SIZE))
        return false;
    *ret_offset = sector * VIRTIO_BLK_SECTOR_SIZE;
    *ret_len = sectors * VIRTIO_BLK_SECTOR_SIZE;
    return true;
}

static int run_sync(const struct virtio_blk_target *t,
                    struct virtio_blk_request *r)
{
    r->cost += SYNC_COST;
    return t->backend->ops->flush(t->backend);
}

/* The data of an IN or OUT: one direction, whole sectors, on the disk. */
static bool check_data(const struct virtio_blk_target *t,
                       const struct virtio_blk_request *r, uint64_t len,
                       uint64_t wrong_way, uint64_t *ret_offset)
{
    uint64_t bytes;

    if (wrong_way != 0 || len == 0 || len % VIRTIO_BLK_SECTOR_SIZE != 0 ||
        len > VIRTIO_BLK_DATA_MAX)
        return false;
    return sectors_to_bytes(t->backend, r->sector, len / VIRTIO_BLK_SECTOR_SIZE,
                            ret_offset, &bytes);
}

/* The one range of an IN or OUT. */
static uint8_t begin_data(struct virtio_blk_request *r, uint64_t offset,
                          uint64_t len)
{
    r->ranges[0] = (struct virtio_blk_range){.offset = offset, .len = len};
    r->range_count = 1;
    return STATUS_MORE;
}

static uint8_t begin_in(const struct virtio_blk_target *t,
                        struct virtio_blk_request *r)
{
    uint64_t offset;

    if (!check_data(t, r, r->data_in, r->data_out, &offset))
        return refuse(r);
    return begin_data(r, offset, r->data_in);
}

static uint8_t begin_out(const struct virtio_blk_target *t,
                         struct virtio_blk_request *r)
{
    uint64_t offset;

    if (t->backend->readonly ||
        !check_data(t, r, r->data_out, r->data_in, &offset))
        return refuse(r);
    return begin_data(r, offset, r->data_out);
}

/* Moves the next bytes of the range. */
static uint8_t step_data(const struct virtio_blk_target *t,
                         struct virtio_blk_request *r,
                         struct virtio_blk_range *range)
{
    const struct desc_chain *c = r->chain;
    struct block_backend *b = t->backend;
    struct iovec iov[VIRTQUEUE_SIZE_MAX];
    uint64_t at = range->offset + range->done;
    uint64_t len = num_min(range->len - range->done, VIRTIO_BLK_STEP);
    bool in = r->type == VIRTIO_BLK_T_IN;
    int n = in ? iov_slice(desc_chain_writable(c), c->writable_count,
                           range->done, len, iov)
               : iov_slice(c->iov, c->readable_count, HEADER_SIZE + range->done,
                           len, iov);

    if (n < 0)
        return refuse(r);
    range->done += len;
    r->cost += len;
    return status_of(in ? b->ops->preadv(b, iov, (unsigned)n, at, len)
                        : b->ops->pwritev(b, iov, (unsigned)n, at, len));
}

static uint8_t run_flush(const struct virtio_blk_target *t,
                         struct virtio_blk_request *r)
{
    /* A flush carries no data either way (5.2.6). */
    if (r->data_in != 0 || r->data_out != 0)
        return refuse(r);
    return status_of(run_sync(t, r));
}

static uint8_t run_get_id(const struct virtio_blk_target *t,
                          struct virtio_blk_request *r)
{
    uint64_t len = num_min(r->data_in, VIRTIO_BLK_ID_MAX);

    if (len == 0 || r->data_out != 0 ||
        desc_chain_write(r->chain, 0, t->id, (size_t)len) < 0)
        return refuse(r);
    /* In a buffer that is too long the status does not follow at once. */
    if (r->data_in > len)
        r->written = (uint32_t)len;
    return VIRTIO_BLK_S_OK;
}

/* Checks one segment of a DISCARD or WRITE_ZEROES: a status byte. */
static uint8_t parse_segment(const struct virtio_blk_target *t,
                             struct virtio_blk_request *r, const uint8_t *raw,
                             struct virtio_blk_range *ret_range)
{
    bool discard = r->type == VIRTIO_BLK_T_DISCARD;
    uint32_t sectors = num_get_le32(raw + SEGMENT_SECTORS);
    uint32_t flags = num_get_le32(raw + SEGMENT_FLAGS);

    /* unmap means nothing to a DISCARD (5.2.6.2). */
    if (flags & ~(discard ? 0 : SEGMENT_F_UNMAP))
        return VIRTIO_BLK_S_UNSUPP;
    *ret_range = (struct virtio_blk_range){.unmap = flags & SEGMENT_F_UNMAP};
    if (sectors > (discard ? VIRTIO_BLK_DISCARD_SECTORS_MAX
                           : VIRTIO_BLK_WRITE_ZEROES_SECTORS_MAX) ||
        !sectors_to_bytes(t->backend, num_get_le64(raw + SEGMENT_SECTOR),
                          sectors, &ret_range->offset, &ret_range->len))
        return refuse(r);
    return STATUS_MORE;
}

/*
 * DISCARD and WRITE_ZEROES: nothing is changed unless all segments are good,
 * and together no longer than the disk, which they may not name twice.
 */
static uint8_t begin_ranges(const struct virtio_blk_target *t,
                            struct virtio_blk_request *r, uint64_t feature,
                            uint64_t max)
{
    uint8_t raw[SEGMENTS_MAX * SEGMENT_SIZE];
    uint64_t count = r->data_out / SEGMENT_SIZE, total = 0;
    uint8_t status = STATUS_MORE;

    if (t->backend->readonly)
        return refuse(r);
    if (!(t->features & feature))
        return VIRTIO_BLK_S_UNSUPP;
    if (r->data_in != 0 || count == 0 || count > max ||
        r->data_out % SEGMENT_SIZE != 0 ||
        desc_chain_read(r->chain, HEADER_SIZE, raw, (size_t)r->data_out) < 0)
        return refuse(r);
    for (uint64_t i = 0; i < count && status == STATUS_MORE; i++) {
        status = parse_segment(t, r, raw + i * SEGMENT_SIZE, &r->ranges[i]);
        total += r->ranges[i].len;
    }
    if (status == STATUS_MORE && total > t->backend->size)
        return refuse(r);
    r->range_count = (unsigned)count;
    return status;
}

/* Discards or zeroes the next bytes of the range. */
static uint8_t step_range(const struct virtio_blk_target *t,
                          struct virtio_blk_request *r,
                          struct virtio_blk_range *range)
{
    struct block_backend *b = t->backend;
    bool discard = r->type == VIRTIO_BLK_T_DISCARD;
    uint64_t at = range->offset + range->done;
    uint64_t left = range->len - range->done;
    uint64_t len = b->ops->skip(b, at, left, discard);

    if (len > 0 || left == 0) {
        range->done += len;
        r->cost += SKIP_COST;
        return VIRTIO_BLK_S_OK;
    }
    len = num_min(left, RANGE_CUT - at % RANGE_CUT);
    range->done += len;
    r->cost += len;
    return status_of(discard ? b->ops->discard(b, at, len)
                             : b->ops->write_zeroes(b, at, len, range->unmap));
}

/* What all ranges are through with, and the sync behind it. */
static uint8_t end_ranges(const struct virtio_blk_target *t,
                          struct virtio_blk_request *r)
{
    /* A driver that knows no FLUSH relies on every write (5.2.6.2). */
    if (r->type == VIRTIO_BLK_T_IN || (t->features & VIRTIO_BLK_F_FLUSH))
        return VIRTIO_BLK_S_OK;
    return status_of(run_sync(t, r));
}

/* As much as one step may do. */
static uint8_t step(const struct virtio_blk_target *t,
                    struct virtio_blk_request *r)
{
    bool data = r->type == VIRTIO_BLK_T_IN || r->type == VIRTIO_BLK_T_OUT;
    uint8_t status;

    while (r->range < r->range_count) {
        struct virtio_blk_range *range = &r->ranges[r->range];

        if (r->cost >= VIRTIO_BLK_STEP)
            return STATUS_MORE;
        status = data ? step_data(t, r, range) : step_range(t, r, range);
        if (status != VIRTIO_BLK_S_OK)
            return status;
        if (range->done == range->len)
            r->range++;
    }
    return end_ranges(t, r);
}

static uint8_t begin(const struct virtio_blk_target *t,
                     struct virtio_blk_request *r)
{
    switch (r->type) {
    case VIRTIO_BLK_T_IN:
        return begin_in(t, r);
    case VIRTIO_BLK_T_OUT:
        return begin_out(t, r);
    case VIRTIO_BLK_T_FLUSH:
        return run_flush(t, r);
    case VIRTIO_BLK_T_GET_ID:
        return run_get_id(t, r);
    case VIRTIO_BLK_T_DISCARD:
        return begin_ranges(t, r, VIRTIO_BLK_F_DISCARD,
                            VIRTIO_BLK_DISCARD_SEG_MAX);
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return begin_ranges(t, r, VIRTIO_BLK_F_WRITE_ZEROES,
                            VIRTIO_BLK_WRITE_ZEROES_SEG_MAX);
    default:
        return VIRTIO_BLK_S_UNSUPP;
    }
}

bool virtio_blk_request_run(const struct virtio_blk_target *target,
                            struct virtio_blk_request *request)
{
    uint8_t status = STATUS_MORE;

    request->cost = 0;
    if (request->malformed)
        status = VIRTIO_BLK_S_IOERR;
    else if (!request->begun)
        status = begin(target, request);
    request->begun = true;
    if (status == STATUS_MORE)
        status = step(target, request);
    if (status == STATUS_MORE)
        return false;
    /* A successful request has filled its data up to the status byte. */
    if (request->data_in == 0)
        request->written = 1;
    else if (status == VIRTIO_BLK_S_OK && request->written == 0)
        request->written = (uint32_t)(request->data_in + 1);
    /* The chain has that byte: parse looked. */
    (void)!desc_chain_write(request->chain, request->data_in, &status, 1);
    return true;
}
