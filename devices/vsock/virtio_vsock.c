/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vsock device: its ops, how every call enters and leaves, clients and
 * dial results. The queues are in vsock_tx.c and vsock_rx.c; see
 * vsock_device.h for how the parts fit together.
 */
#include "devices/vsock/virtio_vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "devices/vsock/vsock_device.h"

#define ACCEPTS_PER_WAKE 16u
#define NS_PER_MS 1000000

static struct virtio_vsock *vsock_of(struct virtio_device *dev)
{
    return (struct virtio_vsock *)dev; /* dev is its first member */
}

/* ---- entry and exit ------------------------------------------------------ */

void vsock_enter(struct virtio_vsock *vsock)
{
    vsock->depth++;
}

static void vsock_drop_links(struct virtio_vsock *vsock)
{
    struct vsock_link *link;

    while ((link = TAILQ_FIRST(&vsock->links)))
        vsock_link_free(link);
}

/* Starts or stops the tick: an idle device has no timer running. */
static void vsock_set_tick(struct virtio_vsock *vsock)
{
    bool wanted = vsock->timed_count > 0 || vsock->listener_paused;
    long ns = wanted ? (long)VSOCK_TICK_MS * NS_PER_MS : 0;
    struct itimerspec spec = {{0, ns}, {0, ns}};

    if (wanted == vsock->ticking)
        return;
    /* Cannot fail: a valid timer and valid times. */
    (void)timerfd_settime(vsock->timer.fd, 0, &spec, NULL);
    vsock->ticking = wanted;
}

/* New clients wait in the listener's backlog while there is no room. */
static void vsock_watch_listener(struct virtio_vsock *vsock)
{
    bool room = vsock->link_count < VSOCK_CONNS_MAX &&
                vsock->client_count < VSOCK_CLIENTS_MAX &&
                !vsock->listener_paused;

    if (vsock->listener.fd < 0)
        return;
    if (evloop_modify(vsock->options.loop, &vsock->listener,
                      room ? EPOLLIN : 0) < 0)
        vsock->listener_paused = true; /* no memory: again at the next tick */
}

void vsock_leave(struct virtio_vsock *vsock)
{
    if (vsock->depth > 1) { /* a dial result from inside dial() */
        vsock->depth--;
        return;
    }
    vsock_rx_serve(vsock);
    if (vsock->rx.used)
        virtio_device_interrupt_queue(&vsock->dev, VSOCK_QUEUE_RX);
    if (vsock->tx.used)
        virtio_device_interrupt_queue(&vsock->dev, VSOCK_QUEUE_TX);
    vsock->rx.used = false;
    vsock->tx.used = false;
    if (vsock->halted)
        vsock_drop_links(vsock);
    vsock_watch_listener(vsock);
    vsock_set_tick(vsock);
    vsock->depth--;
}

void vsock_come_back(struct virtio_vsock *vsock)
{
    uint64_t one = 1;

    /* Fails only when the counter is full, and then it is readable. */
    if (write(vsock->again.fd, &one, sizeof(one)) < 0)
        return;
}

void vsock_halt(struct virtio_vsock *vsock)
{
    if (vsock->halted)
        return;
    vsock->halted = true;
    virtio_device_needs_reset(&vsock->dev);
}

void vsock_count_violation(struct virtio_vsock *vsock)
{
    atomic_fetch_add(&vsock->dev.violations, 1);
}

/* ---- connecting ---------------------------------------------------------- */

void vsock_link_connect(struct vsock_link *link, uint32_t port)
{
    struct virtio_vsock *vsock = link->vsock;

    vsock_link_set_client(link, false);
    if (!vsock->dev.active || vsock->halted) {
        vsock_link_refuse(link);
        return;
    }
    vsock_conn_start(&link->conn, port,
                     vsock_table_assign_port(&vsock->table, port));
    vsock_table_insert(&vsock->table, link);
    vsock_link_set_deadline(link, vsock_gate_is_shut(vsock)
                                      ? VSOCK_GATE_TIMEOUT_MS
                                      : VSOCK_CONNECT_TIMEOUT_MS);
}

/* Numbers are given from below: a high one means that few are left. */
static bool vsock_may_keep(const struct virtio_vsock *vsock, int fd)
{
    return vsock->options.fd_end == 0 || fd < vsock->options.fd_end;
}

static int vsock_add_socket(struct virtio_vsock *vsock, int fd)
{
    struct vsock_link *link =
        vsock_may_keep(vsock, fd) ? vsock_link_new(vsock, fd) : NULL;

    if (!link) {
        io_close(&fd);
        return -EMFILE;
    }
    vsock_link_set_client(link, true);
    vsock_link_set_deadline(link, VSOCK_LINE_TIMEOUT_MS);
    vsock_link_touch(link);
    return 0;
}

int virtio_vsock_add_client(struct virtio_device *dev, int fd)
{
    struct virtio_vsock *vsock = vsock_of(dev);
    int ret;

    vsock_enter(vsock);
    ret = vsock_add_socket(vsock, fd);
    vsock_leave(vsock);
    return ret;
}

static void vsock_accept_clients(struct virtio_vsock *vsock)
{
    for (unsigned i = 0; i < ACCEPTS_PER_WAKE; i++) {
        int fd;

        if (vsock->link_count >= VSOCK_CONNS_MAX ||
            vsock->client_count >= VSOCK_CLIENTS_MAX)
            return;
        fd = accept4(vsock->listener.fd, NULL, NULL,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            /* Anything but "nobody there" would wake us again at once. */
            vsock->listener_paused =
                errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
            return;
        }
        if (vsock_add_socket(vsock, fd) < 0)
            return;
    }
}

static struct vsock_link *vsock_find_dial(struct virtio_vsock *vsock,
                                          uint64_t token)
{
    struct vsock_link *link;

    TAILQ_FOREACH(link, &vsock->links, all_entry)
    {
        if (link->conn.state == VSOCK_CONN_DIALING && link->token == token)
            return link;
    }
    return NULL;
}

void virtio_vsock_dial_result(struct virtio_device *dev, uint64_t token, int fd)
{
    struct virtio_vsock *vsock = vsock_of(dev);
    struct vsock_link *link = vsock_find_dial(vsock, token);

    if (!link) { /* the guest gave up, or was reset, in the meantime */
        io_close(&fd);
        return;
    }
    vsock_enter(vsock);
    if (fd >= 0 && !vsock_may_keep(vsock, fd))
        io_close(&fd);
    if (fd < 0)
        vsock_link_refuse(link);
    else
        vsock_link_attach(link, fd);
    vsock_link_touch(link);
    vsock_leave(vsock);
}

/* ---- handlers of the loop ------------------------------------------------ */

static void vsock_on_listener(void *ctx, uint32_t events)
{
    struct virtio_vsock *vsock = ctx;

    (void)events;
    vsock_enter(vsock);
    vsock_accept_clients(vsock);
    vsock_leave(vsock);
}

/* Empties a timerfd or eventfd. */
static void drain_counter(int fd)
{
    uint64_t count;

    if (read(fd, &count, sizeof(count)) < 0)
        return; /* nothing in it: as good as emptied */
}

static void vsock_on_tick(void *ctx, uint32_t events)
{
    struct virtio_vsock *vsock = ctx;

    (void)events;
    drain_counter(vsock->timer.fd);
    vsock_enter(vsock);
    vsock->listener_paused = false;
    vsock_link_expire_all(vsock);
    vsock_leave(vsock);
}

static void vsock_on_again(void *ctx, uint32_t events)
{
    struct virtio_vsock *vsock = ctx;

    (void)events;
    drain_counter(vsock->again.fd);
    vsock_enter(vsock);
    if (vsock->tx.stopped)
        vsock_tx_run(vsock);
    vsock_leave(vsock);
}

/* ---- ops ----------------------------------------------------------------- */

static uint64_t vsock_features(const struct virtio_device *dev)
{
    (void)dev;
    return VSOCK_FEATURE_STREAM;
}

static int vsock_activate(struct virtio_device *dev)
{
    /* Rx buffers are looked for when needed; events come with a restore. */
    virtqueue_disable_kicks(&dev->queues[VSOCK_QUEUE_RX]);
    virtqueue_disable_kicks(&dev->queues[VSOCK_QUEUE_EVENT]);
    return 0;
}

static void vsock_reset(struct virtio_device *dev)
{
    struct virtio_vsock *vsock = vsock_of(dev);

    vsock_drop_links(vsock);
    vsock_rx_reset(&vsock->rx);
    memset(&vsock->tx, 0, sizeof(vsock->tx));
    vsock->gate = (struct vsock_gate){0};
    vsock->halted = false;
    vsock_watch_listener(vsock);
    vsock_set_tick(vsock);
}

static void vsock_queue_notify(struct virtio_device *dev, unsigned queue)
{
    struct virtio_vsock *vsock = vsock_of(dev);

    vsock_enter(vsock);
    /* Event buffers stay in their queue until there is an event. */
    if (queue == VSOCK_QUEUE_EVENT)
        vsock_gate_check(vsock);
    if (queue != VSOCK_QUEUE_TX && vsock->tx.stopped)
        vsock_rx_serve(vsock); /* RSTs first: the packets need their room */
    if (queue == VSOCK_QUEUE_TX || vsock->tx.stopped)
        vsock_tx_run(vsock);
    vsock_leave(vsock);
}

static void vsock_config_read(const struct virtio_device *dev, uint32_t offset,
                              void *ret_bytes, size_t len)
{
    const struct virtio_vsock *vsock = (const struct virtio_vsock *)dev;
    uint8_t config[8]; /* guest_cid: VirtIO 1.2, 5.10.4 */
    uint8_t *out = ret_bytes;

    num_put_le64(config, vsock->options.guest_cid);
    for (size_t i = 0; i < len; i++) {
        uint64_t at = (uint64_t)offset + i;

        out[i] = at < sizeof(config) ? config[at] : 0;
    }
}

static void vsock_free(struct virtio_device *dev)
{
    struct virtio_vsock *vsock;

    if (!dev)
        return;
    vsock = vsock_of(dev);
    vsock_drop_links(vsock);
    evloop_remove(vsock->options.loop, &vsock->listener);
    evloop_remove(vsock->options.loop, &vsock->timer);
    evloop_remove(vsock->options.loop, &vsock->again);
    io_close(&vsock->listener.fd);
    io_close(&vsock->timer.fd);
    io_close(&vsock->again.fd);
    vsock_pool_fini(&vsock->pool);
    free(vsock);
}

static const struct virtio_device_ops vsock_ops = {
    .features = vsock_features,
    .activate = vsock_activate,
    .reset = vsock_reset,
    .queue_notify = vsock_queue_notify,
    .config_read = vsock_config_read,
    .quiesce = vsock_quiesce,
    .save = vsock_save,
    .load = vsock_load,
    .restored = vsock_restored,
    .free = vsock_free,
};

static int vsock_add_source(struct virtio_vsock *vsock,
                            struct evloop_source *source,
                            void (*handler)(void *ctx, uint32_t events))
{
    source->events = EPOLLIN;
    source->handler = handler;
    source->ctx = vsock;
    return evloop_add(vsock->options.loop, source);
}

static int vsock_add_sources(struct virtio_vsock *vsock)
{
    int ret;

    vsock->timer.fd =
        timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (vsock->timer.fd < 0)
        return -errno;
    vsock->again.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (vsock->again.fd < 0)
        return -errno;
    ret = vsock_add_source(vsock, &vsock->timer, vsock_on_tick);
    if (ret < 0)
        return ret;
    ret = vsock_add_source(vsock, &vsock->again, vsock_on_again);
    if (ret < 0 || vsock->listener.fd < 0)
        return ret;
    return vsock_add_source(vsock, &vsock->listener, vsock_on_listener);
}

int virtio_vsock_new(const struct virtio_vsock_options *options,
                     struct virtio_device **ret_dev)
{
    struct virtio_vsock *vsock = calloc(1, sizeof(*vsock));
    int ret;

    if (!vsock)
        return -ENOMEM;
    vsock->options = *options;
    vsock->listener.fd = options->listen_fd;
    vsock->timer.fd = -1;
    vsock->again.fd = -1;
    vsock->dev.ops = &vsock_ops;
    vsock->dev.device_id = VIRTIO_ID_SOCKET_DEVICE;
    vsock->dev.queue_count = 3;
    for (unsigned i = 0; i < vsock->dev.queue_count; i++)
        vsock->dev.queues[i].size_max = VIRTQUEUE_SIZE_MAX;
    TAILQ_INIT(&vsock->links);
    vsock_table_init(&vsock->table);
    vsock_rx_init(&vsock->rx);
    ret = vsock_add_sources(vsock);
    if (ret < 0) {
        vsock_free(&vsock->dev);
        return ret;
    }
    *ret_dev = &vsock->dev;
    return 0;
}

const struct virtio_vsock_stats *
virtio_vsock_stats(const struct virtio_device *dev)
{
    return &((const struct virtio_vsock *)dev)->stats;
}
