/* SPDX-License-Identifier: Apache-2.0 */
/* The host side of a vsock connection: the CONNECT line and held bytes. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/vsock/vsock_host.h"

static struct vsock_pool pool;

/* A host end over a socket pair; returns the client's end. */
static int make(struct vsock_host *host, uint32_t ring_size)
{
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair),
                     0);
    vsock_host_init(host, pair[1], ring_size, &pool);
    return pair[0];
}

static const struct {
    const char *line;
    int ret;
    uint32_t port;
} line_table[] = {
    {"CONNECT 0\n", 0, 0},
    {"CONNECT 52\n", 0, 52},
    {"CONNECT 4294967294\n", 0, 4294967294u},
    {"CONNECT 4294967295\n", -EPROTO, 0},
    {"CONNECT 4294967296\n", -EPROTO, 0},
    {"CONNECT 9999999999\n", -EPROTO, 0},
    {"CONNECT 00000000052\n", -EPROTO, 0},
    {"CONNECT 0000000052\n", 0, 52},
    {"CONNECT \n", -EPROTO, 0},
    {"CONNECT\n", -EPROTO, 0},
    {"\n", -EPROTO, 0},
    {"CONNECT -1\n", -EPROTO, 0},
    {"CONNECT +1\n", -EPROTO, 0},
    {"CONNECT 0x1\n", -EPROTO, 0},
    {"CONNECT  1\n", -EPROTO, 0},
    {"CONNECT 1 \n", -EPROTO, 0},
    {"CONNECT 1\r\n", -EPROTO, 0},
    {"connect 1\n", -EPROTO, 0},
    {"CONNECTS 1\n", -EPROTO, 0},
    {"GET / HTTP/1.1\n", -EPROTO, 0},
    {"CONNECT 52aaaaaaaaaaaaaaaaaaaaaa\n", -EPROTO, 0}, /* 32 bytes */
};

START_TEST(line)
{
    const char *text = line_table[_i].line;
    uint32_t port = 77;
    struct vsock_host host;
    int client = make(&host, 4096);

    ck_assert_int_eq(vsock_line_parse(text, strlen(text), &port),
                     line_table[_i].ret);
    ck_assert_uint_eq(port, line_table[_i].ret ? 77 : line_table[_i].port);
    /* The same through a socket. */
    ck_assert_int_eq(write(client, text, strlen(text)), (int)strlen(text));
    ck_assert_int_eq(vsock_host_read_line(&host, &port),
                     line_table[_i].ret ? -EPROTO : 1);
    vsock_host_close(&host);
    close(client);
}
END_TEST

START_TEST(line_without_newline_is_refused_when_full)
{
    static const char text[VSOCK_CLIENT_LINE_MAX + 10] = "CONNECT 1";
    struct vsock_host host;
    int client = make(&host, 4096);
    uint32_t port;

    ck_assert_int_eq(write(client, text, VSOCK_CLIENT_LINE_MAX - 1),
                     VSOCK_CLIENT_LINE_MAX - 1);
    ck_assert_int_eq(vsock_host_read_line(&host, &port), 0);
    ck_assert_int_eq(write(client, text, 1), 1);
    ck_assert_int_eq(vsock_host_read_line(&host, &port), -EPROTO);
    vsock_host_close(&host);
    close(client);
}
END_TEST

/* Cut after every byte; what follows the line stays in the socket. */
START_TEST(line_in_two_pieces)
{
    const char *text = "CONNECT 1234\nDATA";
    size_t cut = (size_t)_i, line_len = 13;
    struct vsock_host host;
    int client = make(&host, 4096);
    uint32_t port = 0;
    char rest[16];
    int ret;

    ck_assert_int_eq(vsock_host_read_line(&host, &port), 0);
    ck_assert_int_eq(write(client, text, cut), (int)cut);
    ret = vsock_host_read_line(&host, &port);
    ck_assert_int_eq(ret, cut >= line_len ? 1 : 0);
    ck_assert_int_eq(write(client, text + cut, strlen(text) - cut),
                     (int)(strlen(text) - cut));
    if (ret == 0)
        ck_assert_int_eq(vsock_host_read_line(&host, &port), 1);
    ck_assert_uint_eq(port, 1234);
    ck_assert_int_eq(recv(host.fd, rest, sizeof(rest), 0), 4);
    ck_assert_mem_eq(rest, "DATA", 4);
    vsock_host_close(&host);
    close(client);
}
END_TEST

START_TEST(client_that_leaves)
{
    struct vsock_host host;
    int client = make(&host, 4096);
    uint32_t port;

    ck_assert_int_eq(write(client, "CONN", 4), 4);
    close(client);
    ck_assert_int_eq(vsock_host_read_line(&host, &port), 0);
    ck_assert_int_eq(vsock_host_read_line(&host, &port), -EPIPE);
    ck_assert_int_eq(vsock_host_reply_ok(&host, 1), -EPIPE);
    vsock_host_close(&host);
}
END_TEST

START_TEST(ok_line)
{
    struct vsock_host host;
    int client = make(&host, 4096);
    char text[32];

    ck_assert_int_eq(vsock_host_reply_ok(&host, 4294967294u), 0);
    ck_assert_int_eq(read(client, text, sizeof(text)), 14);
    ck_assert_mem_eq(text, "OK 4294967294\n", 14);
    vsock_host_close(&host);
    close(client);
}
END_TEST

/* Reads what there is and checks the running pattern. */
static void read_pattern(int fd, uint64_t *at, size_t max)
{
    static uint8_t buf[65536];
    ssize_t n = read(fd, buf, max < sizeof(buf) ? max : sizeof(buf));
    bool equal = true;

    for (ssize_t i = 0; i < n; i++)
        equal &= buf[i] == (uint8_t)((*at + (uint64_t)i) * 131 >> 3);
    ck_assert(equal); /* one assertion: each costs a message to check */
    if (n > 0)
        *at += (uint64_t)n;
}

/*
 * A slow reader: random sends, flushes and reads; every byte comes out once,
 * in order, however the ring wraps, and no more is held than the ring takes.
 */
START_TEST(held_bytes_are_conserved)
{
    const uint32_t ring = _i % 2 ? VSOCK_BUFFER_SIZE : 5000;
    uint64_t put = 0, done = 0, got = 0;
    static uint8_t bytes[6000];
    struct vsock_host host;
    int client = make(&host, ring);
    uint32_t n;

    srand((unsigned)_i + 99);
    for (unsigned step = 0; step < 20000; step++) {
        uint32_t room = ring - (uint32_t)(put - done);
        uint32_t len = (uint32_t)rand() % 6000;
        struct iovec iov[2];

        if (len > room)
            len = room;
        switch (rand() % 3) {
        case 0:
            for (uint32_t i = 0; i < len; i++)
                bytes[i] = (uint8_t)((put + i) * 131 >> 3);
            iov[0] = (struct iovec){bytes, len / 3};
            iov[1] = (struct iovec){bytes + len / 3, len - len / 3};
            ck_assert_int_eq(vsock_host_send(&host, iov, 2, len, &n), 0);
            put += len;
            done += n;
            break;
        case 1:
            ck_assert_int_eq(vsock_host_flush(&host, &n), 0);
            done += n;
            break;
        default:
            if (step % 7 == 0) /* slow */
                read_pattern(client, &got, (size_t)rand() % 20000);
            break;
        }
        ck_assert_uint_eq(host.ring_len, put - done);
        ck_assert((host.ring != NULL) == (host.ring_len > 0));
    }
    while (got < put) {
        read_pattern(client, &got, 60000);
        ck_assert_int_eq(vsock_host_flush(&host, &n), 0);
        done += n;
    }
    ck_assert_uint_eq(done, put);
    ck_assert_uint_eq(got, put);
    ck_assert_uint_gt(put, 500000);
    vsock_host_close(&host);
    vsock_pool_fini(&pool);
    close(client);
}
END_TEST

START_TEST(reader_that_left_kills_the_socket_once)
{
    static uint8_t bytes[100];
    struct iovec iov = {bytes, sizeof(bytes)};
    struct vsock_host host;
    int client = make(&host, 4096);
    uint32_t done = 0;

    close(client);
    ck_assert_int_lt(vsock_host_send(&host, &iov, 1, 100, &done), 0);
    ck_assert_uint_eq(done, 100);
    ck_assert(host.dead);
    /* From now on bytes vanish quietly. */
    iov = (struct iovec){bytes, sizeof(bytes)};
    done = 0;
    ck_assert_int_eq(vsock_host_send(&host, &iov, 1, 100, &done), 0);
    ck_assert_uint_eq(done, 100);
    vsock_host_close(&host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vsock_host");
    TCase *tc = tcase_create("host");
    SRunner *sr;
    int failed;

    tcase_add_loop_test(tc, line, 0, (int)ARRAY_SIZE(line_table));
    tcase_add_test(tc, line_without_newline_is_refused_when_full);
    tcase_add_loop_test(tc, line_in_two_pieces, 0, 17);
    tcase_add_test(tc, client_that_leaves);
    tcase_add_test(tc, ok_line);
    tcase_add_loop_test(tc, held_bytes_are_conserved, 0, 6);
    tcase_add_test(tc, reader_that_left_kills_the_socket_once);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
