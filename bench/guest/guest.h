/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The measuring guest: a static init for our minimal kernel, the same file
 * under every monitor. The word bench=NAME on the kernel's command line, which
 * the kernel hands to init as an environment variable, selects what it does:
 *
 *   blk    measures /dev/vda and prints "bench: NAME VALUE" lines
 *   vsock  serves BENCH_PORT; the host's end is bench/vsock_peer.c
 *   idle   sleeps
 *
 * It says "bench: ready" once it is set up, and "bench: done" when a
 * measurement of its own is over.
 */
#ifndef MICROSBX_BENCH_GUEST_GUEST_H
#define MICROSBX_BENCH_GUEST_GUEST_H

#include <stdint.h>

#define BENCH_PORT 5000u
#define BENCH_ECHO_BYTES 64u

enum bench_what {
    BENCH_ECHO = 1,   /* send back what comes, until the host closes */
    BENCH_SINK = 2,   /* read so many bytes, then send one */
    BENCH_SOURCE = 3, /* send so many bytes */
};

/* First thing on a connection; both ends are x86-64. */
struct bench_order {
    uint32_t what;
    uint32_t bytes;
};

/* CLOCK_MONOTONIC of the guest, in seconds. */
double guest_now(void);
/* Says what failed and why, and sleeps for ever: the host's timeout ends it. */
void guest_die(const char *what) __attribute__((noreturn));

void guest_measure_blk(void);
void guest_serve_vsock(void) __attribute__((noreturn));

#endif
