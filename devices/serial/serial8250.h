/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An 8250/16550A serial port: the guest's console. Output goes to a
 * descriptor, input comes from one; both non-blocking, watched by the event
 * loop. When the reader of the output is slow, the transmitter stays "not
 * empty", as on a real line, and nothing grows; when the output is gone (EPIPE)
 * bytes are dropped and counted.
 *
 * Output is written at once if the line was idle, then in batches: at a
 * newline, at SERIAL8250_FLUSH_BYTES, and 10 ms after the previous batch; so a
 * guest that prints byte by byte costs a system call a line, and an echo is not
 * delayed. A guest may fill the buffer faster than the reader empties it: it is
 * told by LSR, and bytes it sends nevertheless are dropped and counted.
 *
 * Input is read only while the guest listens (receive interrupt enabled, or RTS
 * on) and the receive buffer has room; the rest waits in the descriptor. Bytes
 * sent before the guest's driver is up are therefore not lost.
 *
 * A descriptor that cannot be watched (regular file, /dev/null) counts as
 * always ready. SIGPIPE must be ignored in the process.
 *
 * Registers are touched by vCPU threads; the module takes the device lock.
 */
#ifndef MICROSBX_DEVICES_SERIAL_SERIAL8250_H
#define MICROSBX_DEVICES_SERIAL_SERIAL8250_H

#include <pthread.h>

#include "base/codec.h"
#include "devices/bus.h"
#include "devices/evloop.h"
#include "devices/irq.h"

#define SERIAL8250_PORTS 8u
#define SERIAL8250_OUTPUT_MAX 4096u /* bytes waiting for a slow reader */
#define SERIAL8250_FLUSH_BYTES 1024u

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
    uint64_t bytes_out;     /* written to out_fd */
    uint64_t bytes_dropped; /* no reader, or sent while not ready */
    uint64_t bytes_in;
};

/*
 * Makes a port. Sets both descriptors non-blocking and owns them, also on
 * failure. Returns 0 or a negative errno.
 */
int serial8250_new(const struct serial8250_options *options,
                   struct serial8250 **ret_serial)
    __attribute__((warn_unused_result));
/* Flushes, without waiting, and ends the port. Accepts NULL. */
void serial8250_free(struct serial8250 *serial);
/*
 * Writes what is still buffered, without waiting: before power-off, reset,
 * panic, and when the guest is stopped. Device lock held. Returns the bytes
 * that a slow reader left in the buffer; the event loop goes on with them.
 */
size_t serial8250_flush(struct serial8250 *serial);
/* The last flush: what a slow reader leaves is dropped, and counted as such. */
void serial8250_end_output(struct serial8250 *serial);

/* ---- save and restore, device lock held or nothing runs -------------------
 *
 * The state is the registers and the received bytes that the guest has not
 * read. Output that the guest has sent is not in it, even if the reader has not
 * taken it yet: it belongs to the run that printed it, which writes it out, and
 * must not appear a second time. So a saved port's transmitter is empty, and a
 * guest that waited for room in it finds the interrupt for that pending.
 * Descriptors and statistics are no state either.
 */

void serial8250_save(const struct serial8250 *serial, struct state_writer *w);
/*
 * Replaces the state; output still buffered is written, without waiting, or
 * lost, and statistics start at zero. Reads no input. The reader must hold
 * exactly one state. 0; else -EBADMSG and the port is as it was made.
 */
int serial8250_load(struct serial8250 *serial, struct state_reader *r)
    __attribute__((warn_unused_result));
/*
 * Once after a load, when the guest is about to run: raises the line if an
 * interrupt condition holds, and looks for input.
 */
void serial8250_restored(struct serial8250 *serial);

const struct serial8250_stats *serial8250_stats(const struct serial8250 *s);

#endif
