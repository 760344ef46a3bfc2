/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that take several steps: others get their turn in between, and there
 * the device may be reset, paused, or saved and restored. And disks so large
 * that nothing may be done byte by byte.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/blk/virtio_blk.h"
#include "devices/blk/virtio_blk_request.h"
#include "tests/blk_disk.h"
#include "tests/blk_rig.h"
#include "tests/fake_guest.h"

#define MIB ((uint64_t)1 << 20)
#define LARGE (10 * MIB) /* of a disk: three rounds */
#define BUFFERS 10u      /* of 1 MiB, all the same guest memory */
#define FILL 0xab

struct large {
    struct rig rig;
    struct block_backend *b; /* the device's */
    int base_fd;
    int layer_fd; /* -1: none yet */
    unsigned due; /* rounds that were asked for */
};

static void notify_later(void *ctx, unsigned queue)
{
    ck_assert_uint_eq(queue, 0);
    ++*(unsigned *)ctx;
}

static struct block_backend *overlay(struct large *l)
{
    struct cow_overlay_options private = {0};
    struct cow_overlay_options layer = {.readonly = true};
    struct block_backend *b = blk_raw(l->base_fd, true);

    if (l->layer_fd >= 0)
        ck_assert_int_eq(cow_overlay_open(b, dup(l->layer_fd), &layer, &b), 0);
    ck_assert_int_eq(cow_overlay_open(b, blk_memfd(), &private, &b), 0);
    return b;
}

/* A disk full of FILL, all of it in the overlay, over a base of zeros. */
static void large_init(struct large *l)
{
    uint8_t *bytes = malloc(MIB);

    *l = (struct large){.layer_fd = -1, .base_fd = blk_disk(NULL, LARGE)};
    l->b = overlay(l);
    memset(bytes, FILL, MIB);
    for (uint64_t at = 0; at < LARGE; at += MIB)
        ck_assert_int_eq(blk_write(l->b, bytes, MIB, at), 0);
    free(bytes);
    rig_init_backend(&l->rig, l->b, ALL_FEATURES, 64);
    l->rig.fd = dup(l->base_fd);
    l->rig.d.mmio.notify_later = notify_later;
    l->rig.d.mmio.notify_later_ctx = &l->due;
}

static void large_fini(struct large *l)
{
    rig_fini(&l->rig);
    close(l->base_fd);
    if (l->layer_fd >= 0)
        close(l->layer_fd);
}

/* The machine's event loop takes its next turn. */
static bool next_round(struct large *l)
{
    if (l->due == 0)
        return false;
    l->due = 0;
    virtio_mmio_notify(&l->rig.d.mmio, 0);
    return true;
}

/* Sends a request over the whole disk, and kicks. */
static void send(struct large *l, uint32_t type)
{
    struct rig *r = &l->rig;
    struct fake_buf bufs[BUFFERS + 2] = {{r->header, 16, false}};
    unsigned n = 1;

    rig_put_header(r, type, 0);
    memset(rig_ptr(r, r->data, MIB), 0x11, MIB);
    if (type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_OUT) {
        while (n <= BUFFERS)
            bufs[n++] =
                (struct fake_buf){r->data, MIB, type == VIRTIO_BLK_T_IN};
    } else {
        rig_put_segment(r, 0, 0, LARGE / SECTOR, 0);
        bufs[n++] = (struct fake_buf){r->data, 16, false};
    }
    bufs[n++] = (struct fake_buf){r->status, 1, true};
    ck_assert_int_ge(fake_queue_add(&r->d.queues[0], bufs, n), 0);
    fake_driver_kick(&r->d, 0);
}

/* Every byte of the disk, or of the memory it was read into. */
static void expect(struct large *l, uint32_t type)
{
    uint8_t want = 0;
    uint8_t *bytes = malloc(LARGE);

    if (type == VIRTIO_BLK_T_OUT)
        want = 0x11;
    else if (type == VIRTIO_BLK_T_IN)
        want = FILL;
    if (type == VIRTIO_BLK_T_IN) {
        memcpy(bytes, rig_ptr(&l->rig, l->rig.data, MIB), MIB);
        ck_assert_int_eq(bytes[0], FILL);
        ck_assert_int_eq(memcmp(bytes, bytes + 1, MIB - 1), 0);
    }
    ck_assert_int_eq(blk_read(l->b, bytes, LARGE, 0), 0);
    ck_assert_int_eq(bytes[0], want);
    ck_assert_int_eq(memcmp(bytes, bytes + 1, LARGE - 1), 0);
    free(bytes);
}

static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
                                 VIRTIO_BLK_T_DISCARD,
                                 VIRTIO_BLK_T_WRITE_ZEROES};

static struct virtqueue *queue_of(struct large *l)
{
    return &l->rig.d.mmio.dev->queues[0];
}

/* One request, several rounds. Others that come meanwhile wait behind it. */
START_TEST(test_rounds)
{
    struct large l;
    unsigned rounds = 0;

    large_init(&l);
    send(&l, types[_i]);
    ck_assert_uint_eq(fake_queue_used_count(&l.rig.d.queues[0]), 0);
    ck_assert_uint_eq(queue_of(&l)->in_flight, 1);
    ck_assert_uint_eq(rig_status(&l.rig), 0xee);
    while (next_round(&l))
        rounds++;
    ck_assert_uint_eq(rounds, 2);
    ck_assert(fake_queue_collect(&l.rig.d.queues[0], NULL, NULL));
    ck_assert_uint_eq(rig_status(&l.rig), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(queue_of(&l)->in_flight, 0);
    expect(&l, types[_i]);
    large_fini(&l);
}
END_TEST

/* Without an event loop it goes on by itself. */
START_TEST(test_one_turn)
{
    struct large l;

    large_init(&l);
    l.rig.d.mmio.notify_later = NULL;
    send(&l, types[_i]);
    ck_assert(fake_queue_collect(&l.rig.d.queues[0], NULL, NULL));
    ck_assert_uint_eq(rig_status(&l.rig), VIRTIO_BLK_S_OK);
    expect(&l, types[_i]);
    large_fini(&l);
}
END_TEST

/* A reset between two steps: the request is no more, and the next one works. */
START_TEST(test_reset)
{
    struct large l;

    large_init(&l);
    send(&l, types[_i]);
    ck_assert_uint_eq(queue_of(&l)->in_flight, 1);
    fake_driver_reset(&l.rig.d);
    ck_assert_uint_eq(queue_of(&l)->in_flight, 0);
    ck_assert(next_round(&l)); /* the late event finds nothing to do */
    ck_assert(!next_round(&l));
    ck_assert_uint_eq(rig_status(&l.rig), 0xee);
    fake_driver_start(&l.rig.d, ALL_FEATURES, 64);
    send(&l, types[_i]);
    while (next_round(&l))
        continue;
    ck_assert(fake_queue_collect(&l.rig.d.queues[0], NULL, NULL));
    ck_assert_uint_eq(fake_queue_used_count(&l.rig.d.queues[0]), 0);
    if (types[_i] != VIRTIO_BLK_T_IN)
        expect(&l, types[_i]);
    /* And the end of the device. */
    send(&l, types[_i]);
    large_fini(&l);
}
END_TEST

/* Only the queue is stopped: nothing of it is touched any more. */
START_TEST(test_queue_stopped)
{
    struct large l;

    large_init(&l);
    send(&l, types[_i]);
    fake_driver_write(&l.rig.d, 0x030, 0); /* QueueSel */
    fake_driver_write(&l.rig.d, 0x044, 0); /* QueueReady */
    while (next_round(&l))
        continue;
    ck_assert_uint_eq(rig_status(&l.rig), 0xee);
    ck_assert_uint_eq(fake_queue_used_count(&l.rig.d.queues[0]), 0);
    virtio_mmio_quiesce(&l.rig.d.mmio);
    large_fini(&l);
}
END_TEST

/* A pause between two steps, and nothing more: it is run anew. */
START_TEST(test_pause)
{
    struct large l;

    large_init(&l);
    send(&l, types[_i]);
    virtio_mmio_quiesce(&l.rig.d.mmio);
    ck_assert_uint_eq(queue_of(&l)->in_flight, 0);
    ck_assert_uint_eq(rig_status(&l.rig), 0xee);
    while (next_round(&l))
        continue;
    ck_assert(fake_queue_collect(&l.rig.d.queues[0], NULL, NULL));
    ck_assert_uint_eq(rig_status(&l.rig), VIRTIO_BLK_S_OK);
    expect(&l, types[_i]);
    large_fini(&l);
}
END_TEST

/* Saved between two steps; another monitor does all of it. */
START_TEST(test_restore)
{
    struct virtio_device *dev = NULL;
    struct large l;
    uint64_t clusters;
    int fd = blk_memfd();

    large_init(&l);
    send(&l, types[_i]);
    ck_assert_uint_eq(queue_of(&l)->in_flight, 1);
    virtio_mmio_quiesce(&l.rig.d.mmio);
    ck_assert_int_eq(cow_overlay_save(l.b, fd, &clusters), 0);
    l.layer_fd = fd;
    l.b = overlay(&l);
    ck_assert_int_eq(virtio_blk_new(l.b, "disk-0", &dev), 0);
    fake_driver_move(&l.rig.d, dev);
    l.due = 0; /* an eventfd is no state */
    virtio_mmio_restored(&l.rig.d.mmio);
    while (next_round(&l))
        continue;
    ck_assert(fake_queue_collect(&l.rig.d.queues[0], NULL, NULL));
    ck_assert_uint_eq(rig_status(&l.rig), VIRTIO_BLK_S_OK);
    if (types[_i] != VIRTIO_BLK_T_DISCARD) /* a hint: it may stay */
        expect(&l, types[_i]);
    large_fini(&l);
}
END_TEST

/* Segments that together are longer than the disk are no honest request. */
START_TEST(test_more_than_the_disk)
{
    uint32_t half = DISK_SECTORS / 2;
    struct rig r;

    rig_init(&r, false, ALL_FEATURES);
    for (unsigned i = 0; i < 16; i++)
        rig_put_segment(&r, i, 0, DISK_SECTORS, 0);
    ck_assert_uint_eq(
        rig_request(&r, VIRTIO_BLK_T_DISCARD, 0, 256, false, NULL),
        VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig_violations(&r), 1);
    rig_expect_disk(&r, 0, rig_sector_byte(0));
    rig_put_segment(&r, 0, 0, half, 0);
    rig_put_segment(&r, 1, half, half, 0);
    rig_put_segment(&r, 2, 5, 1, 0);
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_DISCARD, 0, 48, false, NULL),
                      VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig_request(&r, VIRTIO_BLK_T_DISCARD, 0, 32, false, NULL),
                      VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig_violations(&r), 2);
    rig_expect_disk(&r, 0, 0);
    rig_fini(&r);
}
END_TEST

/* ---- large disks ---- */

#define HUGE_SIZE ((uint64_t)4 << 40)
#define SEGMENT_MAX ((uint64_t)VIRTIO_BLK_DISCARD_SECTORS_MAX * SECTOR)

/* A backend that counts what is asked of the one behind it (owned). */
struct counted {
    struct block_backend backend;
    struct block_backend *behind;
    unsigned *calls;
};

static struct block_backend *behind(struct block_backend *b)
{
    ++*((struct counted *)b)->calls;
    return ((struct counted *)b)->behind;
}

static int counted_preadv(struct block_backend *b, const struct iovec *iov,
                          unsigned count, uint64_t offset, uint64_t len)
{
    struct block_backend *to = behind(b);

    return to->ops->preadv(to, iov, count, offset, len);
}

static int counted_discard(struct block_backend *b, uint64_t offset,
                           uint64_t len)
{
    struct block_backend *to = behind(b);

    return to->ops->discard(to, offset, len);
}

static int counted_write_zeroes(struct block_backend *b, uint64_t offset,
                                uint64_t len, bool unmap)
{
    struct block_backend *to = behind(b);

    return to->ops->write_zeroes(to, offset, len, unmap);
}

static uint64_t counted_skip(struct block_backend *b, uint64_t offset,
                             uint64_t len, bool discard)
{
    struct block_backend *to = ((struct counted *)b)->behind;

    return to->ops->skip(to, offset, len, discard);
}

static uint64_t counted_zeros(struct block_backend *b, uint64_t offset,
                              uint64_t len)
{
    struct block_backend *to = ((struct counted *)b)->behind;

    return to->ops->zeros(to, offset, len);
}

static void counted_free(struct block_backend *b)
{
    struct block_backend *to = ((struct counted *)b)->behind;

    to->ops->free(to);
    free(b);
}

static struct block_backend *counted_new(struct block_backend *to,
                                         unsigned *calls)
{
    static const struct block_backend_ops ops = {
        .preadv = counted_preadv,
        .discard = counted_discard,
        .write_zeroes = counted_write_zeroes,
        .skip = counted_skip,
        .zeros = counted_zeros,
        .free = counted_free,
    };
    struct counted *c = calloc(1, sizeof(*c));

    c->backend = *to;
    c->backend.ops = &ops;
    c->behind = to;
    c->calls = calls;
    return &c->backend;
}

/* All of a sparse disk, which holds a few clusters far from each other. */
START_TEST(test_huge_disk)
{
    bool discard = _i % 2 == 0, raw = _i >= 2;
    uint32_t type = discard ? VIRTIO_BLK_T_DISCARD : VIRTIO_BLK_T_WRITE_ZEROES;
    unsigned per_request = discard ? 16 : 1, calls = 0, base_calls = 0;
    struct cow_overlay_options options = {0};
    struct block_backend *b, *inner;
    uint8_t bytes[SECTOR], zeros[SECTOR] = {0};
    int base_fd = blk_disk(NULL, HUGE_SIZE);
    struct rig r;

    memset(bytes, FILL, SECTOR);
    inner = blk_raw(base_fd, !raw);
    if (!raw)
        ck_assert_int_eq(cow_overlay_open(counted_new(inner, &base_calls),
                                          blk_memfd(), &options, &inner),
                         0);
    for (uint64_t at = 3 * MIB; at < HUGE_SIZE; at += HUGE_SIZE / 8)
        ck_assert_int_eq(blk_write(inner, bytes, SECTOR, at), 0);
    b = counted_new(inner, &calls);
    base_calls = 0;
    r.fd = base_fd;
    rig_init_backend(&r, b, ALL_FEATURES, 64);
    for (uint64_t at = 0; at < HUGE_SIZE; at += per_request * SEGMENT_MAX) {
        for (unsigned i = 0; i < per_request; i++)
            rig_put_segment(&r, i, (at + i * SEGMENT_MAX) / SECTOR,
                            VIRTIO_BLK_DISCARD_SECTORS_MAX, 0);
        ck_assert_uint_eq(
            rig_request(&r, type, 0, per_request * 16, false, NULL),
            VIRTIO_BLK_S_OK);
    }
    /* The work is that of what is there, whatever the size. */
    ck_assert_uint_eq(base_calls, 0);
    if (!raw || discard)
        ck_assert_uint_le(calls, 3 * 8);
    for (uint64_t at = 3 * MIB; at < HUGE_SIZE; at += HUGE_SIZE / 8) {
        ck_assert_int_eq(blk_read(inner, bytes, SECTOR, at), 0);
        ck_assert_mem_eq(bytes, zeros, SECTOR);
    }
    rig_fini(&r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("virtio_blk_steps");
    TCase *t = tcase_create("steps");
    SRunner *sr;
    int failed;

    suite_add_tcase(s, t);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, test_rounds, 0, ARRAY_SIZE(types));
    tcase_add_loop_test(t, test_one_turn, 0, ARRAY_SIZE(types));
    tcase_add_loop_test(t, test_reset, 0, ARRAY_SIZE(types));
    tcase_add_loop_test(t, test_queue_stopped, 0, ARRAY_SIZE(types));
    tcase_add_loop_test(t, test_pause, 0, ARRAY_SIZE(types));
    tcase_add_loop_test(t, test_restore, 0, ARRAY_SIZE(types));
    tcase_add_test(t, test_more_than_the_disk);
    tcase_add_loop_test(t, test_huge_disk, 0, 3);
    sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
