/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng: one queue of writable buffers, filled straight from the host's
 * generator. No state of its own beyond the queue; getrandom(2) needs no
 * descriptor and never fails once the host has booted.
 */
#include "devices/rng/virtio_rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/num.h"

#define RNG_QUEUE 0u
#define RNG_QUEUE_SIZE 64u
/*
 * Chains served in one go, before the device thread looks after other devices:
 * a driver that polls could refill the queue for ever.
 */
#define RNG_ROUND_MAX (4u * RNG_QUEUE_SIZE)

struct virtio_rng {
    struct virtio_device dev; /* first: the ops get a pointer to it */
};

/* Fills one range; returns the bytes filled, less than len only on error. */
static size_t fill_range(uint8_t *to, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = getrandom(to + done, len - done, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return done;
}

/* Returns the bytes written; 0 for a chain with nothing writable. */
static uint32_t fill_chain(const struct desc_chain *chain)
{
    const struct iovec *iov = desc_chain_writable(chain);
    size_t left = (size_t)num_min(chain->writable_len, VIRTIO_RNG_REQUEST_MAX);
    uint32_t written = 0;

    for (unsigned i = 0; i < chain->writable_count && left > 0; i++) {
        size_t want = (size_t)num_min(iov[i].iov_len, left);
        size_t got = fill_range(iov[i].iov_base, want);

        written += (uint32_t)got;
        left -= got;
        if (got < want)
            break;
    }
    return written;
}

/* Returns true if the round is full and chains may be left. */
static bool serve_round(struct virtio_device *dev)
{
    struct virtqueue *vq = &dev->queues[RNG_QUEUE];
    unsigned served = 0;

    virtqueue_disable_kicks(vq);
    do {
        struct desc_chain chain;
        int ret;

        while ((ret = virtqueue_pop(vq, &chain)) == 1) {
            virtqueue_push(vq, chain.head, fill_chain(&chain));
            if (++served == RNG_ROUND_MAX)
                return true;
        }
        if (ret < 0) {
            virtio_device_needs_reset(dev);
            return false;
        }
    } while (virtqueue_enable_kicks(vq));
    return false;
}

static void rng_queue_notify(struct virtio_device *dev, unsigned queue)
{
    bool more;

    if (queue != RNG_QUEUE)
        return;
    do {
        more = serve_round(dev);
        virtio_device_interrupt_queue(dev, RNG_QUEUE);
        /* A transport that cannot call again later: go on now. */
    } while (more && !virtio_device_notify_later(dev, RNG_QUEUE));
}

static uint64_t rng_features(const struct virtio_device *dev)
{
    (void)dev;
    return 0;
}

static int rng_activate(struct virtio_device *dev)
{
    (void)dev;
    return 0;
}

/* Every chain is answered before queue_notify returns: nothing to forget. */
static void rng_reset(struct virtio_device *dev)
{
    (void)dev;
}

/* No configuration space (VirtIO 1.2, 5.4.4): what is read there is 0. */
static void rng_config_read(const struct virtio_device *dev, uint32_t offset,
                            void *ret_bytes, size_t len)
{
    (void)dev;
    (void)offset;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)ret_bytes)[i] = 0;
}

static void rng_free(struct virtio_device *dev)
{
    free(dev); /* dev is the first member */
}

static const struct virtio_device_ops rng_ops = {
    .features = rng_features,
    .activate = rng_activate,
    .reset = rng_reset,
    .queue_notify = rng_queue_notify,
    .config_read = rng_config_read,
    .free = rng_free,
};

int virtio_rng_new(struct virtio_device **ret_dev)
{
    struct virtio_rng *rng = calloc(1, sizeof(*rng));

    if (!rng)
        return -ENOMEM;
    rng->dev.ops = &rng_ops;
    rng->dev.device_id = VIRTIO_ID_ENTROPY_DEVICE;
    rng->dev.queue_count = 1;
    rng->dev.queues[RNG_QUEUE].size_max = RNG_QUEUE_SIZE;
    *ret_dev = &rng->dev;
    return 0;
}
