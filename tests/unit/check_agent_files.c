/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File operations of the real agent through the real client: large ones, and
 * each path that must not lead anywhere.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/agent_rig.h"

#define SKIPPED 77
#define BIG (50u << 20)
#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static struct agent_rig rig;

static void start(void)
{
    agent_rig_start(&rig);
}

static void stop(void)
{
    ck_assert_int_eq(agent_rig_stop(&rig), 2);
}

static int memory_file(const char *bytes, size_t len)
{
    int fd = memfd_create("local", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static struct rig_handle *put(const char *path, const char *user, int fd)
{
    uint32_t id;

    ck_assert_int_eq(
        agent_client_write_file(rig.client, path, user, 0640, fd, &id), 0);
    agent_rig_wait(&rig, &rig.handles[id].file_done);
    return &rig.handles[id];
}

static struct rig_handle *get(const char *path, const char *user,
                              uint64_t limit, int fd)
{
    uint32_t id;

    ck_assert_int_eq(
        agent_client_read_file(rig.client, path, user, limit, fd, &id), 0);
    agent_rig_wait(&rig, &rig.handles[id].file_done);
    return &rig.handles[id];
}

static uint64_t digest_of(int fd, size_t *ret_size)
{
    static char buf[65536];
    uint64_t digest = 0;
    ssize_t n;

    *ret_size = 0;
    ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
    while ((n = read(fd, buf, sizeof(buf))) > 0) {
        digest = rig_digest(digest, buf, (size_t)n);
        *ret_size += (size_t)n;
    }
    return digest;
}

static int big_file(void)
{
    static uint32_t words[16384];
    uint32_t value = 1;
    int fd = memfd_create("big", MFD_CLOEXEC);

    for (size_t done = 0; done < BIG; done += sizeof(words)) {
        for (size_t i = 0; i < 16384; i++)
            words[i] = value = value * 1664525u + 1013904223u;
        ck_assert_int_eq(write(fd, words, sizeof(words)), sizeof(words));
    }
    ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

START_TEST(test_50_mib_there_and_back)
{
    int there = big_file();
    int back = memfd_create("back", MFD_CLOEXEC);
    size_t sizes[2];
    struct rig_handle *h = put("/home/sandbox/a/b/c/big", NULL, there);

    ck_assert_uint_eq(h->done.err, 0);
    ck_assert_uint_eq(h->done.bytes, BIG);
    ck_assert_uint_eq(h->done.mode, S_IFREG | 0640);
    ck_assert_uint_eq(h->done.uid, 1000);
    h = get("a/b/c/big", NULL, BIG, back);
    ck_assert_uint_eq(h->done.err, 0);
    ck_assert_uint_eq(h->done.bytes, BIG);
    ck_assert_uint_eq(h->done.mode, S_IFREG | 0640);
    ck_assert_uint_eq(digest_of(there, &sizes[0]), digest_of(back, &sizes[1]));
    ck_assert_uint_eq(sizes[0], BIG);
    ck_assert_uint_eq(sizes[1], BIG);
    /* One byte less is an error, told before a byte is moved. */
    h = get("a/b/c/big", NULL, BIG - 1, back);
    ck_assert_uint_eq(h->done.err, EFBIG);
    digest_of(back, &sizes[1]);
    ck_assert_uint_eq(sizes[1], BIG);
    close(there);
    close(back);
}
END_TEST

START_TEST(test_overwrite)
{
    int longer = memory_file("a longer text", 13);
    int shorter = memory_file("short", 5);
    int empty = memory_file("", 0);
    int back = memfd_create("back", MFD_CLOEXEC);
    char buf[32] = "";

    ck_assert_uint_eq(put("f", NULL, longer)->done.err, 0);
    ck_assert_uint_eq(put("f", NULL, shorter)->done.bytes, 5);
    ck_assert_uint_eq(get("f", NULL, 0, back)->done.bytes, 5);
    ck_assert_int_eq(pread(back, buf, sizeof(buf), 0), 5);
    ck_assert_str_eq(buf, "short");
    ck_assert_uint_eq(put("f", NULL, empty)->done.err, 0);
    ck_assert_uint_eq(get("f", NULL, 1, back)->done.bytes, 0);
}
END_TEST

/* A place prepared by a script, and what reading and writing it gives. */
static const struct {
    const char *prepare, *path, *user;
    uint32_t read_err, write_err;
} places[] = {
    {"", "/no/such/file", NULL, ENOENT, EACCES},
    {"", "/etc/shadow", NULL, EACCES, EACCES},
    {"", "/etc", NULL, EISDIR, EISDIR},
    {"", "/etc/passwd/x", NULL, ENOTDIR, ENOTDIR},
    {"", "/etc/passwd", "no-such-user", EINVAL, EINVAL},
    {"mkfifo -m 666 /tmp/p", "/tmp/p", NULL, EINVAL, EINVAL},
    {"", "/dev/zero", "root", EINVAL, EINVAL},
    {"", "/dev/ptmx", NULL, EINVAL, EINVAL},
    {"ln -s /proc/1/root/etc/hostname /tmp/l", "/tmp/l", "root", EACCES,
     EACCES},
    {"", "/proc/1/environ", NULL, EACCES, EACCES},
    {"", "/proc/1/mem", "root", EACCES, EACCES},
    {"ln -s l /tmp/l", "/tmp/l", NULL, ELOOP, ELOOP},
    {"mkdir /tmp/d; chmod 0 /tmp/d", "/tmp/d/f", NULL, EACCES, EACCES},
    {"echo x >/tmp/f; chmod 0 /tmp/f", "/tmp/f", NULL, EACCES, EACCES},
    {"echo x >/tmp/f; chmod 0 /tmp/f", "/tmp/f", "root", 0, 0},
    {"ln -s ../../../../../../etc/hostname /tmp/l", "/tmp/l", NULL, 0, EACCES},
    {"rm -rf /tmp/x; ln -s /root /tmp/x", "/tmp/x/y", NULL, EACCES, EACCES},
};

START_TEST(test_place)
{
    int back = memfd_create("back", MFD_CLOEXEC);
    struct rig_handle *h = agent_rig_sh(&rig, "root", places[_i].prepare);

    ck_assert_uint_eq(h->exit.code, 0);
    h = get(places[_i].path, places[_i].user, 0, back);
    ck_assert_msg(h->done.err == places[_i].read_err, "read %s: %s, not %s",
                  places[_i].path, strerror((int)h->done.err),
                  strerror((int)places[_i].read_err));
    h = put(places[_i].path, places[_i].user, memory_file("new", 3));
    ck_assert_msg(h->done.err == places[_i].write_err, "write %s: %s, not %s",
                  places[_i].path, strerror((int)h->done.err),
                  strerror((int)places[_i].write_err));
}
END_TEST

START_TEST(test_stat_and_mkdir)
{
    uint32_t id;
    struct rig_handle *h;

    ck_assert_int_eq(
        agent_client_mkdir(rig.client, "/tmp/a/b", NULL, 0750, &id), 0);
    agent_rig_wait(&rig, &rig.handles[id].file_done);
    ck_assert_uint_eq(rig.handles[id].done.err, 0);
    ck_assert_int_eq(agent_client_stat(rig.client, "/tmp/a/b", NULL, &id), 0);
    agent_rig_wait(&rig, &rig.handles[id].file_done);
    h = &rig.handles[id];
    ck_assert_uint_eq(h->done.mode, S_IFDIR | 0750);
    ck_assert_uint_eq(h->done.uid, 1000);
    ck_assert_int_eq(agent_client_stat(rig.client, "/tmp/no", NULL, &id), 0);
    agent_rig_wait(&rig, &rig.handles[id].file_done);
    ck_assert_uint_eq(rig.handles[id].done.err, ENOENT);
    ck_assert_int_eq(
        agent_client_mkdir(rig.client, "/etc/passwd", NULL, 0755, &id), 0);
    agent_rig_wait(&rig, &rig.handles[id].file_done);
    ck_assert_uint_eq(rig.handles[id].done.err, ENOTDIR);
}
END_TEST

/* The local side fails, and says so; the guest's file is not whole. */
START_TEST(test_local_errors)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct rig_handle *h = get("/bin/sh", NULL, 0, full);

    ck_assert_int_eq(h->local_err, ENOSPC);
    h = put("/tmp/f", NULL, dir);
    ck_assert_int_eq(h->local_err, EISDIR);
    ck_assert_uint_eq(h->done.err, ECANCELED);
}
END_TEST

/* All handles at once, more than the queues hold: nobody is forgotten, which
   would show as a poll that runs into its 5 s. */
START_TEST(test_many_at_once)
{
    enum { HALF = PROTO_HANDLES_MAX / 2, SIZE = 4 << 20 };
    static char zeros[SIZE];
    uint32_t ids[2 * HALF];
    struct timespec began, now;
    char path[16];

    for (uint32_t i = 0; i < HALF; i++) {
        snprintf(path, sizeof(path), "/tmp/f%u", i);
        ck_assert_uint_eq(put(path, NULL, memory_file(zeros, SIZE))->done.err,
                          0);
    }
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (uint32_t i = 0; i < HALF; i++) {
        int back = memfd_create("back", MFD_CLOEXEC);

        snprintf(path, sizeof(path), "/tmp/f%u", i);
        ck_assert_int_eq(
            agent_client_read_file(rig.client, path, NULL, 0, back, &ids[i]),
            0);
        snprintf(path, sizeof(path), "/tmp/g%u", i);
        ck_assert_int_eq(agent_client_write_file(rig.client, path, NULL, 0644,
                                                 memory_file(zeros, SIZE),
                                                 &ids[HALF + i]),
                         0);
    }
    while (agent_client_live(rig.client) > 0)
        agent_rig_turn(&rig, 5000);
    clock_gettime(CLOCK_MONOTONIC, &now);
    ck_assert_int_lt((int)(now.tv_sec - began.tv_sec), 5);
    for (uint32_t i = 0; i < 2 * HALF; i++) {
        ck_assert_uint_eq(rig.handles[ids[i]].done.err, 0);
        ck_assert_uint_eq(rig.handles[ids[i]].done.bytes, SIZE);
    }
}
END_TEST

/* A full file system is an error of the operation; 256 MiB is what it has. */
START_TEST(test_disk_full)
{
    struct rig_handle *h = agent_rig_sh(
        &rig, "root",
        "dd if=/dev/zero of=/tmp/fill bs=1M count=230 2>/dev/null");

    ck_assert_uint_eq(h->exit.code, 0);
    h = put("/tmp/big", NULL, big_file());
    ck_assert_uint_eq(h->done.err, ENOSPC);
}
END_TEST

START_TEST(test_cancel)
{
    uint32_t id;
    int fd = big_file();

    ck_assert_int_eq(
        agent_client_write_file(rig.client, "/tmp/f", NULL, 0644, fd, &id), 0);
    agent_rig_turn(&rig, 100);
    ck_assert_int_eq(agent_client_cancel(rig.client, id), 0);
    agent_rig_wait(&rig, &rig.handles[id].file_done);
    ck_assert_uint_eq(rig.handles[id].done.err, ECANCELED);
    ck_assert_uint_eq(agent_client_live(rig.client), 0);
}
END_TEST

START_TEST(test_bad_requests)
{
    static char path[PROTO_PATH_MAX + 1], user[PROTO_USER_MAX + 1];
    uint32_t id;

    memset(path, 'p', sizeof(path) - 1);
    memset(user, 'u', sizeof(user) - 1);
    ck_assert_int_eq(agent_client_stat(rig.client, path, NULL, &id), -EINVAL);
    ck_assert_int_eq(agent_client_stat(rig.client, "", NULL, &id), -EINVAL);
    ck_assert_int_eq(agent_client_stat(rig.client, "/", user, &id), -EINVAL);
    ck_assert_int_eq(agent_client_mkdir(rig.client, "/x", NULL, 010000, &id),
                     -EINVAL);
    ck_assert_uint_eq(agent_client_live(rig.client), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("agent files");
    TCase *tc = tcase_create("files");
    SRunner *sr = srunner_create(s);
    uint32_t features = 0;
    const char *why = agent_rig_probe(&features);
    int failed;

    if (why) {
        printf("skipped: check_agent_files: %s\n", why);
        return SKIPPED;
    }
    tcase_add_checked_fixture(tc, start, stop);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_50_mib_there_and_back);
    tcase_add_test(tc, test_overwrite);
    tcase_add_loop_test(tc, test_place, 0, COUNT(places));
    tcase_add_test(tc, test_stat_and_mkdir);
    tcase_add_test(tc, test_local_errors);
    tcase_add_test(tc, test_many_at_once);
    tcase_add_test(tc, test_disk_full);
    tcase_add_test(tc, test_cancel);
    tcase_add_test(tc, test_bad_requests);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
