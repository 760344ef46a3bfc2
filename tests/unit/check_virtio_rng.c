/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng behind a fake driver: good requests, odd ones, and a reset. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/rng/virtio_rng.h"
#include "tests/fake_guest.h"

static struct fake_driver d;

static void start(uint64_t features, uint64_t memory)
{
    struct virtio_device *dev;

    ck_assert_int_eq(virtio_rng_new(&dev), 0);
    fake_driver_init(&d, dev, memory);
    fake_driver_start(&d, features, 64);
}

/* Number of bytes that are not zero: about 255 of 256 of random ones. */
static unsigned count_nonzero(gpa_t gpa, uint32_t len)
{
    const uint8_t *p = fake_guest_ptr(&d.guest, gpa, len);
    unsigned count = 0;

    for (uint32_t i = 0; i < len; i++)
        count += p[i] != 0;
    return count;
}

START_TEST(fills)
{
    static const uint64_t features[] = {
        0, VIRTIO_FEATURE_EVENT_IDX, VIRTIO_FEATURE_INDIRECT_DESC,
        VIRTIO_FEATURE_EVENT_IDX | VIRTIO_FEATURE_INDIRECT_DESC};
    gpa_t gpa;

    start(features[_i], 0);
    ck_assert_uint_eq(fake_driver_read(&d, 0x008), 4);
    gpa = fake_guest_alloc(&d.guest, 4096 + 2, 16);
    for (unsigned i = 0; i < 10; i++) {
        struct fake_buf bufs[] = {{gpa + 1, 1000, true},
                                  {gpa + 1001, 3096, true}};

        memset(fake_guest_ptr(&d.guest, gpa, 4098), 0, 4098);
        fake_queue_want_interrupts(&d.queues[0], true);
        ck_assert_uint_eq(fake_driver_request(&d, 0, bufs, 2), 4096);
        ck_assert_uint_gt(count_nonzero(gpa + 1, 4096), 3900);
        ck_assert_uint_eq(count_nonzero(gpa, 1), 0);
        ck_assert_uint_eq(count_nonzero(gpa + 4097, 1), 0);
        ck_assert_uint_eq(d.interrupts, i + 1);
    }
    fake_driver_fini(&d);
}
END_TEST

START_TEST(request_is_capped)
{
    uint32_t len = VIRTIO_RNG_REQUEST_MAX + 5000;
    struct fake_buf bufs[2];
    gpa_t gpa;

    start(0, 0);
    gpa = fake_guest_alloc(&d.guest, len, 16);
    bufs[0] = (struct fake_buf){gpa, 60000, true};
    bufs[1] = (struct fake_buf){gpa + 60000, len - 60000, true};
    ck_assert_uint_eq(fake_driver_request(&d, 0, bufs, 2),
                      VIRTIO_RNG_REQUEST_MAX);
    ck_assert_uint_eq(count_nonzero(gpa + VIRTIO_RNG_REQUEST_MAX, 5000), 0);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(nothing_writable)
{
    struct fake_buf bufs[] = {{FAKE_GUEST_BASE, 16, false},
                              {FAKE_GUEST_BASE + 0x80000, 16, true}};

    start(0, 0);
    ck_assert_uint_eq(fake_driver_request(&d, 0, bufs, 1), 0);
    /* A readable part is ignored, the writable one filled. */
    ck_assert_uint_eq(fake_driver_request(&d, 0, bufs, 2), 16);
    ck_assert(!fake_driver_needs_reset(&d));
    fake_driver_fini(&d);
}
END_TEST

START_TEST(full_queue)
{
    struct fake_buf buf;
    unsigned count = 0;

    start(VIRTIO_FEATURE_EVENT_IDX, 0);
    buf = (struct fake_buf){fake_guest_alloc(&d.guest, 64, 16), 64, true};
    for (unsigned round = 0; round < 50; round++) {
        while (fake_queue_add(&d.queues[0], &buf, 1) >= 0)
            ;
        fake_driver_kick(&d, 0);
        while (fake_queue_collect(&d.queues[0], NULL, NULL))
            count++;
    }
    ck_assert_uint_eq(count, 50 * 64);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(broken_queue)
{
    struct fake_buf bad = {UINT64_MAX, 16, true};
    struct fake_buf good = {FAKE_GUEST_BASE + 0x80000, 16, true};

    start(0, 0);
    ck_assert_int_ge(fake_queue_add(&d.queues[0], &bad, 1), 0);
    fake_driver_kick(&d, 0);
    ck_assert(fake_driver_needs_reset(&d));
    ck_assert_uint_eq(fake_queue_used_count(&d.queues[0]), 0);
    ck_assert_uint_eq(d.mmio.dev->violations, 1);
    fake_driver_kick_force(&d, 0);
    ck_assert_uint_eq(d.mmio.dev->violations, 1);
    fake_driver_start(&d, 0, 64);
    ck_assert_uint_eq(fake_driver_request(&d, 0, &good, 1), 16);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(reset_with_requests_waiting)
{
    struct fake_buf buf = {FAKE_GUEST_BASE + 0x80000, 16, true};

    start(0, 0);
    for (unsigned i = 0; i < 10; i++)
        ck_assert_int_ge(fake_queue_add(&d.queues[0], &buf, 1), 0);
    fake_driver_reset(&d);
    fake_driver_kick_force(&d, 0);
    ck_assert_uint_eq(fake_queue_used_count(&d.queues[0]), 0);
    ck_assert_uint_eq(count_nonzero(buf.addr, 16), 0);
    fake_driver_start(&d, 0, 64);
    ck_assert_uint_eq(fake_driver_request(&d, 0, &buf, 1), 16);
    fake_driver_fini(&d);
}
END_TEST

START_TEST(no_config_space)
{
    start(0, 0);
    for (unsigned size = 1; size <= 8; size *= 2)
        ck_assert_uint_eq(fake_driver_config(&d, 0, size), 0);
    fake_driver_write(&d, 0x100, 5);
    ck_assert_uint_eq(d.mmio.dev->violations, 1);
    fake_driver_fini(&d);
}
END_TEST

/*
 * A driver that refills the queue as fast as it is served, on a thread of its
 * own: the device asks to be called again instead of never coming back.
 */
static volatile bool stop;

static void *refiller(void *ctx)
{
    struct fake_queue *q = &d.queues[0];
    /* Large, so that it gets to run meanwhile even on a single CPU. */
    struct fake_buf buf = {FAKE_GUEST_BASE + 0x80000, 0x10000, true};

    (void)ctx;
    while (!stop) {
        while (fake_queue_collect(q, NULL, NULL))
            ;
        fake_queue_add(q, &buf, 1);
    }
    return NULL;
}

static unsigned later;

static void notify_later(void *ctx, unsigned queue)
{
    (void)ctx;
    later += queue == 0;
}

START_TEST(greedy_driver)
{
    pthread_t thread;

    start(0, 0);
    d.mmio.notify_later = notify_later;
    ck_assert_int_eq(pthread_create(&thread, NULL, refiller, NULL), 0);
    while (later < 2)
        fake_driver_kick_force(&d, 0);
    stop = true;
    pthread_join(thread, NULL);
    ck_assert(!fake_driver_needs_reset(&d));
    fake_driver_fini(&d);
}
END_TEST

START_TEST(out_of_memory)
{
    struct virtio_device *dev = NULL;
    int ret;

    if (!fake_out_of_memory_begin())
        return;
    ret = virtio_rng_new(&dev);
    fake_out_of_memory_end();
    ck_assert_int_eq(ret, -ENOMEM);
    ck_assert_ptr_null(dev);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("virtio_rng");
    TCase *tc = tcase_create("all");

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, fills, 0, 4);
    tcase_add_test(tc, request_is_capped);
    tcase_add_test(tc, nothing_writable);
    tcase_add_test(tc, full_queue);
    tcase_add_test(tc, broken_queue);
    tcase_add_test(tc, reset_with_requests_waiting);
    tcase_add_test(tc, no_config_space);
    tcase_add_test(tc, greedy_driver);
    tcase_add_test(tc, out_of_memory);
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
