/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-blk device between its backend and its queue: host errors, batches
 * and their interrupts, rounds on the event loop, resets, and a million hostile
 * requests.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "devices/blk/virtio_blk_request.h"
#include "tests/blk_rig.h"

/* ---- the backend's errors ----------------------------------------------- */

START_TEST(test_backend_error)
{
    struct rig r;
    uint32_t written;

    rig_init(&r, false, ALL_FEATURES);
    ck_assert_int_eq(ftruncate(r.fd, SECTOR), 0);
    ck_assert_uint_eq(
        rig_request(&r, VIRTIO_BLK_T_IN, 1, SECTOR, true, &written),
        VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(written, 0);
    ck_assert_uint_eq(virtio_blk_backend(r.d.mmio.dev)->stats.io_errors, 1);
    ck_assert_uint_eq(rig_violations(&r), 0); /* not the guest's fault */
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_IN, 0, SECTOR, true, NULL),
                      VIRTIO_BLK_S_OK);
    rig_fini(&r);
}
END_TEST

/* A guest that fills its overlay: errors, counted, and the disk lives on. */
START_TEST(test_overlay_limit)
{
    struct cow_overlay_options options = {.limit = COW_CLUSTER_SIZE};
    struct block_backend *b = NULL;
    const struct block_backend *seen;
    int base = blk_disk(NULL, DISK_SIZE);
    struct rig r;

    r.fd = blk_disk(NULL, 0);
    ck_assert_int_eq(
        cow_overlay_open(blk_raw(base, true), dup(r.fd), &options, &b), 0);
    rig_init_backend(&r, b, ALL_FEATURES, 256);
    memset(rig_ptr(&r, r.data, SECTOR), 3, SECTOR);
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_OUT, 0, SECTOR, false, NULL),
                      VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(
        rig_request(&r, VIRTIO_BLK_T_OUT, 128, SECTOR, false, NULL),
        VIRTIO_BLK_S_IOERR);
    seen = virtio_blk_backend(r.d.mmio.dev);
    ck_assert(seen->stats.limit_hit);
    ck_assert_uint_eq(seen->stats.no_space, 1);
    ck_assert_uint_eq(seen->stats.clusters_present, 1);
    ck_assert(!fake_driver_needs_reset(&r.d));
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_OUT, 1, SECTOR, false, NULL),
                      VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_IN, 128, SECTOR, true, NULL),
                      VIRTIO_BLK_S_OK);
    rig_expect_sector(rig_ptr(&r, r.data, SECTOR), 0);
    rig_fini(&r);
    close(base);
}
END_TEST

/* ---- nothing to answer to ----------------------------------------------- */

/* Nowhere to put an answer: returned empty, and the device wants a reset. */
START_TEST(test_no_status)
{
    struct rig r;
    struct fake_buf bufs[2];

    rig_init(&r, false, ALL_FEATURES);
    bufs[0] = (struct fake_buf){r.header, 16, false};
    bufs[1] = (struct fake_buf){r.data, SECTOR, false};
    rig_put_header(&r, VIRTIO_BLK_T_OUT, 0);
    ck_assert_uint_eq(fake_driver_request(&r.d, 0, bufs, _i ? 2 : 1), 0);
    ck_assert(fake_driver_needs_reset(&r.d));
    ck_assert_uint_eq(rig_violations(&r), 1);
    rig_expect_disk(&r, 0, rig_sector_byte(0));
    /* Nothing more happens until the reset ... */
    bufs[1].writable = true;
    ck_assert_int_ge(fake_queue_add(&r.d.queues[0], bufs, 2), 0);
    fake_driver_kick_force(&r.d, 0);
    ck_assert(!fake_queue_collect(&r.d.queues[0], NULL, NULL));
    /* ... and all is well after it. */
    fake_driver_start(&r.d, ALL_FEATURES, 64);
    ck_assert(!fake_driver_needs_reset(&r.d));
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_IN, 0, SECTOR, true, NULL),
                      VIRTIO_BLK_S_OK);
    rig_fini(&r);
}
END_TEST

/* A ring that breaks the rules: needs reset, no request runs. */
START_TEST(test_broken_ring)
{
    struct rig r;

    rig_init(&r, false, ALL_FEATURES);
    fake_queue_publish(&r.d.queues[0], 0xffff);
    fake_driver_kick_force(&r.d, 0);
    ck_assert(fake_driver_needs_reset(&r.d));
    ck_assert_uint_eq(rig_violations(&r), 1);
    rig_fini(&r);
}
END_TEST

/* ---- batches and rounds ------------------------------------------------- */

/* Makes n one-sector reads available, unkicked; all share their buffers. */
static void add_reads(struct rig *r, unsigned n, uint32_t len)
{
    struct fake_buf bufs[3] = {
        {r->header, 16, false}, {r->data, len, true}, {r->status, 1, true}};

    rig_put_header(r, VIRTIO_BLK_T_IN, 0);
    for (unsigned i = 0; i < n; i++)
        ck_assert_int_ge(fake_queue_add_indirect(&r->d.queues[0], bufs, 3), 0);
}

static unsigned collect_all(struct rig *r)
{
    unsigned n = 0;

    while (fake_queue_collect(&r->d.queues[0], NULL, NULL))
        n++;
    return n;
}

START_TEST(test_batch)
{
    static const struct {
        uint64_t features;
        unsigned requests;
        uint32_t len;
        unsigned interrupts;
    } rows[] = {
        {~VIRTIO_FEATURE_EVENT_IDX, 1, SECTOR, 1},
        {~VIRTIO_FEATURE_EVENT_IDX, 20, SECTOR, 1},
        /* Announced at 32, 64, and the rest. */
        {~VIRTIO_FEATURE_EVENT_IDX, 80, SECTOR, 3},
        /* Large ones after each megabyte: at 8, 16, 20. */
        {~VIRTIO_FEATURE_EVENT_IDX, 20, DISK_SIZE, 3},
        /* With an event index, only the one that was asked for. */
        {ALL_FEATURES, 20, SECTOR, 1},
        {ALL_FEATURES, 80, SECTOR, 1},
    };
    struct rig r;

    rig_init(&r, false, rows[_i].features);
    fake_queue_want_interrupts(&r.d.queues[0], true);
    r.d.interrupts = 0;
    add_reads(&r, rows[_i].requests, rows[_i].len);
    fake_driver_kick(&r.d, 0);
    ck_assert_uint_eq(collect_all(&r), rows[_i].requests);
    ck_assert_uint_eq(r.d.interrupts, rows[_i].interrupts);
    /* The device sleeps and wants to be kicked again. */
    add_reads(&r, 1, SECTOR);
    ck_assert(fake_queue_should_kick(&r.d.queues[0]));
    rig_fini(&r);
}
END_TEST

/* A driver that wants no interrupts gets none. */
START_TEST(test_no_interrupts)
{
    struct rig r;

    rig_init(&r, false, _i ? ALL_FEATURES : ~VIRTIO_FEATURE_EVENT_IDX);
    fake_queue_want_interrupts(&r.d.queues[0], false);
    r.d.interrupts = 0;
    add_reads(&r, 50, SECTOR);
    fake_driver_kick(&r.d, 0);
    ck_assert_uint_eq(collect_all(&r), 50);
    ck_assert_uint_eq(r.d.interrupts, 0);
    rig_fini(&r);
}
END_TEST

/* What the machine does with an eventfd: remembers that a round is due. */
static void notify_later(void *ctx, unsigned queue)
{
    unsigned *due = ctx;

    ck_assert_uint_eq(queue, 0);
    *due += 1;
}

/* The event loop's next round: 1 if there was something to do. */
static unsigned next_round(struct rig *r, unsigned *due)
{
    if (*due == 0)
        return 0;
    *due = 0;
    virtio_mmio_notify(&r->d.mmio, 0);
    return 1;
}

/* Work is cut into rounds, and the rest needs no kick of the guest. */
START_TEST(test_rounds)
{
    unsigned due = 0;
    struct rig r;
    unsigned done;

    rig_init(&r, false, ALL_FEATURES);
    r.d.mmio.notify_later = notify_later;
    r.d.mmio.notify_later_ctx = &due;
    /* 60 reads of 128 KiB are 7.5 MiB: two rounds of 4. */
    add_reads(&r, 60, DISK_SIZE);
    fake_driver_kick(&r.d, 0);
    done = collect_all(&r);
    ck_assert_uint_eq(done, 32);
    ck_assert_uint_eq(next_round(&r, &due), 1);
    done += collect_all(&r);
    ck_assert_uint_eq(done, 60);
    ck_assert_uint_eq(next_round(&r, &due), 0);
    /* Many small ones: a round is 256 requests. */
    add_reads(&r, 256, SECTOR);
    fake_driver_kick(&r.d, 0);
    ck_assert_uint_eq(collect_all(&r), 256);
    /* What arrives between two rounds is found without a kick. */
    add_reads(&r, 5, SECTOR);
    ck_assert_uint_eq(collect_all(&r), 0);
    ck_assert_uint_eq(next_round(&r, &due), 1);
    ck_assert_uint_eq(collect_all(&r), 5);
    ck_assert_uint_eq(next_round(&r, &due), 0);
    /* Reset with a round outstanding: it finds nothing to do. */
    add_reads(&r, 250, DISK_SIZE);
    fake_driver_kick(&r.d, 0);
    ck_assert_uint_eq(collect_all(&r), 32);
    fake_driver_reset(&r.d);
    ck_assert_uint_eq(next_round(&r, &due), 1);
    fake_driver_start(&r.d, ALL_FEATURES, 128);
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_IN, 0, SECTOR, true, NULL),
                      VIRTIO_BLK_S_OK);
    /* Freed with a round outstanding. */
    add_reads(&r, 128, DISK_SIZE);
    fake_driver_kick(&r.d, 0);
    ck_assert_uint_eq(due, 1);
    rig_fini(&r);
}
END_TEST

/*
 * Requests that name much in few bytes, and syncs, count for what they cost:
 * a guest cannot fill a round with hours of work.
 */
START_TEST(test_rounds_by_cost)
{
    static const struct {
        uint32_t type;
        unsigned requests, first_round;
    } rows[] = {
        {VIRTIO_BLK_T_FLUSH, 10, 1},
        {VIRTIO_BLK_T_DISCARD, 200, 200}, /* all but the first find a hole */
        {VIRTIO_BLK_T_WRITE_ZEROES, 200, 32}, /* 4 MiB by 128 KiB */
    };
    uint32_t type = rows[_i].type;
    struct fake_buf bufs[3];
    unsigned due = 0, count = 0, done;
    struct rig r;
    uint8_t *segment;

    rig_init(&r, false, ALL_FEATURES);
    r.d.mmio.notify_later = notify_later;
    r.d.mmio.notify_later_ctx = &due;
    segment = rig_ptr(&r, r.data, 16);
    memset(segment, 0, 16);
    num_put_le32(segment + 8, DISK_SIZE / SECTOR);
    rig_put_header(&r, type, 0);
    bufs[count++] = (struct fake_buf){r.header, 16, false};
    if (type != VIRTIO_BLK_T_FLUSH)
        bufs[count++] = (struct fake_buf){r.data, 16, false};
    bufs[count++] = (struct fake_buf){r.status, 1, true};
    for (unsigned i = 0; i < rows[_i].requests; i++)
        ck_assert_int_ge(fake_queue_add_indirect(&r.d.queues[0], bufs, count),
                         0);
    fake_driver_kick(&r.d, 0);
    done = collect_all(&r);
    ck_assert_uint_eq(done, rows[_i].first_round);
    while (next_round(&r, &due))
        done += collect_all(&r);
    ck_assert_uint_eq(done, rows[_i].requests);
    ck_assert_uint_eq(*(uint8_t *)rig_ptr(&r, r.status, 1), VIRTIO_BLK_S_OK);
    rig_fini(&r);
}
END_TEST

/* ---- hostility ---------------------------------------------------------- */

#define HOSTILE_REQUESTS 1000000u

static long resident_pages(void)
{
    long size, resident = -1;
    FILE *f = fopen("/proc/self/statm", "r");

    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%ld %ld", &size, &resident), 2);
    fclose(f);
    return resident;
}

/*
 * Fills the four descriptors of a chain. Most chains nearly make sense (a
 * header, data either way, a status) and so reach the device; some do not.
 */
static void hostile_chain(struct rig *r, struct fake_desc *desc, uint16_t first)
{
    static const uint32_t lens[] = {1,   15,  16,  17,   20,  32,
                                    511, 512, 513, 1024, 512, 512};
    bool in = blk_random(2);

    for (uint16_t i = 0; i < 4; i++) {
        desc[i].addr = r->data + blk_random(4096);
        desc[i].len = lens[blk_random(ARRAY_SIZE(lens))];
        desc[i].flags = i < 3 ? FAKE_DESC_NEXT : 0;
        desc[i].next = (uint16_t)(first + i + 1);
        if (i == 3 || (in && i > 0))
            desc[i].flags |= FAKE_DESC_WRITE;
    }
    desc[0].addr = r->header + blk_random(64) * 16;
    if (blk_random(16))
        desc[0].len = 16;
    if (blk_random(4)) /* one piece of data, or none */
        desc[0].next = (uint16_t)(first + 2 + blk_random(2));
}

/* Breaks one field of one descriptor. */
static void hostile_break(struct fake_desc *desc)
{
    switch (blk_random(4)) {
    case 0:
        desc->flags = (uint16_t)blk_random(8);
        break;
    case 1:
        desc->addr =
            ((uint64_t)blk_random(UINT32_MAX) << 32) | blk_random(UINT32_MAX);
        break;
    case 2:
        desc->len = blk_random(UINT32_MAX);
        break;
    default:
        desc->next = (uint16_t)blk_random(65536);
        break;
    }
}

static void hostile_headers(struct rig *r)
{
    uint8_t *p = rig_ptr(r, r->header, 1024);

    for (unsigned i = 0; i < 1024; i += 16) {
        num_put_le32(p + i, blk_random(16));
        num_put_le64(p + i + 8, blk_random(DISK_SECTORS + 4));
        if (blk_random(8) == 0)
            num_put_le64(p + i + 8, UINT64_MAX - blk_random(4));
    }
    memset(rig_ptr(r, r->data, 8192), 0, 8192);
    for (unsigned i = 0; i < 4096; i += 16)
        rig_put_segment(r, i / 16, blk_random(DISK_SECTORS), blk_random(64),
                        blk_random(3));
}

START_TEST(test_million_hostile_requests)
{
    struct cow_overlay_options options = {.limit = COW_CLUSTER_SIZE};
    struct block_backend *b = NULL;
    int base = blk_disk(NULL, DISK_SIZE);
    unsigned sent = 0, resets = 0, answered = 0;
    uint64_t start, slowest = 0;
    long pages = 0;
    struct rig r;
    gpa_t mark;

    r.fd = blk_disk(NULL, 0);
    ck_assert_int_eq(
        cow_overlay_open(blk_raw(base, true), dup(r.fd), &options, &b), 0);
    rig_init_backend(&r, b, ALL_FEATURES, 16);
    mark = r.d.guest.next;
    start = io_now_ns();
    while (sent < HOSTILE_REQUESTS) {
        struct fake_queue *q = &r.d.queues[0];
        uint64_t kick;

        if (sent >= 100000 && pages == 0)
            pages = resident_pages();
        if (sent % 512 == 0)
            hostile_headers(&r);
        for (uint16_t i = 0; i < 16; i = (uint16_t)(i + 4))
            hostile_chain(&r, fake_queue_desc(q, i), i);
        if (blk_random(4) == 0)
            hostile_break(fake_queue_desc(q, blk_random(16)));
        for (unsigned i = 0; i < 4; i++, sent++)
            fake_queue_publish(q, (uint16_t)(blk_random(4) * 4));
        kick = io_now_ns();
        fake_driver_kick_force(&r.d, 0);
        kick = io_now_ns() - kick;
        slowest = kick > slowest ? kick : slowest;
        answered += (uint16_t)(*fake_queue_used_idx(q) - q->last_used_idx);
        q->last_used_idx = *fake_queue_used_idx(q);
        /* libcheck's assertions allocate: only when they are to fail. */
        if (!virtqueue_check(&r.d.mmio.dev->queues[0]))
            ck_abort_msg("request %u", sent);
        if (!fake_driver_needs_reset(&r.d))
            continue;
        /* Fresh rings where the last ones were, or memory would run out. */
        resets++;
        r.d.guest.next = mark;
        memset(rig_ptr(&r, mark, 65536), 0, 65536);
        fake_driver_start(&r.d, ALL_FEATURES, 16);
    }
    printf("hostile: %u requests, %u answered, %u resets, %.1f s, "
           "slowest kick %.1f ms\n",
           sent, answered, resets, (double)(io_now_ns() - start) / 1e9,
           (double)slowest / 1e6);
    /* Most got through to the device: this is not a test of the queue. */
    ck_assert_uint_gt(answered, HOSTILE_REQUESTS / 4);
    ck_assert_uint_gt(resets, 1000);
    ck_assert_uint_lt(slowest, 2000000000u);
    /* 4 MiB: sanitizers keep freed memory for a while. */
    ck_assert_int_lt(resident_pages() - pages, 1024);
    ck_assert_uint_le(virtio_blk_backend(r.d.mmio.dev)->stats.clusters_present,
                      1);
    fake_driver_start(&r.d, ALL_FEATURES, 16);
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_IN, 0, SECTOR, true, NULL),
                      VIRTIO_BLK_S_OK);
    rig_fini(&r);
    close(base);
}
END_TEST

/* Reset and free at any point: no request is ever left over. */
START_TEST(test_reset_at_any_time)
{
    struct rig r;

    rig_init(&r, false, ALL_FEATURES);
    for (unsigned i = 0; i < 50; i++) {
        add_reads(&r, i % 20, SECTOR);
        if (i % 3 == 0)
            fake_driver_kick(&r.d, 0);
        if (i % 2)
            fake_driver_reset(&r.d);
        ck_assert_uint_eq(r.d.mmio.dev->queues[0].in_flight, 0);
        fake_driver_start(&r.d, ALL_FEATURES, 64);
    }
    add_reads(&r, 7, SECTOR);
    rig_fini(&r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("virtio_blk_queue");
    TCase *tc = tcase_create("virtio_blk_queue");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_set_timeout(tc, 240);
    tcase_add_test(tc, test_backend_error);
    tcase_add_test(tc, test_overlay_limit);
    tcase_add_loop_test(tc, test_no_status, 0, 2);
    tcase_add_test(tc, test_broken_ring);
    tcase_add_loop_test(tc, test_batch, 0, 6);
    tcase_add_loop_test(tc, test_no_interrupts, 0, 2);
    tcase_add_test(tc, test_rounds);
    tcase_add_loop_test(tc, test_rounds_by_cost, 0, 3);
    tcase_add_test(tc, test_million_hostile_requests);
    tcase_add_test(tc, test_reset_at_any_time);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
