/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages with descriptors, where there is no room for them and where the one
 * who sends them is hostile.
 */
#include <arpa/inet.h>
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/msg.h"
#include "base/wary.h"

/* What a test may take, where without care it would take an hour. */
#define ALARM_S 20

static int pair[2];
static struct msg msg;

static void setup(void)
{
    ck_assert_int_eq(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    alarm(ALARM_S);
}

static unsigned open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    ck_assert_ptr_nonnull(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* Room for `room` more descriptors, above all that are open. */
static void leave_room(unsigned room)
{
    int next = dup(pair[0]);
    struct rlimit limit = {.rlim_cur = (rlim_t)next + room,
                           .rlim_max = (rlim_t)next + room};

    close(next);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

START_TEST(test_no_room)
{
    int fds[3] = {pair[0], pair[0], pair[0]};
    unsigned before;

    ck_assert_int_eq(msg_send(pair[0], 7, "abc", 3, fds, 3), 0);
    ck_assert_int_eq(msg_send(pair[0], 8, "de", 2, fds, 2), 0);
    leave_room(2);
    before = open_descriptors();
    ck_assert_int_eq(msg_receive(pair[1], &msg), 1);
    ck_assert(msg.type == 7 && msg.len == 3 && msg.fds_lost);
    ck_assert_uint_eq(msg.fd_count, 0);
    ck_assert_uint_eq(open_descriptors(), before);
    ck_assert_int_eq(msg_receive(pair[1], &msg), 1);
    ck_assert(msg.type == 8 && msg.fd_count == 2 && !msg.fds_lost);
    msg_close_fds(&msg);
}
END_TEST

START_TEST(test_too_many)
{
    char control[CMSG_SPACE(sizeof(int) * (MSG_FDS_MAX + 1))] = {0};
    uint8_t packet[8] = {8, 0, 0, 0, 7, 0, 0, 0};
    struct iovec iov = {packet, sizeof(packet)};
    struct msghdr h = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    unsigned before = open_descriptors();

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * (MSG_FDS_MAX + 1));
    for (size_t i = 0; i <= MSG_FDS_MAX; i++)
        memcpy(CMSG_DATA(c) + i * sizeof(int), &pair[0], sizeof(int));
    ck_assert_int_eq(sendmsg(pair[0], &h, 0), sizeof(packet));
    ck_assert_int_eq(msg_receive(pair[1], &msg), -EBADMSG);
    ck_assert_uint_eq(open_descriptors(), before);
}
END_TEST

/* A TCP socket with bytes that nobody reads, and whose close waits for that. */
static int lingering_socket(void)
{
    static const struct linger an_hour = {.l_onoff = 1, .l_linger = 3600};
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    static char bytes[65536];
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int client = socket(AF_INET, SOCK_STREAM, 0);

    ck_assert_int_eq(bind(listener, (struct sockaddr *)&at, len), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    ck_assert_int_eq(connect(client, (struct sockaddr *)&at, len), 0);
    ck_assert_int_ge(accept(listener, NULL, NULL), 0);
    ck_assert_int_eq(io_set_nonblock(client), 0);
    while (write(client, bytes, sizeof(bytes)) > 0)
        continue;
    ck_assert_int_eq(fcntl(client, F_SETFL, 0), 0);
    ck_assert_int_eq(
        setsockopt(client, SOL_SOCKET, SO_LINGER, &an_hour, sizeof(an_hour)),
        0);
    return client;
}

static bool is_gone(int fd)
{
    return fcntl(fd, F_GETFD) < 0 && errno == EBADF;
}

/* Sent, and the sender's own is closed: the receiver's is the last. */
START_TEST(test_lingering)
{
    int fd = lingering_socket();
    unsigned before = open_descriptors();

    ck_assert_int_eq(msg_send(pair[0], 7, "abc", 3, &fd, 1), 0);
    close(fd);
    ck_assert_int_eq(msg_receive_wary(pair[1], &msg), -EBADMSG);
    ck_assert_uint_eq(msg.fd_count, 0);
    ck_assert_uint_eq(open_descriptors(), before - 1);
    ck_assert_int_eq(msg_send(pair[0], 7, "abc", 3, NULL, 0), 0);
    ck_assert_int_eq(msg_receive_wary(pair[1], &msg), 1);
    ck_assert_uint_eq(msg.len, 3);
}
END_TEST

/* The same in a socket's queue, inside another socket's queue. */
START_TEST(test_lingering_unread)
{
    int fd = lingering_socket(), inner[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, inner), 0);
    ck_assert_int_eq(msg_send(inner[0], 7, NULL, 0, &fd, 1), 0);
    close(fd);
    ck_assert_int_eq(msg_send(pair[0], 7, NULL, 0, &inner[1], 1), 0);
    close(inner[1]);
    close(inner[0]);
    close(pair[0]);
    fd = pair[1];
    wary_close_socket(&pair[1]);
    ck_assert_int_eq(pair[1], -1);
    ck_assert(is_gone(fd));
}
END_TEST

/* A packet of no bytes at all, with a descriptor. */
static void send_empty(int sock, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(fd))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr h = {.msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    ck_assert_int_eq(sendmsg(sock, &h, 0), 0);
}

/* It is no end of the conversation, and leaves nothing open. */
START_TEST(test_empty_packet)
{
    unsigned before = open_descriptors();

    send_empty(pair[0], pair[0]);
    ck_assert_int_eq(msg_receive_wary(pair[1], &msg), -EBADMSG);
    ck_assert_uint_eq(open_descriptors(), before);
    send_empty(pair[0], pair[0]);
    ck_assert_int_eq(msg_receive(pair[1], &msg), -EBADMSG);
    ck_assert_uint_eq(open_descriptors(), before);
    io_close(&pair[0]);
    ck_assert_int_eq(msg_receive_wary(pair[1], &msg), 0);
}
END_TEST

START_TEST(test_lingering_empty_packet)
{
    int fd = lingering_socket();

    send_empty(pair[0], fd);
    close(fd);
    close(pair[0]);
    fd = pair[1];
    wary_close_socket(&pair[1]);
    ck_assert_int_eq(pair[1], -1);
    ck_assert(is_gone(fd));
}
END_TEST

/* Behind the ECONNRESET of an other end that has not read all of ours. */
START_TEST(test_lingering_behind_reset)
{
    int fd = lingering_socket();

    ck_assert_int_eq(msg_send(pair[1], 7, NULL, 0, NULL, 0), 0);
    ck_assert_int_eq(msg_send(pair[0], 7, NULL, 0, &fd, 1), 0);
    close(fd);
    close(pair[0]);
    fd = pair[1];
    wary_close_socket(&pair[1]);
    ck_assert_int_eq(pair[1], -1);
    ck_assert(is_gone(fd));
}
END_TEST

START_TEST(test_refused)
{
    int ret;

    wary_refuse_fds(pair[1]);
    ret = msg_send(pair[0], 7, NULL, 0, &pair[0], 1);
    /* Before Linux 6.16 it is sent, and must be a bad message. */
    if (ret == 0)
        ck_assert_int_eq(msg_receive_wary(pair[1], &msg), -EBADMSG);
    else
        ck_assert_int_eq(ret, -EPERM);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("msg");
    TCase *t = tcase_create("descriptors");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, test_no_room);
    tcase_add_test(t, test_too_many);
    tcase_add_test(t, test_lingering);
    tcase_add_test(t, test_lingering_unread);
    tcase_add_test(t, test_empty_packet);
    tcase_add_test(t, test_lingering_empty_packet);
    tcase_add_test(t, test_lingering_behind_reset);
    tcase_add_test(t, test_refused);
    tcase_set_timeout(t, 2 * ALARM_S);
    suite_add_tcase(s, t);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
