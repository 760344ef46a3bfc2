/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of the serial port.
 *
 * Output: the first byte after a pause is written at once, and a timer starts.
 * While it runs, bytes are collected; a newline, or enough of them, writes them
 * out. When it ends with bytes collected, they are written and it runs again;
 * with none, the line is idle and no timer runs: an idle guest costs nothing.
 */
#include "devices/serial/serial_host.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"

#define BATCH_NS 10000000L

/* ---- output ---- */

/* Nobody will ever read it: what is queued and what follows is dropped. */
static void output_gone(struct serial_host *h)
{
    evloop_remove(h->loop, &h->out);
    io_close(&h->out.fd);
    h->stats.bytes_dropped += h->tx_count;
    h->tx_count = 0;
}

static void output_wait_for_reader(struct serial_host *h)
{
    if (h->out.active)
        return;
    /* Full, and cannot be watched: no descriptor we know does that. */
    if (evloop_add(h->loop, &h->out) < 0)
        output_gone(h);
}

void serial_host_flush(struct serial_host *h)
{
    while (h->tx_count > 0 && h->out.fd >= 0) {
        ssize_t n = write(h->out.fd, h->tx, h->tx_count);

        if (n > 0) {
            h->tx_count -= (size_t)n;
            h->stats.bytes_out += (uint64_t)n;
            memmove(h->tx, h->tx + n, h->tx_count);
        } else if (n < 0 && errno == EAGAIN) {
            output_wait_for_reader(h);
            return;
        } else if (n == 0 || errno != EINTR) {
            output_gone(h);
        }
    }
}

void serial_host_end_output(struct serial_host *h)
{
    serial_host_flush(h);
    output_gone(h);
}

static void batch_start(struct serial_host *h)
{
    struct itimerspec when = {.it_value.tv_nsec = BATCH_NS};

    /* If it failed, every byte would be written at once: slow, but right. */
    h->batching = timerfd_settime(h->timer.fd, 0, &when, NULL) == 0;
}

static void timer_handler(void *ctx, uint32_t events)
{
    struct serial_host *h = ctx;
    uint64_t expirations;

    (void)events;
    if (read(h->timer.fd, &expirations, sizeof(expirations)) < 0)
        return;
    h->batching = false;
    /* While the reader is slow, its readiness drives the output. */
    if (h->tx_count == 0 || h->out.active)
        return;
    serial_host_flush(h);
    batch_start(h);
    h->ops->flushed(h->ctx);
}

static void output_handler(void *ctx, uint32_t events)
{
    struct serial_host *h = ctx;

    (void)events; /* an error comes back from write */
    serial_host_flush(h);
    if (h->tx_count == 0)
        evloop_remove(h->loop, &h->out);
    h->ops->flushed(h->ctx);
}

void serial_host_put(struct serial_host *h, uint8_t byte)
{
    if (h->out.fd < 0 || h->tx_count >= SERIAL8250_OUTPUT_MAX) {
        h->stats.bytes_dropped++;
        return;
    }
    h->tx[h->tx_count++] = byte;
    if (h->out.active)
        return;
    if (byte == '\n' || h->tx_count >= SERIAL8250_FLUSH_BYTES) {
        serial_host_flush(h);
    } else if (!h->batching) {
        serial_host_flush(h);
        batch_start(h);
    }
}

void serial_host_restart(struct serial_host *h)
{
    serial_host_flush(h);
    h->tx_count = 0;
    evloop_remove(h->loop, &h->out);
    evloop_remove(h->loop, &h->in);
    h->in_room = 0;
    h->stats = (struct serial8250_stats){0};
}

size_t serial_host_room(const struct serial_host *h)
{
    return SERIAL8250_OUTPUT_MAX - h->tx_count;
}

/* ---- input ---- */

static void input_stop(struct serial_host *h)
{
    evloop_remove(h->loop, &h->in);
    io_close(&h->in.fd);
}

/* One read of what there is room for. Pre: room. */
static void input_read(struct serial_host *h)
{
    uint8_t buf[SERIAL_HOST_READ_MAX];
    ssize_t n = read(h->in.fd, buf, num_min(sizeof(buf), h->in_room));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        input_stop(h); /* end of file, or the other side is gone */
        return;
    }
    h->in_room -= (size_t)n;
    /*
     * Not watched without room, rather than watched for nothing: a hang-up
     * cannot be masked and would wake the loop for ever.
     */
    if (h->in_room == 0)
        evloop_remove(h->loop, &h->in);
    h->stats.bytes_in += (uint64_t)n;
    h->ops->received(h->ctx, buf, (size_t)n);
}

static void input_handler(void *ctx, uint32_t events)
{
    (void)events;
    input_read(ctx);
}

static void input_watch(struct serial_host *h)
{
    int ret = evloop_add(h->loop, &h->in);

    if (ret == -EPERM)
        h->in_unwatchable = true;
    else if (ret < 0)
        input_stop(h);
}

void serial_host_announce_room(struct serial_host *h, size_t room)
{
    h->in_room = room;
    if (h->in.fd < 0)
        return;
    if (room == 0) {
        evloop_remove(h->loop, &h->in);
        return;
    }
    if (!h->in.active && !h->in_unwatchable)
        input_watch(h);
    /* Always ready, so it is read now; a whole buffer's worth, not a byte. */
    if (h->in_unwatchable && room >= SERIAL_HOST_READ_MAX)
        input_read(h);
}

/* ---- life ---- */

static int prepare_fds(struct serial_host *h)
{
    int ret;

    /* epoll knows a descriptor once: a terminal given twice is doubled. */
    if (h->in.fd >= 0 && h->in.fd == h->out.fd) {
        h->in.fd = fcntl(h->out.fd, F_DUPFD_CLOEXEC, 0);
        if (h->in.fd < 0)
            return -errno;
    }
    if (h->in.fd >= 0) {
        ret = io_set_nonblock(h->in.fd);
        if (ret < 0)
            return ret;
    }
    return h->out.fd >= 0 ? io_set_nonblock(h->out.fd) : 0;
}

int serial_host_init(struct serial_host *h,
                     const struct serial8250_options *options,
                     const struct serial_host_ops *ops, void *ctx)
{
    int ret;

    h->ops = ops;
    h->ctx = ctx;
    h->loop = options->loop;
    h->in = (struct evloop_source){.fd = options->in_fd,
                                   .events = EPOLLIN,
                                   .handler = input_handler,
                                   .ctx = h};
    h->out = (struct evloop_source){.fd = options->out_fd,
                                    .events = EPOLLOUT,
                                    .handler = output_handler,
                                    .ctx = h};
    h->timer = (struct evloop_source){
        .fd = -1, .events = EPOLLIN, .handler = timer_handler, .ctx = h};
    ret = prepare_fds(h);
    if (ret < 0)
        return ret;
    h->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (h->timer.fd < 0)
        return -errno;
    return evloop_add(h->loop, &h->timer);
}

void serial_host_fini(struct serial_host *h)
{
    serial_host_flush(h);
    evloop_remove(h->loop, &h->in);
    evloop_remove(h->loop, &h->out);
    evloop_remove(h->loop, &h->timer);
    io_close(&h->in.fd);
    io_close(&h->out.fd);
    io_close(&h->timer.fd);
}
