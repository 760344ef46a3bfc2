/* SPDX-License-Identifier: Apache-2.0 */
/* The vsock device against a guest that keeps to no rule. */
#include <check.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "devices/vsock/vsock_device.h"
#include "tests/vsock_guest.h"

#define PORT 5000u
#define BUF (256u * 1024u)

static struct vsock_guest g;

static void setup(void)
{
    vsock_guest_init(&g, -1);
    vsock_guest_start(&g, VIRTIO_FEATURE_EVENT_IDX, 64);
}

static void teardown(void)
{
    vsock_guest_fini(&g);
}

static uint64_t violations(void)
{
    return atomic_load(&g.dev->violations);
}

static struct virtio_vsock *vsock(void)
{
    return (struct virtio_vsock *)g.dev;
}

/*
 * One packet with one thing wrong, on an open connection and on none. What
 * comes back is a RST or silence, the chain always comes back, and what it
 * does to the connection is in the table.
 */
struct bad_packet {
    const char *what;
    uint64_t src_cid, dst_cid;
    uint16_t type, op;
    uint32_t len, payload;
    bool answered; /* by a RST */
    bool ends;     /* the connection */
    bool counted;  /* as a violation, when the connection exists */
};

#define G VSOCK_GUEST_CID
#define H VSOCK_CID_HOST
static const struct bad_packet bad_packets[] = {
    {"wrong source", G + 1, H, 1, VSOCK_OP_RW, 1, 1, false, false, true},
    {"host as source", H, H, 1, VSOCK_OP_RW, 1, 1, false, false, true},
    {"source 2^63", 1ull << 63 | G, H, 1, VSOCK_OP_RST, 0, 0, false, false,
     true},
    {"to the hypervisor", G, 0, 1, VSOCK_OP_RW, 1, 1, true, false, false},
    {"to local", G, 1, 1, VSOCK_OP_REQUEST, 0, 0, true, false, false},
    {"to itself", G, G, 1, VSOCK_OP_REQUEST, 0, 0, true, false, false},
    {"to another guest", G, 77, 1, VSOCK_OP_RW, 1, 1, true, false, false},
    {"to high bits", G, 1ull << 32 | H, 1, VSOCK_OP_RW, 1, 1, true, false,
     false},
    {"reset to another guest", G, 77, 1, VSOCK_OP_RST, 0, 0, false, false,
     false},
    {"type 0", G, H, 0, VSOCK_OP_RW, 1, 1, true, false, false},
    {"seqpacket", G, H, 2, VSOCK_OP_RW, 1, 1, true, false, false},
    {"type ffff", G, H, 0xffff, VSOCK_OP_RW, 1, 1, true, false, false},
    {"length beyond the chain", G, H, 1, VSOCK_OP_RW, 2, 1, true, true, true},
    {"length without payload", G, H, 1, VSOCK_OP_RW, 1, 0, true, true, true},
    {"length 2^32 - 1", G, H, 1, VSOCK_OP_RW, UINT32_MAX, 9, true, true, true},
    {"control with false length", G, H, 1, VSOCK_OP_CREDIT_UPDATE, 5, 0, true,
     true, true},
    {"op 0", G, H, 1, VSOCK_OP_INVALID, 0, 0, true, true, true},
    {"op 8", G, H, 1, 8, 0, 0, true, true, true},
    {"op ffff", G, H, 1, 0xffff, 0, 0, true, true, true},
    {"second request", G, H, 1, VSOCK_OP_REQUEST, 0, 0, true, true, true},
    {"response", G, H, 1, VSOCK_OP_RESPONSE, 0, 0, true, true, true},
    {"reset", G, H, 1, VSOCK_OP_RST, 0, 0, false, true, false},
};
#undef G
#undef H

START_TEST(bad_packet)
{
    const struct bad_packet *bad = &bad_packets[_i % 100];
    bool open = _i < 100;
    uint8_t payload[16] = {0};
    struct vsock_header h, answer;
    uint32_t port = 99;
    int fd = open ? vsock_guest_connect(&g, PORT, BUF, &port) : -1;
    char byte;

    if ((unsigned)_i % 100 >= ARRAY_SIZE(bad_packets))
        return;
    h = vsock_guest_header(bad->op, PORT, port);
    h.src_cid = bad->src_cid;
    h.dst_cid = bad->dst_cid;
    h.type = bad->type;
    h.len = bad->len;
    g.dial = VSOCK_GUEST_DIAL_REFUSE;
    vsock_guest_send(&g, &h, payload, bad->payload);
    ck_assert_uint_eq(fake_queue_used_count(&g.driver.queues[1]), 1);
    ck_assert_int_eq(vsock_guest_take(&g, &answer, NULL), bad->answered);
    if (bad->answered) {
        ck_assert_uint_eq(answer.op, VSOCK_OP_RST);
        ck_assert_uint_eq(answer.src_cid, h.dst_cid);
        ck_assert_uint_eq(answer.src_port, h.dst_port);
        ck_assert_uint_eq(answer.dst_port, h.src_port);
        ck_assert_uint_eq(answer.type, h.type);
    }
    ck_assert(!vsock_guest_take(&g, &answer, NULL));
    if (open) {
        ck_assert_uint_eq(violations(), bad->counted);
        ck_assert_int_eq(read(fd, &byte, 1), bad->ends ? 0 : -1);
        ck_assert_uint_eq(vsock()->link_count, bad->ends ? 0 : 1);
        close(fd);
    }
    ck_assert(!fake_driver_needs_reset(&g.driver));
}
END_TEST

START_TEST(chain_without_a_header)
{
    gpa_t at = fake_guest_alloc(&g.driver.guest, 256, 8);
    struct fake_buf bufs[] = {{at, _i == 0 ? 43 : 44, false},
                              {at + 64, 100, true}};

    ck_assert_uint_eq(fake_driver_request(&g.driver, 1, bufs, _i == 0 ? 1 : 2),
                      0);
    ck_assert_uint_eq(violations(), 1);
    ck_assert(!fake_driver_needs_reset(&g.driver));
}
END_TEST

START_TEST(credit_overrun)
{
    static uint8_t bytes[VSOCK_GUEST_TX_SIZE];
    struct vsock_header h;
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);
    uint64_t got = 0;
    ssize_t n;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    h = vsock_guest_header(VSOCK_OP_RW, PORT, port);
    h.len = VSOCK_GUEST_TX_SIZE;
    /* Without looking at any credit: a buffer's worth is taken, no more. */
    for (unsigned i = 0; i < 50; i++)
        (void)vsock_guest_queue(&g, &h, bytes, h.len);
    fake_driver_kick(&g.driver, 1);
    ck_assert_uint_eq(violations(), 1);
    do {
        while ((n = read(fd, bytes, sizeof(bytes))) > 0)
            got += (uint64_t)n;
        vsock_guest_run(&g);
    } while (n != 0);
    ck_assert_uint_eq(got, VSOCK_BUFFER_SIZE);
    ck_assert_uint_eq(vsock()->link_count, 0);
    close(fd);
}
END_TEST

/* A guest that wants to know all about ports it never opened. */
START_TEST(rsts_are_bounded)
{
    unsigned sent = 0, rsts = 0;
    struct vsock_header h;

    vsock_guest_start(&g, _i ? VIRTIO_FEATURE_EVENT_IDX : 0, 0);
    /* With no rx buffer the tx queue stops when the list is full. */
    for (; sent < 1000; sent++) {
        h = vsock_guest_header(VSOCK_OP_RW, sent, 1);
        if (!vsock_guest_queue(&g, &h, NULL, 0))
            break;
        fake_driver_kick(&g.driver, 1);
        vsock_guest_run(&g);
    }
    ck_assert_uint_eq(sent, VSOCK_RSTS_MAX + VSOCK_GUEST_TX_MAX);
    ck_assert_int_eq(evloop_run_once(g.loop, 20), 0);
    /* Each has its answer, in order, once there are buffers. */
    while (rsts < sent) {
        vsock_guest_post(&g, 3);
        while (vsock_guest_take(&g, &h, NULL)) {
            ck_assert_uint_eq(h.op, VSOCK_OP_RST);
            ck_assert_uint_eq(h.dst_port, rsts++);
        }
    }
    ck_assert(vsock_guest_queue(&g, &h, NULL, 0));
}
END_TEST

START_TEST(table_is_bounded)
{
    static int fds[VSOCK_CONNS_MAX];
    struct rlimit limit = {4096, 4096};
    struct vsock_header h;
    int pair[2];

    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (uint32_t i = 0; i < VSOCK_CONNS_MAX / 2; i++)
        vsock_guest_control(&g, VSOCK_OP_REQUEST, i, 1); /* dials */
    for (unsigned i = VSOCK_CONNS_MAX / 2; i < VSOCK_CONNS_MAX; i++) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        ck_assert_int_eq(virtio_vsock_add_client(g.dev, pair[1]), 0);
        fds[i] = pair[0];
    }
    ck_assert_uint_le(vsock()->promised, VSOCK_PROMISE_MAX);
    ck_assert(!vsock_guest_take(&g, &h, NULL));
    vsock_guest_control(&g, VSOCK_OP_REQUEST, VSOCK_CONNS_MAX, 1);
    ck_assert(vsock_guest_take(&g, &h, NULL));
    ck_assert_uint_eq(h.op, VSOCK_OP_RST);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    ck_assert_int_lt(virtio_vsock_add_client(g.dev, pair[1]), 0);
    ck_assert_int_eq(read(pair[0], &h, 1), 0); /* closed */
    /* One place free again is one place. */
    vsock_guest_control(&g, VSOCK_OP_RST, 0, 1);
    vsock_guest_control(&g, VSOCK_OP_REQUEST, VSOCK_CONNS_MAX, 1);
    ck_assert(!vsock_guest_take(&g, &h, NULL));
    fake_driver_reset(&g.driver);
    ck_assert_uint_eq(vsock()->link_count, 0);
    ck_assert_uint_eq(vsock()->promised, 0);
    close(pair[0]);
    for (unsigned i = VSOCK_CONNS_MAX / 2; i < VSOCK_CONNS_MAX; i++)
        close(fds[i]);
}
END_TEST

static struct vsock_header random_header(const uint32_t *ports, unsigned count)
{
    unsigned which = (unsigned)rand() % (count + 1);
    struct vsock_header h = vsock_guest_header(
        (uint16_t)(rand() % 9), which < count ? PORT : (uint32_t)rand() % 64,
        which < count ? ports[which] : (uint32_t)rand() % 4);

    h.len = (uint32_t)rand() % 70;
    h.flags = (uint32_t)rand() % 4;
    h.fwd_cnt = (uint32_t)rand();
    if (rand() % 4)
        h.op = rand() % 2 ? VSOCK_OP_REQUEST : VSOCK_OP_RW;
    if (rand() % 50 == 0)
        h.src_cid = (uint64_t)rand();
    if (rand() % 50 == 0)
        h.dst_cid = (uint64_t)rand() % 5;
    if (rand() % 50 == 0)
        h.type = (uint16_t)rand();
    return h;
}

/*
 * A million packets of every bad kind. What the heap holds at the end is what
 * the bounds allow, and no descriptor is left behind.
 */
START_TEST(a_million_packets)
{
    const unsigned total = 1000000;
    unsigned sent = 0, answers = 0;
    static const uint8_t payload[64];
    uint32_t ports[8] = {0};
    uint64_t start = io_now_ns();
    struct vsock_header h;
    int fds[8];
    size_t before, after;

    srand(31337);
    for (unsigned i = 0; i < 8; i++)
        fds[i] = vsock_guest_connect(&g, PORT, BUF, &ports[i]);
    before = (size_t)mallinfo2().uordblks;
    while (sent < total) {
        h = random_header(ports, 8);
        g.dial = sent % 3 ? VSOCK_GUEST_DIAL_REFUSE : VSOCK_GUEST_DIAL_KEEP;
        if (vsock_guest_queue(&g, &h, payload, (uint32_t)rand() % 64) &&
            ++sent % 8 != 0)
            continue;
        fake_driver_kick(&g.driver, 1);
        vsock_guest_run(&g);
        while (vsock_guest_take(&g, &h, NULL))
            answers++;
        vsock_guest_post(&g, VSOCK_GUEST_RX_MAX);
    }
    ck_assert_uint_gt(answers, total / 2);
    after = (size_t)mallinfo2().uordblks;
    ck_assert_uint_le(vsock()->link_count, VSOCK_CONNS_MAX);
    ck_assert_uint_lt(after, before + (2u << 20));
    ck_assert_uint_gt(violations(), 1000);
    ck_assert_uint_lt(io_now_ns() - start, 60ull * 1000000000);
    ck_assert(!fake_driver_needs_reset(&g.driver));
    for (unsigned i = 0; i < 8; i++)
        close(fds[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vsock_hostile");
    TCase *tc = tcase_create("hostile");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 100);
    tcase_add_loop_test(tc, bad_packet, 0, (int)ARRAY_SIZE(bad_packets));
    tcase_add_loop_test(tc, bad_packet, 100,
                        100 + (int)ARRAY_SIZE(bad_packets));
    tcase_add_loop_test(tc, chain_without_a_header, 0, 2);
    tcase_add_test(tc, credit_overrun);
    tcase_add_loop_test(tc, rsts_are_bounded, 0, 2);
    tcase_add_test(tc, table_is_bounded);
    tcase_add_test(tc, a_million_packets);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
