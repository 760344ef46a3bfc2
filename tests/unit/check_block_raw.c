/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The raw disk and the file helpers under it: whole transfers by lists of
 * buffers, bounds, short counts, holes, and hosts that say no.
 *
 * preadv, pwritev, fallocate and fdatasync below stand in front of libc's (the
 * linker takes the program's own definition first), so that the n-th call of
 * the code under test can be cut short or fail; else they do the real thing.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/blk/block_backend.h"
#include "devices/blk/block_file.h"

#define DISK_SIZE 65536u

static struct {
    int chunk;         /* at most so many bytes a transfer; 0: no limit */
    int interrupts;    /* so many calls answer EINTR first */
    int fallocate_err; /* answer of fallocate; 0: the real one */
    int sync_err;      /* answer of the next fdatasync */
    unsigned transfers, syncs;
} host;

/* Cuts a list to the first chunk bytes (within its first buffer). */
static ssize_t host_transfer(long number, int fd, const struct iovec *iov,
                             int count, off_t offset)
{
    struct iovec first = iov[0];

    host.transfers++;
    if (host.interrupts > 0) {
        host.interrupts--;
        errno = EINTR;
        return -1;
    }
    if (host.chunk == 0)
        return syscall(number, fd, iov, count, offset, 0);
    first.iov_len = (size_t)num_min(first.iov_len, (uint64_t)host.chunk);
    return syscall(number, fd, &first, 1, offset, 0);
}

ssize_t preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
    return host_transfer(SYS_preadv, fd, iov, count, offset);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    return host_transfer(SYS_pwritev, fd, iov, count, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    if (host.fallocate_err) {
        errno = host.fallocate_err;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

int fdatasync(int fd)
{
    host.syncs++;
    if (host.sync_err) {
        errno = host.sync_err;
        host.sync_err = 0;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

/* A file of size bytes that has no name. */
static int make_file(uint64_t size)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static struct block_backend *make_raw(int fd, bool readonly)
{
    struct block_backend *b = NULL;

    ck_assert_int_eq(block_raw_new(fd, readonly, &b), 0);
    return b;
}

static int write_bytes(struct block_backend *b, void *bytes, size_t len,
                       uint64_t offset)
{
    struct iovec iov = {bytes, len};

    return b->ops->pwritev(b, &iov, 1, offset, len);
}

static int read_bytes(struct block_backend *b, void *bytes, size_t len,
                      uint64_t offset)
{
    struct iovec iov = {bytes, len};

    return b->ops->preadv(b, &iov, 1, offset, len);
}

START_TEST(test_sizes)
{
    static const struct {
        uint64_t size;
        int want;
    } rows[] = {{0, -EINVAL}, {1, -EINVAL},   {511, -EINVAL},
                {512, 0},     {513, -EINVAL}, {1024, 0}};
    struct block_backend *b = NULL;
    int fd = make_file(rows[_i].size);
    int ret = block_raw_new(fd, false, &b);

    ck_assert_int_eq(ret, rows[_i].want);
    if (ret == 0) {
        ck_assert_uint_eq(b->size, rows[_i].size);
        b->ops->free(b);
    } else {
        ck_assert_ptr_null(b);
    }
    /* Owned, also on failure. */
    ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
}
END_TEST

START_TEST(test_not_a_disk)
{
    struct block_backend *b = NULL;
    int fds[2];

    ck_assert_int_eq(block_raw_new(open("/", O_RDONLY | O_CLOEXEC), true, &b),
                     -EINVAL);
    ck_assert_int_eq(
        block_raw_new(open("/dev/null", O_RDWR | O_CLOEXEC), false, &b),
        -EINVAL);
    ck_assert_int_eq(pipe(fds), 0);
    ck_assert_int_eq(block_raw_new(fds[0], false, &b), -EINVAL);
    close(fds[1]);
    ck_assert_int_eq(block_raw_new(-1, false, &b), -EBADF);
    ck_assert_ptr_null(b);
}
END_TEST

/* A list of odd pieces, moved one byte to all at once. */
START_TEST(test_lists_and_short_counts)
{
    static const int chunks[] = {0, 1, 7, 512, 4096};
    uint8_t out[3000], in[3000];
    struct iovec w[] = {
        {out, 1}, {out + 1, 0}, {out + 1, 2000}, {out + 2001, 999}};
    struct iovec r[] = {{in, 1500}, {in + 1500, 1}, {in + 1501, 1499}};
    struct block_backend *b = make_raw(make_file(DISK_SIZE), false);

    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 7 + i / 256);
    memset(in, 0, sizeof(in));
    host.chunk = chunks[_i];
    host.interrupts = 2;
    /* An empty buffer moves nothing in a cut call: leave it out there. */
    if (host.chunk) {
        w[1] = w[2];
        w[2] = w[3];
    }
    ck_assert_int_eq(
        b->ops->pwritev(b, w, host.chunk ? 3 : 4, 512, sizeof(out)), 0);
    host.interrupts = 1;
    ck_assert_int_eq(b->ops->preadv(b, r, 3, 512, sizeof(in)), 0);
    ck_assert_mem_eq(in, out, sizeof(in));
    b->ops->free(b);
}
END_TEST

START_TEST(test_one_call_for_a_list)
{
    static uint8_t pages[256][256];
    struct iovec iov[256];
    struct block_backend *b = make_raw(make_file(DISK_SIZE), false);

    for (int i = 0; i < 256; i++)
        iov[i] = (struct iovec){pages[i], sizeof(pages[i])};
    ck_assert_int_eq(b->ops->pwritev(b, iov, 256, 0, sizeof(pages)), 0);
    ck_assert_uint_eq(host.transfers, 1);
    b->ops->free(b);
}
END_TEST

START_TEST(test_bounds)
{
    static const struct {
        uint64_t offset, len;
    } rows[] = {{DISK_SIZE, 1},      {DISK_SIZE - 1, 2},
                {0, DISK_SIZE + 1},  {UINT64_MAX, 1},
                {1, UINT64_MAX},     {UINT64_MAX, 512},
                {UINT64_MAX - 1, 2}, {(uint64_t)1 << 63, 512}};
    uint64_t offset = rows[_i].offset, len = rows[_i].len;
    uint8_t byte = 0;
    struct iovec iov = {&byte, 1};
    struct block_backend *b = make_raw(make_file(DISK_SIZE), false);

    ck_assert_int_eq(b->ops->preadv(b, &iov, 1, offset, len), -EINVAL);
    ck_assert_int_eq(b->ops->pwritev(b, &iov, 1, offset, len), -EINVAL);
    ck_assert_int_eq(b->ops->discard(b, offset, len), -EINVAL);
    ck_assert_int_eq(b->ops->write_zeroes(b, offset, len, true), -EINVAL);
    /* A list that holds less than it says is refused, not read past. */
    ck_assert_int_eq(read_bytes(b, &byte, 1, DISK_SIZE - 1), 0);
    ck_assert_uint_eq(host.transfers, 1);
    b->ops->free(b);
}
END_TEST

START_TEST(test_readonly)
{
    uint8_t bytes[512] = {1};
    struct block_backend *b = make_raw(make_file(DISK_SIZE), true);

    ck_assert(b->readonly);
    ck_assert_int_eq(write_bytes(b, bytes, 512, 0), -EROFS);
    ck_assert_int_eq(b->ops->discard(b, 0, 512), -EROFS);
    ck_assert_int_eq(b->ops->write_zeroes(b, 0, 512, false), -EROFS);
    ck_assert_int_eq(b->ops->flush(b), 0);
    ck_assert_int_eq(read_bytes(b, bytes, 512, 0), 0);
    ck_assert_uint_eq(bytes[0], 0);
    b->ops->free(b);
}
END_TEST

/* Zeros by a hole, by a call that keeps the space, and by writing. */
START_TEST(test_zeroes)
{
    static const int errors[] = {0, EOPNOTSUPP, ENOSYS, EINVAL, EPERM};
    static uint8_t bytes[DISK_SIZE], want[DISK_SIZE];
    struct block_backend *b = make_raw(make_file(DISK_SIZE), false);

    host.fallocate_err = errors[_i / 2];
    memset(bytes, 0xa5, sizeof(bytes));
    memset(want, 0xa5, sizeof(want));
    ck_assert_int_eq(write_bytes(b, bytes, sizeof(bytes), 0), 0);
    ck_assert_int_eq(b->ops->write_zeroes(b, 512, 40000, _i % 2), 0);
    ck_assert_int_eq(b->ops->write_zeroes(b, 50000, 1, _i % 2), 0);
    ck_assert_int_eq(b->ops->write_zeroes(b, 60000, 0, _i % 2), 0);
    memset(want + 512, 0, 40000);
    want[50000] = 0;
    ck_assert_int_eq(read_bytes(b, bytes, sizeof(bytes), 0), 0);
    ck_assert_mem_eq(bytes, want, sizeof(want));
    ck_assert_uint_eq(b->stats.io_errors, 0);
    b->ops->free(b);
}
END_TEST

START_TEST(test_discard)
{
    static uint8_t bytes[DISK_SIZE];
    struct stat st;
    int fd = make_file(DISK_SIZE);
    int same = dup(fd);
    struct block_backend *b = make_raw(fd, false);

    memset(bytes, 0xa5, sizeof(bytes));
    ck_assert_int_eq(write_bytes(b, bytes, sizeof(bytes), 0), 0);
    host.fallocate_err = EOPNOTSUPP;
    ck_assert_int_eq(b->ops->discard(b, 0, DISK_SIZE), 0);
    ck_assert_int_eq(read_bytes(b, bytes, sizeof(bytes), 0), 0);
    ck_assert_uint_eq(bytes[9], 0xa5);
    b->ops->free(b);

    host.fallocate_err = 0;
    b = make_raw(dup(same), false);
    ck_assert_int_eq(b->ops->discard(b, 0, DISK_SIZE), 0);
    ck_assert_int_eq(fstat(same, &st), 0);
    ck_assert_int_eq(st.st_blocks, 0);
    ck_assert_int_eq(st.st_size, DISK_SIZE);
    b->ops->free(b);
    close(same);
}
END_TEST

START_TEST(test_flush)
{
    uint8_t bytes[512] = {1};
    struct block_backend *b = make_raw(make_file(DISK_SIZE), false);

    ck_assert_int_eq(b->ops->flush(b), 0);
    ck_assert_uint_eq(host.syncs, 0); /* nothing was written */
    ck_assert_int_eq(write_bytes(b, bytes, 512, 0), 0);
    ck_assert_int_eq(b->ops->flush(b), 0);
    ck_assert_uint_eq(host.syncs, 1);
    ck_assert_int_eq(b->ops->flush(b), 0);
    ck_assert_uint_eq(host.syncs, 1);

    ck_assert_int_eq(write_bytes(b, bytes, 512, 0), 0);
    host.sync_err = EIO;
    ck_assert_int_eq(b->ops->flush(b), -EIO);
    /* The data may be gone: no later flush may call it safe. */
    ck_assert_int_eq(b->ops->flush(b), -EIO);
    ck_assert_uint_eq(b->stats.io_errors, 2);
    b->ops->free(b);
}
END_TEST

/* Somebody made the file shorter under us: an error, not zeros. */
START_TEST(test_file_shrank)
{
    uint8_t bytes[1024];
    int fd = make_file(DISK_SIZE);
    struct block_backend *b = make_raw(fd, false);

    ck_assert_int_eq(ftruncate(fd, 512), 0);
    ck_assert_int_eq(read_bytes(b, bytes, 1024, 0), -EIO);
    ck_assert_int_eq(read_bytes(b, bytes, 512, 0), 0);
    ck_assert_uint_eq(b->stats.io_errors, 1);
    b->ops->free(b);
}
END_TEST

/* The host has no room (here: a file size limit): counted, and it goes on. */
START_TEST(test_no_space)
{
    struct rlimit limit = {4096, 4096};
    uint8_t bytes[512] = {7};
    struct block_backend *b;
    FILE *file = tmpfile();

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(ftruncate(fileno(file), DISK_SIZE), 0);
    b = make_raw(dup(fileno(file)), false);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(write_bytes(b, bytes, 512, 8192), -ENOSPC);
    ck_assert_uint_eq(b->stats.no_space, 1);
    ck_assert(!b->stats.limit_hit);
    ck_assert_int_eq(write_bytes(b, bytes, 512, 1024), 0);
    bytes[0] = 0;
    ck_assert_int_eq(read_bytes(b, bytes, 512, 1024), 0);
    ck_assert_uint_eq(bytes[0], 7);
    b->ops->free(b);
    fclose(file);
}
END_TEST

START_TEST(test_slice)
{
    uint8_t a[10], b[5];
    struct iovec iov[] = {{a, 10}, {NULL, 0}, {b, 5}};
    struct iovec many[BLOCK_IOV_MAX + 1], out[BLOCK_IOV_MAX];

    ck_assert_int_eq(block_iov_slice(iov, 3, 0, 15, out), 2);
    ck_assert_int_eq(block_iov_slice(iov, 3, 9, 2, out), 2);
    ck_assert_ptr_eq(out[0].iov_base, a + 9);
    ck_assert_uint_eq(out[0].iov_len, 1);
    ck_assert_ptr_eq(out[1].iov_base, b);
    ck_assert_uint_eq(out[1].iov_len, 1);
    ck_assert_int_eq(block_iov_slice(iov, 3, 10, 5, out), 1);
    ck_assert_int_eq(block_iov_slice(iov, 3, 15, 0, out), 0);
    ck_assert_int_eq(block_iov_slice(iov, 3, 15, 1, out), -EINVAL);
    ck_assert_int_eq(block_iov_slice(iov, 3, 0, 16, out), -EINVAL);
    ck_assert_int_eq(block_iov_slice(iov, 3, UINT64_MAX, 1, out), -EINVAL);
    ck_assert_int_eq(block_iov_slice(iov, 3, 1, UINT64_MAX, out), -EINVAL);
    for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = (struct iovec){a, 1};
    ck_assert_int_eq(
        block_iov_slice(many, ARRAY_SIZE(many), 1, BLOCK_IOV_MAX, out),
        (int)BLOCK_IOV_MAX);
    ck_assert_int_eq(
        block_iov_slice(many, ARRAY_SIZE(many), 0, BLOCK_IOV_MAX + 1, out),
        -EINVAL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("block_raw");
    TCase *tc = tcase_create("block_raw");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_loop_test(tc, test_sizes, 0, 6);
    tcase_add_test(tc, test_not_a_disk);
    tcase_add_loop_test(tc, test_lists_and_short_counts, 0, 5);
    tcase_add_test(tc, test_one_call_for_a_list);
    tcase_add_loop_test(tc, test_bounds, 0, 8);
    tcase_add_test(tc, test_readonly);
    tcase_add_loop_test(tc, test_zeroes, 0, 10);
    tcase_add_test(tc, test_discard);
    tcase_add_test(tc, test_flush);
    tcase_add_test(tc, test_file_shrank);
    tcase_add_test(tc, test_no_space);
    tcase_add_test(tc, test_slice);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
