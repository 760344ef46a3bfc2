/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-mmio transport: every offset, size and direction in every device
 * state with a real device behind it, and the rules one by one.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/rng/virtio_rng.h"
#include "devices/virtio/virtio_mmio.h"
#include "tests/fake_guest.h"

#define REG_DEVICE_FEATURES 0x010u
#define REG_DEVICE_FEATURES_SEL 0x014u
#define REG_DRIVER_FEATURES 0x020u
#define REG_DRIVER_FEATURES_SEL 0x024u
#define REG_QUEUE_SEL 0x030u
#define REG_QUEUE_NUM_MAX 0x034u
#define REG_QUEUE_NUM 0x038u
#define REG_QUEUE_READY 0x044u
#define REG_QUEUE_NOTIFY 0x050u
#define REG_INTERRUPT_STATUS 0x060u
#define REG_INTERRUPT_ACK 0x064u
#define REG_STATUS 0x070u
#define REG_QUEUE_DESC_LOW 0x080u
#define REG_QUEUE_DEVICE_HIGH 0x0a4u
#define REG_CONFIG_GENERATION 0x0fcu
#define REG_CONFIG 0x100u

#define ACKNOWLEDGE 1u
#define DRIVER 2u
#define DRIVER_OK 4u
#define FEATURES_OK 8u
#define NEEDS_RESET 64u
#define FAILED 128u
#define UP_TO_FEATURES (ACKNOWLEDGE | DRIVER | FEATURES_OK)
#define UP (UP_TO_FEATURES | DRIVER_OK)

/* ---- a device that only counts ---- */

struct probe {
    struct virtio_device dev; /* first */
    unsigned activated;
    unsigned resets;
    unsigned notified[2];
    unsigned freed;
    int activate_result;
    uint8_t config[6];
};

static struct probe probe;

static struct probe *to_probe(struct virtio_device *dev)
{
    return (struct probe *)dev;
}

static uint64_t probe_features(const struct virtio_device *dev)
{
    (void)dev;
    return (uint64_t)1 << 3 | (uint64_t)1 << 40;
}

static int probe_activate(struct virtio_device *dev)
{
    to_probe(dev)->activated++;
    return to_probe(dev)->activate_result;
}

static void probe_reset(struct virtio_device *dev)
{
    to_probe(dev)->resets++;
}

static void probe_notify(struct virtio_device *dev, unsigned queue)
{
    to_probe(dev)->notified[queue]++;
}

static void probe_config_read(const struct virtio_device *dev, uint32_t offset,
                              void *ret_bytes, size_t len)
{
    const struct probe *p = (const struct probe *)dev;

    memset(ret_bytes, 0, len);
    for (size_t i = 0; i < len && offset + i < sizeof(p->config); i++)
        ((uint8_t *)ret_bytes)[i] = p->config[offset + i];
}

static void probe_config_write(struct virtio_device *dev, uint32_t offset,
                               const void *bytes, size_t len)
{
    struct probe *p = to_probe(dev);

    for (size_t i = 0; i < len && offset + i < sizeof(p->config); i++)
        p->config[offset + i] = ((const uint8_t *)bytes)[i];
}

static void probe_free(struct virtio_device *dev)
{
    to_probe(dev)->freed++;
}

static const struct virtio_device_ops probe_ops = {
    .features = probe_features,
    .activate = probe_activate,
    .reset = probe_reset,
    .queue_notify = probe_notify,
    .config_read = probe_config_read,
    .config_write = probe_config_write,
    .free = probe_free,
};

static struct fake_driver d;

static void start_probe(void)
{
    memset(&probe, 0, sizeof(probe));
    probe.dev.ops = &probe_ops;
    probe.dev.device_id = 77;
    probe.dev.queue_count = 2;
    probe.dev.queues[0].size_max = 64;
    probe.dev.queues[1].size_max = 256;
    memcpy(probe.config, "config", 6);
    fake_driver_init(&d, &probe.dev, 0);
}

static uint32_t rd(uint32_t reg)
{
    return fake_driver_read(&d, reg);
}

static void wr(uint32_t reg, uint32_t value)
{
    fake_driver_write(&d, reg, value);
}

static uint64_t violations(void)
{
    return d.mmio.dev->violations;
}

/* The write must be ignored and counted. */
static void wr_refused(uint32_t reg, uint32_t value)
{
    uint64_t before = violations();

    wr(reg, value);
    ck_assert_msg(violations() == before + 1,
                  "writing %#x to %#x was not a violation", value, reg);
}

static void wr_accepted(uint32_t reg, uint32_t value)
{
    uint64_t before = violations();

    wr(reg, value);
    ck_assert_msg(violations() == before, "writing %#x to %#x was refused",
                  value, reg);
}

static void offer_version_1(void)
{
    wr_accepted(REG_DRIVER_FEATURES_SEL, 1);
    wr_accepted(REG_DRIVER_FEATURES, 1);
}

static void reach_features_ok(void)
{
    wr(REG_STATUS, 0);
    wr_accepted(REG_STATUS, ACKNOWLEDGE);
    wr_accepted(REG_STATUS, ACKNOWLEDGE | DRIVER);
    offer_version_1();
    wr_accepted(REG_STATUS, UP_TO_FEATURES);
    ck_assert_uint_eq(rd(REG_STATUS), UP_TO_FEATURES);
}

/* ---- the rules ---- */

START_TEST(identity)
{
    start_probe();
    ck_assert_uint_eq(rd(0x000), 0x74726976);
    ck_assert_uint_eq(rd(0x004), 2);
    ck_assert_uint_eq(rd(0x008), 77);
    ck_assert_uint_ne(rd(0x00c), 0);
    /* No shared memory regions, whichever is selected. */
    for (uint32_t reg = 0x0b0; reg <= 0x0bc; reg += 4) {
        wr_accepted(0x0ac, reg);
        ck_assert_uint_eq(rd(reg), UINT32_MAX);
    }
    ck_assert_uint_eq(rd(0x0c0), 0); /* QueueReset is not offered */
    wr_refused(0x0c0, 1);
    fake_driver_fini(&d);
    ck_assert_uint_eq(probe.freed, 1);
    virtio_mmio_fini(&d.mmio);
    ck_assert_uint_eq(probe.freed, 1);
}
END_TEST

START_TEST(empty_slot)
{
    fake_driver_init(&d, NULL, 0);
    for (uint64_t offset = 0; offset < VIRTIO_MMIO_SIZE; offset++) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            uint64_t want = 0;

            if (offset + size > VIRTIO_MMIO_SIZE)
                continue;
            if (size == 4 && offset == 0)
                want = 0x74726976;
            else if (size == 4 && offset == 4)
                want = 2;
            virtio_mmio_bus_ops.write(&d.mmio, offset, size, UINT64_MAX);
            if (virtio_mmio_bus_ops.read(&d.mmio, offset, size) != want)
                ck_abort_msg("offset %#x size %u", (unsigned)offset, size);
        }
    }
    virtio_mmio_notify(&d.mmio, 0);
    ck_assert_uint_eq(d.interrupts, 0);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(status_order)
{
    start_probe();
    wr_refused(REG_STATUS, DRIVER);
    wr_refused(REG_STATUS, FEATURES_OK);
    wr_refused(REG_STATUS, DRIVER_OK);
    wr_refused(REG_STATUS, 16);
    wr_refused(REG_STATUS, 0x100 | ACKNOWLEDGE);
    ck_assert_uint_eq(rd(REG_STATUS), 0);
    wr_accepted(REG_STATUS, ACKNOWLEDGE);
    wr_refused(REG_STATUS, ACKNOWLEDGE | FEATURES_OK);
    wr_refused(REG_STATUS, DRIVER); /* takes ACKNOWLEDGE back */
    wr_accepted(REG_STATUS, ACKNOWLEDGE | DRIVER);
    wr_refused(REG_STATUS, ACKNOWLEDGE | DRIVER | DRIVER_OK);
    wr_refused(REG_STATUS, UP_TO_FEATURES); /* VERSION_1 is missing */
    ck_assert_uint_eq(rd(REG_STATUS), ACKNOWLEDGE | DRIVER);
    offer_version_1();
    wr_accepted(REG_STATUS, UP_TO_FEATURES);
    ck_assert_uint_eq(probe.activated, 0);
    wr_accepted(REG_STATUS, UP);
    ck_assert_uint_eq(probe.activated, 1);
    ck_assert(probe.dev.active);
    wr_accepted(REG_STATUS, UP);
    ck_assert_uint_eq(probe.activated, 1);
    wr_accepted(REG_STATUS, UP | FAILED);
    wr_accepted(REG_STATUS, 0);
    ck_assert_uint_eq(rd(REG_STATUS), 0);
    ck_assert_uint_eq(probe.resets, 1);
    ck_assert(!probe.dev.active);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(failed_stops_everything)
{
    start_probe();
    wr(REG_STATUS, ACKNOWLEDGE);
    wr_accepted(REG_STATUS, ACKNOWLEDGE | FAILED);
    wr_refused(REG_STATUS, ACKNOWLEDGE | FAILED | DRIVER);
    fake_driver_start(&d, 0, 8); /* resets */
    fake_driver_kick_force(&d, 0);
    ck_assert_uint_eq(probe.notified[0], 1);
    wr_accepted(REG_STATUS, UP | FAILED);
    fake_driver_kick_force(&d, 0);
    ck_assert_uint_eq(probe.notified[0], 1);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(features)
{
    uint64_t offered = 0;
    uint64_t want = probe_features(NULL) | VIRTIO_FEATURE_INDIRECT_DESC |
                    VIRTIO_FEATURE_EVENT_IDX | VIRTIO_FEATURE_VERSION_1;

    start_probe();
    for (uint32_t half = 0; half < 2; half++) {
        wr_accepted(REG_DEVICE_FEATURES_SEL, half);
        offered |= (uint64_t)rd(REG_DEVICE_FEATURES) << (32 * half);
    }
    ck_assert_uint_eq(offered, want);
    wr_accepted(REG_DEVICE_FEATURES_SEL, 2);
    ck_assert_uint_eq(rd(REG_DEVICE_FEATURES), 0);
    wr_accepted(REG_DEVICE_FEATURES_SEL, UINT32_MAX);
    ck_assert_uint_eq(rd(REG_DEVICE_FEATURES), 0);

    wr_refused(REG_DRIVER_FEATURES, 8); /* before DRIVER */
    wr(REG_STATUS, ACKNOWLEDGE);
    wr_refused(REG_DRIVER_FEATURES, 8);
    wr(REG_STATUS, ACKNOWLEDGE | DRIVER);
    offer_version_1();
    wr_accepted(REG_DRIVER_FEATURES_SEL, 7);
    wr_accepted(REG_DRIVER_FEATURES, 0);
    wr_refused(REG_DRIVER_FEATURES, 1); /* bit 224 */
    wr_accepted(REG_DRIVER_FEATURES_SEL, 0);
    wr_accepted(REG_DRIVER_FEATURES, 8 | 16); /* 16 is not offered */
    wr_refused(REG_STATUS, UP_TO_FEATURES);
    ck_assert_uint_eq(rd(REG_STATUS), ACKNOWLEDGE | DRIVER);
    wr_accepted(REG_DRIVER_FEATURES, 8);
    wr_accepted(REG_STATUS, UP_TO_FEATURES);
    wr_refused(REG_DRIVER_FEATURES, 0); /* too late */
    wr_accepted(REG_STATUS, UP);
    wr_refused(REG_DRIVER_FEATURES, 0);
    ck_assert_uint_eq(probe.dev.driver_features, 8 | VIRTIO_FEATURE_VERSION_1);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(queue_geometry)
{
    struct virtqueue *vq = &probe.dev.queues[1];

    start_probe();
    wr(REG_QUEUE_SEL, 1);
    ck_assert_uint_eq(rd(REG_QUEUE_NUM_MAX), 256);
    wr_refused(REG_QUEUE_NUM, 8); /* before FEATURES_OK */
    reach_features_ok();
    for (uint32_t reg = REG_QUEUE_NUM_MAX; reg <= REG_QUEUE_NUM_MAX; reg += 4)
        wr_refused(reg, 8);
    wr(REG_QUEUE_SEL, 2);
    ck_assert_uint_eq(rd(REG_QUEUE_NUM_MAX), 0);
    ck_assert_uint_eq(rd(REG_QUEUE_READY), 0);
    wr_refused(REG_QUEUE_NUM, 8);
    wr_refused(REG_QUEUE_READY, 1);
    wr(REG_QUEUE_SEL, UINT32_MAX);
    wr_refused(REG_QUEUE_DESC_LOW, 8);

    wr(REG_QUEUE_SEL, 1);
    wr_refused(REG_QUEUE_READY, 1); /* no size yet */
    wr_refused(REG_QUEUE_NUM, 0);
    wr_refused(REG_QUEUE_NUM, 3);
    wr_refused(REG_QUEUE_NUM, 512);
    wr_refused(REG_QUEUE_NUM, 0x10008); /* 8, if cut to 16 bits */
    wr_refused(REG_QUEUE_NUM, UINT32_MAX);
    wr_accepted(REG_QUEUE_NUM, 128);
    for (uint32_t i = 0; i < 3; i++) {
        wr_accepted(REG_QUEUE_DESC_LOW + 0x10 * i, 0x89abcd00 + i);
        wr_accepted(REG_QUEUE_DESC_LOW + 0x10 * i + 4, 0x01234567 + i);
    }
    ck_assert_uint_eq(vq->size, 128);
    ck_assert_uint_eq(vq->desc, 0x0123456789abcd00);
    ck_assert_uint_eq(vq->avail, 0x0123456889abcd01);
    ck_assert_uint_eq(vq->used, 0x0123456989abcd02);
    wr_refused(REG_QUEUE_READY, 2);
    wr_accepted(REG_QUEUE_READY, 1);
    ck_assert_uint_eq(rd(REG_QUEUE_READY), 1);
    for (uint32_t i = 0; i < 3; i++)
        wr_refused(REG_QUEUE_DESC_LOW + 0x10 * i, 0);
    wr_refused(REG_QUEUE_NUM, 64);
    wr_accepted(REG_QUEUE_READY, 0);
    wr_accepted(REG_QUEUE_NUM, 64); /* not ready: may change again */
    fake_driver_fini(&d);
}
END_TEST

/* Addresses are checked when the device starts: it asks for a reset. */
START_TEST(bad_geometry_needs_reset)
{
    start_probe();
    reach_features_ok();
    wr(REG_QUEUE_SEL, 0);
    wr(REG_QUEUE_NUM, 8);
    wr(REG_QUEUE_READY, 1); /* all addresses 0: not guest memory */
    wr(REG_STATUS, UP);
    ck_assert_uint_eq(rd(REG_STATUS), UP | NEEDS_RESET);
    ck_assert_uint_eq(probe.activated, 0);
    ck_assert(!probe.dev.active);
    ck_assert_uint_eq(d.interrupts, 1);
    ck_assert_uint_eq(rd(REG_INTERRUPT_STATUS), 2);
    fake_driver_kick_force(&d, 0);
    ck_assert_uint_eq(probe.notified[0], 0);
    /* A driver that adds to what it reads writes NEEDS_RESET back. */
    wr_accepted(REG_STATUS, UP | NEEDS_RESET);
    wr_accepted(REG_STATUS, 0);
    ck_assert_uint_eq(rd(REG_STATUS), 0);
    ck_assert_uint_eq(rd(REG_INTERRUPT_STATUS), 0);
    fake_driver_start(&d, 0, 8);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(failed_activation_needs_reset)
{
    start_probe();
    probe.activate_result = -ENOMEM;
    reach_features_ok();
    wr(REG_STATUS, UP);
    ck_assert_uint_eq(rd(REG_STATUS), UP | NEEDS_RESET);
    ck_assert_uint_eq(probe.activated, 1);
    ck_assert(!probe.dev.active);
    fake_driver_fini(&d);
}
END_TEST

/* CVE-2026-5747's class: nothing about a running queue can be changed. */
START_TEST(geometry_is_frozen)
{
    struct virtqueue before[2];

    start_probe();
    fake_driver_start(&d, VIRTIO_FEATURE_EVENT_IDX, 8);
    memcpy(before, probe.dev.queues, sizeof(before));
    for (uint32_t queue = 0; queue < 4; queue++) {
        wr(REG_QUEUE_SEL, queue);
        wr_refused(REG_QUEUE_NUM, 16);
        for (uint32_t reg = REG_QUEUE_DESC_LOW; reg <= REG_QUEUE_DEVICE_HIGH;
             reg += 4)
            wr_refused(reg, 0x1000);
    }
    wr(REG_QUEUE_SEL, 0);
    wr_refused(REG_QUEUE_READY, 1);
    ck_assert_int_eq(memcmp(before, probe.dev.queues, sizeof(before)), 0);

    /* A stopped queue stays stopped, and its geometry stays closed. */
    wr_accepted(REG_QUEUE_READY, 0);
    ck_assert_uint_eq(rd(REG_QUEUE_READY), 0);
    wr_refused(REG_QUEUE_NUM, 16);
    wr_refused(REG_QUEUE_READY, 1);
    fake_driver_kick_force(&d, 0);
    ck_assert_uint_eq(probe.notified[0], 0);
    fake_driver_kick_force(&d, 1);
    ck_assert_uint_eq(probe.notified[1], 1);
    ck_assert(virtqueue_check(&probe.dev.queues[0]));
    fake_driver_fini(&d);
}
END_TEST

START_TEST(notify)
{
    start_probe();
    fake_driver_kick_force(&d, 0); /* not active: ignored */
    virtio_mmio_notify(&d.mmio, 0);
    fake_driver_start(&d, 0, 8);
    wr_accepted(REG_QUEUE_NOTIFY, 1);
    virtio_mmio_notify(&d.mmio, 1);
    wr_refused(REG_QUEUE_NOTIFY, 2);
    wr_refused(REG_QUEUE_NOTIFY, UINT32_MAX);
    ck_assert_uint_eq(probe.notified[0], 0);
    ck_assert_uint_eq(probe.notified[1], 2);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(interrupts)
{
    struct fake_buf buf = {FAKE_GUEST_BASE, 16, true};
    struct desc_chain chain;

    start_probe();
    fake_driver_start(&d, 0, 8);
    ck_assert_int_ge(fake_queue_add(&d.queues[0], &buf, 1), 0);
    ck_assert_int_eq(virtqueue_pop(&probe.dev.queues[0], &chain), 1);
    virtio_device_interrupt_queue(&probe.dev, 0);
    ck_assert_uint_eq(d.interrupts, 0);
    virtqueue_push(&probe.dev.queues[0], chain.head, 0);
    virtio_device_interrupt_queue(&probe.dev, 0);
    ck_assert_uint_eq(d.interrupts, 1);
    ck_assert_uint_eq(rd(REG_INTERRUPT_STATUS), 1);
    virtio_device_interrupt_queue(&probe.dev, 7);
    ck_assert_uint_eq(d.interrupts, 1);

    virtio_device_interrupt_config(&probe.dev);
    ck_assert_uint_eq(d.interrupts, 2);
    ck_assert_uint_eq(rd(REG_INTERRUPT_STATUS), 3);
    wr(REG_INTERRUPT_ACK, 1);
    ck_assert_uint_eq(rd(REG_INTERRUPT_STATUS), 2);
    wr(REG_INTERRUPT_ACK, UINT32_MAX);
    ck_assert_uint_eq(rd(REG_INTERRUPT_STATUS), 0);
    fake_driver_fini(&d);
}
END_TEST

/* The status and its acknowledgement work while the device is busy. */
START_TEST(interrupt_status_takes_no_lock)
{
    start_probe();
    pthread_mutex_lock(&d.lock);
    wr(REG_INTERRUPT_ACK, 3);
    ck_assert_uint_eq(rd(REG_INTERRUPT_STATUS), 0);
    pthread_mutex_unlock(&d.lock);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(device_breaks)
{
    start_probe();
    virtio_device_needs_reset(&probe.dev);
    ck_assert_uint_eq(rd(REG_STATUS), NEEDS_RESET);
    ck_assert_uint_eq(d.interrupts, 0); /* nobody listens yet */
    fake_driver_start(&d, 0, 8);
    virtio_device_needs_reset(&probe.dev);
    ck_assert(fake_driver_needs_reset(&d));
    ck_assert_uint_eq(d.interrupts, 1);
    ck_assert(probe.dev.queues[0].broken && probe.dev.queues[1].broken);
    fake_driver_kick_force(&d, 0);
    ck_assert_uint_eq(probe.notified[0], 0);
    fake_driver_start(&d, 0, 8);
    fake_driver_kick_force(&d, 0);
    ck_assert_uint_eq(probe.notified[0], 1);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(config_space)
{
    uint32_t generation;

    start_probe();
    ck_assert_uint_eq(fake_driver_config(&d, 0, 1), 'c');
    ck_assert_uint_eq(fake_driver_config(&d, 1, 2), 'o' | 'n' << 8);
    ck_assert_uint_eq(fake_driver_config(&d, 0, 4), 0x666e6f63);
    ck_assert_uint_eq(fake_driver_config(&d, 0, 8), 0x6769666e6f63);
    ck_assert_uint_eq(fake_driver_config(&d, 5, 4), 'g');
    ck_assert_uint_eq(fake_driver_config(&d, 0xef8, 8), 0);
    wr_refused(REG_CONFIG, 0); /* before FEATURES_OK */
    fake_driver_start(&d, 0, 8);
    virtio_mmio_bus_ops.write(&d.mmio, REG_CONFIG + 1, 2, 0x6261);
    ck_assert_int_eq(memcmp(probe.config, "cabfig", 6), 0);
    virtio_mmio_bus_ops.write(&d.mmio, REG_CONFIG + 4, 8, 0x7a7a7a7a);
    ck_assert_int_eq(memcmp(probe.config, "cabfzz", 6), 0);
    generation = rd(REG_CONFIG_GENERATION);
    virtio_device_interrupt_config(&probe.dev);
    ck_assert_uint_ne(rd(REG_CONFIG_GENERATION), generation);
    fake_driver_fini(&d);
}
END_TEST

static unsigned later_queue;

static void notify_later(void *ctx, unsigned queue)
{
    (void)ctx;
    later_queue = queue;
}

START_TEST(notifies_later)
{
    start_probe();
    ck_assert(!virtio_device_notify_later(&probe.dev, 1));
    d.mmio.notify_later = notify_later;
    ck_assert(virtio_device_notify_later(&probe.dev, 1));
    ck_assert_uint_eq(later_queue, 1);
    fake_driver_fini(&d);
}
END_TEST

/* ---- everything, everywhere ---- */

/* Takes a fresh entropy device to one of the states a driver can reach. */
static const uint32_t states[] = {
    0,  ACKNOWLEDGE,      ACKNOWLEDGE | DRIVER, UP_TO_FEATURES,
    UP, UP | NEEDS_RESET, UP | FAILED,
};

static void reach_state(uint32_t state)
{
    fake_driver_start(&d, VIRTIO_FEATURE_EVENT_IDX, 8);
    if ((state & UP) != UP) {
        wr(REG_STATUS, 0);
        for (uint32_t bit = 1; bit <= 2; bit *= 2)
            if (state & bit)
                wr(REG_STATUS, rd(REG_STATUS) | bit);
        if (state & FEATURES_OK) {
            offer_version_1();
            wr(REG_STATUS, state);
        }
    } else if (state & NEEDS_RESET) {
        virtio_device_needs_reset(d.mmio.dev);
    } else if (state & FAILED) {
        wr(REG_STATUS, state);
    }
    wr(REG_QUEUE_SEL, 0);
    if (rd(REG_STATUS) != state)
        ck_abort_msg("state %#x not reached", state);
}

/* Status bits that a register write may leave behind. */
static bool plausible_status(uint32_t status)
{
    for (unsigned i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        if ((status & ~(NEEDS_RESET | FAILED)) == (states[i] & UP))
            return !(status & ~(UP | NEEDS_RESET | FAILED));
    return false;
}

static void check_after_access(uint32_t state, uint64_t offset, unsigned size)
{
    const struct virtqueue *vq = &d.mmio.dev->queues[0];
    bool running = (state & UP) == UP && d.mmio.status != 0;

    if (!virtqueue_check(vq) || !plausible_status(d.mmio.status))
        ck_abort_msg("state %#x: broken by offset %#x size %u", state,
                     (unsigned)offset, size);
    /* Once running, the geometry is what it was, or the queue is stopped. */
    if (running && vq->ready &&
        (vq->size != 8 || vq->desc != d.queues[0].desc ||
         vq->avail != d.queues[0].avail || vq->used != d.queues[0].used))
        ck_abort_msg("state %#x: geometry changed by offset %#x size %u", state,
                     (unsigned)offset, size);
}

static const uint64_t values[] = {
    0, 1, 2, 3, 8, 0x0b, 0x0f, 64, 0x1000, 0x80000000, 0xffffffff, UINT64_MAX};

static void write_everything(uint32_t state, uint64_t offset, unsigned size)
{
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        uint64_t value =
            size == 8 ? values[i] : values[i] & ((1ull << (8 * size)) - 1);

        virtio_mmio_bus_ops.write(&d.mmio, offset, size, value);
        check_after_access(state, offset, size);
        /* Only these change what the next value meets. */
        if (d.mmio.status != state || offset < REG_CONFIG) {
            d.guest.next = FAKE_GUEST_BASE;
            reach_state(state);
        }
    }
}

/* Reads change nothing, and holes and write-only registers read as 0. */
static void read_everything(uint64_t offset, unsigned size)
{
    struct virtio_mmio before = d.mmio;
    uint64_t value = virtio_mmio_bus_ops.read(&d.mmio, offset, size);
    bool reg = size == 4 && offset % 4 == 0 && offset < REG_CONFIG;

    if (memcmp(&before, &d.mmio, sizeof(before)) != 0)
        ck_abort_msg("reading %#x changed something", (unsigned)offset);
    if (!reg && value != 0)
        ck_abort_msg("offset %#x size %u reads as %#llx", (unsigned)offset,
                     size, (unsigned long long)value);
}

START_TEST(exhaustive)
{
    struct virtio_device *rng;

    ck_assert_int_eq(virtio_rng_new(&rng), 0);
    fake_driver_init(&d, rng, 0);
    reach_state(states[_i]);
    for (uint64_t offset = 0; offset < VIRTIO_MMIO_SIZE; offset++) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            if (offset + size > VIRTIO_MMIO_SIZE)
                continue;
            read_everything(offset, size);
            write_everything(states[_i], offset, size);
        }
    }
    fake_driver_fini(&d);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("virtio_mmio");
    TCase *tc = tcase_create("all");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, identity);
    tcase_add_test(tc, empty_slot);
    tcase_add_test(tc, status_order);
    tcase_add_test(tc, failed_stops_everything);
    tcase_add_test(tc, features);
    tcase_add_test(tc, queue_geometry);
    tcase_add_test(tc, bad_geometry_needs_reset);
    tcase_add_test(tc, failed_activation_needs_reset);
    tcase_add_test(tc, geometry_is_frozen);
    tcase_add_test(tc, notify);
    tcase_add_test(tc, interrupts);
    tcase_add_test(tc, interrupt_status_takes_no_lock);
    tcase_add_test(tc, device_breaks);
    tcase_add_test(tc, config_space);
    tcase_add_test(tc, notifies_later);
    tcase_add_loop_test(tc, exhaustive, 0,
                        (int)(sizeof(states) / sizeof(states[0])));
    suite_add_tcase(s, tc);
    return s;
}

int main(void)
{
    SRunner *sr = srunner_create(suite());
    int failed;

    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
