/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overlays on overlays: a snapshot's layer under a private overlay, all of it
 * saved as one file, and a private overlay emptied for its next use.
 *
 * pwritev and ftruncate below stand in front of libc's (the linker takes the
 * program's own definition first), to be a host disk that is full from the n-th
 * change on.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/blk/cow_map.h"
#include "devices/blk/cow_overlay.h"
#include "tests/blk_disk.h"

/* Nine clusters and a bit: the last one is short. */
#define DISK_SIZE (9 * CLUSTER + 3 * SECTOR)
#define SECTORS (DISK_SIZE / SECTOR)
#define CLUSTERS 10u

static struct {
    int fd;       /* the file whose changes count, or -1 */
    long full_at; /* changes until the disk is full; 0: never */
    long changes;
} host = {.fd = -1};

static bool disk_full(int fd)
{
    return fd == host.fd && ++host.changes >= host.full_at && host.full_at > 0;
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    if (!disk_full(fd))
        return syscall(SYS_pwritev, fd, iov, count, offset, 0);
    errno = ENOSPC;
    return -1;
}

int ftruncate(int fd, off_t length)
{
    if (!disk_full(fd))
        return (int)syscall(SYS_ftruncate, fd, length);
    errno = ENOSPC;
    return -1;
}

static uint64_t file_bytes(int fd)
{
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* Whether a cluster is marked in an overlay's file, and a hole in it. */
static bool file_has(int fd, unsigned cluster)
{
    uint8_t byte;

    ck_assert_int_eq(pread(fd, &byte, 1, COW_MAP_HEADER_SIZE + cluster / 8), 1);
    return byte >> (cluster % 8) & 1;
}

static bool file_is_hole(int fd, unsigned cluster)
{
    off_t at = (off_t)(CLUSTER + (uint64_t)cluster * CLUSTER);

    return lseek(fd, at, SEEK_HOLE) == at;
}

struct stack {
    int base_fd;
    int layer_fd; /* -1: the private overlay lies on the raw disk */
    int fd;       /* of the private overlay */
    struct block_backend *b;
    uint8_t base[DISK_SIZE];
    uint8_t want[DISK_SIZE];
    uint8_t buf[DISK_SIZE];
};

static struct stack s;

/* A layer over the raw base, from a descriptor that can only be read. */
static struct block_backend *open_layer(int layer_fd)
{
    struct cow_overlay_options options = {.readonly = true, .limit = 1};
    struct block_backend *b = blk_raw(s.base_fd, true);
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", layer_fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(cow_overlay_open(b, fd, &options, &b), 0);
    return b;
}

static void open_private(uint64_t limit)
{
    struct cow_overlay_options options = {.limit = limit};
    struct block_backend *below =
        s.layer_fd < 0 ? blk_raw(s.base_fd, true) : open_layer(s.layer_fd);

    s.fd = blk_memfd();
    ck_assert_int_eq(cow_overlay_open(below, dup(s.fd), &options, &s.b), 0);
}

static void setup(void)
{
    memset(&s, 0, sizeof(s));
    for (size_t i = 0; i < DISK_SIZE; i++)
        s.base[i] = (uint8_t)(1 + blk_random(255));
    memset(s.base + CLUSTER, 0, CLUSTER);
    memcpy(s.want, s.base, DISK_SIZE);
    s.base_fd = blk_disk(s.base, DISK_SIZE);
    s.layer_fd = -1;
    open_private(0);
}

static void close_private(void)
{
    if (s.b)
        s.b->ops->free(s.b);
    s.b = NULL;
    close(s.fd);
}

static void teardown(void)
{
    close_private();
    close(s.base_fd);
    if (s.layer_fd >= 0)
        close(s.layer_fd);
}

static void check_content(void)
{
    ck_assert_int_eq(blk_read(s.b, s.buf, DISK_SIZE, 0), 0);
    ck_assert_mem_eq(s.buf, s.want, DISK_SIZE);
}

/* Some changes of every kind, mirrored in s.want. */
static void random_changes(unsigned count)
{
    while (count-- > 0) {
        uint64_t offset, len;

        blk_random_range(SECTORS, &offset, &len);
        switch (blk_random(4)) {
        case 0:
            ck_assert_int_eq(
                s.b->ops->write_zeroes(s.b, offset, len, blk_random(2)), 0);
            memset(s.want + offset, 0, len);
            break;
        case 1:
            ck_assert_int_eq(s.b->ops->discard(s.b, offset, len), 0);
            /* Zeros or as before; whichever it is, it stays so. */
            ck_assert_int_eq(blk_read(s.b, s.want, DISK_SIZE, 0), 0);
            break;
        default:
            for (uint64_t i = 0; i < len; i++)
                s.buf[i] = (uint8_t)blk_random(256);
            ck_assert_int_eq(blk_write(s.b, s.buf, len, offset), 0);
            memcpy(s.want + offset, s.buf, len);
            break;
        }
    }
}

/* Saves the stack and makes the result the layer under a fresh overlay. */
static uint64_t snapshot(void)
{
    uint64_t clusters = 0;
    int fd = blk_memfd();

    ck_assert_int_eq(cow_overlay_save(s.b, fd, &clusters), 0);
    close_private();
    if (s.layer_fd >= 0)
        close(s.layer_fd);
    s.layer_fd = fd;
    open_private(0);
    return clusters;
}

/* Generation after generation: every read is right, in all of them. */
START_TEST(test_generations)
{
    blk_random_state = (uint64_t)_i + 1;
    for (unsigned generation = 0; generation < 12; generation++) {
        for (unsigned i = 0; i < 8; i++) {
            random_changes(1);
            check_content();
        }
        (void)snapshot();
        ck_assert_uint_eq(s.b->stats.clusters_present, 0);
        check_content();
    }
    /* The raw disk below is what it was. */
    ck_assert_int_eq(pread(s.base_fd, s.buf, DISK_SIZE, 0), DISK_SIZE);
    ck_assert_mem_eq(s.buf, s.base, DISK_SIZE);
}
END_TEST

/* Saving changes nothing: not the overlay, nor its counts, nor the layer. */
START_TEST(test_save_only_reads)
{
    struct block_backend_stats stats;
    uint8_t *before = malloc(CLUSTER + DISK_SIZE);
    uint8_t *after = malloc(CLUSTER + DISK_SIZE);
    uint64_t clusters;
    int fd = blk_memfd();

    ck_assert(before && after);
    random_changes(6);
    (void)snapshot();
    random_changes(6);
    stats = s.b->stats;
    ck_assert_int_eq(pread(s.layer_fd, before, CLUSTER + DISK_SIZE, 0),
                     CLUSTER + DISK_SIZE);
    ck_assert_int_eq(cow_overlay_save(s.b, fd, &clusters), 0);
    ck_assert_mem_eq(&s.b->stats, &stats, sizeof(stats));
    ck_assert_int_eq(pread(s.layer_fd, after, CLUSTER + DISK_SIZE, 0),
                     CLUSTER + DISK_SIZE);
    ck_assert_mem_eq(before, after, CLUSTER + DISK_SIZE);
    check_content();
    random_changes(6);
    check_content();
    close(fd);
    free(before);
    free(after);
}
END_TEST

/* Exactly the union, zeros as holes, the short last cluster included. */
START_TEST(test_union)
{
    unsigned last = CLUSTERS - 1;
    uint64_t clusters = 0;
    int fd = blk_memfd();

    memset(s.buf, 7, sizeof(s.buf));
    ck_assert_int_eq(blk_write(s.b, s.buf, SECTOR, 2 * CLUSTER), 0);
    ck_assert_int_eq(blk_write(s.b, s.buf, CLUSTER, 3 * CLUSTER), 0);
    ck_assert_int_eq(blk_write(s.b, s.buf, SECTOR, last * CLUSTER), 0);
    ck_assert_uint_eq(snapshot(), 3);
    /* Above it: one changed again, one more, and zeros over data. */
    memset(s.buf, 8, sizeof(s.buf));
    ck_assert_int_eq(blk_write(s.b, s.buf, SECTOR, 2 * CLUSTER), 0);
    ck_assert_int_eq(blk_write(s.b, s.buf, SECTOR, 5 * CLUSTER), 0);
    ck_assert_int_eq(s.b->ops->write_zeroes(s.b, 3 * CLUSTER, CLUSTER, false),
                     0);
    ck_assert_int_eq(blk_read(s.b, s.want, DISK_SIZE, 0), 0);
    ck_assert_uint_eq(s.b->stats.clusters_present, 3);
    ck_assert_int_eq(cow_overlay_save(s.b, fd, &clusters), 0);
    ck_assert_uint_eq(clusters, 5 - 1);
    for (unsigned i = 0; i < CLUSTERS; i++)
        ck_assert_int_eq(file_has(fd, i),
                         i == 2 || i == 3 || i == 5 || i == last);
    ck_assert(file_is_hole(fd, 3));
    ck_assert(file_is_hole(fd, 4));
    ck_assert(!file_is_hole(fd, 2));
    ck_assert(!file_is_hole(fd, last));
    close(fd);
    (void)snapshot();
    check_content();
    /* Zeros in the layer are zeros, not the base below them. */
    ck_assert_uint_eq(s.want[3 * CLUSTER], 0);
    ck_assert_uint_eq(s.want[2 * CLUSTER], 8);
    ck_assert_uint_eq(s.want[last * CLUSTER], 7);
}
END_TEST

/* An overlay that holds nothing is one, too. */
START_TEST(test_empty)
{
    ck_assert_uint_eq(snapshot(), 0);
    ck_assert_uint_eq(snapshot(), 0);
    check_content();
    ck_assert_uint_le(file_bytes(s.layer_fd), 2 * COW_MAP_HEADER_SIZE);
}
END_TEST

/* Only into an empty file. */
START_TEST(test_save_needs_an_empty_file)
{
    uint64_t clusters = 77;
    int fd = blk_memfd();
    int pair[2];

    ck_assert_int_eq(write(fd, "x", 1), 1);
    ck_assert_int_eq(cow_overlay_save(s.b, fd, &clusters), -EINVAL);
    close(fd);
    ck_assert_int_eq(pipe(pair), 0);
    ck_assert_int_eq(cow_overlay_save(s.b, pair[1], &clusters), -EINVAL);
    close(pair[0]);
    close(pair[1]);
    ck_assert_int_eq(cow_overlay_save(s.b, -1, &clusters), -EBADF);
    ck_assert_uint_eq(clusters, 77);
}
END_TEST

/* The host's disk is full at the n-th change: -ENOSPC, and nothing but that. */
START_TEST(test_no_space_for_a_save)
{
    uint64_t clusters = 77;
    long changes;

    random_changes(10);
    (void)snapshot();
    random_changes(4);
    host.fd = blk_memfd();
    host.changes = 0;
    ck_assert_int_eq(cow_overlay_save(s.b, host.fd, &clusters), 0);
    changes = host.changes;
    ck_assert_int_ge(changes, 4); /* length, header, some data, map */
    close(host.fd);
    for (long i = 1; i <= changes; i++) {
        host.fd = blk_memfd();
        host.changes = 0;
        host.full_at = i;
        clusters = 77;
        ck_assert_int_eq(cow_overlay_save(s.b, host.fd, &clusters), -ENOSPC);
        ck_assert_uint_eq(clusters, 77);
        /* Cut off anywhere, no cluster is claimed that may not be there. */
        for (unsigned c = 0; c < CLUSTERS && i > 2; c++)
            ck_assert(!file_has(host.fd, c));
        close(host.fd);
    }
    host.fd = -1;
    host.full_at = 0;
    check_content();
    random_changes(4);
    (void)snapshot();
    check_content();
}
END_TEST

/* A layer is only read, whatever it is asked. */
START_TEST(test_layer_is_read_only)
{
    struct block_backend *layer;

    random_changes(8);
    (void)snapshot();
    layer = open_layer(s.layer_fd);
    ck_assert(layer->readonly);
    ck_assert_uint_eq(layer->size, DISK_SIZE);
    ck_assert_int_eq(blk_read(layer, s.buf, DISK_SIZE, 0), 0);
    ck_assert_mem_eq(s.buf, s.want, DISK_SIZE);
    ck_assert_int_eq(blk_write(layer, s.buf, SECTOR, 0), -EROFS);
    ck_assert_int_eq(layer->ops->discard(layer, 0, CLUSTER), -EROFS);
    ck_assert_int_eq(layer->ops->write_zeroes(layer, 0, CLUSTER, true), -EROFS);
    ck_assert_int_eq(layer->ops->flush(layer), 0);
    ck_assert_int_eq(cow_overlay_reset(layer), -EINVAL);
    layer->ops->free(layer);
    check_content();
}
END_TEST

/* Not every file is a layer: an empty one least of all. */
START_TEST(test_bad_layer)
{
    struct cow_overlay_options options = {.readonly = true, .durable = true};
    struct block_backend *b = blk_raw(s.base_fd, true);
    int fd = blk_memfd();

    (void)snapshot();
    if (_i == 1)
        ck_assert_int_eq(write(fd, s.base, DISK_SIZE), DISK_SIZE);
    if (_i == 2) /* of a disk of another size */
        ck_assert_int_eq(
            ftruncate(s.layer_fd, (off_t)(DISK_SIZE + 2 * CLUSTER)), 0);
    ck_assert_int_eq(
        cow_overlay_open(b, _i == 2 ? dup(s.layer_fd) : dup(fd), &options, &b),
        -EBADMSG);
    if (_i == 0) { /* and it has not been made one */
        struct stat st;

        ck_assert_int_eq(fstat(fd, &st), 0);
        ck_assert_int_eq(st.st_size, 0);
    }
    close(fd);
}
END_TEST

/* The limit is the private overlay's: what the layer holds does not count. */
START_TEST(test_limit_counts_private_clusters)
{
    memset(s.buf, 1, sizeof(s.buf));
    ck_assert_int_eq(blk_write(s.b, s.buf, 6 * CLUSTER, 0), 0);
    ck_assert_uint_eq(snapshot(), 6);
    close_private();
    open_private(2 * CLUSTER);
    ck_assert_int_eq(blk_write(s.b, s.buf, SECTOR, 0), 0);
    ck_assert_int_eq(blk_write(s.b, s.buf, SECTOR, 7 * CLUSTER), 0);
    ck_assert_int_eq(blk_write(s.b, s.buf, SECTOR, CLUSTER), -ENOSPC);
    ck_assert(s.b->stats.limit_hit);
    ck_assert_uint_eq(s.b->stats.no_space, 1);
    ck_assert_uint_eq(s.b->stats.clusters_present, 2);
    /* Emptied, it has its room again, and counts from zero. */
    ck_assert_int_eq(cow_overlay_reset(s.b), 0);
    ck_assert(!s.b->stats.limit_hit);
    ck_assert_uint_eq(s.b->stats.no_space, 0);
    ck_assert_uint_eq(s.b->stats.clusters_present, 0);
    ck_assert_int_eq(blk_write(s.b, s.buf, SECTOR, CLUSTER), 0);
    ck_assert_int_eq(blk_write(s.b, s.buf, SECTOR, 2 * CLUSTER), 0);
    ck_assert_int_eq(blk_write(s.b, s.buf, SECTOR, 0), -ENOSPC);
}
END_TEST

/* Rolled back again and again: the base's (or layer's) content every time. */
START_TEST(test_reset)
{
    uint8_t *start = malloc(DISK_SIZE);
    uint64_t empty;

    ck_assert_ptr_nonnull(start);
    if (_i == 1) {
        random_changes(8);
        (void)snapshot();
    }
    empty = file_bytes(s.fd);
    memcpy(start, s.want, DISK_SIZE);
    for (unsigned round = 0; round < 20; round++) {
        random_changes(6);
        check_content();
        ck_assert_int_eq(cow_overlay_reset(s.b), 0);
        ck_assert_uint_eq(file_bytes(s.fd), empty);
        memcpy(s.want, start, DISK_SIZE);
        check_content();
    }
    free(start);
}
END_TEST

/* The private overlay's own descriptor: it has a duplicate of ours. */
static int overlay_fd(void)
{
    struct stat ours, other;

    ck_assert_int_eq(fstat(s.fd, &ours), 0);
    for (int fd = 3; fd < 64; fd++)
        if (fd != s.fd && fstat(fd, &other) == 0 &&
            other.st_ino == ours.st_ino && other.st_dev == ours.st_dev)
            return fd;
    ck_abort_msg("no such descriptor");
    return -1;
}

/* Nothing was written: nothing is done. */
START_TEST(test_reset_of_an_unused_one_costs_nothing)
{
    host.fd = overlay_fd();
    check_content();
    for (unsigned i = 0; i < 3; i++) {
        host.changes = 0;
        ck_assert_int_eq(cow_overlay_reset(s.b), 0);
        ck_assert_int_eq(host.changes, 0);
        random_changes(1);
        ck_assert_int_eq(cow_overlay_reset(s.b), 0);
        ck_assert_int_gt(host.changes, 0);
    }
    host.fd = -1;
}
END_TEST

/* What somebody else wrote into the file counts as written. */
START_TEST(test_reset_of_a_reopened_one)
{
    struct cow_overlay_options options = {0};
    struct block_backend *b;
    int fd = blk_memfd();
    uint64_t clusters;

    random_changes(8);
    ck_assert_int_eq(cow_overlay_save(s.b, fd, &clusters), 0);
    ck_assert_uint_gt(clusters, 0);
    b = blk_raw(s.base_fd, true);
    ck_assert_int_eq(cow_overlay_open(b, dup(fd), &options, &b), 0);
    ck_assert_int_eq(blk_read(b, s.buf, DISK_SIZE, 0), 0);
    ck_assert_mem_eq(s.buf, s.want, DISK_SIZE);
    ck_assert_int_eq(cow_overlay_reset(b), 0);
    ck_assert_int_eq(blk_read(b, s.buf, DISK_SIZE, 0), 0);
    ck_assert_mem_eq(s.buf, s.base, DISK_SIZE);
    b->ops->free(b);
    close(fd);
}
END_TEST

/* The host has no room for the header: an error, and no use but to free it. */
START_TEST(test_reset_fails)
{
    struct block_backend *b = s.b;

    random_changes(4);
    host.fd = overlay_fd();
    host.changes = 0;
    host.full_at = _i;
    ck_assert_int_eq(cow_overlay_reset(b), -ENOSPC);
    host.fd = -1;
    host.full_at = 0;
}
END_TEST

START_TEST(test_durable_has_no_reset)
{
    int fd = blk_memfd();
    struct block_backend *b = blk_overlay(s.base_fd, fd, 0, true);

    ck_assert_int_eq(cow_overlay_reset(b), -EINVAL);
    b->ops->free(b);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cow_layers");
    TCase *tc = tcase_create("layers");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_generations, 0, 6);
    tcase_add_test(tc, test_save_only_reads);
    tcase_add_test(tc, test_union);
    tcase_add_test(tc, test_empty);
    tcase_add_test(tc, test_save_needs_an_empty_file);
    tcase_add_test(tc, test_no_space_for_a_save);
    tcase_add_test(tc, test_layer_is_read_only);
    tcase_add_loop_test(tc, test_bad_layer, 0, 3);
    tcase_add_test(tc, test_limit_counts_private_clusters);
    tcase_add_loop_test(tc, test_reset, 0, 2);
    tcase_add_test(tc, test_reset_of_an_unused_one_costs_nothing);
    tcase_add_test(tc, test_reset_of_a_reopened_one);
    tcase_add_loop_test(tc, test_reset_fails, 1, 4);
    tcase_add_test(tc, test_durable_has_no_reset);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
