/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-blk device: configuration space, and the order in which requests
 * are taken, answered and announced. What a request does is in
 * virtio_blk_request.c; where bytes are, in the backend (owned).
 */
#include "devices/blk/virtio_blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "devices/blk/cow_overlay.h"
#include "devices/blk/virtio_blk_request.h"

#define REQUEST_QUEUE 0u

/*
 * The driver hears of finished requests at the end of a batch, but not later
 * than after this much work, so that it can go on while we do.
 */
#define SIGNAL_REQUESTS 32u
#define SIGNAL_BYTES ((uint64_t)1 << 20)

/* After this much the loop's other sources get their turn. */
#define ROUND_REQUESTS 256u
#define ROUND_BYTES ((uint64_t)4 << 20)

/* struct virtio_blk_config (VirtIO 1.2, 5.2.4), as far as it has fields. */
#define CONFIG_CAPACITY 0u
#define CONFIG_SIZE_MAX 8u
#define CONFIG_SEG_MAX 12u
#define CONFIG_BLK_SIZE 20u
#define CONFIG_MAX_DISCARD_SECTORS 36u
#define CONFIG_MAX_DISCARD_SEG 40u
#define CONFIG_DISCARD_ALIGNMENT 44u
#define CONFIG_MAX_WRITE_ZEROES_SECTORS 48u
#define CONFIG_MAX_WRITE_ZEROES_SEG 52u
#define CONFIG_WRITE_ZEROES_MAY_UNMAP 56u
#define CONFIG_SIZE 60u

struct virtio_blk {
    struct virtio_device dev;        /* first: a device is one of us */
    struct virtio_blk_target target; /* owns the backend */
    uint8_t config[CONFIG_SIZE];
    struct desc_chain chain; /* the request being run, if busy */
    struct virtio_blk_request request;
    bool busy; /* it was popped, and is not done: between two steps */
};

/* Work since the last signal, and in this round. */
struct batch {
    unsigned requests;
    unsigned unsignalled_requests;
    uint64_t bytes;
    uint64_t unsignalled_bytes;
};

static struct virtio_blk *blk_of(struct virtio_device *dev)
{
    return (struct virtio_blk *)dev;
}

static const struct virtio_blk *const_blk_of(const struct virtio_device *dev)
{
    return (const struct virtio_blk *)dev;
}

static uint64_t blk_features(const struct virtio_device *dev)
{
    uint64_t features = VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX |
                        VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH;

    if (const_blk_of(dev)->target.backend->readonly)
        return features | VIRTIO_BLK_F_RO;
    return features | VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES;
}

static int blk_activate(struct virtio_device *dev)
{
    blk_of(dev)->target.features = dev->driver_features;
    return 0;
}

/* Nothing is on its way but one request's next step. */
static void blk_reset(struct virtio_device *dev)
{
    blk_of(dev)->target.features = 0;
    blk_of(dev)->busy = false;
}

/* What has been done of it does no harm: it will be run from its start. */
static void blk_quiesce(struct virtio_device *dev)
{
    struct virtio_blk *blk = blk_of(dev);

    if (blk->busy)
        virtqueue_unpop(&dev->queues[REQUEST_QUEUE], 1);
    blk->busy = false;
}

static void batch_signal(struct virtio_blk *blk, struct batch *batch)
{
    if (batch->unsignalled_requests > 0)
        virtio_device_interrupt_queue(&blk->dev, REQUEST_QUEUE);
    batch->unsignalled_requests = 0;
    batch->unsignalled_bytes = 0;
}

static void batch_add(struct virtio_blk *blk, struct batch *batch)
{
    batch->requests++;
    batch->unsignalled_requests++;
    if (batch->unsignalled_requests >= SIGNAL_REQUESTS ||
        batch->unsignalled_bytes >= SIGNAL_BYTES)
        batch_signal(blk, batch);
}

/* Looks at the popped chain: it is being run from now on, or returned. */
static void blk_begin_chain(struct virtio_blk *blk, struct batch *batch)
{
    blk->busy = virtio_blk_request_parse(&blk->chain, &blk->request);
    if (blk->busy)
        return;
    virtqueue_push(&blk->dev.queues[REQUEST_QUEUE], blk->chain.head, 0);
    batch_signal(blk, batch);
    virtio_device_needs_reset(&blk->dev);
}

/* A step of the request, and its end, if it is done. */
static void blk_run_chain(struct virtio_blk *blk, struct batch *batch)
{
    struct virtio_blk_request *r = &blk->request;
    bool done;

    /* A sync may take long: what is finished is not held up by it. */
    if (r->type == VIRTIO_BLK_T_FLUSH)
        batch_signal(blk, batch);
    done = virtio_blk_request_run(&blk->target, r);
    batch->bytes += r->cost;
    batch->unsignalled_bytes += r->cost;
    if (!done)
        return;
    blk->busy = false;
    if (r->malformed)
        atomic_fetch_add_explicit(&blk->dev.violations, 1,
                                  memory_order_relaxed); /* a statistic */
    virtqueue_push(&blk->dev.queues[REQUEST_QUEUE], blk->chain.head,
                   r->written);
    batch_add(blk, batch);
}

static bool round_is_over(const struct batch *batch)
{
    return batch->requests >= ROUND_REQUESTS || batch->bytes >= ROUND_BYTES;
}

/*
 * Takes requests until the queue is empty or the round is over, which may be in
 * the middle of one: others wait until that is done. Kicks are not
 * wanted meanwhile; after a round that was cut short they stay off, since the
 * transport notifies again by itself.
 */
static void blk_queue_notify(struct virtio_device *dev, unsigned queue)
{
    struct virtio_blk *blk = blk_of(dev);
    struct virtqueue *vq = &dev->queues[REQUEST_QUEUE];
    struct batch batch = {0};
    int ret = 0;

    if (queue != REQUEST_QUEUE)
        return;
    do {
        virtqueue_disable_kicks(vq);
        while (blk->busy || (ret = virtqueue_pop(vq, &blk->chain)) > 0) {
            if (!blk->busy)
                blk_begin_chain(blk, &batch);
            if (blk->busy)
                blk_run_chain(blk, &batch);
            if (round_is_over(&batch) &&
                virtio_device_notify_later(dev, REQUEST_QUEUE))
                goto out_signal;
        }
    } while (ret == 0 && virtqueue_enable_kicks(vq));
out_signal:
    batch_signal(blk, &batch);
    if (ret < 0)
        virtio_device_needs_reset(dev);
}

static void blk_config_read(const struct virtio_device *dev, uint32_t offset,
                            void *ret_bytes, size_t len)
{
    const struct virtio_blk *blk = const_blk_of(dev);

    memset(ret_bytes, 0, len);
    if (offset >= CONFIG_SIZE)
        return;
    memcpy(ret_bytes, blk->config + offset,
           (size_t)num_min(len, CONFIG_SIZE - offset));
}

static void blk_save(const struct virtio_device *dev, struct state_writer *w)
{
    const struct block_backend *b = const_blk_of(dev)->target.backend;

    state_put_u64(w, b->size);
    state_put_u8(w, b->readonly);
}

/* The guest has read its configuration space: the disk must be as it was. */
static int blk_load(struct virtio_device *dev, struct state_reader *r)
{
    struct virtio_blk *blk = blk_of(dev);
    const struct block_backend *b = blk->target.backend;
    uint64_t size = state_get_u64(r);
    uint8_t readonly = state_get_u8(r);

    if (r->error != 0 || size != b->size || readonly != b->readonly)
        return -EBADMSG;
    blk->target.features = dev->driver_features;
    return 0;
}

static void blk_free(struct virtio_device *dev)
{
    struct virtio_blk *blk = blk_of(dev);

    if (!blk)
        return;
    if (blk->target.backend)
        blk->target.backend->ops->free(blk->target.backend);
    free(blk);
}

static const struct virtio_device_ops blk_ops = {
    .features = blk_features,
    .activate = blk_activate,
    .reset = blk_reset,
    .queue_notify = blk_queue_notify,
    .quiesce = blk_quiesce,
    .config_read = blk_config_read,
    .save = blk_save,
    .load = blk_load,
    .free = blk_free,
};

/* Geometry and topology stay 0: their features are not offered. */
static void config_fill(uint8_t *config, const struct block_backend *b)
{
    num_put_le64(config + CONFIG_CAPACITY, b->size / VIRTIO_BLK_SECTOR_SIZE);
    num_put_le32(config + CONFIG_SIZE_MAX, VIRTIO_BLK_SIZE_MAX);
    num_put_le32(config + CONFIG_SEG_MAX, VIRTIO_BLK_SEG_MAX);
    num_put_le32(config + CONFIG_BLK_SIZE, VIRTIO_BLK_SECTOR_SIZE);
    if (b->readonly)
        return;
    num_put_le32(config + CONFIG_MAX_DISCARD_SECTORS,
                 VIRTIO_BLK_DISCARD_SECTORS_MAX);
    num_put_le32(config + CONFIG_MAX_DISCARD_SEG, VIRTIO_BLK_DISCARD_SEG_MAX);
    /* Advice: overlays give back whole clusters only. */
    num_put_le32(config + CONFIG_DISCARD_ALIGNMENT,
                 COW_CLUSTER_SIZE / VIRTIO_BLK_SECTOR_SIZE);
    num_put_le32(config + CONFIG_MAX_WRITE_ZEROES_SECTORS,
                 VIRTIO_BLK_WRITE_ZEROES_SECTORS_MAX);
    num_put_le32(config + CONFIG_MAX_WRITE_ZEROES_SEG,
                 VIRTIO_BLK_WRITE_ZEROES_SEG_MAX);
    config[CONFIG_WRITE_ZEROES_MAY_UNMAP] = 1;
}

int virtio_blk_new(struct block_backend *backend, const char *id,
                   struct virtio_device **ret_dev)
{
    struct virtio_blk *blk = NULL;
    size_t id_len = strlen(id);
    int ret = -EINVAL;

    if (id_len > VIRTIO_BLK_ID_MAX)
        goto out_free_backend;
    blk = calloc(1, sizeof(*blk));
    if (!blk) {
        ret = -ENOMEM;
        goto out_free_backend;
    }
    blk->dev.ops = &blk_ops;
    blk->dev.device_id = VIRTIO_ID_BLOCK_DEVICE;
    blk->dev.queue_count = 1;
    blk->dev.queues[REQUEST_QUEUE].size_max = VIRTQUEUE_SIZE_MAX;
    blk->target.backend = backend;
    memcpy(blk->target.id, id, id_len);
    config_fill(blk->config, backend);
    *ret_dev = &blk->dev;
    return 0;
out_free_backend:
    backend->ops->free(backend);
    return ret;
}

struct block_backend *virtio_blk_backend(const struct virtio_device *dev)
{
    return const_blk_of(dev)->target.backend;
}
