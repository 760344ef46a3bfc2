/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's vsock driver for tests; see the header. */
#include "tests/vsock_guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RX 0u
#define TX 1u
#define EVENT 2u
#define EVENT_SIZE 4u
#define QUEUE_SIZE 256u

static void need(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "vsock_guest: %s\n", what);
    abort();
}

static void guest_dial(void *ctx, uint64_t token, uint32_t port)
{
    struct vsock_guest *g = ctx;
    int pair[2];

    g->dial_count++;
    g->dial_token = token;
    g->dial_port = port;
    switch (g->dial) {
    case VSOCK_GUEST_DIAL_REFUSE:
        virtio_vsock_dial_result(g->dev, token, -1);
        break;
    case VSOCK_GUEST_DIAL_ACCEPT:
        need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0,
             "socketpair");
        g->dial_fd = pair[0];
        virtio_vsock_dial_result(g->dev, token, pair[1]);
        break;
    case VSOCK_GUEST_DIAL_KEEP:
    default:
        break;
    }
}

static void make_device(struct vsock_guest *g)
{
    struct virtio_vsock_options options = {
        .guest_cid = VSOCK_GUEST_CID,
        .loop = g->loop,
        .dialer = {guest_dial, g},
        .listen_fd = g->listen_fd < 0 ? -1 : dup(g->listen_fd),
    };

    need(virtio_vsock_new(&options, &g->dev) == 0, "virtio_vsock_new");
}

void vsock_guest_init(struct vsock_guest *g, int listen_fd)
{
    memset(g, 0, sizeof(*g));
    g->dial_fd = -1;
    g->listen_fd = listen_fd;
    need(evloop_new(NULL, &g->loop) == 0, "evloop_new");
    make_device(g);
    fake_driver_init(&g->driver, g->dev, VSOCK_GUEST_MEMORY);
    for (unsigned i = 0; i < VSOCK_GUEST_RX_MAX; i++)
        g->rx_at[i] = fake_guest_alloc(
            &g->driver.guest, VSOCK_HEADER_SIZE + VSOCK_GUEST_RX_SIZE, 4);
    for (unsigned i = 0; i < VSOCK_GUEST_TX_MAX; i++)
        g->tx_at[i] = fake_guest_alloc(
            &g->driver.guest, VSOCK_HEADER_SIZE + VSOCK_GUEST_TX_SIZE, 4);
    for (unsigned i = 0; i < VSOCK_GUEST_EVENTS_MAX; i++)
        g->event_at[i] = fake_guest_alloc(&g->driver.guest, EVENT_SIZE, 4);
}

void vsock_guest_fini(struct vsock_guest *g)
{
    fake_driver_fini(&g->driver);
    evloop_free(g->loop);
    if (g->listen_fd >= 0)
        close(g->listen_fd);
}

static void post_event(struct vsock_guest *g, unsigned buffer)
{
    struct fake_buf buf = {g->event_at[buffer], EVENT_SIZE, true};
    int head = fake_queue_add(&g->driver.queues[EVENT], &buf, 1);

    need(head >= 0, "event queue full");
    g->event_of_head[head] = buffer;
}

void vsock_guest_post_events(struct vsock_guest *g, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        post_event(g, i);
    fake_driver_kick(&g->driver, EVENT);
}

bool vsock_guest_take_event(struct vsock_guest *g, uint32_t *ret_id,
                            unsigned *ret_buffer)
{
    uint16_t head;
    uint32_t len;

    if (!fake_queue_collect(&g->driver.queues[EVENT], &head, &len))
        return false;
    need(len == EVENT_SIZE, "an event of another length");
    *ret_buffer = g->event_of_head[head];
    memcpy(
        ret_id,
        fake_guest_ptr(&g->driver.guest, g->event_at[*ret_buffer], EVENT_SIZE),
        EVENT_SIZE);
    return true;
}

bool vsock_guest_return_event(struct vsock_guest *g, unsigned buffer)
{
    post_event(g, buffer);
    if (!fake_queue_should_kick(&g->driver.queues[EVENT]))
        return false;
    fake_driver_kick_force(&g->driver, EVENT);
    return true;
}

void vsock_guest_move(struct vsock_guest *g)
{
    make_device(g);
    fake_driver_move(&g->driver, g->dev);
}

void vsock_guest_start(struct vsock_guest *g, uint64_t features,
                       unsigned rx_buffers)
{
    fake_driver_start(&g->driver, features, QUEUE_SIZE);
    g->rx_free_count = 0;
    g->tx_free_count = 0;
    for (unsigned i = 0; i < VSOCK_GUEST_RX_MAX; i++)
        g->rx_free[g->rx_free_count++] = i;
    for (unsigned i = 0; i < VSOCK_GUEST_TX_MAX; i++)
        g->tx_free[g->tx_free_count++] = i;
    vsock_guest_post(g, rx_buffers);
}

void vsock_guest_post(struct vsock_guest *g, unsigned n)
{
    while (n-- > 0 && g->rx_free_count > 0) {
        unsigned i = g->rx_free[--g->rx_free_count];
        struct fake_buf bufs[] = {
            {g->rx_at[i], VSOCK_HEADER_SIZE, true},
            {g->rx_at[i] + VSOCK_HEADER_SIZE, VSOCK_GUEST_RX_SIZE, true},
        };
        int head = fake_queue_add(&g->driver.queues[RX], bufs, 2);

        need(head >= 0, "rx queue full");
        g->rx_of_head[head] = i;
    }
    fake_driver_kick(&g->driver, RX);
}

void vsock_guest_run(struct vsock_guest *g)
{
    for (int ret = 1; ret > 0;)
        need((ret = evloop_run_once(g->loop, 0)) >= 0, "evloop_run_once");
}

/* Takes back the tx buffers that the device has returned. */
static void guest_reap(struct vsock_guest *g)
{
    uint16_t head;

    while (fake_queue_collect(&g->driver.queues[TX], &head, NULL))
        g->tx_free[g->tx_free_count++] = g->tx_of_head[head];
}

bool vsock_guest_queue(struct vsock_guest *g, const struct vsock_header *header,
                       const void *payload, uint32_t payload_len)
{
    struct fake_buf bufs[2];
    uint8_t *bytes;
    unsigned i;
    int head;

    guest_reap(g);
    need(payload_len <= VSOCK_GUEST_TX_SIZE, "payload too long");
    if (g->tx_free_count == 0)
        return false;
    i = g->tx_free[--g->tx_free_count];
    bytes = fake_guest_ptr(&g->driver.guest, g->tx_at[i],
                           VSOCK_HEADER_SIZE + payload_len);
    vsock_header_encode(header, bytes);
    if (payload_len > 0)
        memcpy(bytes + VSOCK_HEADER_SIZE, payload, payload_len);
    bufs[0] = (struct fake_buf){g->tx_at[i], VSOCK_HEADER_SIZE, false};
    bufs[1] =
        (struct fake_buf){g->tx_at[i] + VSOCK_HEADER_SIZE, payload_len, false};
    head = fake_queue_add(&g->driver.queues[TX], bufs, payload_len ? 2 : 1);
    need(head >= 0, "tx queue full");
    g->tx_of_head[head] = i;
    return true;
}

void vsock_guest_send(struct vsock_guest *g, const struct vsock_header *header,
                      const void *payload, uint32_t payload_len)
{
    need(vsock_guest_queue(g, header, payload, payload_len),
         "no tx buffer free");
    fake_driver_kick(&g->driver, TX);
}

struct vsock_header vsock_guest_header(uint16_t op, uint32_t guest_port,
                                       uint32_t host_port)
{
    return (struct vsock_header){
        .src_cid = VSOCK_GUEST_CID,
        .dst_cid = VSOCK_CID_HOST,
        .src_port = guest_port,
        .dst_port = host_port,
        .type = VSOCK_TYPE_STREAM,
        .op = op,
        .buf_alloc = 256u * 1024u,
    };
}

void vsock_guest_control(struct vsock_guest *g, uint16_t op,
                         uint32_t guest_port, uint32_t host_port)
{
    struct vsock_header h = vsock_guest_header(op, guest_port, host_port);

    vsock_guest_send(g, &h, NULL, 0);
}

bool vsock_guest_take(struct vsock_guest *g, struct vsock_header *ret_header,
                      uint8_t *ret_payload)
{
    uint8_t *bytes;
    uint32_t len;
    uint16_t head;
    unsigned i;

    if (!fake_queue_collect(&g->driver.queues[RX], &head, &len))
        return false;
    i = g->rx_of_head[head];
    need(len >= VSOCK_HEADER_SIZE, "packet without a header");
    bytes = fake_guest_ptr(&g->driver.guest, g->rx_at[i], len);
    vsock_header_decode(bytes, ret_header);
    need(len == VSOCK_HEADER_SIZE + ret_header->len, "length and header");
    if (ret_payload)
        memcpy(ret_payload, bytes + VSOCK_HEADER_SIZE, ret_header->len);
    g->rx_free[g->rx_free_count++] = i;
    return true;
}

int vsock_guest_connect(struct vsock_guest *g, uint32_t guest_port,
                        uint32_t buf_alloc, uint32_t *ret_host_port)
{
    struct vsock_header h;
    char line[64];
    int pair[2], len;
    ssize_t n;

    need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0,
         "socketpair");
    need(virtio_vsock_add_client(g->dev, pair[1]) == 0, "add_client");
    len = snprintf(line, sizeof(line), "CONNECT %u\n", guest_port);
    need(write(pair[0], line, (size_t)len) == len, "write");
    vsock_guest_run(g);
    need(vsock_guest_take(g, &h, NULL), "no REQUEST");
    need(h.op == VSOCK_OP_REQUEST && h.dst_port == guest_port, "REQUEST");
    *ret_host_port = h.src_port;
    vsock_guest_post(g, 1);
    h = vsock_guest_header(VSOCK_OP_RESPONSE, guest_port, *ret_host_port);
    h.buf_alloc = buf_alloc;
    vsock_guest_send(g, &h, NULL, 0);
    n = read(pair[0], line, sizeof(line) - 1);
    need(n > 0, "no OK line");
    line[n] = 0;
    need(strncmp(line, "OK ", 3) == 0 &&
             strtoul(line + 3, NULL, 10) == *ret_host_port,
         "OK line");
    return pair[0];
}
