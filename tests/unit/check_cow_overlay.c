/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copy-on-write overlay: compared with plain memory over thousands of
 * random requests, cut off at every change of its file, filled to its limit
 * and to the host's, and opened on damaged files.
 *
 * pwritev, fallocate and fdatasync below stand in front of libc's (the linker
 * takes the program's own definition first). They do the real thing, until a
 * test says that from the n-th call on the process is gone: that call writes
 * only half, and it and all later ones fail and change nothing.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/blk/cow_map.h"
#include "devices/blk/cow_overlay.h"

#define CLUSTER COW_CLUSTER_SIZE
#define SECTOR 512u
/* Five clusters and a bit: the last one is short. */
#define DISK_SIZE (5 * CLUSTER + 3 * SECTOR)
#define SECTORS (DISK_SIZE / SECTOR)

/* ---- the host ----------------------------------------------------------- */

static struct {
    long cut_at;      /* changes until the cut; 0: never */
    bool cut;         /* it has happened */
    long changes;     /* so far */
    bool no_punch;    /* fallocate is not supported */
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
static void write_half(int fd, const struct iovec *iov, int count,
                       off_t offset)
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

/* ---- helpers ------------------------------------------------------------ */

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t bound)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % bound;
}

static int make_memfd(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    return fd;
}

/* A file on a real file system, without a name. */
static int make_file(void)
{
    FILE *file = tmpfile();
    int fd;

    ck_assert_ptr_nonnull(file);
    fd = dup(fileno(file));
    fclose(file);
    return fd;
}

static int make_disk(const void *bytes, size_t size)
{
    int fd = make_memfd();

    ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
    return fd;
}

static struct block_backend *open_base(int fd)
{
    struct block_backend *base = NULL;

    ck_assert_int_eq(block_raw_new(dup(fd), true, &base), 0);
    return base;
}

static int try_overlay(int base_fd, int fd, uint64_t limit, bool durable,
                       struct block_backend **ret_backend)
{
    struct cow_overlay_options options = {.limit = limit, .durable = durable};

    return cow_overlay_open(open_base(base_fd), dup(fd), &options,
                            ret_backend);
}

static struct block_backend *open_overlay(int base_fd, int fd, uint64_t limit,
                                          bool durable)
{
    struct block_backend *b = NULL;

    ck_assert_int_eq(try_overlay(base_fd, fd, limit, durable, &b), 0);
    return b;
}

static int do_write(struct block_backend *b, void *bytes, size_t len,
                    uint64_t offset)
{
    struct iovec iov = {bytes, len};

    return b->ops->pwritev(b, &iov, 1, offset, len);
}

static int do_read(struct block_backend *b, void *bytes, size_t len,
                   uint64_t offset)
{
    struct iovec iov = {bytes, len};

    return b->ops->preadv(b, &iov, 1, offset, len);
}

static uint64_t file_bytes(int fd)
{
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* ---- compared with plain memory ----------------------------------------- */

#define MODEL_STEPS 2400

struct model {
    struct block_backend *b;
    int base_fd;
    int fd;
    uint64_t limit;
    bool durable;
    uint8_t base[DISK_SIZE];
    uint8_t want[DISK_SIZE];
    uint8_t buf[DISK_SIZE];
    uint8_t zeros[SECTOR];
};

/* A base with data, a cluster of zeros, and a half-filled one. */
static void model_init(struct model *m, uint64_t limit, bool durable, int fd)
{
    m->limit = limit;
    m->durable = durable;
    for (size_t i = 0; i < DISK_SIZE; i++)
        m->base[i] = (uint8_t)(1 + random_below(255));
    memset(m->base + CLUSTER, 0, CLUSTER);
    memset(m->base + 2 * CLUSTER, 0, CLUSTER / 2);
    memcpy(m->want, m->base, DISK_SIZE);
    m->base_fd = make_disk(m->base, DISK_SIZE);
    m->fd = fd;
    m->b = open_overlay(m->base_fd, fd, limit, durable);
}

/* A range of sectors that likes to touch the edges of clusters. */
static void random_range(uint64_t *ret_offset, uint64_t *ret_len)
{
    uint32_t first = random_below(SECTORS);
    uint32_t count = 1 + random_below(SECTORS - first);

    if (random_below(3) == 0)
        count = 1 + random_below((uint32_t)num_min(8, SECTORS - first));
    if (random_below(4) == 0)
        first -= first % (CLUSTER / SECTOR);
    if (random_below(4) == 0) {
        count = (count / (CLUSTER / SECTOR) + 1) * (CLUSTER / SECTOR);
        count = (uint32_t)num_min(count, SECTORS - first);
    }
    *ret_offset = (uint64_t)first * SECTOR;
    *ret_len = (uint64_t)count * SECTOR;
}

/* Cuts a buffer into up to 7 pieces. */
static unsigned random_iov(uint8_t *p, uint64_t len, struct iovec *iov)
{
    unsigned n = 0;

    while (n < 6 && len > 1) {
        size_t part = 1 + random_below((uint32_t)len);

        iov[n++] = (struct iovec){p, part};
        p += part;
        len -= part;
    }
    if (len > 0)
        iov[n++] = (struct iovec){p, (size_t)len};
    return n;
}

static void model_write(struct model *m, uint64_t offset, uint64_t len)
{
    struct iovec iov[7];
    unsigned n = random_iov(m->buf, len, iov);
    uint64_t no_space = m->b->stats.no_space;
    int ret;

    for (uint64_t i = 0; i < len; i++)
        m->buf[i] = (uint8_t)random_below(256);
    ret = m->b->ops->pwritev(m->b, iov, n, offset, len);
    if (ret == 0) {
        memcpy(m->want + offset, m->buf, len);
        return;
    }
    /* At the limit: nothing has changed, and it is counted. */
    ck_assert_int_eq(ret, -ENOSPC);
    ck_assert(m->limit > 0 && m->b->stats.limit_hit);
    ck_assert_uint_eq(m->b->stats.no_space, no_space + 1);
}

/*
 * After a request that may leave each sector as it was or zero: takes over
 * what it chose. Anything else is a failure.
 */
static void model_adopt_zeros(struct model *m, uint64_t offset, uint64_t len)
{
    ck_assert_int_eq(do_read(m->b, m->buf, len, offset), 0);
    for (uint64_t i = 0; i < len; i += SECTOR) {
        uint8_t *want = m->want + offset + i;

        if (memcmp(m->buf + i, m->zeros, SECTOR) == 0)
            memset(want, 0, SECTOR);
        ck_assert_mem_eq(m->buf + i, want, SECTOR);
    }
}

static void model_write_zeroes(struct model *m, uint64_t offset, uint64_t len)
{
    bool unmap = random_below(2);
    int ret = m->b->ops->write_zeroes(m->b, offset, len, unmap);

    if (ret == 0) {
        memset(m->want + offset, 0, len);
        return;
    }
    ck_assert_int_eq(ret, -ENOSPC);
    ck_assert_uint_gt(m->limit, 0);
    model_adopt_zeros(m, offset, len);
}

static void model_reopen(struct model *m)
{
    uint64_t present = m->b->stats.clusters_present;

    m->b->ops->free(m->b);
    m->b = open_overlay(m->base_fd, m->fd, m->limit, m->durable);
    ck_assert_uint_eq(m->b->stats.clusters_present, present);
}

static void model_step(struct model *m)
{
    uint64_t offset, len;

    random_range(&offset, &len);
    switch (random_below(10)) {
    case 0:
    case 1:
    case 2:
        ck_assert_int_eq(do_read(m->b, m->buf, len, offset), 0);
        ck_assert_mem_eq(m->buf, m->want + offset, len);
        break;
    case 3:
    case 4:
        model_write_zeroes(m, offset, len);
        break;
    case 5:
        ck_assert_int_eq(m->b->ops->discard(m->b, offset, len), 0);
        model_adopt_zeros(m, offset, len);
        break;
    case 6:
        ck_assert_int_eq(m->b->ops->flush(m->b), 0);
        if (m->durable && random_below(4) == 0)
            model_reopen(m);
        break;
    default:
        model_write(m, offset, num_min(len, CLUSTER + 9 * SECTOR));
        break;
    }
}

static void model_check_all(struct model *m)
{
    struct iovec iov[7];
    unsigned n = random_iov(m->buf, DISK_SIZE, iov);

    ck_assert_int_eq(m->b->ops->preadv(m->b, iov, n, 0, DISK_SIZE), 0);
    ck_assert_mem_eq(m->buf, m->want, DISK_SIZE);
    if (m->limit > 0) {
        ck_assert_uint_le(m->b->stats.clusters_present * CLUSTER, m->limit);
        /* What the host gave is no more than that, header and map. */
        ck_assert_uint_le(file_bytes(m->fd), m->limit + 3 * 4096);
    }
}

/* durable, limit in clusters, holes, file system or memory */
static const struct {
    bool durable;
    unsigned limit;
    bool no_punch;
    bool on_disk;
} model_rows[] = {
    {false, 0, false, false}, {true, 0, false, false}, {false, 3, false, false},
    {true, 2, false, false},  {true, 0, true, false},  {false, 3, true, false},
    {true, 3, false, true},   {false, 0, true, true},
};

START_TEST(test_model)
{
    struct model *m = calloc(1, sizeof(*m));
    uint64_t limit = (uint64_t)model_rows[_i].limit * CLUSTER;
    uint8_t *base;

    ck_assert_ptr_nonnull(m);
    random_state = (uint64_t)_i + 12345;
    host.no_punch = model_rows[_i].no_punch;
    model_init(m, limit, model_rows[_i].durable,
               model_rows[_i].on_disk ? make_file() : make_memfd());
    for (int i = 0; i < MODEL_STEPS; i++) {
        model_step(m);
        if (i % 16 == 0)
            model_check_all(m);
        /* Start afresh now and then: absent clusters are the interesting. */
        if (i % 100 == 99) {
            m->b->ops->free(m->b);
            ck_assert_int_eq(ftruncate(m->fd, 0), 0);
            memcpy(m->want, m->base, DISK_SIZE);
            m->b = open_overlay(m->base_fd, m->fd, limit, m->durable);
        }
    }
    model_check_all(m);
    ck_assert_uint_eq(m->b->stats.io_errors, 0);
    m->b->ops->free(m->b);
    /* The base is what it was. */
    base = m->buf;
    ck_assert_int_eq(pread(m->base_fd, base, DISK_SIZE, 0), (ssize_t)DISK_SIZE);
    ck_assert_mem_eq(base, m->base, DISK_SIZE);
    close(m->base_fd);
    close(m->fd);
    free(m);
}
END_TEST

/* ---- killed at every change --------------------------------------------- */

#define CUT_STEPS 30

/* A sector is one number all over: which write it is from. 0 is zeros. */
struct cut_log {
    uint64_t flushed[SECTORS]; /* what a FLUSH has promised */
    uint64_t latest[SECTORS];  /* what was last written, or tried */
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

    random_range(&offset, &len);
    if (random_below(4) == 0) {
        stamp = 0;
        (void)!b->ops->write_zeroes(b, offset, len, random_below(2));
    } else if (random_below(4) == 0) {
        (void)!b->ops->discard(b, offset, len);
        stamp = 0;
    } else {
        len = num_min(len, 2 * CLUSTER);
        for (uint64_t i = 0; i < len; i += SECTOR)
            fill_stamp(log->buf + i, stamp);
        (void)!do_write(b, log->buf, len, offset);
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
    ck_assert_int_eq(do_read(b, log->buf, DISK_SIZE, 0), 0);
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
    int fd = make_memfd();
    struct block_backend *b = open_overlay(base_fd, fd, 0, true);
    bool cut;

    random_state = seed;
    memset(log->touched, 0, sizeof(log->touched));
    for (unsigned s = 0; s < SECTORS; s++)
        log->flushed[s] = base_stamp(s);
    host.changes = 0;
    host.cut_at = n;
    for (int step = 0; step < CUT_STEPS && !host.cut; step++) {
        cut_try(log, b, step);
        if (random_below(4) == 0)
            cut_flush(log, b);
    }
    cut = host.cut;
    host.cut = true; /* no last flush: the process is gone */
    b->ops->free(b);
    host.cut = false;
    host.cut_at = 0;

    b = open_overlay(base_fd, fd, 0, true);
    ck_assert_int_eq(do_read(b, log->buf, DISK_SIZE, 0), 0);
    for (unsigned s = 0; s < SECTORS; s++) {
        uint64_t got = num_get_le64(log->buf + s * SECTOR);

        for (unsigned i = 8; i < SECTOR; i += 8)
            ck_assert_uint_eq(num_get_le64(log->buf + s * SECTOR + i), got);
        ck_assert_msg(cut_allowed(log, s, got),
                      "cut %ld, sector %u: %llu, flushed %llu", n, s,
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
    base_fd = make_disk(log->buf, DISK_SIZE);
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
    int base_fd, fd = make_memfd();
    struct block_backend *b;
    long before;

    memset(base, 0xbb, sizeof(base));
    memset(data, 0xdd, sizeof(data));
    base_fd = make_disk(base, sizeof(base));
    b = open_overlay(base_fd, fd, 0, true);
    before = host.changes;
    ck_assert_int_eq(do_write(b, data, CLUSTER, 0), 0);
    ck_assert_int_eq(host.changes, before + 1); /* one call for it */
    /* flush: data sync (2), map (3), map sync (4) */
    host.cut_at = before + 2 + _i;
    ck_assert_int_eq(b->ops->flush(b), _i < 3 ? -EIO : 0);
    host.cut = true;
    b->ops->free(b);
    memset(&host, 0, sizeof(host));

    b = open_overlay(base_fd, fd, 0, true);
    ck_assert_int_eq(do_read(b, got, CLUSTER, 0), 0);
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
    int base_fd = make_disk(base, sizeof(base));
    int fd = make_memfd();
    struct block_backend *b = open_overlay(base_fd, fd, 0, _i);

    host.writes = host.syncs = 0;
    /* Parts of the first and last cluster are merged into the one call. */
    ck_assert_int_eq(do_write(b, data, 3 * CLUSTER, SECTOR), 0);
    ck_assert_uint_eq(host.writes, 1);
    ck_assert_uint_eq(b->stats.clusters_present, 4);
    ck_assert_int_eq(do_write(b, data, 4 * CLUSTER, 0), 0);
    ck_assert_uint_eq(host.writes, 2);
    ck_assert_int_eq(b->ops->flush(b), 0);
    ck_assert_uint_eq(host.syncs, _i ? 2 : 0);
    /* The map is as it was: one sync. Nothing written: none. */
    ck_assert_int_eq(do_write(b, data, SECTOR, 0), 0);
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
    int base_fd = make_disk(base, sizeof(base));
    int fd = make_memfd();
    struct block_backend *b = open_overlay(base_fd, fd, 0, true);

    ck_assert_int_eq(do_write(b, data, SECTOR, 0), 0);
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

/* ---- room --------------------------------------------------------------- */

START_TEST(test_limit)
{
    static uint8_t data[DISK_SIZE], base[DISK_SIZE];
    int base_fd, fd = make_memfd();
    struct block_backend *b;

    memset(base, 0xbb, sizeof(base));
    base_fd = make_disk(base, sizeof(base));
    /* Two clusters and a bit that is no third one. */
    b = open_overlay(base_fd, fd, 2 * CLUSTER + 1000, false);
    ck_assert_int_eq(do_write(b, data, SECTOR, 0), 0);
    ck_assert(!b->stats.limit_hit);
    /* Three more are too many: nothing is written. */
    ck_assert_int_eq(do_write(b, data, 3 * CLUSTER, CLUSTER), -ENOSPC);
    ck_assert(b->stats.limit_hit);
    ck_assert_uint_eq(b->stats.no_space, 1);
    ck_assert_uint_eq(b->stats.clusters_present, 1);
    ck_assert_int_eq(do_write(b, data, SECTOR, CLUSTER), 0);
    ck_assert_int_eq(do_write(b, data, SECTOR, 2 * CLUSTER), -ENOSPC);
    ck_assert_int_eq(
        b->ops->write_zeroes(b, 2 * CLUSTER, CLUSTER, true), -ENOSPC);
    ck_assert_int_eq(b->ops->write_zeroes(b, 2 * CLUSTER, SECTOR, false),
                     -ENOSPC);
    ck_assert_uint_eq(b->stats.no_space, 4);
    /* Goes on working: what is present can be written, all can be read. */
    ck_assert_int_eq(do_write(b, data, 2 * CLUSTER, 0), 0);
    ck_assert_int_eq(do_read(b, data, DISK_SIZE, 0), 0);
    ck_assert_uint_eq(data[2 * CLUSTER], 0xbb);
    /* Zeroed clusters over such a base still count. */
    ck_assert_int_eq(b->ops->discard(b, 0, DISK_SIZE), 0);
    ck_assert_uint_eq(b->stats.clusters_present, 2);
    ck_assert_int_eq(do_write(b, data, SECTOR, 2 * CLUSTER), -ENOSPC);
    b->ops->free(b);
    close(base_fd);
    close(fd);
}
END_TEST

/* Over a base of zeros, discard and unmap give the room back. */
START_TEST(test_limit_given_back)
{
    static uint8_t data[CLUSTER], base[DISK_SIZE];
    int base_fd = make_disk(base, sizeof(base));
    int fd = make_memfd();
    struct block_backend *b = open_overlay(base_fd, fd, 2 * CLUSTER, false);

    memset(data, 1, sizeof(data));
    for (unsigned i = 0; i < 50; i++) {
        uint64_t at = (uint64_t)(i % 4) * CLUSTER;

        ck_assert_int_eq(do_write(b, data, CLUSTER, at), 0);
        ck_assert_int_eq(do_write(b, data, CLUSTER, at + CLUSTER), 0);
        ck_assert_uint_eq(b->stats.clusters_present, 2);
        if (i % 2)
            ck_assert_int_eq(b->ops->discard(b, 0, DISK_SIZE), 0);
        else
            ck_assert_int_eq(b->ops->write_zeroes(b, 0, DISK_SIZE, true), 0);
        ck_assert_uint_eq(b->stats.clusters_present, 0);
        ck_assert_uint_le(file_bytes(fd), 2 * 4096);
    }
    /* Without unmap the room is kept; zeros over zeros take none. */
    ck_assert_int_eq(do_write(b, data, CLUSTER, 0), 0);
    ck_assert_int_eq(b->ops->write_zeroes(b, 0, DISK_SIZE, false), 0);
    ck_assert_uint_eq(b->stats.clusters_present, 1);
    ck_assert(!b->stats.limit_hit);
    b->ops->free(b);
    close(base_fd);
    close(fd);
}
END_TEST

/*
 * Writes cluster after cluster until the host has no room; checks that the
 * answer is -ENOSPC, that nothing is half there, and that it goes on.
 */
static void fill_host(int base_fd, int fd)
{
    static uint8_t data[CLUSTER], got[DISK_SIZE], want[DISK_SIZE];
    struct block_backend *b;
    int ret = 0;
    uint64_t at;

    memset(data, 0xdd, sizeof(data));
    ck_assert_int_eq(pread(base_fd, want, DISK_SIZE, 0), (ssize_t)DISK_SIZE);
    b = open_overlay(base_fd, fd, 0, false);
    for (at = 0; at + CLUSTER <= DISK_SIZE; at += CLUSTER) {
        ret = do_write(b, data, CLUSTER, at);
        if (ret < 0)
            break;
        memcpy(want + at, data, CLUSTER);
    }
    ck_assert_int_eq(ret, -ENOSPC);
    ck_assert_uint_gt(at, 0);
    ck_assert_uint_eq(b->stats.no_space, 1);
    ck_assert_uint_eq(b->stats.clusters_present, at / CLUSTER);
    ck_assert(!b->stats.limit_hit);
    ck_assert_int_eq(do_read(b, got, DISK_SIZE, 0), 0);
    ck_assert_mem_eq(got, want, DISK_SIZE);
    ck_assert_int_eq(do_write(b, data, CLUSTER, 0), 0);
    b->ops->free(b);
}

START_TEST(test_host_file_size_limit)
{
    /* Below the overlay's own length, so set once it has that. */
    struct rlimit limit = {4 * CLUSTER + 1000, RLIM_INFINITY};
    struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    int fd = make_file();
    static uint8_t base[DISK_SIZE];
    int base_fd = make_disk(base, sizeof(base));
    struct block_backend *b = open_overlay(base_fd, fd, 0, false);

    b->ops->free(b);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    fill_host(base_fd, fd);
    ck_assert_int_eq(ftruncate(fd, 0), 0);
    /* No room for the overlay at all. */
    ck_assert_int_eq(try_overlay(base_fd, fd, 0, false, &b), -ENOSPC);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
    close(base_fd);
    close(fd);
}
END_TEST

/* A tmpfs of a few clusters, in a mount namespace that ends with the test. */
START_TEST(test_host_disk_full)
{
    char dir[] = "/tmp/check_cow_XXXXXX";
    static uint8_t base[DISK_SIZE];
    char path[64];
    int base_fd, fd;

    ck_assert_ptr_nonnull(mkdtemp(dir));
    if (unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", dir, "tmpfs", 0, "size=192k") < 0) {
        printf("SKIP test_host_disk_full: no tmpfs of its own (%s)\n",
               strerror(errno));
        rmdir(dir);
        return;
    }
    snprintf(path, sizeof(path), "%s/overlay", dir);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    base_fd = make_disk(base, sizeof(base));
    fill_host(base_fd, fd);
    close(base_fd);
    close(fd);
    ck_assert_int_eq(umount2(dir, MNT_DETACH), 0);
    rmdir(dir);
}
END_TEST

/* ---- sharing ------------------------------------------------------------ */

#define SHARERS 24

START_TEST(test_many_share_a_base)
{
    static uint8_t base[DISK_SIZE], got[DISK_SIZE];
    struct block_backend *b[SHARERS];
    int base_fd = make_file();
    uint8_t data[SECTOR];

    for (size_t i = 0; i < DISK_SIZE; i++)
        base[i] = (uint8_t)random_below(256);
    ck_assert_int_eq(write(base_fd, base, DISK_SIZE), (ssize_t)DISK_SIZE);
    for (unsigned i = 0; i < SHARERS; i++) {
        int fd = make_memfd();

        b[i] = open_overlay(base_fd, fd, 0, false);
        close(fd);
    }
    for (unsigned n = 0; n < 2000; n++) {
        unsigned who = random_below(SHARERS);

        memset(data, (int)who, sizeof(data));
        ck_assert_int_eq(do_write(b[who], data, SECTOR,
                                  (uint64_t)random_below(SECTORS) * SECTOR),
                         0);
    }
    /* Each sees the base and what it wrote itself, nobody else's. */
    for (unsigned i = 0; i < SHARERS; i++) {
        memset(data, (int)i, sizeof(data));
        ck_assert_int_eq(do_read(b[i], got, DISK_SIZE, 0), 0);
        for (unsigned s = 0; s < DISK_SIZE; s += SECTOR)
            if (memcmp(got + s, data, SECTOR) != 0)
                ck_assert_mem_eq(got + s, base + s, SECTOR);
        b[i]->ops->free(b[i]);
    }
    ck_assert_int_eq(pread(base_fd, got, DISK_SIZE, 0), (ssize_t)DISK_SIZE);
    ck_assert_mem_eq(got, base, DISK_SIZE);
    close(base_fd);
}
END_TEST

/* ---- hostile files ------------------------------------------------------ */

/* A good overlay with some clusters present. */
static int good_overlay(int base_fd)
{
    uint8_t data[SECTOR] = {1};
    int fd = make_memfd();
    struct block_backend *b = open_overlay(base_fd, fd, 0, true);

    ck_assert_int_eq(do_write(b, data, SECTOR, CLUSTER), 0);
    ck_assert_int_eq(b->ops->flush(b), 0);
    b->ops->free(b);
    return fd;
}

static void expect_refused(int base_fd, int fd, int want)
{
    struct block_backend *b = NULL;

    ck_assert_int_eq(try_overlay(base_fd, fd, 0, true, &b), want);
    ck_assert_ptr_null(b);
}

START_TEST(test_every_header_bit)
{
    static uint8_t base[DISK_SIZE];
    int base_fd = make_disk(base, sizeof(base));
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
    b = open_overlay(base_fd, fd, 0, true);
    ck_assert_uint_eq(b->stats.clusters_present, 1);
    b->ops->free(b);
    close(base_fd);
    close(fd);
}
END_TEST

START_TEST(test_bits_beyond_the_end)
{
    static uint8_t base[DISK_SIZE];
    int base_fd = make_disk(base, sizeof(base));
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
    static const long lengths[] = {1, 8, 511, 4095, 4096, 4097, 65535, 65536,
                                   65536 + DISK_SIZE - 1,
                                   65536 + DISK_SIZE + 1, 1l << 40};
    static uint8_t base[DISK_SIZE];
    int base_fd = make_disk(base, sizeof(base));
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
    int base_fd = make_disk(base, sizeof(base));
    int other_fd = make_disk(other, sizeof(other));
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
    int fd = make_memfd();

    ck_assert_int_eq(cow_map_open(&map, fd, COW_MAP_DISK_MAX + SECTOR, false),
                     -EFBIG);
    ck_assert_int_eq(cow_map_open(&map, fd, UINT64_MAX - 511, false), -EFBIG);
    ck_assert_int_eq(cow_map_open(&map, fd, 0, false), -EINVAL);
    ck_assert_int_eq(cow_map_open(&map, fd, 513, false), -EINVAL);
    ck_assert_int_eq(cow_map_open(&map, fd, (uint64_t)1 << 40, false), 0);
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
    ck_assert_int_eq(cow_map_open(&map, fd, (uint64_t)1 << 40, false), 0);
    ck_assert_uint_eq(map.present, 2);
    ck_assert(cow_map_get(&map, 7) && cow_map_get(&map, map.clusters - 1));
    cow_map_fini(&map);
    close(fd);
}
END_TEST

START_TEST(test_bounds)
{
    static const struct {
        uint64_t offset, len;
    } rows[] = {{DISK_SIZE, 1},      {DISK_SIZE - 1, 2}, {0, DISK_SIZE + 1},
                {UINT64_MAX, 1},     {1, UINT64_MAX},    {UINT64_MAX, 512},
                {UINT64_MAX - 1, 2}, {(uint64_t)1 << 63, 512}};
    static uint8_t base[DISK_SIZE];
    uint64_t offset = rows[_i].offset, len = rows[_i].len;
    struct iovec iov = {base, 1};
    int base_fd = make_disk(base, sizeof(base));
    int fd = make_memfd();
    struct block_backend *b = open_overlay(base_fd, fd, 0, false);

    ck_assert_int_eq(b->ops->preadv(b, &iov, 1, offset, len), -EINVAL);
    ck_assert_int_eq(b->ops->pwritev(b, &iov, 1, offset, len), -EINVAL);
    ck_assert_int_eq(b->ops->discard(b, offset, len), -EINVAL);
    ck_assert_int_eq(b->ops->write_zeroes(b, offset, len, true), -EINVAL);
    /* An empty range is nothing, anywhere on the disk. */
    ck_assert_int_eq(b->ops->pwritev(b, &iov, 0, DISK_SIZE, 0), 0);
    ck_assert_int_eq(b->ops->preadv(b, &iov, 0, DISK_SIZE, 0), 0);
    ck_assert_int_eq(b->ops->write_zeroes(b, DISK_SIZE, 0, false), 0);
    ck_assert_int_eq(b->ops->discard(b, DISK_SIZE, 0), 0);
    ck_assert_uint_eq(b->stats.clusters_present, 0);
    b->ops->free(b);
    close(base_fd);
    close(fd);
}
END_TEST

#ifndef HAVE_ASAN
START_TEST(test_failed_allocations)
{
    static uint8_t base[DISK_SIZE];
    int base_fd = make_disk(base, sizeof(base));
    int fd = good_overlay(base_fd);
    struct cow_overlay_options options = {0};
    int ret = -ENOMEM;
    long n;

    for (n = 1; ret < 0; n++) {
        struct block_backend *raw = NULL, *b = NULL;

        fail_allocation = n;
        ret = block_raw_new(dup(base_fd), true, &raw);
        if (ret == 0)
            ret = cow_overlay_open(raw, dup(fd), &options, &b);
        fail_allocation = 0;
        if (ret == 0)
            b->ops->free(b);
        else
            ck_assert_int_eq(ret, -ENOMEM);
        ck_assert_int_lt(n, 100);
    }
    /* The raw disk, the overlay, its buffers, its map; then it went well. */
    ck_assert_int_eq(n, 6);
    /* No descriptor was left behind. */
    ck_assert_int_le(dup(fd), fd + 2);
    close(base_fd);
    close(fd);
}
END_TEST
#endif

int main(void)
{
    Suite *s = suite_create("cow_overlay");
    TCase *tc = tcase_create("cow_overlay");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_model, 0, ARRAY_SIZE(model_rows));
    tcase_add_loop_test(tc, test_killed_at_every_change, 0, 8);
    tcase_add_loop_test(tc, test_data_first_map_second, 0, 4);
    tcase_add_loop_test(tc, test_calls, 0, 2);
    tcase_add_test(tc, test_failed_sync_stays_failed);
    tcase_add_test(tc, test_limit);
    tcase_add_test(tc, test_limit_given_back);
    tcase_add_test(tc, test_host_file_size_limit);
    tcase_add_test(tc, test_host_disk_full);
    tcase_add_test(tc, test_many_share_a_base);
    tcase_add_test(tc, test_every_header_bit);
    tcase_add_test(tc, test_bits_beyond_the_end);
    tcase_add_loop_test(tc, test_wrong_length, 0, 11);
    tcase_add_test(tc, test_not_an_overlay);
    tcase_add_test(tc, test_disk_too_large);
    tcase_add_loop_test(tc, test_bounds, 0, 8);
#ifndef HAVE_ASAN
    tcase_add_test(tc, test_failed_allocations);
#endif
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
