/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk (VirtIO 1.2, 5.2): one request queue; IN, OUT, FLUSH, GET_ID,
 * DISCARD, WRITE_ZEROES; features SIZE_MAX, SEG_MAX, BLK_SIZE, FLUSH and, as
 * the backend is, RO or DISCARD and WRITE_ZEROES.
 *
 * Requests run on the device thread, one after the other, in steps of some MiB
 * between which orders and other devices get their turn. A reset drops the one
 * that is being run; a quiesce puts it back into the queue, to be run anew from
 * its start (all requests may be). Those that a round left in the queue stay
 * there, and are served after a restore.
 *
 * The saved state is the size of the disk and whether it is read-only; a device
 * over another backend refuses it. The bytes are the backend's owner's to save.
 *
 * What a request gets that is not as it should be:
 * - no writable byte for the status: it cannot be answered. The chain is
 *   returned with length 0 and the device asks for a reset, as others do
 *   (a driver that sends this is broken, and would wait for ever).
 * - anything else malformed (header cut short, data in the wrong direction,
 *   length 0 or not a multiple of 512, beyond the disk or the limits in the
 *   configuration space, segments that together are longer than the disk, a
 *   change of a read-only disk): IOERR, counted as a violation.
 * - a type unknown or not negotiated, reserved flags: UNSUPP.
 * - an error of the backend: IOERR; it keeps its own count.
 * The length in the used ring is what was written from the start of the
 * writable part without a gap: data and status, or 0 if a read failed.
 */
#ifndef MICROSBX_DEVICES_BLK_VIRTIO_BLK_H
#define MICROSBX_DEVICES_BLK_VIRTIO_BLK_H

#include "devices/blk/block_backend.h"
#include "devices/virtio/virtio_device.h"

#define VIRTIO_BLK_ID_MAX 20u

/*
 * What one request may ask for: SEG_MAX segments of SIZE_MAX bytes each, which
 * bounds the time the device thread spends on it. (All are in the
 * configuration space, and Linux keeps to them.)
 */
#define VIRTIO_BLK_SEG_MAX (VIRTQUEUE_SIZE_MAX - 2)
#define VIRTIO_BLK_SIZE_MAX (256u << 10)
#define VIRTIO_BLK_DATA_MAX ((uint64_t)VIRTIO_BLK_SEG_MAX * VIRTIO_BLK_SIZE_MAX)
#define VIRTIO_BLK_DISCARD_SECTORS_MAX (1u << 17) /* 64 MiB a segment */
#define VIRTIO_BLK_DISCARD_SEG_MAX 16u
#define VIRTIO_BLK_WRITE_ZEROES_SECTORS_MAX (1u << 17) /* 64 MiB */
#define VIRTIO_BLK_WRITE_ZEROES_SEG_MAX 1u

/*
 * Makes a device over backend (owned, also on failure). id: at most
 * VIRTIO_BLK_ID_MAX bytes, what GET_ID answers. Returns 0 or -ENOMEM, -EINVAL.
 *
 * After a bounded amount of work the device asks its transport to notify it
 * later, so that a guest that never stops asking cannot keep the device thread
 * from other devices or from ending.
 */
int virtio_blk_new(struct block_backend *backend, const char *id,
                   struct virtio_device **ret_dev)
    __attribute__((warn_unused_result));

/* The backend, to ask, save or empty it; owned by the device. */
struct block_backend *virtio_blk_backend(const struct virtio_device *dev);

#endif
