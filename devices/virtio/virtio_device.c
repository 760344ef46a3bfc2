/* SPDX-License-Identifier: Apache-2.0 */
/* What a device says to its transport; see the header. */
#include "devices/virtio/virtio_device.h"

void virtio_device_interrupt_queue(struct virtio_device *dev, unsigned queue)
{
    if (queue >= dev->queue_count || !dev->transport)
        return;
    if (virtqueue_needs_interrupt(&dev->queues[queue]))
        dev->transport->used_interrupt(dev->transport_ctx, queue);
}

void virtio_device_interrupt_config(struct virtio_device *dev)
{
    if (dev->transport)
        dev->transport->config_interrupt(dev->transport_ctx);
}

void virtio_device_needs_reset(struct virtio_device *dev)
{
    /* A statistic, read by other threads; it orders nothing. */
    atomic_fetch_add_explicit(&dev->violations, 1, memory_order_relaxed);
    /* Whatever the device still tries to do with its queues does nothing. */
    for (unsigned i = 0; i < dev->queue_count; i++)
        dev->queues[i].broken = true;
    if (dev->transport)
        dev->transport->needs_reset(dev->transport_ctx);
}

bool virtio_device_notify_later(struct virtio_device *dev, unsigned queue)
{
    if (!dev->transport || !dev->transport->notify_later)
        return false;
    return dev->transport->notify_later(dev->transport_ctx, queue);
}
