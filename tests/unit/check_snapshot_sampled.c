/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sampled check reads no more than a full one, and holes not at all. What is
 * read is counted by a pread of this program's own.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/snapshot_rig.h"
#include "trial/snapshot_internal.h"

static uint64_t bytes_read;

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
    ssize_t n = syscall(SYS_pread64, fd, buf, len, offset);

    bytes_read += n > 0 ? (uint64_t)n : 0;
    return n;
}

static struct snapshot_rig rig;

static void setup(void)
{
    snapshot_rig_open(&rig);
    snapshot_rig_make(&rig, "s/a", NULL);
}

static void teardown(void)
{
    snapshot_rig_close(&rig);
}

/* Bytes that opening at this level reads. */
static uint64_t reads(enum snapshot_check check)
{
    bytes_read = 0;
    snapshot_close(snapshot_rig_must_open(&rig, "s/a", check));
    return bytes_read;
}

START_TEST(no_more_than_full)
{
    uint64_t full = reads(SNAPSHOT_CHECK_FULL);
    uint64_t none = reads(SNAPSHOT_CHECK_NONE);

    ck_assert_uint_gt(full, none); /* it counts */
    for (int i = 0; i < 30; i++) {
        uint64_t sampled = reads(SNAPSHOT_CHECK_SAMPLED);

        ck_assert_uint_ge(sampled, none);
        ck_assert_msg(sampled <= full, "%llu bytes instead of %llu",
                      (unsigned long long)sampled, (unsigned long long)full);
    }
}
END_TEST

/* Of memory that is one hole, nothing is read. */
START_TEST(holes_are_not_read)
{
    static const uint8_t zeros[1 << 20];
    uint8_t zero[DIGEST_SIZE], leaf[DIGEST_SIZE];
    char path[] = "/dev/shm/microsbx-hole-XXXXXX";
    int fd = mkstemp(path);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(ftruncate(fd, (4 << 20) + 512), 0);
    snapshot_leaf(zeros, sizeof(zeros), zero);
    bytes_read = 0;
    ck_assert_int_eq(snapshot_chunk_leaf(fd, 2 << 20, 1 << 20, leaf), 0);
    ck_assert_mem_eq(leaf, zero, sizeof(zero));
    snapshot_leaf(zeros, 512, zero);
    ck_assert_int_eq(snapshot_chunk_leaf(fd, 4 << 20, 512, leaf), 0);
    ck_assert_mem_eq(leaf, zero, sizeof(zero));
    ck_assert_uint_eq(bytes_read, 0);
    /* One byte of it, and it is read and another. */
    ck_assert_int_eq(pwrite(fd, "x", 1, (2 << 20) + 9), 1);
    snapshot_leaf(zeros, sizeof(zeros), zero);
    ck_assert_int_eq(snapshot_chunk_leaf(fd, 2 << 20, 1 << 20, leaf), 0);
    ck_assert_mem_ne(leaf, zero, sizeof(zero));
    ck_assert_uint_eq(bytes_read, 1 << 20);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot_sampled");
    TCase *tc = tcase_create("sampled");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, no_more_than_full);
    tcase_add_test(tc, holes_are_not_read);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
