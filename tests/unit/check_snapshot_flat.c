/* SPDX-License-Identifier: Apache-2.0 */
/* Diffs that were flattened once: used again, checked, bounded. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "tests/snapshot_rig.h"
#include "trial/snapshot_internal.h"

#define KEPT_MAX 8u

static struct snapshot_rig rig;
static char id[DIGEST_HEX_SIZE];

/* The diff "s/NAME" to "s/a", with a page and a cluster of its own. */
static void make_diff(const char *name, uint32_t value)
{
    const struct snapshot_open_options look = {.no_bases = true};
    struct snapshot_writer_options options = {.parent = NULL};
    struct failure f = {.code = ""};
    struct snapshot *s = NULL;
    char path[32];

    ck_assert_int_eq(
        snapshot_open(snapshot_rig_path(&rig, "s/a"), &look, &s, &f), 0);
    options.parent = s;
    snapshot_rig_page(&rig, 97 * 3, value);
    snapshot_rig_cluster(&rig, 7, value);
    snprintf(path, sizeof(path), "s/%s", name);
    snapshot_rig_make(&rig, path, &options);
    snapshot_close(s);
}

static struct snapshot *open_diff(const char *name, enum snapshot_check check)
{
    char path[32];

    snprintf(path, sizeof(path), "s/%s", name);
    return snapshot_rig_must_open(&rig, path, check);
}

static void must_be_right(const struct snapshot *s)
{
    ck_assert(snapshot_rig_same(s->memory_fd, rig.memory_fd));
    ck_assert(snapshot_rig_same(s->disks[1].cow_fd, rig.cow_fd));
}

static const char *flat_path(const char *file)
{
    char path[160];

    snprintf(path, sizeof(path), "cache/microsbx/flat/%s%s", id, file);
    return snapshot_rig_path(&rig, path);
}

static ino_t inode(int fd)
{
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    return st.st_ino;
}

static nlink_t inode_links(int fd)
{
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    return st.st_nlink;
}

static bool is_kept(const struct snapshot *s)
{
    struct stat st;

    return stat(flat_path("/memory"), &st) == 0 &&
           st.st_ino == inode(s->memory_fd);
}

static void setup(void)
{
    struct snapshot *s;

    snapshot_rig_open(&rig);
    snapshot_rig_make(&rig, "s/a", NULL);
    make_diff("b", 99);
    s = open_diff("b", SNAPSHOT_CHECK_NONE);
    memcpy(id, s->id, sizeof(id));
    snapshot_close(s);
}

static void teardown(void)
{
    snapshot_rig_close(&rig);
}

/* The chain is copied once, and from then on the copy is used. */
START_TEST(made_once)
{
    static const enum snapshot_check levels[] = {
        SNAPSHOT_CHECK_FULL, SNAPSHOT_CHECK_DEFAULT, SNAPSHOT_CHECK_SAMPLED,
        SNAPSHOT_CHECK_NONE, SNAPSHOT_CHECK_FULL};
    ino_t first = 0;

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        struct snapshot *s = open_diff("b", levels[i]);

        ck_assert(is_kept(s));
        ck_assert(first == 0 || first == inode(s->memory_fd));
        first = inode(s->memory_fd);
        must_be_right(s);
        ck_assert_int_eq(fcntl(s->memory_fd, F_GETFL) & O_ACCMODE, O_RDONLY);
        snapshot_close(s);
    }
    /* Nothing but that lies there, and nobody can write to it. */
    ck_assert_uint_eq(snapshot_rig_entries(flat_path("")), 2);
    ck_assert_uint_eq(
        snapshot_rig_entries(snapshot_rig_path(&rig, "cache/microsbx/flat")),
        1);
}
END_TEST

START_TEST(stamp_covers_it)
{
    const struct timespec pause = {.tv_nsec = 40000000};
    struct snapshot *s;

    nanosleep(&pause, NULL);
    snapshot_close(open_diff("b", SNAPSHOT_CHECK_FULL));
    s = open_diff("b", SNAPSHOT_CHECK_DEFAULT);
    ck_assert_int_eq(s->checked, SNAPSHOT_CHECK_STAMP);
    ck_assert(is_kept(s));
    snapshot_close(s);
    ck_assert_int_eq(chmod(flat_path("/memory"), 0600), 0);
    s = open_diff("b", SNAPSHOT_CHECK_DEFAULT);
    ck_assert_int_eq(s->checked, SNAPSHOT_CHECK_FULL);
    snapshot_close(s);
}
END_TEST

/* What is wrong in it is found, and is no fault of the snapshot. */
START_TEST(damage_is_found)
{
    static const char *const files[] = {"/memory", "/disk-scratch.cow"};

    for (size_t i = 0; i < 2; i++) {
        struct snapshot *s = open_diff("b", SNAPSHOT_CHECK_FULL);
        uint64_t at = i == 0 ? 97 * 4096 : 65536 + 5;

        ck_assert(is_kept(s));
        snapshot_close(s);
        snapshot_rig_poke(flat_path(files[i]), at, "?", 1);
        s = open_diff("b", SNAPSHOT_CHECK_DEFAULT);
        ck_assert_int_eq(s->checked, SNAPSHOT_CHECK_FULL);
        must_be_right(s);
        ck_assert_int_ne(access(flat_path(""), F_OK), 0);
        snapshot_close(s);
    }
}
END_TEST

/* What cannot be used is made anew: cut, a link, not there. */
START_TEST(useless_is_replaced)
{
    struct snapshot *s;

    switch (_i) {
    case 0:
        ck_assert_int_eq(chmod(flat_path("/memory"), 0600), 0);
        ck_assert_int_eq(truncate(flat_path("/memory"), 4096), 0);
        break;
    case 1:
        ck_assert_int_eq(unlink(flat_path("/disk-scratch.cow")), 0);
        break;
    default:
        ck_assert_int_eq(rename(flat_path("/memory"), flat_path("/old")), 0);
        ck_assert_int_eq(symlink("old", flat_path("/memory")), 0);
        break;
    }
    for (int i = 0; i < 2; i++) {
        s = open_diff("b", SNAPSHOT_CHECK_FULL);
        ck_assert(is_kept(s));
        must_be_right(s);
        snapshot_close(s);
    }
    ck_assert_uint_eq(snapshot_rig_entries(flat_path("")), 2);
}
END_TEST

/* The oldest go, but not one that is used; there is always one to use. */
START_TEST(bounded)
{
    struct snapshot *used = open_diff("b", SNAPSHOT_CHECK_FULL), *s;
    struct failure f = {.code = ""};
    char name[8];

    for (uint32_t i = 0; i < KEPT_MAX + 3; i++) {
        snprintf(name, sizeof(name), "d%u", i);
        make_diff(name, 200 + i);
        s = open_diff(name, SNAPSHOT_CHECK_FULL);
        must_be_right(s);
        snapshot_close(s);
        ck_assert_uint_le(snapshot_rig_entries(
                              snapshot_rig_path(&rig, "cache/microsbx/flat")),
                          KEPT_MAX);
    }
    /* The last is kept: another one went for it. */
    s = open_diff(name, SNAPSHOT_CHECK_FULL);
    ck_assert_uint_eq(inode_links(s->memory_fd), 1);
    snapshot_close(s);
    ck_assert(is_kept(used));
    ck_assert_int_eq(snapshot_unchanged(used, &f), 0);
    snapshot_close(used);
    /* Not used any more, it is the next to go. */
    make_diff("last", 300);
    s = open_diff("last", SNAPSHOT_CHECK_FULL);
    must_be_right(s);
    snapshot_close(s);
    ck_assert_int_ne(access(flat_path(""), F_OK), 0);
}
END_TEST

/* Without a place for it each is made for itself. */
START_TEST(nowhere_to_keep)
{
    struct snapshot_names names;
    struct snapshot *s;

    ck_assert_int_eq(
        setenv("XDG_CACHE_HOME", snapshot_rig_path(&rig, "root"), 1), 0);
    s = open_diff("b", SNAPSHOT_CHECK_FULL);
    ck_assert_uint_eq(fcntl(s->memory_fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    must_be_right(s);
    ck_assert(!is_kept(s));
    /* It is ours alone, and was checked: nobody could change it. */
    snapshot_unsealed(s, &names);
    for (unsigned i = 0; i < names.count; i++)
        ck_assert_int_eq(strncmp(names.names[i], "base-", 5), 0);
    snapshot_close(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot_flat");
    TCase *tc = tcase_create("flat");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, made_once);
    tcase_add_test(tc, stamp_covers_it);
    tcase_add_test(tc, damage_is_found);
    tcase_add_loop_test(tc, useless_is_replaced, 0, 3);
    tcase_add_test(tc, bounded);
    tcase_add_test(tc, nowhere_to_keep);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
