/* SPDX-License-Identifier: Apache-2.0 */
/* The hash tree, against its definition written out. */
#include "trial/merkle.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trial/snapshot_internal.h"

#define LEAVES_MAX 40u

static uint8_t leaves[LEAVES_MAX][DIGEST_SIZE];

/* RFC 6962, 2.1, as it stands there, but for the hash of a leaf. */
static void define(unsigned first, unsigned n, uint8_t ret[DIGEST_SIZE])
{
    uint8_t node[1 + 2 * DIGEST_SIZE] = {1};
    unsigned k = 1;

    if (n == 1) {
        memcpy(ret, leaves[first], DIGEST_SIZE);
        return;
    }
    while (2 * k < n)
        k *= 2;
    define(first, k, node + 1);
    define(first + k, n - k, node + 1 + DIGEST_SIZE);
    digest_sum(node, sizeof(node), ret);
}

START_TEST(root_is_as_defined)
{
    uint8_t want[DIGEST_SIZE], have[DIGEST_SIZE];
    struct merkle m;

    merkle_init(&m);
    for (unsigned n = 1; n <= LEAVES_MAX; n++) {
        digest_sum(&n, sizeof(n), leaves[n - 1]);
        merkle_add(&m, leaves[n - 1]);
        merkle_root(&m, have);
        define(0, n, want);
        ck_assert_mem_eq(have, want, DIGEST_SIZE);
    }
}
END_TEST

START_TEST(root_of_nothing)
{
    char hex[DIGEST_HEX_SIZE];
    uint8_t root[DIGEST_SIZE];
    struct merkle m;

    merkle_init(&m);
    merkle_root(&m, root);
    digest_to_hex(root, hex);
    ck_assert_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495"
                          "991b7852b855");
}
END_TEST

/* ---- walking over a file ------------------------------------------------ */

static int collect(void *ctx, uint64_t chunk, const uint8_t leaf[DIGEST_SIZE])
{
    unsigned *count = ctx;

    ck_assert_uint_eq(chunk, *count);
    ck_assert_uint_lt(chunk, LEAVES_MAX);
    memcpy(leaves[chunk], leaf, DIGEST_SIZE);
    ++*count;
    return 0;
}

/* Data, a hole, zeros as data, a tail: each chunk's plain digest. */
START_TEST(leaves_are_digests_of_chunks)
{
    const uint64_t bytes = 5 * SNAPSHOT_CHUNK + 777;
    struct digest *plain = digest_new();
    char path[] = "/dev/shm/microsbx-walk-XXXXXX";
    int fd = mkstemp(path);
    uint8_t *buf = malloc(bytes), want[DIGEST_SIZE];
    char hex[DIGEST_HEX_SIZE], plain_hex[DIGEST_HEX_SIZE];
    unsigned count = 0;
    struct snapshot_walk walk = {.fd = fd,
                                 .bytes = bytes,
                                 .data = 4 * SNAPSHOT_CHUNK + 11,
                                 .plain = plain,
                                 .leaf = collect,
                                 .ctx = &count};

    ck_assert_int_ge(fd, 0);
    unlink(path);
    ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
    ck_assert_int_eq(pwrite(fd, "hello", 5, 100), 5);
    memset(buf, 0, bytes);
    ck_assert_int_eq(pwrite(fd, buf, SNAPSHOT_CHUNK, 2 * SNAPSHOT_CHUNK),
                     (ssize_t)SNAPSHOT_CHUNK);
    ck_assert_int_eq(pwrite(fd, "x", 1, 4 * SNAPSHOT_CHUNK + 10), 1);
    ck_assert_int_eq(pread(fd, buf, bytes, 0), (ssize_t)bytes);
    ck_assert_int_eq(snapshot_walk(&walk), 0);
    ck_assert_uint_eq(count, 6);
    for (unsigned i = 0; i < 6; i++) {
        digest_sum(buf + i * SNAPSHOT_CHUNK, i < 5 ? SNAPSHOT_CHUNK : 777,
                   want);
        ck_assert_mem_eq(want, leaves[i], DIGEST_SIZE);
    }
    digest_hex(plain, plain_hex);
    digest_sum(buf, 4 * SNAPSHOT_CHUNK + 11, want);
    digest_to_hex(want, hex);
    ck_assert_str_eq(hex, plain_hex);
    /* Something behind the data. */
    ck_assert_int_eq(pwrite(fd, "y", 1, 4 * SNAPSHOT_CHUNK + 11), 1);
    count = 0;
    ck_assert_int_eq(snapshot_walk(&walk), -EBADMSG);
    /* Shorter than it was. */
    walk.plain = NULL;
    ck_assert_int_eq(ftruncate(fd, (off_t)SNAPSHOT_CHUNK / 2), 0);
    count = 0;
    ck_assert_int_eq(snapshot_walk(&walk), -ENODATA);
    digest_free(plain);
    free(buf);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("merkle");
    TCase *tc = tcase_create("core");
    SRunner *runner;
    int failed;

    tcase_add_test(tc, root_is_as_defined);
    tcase_add_test(tc, root_of_nothing);
    tcase_add_test(tc, leaves_are_digests_of_chunks);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
