/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a snapshot: what is checked, and every way in which it is refused. */
#include "trial/snapshot.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "tests/snapshot_rig.h"
#include "trial/image.h"
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

/* Opens "s/a", which must be refused with this code, naming this file. */
static void must_refuse(enum snapshot_check check, const char *code,
                        const char *file)
{
    struct snapshot *s = NULL;
    struct failure f = {.code = ""};
    int ret = snapshot_rig_try_open(&rig, "s/a", check, &s, &f);

    ck_assert_msg(ret < 0, "%s was not refused", file);
    ck_assert_ptr_null(s);
    ck_assert_msg(strcmp(f.code, code) == 0, "%s: %s: %s", file, f.code,
                  f.message);
    ck_assert_msg(strstr(f.object, file) != NULL, "%s is not named: %s", file,
                  f.object);
    ck_assert_msg(f.remedy[0] != '\0' && f.message[0] != '\0', "%s", f.code);
}

static enum snapshot_check level(enum snapshot_check check)
{
    struct snapshot *s = snapshot_rig_must_open(&rig, "s/a", check);
    enum snapshot_check applied = s->checked;

    snapshot_close(s);
    return applied;
}

/* ---- what is opened ----------------------------------------------------- */

START_TEST(holds_what_was_saved)
{
    struct snapshot *s =
        snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_FULL);
    uint8_t byte = 1;
    struct stat st;

    ck_assert_int_eq(s->checked, SNAPSHOT_CHECK_FULL);
    ck_assert(snapshot_rig_same(s->memory_fd, rig.memory_fd));
    ck_assert(snapshot_rig_same(s->disks[0].base_fd, rig.root_fd));
    ck_assert(snapshot_rig_same(s->disks[1].base_fd, rig.scratch_fd));
    ck_assert(snapshot_rig_same(s->disks[1].cow_fd, rig.cow_fd));
    ck_assert_int_eq(s->disks[0].cow_fd, -1);
    ck_assert_uint_eq(s->manifest.memory_bytes, RIG_MEMORY);
    ck_assert_str_eq(s->manifest.image_name, "base");
    /* Whoever gets them cannot change them. */
    ck_assert_int_eq(pwrite(s->memory_fd, &byte, 1, 0), -1);
    ck_assert_int_eq(pwrite(s->state_fd, &byte, 1, 0), -1);
    ck_assert_int_eq(pwrite(s->disks[1].cow_fd, &byte, 1, 0), -1);
    ck_assert_int_eq(fstat(s->memory_fd, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0444);
    /* Nineteen pages of 32 MiB. */
    ck_assert_int_lt(st.st_blocks * 512, 64 * 4096);
    snapshot_close(s);
    snapshot_close(NULL);
}
END_TEST

/* Opened twice, the id and everything else is the same. */
START_TEST(same_state_same_id)
{
    struct snapshot *a, *b;

    snapshot_rig_make(&rig, "s/b", NULL);
    a = snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_NONE);
    b = snapshot_rig_must_open(&rig, "s/b", SNAPSHOT_CHECK_NONE);
    ck_assert_str_eq(a->id, b->id);
    ck_assert_str_eq(a->manifest.root, b->manifest.root);
    snapshot_close(a);
    snapshot_close(b);
}
END_TEST

/* The root as anybody could compute it from the chunks alone. */
START_TEST(root_is_that_of_the_chunks)
{
    struct snapshot *s =
        snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_FULL);
    int fds[] = {rig.memory_fd, rig.root_fd, rig.scratch_fd, rig.cow_fd};
    uint8_t *buf = malloc(SNAPSHOT_CHUNK), sum[DIGEST_SIZE];
    char hex[DIGEST_HEX_SIZE];
    struct merkle tree;

    merkle_init(&tree);
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
        ssize_t n;

        for (uint64_t at = 0;
             (n = io_pread_full(fds[i], buf, SNAPSHOT_CHUNK, at)) > 0;
             at += SNAPSHOT_CHUNK) {
            digest_sum(buf, (size_t)n, sum);
            merkle_add(&tree, sum);
        }
    }
    merkle_root(&tree, sum);
    digest_to_hex(sum, hex);
    ck_assert_str_eq(hex, s->manifest.root);
    free(buf);
    snapshot_close(s);
}
END_TEST

/* No path, host or user of this machine is in any file of it. */
START_TEST(nothing_names_the_host)
{
    static const char *const files[] = {"manifest.json", "manifest.sha256",
                                        "leaves", "state", "memory"};
    const struct passwd *user = getpwuid(getuid());
    char host[256] = "", home[256] = "";

    ck_assert_int_eq(gethostname(host, sizeof(host) - 1), 0);
    snprintf(home, sizeof(home), "%s", getenv("HOME") ? getenv("HOME") : "");
    for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
        char name[128];
        uint8_t *bytes;
        size_t len;

        snprintf(name, sizeof(name), "s/a/%s", files[i]);
        bytes = snapshot_rig_read(path_of(name), &len);
        ck_assert_ptr_null(memmem(bytes, len, rig.dir, strlen(rig.dir)));
        if (strlen(host) > 3)
            ck_assert_ptr_null(memmem(bytes, len, host, strlen(host)));
        if (strlen(home) > 3)
            ck_assert_ptr_null(memmem(bytes, len, home, strlen(home)));
        if (user && strcmp(user->pw_name, "root") != 0)
            ck_assert_ptr_null(
                memmem(bytes, len, user->pw_name, strlen(user->pw_name)));
        free(bytes);
    }
}
END_TEST

/* ---- damage ------------------------------------------------------------- */

static const char *const files[] = {
    "state",        "memory",    "leaves", "disk-scratch.cow",
    "base-scratch", "base-root",
};

/* The path of the file i of "s/a", in the caller's room. */
static const char *file_path(int i, char path[128])
{
    snprintf(path, 128, "%s/s/a/%s", rig.dir, files[i]);
    return path;
}

START_TEST(missing_file_is_named)
{
    char name[128];

    ck_assert_int_eq(unlink(file_path(_i, name)), 0);
    must_refuse(SNAPSHOT_CHECK_NONE, "snapshot_incomplete", files[_i]);
}
END_TEST

START_TEST(truncated_file_is_named)
{
    const char *path;
    char name[128];
    struct stat st;

    path = file_path(_i, name);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(truncate(path, st.st_size - 1), 0);
    must_refuse(SNAPSHOT_CHECK_NONE, "snapshot_damaged", files[_i]);
    ck_assert_int_eq(truncate(path, 0), 0);
    must_refuse(SNAPSHOT_CHECK_NONE, "snapshot_damaged", files[_i]);
}
END_TEST

START_TEST(extended_file_is_named)
{
    const char *path;
    char name[128];
    struct stat st;

    path = file_path(_i, name);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(truncate(path, st.st_size + 1), 0);
    must_refuse(SNAPSHOT_CHECK_NONE, "snapshot_damaged", files[_i]);
}
END_TEST

/* One bit, at both ends and in between. */
START_TEST(flipped_bit_is_named)
{
    const char *path;
    char name[128];
    struct stat st;

    path = file_path(_i, name);
    ck_assert_int_eq(stat(path, &st), 0);
    for (off_t step = 0; step <= 16; step++) {
        uint64_t at = (uint64_t)((st.st_size - 1) * step / 16);
        uint8_t *bytes, flipped;
        size_t len;

        bytes = snapshot_rig_read(path, &len);
        flipped = bytes[at] ^ (uint8_t)(1u << (step % 8));
        snapshot_rig_poke(path, at, &flipped, 1);
        must_refuse(SNAPSHOT_CHECK_FULL, "snapshot_damaged", files[_i]);
        /* The stamp that was left when it was made fits no longer, either. */
        must_refuse(SNAPSHOT_CHECK_DEFAULT, "snapshot_damaged", files[_i]);
        snapshot_rig_poke(path, at, &bytes[at], 1);
        free(bytes);
    }
    ck_assert_int_eq(level(SNAPSHOT_CHECK_FULL), SNAPSHOT_CHECK_FULL);
}
END_TEST

/* The file of another snapshot in its place. */
START_TEST(swapped_file_is_named)
{
    char name[128], other[64];

    snapshot_rig_page(&rig, 4000, 1000);
    snapshot_rig_cluster(&rig, 9, 1000);
    rig.state_seed++;
    ck_assert_int_eq(pwrite(rig.root_fd, "x", 1, 0), 1);
    ck_assert_int_eq(pwrite(rig.scratch_fd, "x", 1, 0), 1);
    snapshot_rig_make(&rig, "s/b", NULL);
    snprintf(other, sizeof(other), "s/b/%s", files[_i]);
    ck_assert_int_eq(rename(path_of(other), file_path(_i, name)), 0);
    must_refuse(SNAPSHOT_CHECK_FULL, "snapshot_damaged", files[_i]);
}
END_TEST

START_TEST(special_files_are_refused)
{
    const char *path;
    char name[128];

    path = file_path(_i, name);
    ck_assert_int_eq(rename(path, path_of("moved")), 0);
    ck_assert_int_eq(symlink(path_of("moved"), path), 0);
    must_refuse(SNAPSHOT_CHECK_NONE, "snapshot_damaged", files[_i]);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0); /* and it does not hang */
    must_refuse(SNAPSHOT_CHECK_NONE, "snapshot_damaged", files[_i]);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    must_refuse(SNAPSHOT_CHECK_NONE, "snapshot_damaged", files[_i]);
}
END_TEST

/* At every byte of the two files that all else hangs on. */
START_TEST(manifest_counts_byte_by_byte)
{
    static const char *const names[] = {"s/a/manifest.json",
                                        "s/a/manifest.sha256"};
    char path[128];
    size_t len;
    uint8_t *bytes;

    snprintf(path, sizeof(path), "%s/%s", rig.dir, names[_i]);
    bytes = snapshot_rig_read(path, &len);

    for (size_t i = 0; i < len; i++) {
        uint8_t flipped = bytes[i] ^ (uint8_t)(1u << (i % 8));

        snapshot_rig_poke(path, i, &flipped, 1);
        must_refuse(SNAPSHOT_CHECK_NONE, "snapshot_damaged", "manifest.");
        snapshot_rig_poke(path, i, &bytes[i], 1);
    }
    for (size_t i = len; i-- > 0;) {
        ck_assert_int_eq(truncate(path, (off_t)i), 0);
        must_refuse(SNAPSHOT_CHECK_NONE, "snapshot_damaged", "manifest.");
    }
    free(bytes);
}
END_TEST

/* With its digest corrected, the parser is what refuses it. */
START_TEST(resealed_manifest_is_parsed)
{
    uint8_t *bytes, sum[DIGEST_SIZE];
    char id[DIGEST_HEX_SIZE + 1];
    size_t len;

    bytes = snapshot_rig_read(path_of("s/a/manifest.json"), &len);
    for (size_t i = 0; i < len; i++) {
        struct snapshot *s = NULL;
        struct failure f = {.code = ""};
        uint8_t kept = bytes[i];

        bytes[i] ^= (uint8_t)(1u << (i % 8));
        digest_sum(bytes, len, sum);
        digest_to_hex(sum, id);
        strcat(id, "\n");
        snapshot_rig_poke(path_of("s/a/manifest.json"), 0, bytes, len);
        snapshot_rig_poke(path_of("s/a/manifest.sha256"), 0, id, 65);
        /* Refused, or another name for the same machine: no crash. */
        if (snapshot_rig_try_open(&rig, "s/a", SNAPSHOT_CHECK_FULL, &s, &f) !=
            0)
            ck_assert_msg(strncmp(f.code, "snapshot_", 9) == 0, "%s", f.code);
        snapshot_close(s);
        bytes[i] = kept;
    }
    free(bytes);
}
END_TEST

START_TEST(other_versions_are_named)
{
    const char *path = path_of("s/a/manifest.json");
    uint8_t *bytes, sum[DIGEST_SIZE];
    char id[DIGEST_HEX_SIZE + 1];
    size_t len;
    char *at;

    bytes = snapshot_rig_read(path, &len);
    at = memmem(bytes, len, "microsbx.snapshot/1", 19);
    ck_assert_ptr_nonnull(at);
    at[18] = '2';
    digest_sum(bytes, len, sum);
    digest_to_hex(sum, id);
    strcat(id, "\n");
    snapshot_rig_write(path, bytes, len);
    snapshot_rig_write(path_of("s/a/manifest.sha256"), id, 65);
    must_refuse(SNAPSHOT_CHECK_NONE, "snapshot_version", "manifest.json");
    free(bytes);
}
END_TEST

/* A machine that is well described but was another's: resealed is accepted. */
START_TEST(resealed_content_is_accepted)
{
    snapshot_rig_poke(path_of("s/a/memory"), 12345, "x", 1);
    snapshot_rig_poke(path_of("s/a/state"), 5, "x", 1);
    must_refuse(SNAPSHOT_CHECK_FULL, "snapshot_damaged", "s/a/");
    snapshot_rig_reseal(path_of("s/a"));
    ck_assert_int_eq(level(SNAPSHOT_CHECK_FULL), SNAPSHOT_CHECK_FULL);
}
END_TEST

static const struct {
    const char *name, *code;
} not_snapshots[] = {
    {"s/nothing", "snapshot_missing"},
    {"root", "snapshot_missing"}, /* a file */
    {"s", "snapshot_invalid"},
    {"s/half", "snapshot_incomplete"},
    {"s/other", "snapshot_incomplete"},
};

START_TEST(what_is_no_snapshot_is_refused)
{
    struct snapshot *s = NULL;
    struct failure f = {.code = ""};

    ck_assert_int_eq(mkdir(path_of("s/half"), 0700), 0);
    ck_assert_int_eq(mkdir(path_of("s/other"), 0700), 0);
    snapshot_rig_write(path_of("s/half/manifest.json"), "{}\n", 3);
    snapshot_rig_write(path_of("s/other/manifest.sha256"), "x", 1);
    ck_assert_int_lt(snapshot_rig_try_open(&rig, not_snapshots[_i].name,
                                           SNAPSHOT_CHECK_NONE, &s, &f),
                     0);
    ck_assert_str_eq(f.code, not_snapshots[_i].code);
    ck_assert_ptr_nonnull(strstr(f.message, not_snapshots[_i].name));
}
END_TEST

/* ---- levels and stamps -------------------------------------------------- */

START_TEST(stamp_spares_the_check)
{
    /* The writer has checked it in full. */
    ck_assert_int_eq(level(SNAPSHOT_CHECK_DEFAULT), SNAPSHOT_CHECK_STAMP);
    ck_assert_int_eq(level(SNAPSHOT_CHECK_FULL), SNAPSHOT_CHECK_FULL);
    ck_assert_int_eq(level(SNAPSHOT_CHECK_SAMPLED), SNAPSHOT_CHECK_SAMPLED);
    ck_assert_int_eq(level(SNAPSHOT_CHECK_NONE), SNAPSHOT_CHECK_NONE);
}
END_TEST

START_TEST(touched_file_needs_a_check)
{
    char name[128];

    ck_assert_int_eq(chmod(file_path(_i, name), 0644), 0); /* ctime */
    ck_assert_int_eq(level(SNAPSHOT_CHECK_DEFAULT), SNAPSHOT_CHECK_FULL);
    /* Changed a moment ago: no stamp yet. */
    ck_assert_int_eq(level(SNAPSHOT_CHECK_DEFAULT), SNAPSHOT_CHECK_FULL);
    usleep(50000);
    (void)level(SNAPSHOT_CHECK_DEFAULT);
    ck_assert_int_eq(level(SNAPSHOT_CHECK_DEFAULT), SNAPSHOT_CHECK_STAMP);
}
END_TEST

/* A stamp of other text, or of a copy elsewhere, is none. */
START_TEST(stamps_are_compared_whole)
{
    char command[600];

    snprintf(command, sizeof(command), "cp -r %s/s/a %s/s/copy", rig.dir,
             rig.dir);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(rename(path_of("s/a"), path_of("s/was")), 0);
    ck_assert_int_eq(rename(path_of("s/copy"), path_of("s/a")), 0);
    ck_assert_int_eq(level(SNAPSHOT_CHECK_DEFAULT), SNAPSHOT_CHECK_FULL);
    /* The first one still has its own. */
    ck_assert_int_eq(rename(path_of("s/a"), path_of("s/copy")), 0);
    ck_assert_int_eq(rename(path_of("s/was"), path_of("s/a")), 0);
    ck_assert_int_eq(level(SNAPSHOT_CHECK_DEFAULT), SNAPSHOT_CHECK_STAMP);
    snprintf(command, sizeof(command),
             "for f in %s/cache/microsbx/stamps/*; do echo >>$f; done",
             rig.dir);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(level(SNAPSHOT_CHECK_DEFAULT), SNAPSHOT_CHECK_FULL);
}
END_TEST

/* One that somebody else may have written is none. */
START_TEST(stamps_are_ours)
{
    char command[600];

    ck_assert_int_eq(level(SNAPSHOT_CHECK_DEFAULT), SNAPSHOT_CHECK_STAMP);
    snprintf(command, sizeof(command), "chmod 0666 %s/cache/microsbx/stamps/*",
             rig.dir);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(level(SNAPSHOT_CHECK_DEFAULT), SNAPSHOT_CHECK_FULL);
}
END_TEST

/* Without a place for stamps every check is full. */
START_TEST(no_cache_no_stamp)
{
    ck_assert_int_eq(unsetenv("XDG_CACHE_HOME"), 0);
    ck_assert_int_eq(unsetenv("HOME"), 0);
    ck_assert_int_eq(level(SNAPSHOT_CHECK_DEFAULT), SNAPSHOT_CHECK_FULL);
    ck_assert_int_eq(level(SNAPSHOT_CHECK_DEFAULT), SNAPSHOT_CHECK_FULL);
}
END_TEST

START_TEST(levels_look_at_what_they_say)
{
    uint8_t *noise;
    size_t len;

    /* Not looked at without a check; found by a sample, as it is everywhere. */
    noise = snapshot_rig_read(path_of("root"), &len);
    for (uint64_t at = 0; at + 512 < RIG_MEMORY; at += SNAPSHOT_CHUNK)
        snapshot_rig_poke(path_of("s/a/memory"), at + 100, noise, 512);
    free(noise);
    ck_assert_int_eq(level(SNAPSHOT_CHECK_NONE), SNAPSHOT_CHECK_NONE);
    must_refuse(SNAPSHOT_CHECK_SAMPLED, "snapshot_damaged", "s/a/memory");
    must_refuse(SNAPSHOT_CHECK_DEFAULT, "snapshot_damaged", "s/a/memory");
    /* The state is always looked at. */
    snapshot_rig_poke(path_of("s/a/state"), 10, "?", 1);
    must_refuse(SNAPSHOT_CHECK_NONE, "snapshot_damaged", "s/a/state");
    must_refuse(SNAPSHOT_CHECK_SAMPLED, "snapshot_damaged", "s/a/state");
}
END_TEST

START_TEST(place_of_damage_is_told)
{
    struct snapshot *s = NULL;
    struct failure f = {.code = ""};

    snapshot_rig_poke(path_of("s/a/memory"), 5 * SNAPSHOT_CHUNK + 17, "?", 1);
    ck_assert_int_lt(
        snapshot_rig_try_open(&rig, "s/a", SNAPSHOT_CHECK_FULL, &s, &f), 0);
    ck_assert_msg(strstr(f.message, "5242880 to 6291455") != NULL, "%s",
                  f.message);
}
END_TEST

static bool always(void *ctx)
{
    (void)ctx;
    return true;
}

START_TEST(check_can_be_interrupted)
{
    const struct snapshot_open_options options = {.check = SNAPSHOT_CHECK_FULL,
                                                  .cancelled = always};
    struct snapshot *s = NULL;
    struct failure f = {.code = ""};

    ck_assert_int_eq(snapshot_open(path_of("s/a"), &options, &s, &f),
                     -ECANCELED);
    ck_assert_str_eq(f.code, "cancelled");
}
END_TEST

/* ---- a change underneath ------------------------------------------------ */

START_TEST(change_underneath_is_seen)
{
    struct snapshot *s =
        snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_NONE);
    struct failure f = {.code = ""};
    const char *path;
    char name[128];

    ck_assert_int_eq(snapshot_unchanged(s, &f), 0);
    path = file_path(_i, name);
    usleep(25000);
    snapshot_rig_poke(path, 0, "x", 1);
    ck_assert_int_eq(snapshot_unchanged(s, &f), -ESTALE);
    ck_assert_str_eq(f.code, "snapshot_changed");
    ck_assert_ptr_nonnull(strstr(f.object, files[_i]));
    snapshot_close(s);
}
END_TEST

START_TEST(replacing_underneath_is_seen)
{
    struct snapshot *s =
        snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_NONE);
    struct failure f = {.code = ""};
    const char *path;
    char name[128];

    path = file_path(_i, name);
    usleep(25000);
    snapshot_rig_write(path_of("other"), "x", 1);
    ck_assert_int_eq(rename(path_of("other"), path), 0);
    ck_assert_int_eq(snapshot_unchanged(s, &f), -ESTALE);
    snapshot_close(s);
}
END_TEST

/* ---- bases -------------------------------------------------------------- */

static const struct snapshot_writer_options without_base = {.without_base =
                                                                true};

static int open_with(const char *name, const char *const *bases,
                     struct snapshot **ret_s, struct failure *f)
{
    const struct snapshot_open_options options = {.check = SNAPSHOT_CHECK_FULL,
                                                  .bases = bases};

    *ret_s = NULL;
    return snapshot_open(path_of(name), &options, ret_s, f);
}

START_TEST(bases_are_found_among_given_files)
{
    char root[128], scratch[128];
    const char *const bases[] = {scratch, root, NULL};
    struct failure f = {.code = ""};
    struct snapshot *s;

    snprintf(root, sizeof(root), "%s/root", rig.dir);
    snprintf(scratch, sizeof(scratch), "%s/scratch", rig.dir);
    snapshot_rig_make(&rig, "s/b", &without_base);
    ck_assert_int_ne(access(path_of("s/b/base-root"), F_OK), 0);
    ck_assert_int_lt(open_with("s/b", NULL, &s, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_base");
    ck_assert_msg(open_with("s/b", bases, &s, &f) == 0, "%s", f.message);
    ck_assert(snapshot_rig_same(s->disks[0].base_fd, rig.root_fd));
    ck_assert(snapshot_rig_same(s->disks[1].base_fd, rig.scratch_fd));
    /* A given base is watched like everything else. */
    ck_assert_int_eq(snapshot_unchanged(s, &f), 0);
    usleep(25000);
    ck_assert_int_eq(pwrite(rig.root_fd, "x", 1, 0), 1);
    ck_assert_int_eq(snapshot_unchanged(s, &f), -ESTALE);
    snapshot_close(s);
    /* And is no longer the one that was meant. */
    ck_assert_int_lt(open_with("s/b", bases, &s, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_base");
}
END_TEST

/* Where only the manifest is wanted, nothing is looked for. */
START_TEST(bases_need_not_be_there_to_look)
{
    const struct snapshot_open_options options = {.check = SNAPSHOT_CHECK_FULL,
                                                  .no_bases = true};
    struct failure f = {.code = ""};
    struct snapshot *s = NULL;

    snapshot_rig_make(&rig, "s/b", &without_base);
    ck_assert_int_eq(snapshot_open(path_of("s/b"), &options, &s, &f), 0);
    ck_assert_int_eq(s->disks[0].base_fd, -1);
    snapshot_close(s);
}
END_TEST

/* An image of which the base is a part: found by the digest in image.json. */
static void make_image(const struct snapshot_manifest *m)
{
    char text[4096];
    int len;

    ck_assert_int_eq(mkdir(path_of("cache/microsbx/images"), 0700), 0);
    ck_assert_int_eq(mkdir(path_of("cache/microsbx/images/i"), 0700), 0);
    len = snprintf(
        text, sizeof(text),
        "{\"schema\":\"microsbx.image/1\",\"name\":\"i\",\"kernel\":{"
        "\"file\":\"kernel\",\"sha256\":\"%s\",\"bytes\":1,\"release\":\"6\"},"
        "\"initrd\":{\"file\":\"initrd\",\"sha256\":\"%s\",\"bytes\":1},"
        "\"rootfs\":{\"file\":\"rootfs.erofs\",\"sha256\":\"%s\",\"bytes\":%d,"
        "\"type\":\"erofs\"},\"scratch\":{\"file\":\"scratch.ext4\","
        "\"sha256\":\"%s\",\"bytes\":%d,\"type\":\"ext4\",\"data\":%d},"
        "\"cmdline\":\"x\",\"recipe\":{\"sha256\":\"%s\"}}",
        m->root, m->root, m->disks[0].sha256, (int)RIG_ROOT_BYTES,
        m->disks[1].sha256, (int)RIG_SCRATCH_BYTES, (int)RIG_SCRATCH_DATA,
        m->root);
    snapshot_rig_write(path_of("cache/microsbx/images/i/image.json"), text,
                       (size_t)len);
    snapshot_rig_write(path_of("cache/microsbx/images/i/kernel"), "k", 1);
    snapshot_rig_write(path_of("cache/microsbx/images/i/initrd"), "i", 1);
    ck_assert_int_eq(
        link(path_of("root"), path_of("cache/microsbx/images/i/rootfs.erofs")),
        0);
    ck_assert_int_eq(link(path_of("scratch"),
                          path_of("cache/microsbx/images/i/scratch.ext4")),
                     0);
}

START_TEST(bases_are_found_in_images)
{
    struct failure f = {.code = ""};
    struct snapshot *s = NULL;

    snapshot_rig_make(&rig, "s/b", &without_base);
    s = snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_NONE);
    make_image(&s->manifest);
    snapshot_close(s);
    ck_assert_msg(open_with("s/b", NULL, &s, &f) == 0, "%s", f.message);
    ck_assert(snapshot_rig_same(s->disks[0].base_fd, rig.root_fd));
    snapshot_close(s);
    /* The image says it is the one, and it is not. */
    ck_assert_int_eq(pwrite(rig.root_fd, "x", 1, 1000), 1);
    ck_assert_int_lt(open_with("s/b", NULL, &s, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_base");
    ck_assert_ptr_nonnull(strstr(f.object, "rootfs.erofs"));
}
END_TEST

START_TEST(base_can_be_overridden)
{
    struct snapshot *s;
    struct failure f = {.code = ""};
    char other[128];
    int fd;

    snprintf(other, sizeof(other), "%s/other", rig.dir);
    s = snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_NONE);
    fd = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_eq(ftruncate(fd, (off_t)RIG_ROOT_BYTES + 512), 0);
    ck_assert_int_eq(snapshot_override_base(s, "root", other, &f), -EINVAL);
    ck_assert_str_eq(f.code, "snapshot_disk");
    ck_assert_ptr_nonnull(strstr(f.message, "bytes"));
    ck_assert_int_eq(ftruncate(fd, (off_t)RIG_ROOT_BYTES), 0);
    ck_assert_int_eq(snapshot_override_base(s, "root", other, &f), 0);
    ck_assert_str_eq(s->disks[0].replaced, other);
    ck_assert(snapshot_rig_same(s->disks[0].base_fd, fd));
    ck_assert_int_eq(snapshot_unchanged(s, &f), 0);
    /* Written to before the snapshot: no other disk will do. */
    ck_assert_int_eq(ftruncate(fd, (off_t)RIG_SCRATCH_BYTES), 0);
    ck_assert_int_lt(snapshot_override_base(s, "scratch", other, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_disk");
    ck_assert_int_lt(snapshot_override_base(s, "nothing", other, &f), 0);
    ck_assert_str_eq(f.code, "snapshot_disk");
    ck_assert_int_eq(snapshot_unchanged(s, &f), -ESTALE);
    close(fd);
    snapshot_close(s);
}
END_TEST

/* ---- proof and verification --------------------------------------------- */

START_TEST(leaves_of_a_proof_are_compared)
{
    struct snapshot *s =
        snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_NONE);
    uint64_t count = RIG_MEMORY / SNAPSHOT_CHUNK, chunk = 0;
    uint8_t leaves[RIG_MEMORY / SNAPSHOT_CHUNK * DIGEST_SIZE];
    struct failure f = {.code = ""};
    int fd = memfd_create("leaves", MFD_CLOEXEC);

    ck_assert_int_eq(io_pread_full(s->leaves_fd, leaves, sizeof(leaves), 0),
                     (ssize_t)sizeof(leaves));
    ck_assert_int_eq(io_pwrite_full(fd, leaves, sizeof(leaves), 0), 0);
    ck_assert_int_eq(snapshot_compare_leaves(s, fd, &chunk, &f), 0);
    leaves[(count - 1) * DIGEST_SIZE + 3] ^= 1;
    ck_assert_int_eq(io_pwrite_full(fd, leaves, sizeof(leaves), 0), 0);
    ck_assert_int_eq(snapshot_compare_leaves(s, fd, &chunk, &f), 1);
    ck_assert_uint_eq(chunk, count - 1);
    ck_assert_int_eq(ftruncate(fd, sizeof(leaves) - 1), 0);
    ck_assert_int_eq(snapshot_compare_leaves(s, fd, &chunk, &f), -EBADMSG);
    close(fd);
    snapshot_close(s);
}
END_TEST

struct seen {
    unsigned files, bad;
    char names[40][160];
};

static void see(void *ctx, const struct snapshot_verdict *verdict)
{
    struct seen *seen = ctx;

    snprintf(seen->names[seen->files++], 160, "%s", verdict->file);
    seen->bad += verdict->failure != NULL;
}

START_TEST(verify_tells_of_every_file)
{
    const struct snapshot_open_options options = {.no_bases = false};
    struct seen seen = {.files = 0};
    struct failure f = {.code = ""};

    ck_assert_int_eq(snapshot_verify(path_of("s/a"), &options, see, &seen, &f),
                     0);
    ck_assert_uint_eq(seen.files, 7);
    ck_assert_uint_eq(seen.bad, 0);
    ck_assert_str_eq(seen.names[0], "manifest.json");
    /* Goes on after the first. */
    snapshot_rig_poke(path_of("s/a/base-root"), 7, "?", 1);
    snapshot_rig_poke(path_of("s/a/memory"), 7, "?", 1);
    ck_assert_int_eq(unlink(path_of("s/a/state")), 0);
    seen = (struct seen){.files = 0};
    ck_assert_int_lt(snapshot_verify(path_of("s/a"), &options, see, &seen, &f),
                     0);
    ck_assert_uint_eq(seen.files, 7);
    ck_assert_uint_eq(seen.bad, 3);
    ck_assert_ptr_nonnull(strstr(f.object, "base-root"));
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, holds_what_was_saved);
    tcase_add_test(tc, same_state_same_id);
    tcase_add_test(tc, root_is_that_of_the_chunks);
    tcase_add_test(tc, nothing_names_the_host);
    tcase_add_loop_test(tc, manifest_counts_byte_by_byte, 0, 2);
    tcase_add_test(tc, resealed_manifest_is_parsed);
    tcase_add_test(tc, other_versions_are_named);
    tcase_add_test(tc, resealed_content_is_accepted);
    tcase_add_loop_test(tc, what_is_no_snapshot_is_refused, 0,
                        (int)ARRAY_SIZE(not_snapshots));
    tcase_add_test(tc, stamp_spares_the_check);
    tcase_add_test(tc, stamps_are_compared_whole);
    tcase_add_test(tc, stamps_are_ours);
    tcase_add_test(tc, no_cache_no_stamp);
    tcase_add_test(tc, levels_look_at_what_they_say);
    tcase_add_test(tc, place_of_damage_is_told);
    tcase_add_test(tc, check_can_be_interrupted);
    tcase_add_test(tc, bases_are_found_among_given_files);
    tcase_add_test(tc, bases_need_not_be_there_to_look);
    tcase_add_test(tc, bases_are_found_in_images);
    tcase_add_test(tc, base_can_be_overridden);
    tcase_add_test(tc, leaves_of_a_proof_are_compared);
    tcase_add_test(tc, verify_tells_of_every_file);
}

/* Those that do the same to each file. */
static void add_loops(TCase *tc)
{
    const int count = (int)ARRAY_SIZE(files);

    tcase_add_loop_test(tc, missing_file_is_named, 0, count);
    tcase_add_loop_test(tc, truncated_file_is_named, 0, count);
    tcase_add_loop_test(tc, extended_file_is_named, 0, count);
    tcase_add_loop_test(tc, flipped_bit_is_named, 0, count);
    tcase_add_loop_test(tc, swapped_file_is_named, 0, count);
    tcase_add_loop_test(tc, special_files_are_refused, 0, count);
    tcase_add_loop_test(tc, touched_file_needs_a_check, 0, count);
    tcase_add_loop_test(tc, change_underneath_is_seen, 0, count);
    tcase_add_loop_test(tc, replacing_underneath_is_seen, 0, count);
}

int main(void)
{
    Suite *suite = suite_create("snapshot");
    TCase *tc = tcase_create("open");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    add_tests(tc);
    add_loops(tc);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
