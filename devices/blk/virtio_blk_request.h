/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtio-blk request: parse a chain, run it against the backend, write its
 * status. Knows neither queues nor interrupts.
 */
#ifndef MICROSBX_DEVICES_BLK_VIRTIO_BLK_REQUEST_H
#define MICROSBX_DEVICES_BLK_VIRTIO_BLK_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/blk/block_backend.h"
#include "devices/blk/virtio_blk.h"
#include "devices/virtio/virtqueue.h"

#define VIRTIO_BLK_SECTOR_SIZE 512u

/*
 * Requests are run in steps of this many bytes, so that one of them, on slow
 * storage, holds up neither an order to stop nor other devices. Those of Linux
 * (at most 1,280 KiB of data) take one.
 */
#define VIRTIO_BLK_STEP ((uint64_t)2 << 20)

/* Feature bits (VirtIO 1.2, 5.2.3). */
#define VIRTIO_BLK_F_SIZE_MAX ((uint64_t)1 << 1)
#define VIRTIO_BLK_F_SEG_MAX ((uint64_t)1 << 2)
#define VIRTIO_BLK_F_RO ((uint64_t)1 << 5)
#define VIRTIO_BLK_F_BLK_SIZE ((uint64_t)1 << 6)
#define VIRTIO_BLK_F_FLUSH ((uint64_t)1 << 9)
#define VIRTIO_BLK_F_DISCARD ((uint64_t)1 << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES ((uint64_t)1 << 14)

/* Request types and status bytes (VirtIO 1.2, 5.2.6). */
#define VIRTIO_BLK_T_IN 0u
#define VIRTIO_BLK_T_OUT 1u
#define VIRTIO_BLK_T_FLUSH 4u
#define VIRTIO_BLK_T_GET_ID 8u
#define VIRTIO_BLK_T_DISCARD 11u
#define VIRTIO_BLK_T_WRITE_ZEROES 13u
#define VIRTIO_BLK_S_OK 0
#define VIRTIO_BLK_S_IOERR 1
#define VIRTIO_BLK_S_UNSUPP 2

/* What requests run against; constant while a device is active. */
struct virtio_blk_target {
    struct block_backend *backend;
    uint64_t features;          /* negotiated */
    char id[VIRTIO_BLK_ID_MAX]; /* padded with NULs */
};

/* A range of the disk, in bytes, and how far it is done. */
struct virtio_blk_range {
    uint64_t offset;
    uint64_t len;
    uint64_t done;
    bool unmap;
};

/* A chain that was looked at, and what has become of it so far. */
struct virtio_blk_request {
    const struct desc_chain *chain;
    uint32_t type;
    uint64_t sector;
    uint64_t data_in;  /* writable bytes in front of the status */
    uint64_t data_out; /* readable bytes behind the header */
    bool malformed;    /* the guest's fault, to be counted */
    uint32_t written;  /* for the used ring */
    /*
     * What the last step cost the device thread, in bytes: data moved, ranges
     * discarded or zeroed (16 bytes can name 64 MiB), a price for each sync.
     */
    uint64_t cost;
    bool begun; /* checked, and the ranges are what is to be done */
    unsigned range;
    unsigned range_count;
    struct virtio_blk_range ranges[VIRTIO_BLK_DISCARD_SEG_MAX];
};

/*
 * Copies the header out of the chain, once. False if the chain has no room for
 * a status: it cannot be run. A header cut short only makes it malformed.
 */
bool virtio_blk_request_parse(const struct desc_chain *chain,
                              struct virtio_blk_request *ret_request)
    __attribute__((warn_unused_result));

/*
 * Runs a parsed request, or the next step of it: at most about VIRTIO_BLK_STEP
 * bytes, and one call of the host at the end. Fills cost. True: it is done, its
 * status written, malformed and written filled. A request that is dropped
 * between two steps can be run anew from its start.
 */
bool virtio_blk_request_run(const struct virtio_blk_target *target,
                            struct virtio_blk_request *request)
    __attribute__((warn_unused_result));

#endif
