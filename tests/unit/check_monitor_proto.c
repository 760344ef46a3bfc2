/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's records as bytes: round trip, and what is refused. */
#include "vmm/monitor_proto.h"

#include <check.h>
#include <errno.h>
#include <string.h>

#include "base/num.h"

#define BUF_SIZE 4096u

static struct monitor_error some_error(void)
{
    struct monitor_error e = {
        .code = MONITOR_ERROR_DISK, .error = -EINVAL, .disk = 7};

    memset(e.text, 't', MONITOR_TEXT_MAX);
    return e;
}

static struct monitor_stats some_stats(void)
{
    struct monitor_stats s = {
        .first_run_ns = 1,
        .exits = 2,
        .guest_cpu_ns = 3,
        .device_cpu_ns = 4,
        .violations = 5,
        .unclaimed = 6,
        .console_bytes = 7,
        .console_dropped = 8,
        .vsock_from_guest = 9,
        .vsock_to_guest = 10,
        .vsock_connections = 11,
        .vsock_refused = UINT64_MAX,
        .disk_count = VM_DISKS_MAX,
    };

    for (uint32_t i = 0; i < VM_DISKS_MAX; i++) {
        s.disks[i].clusters = 100 + i;
        s.disks[i].no_space = 200 + i;
        s.disks[i].io_errors = 300 + i;
        s.disks[i].limit_hit = i & 1;
    }
    return s;
}

static struct monitor_exit some_exit(void)
{
    struct monitor_exit e = {
        .reason = MONITOR_EXIT_HOST_ERROR,
        .error = -EIO,
        .text = "KVM_RUN failed",
        .stats = some_stats(),
    };

    return e;
}

static const struct monitor_saved some_saved = {.pages = 1ull << 40,
                                                .clusters = 77};
static const struct monitor_proved some_proved = {
    .disk_count = 3, .disks = {[2] = {.clusters = 5, .first = 1ull << 35}}};
static const struct monitor_rolled_back some_rolled_back = {
    .pages = 1ull << 33, .by = MONITOR_ROLLBACK_DROPPED};

static struct monitor_probe some_probe(void)
{
    struct monitor_probe p = {
        .error = -ENODEV,
        .text = "why",
        .api_version = 12,
        .vcpus_max = 288,
        .immediate_exit = true,
        .ioeventfd = true,
        .dirty_log_ring = true,
        .missing_count = PROBE_MISSING_MAX,
        .guest_runs = PROBE_WORKS,
        .cpl0_instructions_per_second = 1000000,
        .xsave = PROBE_FAILS,
        .cmpxchg16b = PROBE_UNTESTED,
        .int3 = PROBE_WORKS,
        .cpu_vendor = "GenuineIntel",
        .cpu_model = "A model",
        .svm_or_vmx_in_guest_cpuid = true,
        .cpuid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0xffffffff},
    };

    for (unsigned i = 0; i < PROBE_MISSING_MAX; i++)
        memset(p.missing[i], 'A' + (int)i % 26, sizeof(p.missing[i]) - 1);
    return p;
}

START_TEST(error_round_trip)
{
    struct monitor_error e = some_error(), out;
    uint8_t buf[BUF_SIZE];
    size_t len = 0;

    ck_assert_int_eq(monitor_error_encode(&e, buf, sizeof(buf), &len), 0);
    ck_assert_int_eq(monitor_error_decode(buf, len, &out), 0);
    ck_assert_int_eq(out.code, e.code);
    ck_assert_int_eq(out.error, e.error);
    ck_assert_uint_eq(out.disk, e.disk);
    ck_assert_str_eq(out.text, e.text);
}
END_TEST

static void check_stats(const struct monitor_stats *a,
                        const struct monitor_stats *b)
{
    ck_assert_uint_eq(a->first_run_ns, b->first_run_ns);
    ck_assert_uint_eq(a->exits, b->exits);
    ck_assert_uint_eq(a->guest_cpu_ns, b->guest_cpu_ns);
    ck_assert_uint_eq(a->device_cpu_ns, b->device_cpu_ns);
    ck_assert_uint_eq(a->violations, b->violations);
    ck_assert_uint_eq(a->unclaimed, b->unclaimed);
    ck_assert_uint_eq(a->console_bytes, b->console_bytes);
    ck_assert_uint_eq(a->console_dropped, b->console_dropped);
    ck_assert_uint_eq(a->vsock_from_guest, b->vsock_from_guest);
    ck_assert_uint_eq(a->vsock_to_guest, b->vsock_to_guest);
    ck_assert_uint_eq(a->vsock_connections, b->vsock_connections);
    ck_assert_uint_eq(a->vsock_refused, b->vsock_refused);
    ck_assert_uint_eq(a->disk_count, b->disk_count);
    for (uint32_t i = 0; i < a->disk_count; i++) {
        ck_assert_uint_eq(a->disks[i].clusters, b->disks[i].clusters);
        ck_assert_uint_eq(a->disks[i].no_space, b->disks[i].no_space);
        ck_assert_uint_eq(a->disks[i].io_errors, b->disks[i].io_errors);
        ck_assert_uint_eq(a->disks[i].limit_hit, b->disks[i].limit_hit);
    }
}

START_TEST(stats_round_trip)
{
    struct monitor_stats s = some_stats(), out;
    uint8_t buf[BUF_SIZE];
    size_t len = 0;

    ck_assert_int_eq(monitor_stats_encode(&s, buf, sizeof(buf), &len), 0);
    ck_assert_int_eq(monitor_stats_decode(buf, len, &out), 0);
    check_stats(&s, &out);
}
END_TEST

START_TEST(exit_round_trip)
{
    struct monitor_exit e = some_exit(), out;
    uint8_t buf[BUF_SIZE];
    size_t len = 0;

    ck_assert_int_eq(monitor_exit_encode(&e, buf, sizeof(buf), &len), 0);
    ck_assert_int_eq(monitor_exit_decode(buf, len, &out), 0);
    ck_assert_int_eq(out.reason, e.reason);
    ck_assert_int_eq(out.error, e.error);
    ck_assert_str_eq(out.text, e.text);
    check_stats(&e.stats, &out.stats);
}
END_TEST

/* The guest's own exit status travels with its reason, and only with it. */
START_TEST(debug_exit_round_trip)
{
    struct monitor_exit e = some_exit(), out;
    uint8_t buf[BUF_SIZE];
    size_t len = 0;

    e.reason = MONITOR_EXIT_DEBUG;
    e.error = 0;
    e.status = 0xfffffffe;
    ck_assert_int_eq(monitor_exit_encode(&e, buf, sizeof(buf), &len), 0);
    ck_assert_int_eq(monitor_exit_decode(buf, len, &out), 0);
    ck_assert_int_eq(out.reason, MONITOR_EXIT_DEBUG);
    ck_assert_uint_eq(out.status, e.status);
}
END_TEST

START_TEST(snapshot_answers_round_trip)
{
    struct monitor_rolled_back back;
    struct monitor_proved proved;
    struct monitor_saved saved;
    uint8_t buf[BUF_SIZE];
    size_t len = 0;

    ck_assert_int_eq(monitor_saved_encode(&some_saved, buf, sizeof(buf), &len),
                     0);
    ck_assert_int_eq(monitor_saved_decode(buf, len, &saved), 0);
    ck_assert_uint_eq(saved.pages, some_saved.pages);
    ck_assert_uint_eq(saved.clusters, some_saved.clusters);
    ck_assert_int_eq(
        monitor_proved_encode(&some_proved, buf, sizeof(buf), &len), 0);
    ck_assert_int_eq(monitor_proved_decode(buf, len, &proved), 0);
    ck_assert_uint_eq(proved.disk_count, some_proved.disk_count);
    ck_assert_uint_eq(proved.disks[1].clusters, 0);
    ck_assert_uint_eq(proved.disks[2].clusters, some_proved.disks[2].clusters);
    ck_assert_uint_eq(proved.disks[2].first, some_proved.disks[2].first);
    ck_assert_int_eq(
        monitor_rolled_back_encode(&some_rolled_back, buf, sizeof(buf), &len),
        0);
    ck_assert_int_eq(monitor_rolled_back_decode(buf, len, &back), 0);
    ck_assert_uint_eq(back.pages, some_rolled_back.pages);
    ck_assert_int_eq(back.by, some_rolled_back.by);
}
END_TEST

START_TEST(probe_round_trip)
{
    struct monitor_probe p = some_probe(), out;
    uint8_t buf[BUF_SIZE];
    size_t len = 0;

    ck_assert_int_eq(monitor_probe_encode(&p, buf, sizeof(buf), &len), 0);
    ck_assert_int_eq(monitor_probe_decode(buf, len, &out), 0);
    ck_assert_int_eq(out.error, p.error);
    ck_assert_str_eq(out.text, p.text);
    ck_assert_int_eq(out.api_version, p.api_version);
    ck_assert_uint_eq(out.vcpus_max, p.vcpus_max);
    ck_assert_int_eq(out.immediate_exit, p.immediate_exit);
    ck_assert_int_eq(out.irqfd, p.irqfd);
    ck_assert_int_eq(out.ioeventfd, p.ioeventfd);
    ck_assert_int_eq(out.tsc_deadline, p.tsc_deadline);
    ck_assert_int_eq(out.dirty_log_ring, p.dirty_log_ring);
    ck_assert_uint_eq(out.missing_count, p.missing_count);
    for (unsigned i = 0; i < p.missing_count; i++)
        ck_assert_str_eq(out.missing[i], p.missing[i]);
    ck_assert_int_eq(out.guest_runs, p.guest_runs);
    ck_assert_uint_eq(out.cpl0_instructions_per_second,
                      p.cpl0_instructions_per_second);
    ck_assert_int_eq(out.xsave, p.xsave);
    ck_assert_int_eq(out.cmpxchg16b, p.cmpxchg16b);
    ck_assert_int_eq(out.int3, p.int3);
    ck_assert_str_eq(out.cpu_vendor, p.cpu_vendor);
    ck_assert_str_eq(out.cpu_model, p.cpu_model);
    ck_assert_int_eq(out.svm_or_vmx_in_guest_cpuid,
                     p.svm_or_vmx_in_guest_cpuid);
    ck_assert_mem_eq(out.cpuid, p.cpuid, sizeof(p.cpuid));
}
END_TEST

#define RECORDS 7

/* All records behind one face, for what holds for each of them. */
static int encode(int record, void *buf, size_t size, size_t *ret_len)
{
    struct monitor_error error = some_error();
    struct monitor_stats stats = some_stats();
    struct monitor_exit exit_info = some_exit();
    struct monitor_probe probe = some_probe();

    switch (record) {
    case 0:
        return monitor_error_encode(&error, buf, size, ret_len);
    case 1:
        return monitor_stats_encode(&stats, buf, size, ret_len);
    case 2:
        return monitor_exit_encode(&exit_info, buf, size, ret_len);
    case 3:
        return monitor_probe_encode(&probe, buf, size, ret_len);
    case 4:
        return monitor_saved_encode(&some_saved, buf, size, ret_len);
    case 5:
        return monitor_proved_encode(&some_proved, buf, size, ret_len);
    default:
        return monitor_rolled_back_encode(&some_rolled_back, buf, size,
                                          ret_len);
    }
}

static int decode(int record, const void *buf, size_t len)
{
    struct monitor_error error;
    struct monitor_stats stats;
    struct monitor_exit exit_info;
    struct monitor_probe probe;
    struct monitor_saved saved;
    struct monitor_proved proved;
    struct monitor_rolled_back back;

    switch (record) {
    case 0:
        return monitor_error_decode(buf, len, &error);
    case 1:
        return monitor_stats_decode(buf, len, &stats);
    case 2:
        return monitor_exit_decode(buf, len, &exit_info);
    case 3:
        return monitor_probe_decode(buf, len, &probe);
    case 4:
        return monitor_saved_decode(buf, len, &saved);
    case 5:
        return monitor_proved_decode(buf, len, &proved);
    default:
        return monitor_rolled_back_decode(buf, len, &back);
    }
}

START_TEST(lengths_must_be_exact)
{
    uint8_t buf[BUF_SIZE] = {0};
    size_t full = 0, len = 0;

    ck_assert_int_eq(encode(_i, buf, sizeof(buf), &full), 0);
    ck_assert_int_eq(decode(_i, buf, full), 0);
    ck_assert_int_eq(decode(_i, buf, full + 1), -EBADMSG);
    for (len = 0; len < full; len++)
        ck_assert_int_eq(decode(_i, buf, len), -EBADMSG);
    for (size_t size = 0; size < full; size++)
        ck_assert_int_eq(encode(_i, buf, size, &len), -ENOSPC);
}
END_TEST

START_TEST(flipped_bits_never_crash)
{
    uint8_t buf[BUF_SIZE] = {0};
    size_t len = 0;

    ck_assert_int_eq(encode(_i, buf, sizeof(buf), &len), 0);
    for (size_t bit = 0; bit < len * 8; bit++) {
        int ret;

        buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        ret = decode(_i, buf, len);
        ck_assert(ret == 0 || ret == -EBADMSG);
        buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}
END_TEST

/* One 32-bit word of a record replaced: refused. */
static const struct {
    int record;
    size_t offset;
    uint32_t value;
} bad_words[] = {
    {0, 0, 0}, /* error: code */
    {0, 0, MONITOR_ERROR_STATE + 1},
    {0, 4, 1}, /* a positive errno */
    {0, 4, (uint32_t)-4096},
    {0, 8, VM_DISKS_MAX},
    {1, 12 * 8, VM_DISKS_MAX + 1}, /* stats: disk_count */
    {1, 12 * 8, 0xffffffff},
    {2, 0, 0}, /* exit: reason */
    {2, 0, MONITOR_EXIT_DEBUG + 1},
    {2, 4, 0x80000000}, /* not an errno */
    {2, 8, 1},          /* a status, but not DEBUG */
    {2, 12, MONITOR_TEXT_MAX + 1},
    {3, 0, 5},                /* probe: error */
    {3, 4, 0xffffffff},       /* text length */
    {5, 0, VM_DISKS_MAX + 1}, /* proved: disk_count */
    {6, 8, MONITOR_ROLLBACK_DROPPED + 1},
};

START_TEST(bad_words_are_refused)
{
    uint8_t buf[BUF_SIZE] = {0};
    size_t len = 0;
    int record = bad_words[_i].record;

    ck_assert_int_eq(encode(record, buf, sizeof(buf), &len), 0);
    num_put_le32(buf + bad_words[_i].offset, bad_words[_i].value);
    ck_assert_int_eq(decode(record, buf, len), -EBADMSG);
}
END_TEST

/* A NUL inside a text would hide what follows it. */
START_TEST(texts_hold_no_nul)
{
    uint8_t buf[BUF_SIZE];
    size_t len = 0;

    ck_assert_int_eq(encode(0, buf, sizeof(buf), &len), 0);
    buf[len - 1] = 0;
    ck_assert_int_eq(decode(0, buf, len), -EBADMSG);
}
END_TEST

START_TEST(reasons_have_names)
{
    ck_assert_str_eq(monitor_exit_reason_name(MONITOR_EXIT_STOPPED), "stopped");
    ck_assert_str_eq(monitor_exit_reason_name(MONITOR_EXIT_HOST_ERROR),
                     "host_error");
    ck_assert_str_eq(monitor_exit_reason_name((enum monitor_exit_reason)0),
                     "unknown");
    ck_assert_str_eq(monitor_exit_reason_name((enum monitor_exit_reason)99),
                     "unknown");
    for (int i = MONITOR_EXIT_STOPPED; i <= MONITOR_EXIT_DEBUG; i++)
        ck_assert_str_ne(monitor_exit_reason_name((enum monitor_exit_reason)i),
                         "unknown");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("monitor_proto");
    TCase *tc = tcase_create("monitor_proto");
    SRunner *sr;
    int failed;

    tcase_add_test(tc, error_round_trip);
    tcase_add_test(tc, stats_round_trip);
    tcase_add_test(tc, exit_round_trip);
    tcase_add_test(tc, probe_round_trip);
    tcase_add_test(tc, debug_exit_round_trip);
    tcase_add_test(tc, snapshot_answers_round_trip);
    tcase_add_loop_test(tc, lengths_must_be_exact, 0, RECORDS);
    tcase_add_loop_test(tc, flipped_bits_never_crash, 0, RECORDS);
    tcase_add_loop_test(tc, bad_words_are_refused, 0,
                        (int)ARRAY_SIZE(bad_words));
    tcase_add_test(tc, texts_hold_no_nul);
    tcase_add_test(tc, reasons_have_names);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
