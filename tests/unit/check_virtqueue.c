/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtqueues: geometry, chains good and bad, notification suppression of both
 * sides, and a driver that rewrites descriptors while they are read.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/virtio_device.h"
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

static void attach(bool event_idx, bool indirect)
{
    fake_guest_init(&guest, 0);
    fake_queue_init(&q, &guest, SIZE);
    memset(&vq, 0, sizeof(vq));
    /* Behind the table lie descriptors that only a wrong index would find. */
    q.desc = fake_guest_alloc(&guest, 16 * 2 * SIZE, 16);
    for (unsigned i = SIZE; i < 2 * SIZE; i++)
        *fake_queue_desc(&q, i) = (struct fake_desc){FAKE_GUEST_BASE, 1, 0, 0};
    fake_queue_attach(&q, &vq, event_idx, indirect);
    ck_assert(virtqueue_check(&vq));
}

static void detach(void)
{
    ck_assert(virtqueue_check(&vq));
    fake_guest_fini(&guest);
}

static void set_desc(unsigned index, gpa_t addr, uint32_t len, uint16_t flags,
                     uint16_t next)
{
    *fake_queue_desc(&q, index) = (struct fake_desc){addr, len, flags, next};
}

/* ---- geometry ---- */

static const struct {
    uint16_t size_max;
    uint16_t size;
    int64_t desc_off; /* from where a good driver would put it */
    int64_t avail_off;
    int64_t used_off;
    bool ready;
    int want;
} geometries[] = {
    {256, 8, 0, 0, 0, true, 0},
    {8, 8, 0, 0, 0, true, 0},
    {256, 1, 0, 0, 0, true, 0},
    {256, 256, 0, 0, 0, true, 0},
    {256, 8, 0, 0, 0, false, -EINVAL},
    {256, 0, 0, 0, 0, true, -EINVAL},
    {256, 3, 0, 0, 0, true, -EINVAL},
    {4, 8, 0, 0, 0, true, -EINVAL},
    {512, 512, 0, 0, 0, true, -EINVAL}, /* beyond our own maximum */
    {256, 8, 8, 0, 0, true, -EINVAL},
    {256, 8, 0, 1, 0, true, -EINVAL},
    {256, 8, 0, 0, 2, true, -EINVAL},
    {256, 8, -(int64_t)FAKE_GUEST_BASE, 0, 0, true, -EINVAL},
    {256, 8, 0, 1 << 20, 0, true, -EINVAL},
    {256, 8, 0, 0, -(int64_t)(1ll << 40), true, -EINVAL},
    {256, 8, 0, INT64_MIN, 0, true, -EINVAL},
};

START_TEST(geometry)
{
    struct virtqueue v = {.size_max = geometries[_i].size_max};

    fake_guest_init(&guest, 0);
    v.size = geometries[_i].size;
    v.ready = geometries[_i].ready;
    v.desc = FAKE_GUEST_BASE + 0x1000 + (uint64_t)geometries[_i].desc_off;
    v.avail = FAKE_GUEST_BASE + 0x3000 + (uint64_t)geometries[_i].avail_off;
    v.used = FAKE_GUEST_BASE + 0x4000 + (uint64_t)geometries[_i].used_off;
    ck_assert_int_eq(virtqueue_activate(&v, &guest.mem, true, true),
                     geometries[_i].want);
    ck_assert(!v.desc_ptr == (geometries[_i].want != 0));
    virtqueue_reset(&v);
    ck_assert_uint_eq(v.size_max, geometries[_i].size_max);
    ck_assert_uint_eq(v.size, 0);
    ck_assert_int_eq(virtqueue_pop(&v, &chain), 0);
    ck_assert(!virtqueue_has_work(&v));
    virtqueue_push(&v, 0, 0); /* no effect, no crash */
    ck_assert(!virtqueue_needs_interrupt(&v));
    ck_assert(!virtqueue_enable_kicks(&v));
    fake_guest_fini(&guest);
}
END_TEST

/* Each ring may end with guest memory, and not one byte behind it. */
START_TEST(rings_at_the_edge)
{
    const uint64_t lens[3] = {16 * SIZE, 6 + 2 * SIZE, 6 + 8 * SIZE};
    const uint64_t aligns[3] = {16, 2, 4};

    for (unsigned ring = 0; ring < 3; ring++) {
        for (unsigned beyond = 0; beyond < 2; beyond++) {
            gpa_t end = FAKE_GUEST_BASE + FAKE_GUEST_SIZE;
            gpa_t at = ((end - lens[ring]) & ~(aligns[ring] - 1)) +
                       beyond * aligns[ring];
            struct virtqueue v = {.size_max = 256,
                                  .size = SIZE,
                                  .desc = FAKE_GUEST_BASE,
                                  .avail = FAKE_GUEST_BASE + 0x1000,
                                  .used = FAKE_GUEST_BASE + 0x2000,
                                  .ready = true};
            gpa_t *fields[3] = {&v.desc, &v.avail, &v.used};

            fake_guest_init(&guest, 0);
            *fields[ring] = at;
            ck_assert_int_eq(virtqueue_activate(&v, &guest.mem, true, true),
                             beyond ? -EINVAL : 0);
            if (!beyond) /* touches the last byte of each ring */
                virtqueue_enable_kicks(&v);
            fake_guest_fini(&guest);
        }
    }
}
END_TEST

/* ---- good chains ---- */

START_TEST(round_trip)
{
    bool event_idx = _i & 1, indirect = _i & 2;
    struct fake_buf bufs[3];
    uint16_t head;
    uint32_t len;

    attach(event_idx, true);
    bufs[0] = (struct fake_buf){fake_guest_put(&guest, "hello", 5), 5, false};
    bufs[1] = (struct fake_buf){fake_guest_put(&guest, "world", 5), 5, false};
    bufs[2] = (struct fake_buf){fake_guest_alloc(&guest, 100, 1), 100, true};
    /* Long enough for the 16-bit indices to wrap. */
    for (unsigned i = 0; i < (indirect ? 5000u : 70000u); i++) {
        char text[10];
        int added = indirect ? fake_queue_add_indirect(&q, bufs, 3)
                             : fake_queue_add(&q, bufs, 3);

        MUST(added >= 0);
        MUST(virtqueue_has_work(&vq));
        MUST(virtqueue_pop(&vq, &chain) == 1);
        MUST(chain.head == added);
        MUST(chain.readable_count == 2);
        MUST(chain.writable_count == 1);
        MUST(chain.readable_len == 10);
        MUST(chain.writable_len == 100);
        MUST(desc_chain_read(&chain, 0, text, 10) == 0);
        MUST(memcmp(text, "helloworld", 10) == 0);
        MUST(desc_chain_write(&chain, 98, "ab", 2) == 0);
        MUST(virtqueue_check(&vq));
        virtqueue_push(&vq, chain.head, i);
        MUST(virtqueue_pop(&vq, &chain) == 0);
        MUST(fake_queue_collect(&q, &head, &len));
        MUST(head == added);
        MUST(len == i);
        MUST(virtqueue_check(&vq));
        guest.next = bufs[2].addr + 100; /* indirect tables are re-used */
    }
    MUST(memcmp((char *)fake_guest_ptr(&guest, bufs[2].addr + 98, 2), "ab",
                2) == 0);
    detach();
}
END_TEST

START_TEST(full_queue_any_order)
{
    struct fake_buf buf;
    uint16_t heads[SIZE];

    attach(false, false);
    buf = (struct fake_buf){fake_guest_alloc(&guest, 16, 16), 16, true};
    for (unsigned i = 0; i < SIZE; i++)
        ck_assert_int_ge(fake_queue_add(&q, &buf, 1), 0);
    ck_assert_int_eq(fake_queue_add(&q, &buf, 1), -1);
    for (unsigned i = 0; i < SIZE; i++) {
        ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
        heads[i] = chain.head;
    }
    ck_assert_uint_eq(vq.in_flight, SIZE);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
    ck_assert(!vq.broken);
    for (unsigned i = SIZE; i > 0; i--)
        virtqueue_push(&vq, heads[i - 1], i);
    for (unsigned i = SIZE; i > 0; i--) {
        uint16_t head;

        ck_assert(fake_queue_collect(&q, &head, NULL));
        ck_assert_uint_eq(head, heads[i - 1]);
    }
    ck_assert(!fake_queue_collect(&q, NULL, NULL));
    detach();
}
END_TEST

/* A chain as long as the queue is deep, direct and indirect. */
START_TEST(longest_chain)
{
    struct fake_buf bufs[SIZE];

    attach(false, true);
    for (unsigned i = 0; i < SIZE; i++)
        bufs[i] = (struct fake_buf){FAKE_GUEST_BASE + i, 1, i >= SIZE / 2};
    ck_assert_int_ge(fake_queue_add(&q, bufs, SIZE), 0);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
    ck_assert_uint_eq(chain.readable_count, SIZE / 2);
    ck_assert_uint_eq(chain.writable_count, SIZE / 2);
    virtqueue_push(&vq, chain.head, 0);
    ck_assert(fake_queue_collect(&q, NULL, NULL));
    ck_assert_int_ge(fake_queue_add_indirect(&q, bufs, SIZE), 0);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
    ck_assert_uint_eq(chain.readable_count, SIZE / 2);
    detach();
}
END_TEST

/* Direct descriptors, then one with a table: allowed (2.7.5.3.1). */
START_TEST(direct_then_indirect)
{
    gpa_t table;
    struct fake_desc *d;

    attach(false, true);
    /* An indirect table needs no alignment. */
    table = fake_guest_alloc(&guest, 33, 16) + 1;
    d = fake_guest_ptr(&guest, table, 32);
    memcpy(d, &(struct fake_desc){FAKE_GUEST_BASE, 1, FAKE_DESC_NEXT, 1}, 16);
    memcpy((char *)d + 16,
           &(struct fake_desc){FAKE_GUEST_BASE, 2, FAKE_DESC_WRITE, 77}, 16);
    set_desc(0, FAKE_GUEST_BASE, 4, FAKE_DESC_NEXT, 5);
    /* WRITE on the descriptor of a table means nothing. */
    set_desc(5, table, 32, FAKE_DESC_INDIRECT | FAKE_DESC_WRITE, 99);
    fake_queue_publish(&q, 0);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
    ck_assert_uint_eq(chain.readable_count, 2);
    ck_assert_uint_eq(chain.readable_len, 5);
    ck_assert_uint_eq(chain.writable_len, 2);
    detach();
}
END_TEST

/* One buffer more than the queue is deep, though each part is allowed. */
START_TEST(too_long_with_indirect)
{
    struct fake_buf bufs[SIZE];

    attach(false, true);
    for (unsigned i = 0; i < SIZE; i++)
        bufs[i] = (struct fake_buf){FAKE_GUEST_BASE, 1, false};
    ck_assert_int_eq(fake_queue_add_indirect(&q, bufs, SIZE), 0);
    set_desc(1, FAKE_GUEST_BASE, 1, FAKE_DESC_NEXT, 0);
    *fake_queue_avail_ring(&q, 0) = 1;
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), -EPROTO);
    detach();
}
END_TEST

/* ---- bad chains ---- */

#define END (FAKE_GUEST_BASE + FAKE_GUEST_SIZE)
#define TABLE (FAKE_GUEST_BASE + 0x8000u)

struct bad_desc {
    gpa_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

static const struct {
    const char *what;
    uint16_t head;
    struct bad_desc direct[3];
    struct bad_desc table[3];
    bool good; /* the neighbour of a bad one */
} chains[] = {
    {"head out of range", SIZE, {{0}}, {{0}}, false},
    {"head far out of range", 0xffff, {{0}}, {{0}}, false},
    {"next out of range",
     0,
     {{FAKE_GUEST_BASE, 1, FAKE_DESC_NEXT, SIZE}},
     {{0}},
     false},
    {"loop on itself",
     0,
     {{FAKE_GUEST_BASE, 1, FAKE_DESC_NEXT, 0}},
     {{0}},
     false},
    {"loop of two",
     0,
     {{FAKE_GUEST_BASE, 1, FAKE_DESC_NEXT, 1},
      {FAKE_GUEST_BASE, 1, FAKE_DESC_NEXT, 0}},
     {{0}},
     false},
    {"readable behind writable",
     0,
     {{FAKE_GUEST_BASE, 1, FAKE_DESC_NEXT | FAKE_DESC_WRITE, 1},
      {FAKE_GUEST_BASE, 1, 0, 0}},
     {{0}},
     false},
    {"length 0", 0, {{FAKE_GUEST_BASE, 0, 0, 0}}, {{0}}, false},
    {"address 0", 0, {{0, 1, 0, 0}}, {{0}}, false},
    {"last byte", 0, {{END - 1, 1, 0, 0}}, {{0}}, true},
    {"one behind the last byte", 0, {{END, 1, 0, 0}}, {{0}}, false},
    {"straddles the end", 0, {{END - 1, 2, 0, 0}}, {{0}}, false},
    {"straddles the start", 0, {{FAKE_GUEST_BASE - 1, 2, 0, 0}}, {{0}}, false},
    {"wraps around 2^64", 0, {{UINT64_MAX, 2, 0, 0}}, {{0}}, false},
    {"longest length", 0, {{FAKE_GUEST_BASE, UINT32_MAX, 0, 0}}, {{0}}, false},
    {"wraps with the longest length",
     0,
     {{UINT64_MAX - UINT32_MAX + 2, UINT32_MAX, 0, 0}},
     {{0}},
     false},
    {"indirect, good",
     0,
     {{TABLE, 16, FAKE_DESC_INDIRECT, 0}},
     {{FAKE_GUEST_BASE, 1, 0, 0}},
     true},
    {"indirect with NEXT",
     0,
     {{TABLE, 16, FAKE_DESC_INDIRECT | FAKE_DESC_NEXT, 1},
      {FAKE_GUEST_BASE, 1, 0, 0}},
     {{FAKE_GUEST_BASE, 1, 0, 0}},
     false},
    {"indirect, length 0",
     0,
     {{TABLE, 0, FAKE_DESC_INDIRECT, 0}},
     {{FAKE_GUEST_BASE, 1, 0, 0}},
     false},
    {"indirect, length not of 16",
     0,
     {{TABLE, 24, FAKE_DESC_INDIRECT, 0}},
     {{FAKE_GUEST_BASE, 1, 0, 0}},
     false},
    {"indirect, longest length",
     0,
     {{TABLE, 0xfffffff0u, FAKE_DESC_INDIRECT, 0}},
     {{FAKE_GUEST_BASE, 1, 0, 0}},
     false},
    {"indirect, deeper than the queue",
     0,
     {{TABLE, 16 * (SIZE + 1), FAKE_DESC_INDIRECT, 0}},
     {{FAKE_GUEST_BASE, 1, 0, 0}},
     false},
    {"indirect, table at the end",
     0,
     {{END - 16, 16, FAKE_DESC_INDIRECT, 0}},
     {{0}},
     false}, /* fits, and holds zeros: length 0 */
    {"indirect, table straddles the end",
     0,
     {{END - 16, 32, FAKE_DESC_INDIRECT, 0}},
     {{0}},
     false},
    {"indirect, nested",
     0,
     {{TABLE, 32, FAKE_DESC_INDIRECT, 0}},
     {{TABLE + 16, 16, FAKE_DESC_INDIRECT, 0}, {FAKE_GUEST_BASE, 1, 0, 0}},
     false},
    {"indirect, next out of the table",
     0,
     {{TABLE, 16, FAKE_DESC_INDIRECT, 0}},
     {{FAKE_GUEST_BASE, 1, FAKE_DESC_NEXT, 1}, {FAKE_GUEST_BASE, 1, 0, 0}},
     false},
    {"indirect, loop",
     0,
     {{TABLE, 32, FAKE_DESC_INDIRECT, 0}},
     {{FAKE_GUEST_BASE, 1, FAKE_DESC_NEXT, 1},
      {FAKE_GUEST_BASE, 1, FAKE_DESC_NEXT, 0}},
     false},
    {"indirect, readable behind writable",
     0,
     {{TABLE, 32, FAKE_DESC_INDIRECT, 0}},
     {{FAKE_GUEST_BASE, 1, FAKE_DESC_NEXT | FAKE_DESC_WRITE, 1},
      {FAKE_GUEST_BASE, 1, 0, 0}},
     false},
};

static void write_bad_chain(unsigned n)
{
    struct fake_desc *table = fake_guest_ptr(&guest, TABLE, 48);

    for (unsigned i = 0; i < 3; i++) {
        const struct bad_desc *d = &chains[n].direct[i];
        const struct bad_desc *t = &chains[n].table[i];

        set_desc(i, d->addr, d->len, d->flags, d->next);
        table[i] = (struct fake_desc){t->addr, t->len, t->flags, t->next};
    }
    fake_queue_publish(&q, chains[n].head);
}

START_TEST(bad_chains)
{
    unsigned n = (unsigned)_i / 2;
    bool indirect = _i % 2;
    bool good = chains[n].good;

    attach(true, indirect);
    write_bad_chain(n);
    if (chains[n].direct[0].flags & FAKE_DESC_INDIRECT)
        good = good && indirect; /* not negotiated: refused */
    ck_assert_msg(virtqueue_pop(&vq, &chain) == (good ? 1 : -EPROTO), "%s",
                  chains[n].what);
    ck_assert(vq.broken == !good);
    if (good) {
        detach();
        return;
    }
    /* Broken stays broken, without another error, and nothing is written. */
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), 0);
    ck_assert(!virtqueue_has_work(&vq));
    ck_assert(!virtqueue_enable_kicks(&vq));
    virtqueue_disable_kicks(&vq);
    ck_assert_uint_eq(*fake_queue_used_idx(&q), 0);
    ck_assert_uint_eq(*fake_queue_avail_event(&q), 0);
    detach();
}
END_TEST

static const struct {
    unsigned popped; /* of 4 good ones, first */
    unsigned pushed;
    int idx; /* then avail.idx is set to this */
    int want;
} indices[] = {
    {0, 0, SIZE + 1, -EPROTO}, {0, 0, 0x8000, -EPROTO},
    {0, 0, 0xffff, -EPROTO},   {4, 0, 4, 0},
    {4, 0, 3, -EPROTO},        /* takes one back */
    {4, 0, SIZE, 1},           /* 4 in flight, 4 more */
    {4, 0, SIZE + 1, -EPROTO}, /* more than there are descriptors */
    {4, 4, SIZE + 4, 1},       {4, 4, SIZE + 5, -EPROTO},
    {4, 2, SIZE + 2, 1},       {4, 2, SIZE + 3, -EPROTO},
};

START_TEST(avail_indices)
{
    struct fake_buf buf = {FAKE_GUEST_BASE, 16, false};

    attach(false, false);
    if (indices[_i].popped > 0)
        for (unsigned i = 0; i < 4; i++)
            ck_assert_int_ge(fake_queue_add(&q, &buf, 1), 0);
    for (unsigned i = 0; i < indices[_i].popped; i++) {
        ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
        if (i < indices[_i].pushed)
            virtqueue_push(&vq, chain.head, 0);
    }
    set_desc(0, FAKE_GUEST_BASE, 1, 0, 0); /* what the other slots name */
    *fake_queue_avail_idx(&q) = (uint16_t)indices[_i].idx;
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), indices[_i].want);
    detach();
}
END_TEST

/* ---- notifications ---- */

/* Interrupts with EVENT_IDX, for every distance, across the wrap. */
START_TEST(interrupt_event_idx)
{
    struct fake_buf buf = {FAKE_GUEST_BASE, 16, true};

    attach(true, false);
    MUST(!virtqueue_needs_interrupt(&vq)); /* nothing pushed */
    for (unsigned round = 0; round < 20000; round++) {
        unsigned batch = round % SIZE + 1;
        uint16_t old = *fake_queue_used_idx(&q);
        uint16_t event = (uint16_t)(old + round % 11 - 2);
        bool passed = (uint16_t)(event - old) < batch;

        for (unsigned i = 0; i < batch; i++)
            MUST(fake_queue_add(&q, &buf, 1) >= 0);
        *fake_queue_used_event(&q) = event;
        while (virtqueue_pop(&vq, &chain) == 1)
            virtqueue_push(&vq, chain.head, 0);
        MUST(virtqueue_needs_interrupt(&vq) == passed);
        MUST(!virtqueue_needs_interrupt(&vq));
        while (fake_queue_collect(&q, NULL, NULL))
            ;
    }
    detach();
}
END_TEST

START_TEST(interrupt_flag)
{
    struct fake_buf buf = {FAKE_GUEST_BASE, 16, true};

    attach(false, false);
    for (unsigned i = 0; i < 10; i++) {
        bool want = i % 3;

        fake_queue_want_interrupts(&q, want);
        ck_assert_int_ge(fake_queue_add(&q, &buf, 1), 0);
        ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
        ck_assert(!virtqueue_needs_interrupt(&vq));
        virtqueue_push(&vq, chain.head, 0);
        ck_assert(virtqueue_needs_interrupt(&vq) == want);
        ck_assert(!virtqueue_needs_interrupt(&vq));
        ck_assert(fake_queue_collect(&q, NULL, NULL));
    }
    detach();
}
END_TEST

/* 65536 pushes without a decision must not look like none. */
START_TEST(interrupt_after_full_turn)
{
    struct fake_buf buf = {FAKE_GUEST_BASE, 16, true};

    attach(true, false);
    fake_queue_want_interrupts(&q, false);
    for (unsigned i = 0; i < 65536; i++) {
        MUST(fake_queue_add(&q, &buf, 1) >= 0);
        MUST(virtqueue_pop(&vq, &chain) == 1);
        virtqueue_push(&vq, chain.head, 0);
        MUST(fake_queue_collect(&q, NULL, NULL));
    }
    MUST(virtqueue_needs_interrupt(&vq));
    MUST(!virtqueue_needs_interrupt(&vq));
    detach();
}
END_TEST

START_TEST(kicks)
{
    struct fake_buf buf = {FAKE_GUEST_BASE, 16, true};
    bool event_idx = _i;

    attach(event_idx, false);
    /* The first kick of all is wanted, without anybody having asked. */
    ck_assert_int_ge(fake_queue_add(&q, &buf, 1), 0);
    ck_assert(fake_queue_should_kick(&q));
    virtqueue_disable_kicks(&vq);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
    ck_assert_int_ge(fake_queue_add(&q, &buf, 1), 0);
    ck_assert(!fake_queue_should_kick(&q));
    /* It came while we were not listening: enabling says so. */
    ck_assert(virtqueue_enable_kicks(&vq));
    virtqueue_disable_kicks(&vq);
    ck_assert_int_eq(virtqueue_pop(&vq, &chain), 1);
    ck_assert(!virtqueue_enable_kicks(&vq));
    ck_assert_int_ge(fake_queue_add(&q, &buf, 1), 0);
    ck_assert(fake_queue_should_kick(&q));
    detach();
}
END_TEST

/*
 * A driver on another thread that adds, and sleeps unless told to kick. If the
 * fences were missing one side would wait for the other sooner or later.
 */
#define HANDSHAKES 5000u

struct kicker {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool kicked;
    unsigned sent;
};

static void *kick_driver(void *ctx)
{
    struct kicker *k = ctx;
    struct fake_buf buf = {FAKE_GUEST_BASE, 16, true};

    while (k->sent < HANDSHAKES) {
        while (fake_queue_collect(&q, NULL, NULL))
            ;
        if (fake_queue_add(&q, &buf, 1) < 0)
            continue;
        k->sent++;
        if (!fake_queue_should_kick(&q))
            continue;
        pthread_mutex_lock(&k->lock);
        k->kicked = true;
        pthread_cond_signal(&k->cond);
        pthread_mutex_unlock(&k->lock);
    }
    return NULL;
}

/* False after five seconds without a kick. */
static bool wait_for_kick(struct kicker *k)
{
    struct timespec until;
    bool kicked;
    int ret = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    pthread_mutex_lock(&k->lock);
    while (!k->kicked && ret == 0)
        ret = pthread_cond_timedwait(&k->cond, &k->lock, &until);
    kicked = k->kicked;
    k->kicked = false;
    pthread_mutex_unlock(&k->lock);
    return kicked;
}

START_TEST(no_kick_is_lost)
{
    struct kicker k = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER,
                       false, 0};
    pthread_t thread;
    unsigned got = 0;

    attach(_i, false);
    MUST(pthread_create(&thread, NULL, kick_driver, &k) == 0);
    while (got < HANDSHAKES) {
        ck_assert_msg(wait_for_kick(&k), "lost a kick after %u", got);
        do {
            virtqueue_disable_kicks(&vq);
            while (virtqueue_pop(&vq, &chain) == 1) {
                virtqueue_push(&vq, chain.head, 0);
                got++;
            }
        } while (virtqueue_enable_kicks(&vq));
        MUST(!vq.broken);
    }
    pthread_join(thread, NULL);
    detach();
}
END_TEST

/*
 * Descriptors and ring entries change while they are read: whatever pop
 * accepts lies inside guest memory, and guard pages see the rest.
 */
static void *scribbler(void *ctx)
{
    volatile bool *stop = ctx;
    unsigned seed = 1;

    while (!*stop) {
        struct fake_desc *d = fake_queue_desc(&q, (unsigned)rand_r(&seed) % 3);
        gpa_t addr = rand_r(&seed) & 1 ? END - 8 : FAKE_GUEST_BASE;

        __atomic_store_n(&d->addr, addr, __ATOMIC_RELAXED);
        __atomic_store_n(&d->len, (uint32_t)rand_r(&seed) & 15,
                         __ATOMIC_RELAXED);
        __atomic_store_n(&d->flags, (uint16_t)(rand_r(&seed) & 7),
                         __ATOMIC_RELAXED);
        __atomic_store_n(&d->next, (uint16_t)(rand_r(&seed) & 15),
                         __ATOMIC_RELAXED);
        *fake_queue_avail_ring(&q, 0) = (uint16_t)(rand_r(&seed) & 15);
    }
    return NULL;
}

static void check_chain_inside(void)
{
    const uint8_t *first = fake_guest_ptr(&guest, FAKE_GUEST_BASE, 1);
    unsigned count = chain.readable_count + chain.writable_count;
    uint64_t total = 0;

    MUST(count <= SIZE);
    MUST(chain.head < SIZE);
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *p = chain.iov[i].iov_base;

        MUST(p >= first && chain.iov[i].iov_len > 0 &&
             p + chain.iov[i].iov_len <= first + FAKE_GUEST_SIZE);
        total += chain.iov[i].iov_len;
    }
    MUST(total == chain.readable_len + chain.writable_len);
}

START_TEST(double_fetch)
{
    volatile bool stop = false;
    pthread_t thread;
    unsigned good = 0, bad = 0;

    attach(false, true);
    MUST(pthread_create(&thread, NULL, scribbler, (void *)(uintptr_t)&stop) ==
         0);
    /* Until both have been seen often; never (a time-out) if one cannot. */
    for (unsigned i = 0; i < 300000 || good < 1000 || bad < 1000; i++) {
        int ret;

        *fake_queue_avail_idx(&q) = (uint16_t)(vq.last_avail_idx + 1);
        ret = virtqueue_pop(&vq, &chain);
        MUST(virtqueue_check(&vq));
        if (ret == 1) {
            check_chain_inside();
            virtqueue_push(&vq, chain.head, 0);
            good++;
        } else {
            MUST(ret == -EPROTO);
            vq.broken = false; /* on with it */
            vq.avail_idx = vq.last_avail_idx;
            bad++;
        }
    }
    stop = true;
    pthread_join(thread, NULL);
    detach();
}
END_TEST

/* ---- copying and slicing ---- */

static char text[] = "abcdefghij";
static const struct iovec parts[] = {{text, 3}, {text + 3, 1}, {text + 4, 6}};

START_TEST(slices)
{
    for (uint64_t offset = 0; offset <= 11; offset++) {
        for (uint64_t len = 0; len <= 12; len++) {
            struct iovec out[VIRTQUEUE_SIZE_MAX];
            int n = iov_slice(parts, 3, offset, len, out);
            char got[16] = "";
            size_t used = 0;

            if (len > 0 && offset + len > 10) {
                ck_assert_int_eq(n, -ERANGE);
                continue;
            }
            ck_assert_int_ge(n, 0);
            for (int i = 0; i < n; i++) {
                ck_assert_uint_gt(out[i].iov_len, 0);
                memcpy(got + used, out[i].iov_base, out[i].iov_len);
                used += out[i].iov_len;
            }
            ck_assert_uint_eq(used, len);
            ck_assert_int_eq(strncmp(got, text + offset, len), 0);
        }
    }
}
END_TEST

START_TEST(copies)
{
    char buf[16];

    memset(&chain, 0, sizeof(chain));
    memcpy(chain.iov, parts, sizeof(parts));
    chain.readable_count = 1;
    chain.readable_len = 3;
    chain.writable_count = 2;
    chain.writable_len = 7;
    ck_assert_int_eq(desc_chain_read(&chain, 1, buf, 2), 0);
    ck_assert_int_eq(memcmp(buf, "bc", 2), 0);
    ck_assert_int_eq(desc_chain_read(&chain, 3, buf, 0), 0);
    ck_assert_int_eq(desc_chain_read(&chain, 4, buf, 0), -ERANGE);
    ck_assert_int_eq(desc_chain_read(&chain, 1, buf, 3), -ERANGE);
    ck_assert_int_eq(desc_chain_read(&chain, UINT64_MAX, buf, 2), -ERANGE);
    ck_assert_int_eq(desc_chain_read(&chain, 2, buf, SIZE_MAX), -ERANGE);
    ck_assert_int_eq(desc_chain_write(&chain, 6, "XY", 2), -ERANGE);
    ck_assert_str_eq(text, "abcdefghij");
    ck_assert_int_eq(desc_chain_write(&chain, 0, "XYZ", 3), 0);
    ck_assert_str_eq(text, "abcXYZghij");
    ck_assert_ptr_eq(desc_chain_writable(&chain), &chain.iov[1]);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("virtqueue");
    TCase *tc = tcase_create("all");

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, geometry, 0,
                        (int)(sizeof(geometries) / sizeof(geometries[0])));
    tcase_add_test(tc, rings_at_the_edge);
    tcase_add_loop_test(tc, round_trip, 0, 4);
    tcase_add_test(tc, full_queue_any_order);
    tcase_add_test(tc, longest_chain);
    tcase_add_test(tc, direct_then_indirect);
    tcase_add_test(tc, too_long_with_indirect);
    tcase_add_loop_test(tc, bad_chains, 0,
                        2 * (int)(sizeof(chains) / sizeof(chains[0])));
    tcase_add_loop_test(tc, avail_indices, 0,
                        (int)(sizeof(indices) / sizeof(indices[0])));
    tcase_add_test(tc, interrupt_event_idx);
    tcase_add_test(tc, interrupt_flag);
    tcase_add_test(tc, interrupt_after_full_turn);
    tcase_add_loop_test(tc, kicks, 0, 2);
    tcase_add_loop_test(tc, no_kick_is_lost, 0, 2);
    tcase_add_test(tc, double_fetch);
    tcase_add_test(tc, slices);
    tcase_add_test(tc, copies);
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
