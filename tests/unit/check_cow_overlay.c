/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copy-on-write overlay: compared with plain memory over thousands of
 * random requests, filled to its limit and to the host's, and many over one
 * base. What a crash leaves is in check_cow_crash.c, damaged files in
 * check_cow_map.c.
 *
 * fallocate below stands in front of libc's (the linker takes the program's own
 * definition first), to be a file system that has none.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/blk/cow_overlay.h"
#include "tests/blk_disk.h"

/* Five clusters and a bit: the last one is short. */
#define DISK_SIZE (5 * CLUSTER + 3 * SECTOR)
#define SECTORS (DISK_SIZE / SECTOR)

static struct {
    bool no_punch; /* fallocate is not supported */
} host;

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    if (!host.no_punch)
        return (int)syscall(SYS_fallocate, fd, mode, offset, len);
    errno = EOPNOTSUPP;
    return -1;
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
        m->base[i] = (uint8_t)(1 + blk_random(255));
    memset(m->base + CLUSTER, 0, CLUSTER);
    memset(m->base + 2 * CLUSTER, 0, CLUSTER / 2);
    memcpy(m->want, m->base, DISK_SIZE);
    m->base_fd = blk_disk(m->base, DISK_SIZE);
    m->fd = fd;
    m->b = blk_overlay(m->base_fd, fd, limit, durable);
}

/* Cuts a buffer into up to 7 pieces. */
static unsigned random_iov(uint8_t *p, uint64_t len, struct iovec *iov)
{
    unsigned n = 0;

    while (n < 6 && len > 1) {
        size_t part = 1 + blk_random((uint32_t)len);

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
        m->buf[i] = (uint8_t)blk_random(256);
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
    ck_assert_int_eq(blk_read(m->b, m->buf, len, offset), 0);
    for (uint64_t i = 0; i < len; i += SECTOR) {
        uint8_t *want = m->want + offset + i;

        if (memcmp(m->buf + i, m->zeros, SECTOR) == 0)
            memset(want, 0, SECTOR);
        ck_assert_mem_eq(m->buf + i, want, SECTOR);
    }
}

static void model_write_zeroes(struct model *m, uint64_t offset, uint64_t len)
{
    bool unmap = blk_random(2);
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
    m->b = blk_overlay(m->base_fd, m->fd, m->limit, m->durable);
    ck_assert_uint_eq(m->b->stats.clusters_present, present);
}

static void model_step(struct model *m)
{
    uint64_t offset, len;

    blk_random_range(SECTORS, &offset, &len);
    switch (blk_random(10)) {
    case 0:
    case 1:
    case 2:
        ck_assert_int_eq(blk_read(m->b, m->buf, len, offset), 0);
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
        if (m->durable && blk_random(4) == 0)
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
    blk_random_state = (uint64_t)_i + 12345;
    host.no_punch = model_rows[_i].no_punch;
    model_init(m, limit, model_rows[_i].durable,
               model_rows[_i].on_disk ? blk_tmpfile() : blk_memfd());
    for (int i = 0; i < MODEL_STEPS; i++) {
        model_step(m);
        if (i % 16 == 0)
            model_check_all(m);
        /* Start afresh now and then: absent clusters are the interesting. */
        if (i % 100 == 99) {
            m->b->ops->free(m->b);
            ck_assert_int_eq(ftruncate(m->fd, 0), 0);
            memcpy(m->want, m->base, DISK_SIZE);
            m->b = blk_overlay(m->base_fd, m->fd, limit, m->durable);
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

/* ---- room --------------------------------------------------------------- */

START_TEST(test_limit)
{
    static uint8_t data[DISK_SIZE], base[DISK_SIZE];
    int base_fd, fd = blk_memfd();
    struct block_backend *b;

    memset(base, 0xbb, sizeof(base));
    base_fd = blk_disk(base, sizeof(base));
    /* Two clusters and a bit that is no third one. */
    b = blk_overlay(base_fd, fd, 2 * CLUSTER + 1000, false);
    ck_assert_int_eq(blk_write(b, data, SECTOR, 0), 0);
    ck_assert(!b->stats.limit_hit);
    /* Three more are too many: nothing is written. */
    ck_assert_int_eq(blk_write(b, data, 3 * CLUSTER, CLUSTER), -ENOSPC);
    ck_assert(b->stats.limit_hit);
    ck_assert_uint_eq(b->stats.no_space, 1);
    ck_assert_uint_eq(b->stats.clusters_present, 1);
    ck_assert_int_eq(blk_write(b, data, SECTOR, CLUSTER), 0);
    ck_assert_int_eq(blk_write(b, data, SECTOR, 2 * CLUSTER), -ENOSPC);
    ck_assert_int_eq(b->ops->write_zeroes(b, 2 * CLUSTER, CLUSTER, true),
                     -ENOSPC);
    ck_assert_int_eq(b->ops->write_zeroes(b, 2 * CLUSTER, SECTOR, false),
                     -ENOSPC);
    ck_assert_uint_eq(b->stats.no_space, 4);
    /* Goes on working: what is present can be written, all can be read. */
    ck_assert_int_eq(blk_write(b, data, 2 * CLUSTER, 0), 0);
    ck_assert_int_eq(blk_read(b, data, DISK_SIZE, 0), 0);
    ck_assert_uint_eq(data[2 * CLUSTER], 0xbb);
    /* Zeroed clusters over such a base still count. */
    ck_assert_int_eq(b->ops->discard(b, 0, DISK_SIZE), 0);
    ck_assert_uint_eq(b->stats.clusters_present, 2);
    ck_assert_int_eq(blk_write(b, data, SECTOR, 2 * CLUSTER), -ENOSPC);
    b->ops->free(b);
    close(base_fd);
    close(fd);
}
END_TEST

/* Over a base of zeros, discard and unmap give the room back. */
START_TEST(test_limit_given_back)
{
    static uint8_t data[CLUSTER], base[DISK_SIZE];
    int base_fd = blk_disk(base, sizeof(base));
    int fd = blk_memfd();
    struct block_backend *b = blk_overlay(base_fd, fd, 2 * CLUSTER, false);

    memset(data, 1, sizeof(data));
    for (unsigned i = 0; i < 50; i++) {
        uint64_t at = (uint64_t)(i % 4) * CLUSTER;

        ck_assert_int_eq(blk_write(b, data, CLUSTER, at), 0);
        ck_assert_int_eq(blk_write(b, data, CLUSTER, at + CLUSTER), 0);
        ck_assert_uint_eq(b->stats.clusters_present, 2);
        if (i % 2)
            ck_assert_int_eq(b->ops->discard(b, 0, DISK_SIZE), 0);
        else
            ck_assert_int_eq(b->ops->write_zeroes(b, 0, DISK_SIZE, true), 0);
        ck_assert_uint_eq(b->stats.clusters_present, 0);
        ck_assert_uint_le(file_bytes(fd), 2 * 4096);
    }
    /* Without unmap the room is kept; zeros over zeros take none. */
    ck_assert_int_eq(blk_write(b, data, CLUSTER, 0), 0);
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
    b = blk_overlay(base_fd, fd, 0, false);
    for (at = 0; at + CLUSTER <= DISK_SIZE; at += CLUSTER) {
        ret = blk_write(b, data, CLUSTER, at);
        if (ret < 0)
            break;
        memcpy(want + at, data, CLUSTER);
    }
    ck_assert_int_eq(ret, -ENOSPC);
    ck_assert_uint_gt(at, 0);
    ck_assert_uint_eq(b->stats.no_space, 1);
    ck_assert_uint_eq(b->stats.clusters_present, at / CLUSTER);
    ck_assert(!b->stats.limit_hit);
    /* What was written of the last one is given back (4096: the header). */
    ck_assert_uint_le(file_bytes(fd), at + 4096);
    ck_assert_int_eq(blk_read(b, got, DISK_SIZE, 0), 0);
    ck_assert_mem_eq(got, want, DISK_SIZE);
    ck_assert_int_eq(blk_write(b, data, CLUSTER, 0), 0);
    b->ops->free(b);
}

START_TEST(test_host_file_size_limit)
{
    /* Below the overlay's own length, so set once it has that. */
    struct rlimit limit = {4 * CLUSTER + 1000, RLIM_INFINITY};
    struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    int fd = blk_tmpfile();
    static uint8_t base[DISK_SIZE];
    int base_fd = blk_disk(base, sizeof(base));
    struct block_backend *b = blk_overlay(base_fd, fd, 0, false);

    b->ops->free(b);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    fill_host(base_fd, fd);
    ck_assert_int_eq(ftruncate(fd, 0), 0);
    /* No room for the overlay at all. */
    ck_assert_int_eq(blk_try_overlay(base_fd, fd, 0, false, &b), -ENOSPC);
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
    base_fd = blk_disk(base, sizeof(base));
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
    int base_fd = blk_tmpfile();
    uint8_t data[SECTOR];

    for (size_t i = 0; i < DISK_SIZE; i++)
        base[i] = (uint8_t)blk_random(256);
    ck_assert_int_eq(write(base_fd, base, DISK_SIZE), (ssize_t)DISK_SIZE);
    for (unsigned i = 0; i < SHARERS; i++) {
        int fd = blk_memfd();

        b[i] = blk_overlay(base_fd, fd, 0, false);
        close(fd);
    }
    for (unsigned n = 0; n < 2000; n++) {
        unsigned who = blk_random(SHARERS);

        memset(data, (int)who, sizeof(data));
        ck_assert_int_eq(blk_write(b[who], data, SECTOR,
                                   (uint64_t)blk_random(SECTORS) * SECTOR),
                         0);
    }
    /* Each sees the base and what it wrote itself, nobody else's. */
    for (unsigned i = 0; i < SHARERS; i++) {
        memset(data, (int)i, sizeof(data));
        ck_assert_int_eq(blk_read(b[i], got, DISK_SIZE, 0), 0);
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

/* ---- bounds ------------------------------------------------------------- */

START_TEST(test_bounds)
{
    static const struct {
        uint64_t offset, len;
    } rows[] = {{DISK_SIZE, 1},      {DISK_SIZE - 1, 2},
                {0, DISK_SIZE + 1},  {UINT64_MAX, 1},
                {1, UINT64_MAX},     {UINT64_MAX, 512},
                {UINT64_MAX - 1, 2}, {(uint64_t)1 << 63, 512}};
    static uint8_t base[DISK_SIZE];
    uint64_t offset = rows[_i].offset, len = rows[_i].len;
    struct iovec iov = {base, 1};
    int base_fd = blk_disk(base, sizeof(base));
    int fd = blk_memfd();
    struct block_backend *b = blk_overlay(base_fd, fd, 0, false);

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

int main(void)
{
    Suite *s = suite_create("cow_overlay");
    TCase *tc = tcase_create("cow_overlay");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_model, 0, ARRAY_SIZE(model_rows));
    tcase_add_test(tc, test_limit);
    tcase_add_test(tc, test_limit_given_back);
    tcase_add_test(tc, test_host_file_size_limit);
    tcase_add_test(tc, test_host_disk_full);
    tcase_add_test(tc, test_many_share_a_base);
    tcase_add_loop_test(tc, test_bounds, 0, 8);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
