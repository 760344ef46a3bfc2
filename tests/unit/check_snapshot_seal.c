/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changes after the check, by somebody who has a page of a file mapped
 * from before: it leaves no trace in the file's times. Sealed copies do not
 * follow; where there is none, that is said.
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

#include "base/io.h"
#include "tests/snapshot_rig.h"
#include "trial/snapshot_internal.h"

#define PAGE_97 ((uint64_t)97 * 4096) /* the rig wrote there */

static struct snapshot_rig rig;

/* A writable mapping of a published file, all pages of which are dirty. */
struct grip {
    uint8_t *map;
    size_t len;
};

static struct grip grip_file(const char *name)
{
    char path[200];
    struct stat st;
    struct grip grip;
    int fd;

    snprintf(path, sizeof(path), "s/a/%s", name);
    ck_assert_int_eq(chmod(snapshot_rig_path(&rig, path), 0644), 0);
    fd = open(snapshot_rig_path(&rig, path), O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    grip.len = (size_t)st.st_size;
    grip.map = mmap(NULL, grip.len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(grip.map, MAP_FAILED);
    close(fd);
    return grip;
}

static void dirty(const struct grip *grip, uint64_t at)
{
    volatile uint8_t *byte = grip->map + at;

    *byte = *byte;
}

/* The change that nobody sees: the page was dirty already. */
static void change(const struct grip *grip, uint64_t at)
{
    grip->map[at] ^= 0x5a;
}

static void wait_for_settled_files(void)
{
    const struct timespec pause = {.tv_nsec = 40000000};

    nanosleep(&pause, NULL);
}

static struct snapshot *open_with(enum snapshot_check check, uint64_t seal_max,
                                  bool many)
{
    const struct snapshot_open_options options = {
        .check = check, .seal_max = seal_max, .many = many};
    struct snapshot *s = NULL;
    struct failure f = {.code = ""};
    int ret = snapshot_open(snapshot_rig_path(&rig, "s/a"), &options, &s, &f);

    ck_assert_msg(ret == 0, "%s", f.message);
    return s;
}

static uint8_t byte_of(int fd, uint64_t at)
{
    uint8_t byte = 0;

    ck_assert_int_eq(io_pread_full(fd, &byte, 1, at), 1);
    return byte;
}

static bool is_unsealed(const struct snapshot *s, const char *name)
{
    struct snapshot_names names;

    snapshot_unsealed(s, &names);
    for (unsigned i = 0; i < names.count; i++)
        if (strcmp(names.names[i], name) == 0)
            return true;
    return false;
}

static unsigned count_unsealed(const struct snapshot *s)
{
    struct snapshot_names names;

    snapshot_unsealed(s, &names);
    return names.count;
}

static void setup(void)
{
    snapshot_rig_open(&rig);
    snapshot_rig_make(&rig, "s/a", NULL);
}

static void teardown(void)
{
    snapshot_rig_close(&rig);
}

START_TEST(copies_are_sealed)
{
    int fd = snapshot_seal_copy(rig.memory_fd, RIG_MEMORY, NULL);
    char path[64];
    int again;

    ck_assert_int_ge(fd, 0);
    ck_assert(snapshot_rig_same(fd, rig.memory_fd));
    ck_assert(snapshot_is_sealed(fd));
    ck_assert(!snapshot_is_sealed(rig.memory_fd));
    ck_assert_uint_lt(snapshot_seal_cost(fd), 1 << 20);
    /* Whoever gets it cannot open it to write, either. */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    again = open(path, O_RDWR | O_CLOEXEC);
    if (again >= 0) {
        ck_assert_int_eq(pwrite(again, "x", 1, 0), -1);
        ck_assert_int_eq(errno, EPERM);
        ck_assert_int_ne(ftruncate(again, 0), 0);
        ck_assert_ptr_eq(
            mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0),
            MAP_FAILED);
        close(again);
    }
    close(fd);
}
END_TEST

/* Checked in full and kept: a change underneath is not seen by the trial. */
START_TEST(sealed_content_does_not_follow)
{
    struct grip memory = grip_file("memory");
    struct grip cow = grip_file("disk-scratch.cow");
    struct snapshot *s;

    dirty(&memory, PAGE_97);
    dirty(&cow, 65536 + 9);
    s = open_with(SNAPSHOT_CHECK_FULL, SNAPSHOT_SEAL_ONCE, false);
    ck_assert_int_eq(s->checked, SNAPSHOT_CHECK_FULL);
    ck_assert_uint_eq(count_unsealed(s), 0);
    change(&memory, PAGE_97);
    change(&cow, 65536 + 9);
    ck_assert(snapshot_rig_same(s->memory_fd, rig.memory_fd));
    ck_assert(snapshot_rig_same(s->disks[1].cow_fd, rig.cow_fd));
    ck_assert(snapshot_rig_same(s->disks[0].base_fd, rig.root_fd));
    snapshot_close(s);
}
END_TEST

/* Not kept: the change is seen, and the files are named. */
START_TEST(unsealed_content_is_named)
{
    struct grip memory = grip_file("memory");
    struct snapshot *s;
    uint8_t was;

    dirty(&memory, PAGE_97);
    s = open_with(SNAPSHOT_CHECK_FULL, 0, false);
    was = byte_of(s->memory_fd, PAGE_97);
    change(&memory, PAGE_97);
    ck_assert_uint_ne(byte_of(s->memory_fd, PAGE_97), was);
    ck_assert_uint_eq(count_unsealed(s), 4);
    ck_assert(is_unsealed(s, "memory") && is_unsealed(s, "disk-scratch.cow"));
    ck_assert(is_unsealed(s, "base-root") && is_unsealed(s, "base-scratch"));
    snapshot_close(s);
    change(&memory, PAGE_97);
    /* Room for the memory alone, then for what is smaller. */
    s = open_with(SNAPSHOT_CHECK_FULL, 20 * 4096, false);
    ck_assert(!is_unsealed(s, "memory") && is_unsealed(s, "base-root"));
    snapshot_close(s);
}
END_TEST

/* A stamp is believed by one trial, which says what it is worth. */
START_TEST(stamp_is_worth_less)
{
    struct grip memory = grip_file("memory");
    struct failure f = {.code = ""};
    struct snapshot *s;

    dirty(&memory, PAGE_97);
    wait_for_settled_files();
    snapshot_close(open_with(SNAPSHOT_CHECK_FULL, 0, false));
    change(&memory, PAGE_97);
    s = open_with(SNAPSHOT_CHECK_DEFAULT, SNAPSHOT_SEAL_ONCE, false);
    ck_assert_int_eq(s->checked, SNAPSHOT_CHECK_STAMP);
    ck_assert(is_unsealed(s, "memory"));
    snapshot_close(s);
    /* Where many start from it, it is read and found out. */
    {
        const struct snapshot_open_options many = {
            .seal_max = SNAPSHOT_SEAL_MANY, .many = true};

        ck_assert_int_lt(
            snapshot_open(snapshot_rig_path(&rig, "s/a"), &many, &s, &f), 0);
        ck_assert_str_eq(f.code, "snapshot_damaged");
    }
    change(&memory, PAGE_97);
    s = open_with(SNAPSHOT_CHECK_DEFAULT, SNAPSHOT_SEAL_MANY, true);
    ck_assert_int_eq(s->checked, SNAPSHOT_CHECK_FULL);
    ck_assert_uint_eq(count_unsealed(s), 0);
    snapshot_close(s);
    /* What does not fit is believed all the same. */
    s = open_with(SNAPSHOT_CHECK_DEFAULT, 0, true);
    ck_assert_int_eq(s->checked, SNAPSHOT_CHECK_STAMP);
    snapshot_close(s);
}
END_TEST

/* State and leaves are read into sealed memory first, at every level. */
START_TEST(small_files_do_not_follow)
{
    static const enum snapshot_check levels[] = {
        SNAPSHOT_CHECK_FULL, SNAPSHOT_CHECK_DEFAULT, SNAPSHOT_CHECK_SAMPLED,
        SNAPSHOT_CHECK_NONE};
    static const char *const names[] = {"state", "leaves"};
    struct failure f = {.code = ""};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct grip grip = grip_file(names[i]);

        dirty(&grip, 3);
        wait_for_settled_files();
        snapshot_close(open_with(SNAPSHOT_CHECK_FULL, 0, false));
        for (size_t k = 0; k < sizeof(levels) / sizeof(levels[0]); k++) {
            struct snapshot *s = open_with(levels[k], 0, false);
            int fd = i == 0 ? s->state_fd : s->leaves_fd;
            uint8_t was = byte_of(fd, 3);

            change(&grip, 3);
            ck_assert_uint_eq(byte_of(fd, 3), was);
            snapshot_close(s);
            /* It was changed: also a stamp is of no use to it. */
            ck_assert_int_lt(
                snapshot_rig_try_open(&rig, "s/a", levels[k], &s, &f), 0);
            ck_assert_str_eq(f.code, "snapshot_damaged");
            change(&grip, 3);
        }
        munmap(grip.map, grip.len);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot_seal");
    TCase *tc = tcase_create("seal");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, copies_are_sealed);
    tcase_add_test(tc, sealed_content_does_not_follow);
    tcase_add_test(tc, unsealed_content_is_named);
    tcase_add_test(tc, stamp_is_worth_less);
    tcase_add_test(tc, small_files_do_not_follow);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
