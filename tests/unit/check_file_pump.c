/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files on their way between this host and a guest, while signals interrupt
 * every read and write of the local file: what can go goes in the same call of
 * agent_client_process, for nothing else would wake its owner.
 */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "trial/agent_client.h"

#define INTERRUPTS 3u

static int interrupted = -1; /* the descriptor whose calls are */
static unsigned interrupts;  /* how often they still will be */

/* Those of the C library, and what it calls for a length it cannot check. */
ssize_t __read_chk(int fd, void *buf, size_t len, size_t size);

static bool interrupt(int fd)
{
    if (fd != interrupted || interrupts == 0)
        return false;
    interrupts--;
    errno = EINTR;
    return true;
}

ssize_t read(int fd, void *buf, size_t len)
{
    return interrupt(fd) ? -1 : syscall(SYS_read, fd, buf, len);
}

ssize_t __read_chk(int fd, void *buf, size_t len, size_t size)
{
    (void)size;
    return read(fd, buf, len);
}

ssize_t write(int fd, const void *buf, size_t len)
{
    return interrupt(fd) ? -1 : syscall(SYS_write, fd, buf, len);
}

static const char TEXT[] = "some bytes of a file";
static struct agent_client *client;
static int guest = -1, local = -1;
static unsigned dones;
static int done_error;

static void on_done(void *arg, uint32_t id, const struct proto_file_done *done,
                    int local_err)
{
    (void)arg;
    (void)id;
    dones++;
    done_error = local_err ? local_err : (int)done->err;
}

static void say(const struct proto_writer *w)
{
    ck_assert_int_eq(send(guest, w->buf, w->used, 0), (ssize_t)w->used);
}

static void setup(void)
{
    static const struct agent_client_ops OPS = {.file_done = on_done};
    static uint8_t buf[PROTO_FRAME_MAX];
    struct proto_hello hello = {.version = PROTO_VERSION};
    struct proto_writer w;
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    guest = pair[1];
    ck_assert_int_eq(agent_client_new(pair[0], &OPS, NULL, &client), 0);
    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_hello(&w, &hello);
    say(&w);
    ck_assert_int_eq(agent_client_process(client, POLLIN), 0);
    local = memfd_create("local", 0);
    ck_assert_int_ge(local, 0);
}

static void teardown(void)
{
    agent_client_free(client);
    close(guest);
    close(local);
}

/* The file's bytes that came to the guest; true once their end came, too. */
static bool guest_takes(char *ret_text, size_t size)
{
    static struct proto_inbox in;
    struct proto_header header;
    const uint8_t *payload;
    size_t room, used = 0;
    bool ended = false;
    uint8_t *space;
    ssize_t n;

    proto_inbox_init(&in, PROTO_FROM_HOST);
    space = proto_inbox_space(&in, &room);
    n = recv(guest, space, room, MSG_DONTWAIT);
    proto_inbox_add(&in, n > 0 ? (size_t)n : 0);
    while (proto_inbox_next(&in, &header, &payload) > 0) {
        ended = ended || header.type == PROTO_EOF;
        if (header.type != PROTO_DATA)
            continue;
        ck_assert_uint_lt(used + header.length, size);
        memcpy(ret_text + used, payload + 4, header.length - 4);
        used += header.length - 4;
    }
    ret_text[used] = '\0';
    return ended;
}

START_TEST(test_put)
{
    char text[128];
    uint32_t id;

    ck_assert_int_eq(pwrite(local, TEXT, strlen(TEXT), 0),
                     (ssize_t)strlen(TEXT));
    ck_assert_int_eq(
        agent_client_write_file(client, "p", NULL, 0644, local, &id), 0);
    interrupted = local;
    interrupts = INTERRUPTS;
    ck_assert_int_eq(agent_client_process(client, POLLOUT), 0);
    ck_assert_uint_eq(interrupts, 0);
    ck_assert(guest_takes(text, sizeof(text)));
    ck_assert_str_eq(text, TEXT);
    ck_assert_uint_eq(dones, 0);
}
END_TEST

START_TEST(test_get)
{
    static uint8_t buf[PROTO_FRAME_MAX];
    struct proto_file_done done = {.bytes = strlen(TEXT)};
    char text[128] = "";
    struct proto_writer w;
    uint32_t id;

    ck_assert_int_eq(agent_client_read_file(client, "p", NULL, 0, local, &id),
                     0);
    proto_writer_init(&w, buf, sizeof(buf));
    proto_put_data(&w, id, PROTO_FILE, TEXT, strlen(TEXT));
    proto_put_file_done(&w, id, &done);
    say(&w);
    interrupted = local;
    interrupts = INTERRUPTS;
    ck_assert_int_eq(agent_client_process(client, POLLIN), 0);
    ck_assert_uint_eq(interrupts, 0);
    ck_assert_uint_eq(dones, 1);
    ck_assert_int_eq(done_error, 0);
    ck_assert_int_eq(pread(local, text, sizeof(text) - 1, 0),
                     (ssize_t)strlen(TEXT));
    ck_assert_str_eq(text, TEXT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file_pump");
    TCase *all = tcase_create("interrupted");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 20);
    tcase_add_test(all, test_put);
    tcase_add_test(all, test_get);
    suite_add_tcase(suite, all);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
