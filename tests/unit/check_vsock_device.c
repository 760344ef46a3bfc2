/* SPDX-License-Identifier: Apache-2.0 */
/* The vsock device: connecting, refusing, ending, resetting. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
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

static const struct virtio_vsock_stats *stats(void)
{
    return virtio_vsock_stats(g.dev);
}

static uint64_t violations(void)
{
    return atomic_load(&g.dev->violations);
}

/* The next packet must be this one. */
static struct vsock_header expect(uint16_t op)
{
    struct vsock_header h;

    ck_assert(vsock_guest_take(&g, &h, NULL));
    ck_assert_uint_eq(h.op, op);
    ck_assert_uint_eq(h.dst_cid, VSOCK_GUEST_CID);
    vsock_guest_post(&g, 1);
    return h;
}

static void expect_nothing(void)
{
    struct vsock_header h;

    ck_assert(!vsock_guest_take(&g, &h, NULL));
}

/* "" at the end of the stream, "?" if nothing is there, else the bytes. */
static const char *host_read(int fd)
{
    static char text[256];
    ssize_t n = read(fd, text, sizeof(text) - 1);

    if (n < 0 && errno == ECONNRESET) /* it left bytes of ours unread */
        return "";
    if (n < 0)
        return "?";
    text[n] = 0;
    return text;
}

static void host_write(int fd, const char *text)
{
    ck_assert_int_eq(write(fd, text, strlen(text)), (int)strlen(text));
    vsock_guest_run(&g);
}

static void guest_write(uint32_t guest_port, uint32_t host_port,
                        const char *text)
{
    struct vsock_header h =
        vsock_guest_header(VSOCK_OP_RW, guest_port, host_port);

    h.len = (uint32_t)strlen(text);
    vsock_guest_send(&g, &h, text, h.len);
}

static void guest_shut(uint32_t host_port, uint32_t flags)
{
    struct vsock_header h =
        vsock_guest_header(VSOCK_OP_SHUTDOWN, PORT, host_port);

    h.flags = flags;
    vsock_guest_send(&g, &h, NULL, 0);
}

static int client_says(const char *line)
{
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair),
                     0);
    ck_assert_int_eq(virtio_vsock_add_client(g.dev, pair[1]), 0);
    host_write(pair[0], line);
    return pair[0];
}

START_TEST(config_space)
{
    ck_assert_uint_eq(fake_driver_config(&g.driver, 0, 8), VSOCK_GUEST_CID);
    ck_assert_uint_eq(fake_driver_config(&g.driver, 0, 4), VSOCK_GUEST_CID);
    ck_assert_uint_eq(fake_driver_config(&g.driver, 4, 4), 0);
    ck_assert_uint_eq(fake_driver_config(&g.driver, 8, 8), 0);
    ck_assert_uint_eq(fake_driver_config(&g.driver, 0xe00, 4), 0);
}
END_TEST

START_TEST(host_connects_and_talks)
{
    uint8_t payload[VSOCK_GUEST_RX_SIZE];
    struct vsock_header h;
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);

    ck_assert_uint_ge(port, VSOCK_HOST_PORT_FIRST);
    guest_write(PORT, port, "hello");
    ck_assert_str_eq(host_read(fd), "hello");
    host_write(fd, "world!");
    ck_assert(vsock_guest_take(&g, &h, payload));
    ck_assert_uint_eq(h.op, VSOCK_OP_RW);
    ck_assert_uint_eq(h.len, 6);
    ck_assert_uint_eq(h.fwd_cnt, 5);
    ck_assert_mem_eq(payload, "world!", 6);
    ck_assert_uint_eq(stats()->bytes_from_guest, 5);
    ck_assert_uint_eq(stats()->bytes_to_guest, 6);
    ck_assert_uint_eq(stats()->connections, 1);
    close(fd);
}
END_TEST

START_TEST(data_behind_the_line_reach_the_guest)
{
    uint8_t payload[VSOCK_GUEST_RX_SIZE];
    int fd = client_says("CONNECT 5000\nearly");
    struct vsock_header h = expect(VSOCK_OP_REQUEST);

    expect_nothing();
    vsock_guest_control(&g, VSOCK_OP_RESPONSE, PORT, h.src_port);
    vsock_guest_run(&g);
    ck_assert_str_eq(host_read(fd), "OK 1073741824\n");
    ck_assert(vsock_guest_take(&g, &h, payload));
    ck_assert_uint_eq(h.len, 5);
    ck_assert_mem_eq(payload, "early", 5);
    close(fd);
}
END_TEST

START_TEST(guest_refuses)
{
    int fd = client_says("CONNECT 5000\n");
    struct vsock_header h = expect(VSOCK_OP_REQUEST);

    vsock_guest_control(&g, VSOCK_OP_RST, PORT, h.src_port);
    ck_assert_str_eq(host_read(fd), "");
    ck_assert_uint_eq(stats()->refused, 1);
    expect_nothing();
    close(fd);
}
END_TEST

static const char *const bad_lines[] = {
    "\n",
    "CONNECT x\n",
    "CONNECT 4294967295\n",
    "CONNECT 1111111111111111111111111111111111111111",
};

START_TEST(bad_line_is_refused)
{
    int fd = client_says(bad_lines[_i]);

    ck_assert_str_eq(host_read(fd), "");
    ck_assert_uint_eq(stats()->refused, 1);
    expect_nothing();
    close(fd);
}
END_TEST

START_TEST(refused_before_the_driver_is_there)
{
    int fd;

    fake_driver_reset(&g.driver);
    fd = client_says("CONNECT 5000\n");
    ck_assert_str_eq(host_read(fd), "");
    ck_assert_uint_eq(stats()->refused, 1);
    close(fd);
}
END_TEST

START_TEST(client_leaves_while_connecting)
{
    int fd = client_says("CONNECT 5000\n");
    struct vsock_header h = expect(VSOCK_OP_REQUEST);

    close(fd);
    vsock_guest_run(&g);
    h = expect(VSOCK_OP_RST);
    /* The late answer meets nobody. */
    vsock_guest_control(&g, VSOCK_OP_RESPONSE, PORT, h.src_port);
    expect(VSOCK_OP_RST);
}
END_TEST

START_TEST(guest_connects)
{
    g.dial = VSOCK_GUEST_DIAL_ACCEPT;
    vsock_guest_control(&g, VSOCK_OP_REQUEST, PORT, 52);
    ck_assert_uint_eq(g.dial_port, 52);
    expect(VSOCK_OP_RESPONSE);
    guest_write(PORT, 52, "ping");
    ck_assert_str_eq(host_read(g.dial_fd), "ping");
    host_write(g.dial_fd, "pong");
    ck_assert_uint_eq(expect(VSOCK_OP_RW).len, 4);
    ck_assert_uint_eq(stats()->connections, 1);
    close(g.dial_fd);
}
END_TEST

START_TEST(dialer_refuses)
{
    g.dial = VSOCK_GUEST_DIAL_REFUSE;
    vsock_guest_control(&g, VSOCK_OP_REQUEST, PORT, 52);
    expect(VSOCK_OP_RST);
    ck_assert_uint_eq(stats()->refused, 1);
}
END_TEST

START_TEST(dialer_answers_late)
{
    int pair[2];

    vsock_guest_control(&g, VSOCK_OP_REQUEST, PORT, 52);
    expect_nothing();
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    virtio_vsock_dial_result(g.dev, g.dial_token + 1, dup(pair[1]));
    expect_nothing();
    virtio_vsock_dial_result(g.dev, g.dial_token, pair[1]);
    expect(VSOCK_OP_RESPONSE);
    /* The same token a second time is nobody's. */
    virtio_vsock_dial_result(g.dev, g.dial_token, dup(pair[0]));
    expect_nothing();
    close(pair[0]);
}
END_TEST

/* A descriptor from fd_end on is one of those that are kept for others. */
START_TEST(connections_leave_descriptors)
{
    struct virtio_vsock *vsock = (struct virtio_vsock *)g.dev;
    int pair[2];

    for (int more = 1; more >= 0; more--) {
        vsock_guest_control(&g, VSOCK_OP_REQUEST, PORT, 52);
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        vsock->options.fd_end = pair[1] + more;
        virtio_vsock_dial_result(g.dev, g.dial_token, pair[1]);
        expect(more ? VSOCK_OP_RESPONSE : VSOCK_OP_RST);
        if (more)
            vsock_guest_control(&g, VSOCK_OP_RST, PORT, 52);
        ck_assert_str_eq(host_read(pair[0]), "");
        close(pair[0]);
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        vsock->options.fd_end = pair[1] + more;
        ck_assert_int_eq(virtio_vsock_add_client(g.dev, pair[1]),
                         more ? 0 : -EMFILE);
        close(pair[0]);
    }
}
END_TEST

/* The guest forgets its request, or is reset, before the dialer answers. */
START_TEST(dial_result_for_nobody_is_closed)
{
    int pair[2];

    vsock_guest_control(&g, VSOCK_OP_REQUEST, PORT, 52);
    if (_i == 0)
        vsock_guest_control(&g, VSOCK_OP_RST, PORT, 52);
    else
        fake_driver_reset(&g.driver);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    virtio_vsock_dial_result(g.dev, g.dial_token, pair[1]);
    ck_assert_str_eq(host_read(pair[0]), "");
    close(pair[0]);
}
END_TEST

START_TEST(host_half_close)
{
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);

    host_write(fd, "last");
    shutdown(fd, SHUT_WR);
    vsock_guest_run(&g);
    ck_assert_uint_eq(expect(VSOCK_OP_RW).len, 4);
    ck_assert_uint_eq(expect(VSOCK_OP_SHUTDOWN).flags, VSOCK_SHUTDOWN_SEND);
    guest_write(PORT, port, "still here");
    ck_assert_str_eq(host_read(fd), "still here");
    /* And then the whole of it. */
    close(fd);
    vsock_guest_run(&g);
    ck_assert_uint_eq(expect(VSOCK_OP_SHUTDOWN).flags, VSOCK_SHUTDOWN_BOTH);
    vsock_guest_control(&g, VSOCK_OP_RST, PORT, port);
    vsock_guest_control(&g, VSOCK_OP_RW, PORT, port);
    expect(VSOCK_OP_RST); /* it is gone */
    expect_nothing();
}
END_TEST

START_TEST(guest_half_close)
{
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);

    guest_write(PORT, port, "last");
    guest_shut(port, VSOCK_SHUTDOWN_SEND);
    ck_assert_str_eq(host_read(fd), "last");
    ck_assert_str_eq(host_read(fd), "");
    host_write(fd, "still here");
    ck_assert_uint_eq(expect(VSOCK_OP_RW).len, 10);
    guest_shut(port, VSOCK_SHUTDOWN_RECEIVE);
    expect(VSOCK_OP_RST); /* at once: Linux waits for it */
    ck_assert_int_eq(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    expect_nothing();
    close(fd);
}
END_TEST

START_TEST(guest_stops_receiving)
{
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);

    guest_shut(port, VSOCK_SHUTDOWN_RECEIVE);
    ck_assert_int_eq(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    vsock_guest_run(&g);
    expect_nothing();
    guest_write(PORT, port, "goes on");
    ck_assert_str_eq(host_read(fd), "goes on");
    close(fd);
    vsock_guest_run(&g);
    ck_assert_uint_eq(expect(VSOCK_OP_SHUTDOWN).flags, VSOCK_SHUTDOWN_BOTH);
}
END_TEST

START_TEST(guest_full_close)
{
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);

    guest_write(PORT, port, "bye");
    guest_shut(port, VSOCK_SHUTDOWN_BOTH);
    expect(VSOCK_OP_RST);
    ck_assert_str_eq(host_read(fd), "bye");
    ck_assert_str_eq(host_read(fd), "");
    close(fd);
    expect_nothing();
}
END_TEST

START_TEST(guest_reset_of_a_connection)
{
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);

    guest_write(PORT, port, "bye");
    vsock_guest_control(&g, VSOCK_OP_RST, PORT, port);
    ck_assert_str_eq(host_read(fd), "bye");
    ck_assert_str_eq(host_read(fd), "");
    expect_nothing();
    close(fd);
}
END_TEST

START_TEST(host_closes_with_unread_data)
{
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);

    guest_write(PORT, port, "never read");
    close(fd); /* a reset for the other end */
    vsock_guest_run(&g);
    expect(VSOCK_OP_RST);
    expect_nothing();
}
END_TEST

START_TEST(credit_request_is_answered)
{
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);
    struct vsock_header h;

    guest_write(PORT, port, "12345");
    vsock_guest_control(&g, VSOCK_OP_CREDIT_REQUEST, PORT, port);
    h = expect(VSOCK_OP_CREDIT_UPDATE);
    ck_assert_uint_eq(h.fwd_cnt, 5);
    ck_assert_uint_eq(h.buf_alloc, VSOCK_BUFFER_SIZE);
    close(fd);
}
END_TEST

/* Bytes the guest got out of a connection end after its driver restarted. */
START_TEST(reset_closes_everything)
{
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);
    int waiting = client_says("CONN");
    int connecting = client_says("CONNECT 1\n");

    guest_write(PORT, port, "x");
    host_write(fd, "y");
    if (_i == 0)
        fake_driver_reset(&g.driver);
    else
        vsock_guest_start(&g, 0, 64); /* a reset and a new start */
    ck_assert_str_eq(host_read(fd), "x");
    ck_assert_str_eq(host_read(fd), "");
    ck_assert_str_eq(host_read(waiting), "");
    ck_assert_str_eq(host_read(connecting), "");
    vsock_guest_run(&g);
    vsock_guest_start(&g, 0, 64);
    close(fd);
    fd = vsock_guest_connect(&g, PORT, BUF, &port);
    ck_assert_uint_gt(port, VSOCK_HOST_PORT_FIRST + 1); /* not used again */
    close(fd);
    close(waiting);
    close(connecting);
}
END_TEST

START_TEST(broken_queue_ends_everything)
{
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);
    struct fake_queue *q = &g.driver.queues[_i];
    int pair[2];

    fake_queue_publish(q, 0xffff);
    fake_driver_kick_force(&g.driver, (unsigned)_i);
    if (_i == VSOCK_QUEUE_RX) { /* found out when the buffers before are used */
        for (unsigned i = 0; i < 70 && !fake_driver_needs_reset(&g.driver); i++)
            host_write(fd, "x");
    }
    ck_assert(fake_driver_needs_reset(&g.driver));
    ck_assert_str_eq(host_read(fd), "");
    close(fd);
    /* Nobody is served until the driver starts over. */
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    ck_assert_int_eq(virtio_vsock_add_client(g.dev, pair[1]), 0);
    ck_assert_str_eq(host_read(pair[0]), "");
    close(pair[0]);
    vsock_guest_start(&g, 0, 64);
    close(vsock_guest_connect(&g, PORT, BUF, &port));
}
END_TEST

/* Rx buffers cut in odd ways; bytes must come out the same. */
START_TEST(rx_buffers_in_parts)
{
    static const uint32_t cuts[][9] = {
        {45},
        {44, 1},
        {10, 34, 1, 3},
        {43, 2},
        {1, 2, 3, 4, 5, 6, 7, 100},
        {1, 2, 3, 4, 5, 6, 7, 100, 4000}, /* the ninth is not used */
        {200000},                         /* at most 64 KiB are used */
    };
    gpa_t at = fake_guest_alloc(&g.driver.guest, 1u << 18, 8);
    struct fake_buf bufs[9];
    unsigned count = 0;
    uint32_t len, total = 0;
    struct vsock_header h;
    uint8_t *bytes;

    vsock_guest_start(&g, _i % 2 ? VIRTIO_FEATURE_INDIRECT_DESC : 0, 0);
    for (gpa_t next = at; count < 9 && cuts[_i][count]; count++) {
        bufs[count] = (struct fake_buf){next, cuts[_i][count], true};
        next += cuts[_i][count];
        total += cuts[_i][count];
    }
    if (_i % 2)
        ck_assert(fake_queue_add_indirect(&g.driver.queues[0], bufs, count) >=
                  0);
    else
        ck_assert(fake_queue_add(&g.driver.queues[0], bufs, count) >= 0);
    fake_driver_kick(&g.driver, 0);
    close(client_says("CONNECT 77\n"));
    ck_assert(fake_queue_collect(&g.driver.queues[0], NULL, &len));
    ck_assert_uint_eq(len, VSOCK_HEADER_SIZE);
    bytes = fake_guest_ptr(&g.driver.guest, at, total);
    vsock_header_decode(bytes, &h);
    ck_assert_uint_eq(h.op, VSOCK_OP_REQUEST);
    ck_assert_uint_eq(h.dst_port, 77);
}
END_TEST

START_TEST(rx_buffer_too_small_breaks_the_device)
{
    gpa_t at = fake_guest_alloc(&g.driver.guest, 256, 8);
    struct fake_buf bufs[] = {{at, 44, _i == 0}, {at + 44, 100, true}};

    vsock_guest_start(&g, 0, 0);
    ck_assert(fake_queue_add(&g.driver.queues[0], bufs, _i == 0 ? 1 : 2) >= 0);
    fake_driver_kick(&g.driver, 0);
    close(client_says("CONNECT 77\n"));
    ck_assert(fake_driver_needs_reset(&g.driver));
}
END_TEST

START_TEST(tx_packet_in_parts)
{
    gpa_t at = fake_guest_alloc(&g.driver.guest, 4096, 8);
    struct fake_buf bufs[64];
    struct vsock_header h;
    uint32_t port;
    int fd;

    vsock_guest_start(&g, VIRTIO_FEATURE_INDIRECT_DESC, 64);
    fd = vsock_guest_connect(&g, PORT, BUF, &port);
    h = vsock_guest_header(VSOCK_OP_RW, PORT, port);
    h.len = 19; /* the chain's last byte is more than the header says */
    vsock_header_encode(&h, fake_guest_ptr(&g.driver.guest, at, 64));
    memcpy(fake_guest_ptr(&g.driver.guest, at + 44, 20), "abcdefghijklmnopqrst",
           20);
    for (unsigned i = 0; i < 64; i++)
        bufs[i] = (struct fake_buf){at + i, 1, false};
    if (_i == 0)
        ck_assert(fake_queue_add(&g.driver.queues[1], bufs, 64) >= 0);
    else
        ck_assert(fake_queue_add_indirect(&g.driver.queues[1], bufs, 64) >= 0);
    fake_driver_kick(&g.driver, 1);
    ck_assert_str_eq(host_read(fd), "abcdefghijklmnopqrs");
    close(fd);
}
END_TEST

static int listen_on(struct sockaddr_un *addr)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socklen_t len = sizeof(sa_family_t);

    memset(addr, 0, sizeof(*addr));
    addr->sun_family = AF_UNIX;
    ck_assert_int_eq(bind(fd, (struct sockaddr *)addr, len), 0); /* autobind */
    ck_assert_int_eq(listen(fd, 200), 0);
    len = sizeof(*addr);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)addr, &len), 0);
    return fd;
}

/* More clients at the listener than may sit there without a line. */
START_TEST(listener)
{
    static int fds[VSOCK_CLIENTS_MAX + 30];
    struct sockaddr_un addr;
    struct virtio_vsock *vsock;
    struct vsock_header h;

    vsock_guest_fini(&g);
    vsock_guest_init(&g, listen_on(&addr));
    vsock_guest_start(&g, 0, 128);
    vsock = (struct virtio_vsock *)g.dev;
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        ck_assert_int_eq(
            connect(fds[i], (struct sockaddr *)&addr, sizeof(sa_family_t) + 6),
            0);
    }
    vsock_guest_run(&g);
    ck_assert_uint_eq(vsock->client_count, VSOCK_CLIENTS_MAX);
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
        ck_assert_int_eq(write(fds[i], "CONNECT 9\n", 10), 10);
    vsock_guest_run(&g);
    ck_assert_uint_eq(vsock->client_count, 0);
    ck_assert_uint_eq(vsock->link_count, ARRAY_SIZE(fds));
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
        ck_assert(vsock_guest_take(&g, &h, NULL));
        ck_assert_uint_eq(h.src_port, VSOCK_HOST_PORT_FIRST + i);
        vsock_guest_control(&g, VSOCK_OP_RESPONSE, 9, h.src_port);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
        ck_assert_str_ne(host_read(fds[i]), "?");
        close(fds[i]);
    }
}
END_TEST

/* Runs the loop as time passes. */
static void run_for(uint64_t ms)
{
    uint64_t end = io_now_ns() + ms * 1000000;

    while (io_now_ns() < end)
        ck_assert_int_ge(evloop_run_once(g.loop, 50), 0);
}

START_TEST(every_wait_ends)
{
    int silent = client_says("CONNECT");
    int unanswered = client_says("CONNECT 1\n");
    uint32_t port;
    int fd;

    expect(VSOCK_OP_REQUEST);
    fd = vsock_guest_connect(&g, PORT, BUF, &port);
    vsock_guest_control(&g, VSOCK_OP_REQUEST, 1, 2); /* the dialer is silent */
    close(fd); /* and the guest says nothing to that */
    vsock_guest_run(&g);
    expect(VSOCK_OP_SHUTDOWN);
    ck_assert_str_eq(host_read(silent), "?");
    ck_assert_str_eq(host_read(unanswered), "?");
    run_for(VSOCK_LINE_TIMEOUT_MS + 2 * VSOCK_TICK_MS);
    ck_assert_str_eq(host_read(silent), "");
    ck_assert_str_eq(host_read(unanswered), "");
    ck_assert_uint_eq(expect(VSOCK_OP_RST).dst_port, 1);
    run_for(VSOCK_DIAL_TIMEOUT_MS - VSOCK_LINE_TIMEOUT_MS);
    ck_assert_uint_eq(expect(VSOCK_OP_RST).dst_port, PORT);
    ck_assert_uint_eq(expect(VSOCK_OP_RST).src_port, 2);
    expect_nothing();
    ck_assert_uint_eq(((struct virtio_vsock *)g.dev)->link_count, 0);
    close(silent);
    close(unanswered);
}
END_TEST

/* An idle device: no timer, nothing ready, open connections or not. */
START_TEST(idle_is_silent)
{
    uint32_t port;
    int fd = vsock_guest_connect(&g, PORT, BUF, &port);

    vsock_guest_run(&g);
    ck_assert_int_eq(evloop_run_once(g.loop, 3 * (int)VSOCK_TICK_MS), 0);
    ck_assert_uint_eq(violations(), 0);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vsock_device");
    TCase *tc = tcase_create("device");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, config_space);
    tcase_add_test(tc, host_connects_and_talks);
    tcase_add_test(tc, data_behind_the_line_reach_the_guest);
    tcase_add_test(tc, guest_refuses);
    tcase_add_loop_test(tc, bad_line_is_refused, 0, (int)ARRAY_SIZE(bad_lines));
    tcase_add_test(tc, refused_before_the_driver_is_there);
    tcase_add_test(tc, client_leaves_while_connecting);
    tcase_add_test(tc, guest_connects);
    tcase_add_test(tc, dialer_refuses);
    tcase_add_test(tc, dialer_answers_late);
    tcase_add_loop_test(tc, dial_result_for_nobody_is_closed, 0, 2);
    tcase_add_test(tc, connections_leave_descriptors);
    tcase_add_test(tc, host_half_close);
    tcase_add_test(tc, guest_half_close);
    tcase_add_test(tc, guest_stops_receiving);
    tcase_add_test(tc, guest_full_close);
    tcase_add_test(tc, guest_reset_of_a_connection);
    tcase_add_test(tc, host_closes_with_unread_data);
    tcase_add_test(tc, credit_request_is_answered);
    tcase_add_loop_test(tc, reset_closes_everything, 0, 2);
    tcase_add_loop_test(tc, broken_queue_ends_everything, 0, 2);
    tcase_add_loop_test(tc, rx_buffers_in_parts, 0, 7);
    tcase_add_loop_test(tc, rx_buffer_too_small_breaks_the_device, 0, 2);
    tcase_add_loop_test(tc, tx_packet_in_parts, 0, 2);
    tcase_add_test(tc, listener);
    tcase_add_test(tc, every_wait_ends);
    tcase_add_test(tc, idle_is_silent);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
