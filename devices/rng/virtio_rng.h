/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng (VirtIO 1.2, 5.4): fills the driver's buffers from getrandom(2),
 * at most VIRTIO_RNG_REQUEST_MAX bytes a buffer.
 */
#ifndef MICROSBX_DEVICES_RNG_VIRTIO_RNG_H
#define MICROSBX_DEVICES_RNG_VIRTIO_RNG_H

#include "devices/virtio/virtio_device.h"

#define VIRTIO_RNG_REQUEST_MAX 65536u

int virtio_rng_new(struct virtio_device **ret_dev)
    __attribute__((warn_unused_result));

#endif
