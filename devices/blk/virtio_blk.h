/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk (VirtIO 1.2, 5.2): one request queue; IN, OUT, FLUSH, GET_ID,
 * DISCARD, WRITE_ZEROES; features SEG_MAX, BLK_SIZE, FLUSH, DISCARD,
 * WRITE_ZEROES and RO. Requests run synchronously on the device thread; a
 * request that is wrong or fails gets an error status byte and is returned.
 */
#ifndef MICROSBX_DEVICES_BLK_VIRTIO_BLK_H
#define MICROSBX_DEVICES_BLK_VIRTIO_BLK_H

#include "devices/blk/block_backend.h"
#include "devices/virtio/virtio_device.h"

#define VIRTIO_BLK_ID_MAX 20u

/*
 * Makes a device over backend (owned, also on failure). id: at most
 * VIRTIO_BLK_ID_MAX bytes, what GET_ID answers. Returns 0 or -ENOMEM, -EINVAL.
 */
int virtio_blk_new(struct block_backend *backend, const char *id,
                   struct virtio_device **ret_dev)
    __attribute__((warn_unused_result));

/* The backend, for its statistics; owned by the device. */
const struct block_backend *virtio_blk_backend(const struct virtio_device *dev);

#endif
