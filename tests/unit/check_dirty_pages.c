/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of pages that the monitor writes: bits by table, and devices at
 * work, where every page that came out changed must have been recorded.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/blk/virtio_blk_request.h"
#include "devices/rng/virtio_rng.h"
#include "tests/blk_rig.h"
#include "tests/vsock_guest.h"

#define PAGE GUEST_MEM_PAGE

/* ---- bits ---- */

#define LOW_BASE 0x10000u
#define LOW_PAGES 100u
#define HIGH_BASE 0x100000000u
#define HIGH_PAGES 70u
#define PAGES (LOW_PAGES + HIGH_PAGES)

static const struct {
    gpa_t gpa;
    uint64_t len;
    unsigned first;
    unsigned count;
} marks[] = {
    {LOW_BASE, 1, 0, 1},
    {LOW_BASE + PAGE - 1, 1, 0, 1},
    {LOW_BASE + PAGE - 1, 2, 0, 2},
    {LOW_BASE + PAGE, PAGE, 1, 1},
    {LOW_BASE + 62 * PAGE, 4 * PAGE, 62, 4},
    {LOW_BASE + 63 * PAGE, PAGE, 63, 1},
    {LOW_BASE + 64 * PAGE, PAGE, 64, 1},
    {LOW_BASE, LOW_PAGES *PAGE, 0, LOW_PAGES},
    {LOW_BASE + 99 * PAGE, PAGE, 99, 1},
    {HIGH_BASE, 1, LOW_PAGES, 1},
    {HIGH_BASE + 28 * PAGE - 1, PAGE, LOW_PAGES + 27, 2},
    {HIGH_BASE, HIGH_PAGES *PAGE, LOW_PAGES, HIGH_PAGES},
    {HIGH_BASE + HIGH_PAGES * PAGE - 1, 1, PAGES - 1, 1},
    {LOW_BASE, 0, 0, 0},
    {LOW_BASE - 1, 1, 0, 0},
    {LOW_BASE - 1, 2, 0, 0},
    {LOW_BASE + LOW_PAGES * PAGE, 1, 0, 0},
    {HIGH_BASE, HIGH_PAGES *PAGE + 1, 0, 0},
    {UINT64_MAX, 1, 0, 0},
    {1, UINT64_MAX, 0, 0},
};

START_TEST(test_marks)
{
    static uint8_t low[LOW_PAGES * PAGE], high[HIGH_PAGES * PAGE];
    uint64_t bits[(PAGES + 63) / 64] = {0};
    struct guest_mem mem = {0};

    ck_assert_int_eq(guest_mem_add(&mem, LOW_BASE, sizeof(low), low), 0);
    ck_assert_int_eq(guest_mem_add(&mem, HIGH_BASE, sizeof(high), high), 0);
    ck_assert_uint_eq(guest_mem_pages(&mem), PAGES);
    guest_mem_mark_dirty(&mem, marks[_i].gpa, marks[_i].len); /* to nowhere */
    mem.dirty = bits;
    guest_mem_mark_dirty(&mem, marks[_i].gpa, marks[_i].len);
    for (unsigned i = 0; i < ARRAY_SIZE(bits) * 64; i++) {
        bool want =
            i >= marks[_i].first && i < marks[_i].first + marks[_i].count;

        if ((bits[i / 64] >> (i % 64) & 1) != want)
            ck_abort_msg("page %u", i);
    }
}
END_TEST

START_TEST(test_write_marks)
{
    static uint8_t low[2 * PAGE];
    uint64_t bits = 0;
    struct guest_mem mem = {.dirty = &bits};

    ck_assert_int_eq(guest_mem_add(&mem, LOW_BASE, sizeof(low) - 8, low), 0);
    ck_assert_uint_eq(guest_mem_pages(&mem), 2); /* a part is a page */
    ck_assert_int_eq(guest_mem_read(&mem, LOW_BASE, low, 1), 0);
    ck_assert_uint_eq(bits, 0);
    ck_assert_int_eq(guest_mem_write(&mem, LOW_BASE + PAGE, "x", 1), 0);
    ck_assert_uint_eq(bits, 2);
    ck_assert_int_lt(guest_mem_write(&mem, LOW_BASE + 2 * PAGE - 8, "x", 1), 0);
    ck_assert_uint_eq(bits, 2);
}
END_TEST

/*
 * A used ring whose flags and index end a page: every write of the queue is in
 * the page that it is in, and in no other.
 */
START_TEST(test_used_ring)
{
    static struct fake_guest guest;
    struct fake_buf buf = {FAKE_GUEST_BASE + 40 * PAGE, 3 * PAGE, true};
    struct virtqueue vq = {0};
    struct desc_chain chain;
    struct fake_queue q;
    uint64_t bits[4] = {0};
    unsigned page;

    fake_guest_init(&guest, 0);
    fake_queue_init(&q, &guest, 8);
    q.used = (fake_guest_alloc(&guest, 2 * PAGE, PAGE) + PAGE) - 4;
    page = (unsigned)((q.used - FAKE_GUEST_BASE) / PAGE);
    fake_queue_attach(&q, &vq, _i, false);
    guest.mem.dirty = bits;
    virtqueue_disable_kicks(&vq);
    ck_assert_uint_eq(bits[0], _i ? 0 : 1ull << page);
    ck_assert_int_ge(fake_queue_add(&q, &buf, 1), 0);
    bits[0] = 0;
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
    ck_assert_uint_eq(bits[0], 7ull << 40);
    bits[0] = 0;
    virtqueue_push(&vq, chain.head, 0);
    ck_assert_uint_eq(bits[0], 3ull << page);
    bits[0] = 0;
    (void)virtqueue_needs_interrupt(&vq);
    ck_assert_uint_eq(bits[0], 0);
    (void)virtqueue_enable_kicks(&vq);
    ck_assert_uint_eq(bits[0], (_i ? 2ull : 1ull) << page);
    bits[0] = 0;
    (void)virtqueue_kick_on_next(&vq);
    ck_assert_uint_eq(bits[0], (_i ? 2ull : 1ull) << page);
    fake_guest_fini(&guest);
}
END_TEST

/* ---- devices ---- */

/* Guest memory as it was before a device's turn. */
struct watch {
    struct fake_driver *d;
    uint8_t *memory;
    uint8_t *before;
    uint64_t *bits;
    uint64_t pages;
    unsigned changed; /* pages, in all turns */
};

static struct watch w;

static void watch_init(struct fake_driver *d)
{
    w.d = d;
    w.pages = guest_mem_pages(&d->guest.mem);
    w.memory = fake_guest_ptr(&d->guest, FAKE_GUEST_BASE, d->guest.size);
    w.before = malloc(d->guest.size);
    w.bits = calloc(w.pages / 64 + 1, 8);
    w.changed = 0;
    ck_assert(w.before && w.bits);
    d->guest.mem.dirty = w.bits;
}

static void watch_fini(void)
{
    w.d->guest.mem.dirty = NULL;
    ck_assert_uint_gt(w.changed, 20); /* it has seen something */
    free(w.before);
    free(w.bits);
}

/*
 * From here on only the device acts. What it holds is given back first, as
 * before a snapshot: only then may the record be cleared.
 */
static void watch_begin(void)
{
    virtio_mmio_quiesce(&w.d->mmio);
    memset(w.bits, 0, (w.pages / 64 + 1) * 8);
    memcpy(w.before, w.memory, w.d->guest.size);
}

static void watch_end(void)
{
    for (uint64_t i = 0; i < w.pages; i++) {
        if (memcmp(w.before + i * PAGE, w.memory + i * PAGE, PAGE) == 0)
            continue;
        w.changed++;
        if (!(w.bits[i / 64] >> (i % 64) & 1))
            ck_abort_msg("page %lu changed unseen", (unsigned long)i);
    }
}

static void watched_kick(unsigned queue)
{
    watch_begin();
    fake_driver_kick_force(w.d, queue);
    watch_end();
}

START_TEST(test_blk)
{
    static struct rig r;

    rig_init(&r, false, _i ? ALL_FEATURES : 0);
    watch_init(&r.d);
    for (unsigned i = 0; i < 40; i++) {
        uint32_t len = (1 + blk_random(40)) * SECTOR;
        bool in = i % 3 != 0;
        struct fake_buf bufs[3] = {{r.header, 16, false},
                                   {r.data + blk_random(1u << 18), len, in},
                                   {r.status, 1, true}};

        rig_put_header(&r, in ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
                       blk_random(DISK_SECTORS - 41));
        if (_i)
            ck_assert_int_ge(fake_queue_add_indirect(&r.d.queues[0], bufs, 3),
                             0);
        else
            ck_assert_int_ge(fake_queue_add(&r.d.queues[0], bufs, 3), 0);
        watched_kick(0);
        ck_assert(fake_queue_collect(&r.d.queues[0], NULL, NULL));
        ck_assert_uint_eq(rig_status(&r), VIRTIO_BLK_S_OK);
    }
    watch_fini();
    rig_fini(&r);
}
END_TEST

START_TEST(test_rng)
{
    static struct fake_driver d;
    struct virtio_device *dev = NULL;
    gpa_t at;

    ck_assert_int_eq(virtio_rng_new(&dev), 0);
    fake_driver_init(&d, dev, 0);
    fake_driver_start(&d, _i ? VIRTIO_FEATURE_EVENT_IDX : 0, 64);
    at = fake_guest_alloc(&d.guest, 64 * PAGE, PAGE);
    watch_init(&d);
    for (unsigned i = 0; i < 30; i++) {
        struct fake_buf buf = {at + blk_random(60 * PAGE),
                               1 + blk_random(3 * PAGE), true};

        ck_assert_int_ge(fake_queue_add(&d.queues[0], &buf, 1), 0);
        watched_kick(0);
        ck_assert(fake_queue_collect(&d.queues[0], NULL, NULL));
    }
    watch_fini();
    fake_driver_fini(&d);
}
END_TEST

/* Both directions, the sockets' turns, and the event of a restore. */
START_TEST(test_vsock)
{
    static struct vsock_guest g;
    static uint8_t bytes[20000];
    uint32_t host_port, id;
    unsigned buffer;
    int fd;

    vsock_guest_init(&g, -1);
    vsock_guest_start(&g, _i ? VIRTIO_FEATURE_EVENT_IDX : 0, 64);
    vsock_guest_post_events(&g, 4);
    watch_init(&g.driver);
    fd = vsock_guest_connect(&g, 5000, 1u << 18, &host_port);
    for (unsigned i = 0; i < 30; i++) {
        struct vsock_header h =
            vsock_guest_header(VSOCK_OP_RW, 5000, host_port);

        memset(bytes, (int)i + 1, sizeof(bytes));
        h.len = 3000;
        ck_assert(vsock_guest_queue(&g, &h, bytes, h.len));
        watched_kick(1);
        ck_assert_int_eq(read(fd, bytes, sizeof(bytes)), 3000);
        if (i % 3 == 0)
            ck_assert_int_eq(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
        watch_begin();
        vsock_guest_run(&g);
        watch_end();
        while (vsock_guest_take(&g, &h, NULL))
            ;
        watch_begin();
        virtio_mmio_quiesce(&g.driver.mmio);
        watch_end();
        vsock_guest_post(&g, 8);
    }
    close(fd);
    vsock_guest_move(&g);
    watch_begin();
    virtio_mmio_restored(&g.driver.mmio);
    watch_end();
    ck_assert(vsock_guest_take_event(&g, &id, &buffer));
    (void)fake_queue_should_kick(&g.driver.queues[2]);
    watch_fini();
    vsock_guest_fini(&g);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dirty_pages");
    TCase *tc = tcase_create("dirty");
    SRunner *sr;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_marks, 0, (int)ARRAY_SIZE(marks));
    tcase_add_test(tc, test_write_marks);
    tcase_add_loop_test(tc, test_used_ring, 0, 2);
    tcase_add_loop_test(tc, test_blk, 0, 2);
    tcase_add_loop_test(tc, test_rng, 0, 2);
    tcase_add_loop_test(tc, test_vsock, 0, 2);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
