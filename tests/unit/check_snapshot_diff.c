/* SPDX-License-Identifier: Apache-2.0 */
/* Diffs: base and diffs together are the whole, and what happens without. */
#include "trial/snapshot_diff.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "tests/snapshot_rig.h"
#include "trial/snapshot_internal.h"

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

static const char *path_of(const char *name)
{
    return snapshot_rig_path(&rig, name);
}

/* Freezes the machine as a diff to another snapshot. */
static int try_from(const char *name, const char *parent, struct failure *f)
{
    const struct snapshot_open_options look = {.no_bases = true};
    struct snapshot_writer_options options = {.parent = NULL};
    struct snapshot *s = NULL;
    int ret = snapshot_open(path_of(parent), &look, &s, f);

    if (ret != 0)
        return ret;
    options.parent = s;
    ret = snapshot_rig_try(&rig, name, &options, f);
    snapshot_close(s);
    return ret;
}

static void make_from(const char *name, const char *parent)
{
    struct failure f = {.code = ""};
    int ret = try_from(name, parent, &f);

    ck_assert_msg(ret == 0, "%s: %s", f.code, f.message);
}

static bool after_some(void *ctx)
{
    int *left = ctx;

    return --*left < 0;
}

/* Nobody waits for a chain to be put together who no longer wants it. */
START_TEST(flattening_can_be_interrupted)
{
    int asked = 0;

    for (uint64_t page = 0; page < 2048; page++)
        snapshot_rig_page(&rig, page, 77);
    make_from("s/b", "s/a");
    for (int n = 0;; n++) {
        int left = n;
        const struct snapshot_open_options options = {.check =
                                                          SNAPSHOT_CHECK_NONE,
                                                      .cancelled = after_some,
                                                      .ctx = &left};
        struct snapshot *s = NULL;
        struct failure f = {.code = ""};
        int ret = snapshot_open(path_of("s/b"), &options, &s, &f);

        asked = n;
        snapshot_close(s);
        if (ret == 0)
            break;
        ck_assert_int_eq(ret, -ECANCELED);
        ck_assert_str_eq(f.code, "cancelled");
    }
    /* At least for each MiB that the diff has. */
    ck_assert_int_ge(asked, 8);
}
END_TEST

/* The snapshot is the machine as it is now. */
static void must_hold(const char *name)
{
    struct snapshot *s =
        snapshot_rig_must_open(&rig, name, SNAPSHOT_CHECK_FULL);

    ck_assert(snapshot_rig_same(s->memory_fd, rig.memory_fd));
    ck_assert(snapshot_rig_same(s->disks[1].cow_fd, rig.cow_fd));
    ck_assert(snapshot_rig_same(s->disks[0].base_fd, rig.root_fd));
    ck_assert(snapshot_rig_same(s->disks[1].base_fd, rig.scratch_fd));
    ck_assert_int_eq(pwrite(s->memory_fd, "x", 1, 0), -1);
    snapshot_close(s);
}

static void must_refuse(const char *name, const char *code, const char *says)
{
    struct snapshot *s = NULL;
    struct failure f = {.code = ""};

    ck_assert_int_lt(
        snapshot_rig_try_open(&rig, name, SNAPSHOT_CHECK_FULL, &s, &f), 0);
    ck_assert_msg(strcmp(f.code, code) == 0, "%s: %s", f.code, f.message);
    ck_assert_msg(strstr(f.message, says) || strstr(f.object, says),
                  "%s (%s) does not say %s", f.message, f.object, says);
}

static uint64_t blocks_of(const char *name)
{
    struct stat st;

    ck_assert_int_eq(stat(path_of(name), &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

START_TEST(only_changes_are_stored)
{
    snapshot_rig_page(&rig, 0, 500);
    snapshot_rig_page(&rig, 388, 0); /* a page becomes zero */
    snapshot_rig_page(&rig, RIG_MEMORY / SNAPSHOT_PAGE - 1, 501);
    snapshot_rig_cluster(&rig, 3, 502); /* changed */
    snapshot_rig_cluster(&rig, 7, 503); /* new */
    snapshot_rig_cluster(&rig, 8, 0);   /* new, of zeros */
    rig.state_seed++;
    make_from("s/b", "s/a");
    must_hold("s/b");
    ck_assert_uint_le(blocks_of("s/b/memory"), 4 * SNAPSHOT_PAGE);
    ck_assert_uint_le(blocks_of("s/b/disk-scratch.cow"), 3 * RIG_CLUSTER);
    ck_assert_int_ne(access(path_of("s/b/base-root"), F_OK), 0);
}
END_TEST

START_TEST(no_change_no_pages)
{
    make_from("s/b", "s/a");
    must_hold("s/b");
    ck_assert_uint_eq(blocks_of("s/b/memory"), 0);
}
END_TEST

/* A cluster that is no longer present leaves no trace in what is opened. */
START_TEST(dropped_cluster_is_gone)
{
    snapshot_rig_drop_cluster(&rig, 3);
    make_from("s/b", "s/a");
    must_hold("s/b");
    snapshot_rig_cluster(&rig, 3, 9);
    make_from("s/c", "s/b");
    must_hold("s/c");
}
END_TEST

/* A chain has the root of the one complete snapshot of the same machine. */
START_TEST(base_and_diffs_are_the_whole)
{
    struct snapshot *chain, *whole;
    struct snapshot_difference d;
    struct failure f = {.code = ""};

    for (char name = 'b'; name < 'f'; name++) {
        const char path[] = {'s', '/', name, '\0'};
        const char parent[] = {'s', '/', (char)(name - 1), '\0'};

        snapshot_rig_page(&rig, (uint64_t)name * 7, (uint32_t)name);
        snapshot_rig_page(&rig, (uint64_t)(name - 1) * 7, 0);
        snapshot_rig_cluster(&rig, (uint64_t)name % 11, (uint32_t)name);
        make_from(path, parent);
        must_hold(path);
    }
    snapshot_rig_make(&rig, "s/whole", NULL);
    chain = snapshot_rig_must_open(&rig, "s/e", SNAPSHOT_CHECK_FULL);
    whole = snapshot_rig_must_open(&rig, "s/whole", SNAPSHOT_CHECK_FULL);
    ck_assert_str_eq(chain->manifest.root, whole->manifest.root);
    ck_assert(snapshot_rig_same(chain->leaves_fd, whole->leaves_fd));
    ck_assert_int_eq(snapshot_diff(chain, whole, NULL, NULL, &d, &f), 0);
    ck_assert_uint_eq(d.pages, 0);
    ck_assert_uint_eq(d.clusters[1], 0);
    snapshot_close(chain);
    snapshot_close(whole);
}
END_TEST

/* Whatever is done to it, in whatever order. */
START_TEST(random_chains_are_the_whole)
{
    unsigned seed = (unsigned)_i * 77 + 1;
    char parent[16] = "s/a", name[16];

    for (unsigned step = 0; step < 5; step++) {
        for (unsigned i = 0; i < 30; i++) {
            uint64_t page = (uint64_t)rand_r(&seed) % 200;
            uint64_t cluster = (uint64_t)rand_r(&seed) % 145;

            snapshot_rig_page(&rig, page * 41, (uint32_t)rand_r(&seed) % 3);
            if (rand_r(&seed) % 3 == 0)
                snapshot_rig_drop_cluster(&rig, cluster);
            else
                snapshot_rig_cluster(&rig, cluster,
                                     (uint32_t)rand_r(&seed) % 3);
        }
        snprintf(name, sizeof(name), "s/r%u", step);
        make_from(name, parent);
        must_hold(name);
        strcpy(parent, name);
    }
}
END_TEST

START_TEST(chains_have_an_end)
{
    struct failure f = {.code = ""};
    char parent[16] = "s/a", name[16];

    for (unsigned i = 1; i <= SNAPSHOT_CHAIN_MAX; i++) {
        snapshot_rig_page(&rig, i, i);
        snprintf(name, sizeof(name), "s/n%u", i);
        make_from(name, parent);
        strcpy(parent, name);
    }
    must_hold(name);
    ck_assert_int_lt(try_from("s/more", name, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_parent");
    ck_assert_uint_eq(snapshot_rig_entries(path_of("s")),
                      1 + SNAPSHOT_CHAIN_MAX);
}
END_TEST

/* ---- the parent --------------------------------------------------------- */

START_TEST(deleted_parent_is_told)
{
    char command[200];

    make_from("s/b", "s/a");
    snprintf(command, sizeof(command), "rm -r %s/s/a", rig.dir);
    ck_assert_int_eq(system(command), 0);
    must_refuse("s/b", "snapshot_parent", "deleted");
}
END_TEST

START_TEST(parent_is_found_by_its_id)
{
    struct snapshot_open_options options = {.check = SNAPSHOT_CHECK_FULL};
    char folder[128], dir[128];
    const char *places[] = {folder, NULL};
    struct snapshot *s = NULL;
    struct failure f = {.code = ""};

    make_from("s/b", "s/a");
    /* Under another name, beside it. */
    ck_assert_int_eq(rename(path_of("s/a"), path_of("s/renamed")), 0);
    must_hold("s/b");
    /* In another folder, which is named, or itself. */
    snprintf(folder, sizeof(folder), "%s/elsewhere", rig.dir);
    snprintf(dir, sizeof(dir), "%s/elsewhere/x", rig.dir);
    ck_assert_int_eq(mkdir(folder, 0700), 0);
    ck_assert_int_eq(rename(path_of("s/renamed"), dir), 0);
    must_refuse("s/b", "snapshot_parent", "not found");
    options.parents = places;
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(snapshot_open(path_of("s/b"), &options, &s, &f), 0);
        snapshot_close(s);
        places[0] = dir;
    }
    /* In the cache. */
    ck_assert_int_eq(mkdir(path_of("cache/microsbx/snapshots"), 0700), 0);
    ck_assert_int_eq(rename(dir, path_of("cache/microsbx/snapshots/y")), 0);
    must_hold("s/b");
}
END_TEST

/* A file of the parent is as good as one of its own. */
START_TEST(damaged_parent_is_named)
{
    static const char *const files[] = {"memory", "disk-scratch.cow",
                                        "base-root", "manifest.json"};
    char path[160], name[64];

    make_from("s/b", "s/a");
    snprintf(name, sizeof(name), "a/%s", files[_i]);
    snprintf(path, sizeof(path), "%s/s/%s", rig.dir, name);
    snapshot_rig_poke(path, 300, "?", 1);
    must_refuse("s/b", "snapshot_damaged", name);
}
END_TEST

static const char *const diff_files[] = {
    "memory",           "memory.map", "disk-scratch.cow",
    "disk-scratch.map", "leaves",     "state",
};

START_TEST(damaged_diff_is_named)
{
    char path[160], name[64];
    uint8_t *bytes;
    size_t len;

    snapshot_rig_page(&rig, 0, 500);
    snapshot_rig_cluster(&rig, 3, 502);
    make_from("s/b", "s/a");
    snprintf(name, sizeof(name), "b/%s", diff_files[_i]);
    snprintf(path, sizeof(path), "%s/s/%s", rig.dir, name);
    bytes = snapshot_rig_read(path, &len);
    for (size_t step = 0; step <= 8; step++) {
        size_t at = (len - 1) * step / 8;
        uint8_t flipped = bytes[at] ^ 0x10;

        snapshot_rig_poke(path, at, &flipped, 1);
        must_refuse("s/b", "snapshot_damaged", name);
        snapshot_rig_poke(path, at, &bytes[at], 1);
    }
    free(bytes);
}
END_TEST

/* With all digests of the diff right, what it makes with its parent is not. */
static const struct {
    const char *file;
    uint64_t offset;
    uint8_t byte;
    enum snapshot_check check; /* the least that finds it */
} resealed[] = {
    {"memory.map", 12, 0xff, SNAPSHOT_CHECK_FULL}, /* pages it has not */
    {"memory", 4096, 1, SNAPSHOT_CHECK_FULL},
    {"disk-scratch.map", 2, 0xff, SNAPSHOT_CHECK_NONE},
    {"disk-scratch.cow", 4096 + 2, 0xff, SNAPSHOT_CHECK_NONE},  /* nowhere */
    {"disk-scratch.cow", 4096 + 18, 0xff, SNAPSHOT_CHECK_NONE}, /* no cluster */
    {"disk-scratch.cow", 0, 0xff, SNAPSHOT_CHECK_NONE},
    {"disk-scratch.cow", 65536 + 3 * 65536, 0xff, SNAPSHOT_CHECK_FULL},
};

START_TEST(resealed_diff_is_refused)
{
    struct snapshot *s = NULL;
    struct failure f = {.code = ""};
    char dir[128], path[160];

    snapshot_rig_page(&rig, 1, 500);
    snapshot_rig_cluster(&rig, 3, 502);
    make_from("s/b", "s/a");
    snprintf(dir, sizeof(dir), "%s/s/b", rig.dir);
    snprintf(path, sizeof(path), "%s/%s", dir, resealed[_i].file);
    snapshot_rig_poke(path, resealed[_i].offset, &resealed[_i].byte, 1);
    snapshot_rig_reseal(dir);
    ck_assert_int_lt(
        snapshot_rig_try_open(&rig, "s/b", resealed[_i].check, &s, &f), 0);
    ck_assert_msg(strcmp(f.code, "snapshot_damaged") == 0, "%s: %s", f.code,
                  f.message);
}
END_TEST

/* The parent changes while the diff is used. */
START_TEST(parents_are_watched)
{
    struct snapshot *s;
    struct failure f = {.code = ""};

    make_from("s/b", "s/a");
    s = snapshot_rig_must_open(&rig, "s/b", SNAPSHOT_CHECK_DEFAULT);
    ck_assert_int_eq(s->checked, SNAPSHOT_CHECK_STAMP);
    usleep(25000);
    snapshot_rig_poke(path_of("s/a/memory"), 0, "?", 1);
    ck_assert_int_eq(snapshot_unchanged(s, &f), -ESTALE);
    ck_assert_ptr_nonnull(strstr(f.object, "a/memory"));
    snapshot_close(s);
}
END_TEST

/* The diff of another machine. */
START_TEST(other_machines_are_no_parents)
{
    struct failure f = {.code = ""};

    ck_assert_int_eq(pwrite(rig.root_fd, "x", 1, 0), 1); /* another base */
    ck_assert_int_eq(try_from("s/b", "s/a", &f), -EINVAL);
    ck_assert_str_eq(f.code, "snapshot_parent");
    ck_assert_int_ne(access(path_of("s/b"), F_OK), 0);
}
END_TEST

START_TEST(diff_without_parents_can_be_looked_at)
{
    const struct snapshot_open_options options = {
        .check = SNAPSHOT_CHECK_FULL, .no_bases = true, .no_flatten = true};
    struct snapshot *s = NULL;
    struct failure f = {.code = ""};

    make_from("s/b", "s/a");
    ck_assert_int_eq(rename(path_of("s/a"), path_of("away")), 0);
    ck_assert_int_eq(snapshot_open(path_of("s/b"), &options, &s, &f), 0);
    ck_assert(s->manifest.has_parent);
    ck_assert_int_eq(s->memory_fd, -1);
    snapshot_close(s);
}
END_TEST

/* ---- bases of a diff ---------------------------------------------------- */

START_TEST(base_is_stored_where_the_parent_has_none)
{
    const struct snapshot_writer_options without = {.without_base = true};

    snapshot_rig_make(&rig, "s/thin", &without);
    snapshot_rig_page(&rig, 1, 77);
    make_from("s/b", "s/thin");
    ck_assert_int_eq(access(path_of("s/b/base-root"), F_OK), 0);
    must_hold("s/b");
}
END_TEST

/* ---- comparing ---------------------------------------------------------- */

struct runs {
    unsigned count;
    struct snapshot_run run[32];
};

static void collect(void *ctx, const struct snapshot_run *run)
{
    struct runs *runs = ctx;

    runs->run[runs->count++] = *run;
}

START_TEST(differences_are_runs)
{
    struct snapshot *a, *b;
    struct snapshot_difference d;
    struct failure f = {.code = ""};
    struct runs runs = {.count = 0};
    char base[RIG_CLUSTER];

    for (uint64_t page = 254; page < 259; page++) /* across a chunk */
        snapshot_rig_page(&rig, page, 600);
    snapshot_rig_page(&rig, 388, 0);
    snapshot_rig_cluster(&rig, 3, 601);
    snapshot_rig_cluster(&rig, 4, 602);
    /* Present on one side only, but reads like the base: no difference. */
    ck_assert_int_eq(
        io_pread_full(rig.scratch_fd, base, sizeof(base), 1 * RIG_CLUSTER),
        (ssize_t)sizeof(base));
    snapshot_rig_cluster(&rig, 1, 5);
    ck_assert_int_eq(io_pwrite_full(rig.cow_fd, base, sizeof(base),
                                    RIG_CLUSTER + 1 * RIG_CLUSTER),
                     0);
    make_from("s/b", "s/a");
    a = snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_NONE);
    b = snapshot_rig_must_open(&rig, "s/b", SNAPSHOT_CHECK_NONE);
    ck_assert_int_eq(snapshot_diff(a, b, collect, &runs, &d, &f), 0);
    ck_assert_uint_eq(d.pages, 6);
    ck_assert_uint_eq(d.clusters[0], 0);
    ck_assert_uint_eq(d.clusters[1], 2);
    ck_assert_uint_eq(runs.count, 3);
    ck_assert_ptr_null(runs.run[0].disk);
    ck_assert_uint_eq(runs.run[0].first, 254);
    ck_assert_uint_eq(runs.run[0].count, 5);
    ck_assert_uint_eq(runs.run[1].first, 388);
    ck_assert_str_eq(runs.run[2].disk, "scratch");
    ck_assert_uint_eq(runs.run[2].first, 3);
    ck_assert_uint_eq(runs.run[2].count, 2);
    /* The same the other way round, and nothing with itself. */
    ck_assert_int_eq(snapshot_diff(b, a, NULL, NULL, &d, &f), 0);
    ck_assert_uint_eq(d.pages, 6);
    ck_assert_int_eq(snapshot_diff(a, a, NULL, NULL, &d, &f), 0);
    ck_assert_uint_eq(d.pages + d.clusters[1], 0);
    snapshot_close(a);
    snapshot_close(b);
}
END_TEST

START_TEST(other_machines_are_not_compared)
{
    struct snapshot *a, *b;
    struct snapshot_difference d;
    struct failure f = {.code = ""};

    ck_assert_int_eq(pwrite(rig.root_fd, "x", 1, 0), 1);
    snapshot_rig_make(&rig, "s/b", NULL);
    a = snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_NONE);
    b = snapshot_rig_must_open(&rig, "s/b", SNAPSHOT_CHECK_NONE);
    ck_assert_int_eq(snapshot_diff(a, b, NULL, NULL, &d, &f), -EINVAL);
    ck_assert_str_eq(f.code, "snapshot_disk");
    snapshot_close(a);
    snapshot_close(b);
}
END_TEST

/* ---- verification ------------------------------------------------------- */

static void count(void *ctx, const struct snapshot_verdict *verdict)
{
    unsigned *counts = ctx;

    counts[verdict->failure ? 1 : 0]++;
    if (!verdict->failure)
        ck_assert_msg(verdict->bytes > 0, "%s has no bytes", verdict->file);
}

START_TEST(verify_includes_parents)
{
    const struct snapshot_open_options options = {.no_bases = false};
    struct failure f = {.code = ""};
    unsigned counts[2] = {0, 0};

    make_from("s/b", "s/a");
    ck_assert_int_eq(
        snapshot_verify(path_of("s/b"), &options, count, counts, &f), 0);
    /* manifest and six files; the parent and its six */
    ck_assert_uint_eq(counts[0], 1 + 6 + 1 + 6);
    snapshot_rig_poke(path_of("s/a/memory"), 0, "?", 1);
    ck_assert_int_lt(
        snapshot_verify(path_of("s/b"), &options, count, counts, &f), 0);
    ck_assert_uint_eq(counts[1], 1);
    ck_assert_ptr_nonnull(strstr(f.object, "a/memory"));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, only_changes_are_stored);
    tcase_add_test(tc, flattening_can_be_interrupted);
    tcase_add_test(tc, no_change_no_pages);
    tcase_add_test(tc, dropped_cluster_is_gone);
    tcase_add_test(tc, base_and_diffs_are_the_whole);
    tcase_add_loop_test(tc, random_chains_are_the_whole, 0, 4);
    tcase_add_test(tc, chains_have_an_end);
    tcase_add_test(tc, deleted_parent_is_told);
    tcase_add_test(tc, parent_is_found_by_its_id);
    tcase_add_loop_test(tc, damaged_parent_is_named, 0, 4);
    tcase_add_loop_test(tc, damaged_diff_is_named, 0,
                        (int)ARRAY_SIZE(diff_files));
    tcase_add_loop_test(tc, resealed_diff_is_refused, 0,
                        (int)ARRAY_SIZE(resealed));
    tcase_add_test(tc, parents_are_watched);
    tcase_add_test(tc, other_machines_are_no_parents);
    tcase_add_test(tc, diff_without_parents_can_be_looked_at);
    tcase_add_test(tc, base_is_stored_where_the_parent_has_none);
    tcase_add_test(tc, differences_are_runs);
    tcase_add_test(tc, other_machines_are_not_compared);
    tcase_add_test(tc, verify_includes_parents);
}

int main(void)
{
    Suite *suite = suite_create("snapshot_diff");
    TCase *tc = tcase_create("diff");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    add_tests(tc);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
