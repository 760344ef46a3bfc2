/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.json: one text for one manifest, and everything else refused. */
#include "tests/json_memory.h"
#include "trial/snapshot_manifest.h"

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "tests/snapshot_rig.h"
#include "trial/snapshot_internal.h"

/* A complete manifest, files and digests included. */
static void fill(struct snapshot_manifest *m, bool is_diff)
{
    static const struct snapshot_disk disks[] = {
        {.id = "root",
         .mode = VM_DISK_RO,
         .bytes = 4096,
         .data = 4096,
         .stored = true},
        {.id = "scratch",
         .mode = VM_DISK_COW,
         .limit = 1 << 30,
         .bytes = 10 << 20,
         .data = 512},
    };

    snapshot_rig_manifest(m);
    memcpy(m->disks, disks, sizeof(disks));
    m->disk_count = 2;
    memset(m->disks[0].sha256, 'a', 64);
    memset(m->disks[1].sha256, 'b', 64);
    memset(m->root, 'c', 64);
    m->has_parent = is_diff;
    memset(m->parent_id, 'd', 64);
    memset(m->parent_root, 'e', 64);
    m->file_count = snapshot_manifest_expect(m, m->files);
    for (uint32_t i = 0; i < m->file_count; i++) {
        memset(m->files[i].digest, 'f', 64);
        if (strcmp(m->files[i].name, "state") == 0)
            m->files[i].bytes = 1000;
    }
}

static char *encode(const struct snapshot_manifest *m, size_t *ret_len)
{
    char err[SNAPSHOT_ERR_MAX] = "";
    char *text = NULL;
    int ret = snapshot_manifest_encode(m, &text, ret_len, err);

    ck_assert_msg(ret == 0, "%s", err);
    return text;
}

static char *good_text(size_t *ret_len)
{
    struct snapshot_manifest m;
    char *text;

    fill(&m, false);
    text = encode(&m, ret_len);
    snapshot_manifest_fini(&m);
    return text;
}

static int parse(const char *text, size_t len, char *err)
{
    struct snapshot_manifest m;
    int ret = snapshot_manifest_parse(text, len, &m, err);

    if (ret == 0)
        snapshot_manifest_fini(&m);
    return ret;
}

/* What is written is read back, and written the same again. */
static void check_round_trip(const struct snapshot_manifest *m)
{
    char err[SNAPSHOT_ERR_MAX];
    struct snapshot_manifest back;
    size_t len = 0, again_len = 0;
    char *text = encode(m, &len), *again;
    int ret = snapshot_manifest_parse(text, len, &back, err);

    ck_assert_msg(ret == 0, "%s", err);
    again = encode(&back, &again_len);
    ck_assert_uint_eq(len, again_len);
    ck_assert_str_eq(text, again);
    ck_assert_uint_eq(back.memory_bytes, m->memory_bytes);
    ck_assert_uint_eq(back.file_count, m->file_count);
    ck_assert_int_eq(back.has_parent, m->has_parent);
    ck_assert_uint_eq(back.cpuid[SNAPSHOT_CPUID_KVM_EAX],
                      m->cpuid[SNAPSHOT_CPUID_KVM_EAX]);
    free(text);
    free(again);
    snapshot_manifest_fini(&back);
}

START_TEST(round_trips)
{
    struct snapshot_manifest m;

    fill(&m, false);
    check_round_trip(&m);
    snapshot_manifest_fini(&m);
    fill(&m, true);
    ck_assert_ptr_nonnull(snapshot_manifest_file(&m, "memory.map"));
    ck_assert_ptr_nonnull(snapshot_manifest_file(&m, "disk-scratch.map"));
    check_round_trip(&m);
    snapshot_manifest_fini(&m);
}
END_TEST

/* Nothing that can be left out is there. */
START_TEST(smallest_round_trips)
{
    struct snapshot_manifest m;

    fill(&m, false);
    snapshot_manifest_fini(&m);
    m.memory_bytes = VM_MEMORY_MIN;
    m.cpus = 1;
    memset(m.kernel_sha256, '0', 64);
    memset(m.root, '0', 64);
    m.file_count = snapshot_manifest_expect(&m, m.files);
    for (uint32_t i = 0; i < m.file_count; i++) {
        memset(m.files[i].digest, '0', 64);
        if (m.files[i].bytes == 0)
            m.files[i].bytes = 1;
    }
    check_round_trip(&m);
    snapshot_manifest_fini(&m);
}
END_TEST

START_TEST(text_is_canonical)
{
    size_t len = 0;
    char *text = good_text(&len), *other, err[SNAPSHOT_ERR_MAX];
    json_t *tree = json_loads(text, 0, NULL);

    ck_assert_ptr_nonnull(tree);
    ck_assert_int_eq(text[len - 1], '\n');
    /* The same manifest in other words. */
    other = json_dumps(tree, JSON_INDENT(1) | JSON_SORT_KEYS);
    ck_assert_int_eq(parse(other, strlen(other), err), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(err, "canonical"));
    free(other);
    ck_assert_int_eq(parse(text, len - 1, err), -EBADMSG);
    json_decref(tree);
    free(text);
}
END_TEST

/* ---- every key ---------------------------------------------------------- */

static char *dump(const json_t *tree)
{
    char *text = json_dumps(tree, JSON_COMPACT | JSON_SORT_KEYS);
    size_t len = strlen(text);
    char *line = realloc(text, len + 2);

    ck_assert_ptr_nonnull(line);
    strcpy(line + len, "\n");
    return line;
}

static void must_be_refused(const json_t *root, const char *what)
{
    char err[SNAPSHOT_ERR_MAX] = "";
    char *text = dump(root);
    int ret = parse(text, strlen(text), err);

    ck_assert_msg(ret == -EBADMSG || ret == -EPROTONOSUPPORT,
                  "%s was accepted: %s", what, text);
    ck_assert_msg(err[0] != '\0' && !strpbrk(err, "\n\r\x1b"), "%s", what);
    free(text);
}

static void try_values(json_t *root, json_t *object, const char *key);

/* Each key away, each value of another type, each object with one more key. */
static void try_object(json_t *root, json_t *object)
{
    const char *keys[64];
    const char *key;
    json_t *value;
    size_t count = 0;

    json_object_foreach(object, key, value)
    {
        ck_assert_uint_lt(count, ARRAY_SIZE(keys));
        keys[count++] = key;
    }
    json_object_set_new(object, "zzz", json_integer(1));
    must_be_refused(root, "an unknown key");
    json_object_del(object, "zzz");
    for (size_t i = 0; i < count; i++)
        try_values(root, object, keys[i]);
}

static void try_values(json_t *root, json_t *object, const char *key)
{
    char name[64];
    json_t *value = json_incref(json_object_get(object, key));
    bool free_key;

    snprintf(name, sizeof(name), "%s", key);
    /* An environment variable may be missing or another. */
    free_key = json_is_string(value) &&
               (strcmp(name, "LANG") == 0 || strcmp(name, "PATH") == 0);
    json_object_set_new(object, name, json_real(1.5));
    must_be_refused(root, name);
    json_object_set_new(object, name, json_integer(-1));
    must_be_refused(root, name);
    json_object_set_new(object, name, json_array());
    if (!json_is_array(value))
        must_be_refused(root, name);
    json_object_del(object, name);
    if (!free_key)
        must_be_refused(root, name);
    json_object_set(object, name, value);
    if (json_is_object(value))
        try_object(root, value);
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++)
        if (json_is_object(json_array_get(value, i)))
            try_object(root, json_array_get(value, i));
    json_decref(value);
}

START_TEST(every_key_counts)
{
    struct snapshot_manifest m;
    size_t len = 0;
    char *text;
    json_t *root;

    fill(&m, true);
    text = encode(&m, &len);
    root = json_loads(text, 0, NULL);
    try_object(root, root);
    /* The tree is what it was: the trials above changed one thing each. */
    free(text);
    text = dump(root);
    ck_assert_int_eq(parse(text, strlen(text), (char[SNAPSHOT_ERR_MAX]){0}), 0);
    json_decref(root);
    free(text);
    snapshot_manifest_fini(&m);
}
END_TEST

/* One value that does not fit, and a word of the message. */
static const struct {
    const char *from, *to, *says;
    int ret;
} bad_values[] = {
    {"microsbx.snapshot/1", "microsbx.snapshot/2", "schema", -EPROTONOSUPPORT},
    {"\"version\":1", "\"version\":2", "version", -EPROTONOSUPPORT},
    {"\"chunk\":1048576", "\"chunk\":4096", "chunk", -EPROTONOSUPPORT},
    {"\"cpus\":1", "\"cpus\":0", "cpus", -EBADMSG},
    {"\"cpus\":1", "\"cpus\":65", "cpus", -EBADMSG},
    {"\"memory_bytes\":33554432", "\"memory_bytes\":33554433", "memory",
     -EBADMSG},
    {"\"memory_bytes\":33554432", "\"memory_bytes\":35651584", "size",
     -EBADMSG},
    {"\"memory_bytes\":33554432", "\"memory_bytes\":4611686018427387904",
     "memory", -EBADMSG},
    {"\"guest_cid\":3", "\"guest_cid\":2", "guest_cid", -EBADMSG},
    {"\"pages\":19", "\"pages\":8193", "more memory", -EBADMSG},
    {"\"platform\":\"device-tree\"", "\"platform\":\"magic\"", "platform",
     -EBADMSG},
    {"\"mode\":\"ro\"", "\"mode\":\"rw\"", "mode", -EBADMSG},
    {"\"id\":\"root\"", "\"id\":\"../x\"", "id", -EBADMSG},
    {"\"id\":\"root\"", "\"id\":\"scratch\"", "same id", -EBADMSG},
    {"\"id\":\"root\"", "\"id\":\"boot\"", "files", -EBADMSG},
    {"\"bytes\":4096,\"data\":4096", "\"bytes\":4096,\"data\":4097", "data",
     -EBADMSG},
    {"\"bytes\":4096,\"data\":4096", "\"bytes\":4097,\"data\":4096", "size",
     -EBADMSG},
    {"\"stored\":false", "\"stored\":true", "files", -EBADMSG},
    {"\"page_size\":4096", "\"page_size\":1", "page_size", -EBADMSG},
    {"\"command\":[\"python3\",\"-c\",\"import numpy\"]", "\"command\":[]",
     "warm-up", -EBADMSG},
    {"\"bytes\":1000", "\"bytes\":0", "state", -EBADMSG},
    {"\"bytes\":1000", "\"bytes\":4194305", "state", -EBADMSG},
    {"\"leaves\":", "\"../leaves\":", "name", -EBADMSG},
    {"\"leaves\":", "\"leavez\":", "files", -EBADMSG},
    {"\"root\":\"c", "\"root\":\"C", "root", -EBADMSG},
    {"\"agent\":true", "\"agent\":true,\"agent\":true", "JSON", -EBADMSG},
    {"{\"agent\"", "[{\"agent\"", "JSON", -EBADMSG},
};

static char *replace(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    char *copy = NULL;

    ck_assert_msg(at != NULL, "%s is not there: %s", from, text);
    ck_assert_int_gt(asprintf(&copy, "%.*s%s%s", (int)(at - text), text, to,
                              at + strlen(from)),
                     0);
    return copy;
}

START_TEST(bad_values_are_refused)
{
    char err[SNAPSHOT_ERR_MAX] = "";
    size_t len = 0;
    char *text = good_text(&len);
    char *bad = replace(text, bad_values[_i].from, bad_values[_i].to);

    ck_assert_int_eq(parse(bad, strlen(bad), err), bad_values[_i].ret);
    ck_assert_msg(strstr(err, bad_values[_i].says) != NULL, "%s", err);
    free(bad);
    free(text);
}
END_TEST

/* ---- damage ------------------------------------------------------------- */

START_TEST(truncated_is_refused)
{
    char err[SNAPSHOT_ERR_MAX];
    size_t len = 0;
    char *text = good_text(&len);

    for (size_t n = 0; n < len; n++) {
        char *copy = malloc(n + 1); /* exactly: a reader beyond it is seen */

        memcpy(copy, text, n);
        ck_assert_int_eq(parse(copy, n, err), -EBADMSG);
        free(copy);
    }
    free(text);
}
END_TEST

/* Refused, or another manifest whose text this is: never a crash. */
START_TEST(flipped_bits_are_refused_or_valid)
{
    char err[SNAPSHOT_ERR_MAX];
    size_t len = 0, valid = 0;
    char *text = good_text(&len);

    for (size_t i = 0; i < len * 8; i++) {
        struct snapshot_manifest m;
        char *again;
        size_t again_len = 0;

        text[i / 8] ^= (char)(1 << (i % 8));
        if (snapshot_manifest_parse(text, len, &m, err) == 0) {
            again = encode(&m, &again_len);
            ck_assert_uint_eq(again_len, len);
            ck_assert_int_eq(memcmp(again, text, len), 0);
            free(again);
            snapshot_manifest_fini(&m);
            valid++;
        }
        text[i / 8] ^= (char)(1 << (i % 8));
    }
    ck_assert_uint_lt(valid, len * 4); /* hex digits have many neighbours */
    free(text);
}
END_TEST

START_TEST(too_large_is_refused)
{
    char err[SNAPSHOT_ERR_MAX];
    char *text = malloc(SNAPSHOT_MANIFEST_MAX + 1);

    memset(text, ' ', SNAPSHOT_MANIFEST_MAX + 1);
    ck_assert_int_eq(parse(text, SNAPSHOT_MANIFEST_MAX + 1, err), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(err, "larger"));
    free(text);
}
END_TEST

/* What the reader would refuse is not written. */
START_TEST(bad_manifests_are_not_written)
{
    static const char *const not_utf8[] = {"caf\xe9", NULL};
    static const char *const no_name[] = {"=x", NULL};
    char err[SNAPSHOT_ERR_MAX] = "";
    struct snapshot_manifest m;
    char *text = NULL;
    size_t len = 0;

    fill(&m, false);
    ck_assert_int_eq(snapshot_manifest_set_list(&m.warmup, not_utf8), 0);
    ck_assert_int_eq(snapshot_manifest_encode(&m, &text, &len, err), -EINVAL);
    ck_assert_ptr_nonnull(strstr(err, "UTF-8"));
    snapshot_manifest_fini(&m);

    fill(&m, false);
    ck_assert_int_eq(snapshot_manifest_set_list(&m.env, no_name), 0);
    ck_assert_int_eq(snapshot_manifest_encode(&m, &text, &len, err), -EINVAL);
    snapshot_manifest_fini(&m);

    fill(&m, false);
    m.root[5] = 'x';
    ck_assert_int_eq(snapshot_manifest_encode(&m, &text, &len, err), -EINVAL);
    m.root[5] = 'c';
    m.file_count--;
    ck_assert_int_eq(snapshot_manifest_encode(&m, &text, &len, err), -EINVAL);
    snapshot_manifest_fini(&m);
}
END_TEST

static char *write_manifest(const void *object)
{
    char err[SNAPSHOT_ERR_MAX];
    char *text = NULL;
    size_t len;

    return snapshot_manifest_encode(object, &text, &len, err) == 0 ? text
                                                                   : NULL;
}

START_TEST(short_memory_drops_no_key)
{
    struct snapshot_manifest m;
    const char *said;

    fill(&m, true);
    said = json_memory_check(write_manifest, &m);
    ck_assert_msg(!said, "%s", said);
    snapshot_manifest_fini(&m);
}
END_TEST

START_TEST(lookups)
{
    struct snapshot_manifest m;

    fill(&m, false);
    ck_assert_ptr_eq(snapshot_manifest_disk(&m, "scratch"), &m.disks[1]);
    ck_assert_ptr_null(snapshot_manifest_disk(&m, "nothing"));
    ck_assert_ptr_null(snapshot_manifest_file(&m, "memory.map"));
    ck_assert_uint_eq(snapshot_manifest_file(&m, "memory")->bytes, RIG_MEMORY);
    /* memory 32, root 1, scratch 10, its cow file 10 and the header */
    ck_assert_uint_eq(snapshot_leaf_count(&m), 32 + 1 + 10 + 11);
    ck_assert_str_eq(snapshot_cpuid_name(SNAPSHOT_CPUID_7_EBX), "7.ebx");
    ck_assert_str_eq(snapshot_cpuid_name(SNAPSHOT_CPUID_KVM_EAX),
                     "40000001.eax");
    ck_assert_str_eq(snapshot_cpuid_name(SNAPSHOT_CPUID_WORDS), "unknown");
    snapshot_manifest_fini(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot_manifest");
    TCase *tc = tcase_create("core");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, round_trips);
    tcase_add_test(tc, smallest_round_trips);
    tcase_add_test(tc, text_is_canonical);
    tcase_add_test(tc, every_key_counts);
    tcase_add_loop_test(tc, bad_values_are_refused, 0,
                        (int)ARRAY_SIZE(bad_values));
    tcase_add_test(tc, truncated_is_refused);
    tcase_add_test(tc, flipped_bits_are_refused_or_valid);
    tcase_add_test(tc, too_large_is_refused);
    tcase_add_test(tc, bad_manifests_are_not_written);
    tcase_add_test(tc, short_memory_drops_no_key);
    tcase_add_test(tc, lookups);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
