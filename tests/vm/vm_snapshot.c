/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bare guests that are paused, saved, restored and rolled back, on the monitor
 * alone. Needs /dev/kvm, but no host that runs Linux guests.
 *
 *   vm_snapshot [NAME]...
 *
 * One line per test; status 0 if all passed, 77 without a usable /dev/kvm.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "tests/machine_rig.h"
#include "vmm/segments.h"
#include "vmm/state_file.h"

#define STATUS_SKIPPED 77
#define MEMORY_MIB 128u
#define SKIP "skip: " /* how the reason of a test that cannot be begins */
/* What a thread still does between two orders. */
#define ENDING_NS 5000000u
#define GENERATION_ID 0xef000 /* vmm/x86/map.h */

struct snapshot_test {
    const char *name;
    const char *guest;
    uint32_t cpus;
    char sign; /* what the guest prints while all is well */
    bool (*run)(const struct snapshot_test *t, struct machine_rig *rig);
};

/* ---- steps ---- */

/* The guest said that the CPU has not what it is about. */
static void note_lack(struct machine_rig *rig)
{
    const char *qemu = getenv("KVMHOST_QEMU"); /* see scripts/kvmhost */

    if (rig->last == '-')
        snprintf(rig->why, sizeof(rig->why),
                 SKIP "KVM has no such registers for guests%s%s",
                 qemu ? ", under QEMU " : "", qemu ? qemu : "");
}

static bool boot(const struct snapshot_test *t, struct machine_rig *rig)
{
    struct vm_config config;
    bool ok;

    rig_config(&config, t->cpus, MEMORY_MIB);
    ok = rig_config_guest(&config, t->guest) && rig_build(rig, &config) &&
         rig_start(rig) && rig_hear(rig, t->sign, 3);
    if (!ok)
        note_lack(rig);
    return ok;
}

static bool restore(const struct snapshot_test *t, struct machine_rig *rig,
                    const struct rig_files *f, bool track_dirty)
{
    struct vm_config config;

    rig_config(&config, t->cpus, MEMORY_MIB);
    rig_config_files(&config, f);
    config.track_dirty = track_dirty;
    return rig_build(rig, &config);
}

/* What a paused guest said before is not taken for what it says later. */
static bool forget_said(struct machine_rig *rig)
{
    struct pollfd p = {.fd = rig->console, .events = POLLIN};

    while (poll(&p, 1, 0) > 0 && read(rig->console, &rig->last, 1) == 1)
        if (rig->last == 'X') {
            snprintf(rig->why, sizeof(rig->why),
                     "the guest: it found something changed");
            return false;
        }
    return true;
}

/* A snapshot of the guest at work; its machine is stopped. */
static bool snapshot(const struct snapshot_test *t, struct machine_rig *rig,
                     struct rig_files *f)
{
    rig_files_open(f, 0);
    if (!boot(t, rig) || !rig_pause(rig) || !rig_save(rig, f) || !rig_stop(rig))
        return false;
    rig_end(rig);
    return true;
}

/* ---- tests ---- */

/* Saved, loaded and saved again: the same; and the guest goes on. */
static bool round_trip(const struct snapshot_test *t, struct machine_rig *rig)
{
    struct rig_files f;
    bool ok = snapshot(t, rig, &f) && restore(t, rig, &f, false) &&
              rig_proof_holds(rig, &f) && rig_start(rig) &&
              rig_hear(rig, t->sign, 5) && rig_stop(rig);

    rig_files_close(&f);
    return ok;
}

/* A machine that was saved goes on, too; again and again. */
static bool goes_on(const struct snapshot_test *t, struct machine_rig *rig)
{
    bool ok = boot(t, rig);

    for (unsigned i = 0; ok && i < 10; i++) {
        struct rig_files f;

        rig_files_open(&f, 0);
        ok = rig_pause(rig) && rig_save(rig, &f) && rig_resume(rig) &&
             rig_hear(rig, t->sign, 1);
        rig_files_close(&f);
    }
    return ok && rig_stop(rig);
}

/* A snapshot of a restored machine of a snapshot ... ten deep. */
static bool ten_deep(const struct snapshot_test *t, struct machine_rig *rig)
{
    struct rig_files f, next;
    bool ok = snapshot(t, rig, &f);

    for (unsigned i = 0; ok && i < 10; i++) {
        rig_files_open(&next, 0);
        ok = restore(t, rig, &f, false) && rig_proof_holds(rig, &f) &&
             rig_start(rig) && rig_hear(rig, t->sign, 1) && rig_pause(rig) &&
             rig_save(rig, &next) && rig_stop(rig);
        if (ok)
            rig_end(rig);
        rig_files_close(&f);
        f = next;
    }
    ok = ok && restore(t, rig, &f, false) && rig_start(rig) &&
         rig_hear(rig, t->sign, 3) && rig_stop(rig);
    rig_files_close(&f);
    return ok;
}

/* Cut anywhere, with accesses and requests on their way: nothing is lost. */
static bool any_moment(const struct snapshot_test *t, struct machine_rig *rig)
{
    bool ok = boot(t, rig);

    srandom(1);
    for (unsigned i = 0; ok && i < 30; i++) {
        struct rig_files f;

        usleep((useconds_t)(random() % 3000));
        rig_files_open(&f, 0);
        ok = rig_pause(rig) && rig_save(rig, &f) && rig_stop(rig);
        if (ok)
            rig_end(rig);
        ok = ok && restore(t, rig, &f, false) && rig_start(rig);
        rig_files_close(&f);
    }
    return ok && rig_hear(rig, t->sign, 1) && rig_stop(rig);
}

/* Rolled back it is as it was, however often, and runs again. */
static bool rollback(const struct snapshot_test *t, struct machine_rig *rig)
{
    struct rig_files f;
    bool ok = snapshot(t, rig, &f) && restore(t, rig, &f, true) &&
              rig_proof_holds(rig, &f) && rig_start(rig);

    for (unsigned i = 0; ok && i < 5; i++)
        ok = rig_hear(rig, t->sign, 2) && rig_pause(rig) && forget_said(rig) &&
             rig_roll_back(rig) && rig_proof_holds(rig, &f) && rig_resume(rig);
    ok = ok && rig_hear(rig, t->sign, 2) && rig_stop(rig);
    rig_files_close(&f);
    return ok;
}

/* The first MSR of the first vCPU in a state is its TSC. */
static uint64_t tsc_of(int state_fd)
{
    size_t len = 0;
    uint8_t *bytes = rig_read_file(state_fd, &len);
    const uint8_t *msrs = bytes ? memmem(bytes, len, "msrs", 4) : NULL;
    uint64_t tsc = msrs ? num_get_le64(msrs + 12) : 0;

    free(bytes);
    return tsc;
}

/* How far the TSC of a machine that does not run is beyond that of the files.
 */
static bool tsc_ahead(struct machine_rig *rig, const struct rig_files *f,
                      int64_t *ret_ahead)
{
    struct rig_files proven;
    bool ok;

    rig_files_open(&proven, 0);
    ok = rig_prove(rig, proven.state, proven.memory);
    *ret_ahead = (int64_t)(tsc_of(proven.state) - tsc_of(f->state));
    rig_files_close(&proven);
    return ok;
}

/* So does its TSC: short runs do not add up. */
static bool tsc_back(const struct snapshot_test *t, struct machine_rig *rig)
{
    struct rig_files f;
    int64_t began, lasted, ahead = 0;
    bool ok = snapshot(t, rig, &f);

    began = (int64_t)__builtin_ia32_rdtsc();
    usleep(500000);
    ok = ok && restore(t, rig, &f, true) && tsc_ahead(rig, &f, &ahead);
    lasted = (int64_t)__builtin_ia32_rdtsc() - began;
    if (ok && ahead > lasted / 2) {
        snprintf(rig->why, sizeof(rig->why), SKIP "KVM does not set the TSC");
        ok = false;
    }
    began = (int64_t)__builtin_ia32_rdtsc();
    ok = ok && rig_start(rig);
    for (unsigned i = 0; ok && i < 10; i++) {
        usleep(100000);
        ok = rig_pause(rig) && rig_roll_back(rig) &&
             tsc_ahead(rig, &f, &ahead) && rig_resume(rig);
    }
    lasted = (int64_t)__builtin_ia32_rdtsc() - began;
    if (ok && (ahead < 0 || ahead > lasted / 4)) {
        snprintf(rig->why, sizeof(rig->why),
                 "the TSC is %lld ahead, after runs of %lld", (long long)ahead,
                 (long long)lasted);
        ok = false;
    }
    rig_files_close(&f);
    return ok && rig_stop(rig);
}

/* It counts from 0 again, although its threads live on. */
static bool counters(const struct snapshot_test *t, struct machine_rig *rig)
{
    struct monitor_stats ran, back = {0};
    struct rig_files f;
    bool ok =
        snapshot(t, rig, &f) && restore(t, rig, &f, true) && rig_start(rig);

    for (unsigned i = 0; ok && i < 3; i++) {
        ok = rig_hear(rig, t->sign, 20) && rig_pause(rig) &&
             rig_count(rig, &ran) && ran.exits > 0 && ran.unclaimed > 0 &&
             ran.guest_cpu_ns > 0 && ran.device_cpu_ns > 0 &&
             rig_roll_back(rig) && rig_count(rig, &back) && back.exits == 0 &&
             back.unclaimed == 0 && back.guest_cpu_ns < ran.guest_cpu_ns &&
             back.guest_cpu_ns < ENDING_NS && back.device_cpu_ns < ENDING_NS &&
             rig_proof_holds(rig, &f) && rig_resume(rig);
    }
    if (!ok && !rig->why[0])
        snprintf(rig->why, sizeof(rig->why),
                 "%llu ns of CPUs, %llu of devices, %llu exits, %llu unclaimed",
                 (unsigned long long)back.guest_cpu_ns,
                 (unsigned long long)back.device_cpu_ns,
                 (unsigned long long)back.exits,
                 (unsigned long long)back.unclaimed);
    rig_files_close(&f);
    return ok && rig_stop(rig);
}

/* ---- segments ---- */

/* The segment registers of the first vCPU in a state, or NULL. */
static uint8_t *segments_of(uint8_t *state, size_t len)
{
    uint8_t *group = memmem(state, len, STATE_GROUP_SREGS, 4);

    return group ? group + 8 : NULL;
}

/* What the guest loaded: selector and attributes as a state has them. */
struct segment_row {
    uint16_t selector;
    uint8_t type, present, dpl, db, s, l, g, avl, unusable;
};

/* CS DS ES FS GS SS TR LDT, as tests/vm/bare/segments.S has them. */
static const struct segment_row null_rows[SEGMENT_COUNT] = {
    {0x10, 11, 1, 0, 0, 1, 1, 1, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
    {0, 0, 0, 0, 0, 0, 0, 0, 0, 1},     {0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
    {0, 0, 0, 0, 0, 0, 0, 0, 0, 1},     {0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
    {0, 11, 1, 0, 0, 0, 0, 0, 0, 0},    {0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
};
static const struct segment_row odd_rows[SEGMENT_COUNT] = {
    {0x10, 11, 1, 0, 0, 1, 1, 1, 0, 0}, {0x18, 1, 1, 0, 0, 1, 0, 0, 1, 0},
    {0x20, 7, 1, 0, 1, 1, 0, 1, 0, 0},  {0x28, 15, 1, 0, 1, 1, 0, 0, 0, 0},
    {0x33, 3, 1, 3, 0, 1, 0, 0, 0, 0},  {0x38, 7, 1, 0, 1, 1, 0, 1, 0, 0},
    {0x50, 11, 1, 0, 0, 0, 0, 0, 1, 0}, {0x40, 2, 1, 0, 0, 0, 0, 0, 0, 0},
};

static bool is_row(const uint8_t *segment, const struct segment_row *row)
{
    const uint8_t attributes[] = {row->type, row->present, row->dpl,
                                  row->db,   row->s,       row->l,
                                  row->g,    row->avl,     row->unusable};

    return num_get_le16(segment + SEGMENT_SELECTOR) == row->selector &&
           memcmp(segment + SEGMENT_TYPE, attributes, sizeof(attributes)) == 0;
}

/* A null SS where KVM interprets: it can be used. TR as KVM makes it: on SVM,
 * a task of 16 bits. A null LDT where QEMU emulates SVM: still present. */
static const struct segment_row interpreted_ss = {0, 3, 1, 0, 1, 1, 0, 1, 0, 0};
static const struct segment_row svm_tr = {0, 3, 1, 0, 0, 0, 0, 0, 0, 0};
static const struct segment_row qemu_ldt = {0, 2, 1, 0, 0, 0, 0, 0, 0, 0};

/* In a state every segment is what the guest loaded, or null in one form. */
static bool segments_saved(const struct snapshot_test *t,
                           struct machine_rig *rig)
{
    bool odd = strcmp(t->guest, "odd_segments") == 0;
    struct rig_files f;
    bool ok = snapshot(t, rig, &f);
    size_t len = 0;
    uint8_t *state = ok ? rig_read_file(f.state, &len) : NULL;
    const uint8_t *segment = state ? segments_of(state, len) : NULL;

    ok = segment != NULL;
    for (unsigned i = 0; ok && i < SEGMENT_COUNT; i++) {
        const uint8_t *at = segment + i * SEGMENT_SIZE;

        ok = is_row(at, odd ? &odd_rows[i] : &null_rows[i]) ||
             (!odd && i == 5 && is_row(at, &interpreted_ss)) ||
             (!odd && i == 6 && is_row(at, &svm_tr)) ||
             (!odd && i == 7 && is_row(at, &qemu_ldt));
        if (!ok)
            snprintf(rig->why, sizeof(rig->why), "segment %u is another", i);
    }
    free(state);
    rig_files_close(&f);
    return ok;
}

/* A state as f's, but with other segments. */
static bool change_state(struct machine_rig *rig, struct rig_files *f,
                         void (*change)(uint8_t *segments))
{
    size_t len = 0;
    uint8_t *state = rig_read_file(f->state, &len);
    uint8_t *segments = state ? segments_of(state, len) : NULL;

    if (!segments) {
        snprintf(rig->why, sizeof(rig->why), "the state has no segments");
        free(state);
        return false;
    }
    change(segments);
    rig_mend_state(state, len);
    io_close(&f->state);
    f->state = rig_make_file(state, len);
    free(state);
    return true;
}

/* Null segments as they were saved before they had one form. */
static void unsettle(uint8_t *segments)
{
    static const uint8_t forms[][9] = {{0, 0, 0, 0, 0, 0, 0, 0, 1},
                                       {1, 0, 0, 1, 1, 0, 1, 0, 1},
                                       {3, 0, 0, 1, 1, 0, 1, 0, 0}};

    for (unsigned i = 1; i < SEGMENT_COUNT; i++)
        if (segments[i * SEGMENT_SIZE + SEGMENT_UNUSABLE])
            memcpy(segments + i * SEGMENT_SIZE + SEGMENT_TYPE, forms[i % 3],
                   sizeof(forms[0]));
}

/* Such snapshots are restored, and proven. */
static bool older_form(const struct snapshot_test *t, struct machine_rig *rig)
{
    struct rig_files f;
    bool ok = snapshot(t, rig, &f) && change_state(rig, &f, unsettle) &&
              restore(t, rig, &f, false) && rig_proof_holds(rig, &f) &&
              rig_start(rig) && rig_hear(rig, t->sign, 5) && rig_stop(rig);

    rig_files_close(&f);
    return ok;
}

/* 0: the same; 1: segments differ, and nothing before them; else -1. */
static int compare_states(const struct rig_files *a, const struct rig_files *b)
{
    size_t a_len = 0, b_len = 0;
    uint8_t *a_state = rig_read_file(a->state, &a_len);
    uint8_t *b_state = rig_read_file(b->state, &b_len);
    struct state_difference d = {0};
    int ret = -1;

    if (a_state && b_state)
        ret = state_file_compare(a_state, a_len, b_state, b_len, &d);
    if (ret == 1 && strcmp(d.group, STATE_GROUP_SREGS) != 0)
        ret = -1;
    free(a_state);
    free(b_state);
    return ret;
}

static void change_limit(uint8_t *segments)
{
    segments[1 * SEGMENT_SIZE + SEGMENT_LIMIT] ^= 1;
}

static void change_software_bit(uint8_t *segments)
{
    segments[2 * SEGMENT_SIZE + SEGMENT_AVL] ^= 1;
}

static void change_null(uint8_t *segments)
{
    segments[4 * SEGMENT_SIZE + SEGMENT_PRESENT] ^= 1;
}

/* A machine's own state does not prove one with another segment, whichever
 * field it is: only what is null in both is passed over. */
static bool others_found_out(const struct snapshot_test *t,
                             struct machine_rig *rig)
{
    static void (*const changes[])(uint8_t * segments) = {
        change_limit, change_software_bit, change_null};
    struct rig_files f, proven;
    bool ok = snapshot(t, rig, &f) && restore(t, rig, &f, false);

    rig_files_open(&proven, 0);
    ok = ok && rig_prove(rig, proven.state, proven.memory) &&
         compare_states(&f, &proven) == 0;
    for (size_t i = 0; ok && i < ARRAY_SIZE(changes); i++) {
        ok = change_state(rig, &f, changes[i]) &&
             compare_states(&f, &proven) == 1 &&
             change_state(rig, &f, changes[i]) &&
             compare_states(&f, &proven) == 0;
        if (!ok && !rig->why[0])
            snprintf(rig->why, sizeof(rig->why), "change %zu is not found", i);
    }
    rig_files_close(&f);
    rig_files_close(&proven);
    return ok && rig_start(rig) && rig_stop(rig);
}

/* ---- the generation id ---- */

/*
 * A new generation id, if it is wanted, and the event that tells of it, come
 * when the guest starts, not before: the proof finds the old one. After each
 * roll-back, too.
 */
static bool generation(const struct snapshot_test *t, struct machine_rig *rig)
{
    struct vm_config config;
    struct rig_files f;
    bool ok = snapshot(t, rig, &f);

    rig_config(&config, t->cpus, MEMORY_MIB);
    rig_config_files(&config, &f);
    config.track_dirty = true;
    config.renew_generation = true;
    ok = ok && rig_build(rig, &config) && rig_proof_holds(rig, &f) &&
         rig_start(rig);
    for (unsigned i = 0; ok && i < 3; i++)
        ok = rig_hear(rig, 'g', 1) && rig_hear(rig, '.', 1) && rig_pause(rig) &&
             rig_roll_back(rig) && rig_proof_holds(rig, &f) && rig_resume(rig);
    ok = ok && rig_hear(rig, 'g', 1) && rig_stop(rig);
    rig_files_close(&f);
    return ok;
}

/* Not asked for, it stays as it was. */
static bool same_generation(const struct snapshot_test *t,
                            struct machine_rig *rig)
{
    struct rig_files f, again;
    uint8_t before[16], after[16];
    bool ok = snapshot(t, rig, &f) && restore(t, rig, &f, false) &&
              rig_start(rig) && rig_hear(rig, '.', 5) && rig_pause(rig);

    rig_files_open(&again, 0);
    ok = ok && rig_save(rig, &again) && rig_stop(rig) &&
         pread(f.memory, before, 16, GENERATION_ID) == 16 &&
         pread(again.memory, after, 16, GENERATION_ID) == 16 &&
         memcmp(before, after, 16) == 0;
    rig_files_close(&f);
    rig_files_close(&again);
    return ok;
}

/* ---- how much is rolled back ---- */

/*
 * The pages that were written, and no more than a few besides, are put back:
 * one by one, or all by dropping the mapping.
 */
static bool counted(const struct snapshot_test *t, struct machine_rig *rig,
                    unsigned pages, enum monitor_rollback_by by)
{
    struct rig_files f;
    bool ok =
        snapshot(t, rig, &f) && restore(t, rig, &f, true) && rig_start(rig);

    /* It was saved in the middle of a round: a whole one is between two. */
    for (unsigned i = 0; ok && i < 3; i++)
        ok = rig_hear(rig, t->sign, 2) && rig_pause(rig) && forget_said(rig) &&
             rig_roll_back(rig) && rig->rolled_back.pages >= pages &&
             rig->rolled_back.pages < pages + 20 && rig->rolled_back.by == by &&
             rig_proof_holds(rig, &f) && rig_resume(rig);
    if (!ok && !rig->why[0])
        snprintf(rig->why, sizeof(rig->why), "%llu pages by %d",
                 (unsigned long long)rig->rolled_back.pages,
                 rig->rolled_back.by);
    rig_files_close(&f);
    return ok && rig_hear(rig, t->sign, 1) && rig_stop(rig);
}

static bool few_pages(const struct snapshot_test *t, struct machine_rig *rig)
{
    return counted(t, rig, 50, MONITOR_ROLLBACK_COPIED);
}

static bool some_pages(const struct snapshot_test *t, struct machine_rig *rig)
{
    return counted(t, rig, 1000, MONITOR_ROLLBACK_COPIED);
}

static bool many_pages(const struct snapshot_test *t, struct machine_rig *rig)
{
    return counted(t, rig, 20000, MONITOR_ROLLBACK_DROPPED);
}

static const struct snapshot_test tests[] = {
    {"saved, restored", "tick", 1, '.', round_trip},
    {"saved, restored", "patterns", 1, '.', round_trip},
    {"saved, restored", "fpu", 1, '.', round_trip},
    {"saved, restored", "null_segments", 1, '.', round_trip},
    {"saved, restored", "odd_segments", 1, '.', round_trip},
    {"saved, restored", "ymm", 1, '.', round_trip},
    {"saved, restored", "zmm", 1, '.', round_trip},
    {"saved, restored", "pkru", 1, '.', round_trip},
    {"saved, restored", "extended", 1, '.', round_trip},
    {"saved, restored", "timer", 1, 't', round_trip},
    {"saved, restored", "deadline", 1, 'd', round_trip},
    {"saved, restored", "four_cpus", 4, '.', round_trip},
    {"saved, restored", "reads", 1, '.', round_trip},
    {"saved, restored", "rng_queue", 1, '.', round_trip},
    {"saved as loaded", "null_segments", 1, '.', segments_saved},
    {"saved as loaded", "odd_segments", 1, '.', segments_saved},
    {"saved before", "null_segments", 1, '.', older_form},
    {"another is not proven", "odd_segments", 1, '.', others_found_out},
    {"saved, goes on", "patterns", 1, '.', goes_on},
    {"saved, goes on", "extended", 1, '.', goes_on},
    {"saved, goes on", "four_cpus", 4, '.', goes_on},
    {"saved, goes on", "timer", 1, 't', goes_on},
    {"saved, goes on", "deadline", 1, 'd', goes_on},
    {"saved, goes on", "reads", 1, '.', goes_on},
    {"saved, goes on", "rng_queue", 1, '.', goes_on},
    {"ten deep", "patterns", 1, '.', ten_deep},
    {"ten deep", "extended", 1, '.', ten_deep},
    {"ten deep", "four_cpus", 4, '.', ten_deep},
    {"ten deep", "timer", 1, 't', ten_deep},
    {"ten deep", "reads", 1, '.', ten_deep},
    {"ten deep", "rng_queue", 1, '.', ten_deep},
    {"any moment", "reads", 1, '.', any_moment},
    {"any moment", "rng_queue", 1, '.', any_moment},
    {"any moment", "extended", 1, '.', any_moment},
    {"any moment", "four_cpus", 4, '.', any_moment},
    {"any moment", "deadline", 1, 'd', any_moment},
    {"rolled back", "tick", 1, '.', rollback},
    {"rolled back", "patterns", 1, '.', rollback},
    {"rolled back", "null_segments", 1, '.', rollback},
    {"rolled back", "extended", 1, '.', rollback},
    {"rolled back", "four_cpus", 4, '.', rollback},
    {"rolled back", "timer", 1, 't', rollback},
    {"rolled back", "deadline", 1, 'd', rollback},
    {"rolled back", "rng_queue", 1, '.', rollback},
    {"rolled back TSC", "tick", 1, '.', tsc_back},
    {"rolled back TSC", "four_cpus", 4, '.', tsc_back},
    {"counts again", "reads", 1, '.', counters},
    {"new generation", "generation", 1, '.', generation},
    {"same generation", "generation", 1, '.', same_generation},
    {"few pages back", "dirty_50", 1, '.', few_pages},
    {"some pages back", "dirty_1000", 1, '.', some_pages},
    {"many pages back", "dirty_20000", 1, '.', many_pages},
};

static bool is_wanted(const struct snapshot_test *t, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], t->guest) == 0)
            return true;
    return argc < 2;
}

static bool run_test(const struct snapshot_test *t)
{
    static struct machine_rig rig;
    uint64_t began = io_now_ns();
    bool ok, skipped;

    rig = (struct machine_rig){.vmm = {.pid = -1, .sock = -1}, .console = -1};
    ok = t->run(t, &rig);
    skipped = !ok && strncmp(rig.why, SKIP, strlen(SKIP)) == 0;
    if (skipped)
        printf("skip - %s: %s, %u CPUs: this host's %s\n", t->name, t->guest,
               t->cpus, rig.why + strlen(SKIP));
    else if (!ok && rig.exit.reason == MONITOR_EXIT_EMULATION)
        printf("skip - %s: %s: this host's KVM cannot emulate it\n", t->name,
               t->guest);
    else
        printf("%s - %s: %s, %u CPUs%s%s\n", ok ? "ok" : "not ok", t->name,
               t->guest, t->cpus, ok ? "" : ": ", ok ? "" : rig.why);
    if (getenv("TIMES"))
        printf("  %llu ms\n",
               (unsigned long long)(io_now_ns() - began) / 1000000);
    fflush(stdout);
    rig_end(&rig);
    return ok || skipped || rig.exit.reason == MONITOR_EXIT_EMULATION;
}

int main(int argc, char **argv)
{
    unsigned failed = 0;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return STATUS_SKIPPED;
    }
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
        if (is_wanted(&tests[i], argc, argv) && !run_test(&tests[i]))
            failed++;
    return failed > 0;
}
