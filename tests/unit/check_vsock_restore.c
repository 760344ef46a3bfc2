/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vsock device across a pause and a restore: buffers it had at hand are
 * given back, a restored guest is told that its connections are gone, and
 * until it has read that nothing reaches it.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "devices/vsock/vsock_device.h"
#include "tests/vsock_guest.h"

#define PORT 5000u
#define BUF (256u * 1024u)
#define EVENTS VSOCK_GUEST_EVENTS_MAX
#define REG_INTERRUPT_STATUS 0x060u

static struct vsock_guest g;

static void start(uint64_t features, unsigned events)
{
    vsock_guest_init(&g, -1);
    vsock_guest_start(&g, features, 64);
    vsock_guest_post_events(&g, events);
}

static void setup(void)
{
    start(VIRTIO_FEATURE_EVENT_IDX, EVENTS);
}

static void teardown(void)
{
    vsock_guest_fini(&g);
}

static struct virtio_vsock *vsock(void)
{
    return (struct virtio_vsock *)g.dev;
}

/* A new monitor takes over, and the guest is about to run. */
static void restore(void)
{
    vsock_guest_move(&g);
    virtio_mmio_restored(&g.driver.mmio);
}

/* The guest reads the event and gives its buffer back, as Linux does. */
static void acknowledge(void)
{
    uint32_t id = 99;
    unsigned buffer;

    ck_assert(vsock_guest_take_event(&g, &id, &buffer));
    ck_assert_uint_eq(id, 0);
    ck_assert_msg(vsock_guest_return_event(&g, buffer), "no kick wanted");
    ck_assert(!vsock_guest_take_event(&g, &id, &buffer));
    vsock_guest_run(&g);
}

static struct vsock_header expect(uint16_t op)
{
    struct vsock_header h;

    ck_assert(vsock_guest_take(&g, &h, NULL));
    ck_assert_uint_eq(h.op, op);
    vsock_guest_post(&g, 1);
    return h;
}

static void expect_nothing(void)
{
    struct vsock_header h;

    vsock_guest_run(&g);
    ck_assert(!vsock_guest_take(&g, &h, NULL));
}

static int client_says(const char *line)
{
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair),
                     0);
    ck_assert_int_eq(virtio_vsock_add_client(g.dev, pair[1]), 0);
    ck_assert_int_eq(write(pair[0], line, strlen(line)), (int)strlen(line));
    vsock_guest_run(&g);
    return pair[0];
}

/* "" at the end of the stream, "?" if nothing is there, else the bytes. */
static const char *host_read(int fd)
{
    static char text[256];
    ssize_t n = read(fd, text, sizeof(text) - 1);

    if (n < 0)
        return errno == ECONNRESET ? "" : "?";
    text[n] = 0;
    return text;
}

static void guest_write(uint32_t host_port, const char *text)
{
    struct vsock_header h = vsock_guest_header(VSOCK_OP_RW, PORT, host_port);

    h.len = (uint32_t)strlen(text);
    vsock_guest_send(&g, &h, text, h.len);
}

/* Bytes both ways over a connection that is there. */
static void talk(int fd, uint32_t host_port)
{
    uint8_t payload[VSOCK_GUEST_RX_SIZE];
    struct vsock_header h;

    guest_write(host_port, "ping");
    ck_assert_str_eq(host_read(fd), "ping");
    ck_assert_int_eq(write(fd, "pong", 4), 4);
    vsock_guest_run(&g);
    ck_assert(vsock_guest_take(&g, &h, payload));
    ck_assert_uint_eq(h.op, VSOCK_OP_RW);
    ck_assert_mem_eq(payload, "pong", 4);
    vsock_guest_post(&g, 1);
}

static void connect_and_talk(void)
{
    uint32_t host_port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &host_port);

    talk(fd, host_port);
    close(fd);
    vsock_guest_run(&g);
    expect(VSOCK_OP_SHUTDOWN);
    vsock_guest_control(&g, VSOCK_OP_RST, PORT, host_port);
}

/* ---- paused, and going on ---- */

/* Buffers taken ahead go back; the connection does not notice. */
START_TEST(test_quiesce_gives_buffers_back)
{
    struct virtqueue *rx = &g.dev->queues[VSOCK_QUEUE_RX];
    struct fake_state state;
    uint32_t host_port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &host_port);

    talk(fd, host_port);
    ck_assert_uint_gt(rx->in_flight, 0);
    fake_driver_save(&g.driver, &state);
    ck_assert_uint_eq(rx->in_flight, 0);
    talk(fd, host_port);
    ck_assert_uint_eq(virtio_vsock_stats(g.dev)->bytes_to_guest, 8);
    close(fd);
}
END_TEST

#define STREAM_STEPS 60

/* A stream both ways, paused at one step (or at each: STREAM_STEPS). */
static void stream(uint64_t features, int pause_at, uint8_t *ret_memory)
{
    static uint8_t bytes[VSOCK_GUEST_TX_SIZE];
    struct fake_state state;
    uint32_t host_port, taken = 0;
    int fd;

    start(features, EVENTS);
    fd = vsock_guest_connect(&g, PORT, BUF, &host_port);
    for (int i = 0; i < STREAM_STEPS; i++) {
        struct vsock_header h =
            vsock_guest_header(VSOCK_OP_RW, PORT, host_port);
        struct vsock_header got;

        memset(bytes, i, sizeof(bytes));
        h.len = (uint32_t)(1 + i * 37);
        h.fwd_cnt = taken;
        vsock_guest_send(&g, &h, bytes, h.len);
        if (i % 3 == 0) /* the reader is slow now and then */
            while (read(fd, bytes, sizeof(bytes)) > 0)
                vsock_guest_run(&g);
        ck_assert_int_gt(write(fd, bytes, (size_t)(1 + i * 997 % 20000)), 0);
        if (i == pause_at || pause_at == STREAM_STEPS)
            fake_driver_save(&g.driver, &state);
        vsock_guest_run(&g);
        if (i == pause_at || pause_at == STREAM_STEPS)
            fake_driver_save(&g.driver, &state);
        while (vsock_guest_take(&g, &got, NULL)) {
            taken += got.len;
            if (i % 2)
                vsock_guest_post(&g, 1);
        }
        vsock_guest_post(&g, 4);
    }
    ck_assert_uint_gt(taken, 300000);
    close(fd);
    vsock_guest_run(&g);
    virtio_mmio_quiesce(&g.driver.mmio);
    memcpy(ret_memory,
           fake_guest_ptr(&g.driver.guest, FAKE_GUEST_BASE, VSOCK_GUEST_MEMORY),
           VSOCK_GUEST_MEMORY);
    teardown();
}

START_TEST(test_paused_at_every_step)
{
    uint8_t *want = malloc(VSOCK_GUEST_MEMORY);
    uint8_t *got = malloc(VSOCK_GUEST_MEMORY);
    uint64_t features = _i ? VIRTIO_FEATURE_EVENT_IDX : 0;

    ck_assert(want && got);
    stream(features, -1, want);
    for (int i = 0; i <= STREAM_STEPS; i++) {
        stream(features, i, got);
        if (memcmp(want, got, VSOCK_GUEST_MEMORY) != 0)
            ck_abort_msg("memory differs after a pause at step %d", i);
    }
    free(want);
    free(got);
}
END_TEST

/* ---- restored ---- */

START_TEST(test_event_is_sent_once)
{
    unsigned interrupts = g.driver.interrupts;
    uint16_t used = *fake_queue_used_idx(&g.driver.queues[VSOCK_QUEUE_EVENT]);

    vsock_guest_move(&g); /* loading alone tells the guest nothing */
    ck_assert_uint_eq(*fake_queue_used_idx(&g.driver.queues[VSOCK_QUEUE_EVENT]),
                      used);
    ck_assert_uint_eq(g.driver.interrupts, interrupts);
    virtio_mmio_restored(&g.driver.mmio);
    ck_assert_uint_eq(*fake_queue_used_idx(&g.driver.queues[VSOCK_QUEUE_EVENT]),
                      used + 1);
    ck_assert_uint_gt(g.driver.interrupts, interrupts);
    ck_assert(fake_driver_read(&g.driver, REG_INTERRUPT_STATUS) & 1);
    ck_assert(vsock()->gate.shut);
    acknowledge();
    ck_assert(!vsock()->gate.shut);
    connect_and_talk();
    ck_assert_uint_eq(atomic_load(&g.dev->violations), 0);
}
END_TEST

/* The first client after a restore is connected, without a second try. */
START_TEST(test_client_waits_for_the_gate)
{
    struct vsock_header h;
    uint32_t before;
    int fd = vsock_guest_connect(&g, PORT, BUF, &before);
    const struct vsock_link *link;
    uint64_t now;

    restore();
    ck_assert_str_eq(host_read(fd), ""); /* not this machine's any more */
    close(fd);
    fd = client_says("CONNECT 5000\n");
    expect_nothing();
    ck_assert_str_eq(host_read(fd), "?");
    acknowledge();
    /* The guest's time to answer has begun just now. */
    now = io_now_ns();
    link = TAILQ_FIRST(&vsock()->links);
    ck_assert_uint_le(link->deadline_ns,
                      now + VSOCK_CONNECT_TIMEOUT_MS * 1000000ull);
    ck_assert_uint_gt(link->deadline_ns, now);
    h = expect(VSOCK_OP_REQUEST);
    ck_assert_uint_eq(h.dst_port, PORT);
    ck_assert_uint_gt(h.src_port, before); /* never used before */
    vsock_guest_control(&g, VSOCK_OP_RESPONSE, PORT, h.src_port);
    ck_assert_int_eq(strncmp(host_read(fd), "OK ", 3), 0);
    talk(fd, h.src_port);
    close(fd);
}
END_TEST

/* ... and is refused if the guest never reads its event. */
START_TEST(test_wait_for_the_gate_ends)
{
    struct vsock_link *link;
    int fd;

    restore();
    fd = client_says("CONNECT 5000\n");
    link = TAILQ_FIRST(&vsock()->links);
    ck_assert_ptr_nonnull(link);
    ck_assert_uint_gt(link->deadline_ns,
                      io_now_ns() + VSOCK_CONNECT_TIMEOUT_MS * 1000000ull);
    ck_assert_uint_le(link->deadline_ns,
                      io_now_ns() + VSOCK_GATE_TIMEOUT_MS * 1000000ull);
    link->deadline_ns = 1; /* long ago */
    ck_assert_int_gt(evloop_run_once(g.loop, 4 * (int)VSOCK_TICK_MS), 0);
    ck_assert_str_eq(host_read(fd), "");
    ck_assert_uint_eq(virtio_vsock_stats(g.dev)->refused, 1);
    ck_assert(TAILQ_EMPTY(&vsock()->links));
    ck_assert(vsock()->gate.shut);
    /* Idle again: the gate itself costs no timer and no wake-ups. */
    vsock_guest_run(&g);
    ck_assert_int_eq(evloop_run_once(g.loop, 2 * (int)VSOCK_TICK_MS), 0);
    close(fd);
    acknowledge();
    expect_nothing();
    connect_and_talk();
}
END_TEST

START_TEST(test_client_leaves_while_it_waits)
{
    int fd;

    restore();
    fd = client_says("CONNECT 5000\n");
    close(fd);
    vsock_guest_run(&g);
    ck_assert(TAILQ_EMPTY(&vsock()->links));
    acknowledge();
    expect_nothing();
}
END_TEST

/* Nobody is waited for who could not read the event. */
START_TEST(test_no_gate)
{
    vsock_guest_fini(&g);
    if (_i == 0) {
        start(VIRTIO_FEATURE_EVENT_IDX, 0); /* a driver without events */
    } else {
        vsock_guest_init(&g, -1); /* no driver yet */
    }
    restore();
    ck_assert(!vsock()->gate.shut);
    if (_i == 1) {
        int fd = client_says("CONNECT 5000\n");

        ck_assert_str_eq(host_read(fd), "");
        close(fd);
        vsock_guest_start(&g, VIRTIO_FEATURE_EVENT_IDX, 64);
        vsock_guest_post_events(&g, EVENTS);
    }
    connect_and_talk();
}
END_TEST

/*
 * A client that comes between the load and the guest's first instruction: it is
 * served when there is a guest, which has read its event or has none to read.
 */
START_TEST(test_client_before_the_guest_runs)
{
    const struct vsock_link *link;
    int fd;

    vsock_guest_fini(&g);
    start(VIRTIO_FEATURE_EVENT_IDX, _i ? EVENTS : 0);
    vsock_guest_move(&g);
    fd = client_says("CONNECT 5000\n");
    expect_nothing();
    link = TAILQ_FIRST(&vsock()->links);
    ck_assert_uint_gt(link->deadline_ns,
                      io_now_ns() + VSOCK_CONNECT_TIMEOUT_MS * 1000000ull);
    virtio_mmio_restored(&g.driver.mmio);
    if (_i) {
        expect_nothing();
        acknowledge();
    }
    ck_assert_uint_le(link->deadline_ns,
                      io_now_ns() + VSOCK_CONNECT_TIMEOUT_MS * 1000000ull);
    expect(VSOCK_OP_REQUEST);
    close(fd);
}
END_TEST

/* Packets of connections that are gone: RST, but only once it may be sent. */
START_TEST(test_old_connections_get_rst)
{
    struct vsock_header h;
    uint32_t host_port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &host_port);

    restore();
    guest_write(host_port, "to nobody");
    vsock_guest_control(&g, VSOCK_OP_RST, PORT + 1, host_port);
    expect_nothing();
    acknowledge();
    h = expect(VSOCK_OP_RST);
    ck_assert_uint_eq(h.src_port, host_port);
    ck_assert_uint_eq(h.dst_port, PORT);
    expect_nothing(); /* a RST is not answered */
    ck_assert_uint_eq(atomic_load(&g.dev->violations), 0);
    close(fd);
}
END_TEST

/* More of them than RSTs can be kept: the tx queue waits, nothing is lost. */
START_TEST(test_flood_before_the_event_is_read)
{
    unsigned sent = 0, rsts = 0;
    struct vsock_header h;

    restore();
    while (sent < VSOCK_RSTS_MAX + VSOCK_GUEST_TX_MAX) {
        struct vsock_header data =
            vsock_guest_header(VSOCK_OP_RW, PORT + sent, 7);

        if (!vsock_guest_queue(&g, &data, NULL, 0))
            break;
        sent++;
        fake_driver_kick(&g.driver, VSOCK_QUEUE_TX);
        vsock_guest_run(&g);
    }
    ck_assert_uint_eq(sent, VSOCK_RSTS_MAX + VSOCK_GUEST_TX_MAX);
    ck_assert(vsock()->tx.stopped);
    ck_assert_int_eq(evloop_run_once(g.loop, 0), 0);
    expect_nothing();
    acknowledge();
    /* There were rx buffers: that alone has got it going again. */
    ck_assert(!virtqueue_has_work(&g.dev->queues[VSOCK_QUEUE_TX]));
    for (unsigned round = 0; round < sent; round++) {
        while (vsock_guest_take(&g, &h, NULL)) {
            ck_assert_uint_eq(h.op, VSOCK_OP_RST);
            ck_assert_uint_eq(h.dst_port, PORT + rsts);
            rsts++;
        }
        vsock_guest_post(&g, VSOCK_GUEST_RX_MAX);
        vsock_guest_run(&g);
    }
    ck_assert_uint_eq(rsts, sent);
    ck_assert(!vsock()->tx.stopped);
    connect_and_talk();
}
END_TEST

/* A guest that connects out before it has read the event. */
START_TEST(test_guest_connects_meanwhile)
{
    restore();
    g.dial = VSOCK_GUEST_DIAL_ACCEPT;
    vsock_guest_control(&g, VSOCK_OP_REQUEST, PORT, 80);
    ck_assert_uint_eq(g.dial_count, 1);
    expect_nothing();
    acknowledge();
    expect(VSOCK_OP_RESPONSE);
    talk(g.dial_fd, 80);
    close(g.dial_fd);
}
END_TEST

/* Restored again before the event was read: that one still stands. */
START_TEST(test_restored_again)
{
    uint32_t id;
    unsigned buffer;
    int fd;

    for (int i = 0; i < 10; i++)
        restore();
    ck_assert(vsock()->gate.shut);
    ck_assert_uint_eq(
        fake_queue_used_count(&g.driver.queues[VSOCK_QUEUE_EVENT]), 1);
    fd = client_says("CONNECT 5000\n");
    expect_nothing();
    if (_i == 0) {
        acknowledge();
    } else {
        /* The buffer is back, its kick is lost: a restore looks itself. */
        ck_assert(vsock_guest_take_event(&g, &id, &buffer));
        struct fake_buf buf = {g.event_at[buffer], 4, true};

        ck_assert_int_ge(
            fake_queue_add(&g.driver.queues[VSOCK_QUEUE_EVENT], &buf, 1), 0);
        close(fd);
        restore();
        ck_assert(!vsock()->gate.shut);
        fd = client_says("CONNECT 5000\n");
    }
    expect(VSOCK_OP_REQUEST);
    close(fd);
}
END_TEST

/* Twenty generations, each with its own event and connection. */
START_TEST(test_generations)
{
    uint32_t last = 0;

    for (int i = 0; i < 20; i++) {
        uint32_t host_port;
        int fd;

        restore();
        acknowledge();
        fd = vsock_guest_connect(&g, PORT, BUF, &host_port);
        ck_assert_uint_gt(host_port, last);
        last = host_port;
        talk(fd, host_port);
        close(fd);
        ck_assert_uint_eq(virtio_vsock_stats(g.dev)->connections, 1);
    }
}
END_TEST

/* The same with a driver that knows no EVENT_IDX. */
START_TEST(test_without_event_idx)
{
    struct fake_queue *q = &g.driver.queues[VSOCK_QUEUE_EVENT];

    vsock_guest_fini(&g);
    start(0, EVENTS);
    ck_assert_uint_eq(*fake_queue_used_flags(q), 1); /* no kicks, please */
    restore();
    ck_assert_uint_eq(*fake_queue_used_flags(q), 0);
    acknowledge();
    ck_assert_uint_eq(*fake_queue_used_flags(q), 1);
    connect_and_talk();
}
END_TEST

static const struct {
    uint32_t readable; /* bytes in front; 0: none */
    uint32_t writable;
} bad_events[] = {{0, 3}, {4, 0}, {0, 1}, {4, 4}};

/* A buffer that cannot hold an event: the driver is broken. */
START_TEST(test_bad_event_buffer)
{
    struct fake_buf bufs[2];
    unsigned count = 0;
    gpa_t at;

    vsock_guest_fini(&g);
    start(VIRTIO_FEATURE_EVENT_IDX, 0);
    at = fake_guest_alloc(&g.driver.guest, 8, 4);
    if (bad_events[_i].readable)
        bufs[count++] = (struct fake_buf){at, bad_events[_i].readable, false};
    if (bad_events[_i].writable)
        bufs[count++] =
            (struct fake_buf){at + 4, bad_events[_i].writable, true};
    ck_assert_int_ge(
        fake_queue_add(&g.driver.queues[VSOCK_QUEUE_EVENT], bufs, count), 0);
    restore();
    ck_assert(fake_driver_needs_reset(&g.driver));
    ck_assert(!vsock()->gate.shut);
    /* As halted as it was, in the next machine too. */
    restore();
    ck_assert(fake_driver_needs_reset(&g.driver));
    ck_assert(vsock()->halted);
    vsock_guest_start(&g, VIRTIO_FEATURE_EVENT_IDX, 64);
    connect_and_talk();
}
END_TEST

/* The driver starts over instead: nothing is left of the gate. */
START_TEST(test_reset_opens_the_gate)
{
    restore();
    vsock_guest_start(&g, VIRTIO_FEATURE_EVENT_IDX, 64);
    ck_assert(!vsock()->gate.shut);
    connect_and_talk();
}
END_TEST

/* Loading into a device that is in use: its connections end. */
START_TEST(test_rolled_back_in_place)
{
    struct fake_state state;
    struct vsock_header h;
    uint32_t first, host_port;
    uint8_t *memory =
        fake_guest_ptr(&g.driver.guest, FAKE_GUEST_BASE, VSOCK_GUEST_MEMORY);
    uint8_t *saved_memory = malloc(VSOCK_GUEST_MEMORY);
    struct vsock_guest saved;
    int fd;

    ck_assert_ptr_nonnull(saved_memory);
    fake_driver_save(&g.driver, &state);
    memcpy(saved_memory, memory, VSOCK_GUEST_MEMORY);
    saved = g;
    for (int i = 0; i < 3; i++) {
        restore();
        acknowledge();
        fd = vsock_guest_connect(&g, PORT, BUF, &host_port);
        if (i == 0)
            first = host_port;
        ck_assert_uint_eq(host_port, first);
        talk(fd, host_port);
        ck_assert_int_gt(write(fd, saved_memory, 1u << 16), 0);
        ck_assert_int_eq(fake_driver_load(&g.driver, state.bytes, state.len),
                         0);
        ck_assert_str_eq(host_read(fd), "");
        close(fd);
        ck_assert_uint_eq(virtio_vsock_stats(g.dev)->bytes_to_guest, 0);
        ck_assert_uint_eq(virtio_vsock_stats(g.dev)->connections, 0);
        /* Memory and what the driver knows go back as well. */
        memcpy(memory, saved_memory, VSOCK_GUEST_MEMORY);
        saved.driver.mmio = g.driver.mmio;
        saved.dev = g.dev;
        g = saved;
        vsock_guest_run(&g);
        ck_assert(!vsock_guest_take(&g, &h, NULL));
    }
    free(saved_memory);
}
END_TEST

/* The guest's full close is answered at once: it has no 8 s to wait. */
START_TEST(test_full_shutdown_is_answered_at_once)
{
    struct vsock_header h;
    uint32_t host_port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &host_port);

    h = vsock_guest_header(VSOCK_OP_SHUTDOWN, PORT, host_port);
    h.flags = VSOCK_SHUTDOWN_BOTH;
    vsock_guest_queue(&g, &h, NULL, 0);
    fake_driver_kick(&g.driver, VSOCK_QUEUE_TX);
    /* Within the kick, whatever the host's side does. */
    ck_assert(vsock_guest_take(&g, &h, NULL));
    ck_assert_uint_eq(h.op, VSOCK_OP_RST);
    close(fd);
}
END_TEST

/* A driver that was asked to kick for rx buffers is asked no second time. */
START_TEST(test_wish_for_rx_buffers_is_kept)
{
    struct fake_queue *q = &g.driver.queues[VSOCK_QUEUE_RX];
    struct vsock_header h;
    uint32_t host_port;
    int fd;

    vsock_guest_fini(&g);
    start(0, EVENTS);
    fd = vsock_guest_connect(&g, PORT, BUF, &host_port);
    for (int i = 0; i < 80; i++) {
        ck_assert_int_gt(write(fd, &i, sizeof(i)), 0);
        vsock_guest_run(&g);
    }
    while (vsock_guest_take(&g, &h, NULL))
        ;
    ck_assert_uint_eq(*fake_queue_used_flags(q), 0);
    restore();
    acknowledge();
    close(fd);
    ck_assert_uint_eq(*fake_queue_used_flags(q), 0);
    vsock_guest_post(&g, VSOCK_GUEST_RX_MAX);
    connect_and_talk();
    ck_assert_uint_eq(*fake_queue_used_flags(q), 1);
}
END_TEST

/* The other device of another guest. */
START_TEST(test_other_cid_is_refused)
{
    struct virtio_vsock_options options = {
        .guest_cid = VSOCK_GUEST_CID + 1, .loop = g.loop, .listen_fd = -1};
    struct fake_state state;

    fake_driver_save(&g.driver, &state);
    ck_assert_int_eq(virtio_vsock_new(&options, &g.dev), 0);
    fake_driver_replace(&g.driver, g.dev);
    ck_assert_int_eq(fake_driver_load(&g.driver, state.bytes, state.len),
                     -EBADMSG);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vsock_restore");
    TCase *tc = tcase_create("restore");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_quiesce_gives_buffers_back);
    tcase_add_test(tc, test_event_is_sent_once);
    tcase_add_test(tc, test_client_waits_for_the_gate);
    tcase_add_test(tc, test_wait_for_the_gate_ends);
    tcase_add_test(tc, test_client_leaves_while_it_waits);
    tcase_add_loop_test(tc, test_no_gate, 0, 2);
    tcase_add_loop_test(tc, test_client_before_the_guest_runs, 0, 2);
    tcase_add_test(tc, test_old_connections_get_rst);
    tcase_add_test(tc, test_flood_before_the_event_is_read);
    tcase_add_test(tc, test_guest_connects_meanwhile);
    tcase_add_loop_test(tc, test_restored_again, 0, 2);
    tcase_add_test(tc, test_generations);
    tcase_add_test(tc, test_without_event_idx);
    tcase_add_loop_test(tc, test_bad_event_buffer, 0,
                        (int)ARRAY_SIZE(bad_events));
    tcase_add_test(tc, test_reset_opens_the_gate);
    tcase_add_test(tc, test_rolled_back_in_place);
    tcase_add_test(tc, test_full_shutdown_is_answered_at_once);
    tcase_add_test(tc, test_wish_for_rx_buffers_is_kept);
    tcase_add_test(tc, test_other_cid_is_refused);
    suite_add_tcase(suite, tc);
    tc = tcase_create("pause");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_paused_at_every_step, 0, 2);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
