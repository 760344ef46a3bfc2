/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of the serial port: moves bytes between two descriptors and
 * the port. Knows no register. Part of serial8250; nobody else uses it.
 *
 * Owner: the port, which embeds it. Everything here is called with the device
 * lock held.
 */
#ifndef MICROSBX_DEVICES_SERIAL_SERIAL_HOST_H
#define MICROSBX_DEVICES_SERIAL_SERIAL_HOST_H

#include <stdbool.h>
#include <stddef.h>

#include "devices/evloop.h"
#include "devices/serial/serial8250.h"

#define SERIAL_HOST_READ_MAX 256u /* most bytes of one read */

struct serial_host_ops {
    /* Bytes came in; no more than the room last announced. */
    void (*received)(void *ctx, const uint8_t *bytes, size_t len);
    /* The event loop wrote output: there may be room again. */
    void (*flushed)(void *ctx);
};

struct serial_host {
    const struct serial_host_ops *ops;
    void *ctx;                  /* borrowed: the port */
    struct evloop *loop;        /* borrowed */
    struct evloop_source in;    /* owns its fd; -1: closed */
    struct evloop_source out;   /* owns its fd; watched while it is slow */
    struct evloop_source timer; /* owns its fd */
    bool in_unwatchable;        /* a regular file or the like: always ready */
    bool batching;              /* the timer runs */
    size_t in_room;             /* bytes the port can take now */
    size_t tx_count;
    struct serial8250_stats stats;
    uint8_t tx[SERIAL8250_OUTPUT_MAX];
};

/*
 * Pre: zeroed. Owns both descriptors (-1: none), also on failure; they must be
 * given to serial_host_fini in either case. 0 or a negative errno.
 */
int serial_host_init(struct serial_host *h,
                     const struct serial8250_options *options,
                     const struct serial_host_ops *ops, void *ctx)
    __attribute__((warn_unused_result));
/* Flushes without waiting, closes. Accepts a half-built one. */
void serial_host_fini(struct serial_host *h);

/* Queues one byte of output, and writes it if the line was idle. */
void serial_host_put(struct serial_host *h, uint8_t byte);
/* Writes what it can, without waiting. */
void serial_host_flush(struct serial_host *h);
/* Writes what it can, counts the rest as dropped, and closes the output. */
void serial_host_end_output(struct serial_host *h);
/*
 * For another run of the guest: output is flushed once more, what is left of it
 * is lost, statistics are zero, input is left alone until room is announced.
 */
void serial_host_restart(struct serial_host *h);
/* Bytes of output that can be queued. */
size_t serial_host_room(const struct serial_host *h);

/*
 * How many bytes the port can take now; 0: leave the input alone. Called after
 * every change; may call ops->received before it returns.
 */
void serial_host_announce_room(struct serial_host *h, size_t room);

#endif
