/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded queue of bytes in ordinary memory: what somebody could not take
 * yet. No descriptor, no clock, no growth.
 */
#ifndef MICROSBX_BASE_FIFO_H
#define MICROSBX_BASE_FIFO_H

#include <stddef.h>
#include <stdint.h>

struct fifo {
    uint8_t *buf; /* owned; bytes [start, end) wait */
    size_t size;
    size_t start, end;
};

/* 0 or -ENOMEM. */
int fifo_init(struct fifo *f, size_t size) __attribute__((warn_unused_result));
/* Fine on a zeroed one, too. */
void fifo_fini(struct fifo *f);

size_t fifo_used(const struct fifo *f);
size_t fifo_room(const struct fifo *f);

/* Adds at most fifo_room bytes; returns how many. */
size_t fifo_add(struct fifo *f, const void *bytes, size_t len);

/* The oldest bytes, *ret_len of them in one piece; valid until the next add. */
const uint8_t *fifo_peek(const struct fifo *f, size_t *ret_len);

/* Drops the oldest len bytes. Pre: len <= fifo_used. */
void fifo_drop(struct fifo *f, size_t len);

#endif
