/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded buffer between a source of bytes and a descriptor that may be slow.
 * Writes only after poll said POLLOUT and only small pieces, so the descriptor
 * need not be made non-blocking (it may be shared with other processes).
 */
#ifndef MICROSBX_TRIAL_RELAY_H
#define MICROSBX_TRIAL_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/fifo.h"

struct relay {
    struct fifo fifo;
    int fd;    /* borrowed; where bytes go, -1: they are dropped */
    int error; /* 0, or the negative errno that ended it */
};

/* 0 or -ENOMEM. */
int relay_init(struct relay *r, int fd, size_t size)
    __attribute__((warn_unused_result));
void relay_fini(struct relay *r);

/* Room for more bytes; 0 when full. After an error all bytes are dropped. */
size_t relay_room(const struct relay *r);
/* Adds at most relay_room bytes; returns how many. */
size_t relay_add(struct relay *r, const void *bytes, size_t len);
bool relay_is_empty(const struct relay *r);

/*
 * Writes a piece. Call when poll said POLLOUT (or POLLERR). Returns the bytes
 * disposed of, 0 if none could be, or a negative errno (kept in error).
 */
ssize_t relay_write(struct relay *r);

#endif
