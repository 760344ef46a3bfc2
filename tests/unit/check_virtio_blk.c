/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-blk device, driven by the fake guest through virtio-mmio
 * registers: its configuration, every request type, and every way to get one
 * wrong. Host errors, batches and floods are in check_virtio_blk_queue.c.
 */
#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "devices/blk/virtio_blk_request.h"
#include "tests/blk_rig.h"

#define STATUS_UNTOUCHED 0xee

/* In front of libc's: how often the device synced. */
static unsigned syncs;

int fdatasync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

/* ---- configuration ------------------------------------------------------ */

START_TEST(test_config)
{
    static const struct {
        uint32_t offset;
        unsigned size;
        uint64_t want;
        bool rw_only;
    } rows[] = {
        {0, 8, DISK_SECTORS, false},
        {8, 4, 256u << 10, false},
        {12, 4, 254, false},
        {16, 4, 0, false},
        {20, 4, 512, false},
        {24, 8, 0, false},
        {32, 4, 0, false},
        {36, 4, 1u << 17, true},
        {40, 4, 16, true},
        {44, 4, 128, true},
        {48, 4, 1u << 17, true},
        {52, 4, 1, true},
        {56, 1, 1, true},
        {57, 1, 0, false},
        {60, 4, 0, false},
        {0xef8, 8, 0, false},
    };
    bool readonly = _i;
    struct rig r;

    rig_init(&r, readonly, ALL_FEATURES);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        ck_assert_uint_eq(
            fake_driver_config(&r.d, rows[i].offset, rows[i].size),
            readonly && rows[i].rw_only ? 0 : rows[i].want);
    ck_assert_int_eq(!!(r.d.features & VIRTIO_BLK_F_RO), readonly);
    ck_assert_int_eq(!!(r.d.features & VIRTIO_BLK_F_DISCARD), !readonly);
    ck_assert_int_eq(!!(r.d.features & VIRTIO_BLK_F_WRITE_ZEROES), !readonly);
    ck_assert(r.d.features & VIRTIO_BLK_F_FLUSH);
    ck_assert(r.d.features & VIRTIO_BLK_F_SEG_MAX);
    ck_assert_uint_eq(r.d.mmio.dev->device_id, VIRTIO_ID_BLOCK_DEVICE);
    rig_fini(&r);
}
END_TEST

/* Any offset and length: the same bytes as one by one, and none beyond. */
START_TEST(test_config_exhaustive)
{
    static const size_t sizes[] = {1, 2, 4, 8};
    uint8_t all[0x1000], part[8];
    struct rig r;
    struct virtio_device *dev;

    rig_init(&r, false, ALL_FEATURES);
    dev = r.d.mmio.dev;
    for (uint32_t i = 0; i < sizeof(all); i++)
        dev->ops->config_read(dev, i, all + i, 1);
    for (uint32_t i = 0; i + 8 <= sizeof(all); i++)
        for (unsigned s = 0; s < ARRAY_SIZE(sizes); s++) {
            memset(part, 0xff, sizeof(part));
            dev->ops->config_read(dev, i, part, sizes[s]);
            if (memcmp(part, all + i, sizes[s]) != 0)
                ck_abort_msg("offset %u, size %zu", i, sizes[s]);
        }
    dev->ops->config_read(dev, UINT32_MAX, part, 8);
    ck_assert_uint_eq(num_get_le64(part), 0);
    rig_fini(&r);
}
END_TEST

/* ---- requests that are right -------------------------------------------- */

START_TEST(test_in)
{
    struct rig r;
    uint32_t written;
    uint8_t *p;

    rig_init(&r, _i, ALL_FEATURES);
    p = rig_ptr(&r, r.data, 8 * SECTOR);
    ck_assert_uint_eq(
        rig_request(&r, VIRTIO_BLK_T_IN, 3, 8 * SECTOR, true, &written),
        VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(written, 8 * SECTOR + 1);
    for (unsigned s = 0; s < 8; s++)
        rig_expect_sector(p + s * SECTOR, rig_sector_byte(3 + s));
    ck_assert_uint_eq(
        rig_request(&r, VIRTIO_BLK_T_IN, 0, DISK_SIZE, true, NULL),
        VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig_violations(&r), 0);
    rig_fini(&r);
}
END_TEST

START_TEST(test_out)
{
    struct rig r;
    uint32_t written;

    rig_init(&r, false, ALL_FEATURES);
    memset(rig_ptr(&r, r.data, 2 * SECTOR), 0x5a, 2 * SECTOR);
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_OUT, DISK_SECTORS - 2,
                                  2 * SECTOR, false, &written),
                      VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(written, 1);
    rig_expect_disk(&r, DISK_SECTORS - 3, rig_sector_byte(DISK_SECTORS - 3));
    rig_expect_disk(&r, DISK_SECTORS - 2, 0x5a);
    rig_expect_disk(&r, DISK_SECTORS - 1, 0x5a);
    ck_assert_uint_eq(syncs, 0);
    ck_assert_uint_eq(
        rig_request(&r, VIRTIO_BLK_T_FLUSH, 0, 0, false, &written),
        VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(written, 1);
    ck_assert_uint_eq(syncs, 1);
    ck_assert_uint_eq(rig_violations(&r), 0);
    rig_fini(&r);
}
END_TEST

/* A list of buffers over a chain whose bytes lie in a row, cut at will. */
struct layout {
    unsigned count;
    struct fake_buf bufs[64];
};

static void layout_add(struct layout *l, gpa_t at, uint32_t len, bool writable,
                       uint32_t piece)
{
    while (len > 0) {
        uint32_t n = len < piece ? len : piece;

        ck_assert_uint_lt(l->count, ARRAY_SIZE(l->bufs));
        l->bufs[l->count++] = (struct fake_buf){at, n, writable};
        at += n;
        len -= n;
    }
}

/*
 * The framing says nothing (VirtIO 1.2, 2.7.4): header bytes one by one, data
 * in odd pieces, data and status in one buffer, header and data in one buffer;
 * direct or in an indirect table.
 */
START_TEST(test_framing)
{
    static const struct {
        uint32_t header, data;
        bool glued;
    } rows[] = {{16, 2048, false}, {1, 512, false}, {5, 100, false},
                {15, 511, false},  {16, 513, true}, {7, 4096, true}};
    bool indirect = _i % 2;
    unsigned row = (unsigned)_i / 2;
    struct layout in = {0}, out = {0};
    struct rig r;
    uint32_t written;
    uint16_t head;
    uint8_t *p;
    gpa_t base;

    rig_init(&r, false, ALL_FEATURES);
    p = rig_ptr(&r, r.data, 8192);
    /* OUT: header | 2048 bytes | status */
    base = rows[row].glued ? r.data : r.header;
    rig_put_header(&r, VIRTIO_BLK_T_OUT, 9);
    memset(p + 16, 0x77, 2048);
    if (rows[row].glued) {
        memcpy(p, rig_ptr(&r, r.header, 16), 16);
        layout_add(&out, base, 16 + 2048, false, rows[row].data);
    } else {
        layout_add(&out, base, 16, false, rows[row].header);
        layout_add(&out, r.data + 16, 2048, false, rows[row].data);
    }
    layout_add(&out, r.status, 1, true, 1);
    if (indirect)
        ck_assert_int_ge(
            fake_queue_add_indirect(&r.d.queues[0], out.bufs, out.count), 0);
    else
        ck_assert_int_ge(fake_queue_add(&r.d.queues[0], out.bufs, out.count),
                         0);
    fake_driver_kick(&r.d, 0);
    ck_assert(fake_queue_collect(&r.d.queues[0], &head, &written));
    ck_assert_uint_eq(written, 1);
    ck_assert_uint_eq(rig_status(&r), VIRTIO_BLK_S_OK);
    for (unsigned s = 9; s < 13; s++)
        rig_expect_disk(&r, s, 0x77);
    rig_expect_disk(&r, 13, rig_sector_byte(13));

    /* IN: header | 2048 bytes and status, together or apart */
    rig_put_header(&r, VIRTIO_BLK_T_IN, 11);
    memset(p, 0, 8192);
    layout_add(&in, r.header, 16, false, rows[row].header);
    if (rows[row].glued) {
        layout_add(&in, r.data, 2048 + 1, true, rows[row].data);
    } else {
        layout_add(&in, r.data, 2048, true, rows[row].data);
        layout_add(&in, r.status, 1, true, 1);
    }
    if (indirect)
        ck_assert_int_ge(
            fake_queue_add_indirect(&r.d.queues[0], in.bufs, in.count), 0);
    else
        ck_assert_int_ge(fake_queue_add(&r.d.queues[0], in.bufs, in.count), 0);
    p[2048] = STATUS_UNTOUCHED;
    fake_driver_kick(&r.d, 0);
    ck_assert(fake_queue_collect(&r.d.queues[0], &head, &written));
    ck_assert_uint_eq(written, 2049);
    ck_assert_uint_eq(rows[row].glued ? p[2048] : rig_status(&r),
                      VIRTIO_BLK_S_OK);
    rig_expect_sector(p, 0x77);
    rig_expect_sector(p + SECTOR, 0x77);
    rig_expect_sector(p + 2 * SECTOR, rig_sector_byte(13));
    ck_assert_uint_eq(rig_violations(&r), 0);
    rig_fini(&r);
}
END_TEST

START_TEST(test_get_id)
{
    static const struct {
        uint32_t len, written;
        uint8_t status;
    } rows[] = {{20, 21, VIRTIO_BLK_S_OK},
                {1, 2, VIRTIO_BLK_S_OK},
                {19, 20, VIRTIO_BLK_S_OK},
                {64, 20, VIRTIO_BLK_S_OK},
                {0, 1, VIRTIO_BLK_S_IOERR}};
    static const char want[20] = "disk-0";
    uint8_t before[64];
    struct rig r;
    uint32_t written, n = rows[_i].len < 20 ? rows[_i].len : 20;
    uint8_t *p;

    rig_init(&r, false, ALL_FEATURES);
    p = rig_ptr(&r, r.data, 64);
    memset(p, 0xff, 64);
    memset(before, 0xff, 64);
    ck_assert_uint_eq(
        rig_request(&r, VIRTIO_BLK_T_GET_ID, 0, rows[_i].len, true, &written),
        rows[_i].status);
    ck_assert_uint_eq(written, rows[_i].written);
    ck_assert_mem_eq(p, want, n);
    ck_assert_mem_eq(p + n, before, 64 - n);
    rig_fini(&r);
}
END_TEST

START_TEST(test_id_lengths)
{
    struct virtio_device *dev = NULL;
    int fd = blk_disk(NULL, DISK_SIZE), probe;

    ck_assert_int_eq(
        virtio_blk_new(blk_raw(fd, false), "twenty-bytes-exactly", &dev), 0);
    dev->ops->free(dev);
    dev = NULL;
    ck_assert_int_eq(
        virtio_blk_new(blk_raw(fd, false), "twenty-one-bytes-long", &dev),
        -EINVAL);
    ck_assert_ptr_null(dev);
    /* The backend is owned, also on failure: its descriptor is closed. */
    probe = dup(fd);
    ck_assert_int_eq(probe, fd + 1);
    close(probe);
    close(fd);
}
END_TEST

/* A driver that knows no FLUSH relies on every write. */
START_TEST(test_write_through)
{
    struct rig r;

    rig_init(&r, false, 0);
    ck_assert(!(r.d.features & VIRTIO_BLK_F_FLUSH));
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_OUT, 0, SECTOR, false, NULL),
                      VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(syncs, 1);
    /* What was not negotiated is not supported. */
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_DISCARD, 0, 16, false, NULL),
                      VIRTIO_BLK_S_UNSUPP);
    ck_assert_uint_eq(
        rig_request(&r, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, false, NULL),
        VIRTIO_BLK_S_UNSUPP);
    rig_fini(&r);
}
END_TEST

/* ---- requests that are wrong -------------------------------------------- */

START_TEST(test_unknown_types)
{
    struct rig r;

    rig_init(&r, false, ALL_FEATURES);
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t type = i < 62 ? i : i == 62 ? 0x80000000u : UINT32_MAX;

        if (type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_OUT ||
            type == VIRTIO_BLK_T_FLUSH || type == VIRTIO_BLK_T_GET_ID ||
            type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES)
            continue;
        ck_assert_uint_eq(rig_request(&r, type, 0, SECTOR, i % 2, NULL),
                          VIRTIO_BLK_S_UNSUPP);
    }
    ck_assert(!fake_driver_needs_reset(&r.d));
    rig_fini(&r);
}
END_TEST

/* Each gets IOERR, is counted, changes nothing; the device goes on. */
START_TEST(test_refused)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t len;
        bool writable;
    } rows[] = {
        /* beyond the disk */
        {VIRTIO_BLK_T_IN, DISK_SECTORS, SECTOR, true},
        {VIRTIO_BLK_T_IN, DISK_SECTORS - 1, 2 * SECTOR, true},
        {VIRTIO_BLK_T_IN, 0, DISK_SIZE + SECTOR, true},
        {VIRTIO_BLK_T_IN, UINT64_MAX, SECTOR, true},
        {VIRTIO_BLK_T_IN, UINT64_MAX - 1, 4 * SECTOR, true},
        {VIRTIO_BLK_T_IN, UINT64_MAX / SECTOR, SECTOR, true},
        {VIRTIO_BLK_T_IN, UINT64_MAX / SECTOR + 1, SECTOR, true},
        {VIRTIO_BLK_T_IN, (uint64_t)1 << 55, SECTOR, true},
        {VIRTIO_BLK_T_IN, (uint64_t)1 << 63, SECTOR, true},
        {VIRTIO_BLK_T_OUT, DISK_SECTORS, SECTOR, false},
        {VIRTIO_BLK_T_OUT, UINT64_MAX, SECTOR, false},
        {VIRTIO_BLK_T_OUT, UINT64_MAX / SECTOR + 1, SECTOR, false},
        /* the wrong way round */
        {VIRTIO_BLK_T_IN, 0, SECTOR, false},
        {VIRTIO_BLK_T_OUT, 0, SECTOR, true},
        {VIRTIO_BLK_T_FLUSH, 0, SECTOR, false},
        {VIRTIO_BLK_T_FLUSH, 0, SECTOR, true},
        {VIRTIO_BLK_T_GET_ID, 0, 20, false},
        {VIRTIO_BLK_T_DISCARD, 0, 16, true},
        {VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, true},
        /* no data, or part of a sector or segment */
        {VIRTIO_BLK_T_IN, 0, 0, true},
        {VIRTIO_BLK_T_OUT, 0, 0, false},
        {VIRTIO_BLK_T_DISCARD, 0, 0, false},
        {VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, false},
        {VIRTIO_BLK_T_IN, 0, 1, true},
        {VIRTIO_BLK_T_IN, 0, SECTOR - 1, true},
        {VIRTIO_BLK_T_OUT, 0, SECTOR + 1, false},
        {VIRTIO_BLK_T_DISCARD, 0, 15, false},
        {VIRTIO_BLK_T_DISCARD, 0, 17, false},
        /* more segments than the configuration says */
        {VIRTIO_BLK_T_DISCARD, 0, 16 * 17, false},
        {VIRTIO_BLK_T_DISCARD, 0, 256u << 10, false},
        {VIRTIO_BLK_T_WRITE_ZEROES, 0, 32, false},
    };
    struct rig r;

    rig_init(&r, false, ALL_FEATURES);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        uint8_t status = rig_request(&r, rows[i].type, rows[i].sector,
                                     rows[i].len, rows[i].writable, NULL);

        ck_assert_msg(status == VIRTIO_BLK_S_IOERR, "row %u: %u", i, status);
        ck_assert_uint_eq(rig_violations(&r), i + 1);
        ck_assert(!fake_driver_needs_reset(&r.d));
    }
    for (unsigned s = 0; s < DISK_SECTORS; s++)
        rig_expect_disk(&r, s, rig_sector_byte(s));
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_IN, 0, SECTOR, true, NULL),
                      VIRTIO_BLK_S_OK);
    rig_fini(&r);
}
END_TEST

/* Data both ways at once: none of it is moved. */
START_TEST(test_both_directions)
{
    static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
                                     VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_DISCARD};
    uint32_t len = types[_i] == VIRTIO_BLK_T_DISCARD ? 16 : SECTOR;
    struct fake_buf bufs[4];
    struct rig r;

    rig_init(&r, false, ALL_FEATURES);
    bufs[0] = (struct fake_buf){r.header, 16, false};
    bufs[1] = (struct fake_buf){r.data, len, false};
    bufs[2] = (struct fake_buf){r.data + SECTOR, SECTOR, true};
    bufs[3] = (struct fake_buf){r.status, 1, true};
    rig_put_header(&r, types[_i], 5);
    rig_put_segment(&r, 0, 0, 8, 0);
    ck_assert_uint_eq(fake_driver_request(&r.d, 0, bufs, 4), 0);
    ck_assert_uint_eq(rig_status(&r), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig_violations(&r), 1);
    rig_expect_sector(rig_ptr(&r, r.data + SECTOR, SECTOR), 0);
    rig_expect_disk(&r, 0, rig_sector_byte(0));
    rig_expect_disk(&r, 5, rig_sector_byte(5));
    rig_fini(&r);
}
END_TEST

START_TEST(test_short_header)
{
    struct rig r;

    rig_init(&r, false, ALL_FEATURES);
    for (uint32_t len = 0; len < 16; len++) {
        struct fake_buf bufs[2] = {{r.header, len, false}, {r.status, 1, true}};
        unsigned skip = len == 0;

        rig_put_header(&r, VIRTIO_BLK_T_FLUSH, 0);
        ck_assert_uint_eq(fake_driver_request(&r.d, 0, bufs + skip, 2 - skip),
                          1);
        ck_assert_uint_eq(rig_status(&r), VIRTIO_BLK_S_IOERR);
        ck_assert_uint_eq(rig_violations(&r), len + 1);
    }
    rig_fini(&r);
}
END_TEST

START_TEST(test_readonly)
{
    struct rig r;

    rig_init(&r, true, ALL_FEATURES);
    num_put_le64(rig_ptr(&r, r.data, 16), 0);
    num_put_le32((uint8_t *)rig_ptr(&r, r.data, 16) + 8, 1);
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_OUT, 0, SECTOR, false, NULL),
                      VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_DISCARD, 0, 16, false, NULL),
                      VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(
        rig_request(&r, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, false, NULL),
        VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_FLUSH, 0, 0, false, NULL),
                      VIRTIO_BLK_S_OK);
    rig_expect_disk(&r, 0, rig_sector_byte(0));
    rig_fini(&r);
}
END_TEST

/* More than SEG_MAX segments of SIZE_MAX at once, from little memory. */
START_TEST(test_too_much_data)
{
    static struct fake_buf bufs[256];
    struct rig r;
    uint64_t start;

    r.fd = blk_disk(NULL, (uint64_t)1 << 40);
    rig_init_backend(&r, blk_raw(r.fd, false), ALL_FEATURES, 256);
    rig_put_header(&r, VIRTIO_BLK_T_IN, 0);
    bufs[0] = (struct fake_buf){r.header, 16, false};
    for (unsigned i = 1; i < 255; i++)
        bufs[i] = (struct fake_buf){r.data, 1u << 20, true};
    bufs[255] = (struct fake_buf){r.status, 1, true};
    start = io_now_ns();
    ck_assert_uint_eq(fake_driver_request(&r.d, 0, bufs, 256), 0);
    ck_assert_uint_lt(io_now_ns() - start, 1000000000u);
    ck_assert_uint_eq(rig_status(&r), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig_violations(&r), 1);
    rig_fini(&r);
}
END_TEST

/* ---- discard and write-zeroes ------------------------------------------- */

START_TEST(test_segments)
{
    struct rig r;

    rig_init(&r, false, ALL_FEATURES);
    rig_put_segment(&r, 0, 4, 3, _i ? 1 : 0);
    ck_assert_uint_eq(
        rig_request(&r, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, false, NULL),
        VIRTIO_BLK_S_OK);
    rig_expect_disk(&r, 3, rig_sector_byte(3));
    for (unsigned s = 4; s < 7; s++)
        rig_expect_disk(&r, s, 0);
    rig_expect_disk(&r, 7, rig_sector_byte(7));
    /* Sixteen discards at once; here (a hole in a memfd) they read as zeros. */
    for (unsigned i = 0; i < 16; i++)
        rig_put_segment(&r, i, 16 + i * 8, 8, 0);
    rig_put_segment(&r, 15, DISK_SECTORS, 0, 0); /* empty, at the end */
    ck_assert_uint_eq(
        rig_request(&r, VIRTIO_BLK_T_DISCARD, 0, 256, false, NULL),
        VIRTIO_BLK_S_OK);
    rig_expect_disk(&r, 15, rig_sector_byte(15));
    rig_expect_disk(&r, 16, 0);
    rig_expect_disk(&r, 16 + 15 * 8 - 1, 0);
    rig_expect_disk(&r, 16 + 15 * 8, rig_sector_byte(16 + 15 * 8));
    ck_assert_uint_eq(rig_violations(&r), 0);
    rig_fini(&r);
}
END_TEST

START_TEST(test_bad_segments)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t sectors, flags;
        uint8_t status;
    } rows[] = {
        {VIRTIO_BLK_T_DISCARD, 0, 1, 1, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_DISCARD, 0, 1, 2, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_DISCARD, 0, 1, 0x80000000u, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 3, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, UINT32_MAX, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_DISCARD, DISK_SECTORS, 1, 0, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, 1, DISK_SECTORS, 0, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, UINT64_MAX, 1, 0, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_WRITE_ZEROES, UINT64_MAX, 1, 0, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_WRITE_ZEROES, UINT64_MAX / SECTOR + 1, 1, 0,
         VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_WRITE_ZEROES, 0, (1u << 17) + 1, 1, VIRTIO_BLK_S_IOERR},
    };
    uint32_t len = 16;
    struct rig r;

    rig_init(&r, false, ALL_FEATURES);
    rig_put_segment(&r, 0, rows[_i].sector, rows[_i].sectors, rows[_i].flags);
    if (rows[_i].type == VIRTIO_BLK_T_DISCARD) {
        /* A good one first: it must not be done. */
        rig_put_segment(&r, 1, rows[_i].sector, rows[_i].sectors,
                        rows[_i].flags);
        rig_put_segment(&r, 0, 0, 128, 0);
        len = 32;
    }
    ck_assert_uint_eq(rig_request(&r, rows[_i].type, 0, len, false, NULL),
                      rows[_i].status);
    for (unsigned s = 0; s < DISK_SECTORS; s++)
        rig_expect_disk(&r, s, rig_sector_byte(s));
    rig_fini(&r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("virtio_blk");
    TCase *tc = tcase_create("virtio_blk");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_config, 0, 2);
    tcase_add_test(tc, test_config_exhaustive);
    tcase_add_loop_test(tc, test_in, 0, 2);
    tcase_add_test(tc, test_out);
    tcase_add_loop_test(tc, test_framing, 0, 12);
    tcase_add_loop_test(tc, test_get_id, 0, 5);
    tcase_add_test(tc, test_id_lengths);
    tcase_add_test(tc, test_write_through);
    tcase_add_test(tc, test_unknown_types);
    tcase_add_test(tc, test_refused);
    tcase_add_loop_test(tc, test_both_directions, 0, 4);
    tcase_add_test(tc, test_short_header);
    tcase_add_test(tc, test_readonly);
    tcase_add_test(tc, test_too_much_data);
    tcase_add_loop_test(tc, test_segments, 0, 2);
    tcase_add_loop_test(tc, test_bad_segments, 0, 13);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
