/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codec of the messages around a freeze: there and back, cut short at
 * every byte, and with each thing that must not be said.
 */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "guest/proto.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))
#define BOOT_ID "01234567-89ab-4cde-8f01-23456789abcd"

static uint8_t frame[PROTO_FRAME_MAX];
static uint8_t *const payload = frame + PROTO_HEADER_SIZE;

static struct proto_writer writer(void)
{
    struct proto_writer w;

    memset(frame, 0xee, sizeof(frame));
    proto_writer_init(&w, frame, sizeof(frame));
    return w;
}

/* The length of the one frame that the writer holds, which is of that type. */
static size_t decode(const struct proto_writer *w, enum proto_sender sender,
                     uint16_t type)
{
    struct proto_header header;

    ck_assert(!w->overflow);
    ck_assert_int_eq(proto_get_header(frame, sender, &header), 0);
    ck_assert_uint_eq(header.type, type);
    ck_assert_uint_eq(header.length + PROTO_HEADER_SIZE, w->used);
    return header.length;
}

START_TEST(test_attach)
{
    const struct proto_attach in = {
        .flags = PROTO_EXEC_NOTE_PIDS | PROTO_EXEC_END_DISK,
        .pids_max = 77,
        .timeout_ms = 0x123456789abcull,
        .memory_max = 1ull << 40,
    };
    struct proto_writer w = writer();
    struct proto_attach out;
    size_t len;

    proto_put_attach(&w, 9, &in);
    len = decode(&w, PROTO_FROM_HOST, PROTO_ATTACH);
    ck_assert_int_eq(proto_get_attach(payload, len, &out), 0);
    ck_assert_mem_eq(&out, &in, sizeof(in));
    for (size_t n = 0; n < len; n++)
        ck_assert_int_eq(proto_get_attach(payload, n, &out), -EBADMSG);
    for (unsigned int bit = 0; bit < 32; bit++) {
        if (1u << bit == PROTO_EXEC_NOTE_PIDS ||
            1u << bit == PROTO_EXEC_END_DISK)
            continue;
        memset(payload, 0, 4);
        payload[bit / 8] = (uint8_t)(1u << bit % 8);
        ck_assert_int_eq(proto_get_attach(payload, len, &out), -EBADMSG);
    }
}
END_TEST

START_TEST(test_quiesce)
{
    uint32_t flags;

    for (uint32_t value = 0; value < 64; value++) {
        struct proto_writer w = writer();
        bool good =
            value < 8 &&
            (value & (PROTO_QUIESCE_KEEP | PROTO_QUIESCE_FREE_MEMORY)) !=
                (PROTO_QUIESCE_KEEP | PROTO_QUIESCE_FREE_MEMORY);
        size_t len;

        proto_put_u32(&w, PROTO_QUIESCE, 0, value);
        len = decode(&w, PROTO_FROM_HOST, PROTO_QUIESCE);
        flags = 99;
        ck_assert_int_eq(proto_get_quiesce(payload, len, &flags),
                         good ? 0 : -EBADMSG);
        ck_assert_uint_eq(flags, good ? value : 99);
        ck_assert_int_eq(proto_get_quiesce(payload, 3, &flags), -EBADMSG);
    }
    ck_assert(!proto_quiesce_is_sane(1u << 31));
}
END_TEST

START_TEST(test_quiesced)
{
    const struct proto_quiesced in = {
        .memory_free = 1ull << 33,
        .uptime_ms = 0x123456789abcull,
        .pin_window_ms = 60000,
    };
    struct proto_writer w = writer();
    struct proto_quiesced out;
    size_t len;

    memset(&out, 0, sizeof(out));
    proto_put_quiesced(&w, &in);
    len = decode(&w, PROTO_FROM_GUEST, PROTO_QUIESCED);
    ck_assert_int_eq(proto_get_quiesced(payload, len, &out), 0);
    ck_assert_mem_eq(&out, &in, sizeof(in));
    for (size_t n = 0; n < len; n++)
        ck_assert_int_eq(proto_get_quiesced(payload, n, &out), -EBADMSG);
    /* An error, and figures nevertheless. */
    payload[0] = EBUSY;
    ck_assert_int_eq(proto_get_quiesced(payload, len, &out), -EBADMSG);
    memset(payload + 4, 0, len - 4);
    ck_assert_int_eq(proto_get_quiesced(payload, len, &out), 0);
    ck_assert_uint_eq(out.err, EBUSY);
    payload[1] = 0x10; /* no errno is that large */
    ck_assert_int_eq(proto_get_quiesced(payload, len, &out), -EBADMSG);
}
END_TEST

/* ---- restore ------------------------------------------------------------ */

static struct proto_restore fresh(void)
{
    struct proto_restore m;

    memset(&m, 0, sizeof(m));
    m.flags = PROTO_RESTORE_FRESH;
    m.realtime_ns = 1700000000123456789;
    memset(m.entropy, 0xa5, sizeof(m.entropy));
    return m;
}

static struct proto_restore pinned(void)
{
    struct proto_restore m;

    memset(&m, 0, sizeof(m));
    m.flags = PROTO_RESTORE_PINNED;
    m.seed = 0xfedcba9876543210u;
    strcpy(m.hostname, "host-1.example");
    return m;
}

static size_t put_restore(const struct proto_restore *m)
{
    struct proto_writer w = writer();

    proto_put_restore(&w, m);
    return decode(&w, PROTO_FROM_HOST, PROTO_RESTORE);
}

START_TEST(test_restore)
{
    struct proto_restore in[5] = {fresh(), pinned(), {0}, fresh(), pinned()};
    struct proto_restore out;

    memset(&in[2], 0, sizeof(in[2]));
    in[2].flags = PROTO_RESTORE_SAME;
    memset(in[0].hostname, 'h', sizeof(in[0].hostname) - 1);
    in[3].flags |= PROTO_RESTORE_LIMIT;
    in[3].scratch_limit = 1;
    in[4].flags |= PROTO_RESTORE_LIMIT;
    in[4].scratch_limit = 0xfedcba9876543210u;
    for (size_t i = 0; i < 5; i++) {
        size_t len = put_restore(&in[i]);
        size_t fixed = len - strlen(in[i].hostname);

        memset(&out, 0, sizeof(out));
        ck_assert_int_eq(proto_get_restore(payload, len, &out), 0);
        ck_assert_mem_eq(&out, &in[i], sizeof(out));
        for (size_t n = 0; n < fixed; n++)
            ck_assert_int_eq(proto_get_restore(payload, n, &out), -EBADMSG);
    }
    /* A name of one byte more than there is room for. */
    put_restore(&in[0]);
    payload[84 + 64] = 'h';
    ck_assert_int_eq(proto_get_restore(payload, 84 + 65, &out), -EBADMSG);
}
END_TEST

static void no_flag(struct proto_restore *m)
{
    m->flags = 0;
}

static void two_flags(struct proto_restore *m)
{
    m->flags |= PROTO_RESTORE_PINNED;
}

static void unknown_flag(struct proto_restore *m)
{
    m->flags |= 16;
}

static void no_entropy(struct proto_restore *m)
{
    memset(m->entropy, 0, sizeof(m->entropy));
}

static void fresh_seed(struct proto_restore *m)
{
    m->seed = 1;
}

static void before_1970(struct proto_restore *m)
{
    m->realtime_ns = -1;
}

static void name_with_blank(struct proto_restore *m)
{
    strcpy(m->hostname, "a b");
}

static void name_with_escape(struct proto_restore *m)
{
    strcpy(m->hostname, "a\033[2J");
}

static void pinned_entropy(struct proto_restore *m)
{
    *m = pinned();
    m->entropy[63] = 1;
}

static void same_clock(struct proto_restore *m)
{
    memset(m, 0, sizeof(*m));
    m->flags = PROTO_RESTORE_SAME;
    m->realtime_ns = 1;
}

static void same_name(struct proto_restore *m)
{
    memset(m, 0, sizeof(*m));
    m->flags = PROTO_RESTORE_SAME;
    m->hostname[0] = 'a';
}

static void same_seed(struct proto_restore *m)
{
    memset(m, 0, sizeof(*m));
    m->flags = PROTO_RESTORE_SAME;
    m->seed = 1;
}

static void limit_of_nothing(struct proto_restore *m)
{
    m->flags |= PROTO_RESTORE_LIMIT;
}

static void same_limit(struct proto_restore *m)
{
    memset(m, 0, sizeof(*m));
    m->flags = PROTO_RESTORE_SAME | PROTO_RESTORE_LIMIT;
    m->scratch_limit = 1;
}

static void (*const restore_faults[])(struct proto_restore *m) = {
    no_flag,     two_flags,       unknown_flag,     no_entropy, fresh_seed,
    before_1970, name_with_blank, name_with_escape, same_clock, same_name,
    same_seed,   pinned_entropy,  limit_of_nothing, same_limit,
};

START_TEST(test_restore_refused)
{
    struct proto_restore m = fresh();
    struct proto_restore out;

    ck_assert(proto_restore_is_sane(&m));
    m.scratch_limit = 1;
    ck_assert(!proto_restore_is_sane(&m));
    m.scratch_limit = 0;
    restore_faults[_i](&m);
    ck_assert(!proto_restore_is_sane(&m));
    ck_assert_int_eq(proto_get_restore(payload, put_restore(&m), &out),
                     -EBADMSG);
}
END_TEST

/* A caller's name that does not end is not read beyond its field. */
START_TEST(test_restore_endless_name)
{
    struct proto_restore m = fresh();

    memset(m.hostname, 'h', sizeof(m.hostname));
    ck_assert(!proto_restore_is_sane(&m));
}
END_TEST

static const struct {
    uint32_t err, step;
    const char *boot_id;
    bool good;
} restored[] = {
    {0, PROTO_STEP_NONE, BOOT_ID, true},
    {EPERM, PROTO_STEP_CLOCK, "", true},
    {EPERM, PROTO_STEP_HOSTNAME, "", true},
    {0, PROTO_STEP_NONE, "", false},
    {0, PROTO_STEP_CLOCK, BOOT_ID, false},
    {EPERM, PROTO_STEP_NONE, "", false},
    {EPERM, PROTO_STEP_CLOCK, BOOT_ID, false},
    {EPERM, PROTO_STEP_LAST + 1, "", false},
    {PROTO_ERRNO_MAX + 1, PROTO_STEP_CLOCK, "", false},
    {0, PROTO_STEP_NONE, "01234567-89ab-4cde-8f01-23456789abc", false},
    {0, PROTO_STEP_NONE, "0123456789ab-4cde-8f01-23456789abcd-", false},
    {0, PROTO_STEP_NONE, "01234567-89AB-4cde-8f01-23456789abcd", false},
    {0, PROTO_STEP_NONE, "01234567-89ab-4cde-8f01-23456789abcg", false},
    {0, PROTO_STEP_NONE, "../../../../../../../../../etc/passw", false},
};

START_TEST(test_restored)
{
    struct proto_restored in = {.err = restored[_i].err,
                                .step = restored[_i].step};
    struct proto_writer w = writer();
    struct proto_restored out;
    size_t len;

    memcpy(in.boot_id, restored[_i].boot_id, strlen(restored[_i].boot_id));
    proto_put_restored(&w, &in);
    len = decode(&w, PROTO_FROM_GUEST, PROTO_RESTORED);
    ck_assert_int_eq(proto_get_restored(payload, len, &out),
                     restored[_i].good ? 0 : -EBADMSG);
    if (!restored[_i].good)
        return;
    ck_assert_uint_eq(out.err, in.err);
    ck_assert_uint_eq(out.step, in.step);
    ck_assert_str_eq(out.boot_id, in.boot_id);
    for (size_t n = 0; n < len; n++)
        ck_assert_int_eq(proto_get_restored(payload, n, &out), -EBADMSG);
}
END_TEST

/* What does not fit leaves nothing. */
START_TEST(test_no_room)
{
    const struct proto_restored answer = {.boot_id = BOOT_ID};
    const struct proto_restore request = fresh();
    struct proto_writer w;

    for (size_t size = 0; size < PROTO_HEADER_SIZE + 24; size++) {
        proto_writer_init(&w, frame, size);
        proto_put_attach(&w, 1, &(struct proto_attach){0});
        proto_put_quiesced(&w, &(struct proto_quiesced){0});
        proto_put_restore(&w, &request);
        proto_put_restored(&w, &answer);
        ck_assert(w.overflow);
        ck_assert_uint_eq(w.used, 0);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("proto snapshot");
    TCase *tc = tcase_create("proto snapshot");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_test(tc, test_attach);
    tcase_add_test(tc, test_quiesce);
    tcase_add_test(tc, test_quiesced);
    tcase_add_test(tc, test_restore);
    tcase_add_loop_test(tc, test_restore_refused, 0, COUNT(restore_faults));
    tcase_add_test(tc, test_restore_endless_name);
    tcase_add_loop_test(tc, test_restored, 0, COUNT(restored));
    tcase_add_test(tc, test_no_room);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
