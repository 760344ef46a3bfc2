/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest's vsock driver: the input is a script of packets, raw
 * descriptors, buffers given and taken, and of what the host does meanwhile:
 * its clients, and pauses and restores of the machine.
 * After each step every connection must satisfy its invariants.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vsock/vsock_device.h"
#include "tests/vsock_guest.h"

#define CLIENTS 4u
#define PORT 1u

struct script {
    const uint8_t *data;
    size_t size;
};

static struct vsock_guest g;
static int clients[CLIENTS];
/* Heads the fake driver never gave were published: it must not collect. */
static bool raw;

static uint8_t next_byte(struct script *s)
{
    if (s->size == 0)
        return 0;
    s->size--;
    return *s->data++;
}

static void next_bytes(struct script *s, void *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = next_byte(s);
}

/* A packet with few ports and lengths, so that connections are met. */
static void likely_packet(struct script *s)
{
    static const uint8_t payload[256];
    uint8_t ports = next_byte(s), len = next_byte(s);
    struct vsock_header h = vsock_guest_header(
        next_byte(s) & 15, PORT + (ports & 3),
        ports & 64 ? ports >> 2 & 3 : VSOCK_HOST_PORT_FIRST + (ports >> 2 & 3));

    h.flags = next_byte(s) & 7;
    h.buf_alloc = (uint32_t)next_byte(s) << 8;
    h.fwd_cnt = next_byte(s);
    h.len = len;
    if (!raw)
        (void)vsock_guest_queue(&g, &h, payload,
                                ports & 128 ? next_byte(s) : len);
}

static void raw_packet(struct script *s)
{
    uint8_t bytes[VSOCK_HEADER_SIZE];
    struct vsock_header h;

    next_bytes(s, bytes, sizeof(bytes));
    vsock_header_decode(bytes, &h);
    if (!raw)
        (void)vsock_guest_queue(&g, &h, bytes,
                                next_byte(s) % VSOCK_HEADER_SIZE);
}

/* Writes a descriptor and publishes whatever head it says. */
static void raw_descriptor(struct script *s)
{
    struct fake_queue *q = &g.driver.queues[next_byte(s) % 2];
    struct fake_desc *d = fake_queue_desc(q, next_byte(s));

    raw = true;
    d->addr = FAKE_GUEST_BASE + ((uint64_t)next_byte(s) << 16 | next_byte(s));
    d->len = next_byte(s);
    d->flags = next_byte(s) & 7;
    d->next = next_byte(s);
    fake_queue_publish(q, next_byte(s));
}

static void host_step(struct script *s)
{
    static char bytes[4096];
    uint8_t what = next_byte(s);
    int *fd = &clients[what >> 4 & 3];
    int pair[2];

    if (*fd < 0) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
            abort();
        *fd = pair[0];
        if (write(*fd, "CONNECT 1\n", 10) != 10 ||
            virtio_vsock_add_client(g.dev, pair[1]) < 0)
            abort();
        return;
    }
    switch (what & 7) {
    case 0:
        close(*fd);
        *fd = -1;
        break;
    case 1:
        shutdown(*fd, what & 8 ? SHUT_RD : SHUT_WR);
        break;
    case 2:
    case 3:
        (void)!recv(*fd, bytes, sizeof(bytes), 0);
        break;
    default:
        (void)!send(*fd, bytes, (size_t)next_byte(s) * 16, MSG_NOSIGNAL);
        break;
    }
}

/* Event buffers, given for the first time or back. */
static void event_step(void)
{
    unsigned buffer;
    uint32_t id;

    if (vsock_guest_take_event(&g, &id, &buffer))
        (void)vsock_guest_return_event(&g, buffer);
    else if (g.driver.queues[VSOCK_QUEUE_EVENT].free_count > 2)
        vsock_guest_post_events(&g, 2);
}

/* A pause, or another machine that goes on with the guest. */
static void machine_step(uint8_t what)
{
    static struct fake_state state;

    if (what & 16) {
        fake_driver_save(&g.driver, &state);
        return;
    }
    vsock_guest_move(&g);
    if (what & 128) /* clients come before the guest runs */
        vsock_guest_run(&g);
    virtio_mmio_restored(&g.driver.mmio);
}

static void step(struct script *s)
{
    struct virtio_vsock *vsock;
    uint8_t what = next_byte(s);
    struct vsock_link *link;
    struct vsock_header h;

    switch (what & 15) {
    case 0:
    case 1:
    case 2:
    case 3:
        likely_packet(s);
        break;
    case 4:
        raw_packet(s);
        break;
    case 5:
        if (what == 0xf5) /* rarely: it ends most of the life there is */
            raw_descriptor(s);
        break;
    case 6:
    case 7:
        host_step(s);
        break;
    case 8:
        g.dial = (enum vsock_guest_dial)(what >> 4) % 2;
        virtio_vsock_dial_result(g.dev, what >> 5, -1);
        break;
    case 9:
        if (what != 0x99)
            break;
        vsock_guest_start(&g, VIRTIO_FEATURE_EVENT_IDX, 4);
        raw = false;
        break;
    case 10:
        while (!raw && vsock_guest_take(&g, &h, NULL))
            vsock_guest_post(&g, what >> 4 & 1);
        break;
    case 11:
        event_step();
        break;
    case 12:
        machine_step(what);
        break;
    default:
        break;
    }
    if (what & 64)
        fake_driver_kick_force(&g.driver, (what >> 7) & 1);
    if (what & 32)
        vsock_guest_run(&g);
    vsock = (struct virtio_vsock *)g.dev;
    TAILQ_FOREACH(link, &vsock->links, all_entry)
    {
        if (!vsock_conn_check(&link->conn) ||
            link->host.ring_len > link->host.ring_size)
            abort();
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        if (!virtqueue_check(&vsock->dev.queues[i]))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, size < 4096 ? size : 4096};

    vsock_guest_init(&g, -1);
    vsock_guest_start(&g, VIRTIO_FEATURE_EVENT_IDX, 100);
    raw = false;
    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i] = -1;
    for (unsigned steps = 0; s.size > 0 && steps < 300; steps++)
        step(&s);
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (clients[i] >= 0)
            close(clients[i]);
    }
    vsock_guest_fini(&g);
    return 0;
}
