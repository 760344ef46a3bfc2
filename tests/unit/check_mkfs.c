/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scratch disk's file system, by the judgement of e2fsck, and that nothing
 * of it lies beyond the limit that it was made for.
 */
#include "guest/mkfs.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))
#define MIB (1ull << 20)
#define DISK (80ull << 30)

static char path[64];
static int fd;

static void set_up(void)
{
    strcpy(path, "/tmp/check_mkfs.XXXXXX");
    fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)DISK), 0);
}

static void tear_down(void)
{
    close(fd);
    unlink(path);
}

/* Without it a test says so and is counted as skipped. */
static bool has_e2fsck(void)
{
    if (system("PATH=$PATH:/usr/sbin:/sbin command -v e2fsck >/dev/null") == 0)
        return true;
    puts("skip - what e2fsck says: the package e2fsprogs is missing");
    return false;
}

static int e2fsck(void)
{
    char command[160];

    snprintf(command, sizeof(command),
             "PATH=$PATH:/usr/sbin:/sbin e2fsck -fn %s >/dev/null 2>&1", path);
    return WEXITSTATUS(system(command));
}

static const struct {
    uint64_t limit;
    uint64_t bytes; /* of the file system */
} sizes[] = {
    {MKFS_MIN, MKFS_MIN},
    {1 * MIB, 1 * MIB},
    {16 * MIB + 65535, 16 * MIB},
    {127 * MIB, 127 * MIB},
    {128 * MIB, 128 * MIB},                 /* one whole group */
    {128 * MIB + 65536, 128 * MIB + 65536}, /* and 16 blocks of the next */
    {256 * MIB, 256 * MIB},
    {1024 * MIB, 1024 * MIB},
    {4099 * MIB, 4099 * MIB}, /* tables fill more than a group */
    {16384 * MIB, 16384 * MIB},
    {20000 * MIB, 20000 * MIB}, /* two blocks of descriptors */
    {MKFS_MAX, MKFS_MAX},
    {MKFS_MAX + 1024 * MIB, MKFS_MAX},
};

START_TEST(test_sound)
{
    uint64_t bytes;
    off_t data;

    ck_assert_int_eq(mkfs_ext4(fd, sizes[_i].limit), 0);
    ck_assert_int_eq(mkfs_detect(fd, &bytes), 0);
    ck_assert_uint_eq(bytes, sizes[_i].bytes);
    /* The host counts what is written: nothing behind the limit. */
    data = lseek(fd, (off_t)bytes, SEEK_DATA);
    ck_assert(data < 0 && errno == ENXIO);
    if (has_e2fsck())
        ck_assert_int_eq(e2fsck(), 0);
}
END_TEST

/* Little is written of a large one: it is the machine's start that waits. */
START_TEST(test_sparse)
{
    struct stat st;

    ck_assert_int_eq(mkfs_ext4(fd, 1024 * MIB), 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_lt(st.st_blocks * 512, 256 << 10);
}
END_TEST

/* e2fsck sees a bit that is wrong, in each part that is written. */
START_TEST(test_damage)
{
    static const off_t places[] = {
        1024 + 40,        /* superblock: inodes of a group */
        4096 + 12,        /* the group's */
        8192 + 1,         /* bitmap of blocks */
        12288 + 1,        /* of inodes */
        16384 + 256 + 40, /* the root's extents */
    };
    uint8_t byte;

    if (!has_e2fsck())
        return;
    for (int i = 0; i < COUNT(places); i++) {
        ck_assert_int_eq(mkfs_ext4(fd, 64 * MIB), 0);
        ck_assert_int_eq(pread(fd, &byte, 1, places[i]), 1);
        byte ^= 1;
        ck_assert_int_eq(pwrite(fd, &byte, 1, places[i]), 1);
        ck_assert_msg(e2fsck() != 0, "place %d", i);
    }
}
END_TEST

START_TEST(test_refused)
{
    uint64_t bytes = 1;

    ck_assert_int_eq(mkfs_ext4(fd, MKFS_MIN - 1), -EINVAL);
    ck_assert_int_eq(mkfs_detect(fd, &bytes), -ENODATA);
    ck_assert_int_eq(pwrite(fd, "x", 1, 65535), 1);
    ck_assert_int_eq(mkfs_detect(fd, &bytes), -EUCLEAN);
    ck_assert_int_eq(ftruncate(fd, 4096), 0);
    ck_assert_int_eq(mkfs_detect(fd, &bytes), -EUCLEAN);
    ck_assert_uint_eq(bytes, 1);
    close(fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(mkfs_ext4(fd, MIB), -EBADF);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("mkfs");
    TCase *tc = tcase_create("mkfs");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_sound, 0, COUNT(sizes));
    tcase_add_test(tc, test_sparse);
    tcase_add_test(tc, test_damage);
    tcase_add_test(tc, test_refused);
    suite_add_tcase(s, tc);
    sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
