/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every virtio device is to its transport, and the transport to it.
 *
 * A device is one folder with one ops table. It embeds struct virtio_device as
 * its first member. The transport (virtio_mmio) owns the registers and the
 * feature negotiation and calls the ops; the device owns its requests.
 *
 * All ops are called with the machine's device lock held (from the device
 * thread, or from a vCPU thread for a register access), so a device needs no
 * lock of its own.
 */
#ifndef MICROSBX_DEVICES_VIRTIO_VIRTIO_DEVICE_H
#define MICROSBX_DEVICES_VIRTIO_VIRTIO_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/codec.h"
#include "devices/guest_mem.h"
#include "devices/virtio/virtqueue.h"

#define VIRTIO_QUEUES_MAX 3

/* VirtIO 1.2, 5: device ids. */
#define VIRTIO_ID_BLOCK_DEVICE 2u
#define VIRTIO_ID_ENTROPY_DEVICE 4u
#define VIRTIO_ID_SOCKET_DEVICE 19u

/* Feature bits that do not belong to a device type (VirtIO 1.2, 6). */
#define VIRTIO_FEATURE_INDIRECT_DESC ((uint64_t)1 << 28)
#define VIRTIO_FEATURE_EVENT_IDX ((uint64_t)1 << 29)
#define VIRTIO_FEATURE_VERSION_1 ((uint64_t)1 << 32)

struct virtio_device;

struct virtio_device_ops {
    /* Device-specific feature bits offered (the common three are added). */
    uint64_t (*features)(const struct virtio_device *dev);
    /*
     * The driver said DRIVER_OK and every ready queue is active. 0, or a
     * negative errno: the transport then sets DEVICE_NEEDS_RESET.
     */
    int (*activate)(struct virtio_device *dev);
    /*
     * Forgets every request and connection; queues are reset by the
     * transport afterwards. Called at any time, also when never activated.
     */
    void (*reset)(struct virtio_device *dev);
    /* The driver kicked this queue (or wants to be looked after). */
    void (*queue_notify)(struct virtio_device *dev, unsigned queue);
    /*
     * Device configuration space: any offset and length (1, 2, 4 or 8).
     * Bytes outside the space read as 0; config_write may be NULL.
     */
    void (*config_read)(const struct virtio_device *dev, uint32_t offset,
                        void *ret_bytes, size_t len);
    void (*config_write)(struct virtio_device *dev, uint32_t offset,
                         const void *bytes, size_t len);
    /*
     * Gives back every chain that was popped and not served, so that in_flight
     * is 0 in every queue that is not broken: before a save. The device may go
     * on afterwards as if nothing had been. NULL: it never holds a chain
     * between two calls.
     */
    void (*quiesce)(struct virtio_device *dev);
    /*
     * What the device itself remembers, behind what the transport saves; never
     * requests, connections, descriptors or statistics. Pre: quiesced. NULL:
     * nothing.
     */
    void (*save)(const struct virtio_device *dev, struct state_writer *w);
    /*
     * The opposite, into a device that was reset: driver_features, active and
     * the queues are as they were saved. Checks every value; touches neither
     * guest memory nor a line. 0 or -EBADMSG, after which it is reset again.
     */
    int (*load)(struct virtio_device *dev, struct state_reader *r);
    /*
     * Once, just before the machine first runs after a load, and before any
     * queue is served. Only if the device is active. May be NULL.
     */
    void (*restored)(struct virtio_device *dev);
    /* Ends the device and everything it owns. Accepts a half-built one. */
    void (*free)(struct virtio_device *dev);
};

/* How a device reaches its transport; filled by virtio_mmio_init or a test. */
struct virtio_transport_ops {
    void (*used_interrupt)(void *ctx, unsigned queue);
    void (*config_interrupt)(void *ctx);
    void (*needs_reset)(void *ctx);
    /* May be NULL. See virtio_device_notify_later. */
    bool (*notify_later)(void *ctx, unsigned queue);
};

struct virtio_device {
    const struct virtio_device_ops *ops;
    uint32_t device_id;
    unsigned queue_count;
    struct virtqueue queues[VIRTIO_QUEUES_MAX]; /* size_max set by device */
    uint64_t driver_features; /* negotiated; valid once activated */
    bool active;              /* between activate and reset */
    const struct virtio_transport_ops *transport;
    void *transport_ctx; /* borrowed */
    /* Times the guest broke a rule that needed a reset or a refusal. */
    atomic_uint_fast64_t violations;
};

/* Used-buffer notification, if the driver wants one for this queue. */
void virtio_device_interrupt_queue(struct virtio_device *dev, unsigned queue);
/* Configuration change notification. */
void virtio_device_interrupt_config(struct virtio_device *dev);
/*
 * The guest broke the protocol: counts a violation, sets DEVICE_NEEDS_RESET
 * (VirtIO 1.2, 2.1.2) and tells the driver. Nothing is processed until the
 * driver resets the device.
 */
void virtio_device_needs_reset(struct virtio_device *dev);
/*
 * Asks the transport to call queue_notify again soon, from the event loop: for
 * a device that has served enough for one turn and leaves chains in the queue.
 * False if the transport cannot; the device then goes on by itself.
 */
bool virtio_device_notify_later(struct virtio_device *dev, unsigned queue)
    __attribute__((warn_unused_result));

#endif
