/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of a virtio slot: its layout, every place where a value can
 * not be, and every truncation and bit flip of states that were really saved:
 * refused, or as harmless as any other guest.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/blk/virtio_blk.h"
#include "tests/state_rig.h"

#define REG_DRIVER_FEATURES 0x020u
#define REG_DRIVER_FEATURES_SEL 0x024u
#define REG_QUEUE_NUM 0x038u
#define REG_QUEUE_READY 0x044u
#define REG_STATUS 0x070u
#define REG_QUEUE_DESC 0x080u
#define ACKNOWLEDGE 1u
#define DRIVER 2u
#define DRIVER_OK 4u
#define FEATURES_OK 8u
#define NEEDS_RESET 64u
#define FAILED 128u

#define QUEUE_SIZE 8u

/*
 * Where things are in a state: the format, written down once more. Before each
 * group's fields are its name and its length, four bytes each.
 */
#define GROUP_HEADER 8u
#define AT_DEVICE_ID 8u
#define AT_QUEUE_COUNT 12u
#define AT_STATUS 16u
#define AT_DRIVER_FEATURES 32u
#define AT_CONFIG_GENERATION 40u
#define AT_INTERRUPTS 44u
#define AT_ACTIVE 48u
#define AT_QUEUE 57u /* the first one */
#define Q_SIZE 0u
#define Q_DESC 2u
#define Q_AVAIL 10u
#define Q_USED 18u
#define Q_READY 26u
#define Q_BROKEN 27u
#define Q_ACTIVE 28u
#define Q_IDLE_END 29u
#define Q_LAST_AVAIL_IDX 29u
#define Q_AVAIL_IDX 31u
#define Q_USED_IDX 33u
#define Q_SIGNALLED 35u
#define Q_SIGNALLED_VALID 37u
#define Q_ACTIVE_END 38u

static struct state_rig rig;
static struct fake_state saved;

static int load_saved(void)
{
    return fake_driver_load(&rig.d, saved.bytes, saved.len);
}

/* Chains for the device to take: some work done, and some left. */
static void do_requests(void)
{
    struct fake_queue *q = &rig.d.queues[0];
    gpa_t at = fake_guest_alloc(&rig.d.guest, 64, 16);
    struct fake_buf bufs[2] = {{at, 16, false}, {at + 16, 48, true}};

    for (unsigned i = 0; i < 3; i++) {
        /* Header and status (blk), or something to fill (rng, rx). */
        if (rig.kind == STATE_RIG_BLK)
            ck_assert_int_ge(fake_queue_add(q, bufs, 2), 0);
        else
            ck_assert_int_ge(fake_queue_add(q, bufs + 1, 1), 0);
        if (i < 2)
            fake_driver_kick(&rig.d, 0);
    }
    if (rig.kind == STATE_RIG_VSOCK) {
        struct fake_buf event = {at, 4, true};

        ck_assert_int_ge(fake_queue_add(&rig.d.queues[2], &event, 1), 0);
    }
}

static void break_queue(void)
{
    fake_queue_publish(&rig.d.queues[0], 999);
    fake_driver_kick_force(&rig.d, 0);
    if (rig.kind == STATE_RIG_VSOCK) { /* rx is looked at when needed */
        fake_queue_publish(&rig.d.queues[1], 999);
        fake_driver_kick_force(&rig.d, 1);
    }
    ck_assert(fake_driver_needs_reset(&rig.d));
}

static void write_status(uint32_t value)
{
    fake_driver_write(&rig.d, REG_STATUS, value);
}

static void write_features(uint32_t high)
{
    fake_driver_write(&rig.d, REG_DRIVER_FEATURES_SEL, 1);
    fake_driver_write(&rig.d, REG_DRIVER_FEATURES, high);
}

/* Everything a slot can be in. */
enum phase {
    FRESH,
    STATUS_DRIVER_FEATURES, /* features written, not checked yet */
    NEGOTIATED,             /* a queue half set up */
    RUNNING,
    RUNNING_EVENT_IDX,
    RESTORED, /* and told so: vsock's gate is shut */
    QUEUE_STOPPED,
    BROKEN,
    BAD_ACTIVATION, /* DRIVER_OK with a queue outside memory */
    GIVEN_UP,       /* FAILED, by the driver */
    PHASES,
};

static void enter_negotiation(enum phase phase)
{
    write_status(ACKNOWLEDGE);
    write_status(ACKNOWLEDGE | DRIVER);
    write_features(phase == STATUS_DRIVER_FEATURES ? 0x123 : 1);
    if (phase == STATUS_DRIVER_FEATURES)
        return;
    write_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    fake_driver_write(&rig.d, REG_QUEUE_NUM, QUEUE_SIZE);
    fake_driver_write(&rig.d, REG_QUEUE_DESC, 0x12345678);
    if (phase == BAD_ACTIVATION) {
        fake_driver_write(&rig.d, REG_QUEUE_READY, 1);
        write_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        ck_assert(fake_driver_needs_reset(&rig.d));
    }
}

static void enter_running(enum phase phase)
{
    fake_driver_start(&rig.d, phase == RUNNING ? 0 : VIRTIO_FEATURE_EVENT_IDX,
                      QUEUE_SIZE);
    do_requests();
    if (phase == QUEUE_STOPPED)
        fake_driver_write(&rig.d, REG_QUEUE_READY, 0);
    if (phase == BROKEN)
        break_queue();
    if (phase == GIVEN_UP)
        write_status(FAILED | DRIVER_OK | FEATURES_OK | DRIVER | ACKNOWLEDGE);
}

static void enter(enum phase phase)
{
    if (phase == FRESH)
        return;
    if (phase == STATUS_DRIVER_FEATURES || phase == NEGOTIATED ||
        phase == BAD_ACTIVATION) {
        enter_negotiation(phase);
        return;
    }
    if (phase == RESTORED) { /* a state to restore first */
        fake_driver_start(&rig.d, VIRTIO_FEATURE_EVENT_IDX, QUEUE_SIZE);
        do_requests();
        fake_driver_save(&rig.d, &saved);
        state_rig_replace(&rig);
        ck_assert_int_eq(load_saved(), 0);
        virtio_mmio_restored(&rig.d.mmio);
        return;
    }
    enter_running(phase);
}

/* A slot of each kind in each phase, and its state. */
static void setup(int i)
{
    state_rig_init(&rig, (enum state_rig_kind)(i % STATE_RIG_KINDS));
    enter((enum phase)(i / STATE_RIG_KINDS));
    fake_driver_save(&rig.d, &saved);
}

#define CASES ((int)STATE_RIG_KINDS * (int)PHASES)

static void teardown(void)
{
    state_rig_fini(&rig);
}

START_TEST(test_save_load_save)
{
    struct fake_state again;

    setup(_i);
    state_rig_replace(&rig);
    ck_assert_int_eq(load_saved(), 0);
    fake_driver_save(&rig.d, &again);
    ck_assert_uint_eq(again.len, saved.len);
    ck_assert_mem_eq(again.bytes, saved.bytes, saved.len);
    /* Also into a device that was in use, and twice. */
    virtio_mmio_restored(&rig.d.mmio);
    ck_assert_int_eq(load_saved(), 0);
    ck_assert_int_eq(load_saved(), 0);
    fake_driver_save(&rig.d, &again);
    ck_assert_uint_eq(again.len, saved.len);
    ck_assert_mem_eq(again.bytes, saved.bytes, saved.len);
    state_rig_exercise(&rig);
    teardown();
}
END_TEST

START_TEST(test_truncated_or_longer)
{
    setup(_i);
    state_rig_replace(&rig);
    for (size_t len = 0; len < saved.len; len++)
        ck_assert_int_eq(fake_driver_load(&rig.d, saved.bytes, len), -EBADMSG);
    saved.bytes[saved.len] = 0;
    ck_assert_int_eq(fake_driver_load(&rig.d, saved.bytes, saved.len + 1),
                     -EBADMSG);
    /* None of that has spoiled the device. */
    ck_assert_int_eq(load_saved(), 0);
    state_rig_exercise(&rig);
    teardown();
}
END_TEST

START_TEST(test_every_bit_flipped)
{
    uint8_t *memory, *copy = malloc(STATE_RIG_MEMORY);
    unsigned refused = 0;

    ck_assert_ptr_nonnull(copy);
    setup(_i);
    memory = fake_guest_ptr(&rig.d.guest, FAKE_GUEST_BASE, STATE_RIG_MEMORY);
    memcpy(copy, memory, STATE_RIG_MEMORY);
    for (size_t bit = 0; bit < saved.len * 8; bit++) {
        int ret;

        saved.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        state_rig_replace(&rig);
        ret = load_saved();
        saved.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (ret == 0)
            state_rig_exercise(&rig);
        else
            ck_assert_int_eq(ret, -EBADMSG);
        refused += ret != 0;
        memcpy(memory, copy, STATE_RIG_MEMORY);
    }
    ck_assert_uint_gt(refused, saved.len); /* one bit in eight, at least */
    free(copy);
    teardown();
}
END_TEST

/* Another device, or one with other queues. */
START_TEST(test_other_device)
{
    setup(_i);
    for (unsigned kind = 0; kind < STATE_RIG_KINDS; kind++) {
        struct state_rig other;

        state_rig_init(&other, (enum state_rig_kind)kind);
        ck_assert_int_eq(fake_driver_load(&other.d, saved.bytes, saved.len),
                         kind == (unsigned)_i % STATE_RIG_KINDS ? 0 : -EBADMSG);
        state_rig_fini(&other);
    }
    teardown();
}
END_TEST

/* Statuses of a slot that nobody has started, with no features: which can be.
 */
START_TEST(test_every_status)
{
    for (unsigned status = 0; status < 512; status++) {
        bool ok = status < 256 && !(status & (16 | 32)) &&
                  !((status & DRIVER) && !(status & ACKNOWLEDGE)) &&
                  !(status & FEATURES_OK); /* VERSION_1 is missing */

        /* DRIVER_OK needs FEATURES_OK. */
        if (status & DRIVER_OK)
            ok = false;
        setup((int)FRESH * STATE_RIG_KINDS + STATE_RIG_RNG);
        num_put_le32(saved.bytes + AT_STATUS, status);
        if ((load_saved() == 0) != ok)
            ck_abort_msg("status %u", status);
        teardown();
    }
}
END_TEST

/* The same with features: of a slot that runs. */
START_TEST(test_every_running_status)
{
    const unsigned up = ACKNOWLEDGE | DRIVER | FEATURES_OK;

    for (unsigned status = 0; status < 256; status++) {
        /* It is active, so that it cannot be less than this. */
        bool ok = (status & (up | DRIVER_OK)) == (up | DRIVER_OK) &&
                  !(status & (16 | 32));

        setup((int)RUNNING * STATE_RIG_KINDS + STATE_RIG_RNG);
        num_put_le32(saved.bytes + AT_STATUS, status);
        if ((load_saved() == 0) != ok)
            ck_abort_msg("status %u", status);
        teardown();
    }
}
END_TEST

/* One value changed in the state of a running entropy device. */
static const struct patch {
    const char *name;
    unsigned at;
    unsigned size;
    uint64_t value;
    bool ok;
} patches[] = {
    {"nothing", AT_QUEUE_COUNT, 4, 1, true},
    {"other device", AT_DEVICE_ID, 4, 2, false},
    {"no device", AT_DEVICE_ID, 4, 0, false},
    {"more queues", AT_QUEUE_COUNT, 4, 2, false},
    {"feature not offered", AT_DRIVER_FEATURES, 8, 0x100000001, false},
    {"not version 1", AT_DRIVER_FEATURES, 8, 0, false},
    {"other features", AT_DRIVER_FEATURES, 8, 0x130000000, true},
    {"generation", AT_CONFIG_GENERATION, 4, 0xffffffff, true},
    {"no interrupt", AT_INTERRUPTS, 4, 0, true},
    {"both interrupts", AT_INTERRUPTS, 4, 3, true},
    {"other interrupt", AT_INTERRUPTS, 4, 4, false},
    {"not active", AT_ACTIVE, 1, 0, false},
    {"active as never before", AT_ACTIVE, 1, 2, false},
    {"size 0", AT_QUEUE + Q_SIZE, 2, 0, false},
    {"size not a power of two", AT_QUEUE + Q_SIZE, 2, 7, false},
    {"size not offered", AT_QUEUE + Q_SIZE, 2, 128, false},
    {"another size", AT_QUEUE + Q_SIZE, 2, 16, true},
    {"table misaligned", AT_QUEUE + Q_DESC, 8, FAKE_GUEST_BASE + 8, false},
    {"table before memory", AT_QUEUE + Q_DESC, 8, FAKE_GUEST_BASE - 16, false},
    {"table past memory", AT_QUEUE + Q_DESC, 8,
     FAKE_GUEST_BASE + STATE_RIG_MEMORY - 16, false},
    {"table elsewhere", AT_QUEUE + Q_DESC, 8, FAKE_GUEST_BASE + 4096, true},
    {"table at the end of the world", AT_QUEUE + Q_DESC, 8, UINT64_MAX - 15,
     false},
    {"avail misaligned", AT_QUEUE + Q_AVAIL, 8, FAKE_GUEST_BASE + 1, false},
    {"avail past memory", AT_QUEUE + Q_AVAIL, 8,
     FAKE_GUEST_BASE + STATE_RIG_MEMORY, false},
    {"used misaligned", AT_QUEUE + Q_USED, 8, FAKE_GUEST_BASE + 2, false},
    {"used past memory", AT_QUEUE + Q_USED, 8, 0, false},
    {"not ready, but active", AT_QUEUE + Q_READY, 1, 0, false},
    {"ready twice", AT_QUEUE + Q_READY, 1, 2, false},
    {"broken without NEEDS_RESET", AT_QUEUE + Q_BROKEN, 1, 1, false},
    {"broken twice", AT_QUEUE + Q_BROKEN, 1, 255, false},
    {"ready, not active", AT_QUEUE + Q_ACTIVE, 1, 0, false},
    {"active twice", AT_QUEUE + Q_ACTIVE, 1, 3, false},
    {"taken before returned", AT_QUEUE + Q_LAST_AVAIL_IDX, 2, 3, false},
    {"returned before taken", AT_QUEUE + Q_USED_IDX, 2, 3, false},
    {"more available than fit", AT_QUEUE + Q_AVAIL_IDX, 2, 11, false},
    {"as many available as fit", AT_QUEUE + Q_AVAIL_IDX, 2, 10, true},
    {"available backwards", AT_QUEUE + Q_AVAIL_IDX, 2, 1, false},
    {"any signalled", AT_QUEUE + Q_SIGNALLED, 2, 0x8000, true},
    {"signalled not valid", AT_QUEUE + Q_SIGNALLED_VALID, 1, 0, true},
    {"signalled neither", AT_QUEUE + Q_SIGNALLED_VALID, 1, 2, false},
};

START_TEST(test_patched)
{
    const struct patch *p = &patches[_i];
    uint8_t value[8];
    int ret;

    setup((int)RUNNING * STATE_RIG_KINDS + STATE_RIG_RNG);
    ck_assert_uint_eq(saved.len, AT_QUEUE + Q_ACTIVE_END);
    ck_assert_uint_eq(num_get_le16(saved.bytes + AT_QUEUE + Q_USED_IDX), 2);
    num_put_le64(value, p->value);
    memcpy(saved.bytes + p->at, value, p->size);
    ret = load_saved();
    ck_assert_msg(ret == (p->ok ? 0 : -EBADMSG), "%s: %d", p->name, ret);
    if (ret == 0)
        state_rig_exercise(&rig);
    teardown();
}
END_TEST

/* Of a slot whose driver has not got that far. */
static const struct early_patch {
    const char *name;
    enum phase phase;
    unsigned at;
    unsigned size;
    uint64_t value;
    bool ok;
} early[] = {
    {"features before DRIVER", FRESH, AT_DRIVER_FEATURES, 8, 1, false},
    {"interrupt before DRIVER_OK", FRESH, AT_INTERRUPTS, 4, 1, false},
    {"active before DRIVER_OK", NEGOTIATED, AT_ACTIVE, 1, 1, false},
    {"geometry before FEATURES_OK", STATUS_DRIVER_FEATURES, AT_QUEUE + Q_DESC,
     8, 4096, false},
    {"size before FEATURES_OK", FRESH, AT_QUEUE + Q_SIZE, 2, 8, false},
    {"any features before FEATURES_OK", STATUS_DRIVER_FEATURES,
     AT_DRIVER_FEATURES, 8, UINT64_MAX, true},
    {"ready without a size", FRESH, AT_QUEUE + Q_READY, 1, 1, false},
    {"ready outside memory, not yet active", NEGOTIATED, AT_QUEUE + Q_READY, 1,
     1, true},
    {"queue active before its device", NEGOTIATED, AT_QUEUE + Q_ACTIVE, 1, 1,
     false},
    {"inactive without NEEDS_RESET", BAD_ACTIVATION, AT_STATUS, 4,
     ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, false},
    {"active after all", BAD_ACTIVATION, AT_ACTIVE, 1, 1, true},
};

START_TEST(test_patched_early)
{
    const struct early_patch *p = &early[_i];
    uint8_t value[8];
    int ret;

    setup((int)p->phase * STATE_RIG_KINDS + STATE_RIG_RNG);
    ck_assert_uint_eq(saved.len, AT_QUEUE + Q_IDLE_END);
    num_put_le64(value, p->value);
    memcpy(saved.bytes + p->at, value, p->size);
    ret = load_saved();
    ck_assert_msg(ret == (p->ok ? 0 : -EBADMSG), "%s: %d", p->name, ret);
    if (ret == 0)
        state_rig_exercise(&rig);
    teardown();
}
END_TEST

/* An inactive queue has no indices, an active one has; cut or add them. */
static void set_indices(bool present)
{
    memset(saved.bytes + AT_QUEUE + Q_IDLE_END, 0, Q_ACTIVE_END - Q_IDLE_END);
    saved.len = AT_QUEUE + (present ? Q_ACTIVE_END : Q_IDLE_END);
    num_put_le32(saved.bytes + AT_QUEUE - 4, (uint32_t)(saved.len - AT_QUEUE));
}

static void expect_refused(bool refused)
{
    ck_assert_int_eq(load_saved(), refused ? -EBADMSG : 0);
}

/* Active, ready and broken, of a device and its queue, contradict each other.
 */
START_TEST(test_contradictions)
{
    const uint32_t up = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    uint8_t *status = saved.bytes + AT_STATUS;
    uint8_t *queue = saved.bytes + AT_QUEUE;

    /* A broken queue, of a device that does not mind. */
    setup((int)RUNNING * STATE_RIG_KINDS + STATE_RIG_RNG);
    set_indices(false);
    queue[Q_BROKEN] = 1;
    expect_refused(true);
    num_put_le32(status, up | NEEDS_RESET);
    expect_refused(false);
    /* A queue that does not run, though it is ready and its device does. */
    queue[Q_BROKEN] = 0;
    num_put_le32(status, up);
    queue[Q_ACTIVE] = 0;
    expect_refused(true);
    queue[Q_READY] = 0;
    expect_refused(false);
    /* A device that does not run, and does not mind either. */
    saved.bytes[AT_ACTIVE] = 0;
    expect_refused(true);
    num_put_le32(status, up | NEEDS_RESET);
    expect_refused(false);
    /* A queue that runs in a device that does not. */
    queue[Q_READY] = 1;
    queue[Q_ACTIVE] = 1;
    set_indices(true);
    expect_refused(true);
    saved.bytes[AT_ACTIVE] = 1;
    expect_refused(false);
    teardown();
}
END_TEST

/* What vsock adds, at the end of the state of a device that runs. */
#define AT_VSOCK_CID 0u
#define AT_VSOCK_PORT 8u
#define AT_VSOCK_KICKS 12u
#define AT_VSOCK_HALTED 13u
#define AT_VSOCK_SHUT 14u
#define AT_VSOCK_SINCE 15u
#define VSOCK_STATE_SIZE 17u

static const struct patch vsock_patches[] = {
    {"other guest", AT_VSOCK_CID, 8, STATE_RIG_CID + 1, false},
    {"first port", AT_VSOCK_PORT, 4, 1u << 30, true},
    {"port before the first", AT_VSOCK_PORT, 4, (1u << 30) - 1, false},
    {"last port", AT_VSOCK_PORT, 4, (1u << 31) - 1, true},
    {"port behind the last", AT_VSOCK_PORT, 4, 1u << 31, false},
    {"kicks wanted", AT_VSOCK_KICKS, 1, 1, true},
    {"kicks wanted twice", AT_VSOCK_KICKS, 1, 2, false},
    {"halted", AT_VSOCK_HALTED, 1, 1, true},
    {"gate shut", AT_VSOCK_SHUT, 1, 1, true},
    {"gate shut twice", AT_VSOCK_SHUT, 1, 2, false},
    {"gate open since then", AT_VSOCK_SINCE, 2, 1, false},
};

START_TEST(test_patched_vsock)
{
    const struct patch *p = &vsock_patches[_i];
    uint8_t value[8];
    int ret;

    setup((int)RUNNING_EVENT_IDX * STATE_RIG_KINDS + STATE_RIG_VSOCK);
    num_put_le64(value, p->value);
    memcpy(saved.bytes + saved.len - VSOCK_STATE_SIZE + p->at, value, p->size);
    ret = load_saved();
    ck_assert_msg(ret == (p->ok ? 0 : -EBADMSG), "%s: %d", p->name, ret);
    if (ret == 0)
        state_rig_exercise(&rig);
    /* Only a device that was started has asked for anything. */
    teardown();
    setup((int)FRESH * STATE_RIG_KINDS + STATE_RIG_VSOCK);
    memcpy(saved.bytes + saved.len - VSOCK_STATE_SIZE + p->at, value, p->size);
    ret = load_saved();
    ck_assert_msg(ret == (p->ok && p->at == AT_VSOCK_PORT ? 0 : -EBADMSG),
                  "fresh, %s: %d", p->name, ret);
    teardown();
}
END_TEST

/* Statistics are of one run. */
START_TEST(test_violations_start_at_zero)
{
    setup((int)RUNNING * STATE_RIG_KINDS + STATE_RIG_RNG);
    fake_driver_write(&rig.d, REG_QUEUE_NUM, 3);
    ck_assert_uint_gt(atomic_load(&rig.d.mmio.dev->violations), 0);
    ck_assert_int_eq(load_saved(), 0);
    ck_assert_uint_eq(atomic_load(&rig.d.mmio.dev->violations), 0);
    teardown();
}
END_TEST

/* An interrupt that was not acknowledged is raised again; another is not. */
START_TEST(test_interrupt_is_raised_again)
{
    unsigned before;

    setup((int)RUNNING * STATE_RIG_KINDS + STATE_RIG_RNG);
    num_put_le32(saved.bytes + AT_INTERRUPTS, (uint32_t)_i);
    /* Nothing is left to serve: the memory says so, the state need not. */
    while (fake_queue_collect(&rig.d.queues[0], NULL, NULL))
        ;
    fake_queue_want_interrupts(&rig.d.queues[0], false);
    ck_assert_int_eq(load_saved(), 0);
    before = rig.d.interrupts;
    virtio_mmio_restored(&rig.d.mmio);
    ck_assert_uint_eq(rig.d.interrupts, before + (_i != 0));
    teardown();
}
END_TEST

/* What the entropy device had not served yet, it serves after the restore. */
START_TEST(test_work_goes_on)
{
    unsigned used;

    setup((int)(_i ? RUNNING_EVENT_IDX : RUNNING) * STATE_RIG_KINDS +
          STATE_RIG_RNG);
    used = fake_queue_used_count(&rig.d.queues[0]);
    ck_assert_uint_eq(used, 2);
    state_rig_replace(&rig);
    ck_assert_int_eq(load_saved(), 0);
    ck_assert_uint_eq(fake_queue_used_count(&rig.d.queues[0]), used);
    virtio_mmio_restored(&rig.d.mmio);
    for (unsigned i = 0; i < 3; i++) {
        uint32_t len;

        ck_assert(fake_queue_collect(&rig.d.queues[0], NULL, &len));
        ck_assert_uint_eq(len, 48);
    }
    do_requests();
    fake_driver_kick_force(&rig.d, 0);
    ck_assert_uint_eq(fake_queue_used_count(&rig.d.queues[0]), 3);
    teardown();
}
END_TEST

/* A slot with nothing in it has nothing to save. */
START_TEST(test_empty_slot)
{
    struct virtio_mmio mmio;
    struct guest_mem mem = {0};
    uint8_t byte = 0;
    struct state_writer w;
    struct state_reader r;

    virtio_mmio_init(&mmio, NULL, &mem, NULL, (struct irq_line){0});
    virtio_mmio_quiesce(&mmio);
    state_writer_init(&w, &byte, sizeof(byte));
    virtio_mmio_save(&mmio, &w);
    ck_assert_uint_eq(w.used, 0);
    state_reader_init(&r, &byte, 0);
    ck_assert_int_eq(virtio_mmio_load(&mmio, &r), 0);
    state_reader_init(&r, &byte, 1);
    ck_assert_int_eq(virtio_mmio_load(&mmio, &r), -EBADMSG);
    virtio_mmio_restored(&mmio);
    virtio_mmio_fini(&mmio);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("device_state");
    TCase *tc = tcase_create("state");
    SRunner *sr;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_save_load_save, 0, CASES);
    tcase_add_loop_test(tc, test_truncated_or_longer, 0, CASES);
    tcase_add_loop_test(tc, test_every_bit_flipped, 0, CASES);
    tcase_add_loop_test(tc, test_other_device, 0, CASES);
    tcase_add_test(tc, test_every_status);
    tcase_add_test(tc, test_every_running_status);
    tcase_add_loop_test(tc, test_patched, 0, (int)ARRAY_SIZE(patches));
    tcase_add_loop_test(tc, test_patched_early, 0, (int)ARRAY_SIZE(early));
    tcase_add_test(tc, test_contradictions);
    tcase_add_loop_test(tc, test_patched_vsock, 0,
                        (int)ARRAY_SIZE(vsock_patches));
    tcase_add_test(tc, test_violations_start_at_zero);
    tcase_add_loop_test(tc, test_interrupt_is_raised_again, 0, 4);
    tcase_add_loop_test(tc, test_work_goes_on, 0, 2);
    tcase_add_test(tc, test_empty_slot);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
