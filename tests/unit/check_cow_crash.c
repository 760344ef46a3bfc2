/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A durable overlay whose process is killed at every change of its file, the
 * order of data and map, and how many system calls a request takes.
 *
 * pwritev, fallocate and fdatasync below stand in front of libc's (the linker
 * takes the program's own definition first). They do the real thing, until a
 * test says that from the n-th call on the process is gone: that call writes
 * only half, and it and all later ones fail and change nothing.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/blk/cow_overlay.h"
#include "tests/blk_disk.h"

/* Five clusters and a bit: the last one is short. */
#define DISK_SIZE (5 * CLUSTER + 3 * SECTOR)
#define SECTORS (DISK_SIZE / SECTOR)

/* ---- the host ----------------------------------------------------------- */

static struct {
    long cut_at;   /* changes until the cut; 0: never */
    bool cut;      /* it has happened */
    long changes;  /* so far */
    bool no_punch; /* fallocate is not supported */
    unsigned writes, syncs;
} host;

/* True if this change still happens; *ret_torn if only half of it. */
static bool host_change(bool *ret_torn)
{
    host.changes++;
    *ret_torn = !host.cut && host.changes == host.cut_at;
    if (*ret_torn)
        host.cut = true;
    return !host.cut || *ret_torn;
}

/* The first half of a write, in whole sectors as a disk would tear it. */
static void write_half(int fd, const struct iovec *iov, int count, off_t offset)
{
    size_t total = 0, left;

    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    left = total / 2 / SECTOR * SECTOR;
    for (int i = 0; i < count && left > 0; i++) {
        struct iovec part = {iov[i].iov_base,
                             (size_t)num_min(iov[i].iov_len, left)};

        syscall(SYS_pwritev, fd, &part, 1, offset, 0);
        offset += (off_t)part.iov_len;
        left -= part.iov_len;
    }
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    bool torn;

    host.writes++;
    if (host_change(&torn) && !torn)
        return syscall(SYS_pwritev, fd, iov, count, offset, 0);
    if (torn)
        write_half(fd, iov, count, offset);
    errno = EIO;
    return -1;
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    bool torn;

    if (host.no_punch) {
        errno = EOPNOTSUPP;
        return -1;
    }
    if (host_change(&torn) && !torn)
        return (int)syscall(SYS_fallocate, fd, mode, offset, len);
    errno = EIO;
    return -1;
}

int fdatasync(int fd)
{
    bool torn;

    host.syncs++;
    if (host_change(&torn) && !torn)
        return (int)syscall(SYS_fdatasync, fd);
    errno = EIO;
    return -1;
}

/* ---- killed at every change --------------------------------------------- */

#define CUT_STEPS 30

/* A sector is one number all over: which write it is from. 0 is zeros. */
struct cut_log {
    uint64_t flushed[SECTORS];           /* what a FLUSH has promised */
    uint64_t latest[SECTORS];            /* what was last written, or tried */
    uint64_t stamps[CUT_STEPS][SECTORS]; /* tried since; 0: zeros */
    bool touched[CUT_STEPS][SECTORS];
    uint8_t buf[DISK_SIZE];
};

static uint64_t base_stamp(uint64_t sector)
{
    /* One cluster of the base is zeros. */
    return sector / (CLUSTER / SECTOR) == 3 ? 0 : (1u << 20) + sector;
}

static void fill_stamp(uint8_t *p, uint64_t stamp)
{
    for (unsigned i = 0; i < SECTOR; i += 8)
        num_put_le64(p + i, stamp);
}

static void cut_try(struct cut_log *log, struct block_backend *b, int step)
{
    uint64_t offset, len, stamp = (uint64_t)step + 1;

    blk_random_range(SECTORS, &offset, &len);
    if (blk_random(4) == 0) {
        stamp = 0;
        (void)!b->ops->write_zeroes(b, offset, len, blk_random(2));
    } else if (blk_random(4) == 0) {
        (void)!b->ops->discard(b, offset, len);
        stamp = 0;
    } else {
        len = num_min(len, 2 * CLUSTER);
        for (uint64_t i = 0; i < len; i += SECTOR)
            fill_stamp(log->buf + i, stamp);
        (void)!blk_write(b, log->buf, len, offset);
    }
    for (uint64_t s = offset / SECTOR; s < (offset + len) / SECTOR; s++) {
        log->stamps[step][s] = stamp;
        log->touched[step][s] = true;
    }
}

/* A FLUSH that succeeded: what is read now is what must be read for ever. */
static void cut_flush(struct cut_log *log, struct block_backend *b)
{
    if (b->ops->flush(b) < 0 || host.cut)
        return;
    ck_assert_int_eq(blk_read(b, log->buf, DISK_SIZE, 0), 0);
    for (unsigned s = 0; s < SECTORS; s++)
        log->flushed[s] = num_get_le64(log->buf + s * SECTOR);
    memset(log->touched, 0, sizeof(log->touched));
}

static bool cut_allowed(const struct cut_log *log, unsigned s, uint64_t got)
{
    if (got == log->flushed[s])
        return true;
    for (int i = 0; i < CUT_STEPS; i++)
        if (log->touched[i][s] && log->stamps[i][s] == got)
            return true;
    return false;
}

/*
 * Runs the same random script, killed at its n-th change. Returns false if the
 * script ended before.
 */
static bool cut_run(struct cut_log *log, int base_fd, uint64_t seed, long n)
{
    int fd = blk_memfd();
    struct block_backend *b = blk_overlay(base_fd, fd, 0, true);
    bool cut;

    blk_random_state = seed;
    memset(log->touched, 0, sizeof(log->touched));
    for (unsigned s = 0; s < SECTORS; s++)
        log->flushed[s] = base_stamp(s);
    host.changes = 0;
    host.cut_at = n;
    for (int step = 0; step < CUT_STEPS && !host.cut; step++) {
        cut_try(log, b, step);
        if (blk_random(4) == 0)
            cut_flush(log, b);
    }
    cut = host.cut;
    host.cut = true; /* no last flush: the process is gone */
    b->ops->free(b);
    host.cut = false;
    host.cut_at = 0;

    b = blk_overlay(base_fd, fd, 0, true);
    ck_assert_int_eq(blk_read(b, log->buf, DISK_SIZE, 0), 0);
    for (unsigned s = 0; s < SECTORS; s++) {
        uint64_t got = num_get_le64(log->buf + s * SECTOR);

        for (unsigned i = 8; i < SECTOR; i += 8)
            if (num_get_le64(log->buf + s * SECTOR + i) != got)
                ck_abort_msg("cut %ld: sector %u is torn", n, s);
        if (cut_allowed(log, s, got))
            continue;
        ck_abort_msg("cut %ld, sector %u: %llu, flushed %llu", n, s,
                     (unsigned long long)got,
                     (unsigned long long)log->flushed[s]);
    }
    b->ops->free(b);
    close(fd);
    return cut;
}

START_TEST(test_killed_at_every_change)
{
    struct cut_log *log = calloc(1, sizeof(*log));
    int base_fd;
    long n;

    ck_assert_ptr_nonnull(log);
    for (unsigned s = 0; s < SECTORS; s++)
        fill_stamp(log->buf + s * SECTOR, base_stamp(s));
    base_fd = blk_disk(log->buf, DISK_SIZE);
    host.no_punch = _i % 4 == 3;
    for (n = 1; cut_run(log, base_fd, (uint64_t)_i + 77, n); n++)
        ;
    ck_assert_int_gt(n, CUT_STEPS / 2);
    close(base_fd);
    free(log);
}
END_TEST

/* Cut between data and map: the old data, and all of it. */
START_TEST(test_data_first_map_second)
{
    static uint8_t data[CLUSTER], base[DISK_SIZE], got[CLUSTER];
    int base_fd, fd = blk_memfd();
    struct block_backend *b;
    long before;

    memset(base, 0xbb, sizeof(base));
    memset(data, 0xdd, sizeof(data));
    base_fd = blk_disk(base, sizeof(base));
    b = blk_overlay(base_fd, fd, 0, true);
    before = host.changes;
    ck_assert_int_eq(blk_write(b, data, CLUSTER, 0), 0);
    ck_assert_int_eq(host.changes, before + 1); /* one call for it */
    /* flush: data sync (2), map (3), map sync (4) */
    host.cut_at = before + 2 + _i;
    ck_assert_int_eq(b->ops->flush(b), _i < 3 ? -EIO : 0);
    host.cut = true;
    b->ops->free(b);
    memset(&host, 0, sizeof(host));

    b = blk_overlay(base_fd, fd, 0, true);
    ck_assert_int_eq(blk_read(b, got, CLUSTER, 0), 0);
    /* A map that was written but not synced survives a killed process. */
    ck_assert_mem_eq(got, _i < 2 ? base : data, CLUSTER);
    b->ops->free(b);
    close(base_fd);
    close(fd);
}
END_TEST

/* ---- order and number of system calls ----------------------------------- */

START_TEST(test_calls)
{
    static uint8_t data[4 * CLUSTER], base[DISK_SIZE];
    int base_fd = blk_disk(base, sizeof(base));
    int fd = blk_memfd();
    struct block_backend *b = blk_overlay(base_fd, fd, 0, _i);

    host.writes = host.syncs = 0;
    /* Parts of the first and last cluster are merged into the one call. */
    ck_assert_int_eq(blk_write(b, data, 3 * CLUSTER, SECTOR), 0);
    ck_assert_uint_eq(host.writes, 1);
    ck_assert_uint_eq(b->stats.clusters_present, 4);
    ck_assert_int_eq(blk_write(b, data, 4 * CLUSTER, 0), 0);
    ck_assert_uint_eq(host.writes, 2);
    ck_assert_int_eq(b->ops->flush(b), 0);
    ck_assert_uint_eq(host.syncs, _i ? 2 : 0);
    /* The map is as it was: one sync. Nothing written: none. */
    ck_assert_int_eq(blk_write(b, data, SECTOR, 0), 0);
    ck_assert_int_eq(b->ops->flush(b), 0);
    ck_assert_int_eq(b->ops->flush(b), 0);
    ck_assert_uint_eq(host.syncs, _i ? 3 : 0);
    b->ops->free(b);
    close(base_fd);
    close(fd);
}
END_TEST

START_TEST(test_failed_sync_stays_failed)
{
    static uint8_t base[DISK_SIZE];
    uint8_t data[SECTOR] = {1};
    int base_fd = blk_disk(base, sizeof(base));
    int fd = blk_memfd();
    struct block_backend *b = blk_overlay(base_fd, fd, 0, true);

    ck_assert_int_eq(blk_write(b, data, SECTOR, 0), 0);
    host.cut_at = host.changes + 1;
    ck_assert_int_eq(b->ops->flush(b), -EIO);
    host.cut_at = 0;
    host.cut = false;
    ck_assert_int_eq(b->ops->flush(b), -EIO);
    ck_assert_uint_eq(b->stats.io_errors, 2);
    b->ops->free(b);
    close(base_fd);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cow_crash");
    TCase *tc = tcase_create("cow_crash");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_killed_at_every_change, 0, 32);
    tcase_add_loop_test(tc, test_data_first_map_second, 0, 4);
    tcase_add_loop_test(tc, test_calls, 0, 2);
    tcase_add_test(tc, test_failed_sync_stays_failed);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
