/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of the monitor's messages; see the header. Each record has one list of
 * fields for writing and one for reading, side by side. Decoders refuse unknown
 * enum values, flags other than 0 and 1, and leftover bytes, and touch the
 * caller's record only on success.
 */
#include "vmm/monitor_proto.h"

#include <errno.h>

#include "base/codec.h"
#include "base/num.h"

static bool get_bool(struct state_reader *r)
{
    uint8_t value = state_get_u8(r);

    if (value > 1)
        r->error = -EBADMSG;
    return value == 1;
}

/* An enum whose valid values are first .. last. */
static uint32_t get_enum(struct state_reader *r, uint32_t first, uint32_t last)
{
    uint32_t value = state_get_u32(r);

    if (value < first || value > last) {
        r->error = -EBADMSG;
        return first;
    }
    return value;
}

/* Our errors are 0 or a negative errno. */
static int32_t get_error(struct state_reader *r)
{
    int32_t value = (int32_t)state_get_u32(r);

    if (value > 0 || value < -4095)
        r->error = -EBADMSG;
    return value;
}

static int writer_result(const struct state_writer *w, size_t *ret_len)
{
    if (w->error == 0)
        *ret_len = w->used;
    return w->error;
}

int monitor_error_encode(const struct monitor_error *e, void *buf, size_t size,
                         size_t *ret_len)
{
    struct state_writer w;

    state_writer_init(&w, buf, size);
    state_put_u32(&w, (uint32_t)e->code);
    state_put_u32(&w, (uint32_t)e->error);
    state_put_u32(&w, e->disk);
    state_put_u64(&w, e->memory_needed);
    state_put_string(&w, e->text);
    return writer_result(&w, ret_len);
}

int monitor_error_decode(const void *buf, size_t len,
                         struct monitor_error *ret_e)
{
    struct monitor_error e = {0};
    struct state_reader r;

    state_reader_init(&r, buf, len);
    e.code = (enum monitor_error_code)get_enum(&r, MONITOR_ERROR_CONFIG,
                                               MONITOR_ERROR_STATE);
    e.error = get_error(&r);
    e.disk = state_get_u32(&r);
    e.memory_needed = state_get_u64(&r);
    state_get_string(&r, e.text, sizeof(e.text));
    if (state_reader_finish(&r) != 0 || e.disk >= VM_DISKS_MAX)
        return -EBADMSG;
    *ret_e = e;
    return 0;
}

static void put_stats(struct state_writer *w, const struct monitor_stats *s)
{
    state_put_u64(w, s->first_run_ns);
    state_put_u64(w, s->exits);
    state_put_u64(w, s->guest_cpu_ns);
    state_put_u64(w, s->device_cpu_ns);
    state_put_u64(w, s->violations);
    state_put_u64(w, s->unclaimed);
    state_put_u64(w, s->console_bytes);
    state_put_u64(w, s->console_dropped);
    state_put_u64(w, s->vsock_from_guest);
    state_put_u64(w, s->vsock_to_guest);
    state_put_u64(w, s->vsock_connections);
    state_put_u64(w, s->vsock_refused);
    state_put_u32(w, s->disk_count);
    for (uint32_t i = 0; i < s->disk_count && i < VM_DISKS_MAX; i++) {
        state_put_u64(w, s->disks[i].clusters);
        state_put_u64(w, s->disks[i].no_space);
        state_put_u64(w, s->disks[i].io_errors);
        state_put_u8(w, s->disks[i].limit_hit);
    }
}

static void get_stats(struct state_reader *r, struct monitor_stats *s)
{
    s->first_run_ns = state_get_u64(r);
    s->exits = state_get_u64(r);
    s->guest_cpu_ns = state_get_u64(r);
    s->device_cpu_ns = state_get_u64(r);
    s->violations = state_get_u64(r);
    s->unclaimed = state_get_u64(r);
    s->console_bytes = state_get_u64(r);
    s->console_dropped = state_get_u64(r);
    s->vsock_from_guest = state_get_u64(r);
    s->vsock_to_guest = state_get_u64(r);
    s->vsock_connections = state_get_u64(r);
    s->vsock_refused = state_get_u64(r);
    s->disk_count = state_get_u32(r);
    if (s->disk_count > VM_DISKS_MAX) {
        s->disk_count = 0;
        r->error = -EBADMSG;
    }
    for (uint32_t i = 0; i < s->disk_count; i++) {
        s->disks[i].clusters = state_get_u64(r);
        s->disks[i].no_space = state_get_u64(r);
        s->disks[i].io_errors = state_get_u64(r);
        s->disks[i].limit_hit = get_bool(r);
    }
}

int monitor_stats_encode(const struct monitor_stats *s, void *buf, size_t size,
                         size_t *ret_len)
{
    struct state_writer w;

    state_writer_init(&w, buf, size);
    put_stats(&w, s);
    return writer_result(&w, ret_len);
}

int monitor_stats_decode(const void *buf, size_t len,
                         struct monitor_stats *ret_s)
{
    struct monitor_stats s = {0};
    struct state_reader r;

    state_reader_init(&r, buf, len);
    get_stats(&r, &s);
    if (state_reader_finish(&r) != 0)
        return -EBADMSG;
    *ret_s = s;
    return 0;
}

int monitor_exit_encode(const struct monitor_exit *e, void *buf, size_t size,
                        size_t *ret_len)
{
    struct state_writer w;

    state_writer_init(&w, buf, size);
    state_put_u32(&w, (uint32_t)e->reason);
    state_put_u32(&w, (uint32_t)e->error);
    state_put_u32(&w, e->status);
    state_put_string(&w, e->text);
    put_stats(&w, &e->stats);
    return writer_result(&w, ret_len);
}

int monitor_exit_decode(const void *buf, size_t len, struct monitor_exit *ret_e)
{
    struct monitor_exit e = {0};
    struct state_reader r;

    state_reader_init(&r, buf, len);
    e.reason = (enum monitor_exit_reason)get_enum(&r, MONITOR_EXIT_STOPPED,
                                                  MONITOR_EXIT_DEBUG);
    e.error = get_error(&r);
    e.status = state_get_u32(&r);
    state_get_string(&r, e.text, sizeof(e.text));
    get_stats(&r, &e.stats);
    if (state_reader_finish(&r) != 0)
        return -EBADMSG;
    if (e.reason != MONITOR_EXIT_DEBUG && e.status != 0)
        return -EBADMSG;
    *ret_e = e;
    return 0;
}

int monitor_saved_encode(const struct monitor_saved *s, void *buf, size_t size,
                         size_t *ret_len)
{
    struct state_writer w;

    state_writer_init(&w, buf, size);
    state_put_u64(&w, s->pages);
    state_put_u64(&w, s->clusters);
    return writer_result(&w, ret_len);
}

int monitor_saved_decode(const void *buf, size_t len,
                         struct monitor_saved *ret_s)
{
    struct monitor_saved s = {0};
    struct state_reader r;

    state_reader_init(&r, buf, len);
    s.pages = state_get_u64(&r);
    s.clusters = state_get_u64(&r);
    if (state_reader_finish(&r) != 0)
        return -EBADMSG;
    *ret_s = s;
    return 0;
}

int monitor_proved_encode(const struct monitor_proved *p, void *buf,
                          size_t size, size_t *ret_len)
{
    struct state_writer w;

    state_writer_init(&w, buf, size);
    state_put_u32(&w, p->disk_count);
    for (uint32_t i = 0; i < p->disk_count; i++) {
        state_put_u64(&w, p->disks[i].clusters);
        state_put_u64(&w, p->disks[i].first);
    }
    return writer_result(&w, ret_len);
}

int monitor_proved_decode(const void *buf, size_t len,
                          struct monitor_proved *ret_p)
{
    struct monitor_proved p = {0};
    struct state_reader r;

    state_reader_init(&r, buf, len);
    p.disk_count = state_get_u32(&r);
    if (p.disk_count > VM_DISKS_MAX)
        return -EBADMSG;
    for (uint32_t i = 0; i < p.disk_count; i++) {
        p.disks[i].clusters = state_get_u64(&r);
        p.disks[i].first = state_get_u64(&r);
    }
    if (state_reader_finish(&r) != 0)
        return -EBADMSG;
    *ret_p = p;
    return 0;
}

int monitor_rolled_back_encode(const struct monitor_rolled_back *b, void *buf,
                               size_t size, size_t *ret_len)
{
    struct state_writer w;

    state_writer_init(&w, buf, size);
    state_put_u64(&w, b->pages);
    state_put_u32(&w, (uint32_t)b->by);
    return writer_result(&w, ret_len);
}

int monitor_rolled_back_decode(const void *buf, size_t len,
                               struct monitor_rolled_back *ret_b)
{
    struct monitor_rolled_back b = {0};
    struct state_reader r;

    state_reader_init(&r, buf, len);
    b.pages = state_get_u64(&r);
    b.by = (enum monitor_rollback_by)get_enum(&r, MONITOR_ROLLBACK_COPIED,
                                              MONITOR_ROLLBACK_DROPPED);
    if (state_reader_finish(&r) != 0)
        return -EBADMSG;
    *ret_b = b;
    return 0;
}

const struct probe_cpuid_place PROBE_CPUID[PROBE_CPUID_WORDS] = {
    {"1.ecx", 1, 0, 2},
    {"1.edx", 1, 0, 3},
    {"7.ebx", 7, 0, 1},
    {"7.ecx", 7, 0, 2},
    {"7.edx", 7, 0, 3},
    {"7.1.eax", 7, 1, 0},
    {"d.eax", 0xd, 0, 0},
    {"d.1.eax", 0xd, 1, 0},
    {"80000001.ecx", 0x80000001u, 0, 2},
    {"80000001.edx", 0x80000001u, 0, 3},
    {"80000008.ebx", 0x80000008u, 0, 1},
    {"40000001.eax", 0x40000001u, 0, 0},
};

static void put_findings(struct state_writer *w, const struct monitor_probe *p)
{
    state_put_u32(w, (uint32_t)p->guest_runs);
    state_put_u64(w, p->cpl0_instructions_per_second);
    state_put_u32(w, (uint32_t)p->xsave);
    state_put_u32(w, (uint32_t)p->cmpxchg16b);
    state_put_u32(w, (uint32_t)p->int3);
    state_put_string(w, p->cpu_vendor);
    state_put_string(w, p->cpu_model);
    state_put_u8(w, p->svm_or_vmx_in_guest_cpuid);
    for (unsigned i = 0; i < PROBE_CPUID_WORDS; i++)
        state_put_u32(w, p->cpuid[i]);
}

int monitor_probe_encode(const struct monitor_probe *p, void *buf, size_t size,
                         size_t *ret_len)
{
    struct state_writer w;

    state_writer_init(&w, buf, size);
    state_put_u32(&w, (uint32_t)p->error);
    state_put_string(&w, p->text);
    state_put_u32(&w, (uint32_t)p->api_version);
    state_put_u32(&w, p->vcpus_max);
    state_put_u8(&w, p->immediate_exit);
    state_put_u8(&w, p->irqfd);
    state_put_u8(&w, p->ioeventfd);
    state_put_u8(&w, p->tsc_deadline);
    state_put_u8(&w, p->dirty_log_ring);
    state_put_u32(&w, p->missing_count);
    for (uint32_t i = 0; i < p->missing_count && i < PROBE_MISSING_MAX; i++)
        state_put_string(&w, p->missing[i]);
    put_findings(&w, p);
    return writer_result(&w, ret_len);
}

static enum probe_result get_probe_result(struct state_reader *r)
{
    return (enum probe_result)get_enum(r, PROBE_UNTESTED, PROBE_FAILS);
}

static void get_findings(struct state_reader *r, struct monitor_probe *p)
{
    p->guest_runs = get_probe_result(r);
    p->cpl0_instructions_per_second = state_get_u64(r);
    p->xsave = get_probe_result(r);
    p->cmpxchg16b = get_probe_result(r);
    p->int3 = get_probe_result(r);
    state_get_string(r, p->cpu_vendor, sizeof(p->cpu_vendor));
    state_get_string(r, p->cpu_model, sizeof(p->cpu_model));
    p->svm_or_vmx_in_guest_cpuid = get_bool(r);
    for (unsigned i = 0; i < PROBE_CPUID_WORDS; i++)
        p->cpuid[i] = state_get_u32(r);
}

int monitor_probe_decode(const void *buf, size_t len,
                         struct monitor_probe *ret_p)
{
    struct monitor_probe p = {0};
    struct state_reader r;

    state_reader_init(&r, buf, len);
    p.error = get_error(&r);
    state_get_string(&r, p.text, sizeof(p.text));
    p.api_version = (int32_t)state_get_u32(&r);
    p.vcpus_max = state_get_u32(&r);
    p.immediate_exit = get_bool(&r);
    p.irqfd = get_bool(&r);
    p.ioeventfd = get_bool(&r);
    p.tsc_deadline = get_bool(&r);
    p.dirty_log_ring = get_bool(&r);
    p.missing_count = state_get_u32(&r);
    if (p.missing_count > PROBE_MISSING_MAX) {
        p.missing_count = 0;
        r.error = -EBADMSG;
    }
    for (uint32_t i = 0; i < p.missing_count; i++)
        state_get_string(&r, p.missing[i], sizeof(p.missing[i]));
    get_findings(&r, &p);
    if (state_reader_finish(&r) != 0)
        return -EBADMSG;
    *ret_p = p;
    return 0;
}

const char *monitor_exit_reason_name(enum monitor_exit_reason reason)
{
    static const char *const names[] = {
        [MONITOR_EXIT_STOPPED] = "stopped",
        [MONITOR_EXIT_POWER_OFF] = "power_off",
        [MONITOR_EXIT_RESET] = "reset",
        [MONITOR_EXIT_TRIPLE_FAULT] = "triple_fault",
        [MONITOR_EXIT_PANIC] = "panic",
        [MONITOR_EXIT_EMULATION] = "emulation",
        [MONITOR_EXIT_INTERNAL] = "internal",
        [MONITOR_EXIT_HOST_ERROR] = "host_error",
        [MONITOR_EXIT_DEBUG] = "debug_exit",
    };
    size_t i = (size_t)reason;

    return i < ARRAY_SIZE(names) && names[i] ? names[i] : "unknown";
}
