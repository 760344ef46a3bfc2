/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the overlay, shared by its parts: cow_overlay.c (what is read,
 * written and saved) and cow_zeros.c (what need not be touched at all). Nobody
 * else includes this.
 */
#ifndef MICROSBX_DEVICES_BLK_COW_OVERLAY_INTERNAL_H
#define MICROSBX_DEVICES_BLK_COW_OVERLAY_INTERNAL_H

#include "devices/blk/cow_map.h"
#include "devices/blk/cow_overlay.h"

struct cow_overlay {
    struct block_backend backend; /* first: a backend is one of us */
    struct block_backend *base;   /* owned; only read */
    int fd;                       /* owned */
    struct cow_map map;
    uint64_t limit; /* bytes; 0: none */
    bool durable;
    bool dirty;       /* data written since the last sync (or ever) */
    bool sync_failed; /* the host lost data: no later FLUSH may succeed */
    bool no_punch;    /* the host file cannot have holes: stop asking */
    uint8_t *scratch; /* owned; two clusters */
};

/* The backend's operations of these names. */
uint64_t cow_overlay_skip(struct block_backend *b, uint64_t offset,
                          uint64_t len, bool discard);
uint64_t cow_overlay_zeros(struct block_backend *b, uint64_t offset,
                           uint64_t len);

#endif
