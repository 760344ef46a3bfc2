/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An 8250/16550A serial port: the guest's console. Output goes to a
 * descriptor, input comes from one; both non-blocking, watched by the event
 * loop. When the reader of the output is slow, the transmitter stays "not
 * empty", as on a real line, and nothing grows; when the output is gone (EPIPE)
 * bytes are dropped and counted.
 *
 * Registers are touched by vCPU threads; the module takes the device lock.
 */
#ifndef MICROSBX_DEVICES_SERIAL_SERIAL8250_H
#define MICROSBX_DEVICES_SERIAL_SERIAL8250_H

#include <pthread.h>

#include "devices/bus.h"
#include "devices/evloop.h"
#include "devices/irq.h"

#define SERIAL8250_PORTS 8u

struct serial8250;

/* For bus_add; ctx is the struct serial8250. */
extern const struct bus_ops serial8250_bus_ops;

struct serial8250_options {
    struct evloop *loop;   /* borrowed */
    pthread_mutex_t *lock; /* borrowed: the device lock; may be NULL */
    struct irq_line irq;
    int in_fd;  /* owned, or -1: no input */
    int out_fd; /* owned, or -1: output is dropped */
};

struct serial8250_stats {
    uint64_t bytes_out;
    uint64_t bytes_dropped;
    uint64_t bytes_in;
};

int serial8250_new(const struct serial8250_options *options,
                   struct serial8250 **ret_serial)
    __attribute__((warn_unused_result));
void serial8250_free(struct serial8250 *serial);
/* Writes what is still buffered, without waiting. Device lock held. */
void serial8250_flush(struct serial8250 *serial);
const struct serial8250_stats *serial8250_stats(const struct serial8250 *s);

#endif
