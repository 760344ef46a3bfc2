/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The overlay's file: damaged, cut, foreign or for another disk, and no memory
 * while it is opened.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "devices/blk/cow_map.h"
#include "devices/blk/cow_overlay.h"
#include "devices/blk/virtio_blk.h"
#include "tests/blk_disk.h"

/* Five clusters and a bit: the last one is short. */
#define DISK_SIZE (5 * CLUSTER + 3 * SECTOR)

/*
 * The n-th allocation fails. Only without AddressSanitizer, which needs these
 * names itself; make check runs both builds.
 */
#if !defined(__SANITIZE_ADDRESS__)
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#else
#define HAVE_ASAN 1
#endif

#ifndef HAVE_ASAN
static long fail_allocation; /* counts down to the one that fails */

void *__libc_calloc(size_t count, size_t size);
void *__libc_malloc(size_t size);

static bool allocation_fails(void)
{
    return fail_allocation > 0 && --fail_allocation == 0;
}

void *calloc(size_t count, size_t size)
{
    return allocation_fails() ? NULL : __libc_calloc(count, size);
}

void *malloc(size_t size)
{
    return allocation_fails() ? NULL : __libc_malloc(size);
}
#endif

/* ---- hostile files ------------------------------------------------------ */

/* A good overlay with some clusters present. */
static int good_overlay(int base_fd)
{
    uint8_t data[SECTOR] = {1};
    int fd = blk_memfd();
    struct block_backend *b = blk_overlay(base_fd, fd, 0, true);

    ck_assert_int_eq(blk_write(b, data, SECTOR, CLUSTER), 0);
    ck_assert_int_eq(b->ops->flush(b), 0);
    b->ops->free(b);
    return fd;
}

static void expect_refused(int base_fd, int fd, int want)
{
    struct block_backend *b = NULL;

    ck_assert_int_eq(blk_try_overlay(base_fd, fd, 0, true, &b), want);
    ck_assert_ptr_null(b);
}

START_TEST(test_every_header_bit)
{
    static uint8_t base[DISK_SIZE];
    int base_fd = blk_disk(base, sizeof(base));
    int fd = good_overlay(base_fd);
    struct block_backend *b;

    for (unsigned bit = 0; bit < COW_MAP_HEADER_SIZE * 8;
         bit += bit < 64 * 8 ? 1 : 97) {
        uint8_t byte, bad;

        ck_assert_int_eq(pread(fd, &byte, 1, bit / 8), 1);
        bad = (uint8_t)(byte ^ (1u << (bit % 8)));
        ck_assert_int_eq(pwrite(fd, &bad, 1, bit / 8), 1);
        expect_refused(base_fd, fd, -EBADMSG);
        ck_assert_int_eq(pwrite(fd, &byte, 1, bit / 8), 1);
    }
    b = blk_overlay(base_fd, fd, 0, true);
    ck_assert_uint_eq(b->stats.clusters_present, 1);
    b->ops->free(b);
    close(base_fd);
    close(fd);
}
END_TEST

START_TEST(test_bits_beyond_the_end)
{
    static uint8_t base[DISK_SIZE];
    int base_fd = blk_disk(base, sizeof(base));
    int fd = good_overlay(base_fd);

    /* Six clusters: bits 6 and 7 of the one byte name none. */
    for (unsigned bits = 0x40; bits < 0x100; bits += 0x40) {
        uint8_t byte = (uint8_t)bits;

        ck_assert_int_eq(pwrite(fd, &byte, 1, COW_MAP_HEADER_SIZE), 1);
        expect_refused(base_fd, fd, -EBADMSG);
    }
    close(base_fd);
    close(fd);
}
END_TEST

START_TEST(test_wrong_length)
{
    static const long lengths[] = {1,
                                   8,
                                   511,
                                   4095,
                                   4096,
                                   4097,
                                   65535,
                                   65536,
                                   65536 + DISK_SIZE - 1,
                                   65536 + DISK_SIZE + 1,
                                   1l << 40};
    static uint8_t base[DISK_SIZE];
    int base_fd = blk_disk(base, sizeof(base));
    int fd = good_overlay(base_fd);

    ck_assert_int_eq(ftruncate(fd, lengths[_i]), 0);
    expect_refused(base_fd, fd, -EBADMSG);
    close(base_fd);
    close(fd);
}
END_TEST

START_TEST(test_not_an_overlay)
{
    static uint8_t base[DISK_SIZE], other[DISK_SIZE + SECTOR];
    int base_fd = blk_disk(base, sizeof(base));
    int other_fd = blk_disk(other, sizeof(other));
    int fd = good_overlay(base_fd);
    int fds[2];

    /* Over another base: the sizes tell. A raw disk is no overlay. */
    expect_refused(other_fd, fd, -EBADMSG);
    expect_refused(base_fd, other_fd, -EBADMSG);
    ck_assert_int_eq(pipe(fds), 0);
    expect_refused(base_fd, fds[0], -EINVAL);
    expect_refused(base_fd, -1, -EBADF);
    /* Not writable. */
    close(fd);
    fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    expect_refused(base_fd, fd, -EINVAL);
    close(fd);
    close(base_fd);
    close(other_fd);
    close(fds[0]);
    close(fds[1]);
}
END_TEST

/* A base that claims to be larger than any overlay can be. */
START_TEST(test_disk_too_large)
{
    struct cow_map map;
    int fd = blk_memfd();

    ck_assert_int_eq(
        cow_map_open(&map, fd, COW_MAP_DISK_MAX + SECTOR, COW_MAP_SCRATCH),
        -EFBIG);
    ck_assert_int_eq(cow_map_open(&map, fd, UINT64_MAX - 511, COW_MAP_SCRATCH),
                     -EFBIG);
    ck_assert_int_eq(cow_map_open(&map, fd, 0, COW_MAP_SCRATCH), -EINVAL);
    ck_assert_int_eq(cow_map_open(&map, fd, 513, COW_MAP_SCRATCH), -EINVAL);
    ck_assert_int_eq(cow_map_open(&map, fd, (uint64_t)1 << 40, COW_MAP_SCRATCH),
                     0);
    cow_map_put(&map, 7, true);
    cow_map_put(&map, map.clusters - 1, true);
    ck_assert_uint_eq(map.present, 2);
    ck_assert_uint_eq(cow_map_run_end(&map, 0, map.clusters - 1), 6);
    ck_assert_uint_eq(cow_map_run_end(&map, 8, map.clusters - 1),
                      map.clusters - 2);
    ck_assert_uint_eq(cow_map_count_absent(&map, 0, 15), 15);
    ck_assert_int_eq(cow_map_write(&map, fd), 0);
    ck_assert(!cow_map_is_dirty(&map));
    cow_map_fini(&map);
    ck_assert_int_eq(cow_map_open(&map, fd, (uint64_t)1 << 40, COW_MAP_SCRATCH),
                     0);
    ck_assert_uint_eq(map.present, 2);
    ck_assert(cow_map_get(&map, 7) && cow_map_get(&map, map.clusters - 1));
    cow_map_fini(&map);
    close(fd);
}
END_TEST

#ifndef HAVE_ASAN
START_TEST(test_failed_allocations)
{
    static uint8_t base[DISK_SIZE];
    int base_fd = blk_disk(base, sizeof(base));
    int fd = good_overlay(base_fd);
    struct cow_overlay_options options = {0};
    int ret = -ENOMEM;
    long n;

    for (n = 1; ret < 0; n++) {
        struct block_backend *raw = NULL, *b = NULL;
        struct virtio_device *dev = NULL;

        fail_allocation = n;
        ret = block_raw_new(dup(base_fd), true, &raw);
        if (ret == 0)
            ret = cow_overlay_open(raw, dup(fd), &options, &b);
        if (ret == 0)
            ret = virtio_blk_new(b, "disk-0", &dev);
        fail_allocation = 0;
        if (ret == 0)
            dev->ops->free(dev);
        else
            ck_assert_int_eq(ret, -ENOMEM);
        ck_assert_int_lt(n, 100);
    }
    /* Raw disk, overlay, its buffers, its map, device; then all went well. */
    ck_assert_int_eq(n, 7);
    /* No descriptor was left behind. */
    ck_assert_int_eq(dup(fd), fd + 1);
    close(base_fd);
    close(fd);
}
END_TEST
#endif

int main(void)
{
    Suite *s = suite_create("cow_map");
    TCase *tc = tcase_create("cow_map");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_every_header_bit);
    tcase_add_test(tc, test_bits_beyond_the_end);
    tcase_add_loop_test(tc, test_wrong_length, 0, 11);
    tcase_add_test(tc, test_not_an_overlay);
    tcase_add_test(tc, test_disk_too_large);
#ifndef HAVE_ASAN
    tcase_add_test(tc, test_failed_allocations);
#endif
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
