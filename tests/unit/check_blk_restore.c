/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk saved and restored in the middle of its work: a script of requests is
 * run once to its end, then again with a new monitor taking over at every
 * possible point. Guest memory and disk must come out the same.
 *
 * A take-over is what a restore does: the state is saved, the overlay and the
 * layer below it are written as one file, and a fresh device over a fresh
 * private overlay over that file loads the state.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/blk/virtio_blk.h"
#include "devices/blk/virtio_blk_request.h"
#include "tests/blk_disk.h"
#include "tests/fake_guest.h"

#define DISK_SIZE (4 * CLUSTER + 5 * SECTOR)
#define SECTORS (DISK_SIZE / SECTOR)
#define MEMORY (1u << 20)
#define STEPS 12u
#define CUTS_PER_STEP 3u
#define CUTS (STEPS * CUTS_PER_STEP)
#define CUT_NEVER UINT32_MAX
#define CUT_ALWAYS (UINT32_MAX - 1)
#define SLOTS 8u /* requests of one step */
#define DATA_MAX (32u << 10)
#define QUEUE_SIZE 32u
#define REG_INTERRUPT_STATUS 0x060u
#define REG_INTERRUPT_ACK 0x064u

struct world {
    struct fake_driver d;
    struct block_backend *b; /* the device's */
    int base_fd;
    int layer_fd; /* -1: none yet */
    gpa_t header[SLOTS];
    gpa_t data[SLOTS];
    gpa_t status[SLOTS];
    bool later; /* the device asked to be notified again */
    uint32_t cut_at;
    uint32_t cuts; /* points passed */
};

static void note_later(void *ctx, unsigned queue)
{
    struct world *w = ctx;

    ck_assert_uint_eq(queue, 0);
    w->later = true;
}

static struct virtio_device *fresh_device(struct world *w)
{
    struct cow_overlay_options private = {0};
    struct cow_overlay_options layer = {.readonly = true};
    struct virtio_device *dev = NULL;

    w->b = blk_raw(w->base_fd, true);
    if (w->layer_fd >= 0)
        ck_assert_int_eq(
            cow_overlay_open(w->b, dup(w->layer_fd), &layer, &w->b), 0);
    ck_assert_int_eq(cow_overlay_open(w->b, blk_memfd(), &private, &w->b), 0);
    ck_assert_int_eq(virtio_blk_new(w->b, "disk-0", &dev), 0);
    return dev;
}

static void world_init(struct world *w, uint64_t features, uint32_t cut_at)
{
    static uint8_t bytes[DISK_SIZE];

    memset(w, 0, sizeof(*w));
    w->layer_fd = -1;
    w->cut_at = cut_at;
    blk_random_state = 7;
    for (size_t i = 0; i < DISK_SIZE; i++)
        bytes[i] = (uint8_t)blk_random(256);
    memset(bytes + CLUSTER, 0, CLUSTER);
    w->base_fd = blk_disk(bytes, DISK_SIZE);
    fake_driver_init(&w->d, fresh_device(w), MEMORY);
    w->d.mmio.notify_later = note_later;
    w->d.mmio.notify_later_ctx = w;
    for (unsigned i = 0; i < SLOTS; i++) {
        w->header[i] = fake_guest_alloc(&w->d.guest, 16, 16);
        w->data[i] = fake_guest_alloc(&w->d.guest, DATA_MAX, 16);
        w->status[i] = fake_guest_alloc(&w->d.guest, 1, 1);
    }
    fake_driver_start(&w->d, features, QUEUE_SIZE);
}

static void world_fini(struct world *w)
{
    fake_driver_fini(&w->d);
    close(w->base_fd);
    if (w->layer_fd >= 0)
        close(w->layer_fd);
}

/* Another monitor goes on: what a snapshot and its restore do to a disk. */
static void take_over(struct world *w)
{
    unsigned interrupts = w->d.interrupts;
    int fd = blk_memfd();
    uint64_t clusters;

    virtio_mmio_quiesce(&w->d.mmio);
    ck_assert_int_eq(cow_overlay_save(w->b, fd, &clusters), 0);
    if (w->layer_fd >= 0)
        close(w->layer_fd);
    w->layer_fd = fd;
    fake_driver_move(&w->d, fresh_device(w));
    ck_assert_uint_eq(w->b->stats.clusters_present, 0);
    w->later = false; /* an eventfd is no state */
    virtio_mmio_restored(&w->d.mmio);
    if (fake_driver_read(&w->d, REG_INTERRUPT_STATUS) != 0)
        ck_assert_uint_gt(w->d.interrupts, interrupts);
}

static void cut_point(struct world *w)
{
    if (w->cut_at == w->cuts++ || w->cut_at == CUT_ALWAYS)
        take_over(w);
}

/* Fills in a random request; some are nonsense. */
static unsigned random_request(struct world *w, unsigned slot,
                               struct fake_buf bufs[3])
{
    static const uint32_t types[] = {
        VIRTIO_BLK_T_IN,     VIRTIO_BLK_T_OUT,
        VIRTIO_BLK_T_OUT,    VIRTIO_BLK_T_WRITE_ZEROES,
        VIRTIO_BLK_T_FLUSH,  VIRTIO_BLK_T_DISCARD,
        VIRTIO_BLK_T_GET_ID, 99};
    uint32_t type = types[blk_random(ARRAY_SIZE(types))];
    uint32_t sector = blk_random(SECTORS);
    uint32_t sectors = 1 + blk_random(DATA_MAX / SECTOR);
    uint8_t *header = fake_guest_ptr(&w->d.guest, w->header[slot], 16);
    uint8_t *data = fake_guest_ptr(&w->d.guest, w->data[slot], DATA_MAX);
    bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
    uint32_t len = sectors * SECTOR;

    num_put_le32(header, type);
    num_put_le32(header + 4, 0);
    num_put_le64(header + 8, sector);
    bufs[0] = (struct fake_buf){w->header[slot], 16, false};
    bufs[2] = (struct fake_buf){w->status[slot], 1, true};
    if (type == VIRTIO_BLK_T_FLUSH) {
        bufs[1] = bufs[2];
        return 2;
    }
    if (type == VIRTIO_BLK_T_OUT)
        memset(data, (int)(1 + blk_random(255)), len);
    if (type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES) {
        num_put_le64(data, sector);
        num_put_le32(data + 8, sectors);
        num_put_le32(data + 12,
                     type == VIRTIO_BLK_T_WRITE_ZEROES ? blk_random(2) : 0);
        len = 16;
    }
    bufs[1] = (struct fake_buf){w->data[slot], len, in};
    return 3;
}

/* Publishes requests, kicks, and collects, with a cut point at each turn. */
static void step(struct world *w, bool indirect)
{
    struct fake_queue *q = &w->d.queues[0];
    unsigned count = 1 + blk_random(SLOTS);

    for (unsigned i = 0; i < count; i++) {
        struct fake_buf bufs[3];
        unsigned n = random_request(w, i, bufs);

        if (indirect)
            ck_assert_int_ge(fake_queue_add_indirect(q, bufs, n), 0);
        else
            ck_assert_int_ge(fake_queue_add(q, bufs, n), 0);
    }
    cut_point(w); /* published, not kicked */
    fake_driver_kick(&w->d, 0);
    cut_point(w); /* done, or a round cut short */
    while (w->later) {
        w->later = false;
        virtio_mmio_notify(&w->d.mmio, 0);
    }
    for (unsigned i = 0; i < count; i++)
        ck_assert(fake_queue_collect(q, NULL, NULL));
    ck_assert_uint_eq(fake_queue_used_count(q), 0);
    cut_point(w); /* interrupt not acknowledged */
    fake_driver_write(&w->d, REG_INTERRUPT_ACK,
                      fake_driver_read(&w->d, REG_INTERRUPT_STATUS));
}

struct outcome {
    uint8_t memory[MEMORY];
    uint8_t disk[DISK_SIZE];
    bool cut_short; /* a round was */
};

static void run_script(uint64_t features, uint32_t cut_at,
                       struct outcome *ret_outcome)
{
    static struct world w;

    world_init(&w, features, cut_at);
    ret_outcome->cut_short = false;
    for (unsigned i = 0; i < STEPS; i++)
        step(&w, features & VIRTIO_FEATURE_INDIRECT_DESC);
    ck_assert_uint_eq(w.cuts, CUTS);
    memcpy(ret_outcome->memory,
           fake_guest_ptr(&w.d.guest, FAKE_GUEST_BASE, MEMORY), MEMORY);
    ck_assert_int_eq(blk_read(w.b, ret_outcome->disk, DISK_SIZE, 0), 0);
    world_fini(&w);
}

static const uint64_t feature_sets[] = {
    0,
    VIRTIO_FEATURE_EVENT_IDX,
    VIRTIO_FEATURE_INDIRECT_DESC | VIRTIO_BLK_F_FLUSH |
        VIRTIO_BLK_F_WRITE_ZEROES,
    UINT64_MAX,
};

START_TEST(test_taken_over_at_every_step)
{
    static struct outcome want, got;
    uint64_t features = feature_sets[_i];

    run_script(features, CUT_NEVER, &want);
    for (uint32_t cut = 0; cut <= CUTS; cut++) {
        run_script(features, cut < CUTS ? cut : CUT_ALWAYS, &got);
        if (memcmp(want.memory, got.memory, MEMORY) != 0)
            ck_abort_msg("memory differs after a cut at %u", cut);
        if (memcmp(want.disk, got.disk, DISK_SIZE) != 0)
            ck_abort_msg("the disk differs after a cut at %u", cut);
    }
}
END_TEST

/* The script is one where something can go wrong: rounds are cut short. */
START_TEST(test_script_cuts_rounds_short)
{
    static struct world w;
    unsigned rounds = 0;

    world_init(&w, UINT64_MAX, CUT_NEVER);
    for (unsigned i = 0; i < SLOTS; i++) {
        struct fake_buf bufs[2] = {{w.header[i], 16, false},
                                   {w.status[i], 1, true}};

        num_put_le32(fake_guest_ptr(&w.d.guest, w.header[i], 16),
                     VIRTIO_BLK_T_FLUSH);
        ck_assert_int_ge(fake_queue_add(&w.d.queues[0], bufs, 2), 0);
    }
    fake_driver_kick(&w.d, 0);
    ck_assert(w.later);
    ck_assert_uint_lt(fake_queue_used_count(&w.d.queues[0]), SLOTS);
    /* Only its being served after the restore brings the rest. */
    take_over(&w);
    for (; w.later && rounds < SLOTS; rounds++) {
        w.later = false;
        virtio_mmio_notify(&w.d.mmio, 0);
    }
    ck_assert_uint_eq(fake_queue_used_count(&w.d.queues[0]), SLOTS);
    world_fini(&w);
}
END_TEST

/* What was negotiated is the device's too: DISCARD works, or does not. */
START_TEST(test_features_are_loaded)
{
    static struct world w;
    struct fake_buf bufs[3];

    world_init(&w, _i == 0 ? 0 : UINT64_MAX, CUT_NEVER);
    take_over(&w);
    bufs[0] = (struct fake_buf){w.header[0], 16, false};
    bufs[1] = (struct fake_buf){w.data[0], 16, false};
    bufs[2] = (struct fake_buf){w.status[0], 1, true};
    num_put_le32(fake_guest_ptr(&w.d.guest, w.header[0], 16),
                 VIRTIO_BLK_T_DISCARD);
    num_put_le32(fake_guest_ptr(&w.d.guest, w.data[0] + 8, 4), 1);
    fake_driver_request(&w.d, 0, bufs, 3);
    ck_assert_uint_eq(*(uint8_t *)fake_guest_ptr(&w.d.guest, w.status[0], 1),
                      _i == 0 ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_OK);
    world_fini(&w);
}
END_TEST

/* A disk of another size, or of another temper, is another disk. */
START_TEST(test_other_disk_is_refused)
{
    static struct world w;
    struct virtio_device *dev = NULL;
    struct fake_state state;
    int fd = blk_disk(NULL, _i == 0 ? DISK_SIZE + SECTOR : DISK_SIZE);

    world_init(&w, 0, CUT_NEVER); /* no feature that would tell them apart */
    fake_driver_save(&w.d, &state);
    ck_assert_int_eq(virtio_blk_new(blk_raw(fd, _i == 1), "disk-0", &dev), 0);
    fake_driver_replace(&w.d, dev);
    ck_assert_int_eq(fake_driver_load(&w.d, state.bytes, state.len),
                     _i == 2 ? 0 : -EBADMSG);
    close(fd);
    world_fini(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blk_restore");
    TCase *tc = tcase_create("restore");
    SRunner *sr;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_taken_over_at_every_step, 0,
                        (int)ARRAY_SIZE(feature_sets));
    tcase_add_test(tc, test_script_cuts_rounds_short);
    tcase_add_loop_test(tc, test_features_are_loaded, 0, 2);
    tcase_add_loop_test(tc, test_other_disk_is_refused, 0, 3);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
