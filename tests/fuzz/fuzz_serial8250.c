/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serial port with a driver that does anything, and hosts that read, write
 * and hang up when they like.
 *
 * Input: operations of two bytes, kind and value.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "devices/serial/serial8250.h"

#define OPS_MAX 512u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
    struct evloop *loop;
    struct serial8250 *port;
    int in;  /* the host's end of the input */
    int out; /* the host's end of the output */
};

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void host(struct world *w, uint8_t value)
{
    char buf[4096] = "";

    switch (value & 7) {
    case 0:
    case 1:
    case 2:
        if (w->in >= 0)
            (void)!write(w->in, buf, value);
        break;
    case 3:
    case 4:
        if (w->out >= 0)
            (void)!read(w->out, buf, sizeof(buf));
        break;
    case 5:
        close_end(value & 8 ? &w->in : &w->out);
        break;
    case 6:
        serial8250_flush(w->port);
        break;
    default:
        evloop_run_once(w->loop, 0);
        break;
    }
}

static void operate(struct world *w, uint8_t kind, uint8_t value)
{
    unsigned reg = kind & 7;
    unsigned burst = kind & 0x80 ? 600 : 1;

    if (kind & 0x40) {
        host(w, value);
    } else if (kind & 0x20) {
        for (unsigned i = 0; i < burst; i++)
            serial8250_bus_ops.write(w->port, reg, 1, value);
    } else if (kind & 0x10 && reg <= 4) {
        serial8250_bus_ops.write(w->port, reg, 4, 0x01010101u * value);
    } else {
        for (unsigned i = 0; i < burst; i++)
            serial8250_bus_ops.read(w->port, reg, 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = {0};
    struct serial8250_options options = {0};
    int in[2], out[2];

    signal(SIGPIPE, SIG_IGN);
    if (pipe2(in, O_NONBLOCK) != 0 || pipe2(out, O_NONBLOCK) != 0 ||
        evloop_new(NULL, &w.loop) != 0)
        abort();
    w.in = in[1];
    w.out = out[0];
    options.loop = w.loop;
    options.in_fd = in[0];
    options.out_fd = out[1];
    if (serial8250_new(&options, &w.port) != 0)
        abort();
    for (size_t i = 0; i < OPS_MAX && 2 * i + 1 < size; i++)
        operate(&w, data[2 * i], data[2 * i + 1]);
    serial8250_free(w.port);
    evloop_free(w.loop);
    close_end(&w.in);
    close_end(&w.out);
    return 0;
}
