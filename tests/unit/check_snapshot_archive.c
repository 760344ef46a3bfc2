/* SPDX-License-Identifier: Apache-2.0 */
/* Archives: there and back, and hostile ones. */
#include "trial/snapshot_archive.h"

#include <check.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/io.h"
#include "base/num.h"
#include "tests/snapshot_rig.h"
#include "trial/snapshot_internal.h"

static struct snapshot_rig rig;
static const struct snapshot_archive_options none = {.cancelled = NULL};

static char dir_a[128], archive[128], out[128];

static void setup(void)
{
    snapshot_rig_open(&rig);
    snapshot_rig_make(&rig, "s/a", NULL);
    snprintf(dir_a, sizeof(dir_a), "%s/s/a", rig.dir);
    snprintf(archive, sizeof(archive), "%s/x.msbx", rig.dir);
    snprintf(out, sizeof(out), "%s/s/out", rig.dir);
}

static void teardown(void)
{
    snapshot_rig_close(&rig);
}

static void must_export(const char *dir)
{
    struct failure f = {.code = ""};
    int ret = snapshot_export(dir, archive, &none, &f);

    ck_assert_msg(ret == 0, "%s", f.message);
}

static void must_import(void)
{
    struct failure f = {.code = ""};
    char id[DIGEST_HEX_SIZE];
    int ret = snapshot_import(archive, out, &none, id, &f);

    ck_assert_msg(ret == 0, "%s", f.message);
}

/* Refused with this code, and nothing is left. */
static void must_refuse(const char *code, const char *what)
{
    struct failure f = {.code = ""};
    char id[DIGEST_HEX_SIZE];
    int ret = snapshot_import(archive, out, &none, id, &f);

    ck_assert_msg(ret < 0, "%s was accepted", what);
    ck_assert_msg(strcmp(f.code, code) == 0, "%s: %s: %s", what, f.code,
                  f.message);
    ck_assert_uint_eq(snapshot_rig_entries(snapshot_rig_path(&rig, "s")), 1);
}

START_TEST(there_and_back)
{
    struct snapshot *s, *t;
    struct stat st, packed;

    must_export(dir_a);
    must_import();
    s = snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_FULL);
    t = snapshot_rig_must_open(&rig, "s/out", SNAPSHOT_CHECK_FULL);
    ck_assert_str_eq(s->id, t->id);
    ck_assert(snapshot_rig_same(s->memory_fd, t->memory_fd));
    ck_assert(snapshot_rig_same(s->disks[1].cow_fd, t->disks[1].cow_fd));
    /* Holes are holes again, and files are read-only. */
    ck_assert_int_eq(fstat(t->memory_fd, &st), 0);
    ck_assert_int_lt(st.st_blocks * 512, 64 * 4096);
    ck_assert_int_eq(st.st_mode & 07777, 0444);
    ck_assert_int_eq(stat(archive, &packed), 0);
    ck_assert_int_lt(packed.st_size, 2 << 20);
    snapshot_close(s);
    snapshot_close(t);
}
END_TEST

START_TEST(diffs_travel_alone)
{
    const struct snapshot_open_options look = {.no_bases = true};
    struct snapshot_writer_options options = {.parent = NULL};
    struct snapshot *s = NULL;
    struct failure f = {.code = ""};
    char diff[128];

    ck_assert_int_eq(snapshot_open(dir_a, &look, &s, &f), 0);
    options.parent = s;
    snapshot_rig_page(&rig, 3, 99);
    snapshot_rig_make(&rig, "s/b", &options);
    snapshot_close(s);
    snprintf(diff, sizeof(diff), "%s/s/b", rig.dir);
    must_export(diff);
    /* Unpacked where its parent is not. */
    ck_assert_int_eq(rename(dir_a, snapshot_rig_path(&rig, "away")), 0);
    must_import();
    ck_assert_int_lt(
        snapshot_rig_try_open(&rig, "s/out", SNAPSHOT_CHECK_FULL, &s, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_parent");
    ck_assert_int_eq(rename(snapshot_rig_path(&rig, "away"), dir_a), 0);
    s = snapshot_rig_must_open(&rig, "s/out", SNAPSHOT_CHECK_FULL);
    ck_assert(snapshot_rig_same(s->memory_fd, rig.memory_fd));
    snapshot_close(s);
}
END_TEST

START_TEST(export_refuses)
{
    struct failure f = {.code = ""};

    ck_assert_int_lt(snapshot_export(dir_a, dir_a, &none, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_exists");
    ck_assert_int_lt(snapshot_export(dir_a, "/nowhere/x", &none, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_write");
    ck_assert_int_lt(snapshot_export(rig.dir, archive, &none, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_invalid");
    snapshot_rig_poke(snapshot_rig_path(&rig, "s/a/memory"), 99, "?", 1);
    ck_assert_int_lt(snapshot_export(dir_a, archive, &none, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_damaged");
    ck_assert_int_ne(access(archive, F_OK), 0);
}
END_TEST

static bool after_some(void *ctx)
{
    int *left = ctx;

    return --*left < 0;
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

START_TEST(interrupted_leaves_nothing)
{
    char id[DIGEST_HEX_SIZE];
    int n, ret = -1;

    for (n = 0; ret != 0; n += 9) {
        int left = n;
        const struct snapshot_archive_options options = {
            .cancelled = after_some, .ctx = &left};
        struct failure f = {.code = ""};

        ret = snapshot_export(dir_a, archive, &options, &f);
        ck_assert_int_eq(access(archive, F_OK) == 0, ret == 0);
        ck_assert(ret == 0 || ret == -ECANCELED);
    }
    ck_assert_int_gt(n, 20);
    ret = -1;
    for (n = 0; ret != 0; n += 9) {
        int left = n;
        const struct snapshot_archive_options options = {
            .cancelled = after_some, .ctx = &left};
        struct failure f = {.code = ""};

        ret = snapshot_import(archive, out, &options, id, &f);
        ck_assert(ret == 0 || ret == -ECANCELED);
        ck_assert_uint_eq(snapshot_rig_entries(snapshot_rig_path(&rig, "s")),
                          ret == 0 ? 2 : 1);
    }
    ck_assert_int_gt(n, 20);
}
END_TEST

/* ---- damage to the file ------------------------------------------------- */

START_TEST(truncated_is_refused)
{
    uint8_t *bytes;
    size_t len;

    must_export(dir_a);
    bytes = snapshot_rig_read(archive, &len);
    for (size_t step = 0; step < 60; step++) {
        size_t n = step < 20 ? step : (len - 1) * (step - 19) / 40;

        snapshot_rig_write(archive, bytes, n);
        must_refuse("snapshot_archive", "a truncated archive");
    }
    free(bytes);
}
END_TEST

/* What came out is what was packed, every byte of it; it is removed again. */
static void check_unpacked(const char *id)
{
    struct snapshot *s =
        snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_FULL);
    struct snapshot *t =
        snapshot_rig_must_open(&rig, "s/out", SNAPSHOT_CHECK_FULL);

    ck_assert_str_eq(id, s->id);
    ck_assert_str_eq(t->id, s->id);
    ck_assert(snapshot_rig_same(s->memory_fd, t->memory_fd));
    ck_assert(snapshot_rig_same(s->disks[1].cow_fd, t->disks[1].cow_fd));
    snapshot_close(s);
    snapshot_close(t);
    ck_assert_int_eq(nftw(out, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/*
 * A bit of the compression that stands for nothing (the code of a letter that
 * does not occur) may be either way: then all is as it was. Which bits these
 * are differs from run to run, for a manifest says when it was made.
 */
START_TEST(flipped_bit_is_refused)
{
    uint8_t *bytes;
    size_t len, refused = 0;

    must_export(dir_a);
    bytes = snapshot_rig_read(archive, &len);
    for (size_t step = 0; step < 60; step++) {
        size_t at = step < 30 ? step : (len - 1) * (step - 29) / 30;
        struct failure f = {.code = ""};
        char id[DIGEST_HEX_SIZE];

        bytes[at] ^= (uint8_t)(1u << (step % 8));
        snapshot_rig_write(archive, bytes, len);
        if (snapshot_import(archive, out, &none, id, &f) == 0) {
            check_unpacked(id);
        } else {
            refused++;
            ck_assert_msg(strcmp(f.code, "snapshot_archive") == 0 ||
                              strcmp(f.code, "snapshot_version") == 0 ||
                              strcmp(f.code, "snapshot_damaged") == 0,
                          "byte %zu: %s", at, f.code);
        }
        ck_assert_uint_eq(snapshot_rig_entries(snapshot_rig_path(&rig, "s")),
                          1);
        bytes[at] ^= (uint8_t)(1u << (step % 8));
    }
    ck_assert_uint_ge(refused, 50);
    free(bytes);
}
END_TEST

START_TEST(more_behind_the_end_is_refused)
{
    uint8_t *bytes;
    size_t len;

    must_export(dir_a);
    bytes = snapshot_rig_read(archive, &len);
    bytes[len] = 0; /* there is room for one more */
    snapshot_rig_write(archive, bytes, len + 1);
    must_refuse("snapshot_archive", "an archive with more behind it");
    free(bytes);
}
END_TEST

START_TEST(other_version_is_told)
{
    must_export(dir_a);
    snapshot_rig_poke(archive, 8, "\x02", 1);
    must_refuse("snapshot_version", "another version");
    snapshot_rig_poke(archive, 0, "X", 1);
    must_refuse("snapshot_archive", "another magic");
    ck_assert_int_eq(unlink(archive), 0);
    must_refuse("snapshot_missing", "nothing");
}
END_TEST

/* ---- hostile archives --------------------------------------------------- */

/* The uncompressed frames of an archive under construction. */
static uint8_t frames[64 << 20];
static size_t frames_len;

static void put(const void *bytes, size_t len)
{
    ck_assert_uint_le(frames_len + len, sizeof(frames));
    memcpy(frames + frames_len, bytes, len);
    frames_len += len;
}

static void put32(uint32_t value)
{
    uint8_t bytes[4];

    num_put_le32(bytes, value);
    put(bytes, sizeof(bytes));
}

static void put64(uint64_t value)
{
    uint8_t bytes[8];

    num_put_le64(bytes, value);
    put(bytes, sizeof(bytes));
}

/* A file as one extent, or any number of them. */
static void put_head(const char *name, uint64_t size)
{
    put32((uint32_t)strlen(name));
    put(name, strlen(name));
    put64(size);
}

static void put_file(const char *as, const char *name)
{
    char path[160];
    uint8_t *bytes;
    size_t len;

    snprintf(path, sizeof(path), "%s/%s", dir_a, name);
    bytes = snapshot_rig_read(path, &len);
    put_head(as, len);
    put64(0);
    put64(len);
    put(bytes, len);
    put64(len);
    put64(0);
    free(bytes);
}

static const char *const rest[] = {"base-root",        "base-scratch",
                                   "disk-scratch.cow", "leaves",
                                   "memory",           "state"};

static void put_rest(unsigned first)
{
    for (unsigned i = first; i < ARRAY_SIZE(rest); i++)
        put_file(rest[i], rest[i]);
}

static void put_manifest(uint32_t count)
{
    put32(count);
    put_file("manifest.json", "manifest.json");
    put_file("manifest.sha256", "manifest.sha256");
}

/* The frames as an archive. */
static void pack(void)
{
    uLongf len = compressBound(frames_len);
    uint8_t *bytes = malloc(12 + len);

    memcpy(bytes, "MSBXARC1\x01\0\0\0", 12);
    ck_assert_int_eq(
        compress2(bytes + 12, &len, frames, frames_len, Z_BEST_SPEED), Z_OK);
    snapshot_rig_write(archive, bytes, 12 + len);
    free(bytes);
}

START_TEST(built_by_hand_is_accepted)
{
    put_manifest(8);
    put_rest(0);
    pack();
    must_import();
}
END_TEST

/* ---- how much it may unpack to ------------------------------------------- */

/* What the import says with this limit; it must leave nothing behind if it is
 * refused. */
static int import_within(uint64_t limit, struct failure *f)
{
    const struct snapshot_archive_options options = {.size_limit = limit};
    char id[DIGEST_HEX_SIZE];
    int ret = snapshot_import(archive, out, &options, id, f);

    ck_assert_uint_eq(snapshot_rig_entries(snapshot_rig_path(&rig, "s")),
                      ret == 0 ? 2 : 1);
    return ret;
}

/* What the snapshot's files take of their disk. */
static uint64_t blocks_of(const char *dir)
{
    static const char *const own[] = {"manifest.json", "manifest.sha256"};
    uint64_t sum = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(rest) + ARRAY_SIZE(own); i++) {
        char path[200];
        struct stat st;

        snprintf(path, sizeof(path), "%s/%s", dir,
                 i < ARRAY_SIZE(rest) ? rest[i] : own[i - ARRAY_SIZE(rest)]);
        ck_assert_int_eq(stat(path, &st), 0);
        sum += (uint64_t)st.st_blocks * 512;
    }
    return sum;
}

START_TEST(size_is_limited)
{
    uint64_t size = blocks_of(dir_a);
    struct failure f = {.code = ""};

    must_export(dir_a);
    ck_assert_int_eq(import_within(size - 1, &f), -EFBIG);
    ck_assert_str_eq(f.code, "snapshot_size");
    ck_assert_ptr_nonnull(strstr(f.message, "--size-limit"));
    ck_assert_int_eq(import_within(1, &f), -EFBIG);
    ck_assert_str_eq(f.code, "snapshot_size");
    ck_assert_msg(import_within(size, &f) == 0, "%s", f.message);
}
END_TEST

/* One byte in each block of the memory takes all of them. */
START_TEST(scattered_bytes_are_counted_as_blocks)
{
    struct failure f = {.code = ""};

    put_manifest(8);
    for (unsigned i = 0; i < 4; i++)
        put_file(rest[i], rest[i]);
    put_head("memory", RIG_MEMORY);
    for (uint64_t at = 0; at < RIG_MEMORY; at += 4096) {
        put64(at + 7);
        put64(1);
        put("x", 1);
    }
    put64(RIG_MEMORY);
    put64(0);
    put_file("state", "state");
    pack();
    ck_assert_int_eq(import_within(RIG_MEMORY, &f), -EFBIG);
    ck_assert_str_eq(f.code, "snapshot_size");
    /* Where there is room it is refused for what it is. */
    ck_assert_int_lt(import_within(RIG_MEMORY * 2, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_damaged");
}
END_TEST

static void hostile_names(int how)
{
    static const char *const names[] = {
        "../evil", "/evil", "", ".", "..", "base-root/../../evil", "evil"};

    put_manifest(8);
    put_file(names[how], "base-root");
    put_rest(1);
}

/* Each of these is wrong in one way. */
static void hostile_frames(int how)
{
    switch (how) {
    case 0: /* counts */
        put_manifest(1);
        break;
    case 1:
        put_manifest(7);
        put_rest(0);
        break;
    case 2:
        put_manifest(0xffffffff);
        put_rest(0);
        break;
    case 3: /* one file too many */
        put_manifest(8);
        put_rest(0);
        put_file("state", "state");
        break;
    case 4: /* one missing */
        put_manifest(8);
        put_rest(1);
        break;
    case 5: /* the manifest is not first */
        put32(8);
        put_file("manifest.sha256", "manifest.sha256");
        put_file("manifest.json", "manifest.json");
        put_rest(0);
        break;
    case 6: /* a manifest that is none */
        put32(8);
        put_file("manifest.json", "state");
        put_file("manifest.sha256", "manifest.sha256");
        break;
    case 7: /* a manifest of endless length */
        put32(8);
        put_head("manifest.json", UINT64_MAX);
        put64(0);
        put64(UINT64_MAX);
        break;
    case 8: /* a name of endless length */
        put32(8);
        put32(0xffffffff);
        break;
    case 9: /* another size than the manifest's */
        put_manifest(8);
        put_head("base-root", 4096);
        put64(4096);
        put64(0);
        break;
    case 10: /* an extent beyond the end */
        put_manifest(8);
        put_head("base-root", RIG_ROOT_BYTES);
        put64(RIG_ROOT_BYTES - 1);
        put64(2);
        put("xx", 2);
        break;
    case 11: /* whose sum wraps around */
        put_manifest(8);
        put_head("base-root", RIG_ROOT_BYTES);
        put64(16);
        put64(UINT64_MAX - 8);
        break;
    case 12: /* backwards */
        put_manifest(8);
        put_head("base-root", RIG_ROOT_BYTES);
        put64(8);
        put64(2);
        put("xx", 2);
        put64(9);
        put64(2);
        put("xx", 2);
        break;
    case 13: /* an end that is not the end */
        put_manifest(8);
        put_head("base-root", RIG_ROOT_BYTES);
        put64(8);
        put64(0);
        put_rest(1);
        break;
    default: /* other content: found by its digest */
        put_manifest(8);
        put_head("base-root", RIG_ROOT_BYTES);
        put64(RIG_ROOT_BYTES);
        put64(0);
        put_rest(1);
        break;
    }
}

START_TEST(hostile_names_are_refused)
{
    hostile_names(_i);
    pack();
    must_refuse("snapshot_archive", "a name");
    ck_assert_int_ne(access(snapshot_rig_path(&rig, "evil"), F_OK), 0);
}
END_TEST

START_TEST(hostile_frames_are_refused)
{
    hostile_frames(_i);
    pack();
    must_refuse(_i == 14 ? "snapshot_damaged" : "snapshot_archive", "a frame");
}
END_TEST

/* Zeros that were packed as data take no room. */
START_TEST(zeros_become_holes)
{
    static const uint8_t zeros[RIG_ROOT_BYTES];
    struct snapshot *s;
    struct stat st;

    ck_assert_int_eq(ftruncate(rig.root_fd, 0), 0);
    ck_assert_int_eq(ftruncate(rig.root_fd, (off_t)RIG_ROOT_BYTES), 0);
    snapshot_rig_make(&rig, "s/z", NULL);
    snprintf(dir_a, sizeof(dir_a), "%s/s/z", rig.dir);
    put_manifest(8);
    put_head("base-root", RIG_ROOT_BYTES);
    put64(0);
    put64(RIG_ROOT_BYTES);
    put(zeros, sizeof(zeros));
    put64(RIG_ROOT_BYTES);
    put64(0);
    put_rest(1);
    pack();
    must_import();
    s = snapshot_rig_must_open(&rig, "s/out", SNAPSHOT_CHECK_FULL);
    ck_assert_int_eq(fstat(s->disks[0].base_fd, &st), 0);
    ck_assert_int_eq(st.st_blocks, 0);
    snapshot_close(s);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, there_and_back);
    tcase_add_test(tc, diffs_travel_alone);
    tcase_add_test(tc, export_refuses);
    tcase_add_test(tc, interrupted_leaves_nothing);
    tcase_add_test(tc, truncated_is_refused);
    tcase_add_test(tc, flipped_bit_is_refused);
    tcase_add_test(tc, more_behind_the_end_is_refused);
    tcase_add_test(tc, other_version_is_told);
    tcase_add_test(tc, built_by_hand_is_accepted);
    tcase_add_loop_test(tc, hostile_names_are_refused, 0, 7);
    tcase_add_loop_test(tc, hostile_frames_are_refused, 0, 15);
    tcase_add_test(tc, zeros_become_holes);
    tcase_add_test(tc, size_is_limited);
    tcase_add_test(tc, scattered_bytes_are_counted_as_blocks);
}

int main(void)
{
    Suite *suite = suite_create("snapshot_archive");
    TCase *tc = tcase_create("archive");
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
