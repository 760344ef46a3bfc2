/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtqueues between two machines: chains given back unserved, indices carried
 * over, and a kick asked for while buffers lie untaken.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/virtqueue.h"
#include "tests/fake_guest.h"

#define SIZE 8u

/* For hot loops: an assertion of libcheck's costs a system call each. */
#define MUST(condition)                                                        \
    do {                                                                       \
        if (!(condition))                                                      \
            ck_abort_msg("line %d: %s", __LINE__, #condition);                 \
    } while (0)

static struct fake_guest guest;
static struct fake_queue q;
static struct virtqueue vq;
static struct desc_chain chain;

static void attach(bool event_idx)
{
    fake_guest_init(&guest, 0);
    fake_queue_init(&q, &guest, SIZE);
    memset(&vq, 0, sizeof(vq));
    fake_queue_attach(&q, &vq, event_idx, true);
}

static void detach(void)
{
    ck_assert(virtqueue_check(&vq));
    fake_guest_fini(&guest);
}

static uint16_t add(void)
{
    struct fake_buf buf = {FAKE_GUEST_BASE, 16, true};
    int head = fake_queue_add(&q, &buf, 1);

    MUST(head >= 0);
    return (uint16_t)head;
}

static uint16_t pop(void)
{
    MUST(virtqueue_pop(&vq, &chain) == 1);
    MUST(virtqueue_check(&vq));
    return chain.head;
}

/* The queue as another machine gets it. */
static void move(void)
{
    uint8_t bytes[128];
    struct virtqueue loaded = {.size_max = vq.size_max};
    struct state_writer w;
    struct state_reader r;

    state_writer_init(&w, bytes, sizeof(bytes));
    virtqueue_save(&vq, &w);
    ck_assert_int_eq(w.error, 0);
    state_reader_init(&r, bytes, w.used);
    ck_assert_int_eq(
        virtqueue_load(&loaded, &r, vq.mem, vq.event_idx, vq.indirect), 0);
    ck_assert_int_eq(state_reader_finish(&r), 0);
    ck_assert_int_eq(memcmp(&loaded, &vq, sizeof(vq)), 0);
    vq = loaded;
}

/* Given back, the same chains come again, in the same order. */
START_TEST(test_unpop)
{
    uint16_t heads[6];

    attach(_i & 1);
    for (unsigned i = 0; i < 6; i++)
        heads[i] = add();
    for (unsigned i = 0; i < 4; i++)
        ck_assert_uint_eq(pop(), heads[i]);
    virtqueue_push(&vq, heads[0], 0);
    virtqueue_unpop(&vq, 0);
    ck_assert_uint_eq(vq.in_flight, 3);
    virtqueue_unpop(&vq, 3);
    ck_assert_uint_eq(vq.in_flight, 0);
    ck_assert(virtqueue_check(&vq));
    ck_assert(virtqueue_has_work(&vq));
    if (_i & 2)
        move();
    for (unsigned i = 1; i < 6; i++) {
        ck_assert_uint_eq(pop(), heads[i]);
        virtqueue_push(&vq, heads[i], 16);
    }
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
    for (unsigned i = 0; i < 6; i++) {
        uint16_t head;

        ck_assert(fake_queue_collect(&q, &head, NULL));
        ck_assert_uint_eq(head, heads[i]);
    }
    detach();
}
END_TEST

/* A queue that is gone, or broken, has nothing to give back to. */
START_TEST(test_unpop_too_late)
{
    attach(false);
    (void)add();
    (void)pop();
    if (_i == 0) {
        virtqueue_reset(&vq);
    } else {
        fake_queue_publish(&q, SIZE);
        ck_assert_int_eq(virtqueue_pop(&vq, &chain), -EPROTO);
    }
    virtqueue_unpop(&vq, 1);
    virtqueue_unpop(&vq, 100);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
    detach();
}
END_TEST

/* Round the 16-bit indices several times, moving at every step. */
START_TEST(test_moved_for_ever)
{
    attach(_i);
    for (unsigned i = 0; i < 3 * 65536 / SIZE; i++) {
        unsigned n = 1 + i % SIZE;

        for (unsigned j = 0; j < n; j++)
            (void)add();
        for (unsigned j = 0; j < n; j++)
            virtqueue_push(&vq, pop(), 0);
        if (virtqueue_needs_interrupt(&vq) && i % 3 == 0)
            move();
        for (unsigned j = 0; j < n; j++)
            MUST(fake_queue_collect(&q, NULL, NULL));
        fake_queue_want_interrupts(&q, i % 5 != 0);
        if (i % 7 == 0)
            move();
    }
    detach();
}
END_TEST

/* An interrupt decision that was open is still open after a move. */
START_TEST(test_interrupt_decision_is_kept)
{
    attach(true);
    fake_queue_want_interrupts(&q, true);
    (void)add();
    virtqueue_push(&vq, pop(), 0);
    if (_i)
        ck_assert(virtqueue_needs_interrupt(&vq));
    move();
    ck_assert_int_eq(virtqueue_needs_interrupt(&vq), _i == 0);
    detach();
}
END_TEST

/* So is that there was none for a whole turn of the indices. */
START_TEST(test_no_decision_for_a_whole_turn)
{
    attach(true);
    for (unsigned i = 0; i < 65536; i++) {
        (void)add();
        virtqueue_push(&vq, pop(), 0);
        MUST(fake_queue_collect(&q, NULL, NULL));
    }
    ck_assert(!vq.signalled_used_valid);
    move();
    ck_assert(virtqueue_needs_interrupt(&vq));
    detach();
}
END_TEST

/* Of a broken queue that alone is kept, whatever it had in flight. */
START_TEST(test_broken_stays_broken)
{
    uint8_t bytes[128];
    struct virtqueue loaded = {.size_max = vq.size_max};
    struct state_writer w;
    struct state_reader r;

    attach(false);
    loaded.size_max = vq.size_max;
    (void)add();
    (void)pop();
    fake_queue_publish(&q, SIZE);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), -EPROTO);
    state_writer_init(&w, bytes, sizeof(bytes));
    virtqueue_save(&vq, &w);
    state_reader_init(&r, bytes, w.used);
    ck_assert_int_eq(virtqueue_load(&loaded, &r, &guest.mem, false, true), 0);
    ck_assert_int_eq(state_reader_finish(&r), 0);
    ck_assert(loaded.broken);
    ck_assert(virtqueue_is_active(&loaded));
    ck_assert(virtqueue_check(&loaded));
    ck_assert_int_eq(virtqueue_pop(&loaded, &chain), 0);
    virtqueue_push(&loaded, 0, 0);
    ck_assert_uint_eq(fake_queue_used_count(&q), 0);
    detach();
}
END_TEST

/*
 * A kick for the next buffer though some lie untaken, which enable_kicks would
 * not give; and not another one after it.
 */
START_TEST(test_kick_on_next)
{
    bool event_idx = _i;
    uint16_t since;

    attach(event_idx);
    virtqueue_disable_kicks(&vq);
    for (unsigned i = 0; i < 4; i++)
        (void)add();
    (void)fake_queue_should_kick(&q);
    (void)pop();
    since = virtqueue_kick_on_next(&vq);
    ck_assert_uint_eq(since, 4);
    ck_assert(!virtqueue_has_grown(&vq, since));
    (void)add();
    ck_assert(fake_queue_should_kick(&q));
    ck_assert(virtqueue_has_grown(&vq, since));
    virtqueue_disable_kicks(&vq);
    (void)add();
    ck_assert(!fake_queue_should_kick(&q));
    ck_assert(virtqueue_has_grown(&vq, since));
    virtqueue_unpop(&vq, 1);
    detach();
}
END_TEST

/* Nothing grows where nothing is: nobody waits for ever. */
START_TEST(test_kick_on_next_of_an_inactive_queue)
{
    attach(true);
    virtqueue_reset(&vq);
    ck_assert_uint_eq(virtqueue_kick_on_next(&vq), 0);
    ck_assert(virtqueue_has_grown(&vq, 0));
    ck_assert(!virtqueue_is_active(&vq));
    detach();
}
END_TEST

#define LONG_MEMORY (64u << 20)
#define LONG_PART (32u << 20)
#define LONG_PARTS 128u /* 4 GiB in all */

/* A chain is at most 2^32 bytes, whatever it is made of (2.7.5.2). */
START_TEST(test_longest_chain)
{
    struct fake_buf bufs[LONG_PARTS + 1];
    unsigned count = LONG_PARTS + (_i != 0);

    fake_guest_init(&guest, LONG_MEMORY);
    fake_queue_init(&q, &guest, VIRTQUEUE_SIZE_MAX);
    memset(&vq, 0, sizeof(vq));
    fake_queue_attach(&q, &vq, false, true);
    for (unsigned i = 0; i < count; i++)
        bufs[i] = (struct fake_buf){
            FAKE_GUEST_BASE, i < LONG_PARTS ? LONG_PART : 1, i > 3 && _i != 2};
    ck_assert_int_ge(fake_queue_add(&q, bufs, count), 0);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), _i ? -EPROTO : 1);
    if (_i == 0)
        ck_assert_uint_eq(chain.readable_len + chain.writable_len,
                          (uint64_t)1 << 32);
    detach();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtqueue_state");
    TCase *tc = tcase_create("state");
    SRunner *sr;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_unpop, 0, 4);
    tcase_add_loop_test(tc, test_unpop_too_late, 0, 2);
    tcase_add_loop_test(tc, test_moved_for_ever, 0, 2);
    tcase_add_loop_test(tc, test_interrupt_decision_is_kept, 0, 2);
    tcase_add_test(tc, test_no_decision_for_a_whole_turn);
    tcase_add_test(tc, test_broken_stays_broken);
    tcase_add_loop_test(tc, test_kick_on_next, 0, 2);
    tcase_add_test(tc, test_kick_on_next_of_an_inactive_queue);
    tcase_add_loop_test(tc, test_longest_chain, 0, 3);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
