/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams through the vsock device: random interleavings against a model that
 * counts bytes, slow readers on either side, many connections, no rx buffers.
 * Streams carry a pattern, so a lost, doubled or moved byte is seen.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/vsock/vsock_device.h"
#include "tests/vsock_guest.h"

#define PORT 5000u
#define CHUNK 65536u

static struct vsock_guest g;

/* One connection as both ends see it. */
struct end {
    int fd; /* the host's client */
    uint32_t port;
    uint64_t guest_sent, host_got; /* guest to host */
    uint64_t host_sent, guest_got; /* host to guest */
    uint64_t guest_consumed;       /* of guest_got: read by its program */
    uint32_t buf_alloc;            /* the guest's buffer */
    uint32_t peer_buf_alloc, peer_fwd_cnt; /* as the device said */
    bool ended;
};

static struct end ends[300];
static unsigned end_count;

static uint8_t pattern(uint64_t at, uint32_t port)
{
    return (uint8_t)((at * 2654435761u >> 11) + port);
}

static void fill(uint8_t *bytes, size_t len, uint64_t at, uint32_t port)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = pattern(at + i, port);
}

static bool matches(const uint8_t *bytes, size_t len, uint64_t at,
                    uint32_t port)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != pattern(at + i, port))
            return false;
    }
    return true;
}

static void setup(void)
{
    vsock_guest_init(&g, -1);
    vsock_guest_start(&g, VIRTIO_FEATURE_EVENT_IDX, 64);
    end_count = 0;
}

static void teardown(void)
{
    for (unsigned i = 0; i < end_count; i++)
        close(ends[i].fd);
    vsock_guest_fini(&g);
}

static struct end *open_end(uint32_t buf_alloc)
{
    struct end *e = &ends[end_count++];

    memset(e, 0, sizeof(*e));
    e->buf_alloc = buf_alloc;
    e->peer_buf_alloc = VSOCK_BUFFER_SMALL;
    e->fd = vsock_guest_connect(&g, PORT, buf_alloc, &e->port);
    return e;
}

static struct vsock_header end_header(struct end *e, uint16_t op)
{
    struct vsock_header h = vsock_guest_header(op, PORT, e->port);

    h.buf_alloc = e->buf_alloc;
    h.fwd_cnt = (uint32_t)e->guest_consumed;
    return h;
}

static uint32_t guest_credit(const struct end *e)
{
    return e->peer_buf_alloc - ((uint32_t)e->guest_sent - e->peer_fwd_cnt);
}

/* Queues up to len bytes as one packet; how many went. */
static uint32_t guest_write(struct end *e, uint32_t len)
{
    static uint8_t bytes[CHUNK];
    struct vsock_header h = end_header(e, VSOCK_OP_RW);

    if (len > guest_credit(e))
        len = guest_credit(e);
    if (len == 0)
        return 0;
    fill(bytes, len, e->guest_sent, e->port);
    h.len = len;
    if (!vsock_guest_queue(&g, &h, bytes, len))
        return 0;
    e->guest_sent += len;
    return len;
}

static void guest_consume(struct end *e, uint64_t len)
{
    struct vsock_header h;

    e->guest_consumed += len;
    h = end_header(e, VSOCK_OP_CREDIT_UPDATE);
    vsock_guest_send(&g, &h, NULL, 0);
}

/* Takes every packet there is, and posts new buffers if told so. */
static void guest_receive(bool post)
{
    static uint8_t bytes[VSOCK_GUEST_RX_SIZE];
    struct vsock_header h;
    unsigned taken = 0;

    while (vsock_guest_take(&g, &h, bytes)) {
        struct end *e = &ends[h.src_port - ends[0].port];

        ck_assert_ptr_eq(e, &ends[e - ends]);
        e->peer_buf_alloc = h.buf_alloc;
        e->peer_fwd_cnt = h.fwd_cnt;
        if (h.op == VSOCK_OP_RW) {
            ck_assert(matches(bytes, h.len, e->guest_got, ~e->port));
            e->guest_got += h.len;
            ck_assert_uint_le(e->guest_got - e->guest_consumed, e->buf_alloc);
        } else {
            ck_assert(h.op == VSOCK_OP_CREDIT_UPDATE ||
                      h.op == VSOCK_OP_SHUTDOWN);
        }
        taken++;
    }
    if (post)
        vsock_guest_post(&g, taken);
}

static size_t host_write(struct end *e, size_t len)
{
    static uint8_t bytes[CHUNK];
    ssize_t n;

    fill(bytes, len, e->host_sent, ~e->port);
    n = send(e->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0)
        e->host_sent += (uint64_t)n;
    return n > 0 ? (size_t)n : 0;
}

static size_t host_read(struct end *e, size_t len)
{
    static uint8_t bytes[CHUNK];
    ssize_t n = recv(e->fd, bytes, len, MSG_DONTWAIT);

    if (n <= 0) {
        e->ended = n == 0;
        return 0;
    }
    ck_assert(matches(bytes, (size_t)n, e->host_got, e->port));
    e->host_got += (uint64_t)n;
    return (size_t)n;
}

static void kick(void)
{
    fake_driver_kick(&g.driver, VSOCK_QUEUE_TX);
}

/* Everything on its way arrives. */
static void drain_all(void)
{
    bool moved = true;

    vsock_guest_post(&g, VSOCK_GUEST_RX_MAX);
    while (moved) {
        moved = evloop_run_once(g.loop, 0) > 0;
        guest_receive(true);
        for (unsigned i = 0; i < end_count; i++) {
            moved |= host_read(&ends[i], CHUNK) > 0;
            if (ends[i].guest_got > ends[i].guest_consumed) {
                guest_consume(&ends[i],
                              ends[i].guest_got - ends[i].guest_consumed);
                moved = true;
            }
        }
    }
    for (unsigned i = 0; i < end_count; i++) {
        ck_assert_uint_eq(ends[i].host_got, ends[i].guest_sent);
        ck_assert_uint_eq(ends[i].guest_got, ends[i].host_sent);
    }
    ck_assert_uint_eq(atomic_load(&g.dev->violations), 0);
}

static void random_step(void)
{
    struct end *e = &ends[(unsigned)rand() % end_count];
    uint32_t n = (uint32_t)rand() >> (rand() % 24);

    switch (rand() % 9) {
    case 0:
    case 1:
        (void)guest_write(e, n % CHUNK + 1);
        break;
    case 2:
        kick();
        break;
    case 3: /* a tiny guest buffer would take for ever to drain */
        if (e->host_sent < e->guest_consumed + 100 * e->buf_alloc)
            (void)host_write(e, n % CHUNK + 1);
        break;
    case 4:
        (void)host_read(e, n % CHUNK + 1);
        break;
    case 5:
        ck_assert_int_ge(evloop_run_once(g.loop, 0), 0);
        break;
    case 6:
        guest_receive(false);
        break;
    case 7:
        vsock_guest_post(&g, n % 8);
        break;
    default:
        kick(); /* so that there is a tx buffer */
        if (e->guest_got > e->guest_consumed)
            guest_consume(e, n % (e->guest_got - e->guest_consumed) + 1);
        break;
    }
}

START_TEST(random_interleaving)
{
    static const uint32_t sizes[] = {10, 1000, 5000, 65536, 262144};
    uint64_t total = 0;

    srand(4242u + (unsigned)_i);
    for (unsigned i = 0; i < 4; i++)
        (void)open_end(sizes[(unsigned)(_i + (int)i) % ARRAY_SIZE(sizes)]);
    for (unsigned i = 0; i < 20000; i++)
        random_step();
    kick();
    drain_all();
    for (unsigned i = 0; i < end_count; i++)
        total += ends[i].guest_sent + ends[i].host_sent;
    ck_assert_uint_gt(total, 1u << 20);
    ck_assert_uint_eq(virtio_vsock_stats(g.dev)->bytes_to_guest +
                          virtio_vsock_stats(g.dev)->bytes_from_guest,
                      total);
}
END_TEST

/* The guest sends all it may to a host that does not read. */
START_TEST(slow_host)
{
    struct virtio_vsock *vsock = (struct virtio_vsock *)g.dev;
    struct end *e = open_end(CHUNK);
    struct vsock_link *link = TAILQ_FIRST(&vsock->links);
    uint32_t size = _i ? 7 : CHUNK; /* a few large packets, or many small */

    vsock_guest_control(&g, VSOCK_OP_CREDIT_REQUEST, PORT, e->port);
    guest_receive(true);
    ck_assert_uint_eq(e->peer_buf_alloc, VSOCK_BUFFER_SIZE);
    while (guest_write(e, size) > 0) {
        kick();
        guest_receive(true);
        if (size == 7 && e->guest_sent > 1u << 17)
            size = CHUNK; /* small ones have made their point */
    }
    vsock_guest_run(&g);
    ck_assert_uint_eq(guest_credit(e), 0);
    ck_assert_uint_gt(link->host.ring_len, VSOCK_BUFFER_SIZE / 2);
    ck_assert_uint_le(link->host.ring_len, VSOCK_BUFFER_SIZE);
    ck_assert_int_eq(evloop_run_once(g.loop, 20), 0); /* no spinning */
    drain_all();
    ck_assert_ptr_null(link->host.ring);
}
END_TEST

/* The end of the stream waits until the slow host has everything. */
START_TEST(slow_host_and_guest_closes)
{
    struct virtio_vsock *vsock = (struct virtio_vsock *)g.dev;
    struct end *e = open_end(CHUNK);
    struct vsock_header h = end_header(e, VSOCK_OP_SHUTDOWN);

    while (guest_write(e, CHUNK) > 0) {
        kick();
        guest_receive(true);
    }
    h.flags = _i ? VSOCK_SHUTDOWN_BOTH : VSOCK_SHUTDOWN_SEND;
    vsock_guest_send(&g, &h, NULL, 0);
    if (_i) {
        ck_assert(vsock_guest_take(&g, &h, NULL));
        ck_assert_uint_eq(h.op, VSOCK_OP_RST);
    }
    while (!e->ended) {
        (void)host_read(e, CHUNK);
        ck_assert_int_ge(evloop_run_once(g.loop, 0), 0);
    }
    ck_assert_uint_eq(e->host_got, e->guest_sent);
    ck_assert_uint_eq(vsock->link_count, _i ? 0 : 1);
}
END_TEST

/* The host sends all it may to a guest that takes packets and reads nothing. */
START_TEST(slow_guest)
{
    struct end *e = open_end(100000);

    for (unsigned i = 0; i < 100; i++) {
        (void)host_write(e, CHUNK);
        vsock_guest_run(&g);
        guest_receive(true);
    }
    ck_assert_uint_eq(e->guest_got, 100000);
    ck_assert_int_eq(evloop_run_once(g.loop, 20), 0);
    drain_all();
    ck_assert_uint_gt(e->guest_got, 100000);
}
END_TEST

START_TEST(no_rx_buffers)
{
    struct end *e = open_end(1u << 20);
    unsigned before;

    vsock_guest_run(&g);
    while (host_write(e, CHUNK) > 0)
        vsock_guest_run(&g);
    /* All 64 buffers are full; nothing spins, nothing is lost. */
    ck_assert_int_eq(evloop_run_once(g.loop, 20), 0);
    ck_assert_uint_eq(fake_queue_used_count(&g.driver.queues[0]), 64);
    /* The way to the host is open meanwhile. */
    ck_assert_uint_eq(guest_write(e, 10000), 10000);
    kick();
    ck_assert_uint_eq(host_read(e, CHUNK), 10000);
    /* Two buffers more: two packets more. */
    before = fake_queue_used_count(&g.driver.queues[0]);
    vsock_guest_post(&g, 2);
    ck_assert_uint_eq(fake_queue_used_count(&g.driver.queues[0]), before + 2);
    guest_receive(true);
    drain_all();
}
END_TEST

/* With few rx buffers every connection gets its turn. */
START_TEST(scarce_rx_buffers_are_shared)
{
    vsock_guest_start(&g, _i ? VIRTIO_FEATURE_EVENT_IDX : 0, 16);
    for (unsigned i = 0; i < 20; i++)
        (void)open_end(1u << 20);
    guest_receive(false);
    for (unsigned i = 0; i < 600; i++) {
        for (unsigned k = 0; k < 20; k++)
            (void)host_write(&ends[k], 4000);
        ck_assert_int_ge(evloop_run_once(g.loop, 0), 0);
        guest_receive(false);
        vsock_guest_post(&g, 1 + i % 2);
    }
    for (unsigned k = 0; k < 20; k++)
        ck_assert_uint_gt(ends[k].guest_got, 50000);
    drain_all();
}
END_TEST

START_TEST(many_connections)
{
    for (unsigned i = 0; i < 300; i++)
        (void)open_end(CHUNK);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < end_count; i++) {
            (void)guest_write(&ends[i], 3000);
            (void)host_write(&ends[i], 5000);
            if (i % 16 == 0)
                kick();
        }
        kick();
        drain_all();
    }
    for (unsigned i = 0; i < end_count; i++) {
        ck_assert_uint_eq(ends[i].host_got, 15000);
        ck_assert_uint_eq(ends[i].guest_got, 25000);
    }
}
END_TEST

/* A reset at every point of a busy life; then all starts anew. */
START_TEST(reset_with_traffic)
{
    srand(77u + (unsigned)_i);
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned i = 0; i < 8; i++)
            (void)open_end(CHUNK);
        for (int i = rand() % 300; i > 0; i--)
            random_step();
        if (round % 2)
            fake_driver_reset(&g.driver);
        vsock_guest_start(&g, VIRTIO_FEATURE_EVENT_IDX, 64);
        for (unsigned i = 0; i < end_count; i++) {
            while (host_read(&ends[i], CHUNK) > 0)
                ;
            ck_assert_uint_le(ends[i].host_got, ends[i].guest_sent);
            close(ends[i].fd);
        }
        end_count = 0;
        vsock_guest_run(&g);
        /* The fake guest's memory only grows: a new one now and then. */
        if (round % 10 == 9) {
            vsock_guest_fini(&g);
            setup();
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vsock_stream");
    TCase *tc = tcase_create("stream");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, random_interleaving, 0, 10);
    tcase_add_loop_test(tc, slow_host, 0, 2);
    tcase_add_loop_test(tc, slow_host_and_guest_closes, 0, 2);
    tcase_add_test(tc, slow_guest);
    tcase_add_test(tc, no_rx_buffers);
    tcase_add_loop_test(tc, scarce_rx_buffers_are_shared, 0, 2);
    tcase_add_test(tc, many_connections);
    tcase_add_loop_test(tc, reset_with_traffic, 0, 4);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
