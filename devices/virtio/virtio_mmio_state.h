/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the virtio-mmio transport: what the registers (virtio_mmio.c) and
 * their saving and loading (virtio_mmio_state.c) share. Not for other modules.
 */
#ifndef MICROSBX_DEVICES_VIRTIO_VIRTIO_MMIO_STATE_H
#define MICROSBX_DEVICES_VIRTIO_VIRTIO_MMIO_STATE_H

#include "devices/virtio/virtio_mmio.h"

/* VirtIO 1.2, 2.1. */
#define STATUS_ACKNOWLEDGE 1u
#define STATUS_DRIVER 2u
#define STATUS_DRIVER_OK 4u
#define STATUS_FEATURES_OK 8u
#define STATUS_NEEDS_RESET 64u
#define STATUS_FAILED 128u

/* Bits of InterruptStatus (4.2.2). */
#define INTERRUPT_USED 1u
#define INTERRUPT_CONFIG 2u

/* VirtIO 1.2, 6.1: only what is offered, and version 1 always. */
bool virtio_mmio_features_acceptable(const struct virtio_mmio *mmio);

/*
 * Everything back to the beginning, as if the driver had written 0 to Status.
 * Pre: there is a device.
 */
void virtio_mmio_reset(struct virtio_mmio *mmio);

#endif
