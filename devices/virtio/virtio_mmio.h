/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-mmio transport, version 2 registers only (VirtIO 1.2, 4.2.2).
 *
 * One per slot. An empty slot (dev == NULL) answers MagicValue, Version and
 * DeviceID 0, so that drivers skip it. Registers are read and written by vCPU
 * threads under the device lock, except InterruptStatus and InterruptACK, which
 * are atomic and take no lock: a driver touches them in every interrupt and
 * must not wait for a request in progress.
 *
 * Register writes that make no sense in the current state (queue geometry while
 * ready, features after FEATURES_OK, an index out of range, a wrong size) are
 * ignored and counted as violations; they never crash.
 */
#ifndef MICROSBX_DEVICES_VIRTIO_VIRTIO_MMIO_H
#define MICROSBX_DEVICES_VIRTIO_VIRTIO_MMIO_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/codec.h"
#include "devices/bus.h"
#include "devices/irq.h"
#include "devices/virtio/virtio_device.h"

#define VIRTIO_MMIO_SIZE 0x1000u
#define VIRTIO_MMIO_QUEUE_NOTIFY                                               \
    0x050u /* where the machine puts ioeventfds                                \
            */

struct virtio_mmio {
    struct virtio_device *dev;   /* owned; NULL: empty slot */
    const struct guest_mem *mem; /* borrowed */
    pthread_mutex_t *lock;       /* borrowed: the device lock; may be NULL */
    struct irq_line irq;
    /*
     * Optional, set by the machine after virtio_mmio_init: makes the event
     * loop call virtio_mmio_notify(queue) soon (a write to the queue's
     * ioeventfd does it). NULL: a device serves a queue to its end at once.
     */
    void (*notify_later)(void *ctx, unsigned queue);
    void *notify_later_ctx; /* borrowed */
    atomic_uint interrupt_status;
    uint32_t status;
    uint32_t device_features_sel;
    uint32_t driver_features_sel;
    uint32_t queue_sel;
    uint64_t driver_features;
    uint32_t config_generation;
};

/* For bus_add; ctx is the struct virtio_mmio. */
extern const struct bus_ops virtio_mmio_bus_ops;

/*
 * Takes ownership of dev (may be NULL) and becomes its transport. mem, lock
 * and what irq points to must outlive it.
 */
void virtio_mmio_init(struct virtio_mmio *mmio, struct virtio_device *dev,
                      const struct guest_mem *mem, pthread_mutex_t *lock,
                      struct irq_line irq);
/* Ends the device and forgets it. Accepts a zeroed struct. */
void virtio_mmio_fini(struct virtio_mmio *mmio);

/*
 * A kick that arrived by an ioeventfd. Pre: device lock held. Ignored unless
 * the device is active and the queue is ready.
 */
void virtio_mmio_notify(struct virtio_mmio *mmio, unsigned queue);

/* ---- save and restore ----------------------------------------------------
 *
 * The state of a slot is its registers, its queues and what its device adds;
 * see virtio_device_ops. Requests and connections are not in it. All are
 * called with the device lock held, or while nothing runs, and do nothing (or
 * save nothing) for an empty slot.
 *
 *   running -> virtio_mmio_quiesce -> virtio_mmio_save -> goes on, or ends
 *   built   -> virtio_mmio_load -> [_save, to prove it] -> virtio_mmio_restored
 *           -> runs
 */

/*
 * Has the device give back what it took and did not serve. Pre: no register
 * access and no kick comes in from now until the machine goes on; kicks that
 * came have been passed on, or will be after the machine went on.
 */
void virtio_mmio_quiesce(struct virtio_mmio *mmio);

/* Appends the state. Pre: quiesced (or just loaded). */
void virtio_mmio_save(const struct virtio_mmio *mmio, struct state_writer *w);

/*
 * Replaces the state of the slot by a saved one; whatever the device was doing
 * (connections included) is dropped first, and its statistics start at zero.
 * The reader must hold exactly one state: what is left over is an error.
 * Everything is checked: another device or another configuration of it, a
 * status that cannot be, features that are not offered, a queue outside guest
 * memory, indices that do not fit. Reads and writes no guest memory and raises
 * no line. 0; else -EBADMSG and the slot is as after a reset.
 */
int virtio_mmio_load(struct virtio_mmio *mmio, struct state_reader *r)
    __attribute__((warn_unused_result));

/*
 * Once after a load, when the guest is about to run: tells the device, serves
 * each queue (a kick may have been on its way when the state was saved), and
 * raises the line again if InterruptStatus is not 0. From here on guest memory
 * and the state differ from what was saved.
 */
void virtio_mmio_restored(struct virtio_mmio *mmio);

#endif
