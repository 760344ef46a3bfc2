/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every MSR that a guest can change is saved, restored and rolled back, and
 * none of the paravirtual orders that the machine does not offer is obeyed:
 * found by trying all of them, not from a list. The guest is
 * tests/vm/bare/msrs.S. Needs /dev/kvm, but no host that runs Linux guests.
 *
 * One line per test; status 0 if all passed, 77 without a usable /dev/kvm.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm_para.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "tests/machine_rig.h"
#include "vmm/state_file.h"

#define STATUS_SKIPPED 77
#define MEMORY_MIB 32u
#define SKIP "skip: " /* how the reason of a test that cannot be begins */

/* As in msrs.S. */
#define MSR_TABLE 0x400000u
#define CALL_TABLE 0x600000u
#define CALLS 32u

static const struct {
    uint32_t first, count;
} ranges[] = {
    {0, 0x2000},          {0x40000000, 0x100},  {0x4b564d00, 0x100},
    {0xc0000000, 0x2000}, {0xc0010000, 0x2000},
};
#define MSRS_MAX (3 * 0x2000 + 2 * 0x100)

/* What the guest noted of one. */
struct msr {
    uint32_t index;
    uint64_t value;
    bool readable;
    uint32_t writes; /* taken */
};

struct tables {
    struct msr msrs[MSRS_MAX];
    uint64_t calls[CALLS];
};

static int input[2] = {-1, -1};
static struct rig_files fresh; /* the guest before its first order */

/* ---- steps ---- */

static void config_guest(struct vm_config *config)
{
    rig_config(config, 1, MEMORY_MIB);
    config->console_in_fd = dup(input[0]);
}

static bool restore(struct machine_rig *rig, const struct rig_files *f,
                    bool track_dirty)
{
    struct vm_config config;

    config_guest(&config);
    rig_config_files(&config, f);
    config.track_dirty = track_dirty;
    return rig_build(rig, &config) && rig_start(rig);
}

static bool order(struct machine_rig *rig, char c)
{
    return write(input[1], &c, 1) == 1 && rig_hear(rig, c, 1);
}

/* A snapshot of the guest before its first order. */
static bool make_snapshot(struct machine_rig *rig, struct rig_files *f,
                          bool pinnable)
{
    struct vm_config config;
    bool ok;

    rig_files_open(f, 0);
    config_guest(&config);
    config.hide_rdrand = pinnable;
    ok = rig_config_guest(&config, "msrs") && rig_build(rig, &config) &&
         rig_start(rig) && rig_hear(rig, '.', 1) && rig_pause(rig) &&
         rig_save(rig, f) && rig_stop(rig);
    rig_end(rig);
    return ok;
}

/* What lies in a saved memory. */
static bool read_tables(int memory_fd, struct tables *t)
{
    uint8_t entry[16], call[8];
    off_t at = MSR_TABLE;
    size_t n = 0;

    for (size_t r = 0; r < ARRAY_SIZE(ranges); r++)
        for (uint32_t i = 0; i < ranges[r].count; i++, at += 16) {
            if (pread(memory_fd, entry, 16, at) != 16)
                return false;
            t->msrs[n++] = (struct msr){
                .index = ranges[r].first + i,
                .value = num_get_le64(entry),
                .readable = num_get_le32(entry + 8) != 0,
                .writes = num_get_le32(entry + 12),
            };
        }
    for (size_t i = 0; i < CALLS; i++) {
        if (pread(memory_fd, call, 8, (off_t)(CALL_TABLE + 8 * i)) != 8)
            return false;
        t->calls[i] = num_get_le64(call);
    }
    return true;
}

/* Saves the machine, files and tables, and ends it. */
static bool freeze(struct machine_rig *rig, struct rig_files *f,
                   struct tables **ret_tables)
{
    struct tables *t = calloc(1, sizeof(*t));
    bool ok;

    rig_files_open(f, 0);
    ok = t && rig_pause(rig) && rig_save(rig, f) && rig_stop(rig) &&
         read_tables(f->memory, t);
    *ret_tables = t;
    if (ok)
        rig_end(rig);
    return ok;
}

/* ---- comparing ---- */

/*
 * Those that go on by themselves: TSC, its deadline, the LAPIC's count. And an
 * order to write the time, which no restored machine is given again.
 */
static bool moves(uint32_t index)
{
    return index == 0x10 || index == 0x6e0 || index == 0x839 ||
           index == MSR_KVM_WALL_CLOCK_NEW;
}

/* How many differ as a guest reads them; the first is named in why. */
static unsigned compare(const struct tables *a, const struct tables *b,
                        char *why, size_t size)
{
    unsigned differ = 0;

    for (size_t i = 0; i < MSRS_MAX; i++) {
        const struct msr *x = &a->msrs[i], *y = &b->msrs[i];

        if (moves(x->index) ||
            (x->readable == y->readable && x->value == y->value))
            continue;
        if (getenv("VERBOSE"))
            printf("# MSR 0x%x: 0x%" PRIx64 ", 0x%" PRIx64 "\n", x->index,
                   x->value, y->value);
        if (differ++ == 0)
            snprintf(why, size, "MSR 0x%x was 0x%" PRIx64 ", is 0x%" PRIx64,
                     x->index, x->value, y->value);
    }
    return differ;
}

static bool same(struct machine_rig *rig, const struct tables *a,
                 const struct tables *b)
{
    return compare(a, b, rig->why, sizeof(rig->why)) == 0;
}

/* ---- tests ---- */

static struct tables *unused;    /* as the guest finds its MSRs */
static struct tables *changed;   /* after it has flipped all it can */
static struct rig_files flipped; /* ... and the machine of that moment */

static bool read_unused(struct machine_rig *rig)
{
    struct rig_files f = {.state = -1, .memory = -1};
    bool ok = restore(rig, &fresh, false) && order(rig, 'r') &&
              freeze(rig, &f, &unused);

    rig_files_close(&f);
    return ok;
}

/* The comparison finds what a guest has changed, or it would say nothing. */
static bool much_is_changed(struct machine_rig *rig)
{
    unsigned differ = compare(unused, changed, rig->why, sizeof(rig->why));

    printf("# the guest has changed %u MSRs\n", differ);
    if (differ >= 20)
        rig->why[0] = '\0';
    return differ >= 20;
}

/* The machine of another trial finds none of it. */
static bool rolled_back(struct machine_rig *rig)
{
    struct tables *t = NULL;
    struct rig_files f = {.state = -1, .memory = -1};
    bool ok;

    changed = calloc(1, sizeof(*changed));
    rig_files_open(&flipped, 0);
    ok = changed && restore(rig, &fresh, true) && order(rig, 'f') &&
         order(rig, 'r') && rig_pause(rig) && rig_save(rig, &flipped) &&
         read_tables(flipped.memory, changed) && much_is_changed(rig) &&
         rig_roll_back(rig) && rig_proof_holds(rig, &fresh) &&
         rig_resume(rig) && order(rig, 'r') && freeze(rig, &f, &t) &&
         same(rig, unused, t);
    rig_files_close(&f);
    free(t);
    return ok;
}

/* A snapshot holds all that was changed. */
static bool restored(struct machine_rig *rig)
{
    struct tables *t = NULL;
    struct rig_files f = {.state = -1, .memory = -1};
    struct vm_config config;
    bool ok;

    config_guest(&config);
    rig_config_files(&config, &flipped);
    ok = rig_build(rig, &config) && rig_proof_holds(rig, &flipped) &&
         rig_start(rig) && order(rig, 'r') && freeze(rig, &f, &t) &&
         same(rig, changed, t);

    rig_files_close(&f);
    free(t);
    return ok;
}

/*
 * A deadline that a trial has set, and that passes while its machine is rolled
 * back, does not interrupt the next trial, whose own is far away.
 */
static bool deadline_gone(struct machine_rig *rig)
{
    struct rig_files far;
    bool ok = restore(rig, &fresh, false) && order(rig, 's');

    rig_files_open(&far, 0);
    ok = ok && rig_pause(rig) && rig_save(rig, &far) && rig_stop(rig);
    rig_end(rig);
    ok = ok && restore(rig, &far, true) && order(rig, 'e') && order(rig, 'n') &&
         rig_pause(rig) && usleep(100000) == 0 && rig_roll_back(rig) &&
         rig_proof_holds(rig, &far) && rig_resume(rig) && order(rig, 'e') &&
         order(rig, 'e') && rig_stop(rig);
    rig_files_close(&far);
    return ok;
}

/* What the machine offers of KVM's own: both clocks, end of interrupt. */
static bool is_offered(uint32_t index)
{
    return index == MSR_KVM_WALL_CLOCK_NEW ||
           index == MSR_KVM_SYSTEM_TIME_NEW || index == MSR_KVM_PV_EOI_EN;
}

static bool is_paravirtual(uint32_t index)
{
    return index == MSR_KVM_WALL_CLOCK || index == MSR_KVM_SYSTEM_TIME ||
           (index & 0xffffff00u) == 0x4b564d00u ||
           (index & 0xffffff00u) == 0x40000000u;
}

/* No paravirtual MSR but those offered is read or written. */
static bool msrs_hidden(struct machine_rig *rig)
{
    unsigned offered = 0;

    for (size_t i = 0; changed && i < MSRS_MAX; i++) {
        const struct msr *m = &changed->msrs[i];

        if (!is_paravirtual(m->index))
            continue;
        offered += is_offered(m->index) && m->writes > 0;
        if (!is_offered(m->index) && (m->readable || m->writes > 0)) {
            snprintf(rig->why, sizeof(rig->why),
                     "MSR 0x%x is not offered, and works", m->index);
            return false;
        }
    }
    if (offered == 3)
        return true;
    snprintf(rig->why, sizeof(rig->why), "%u of 3 that are offered work",
             offered);
    return false;
}

/* The CPU's notes of the last branches, which no KVM lets us put back: on AMD's
 * hosts a guest can have them made. */
static bool branches_hidden(struct machine_rig *rig)
{
    for (size_t i = 0; changed && i < MSRS_MAX; i++) {
        const struct msr *m = &changed->msrs[i];

        if (m->index >= 0x1db && m->index <= 0x1de && m->readable) {
            snprintf(rig->why, sizeof(rig->why), "MSR 0x%x can be read",
                     m->index);
            return false;
        }
    }
    return changed;
}

/*
 * Only the hypercalls that the machine offers (a kick of a waiting CPU, and one
 * that does nothing) are answered, and the one that no KVM lets us refuse, see
 * docs/snapshots.md.
 */
static bool calls_hidden(struct machine_rig *rig)
{
    struct tables *t = NULL;
    struct rig_files f = {.state = -1, .memory = -1};
    bool ok;

    /* It interprets guests' kernels, and this instruction forever. */
    if (access("/sys/module/kvm_pvm", F_OK) == 0) {
        snprintf(rig->why, sizeof(rig->why),
                 SKIP "this host's KVM has no hypercalls of guest kernels");
        return false;
    }
    ok = restore(rig, &fresh, false) && order(rig, 'c') && freeze(rig, &f, &t);
    for (unsigned i = 0; ok && i < CALLS; i++) {
        if (getenv("VERBOSE"))
            printf("# hypercall %u: %" PRId64 "\n", i, (int64_t)t->calls[i]);
        if (i == KVM_HC_CLOCK_PAIRING)
            continue;
        if ((i == KVM_HC_KICK_CPU || i == KVM_HC_VAPIC_POLL_IRQ)
                ? t->calls[i] == 0
                : (int64_t)t->calls[i] == -KVM_ENOSYS)
            continue;
        snprintf(rig->why, sizeof(rig->why), "hypercall %u answers %" PRId64, i,
                 (int64_t)t->calls[i]);
        ok = false;
    }
    rig_files_close(&f);
    free(t);
    return ok;
}

static bool ask_time(struct machine_rig *rig, char answer)
{
    return write(input[1], "w", 1) == 1 && rig_hear(rig, answer, 1);
}

/*
 * KVM tells the time of day, which is the host's: when a kernel boots, and to
 * one that is restored unless its clock may be pinned.
 */
static bool wall_clock(struct machine_rig *rig)
{
    struct rig_files pinnable = {.state = -1, .memory = -1};
    struct vm_config config;
    bool ok =
        restore(rig, &fresh, false) && ask_time(rig, 'w') && rig_stop(rig);

    rig_end(rig);
    ok = ok && make_snapshot(rig, &pinnable, true);
    config_guest(&config);
    rig_config_files(&config, &pinnable);
    config.hide_rdrand = true;
    ok = ok && rig_build(rig, &config) && rig_start(rig) &&
         ask_time(rig, 'v') && rig_stop(rig);
    rig_files_close(&pinnable);
    return ok;
}

static const struct {
    const char *name;
    bool (*run)(struct machine_rig *rig);
} tests[] = {
    {"read", read_unused},
    {"flipped, rolled back", rolled_back},
    {"flipped, saved, restored", restored},
    {"a deadline rolled back", deadline_gone},
    {"the time of day of a pinned clock", wall_clock},
    {"paravirtual MSRs not offered", msrs_hidden},
    {"the last branches", branches_hidden},
    {"hypercalls not offered", calls_hidden},
};

int main(void)
{
    static struct machine_rig rig;
    unsigned failed = 0;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return STATUS_SKIPPED;
    }
    if (pipe2(input, O_CLOEXEC) < 0 || !make_snapshot(&rig, &fresh, false)) {
        printf("not ok - MSRs: no snapshot: %s\n", rig.why);
        return 1;
    }
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        uint64_t began = io_now_ns();
        bool ok, skipped;

        rig =
            (struct machine_rig){.vmm = {.pid = -1, .sock = -1}, .console = -1};
        ok = tests[i].run(&rig);
        skipped = !ok && strncmp(rig.why, SKIP, strlen(SKIP)) == 0;
        if (skipped)
            printf("skip - MSRs: %s: %s\n", tests[i].name,
                   rig.why + strlen(SKIP));
        else
            printf("%s - MSRs: %s%s%s\n", ok ? "ok" : "not ok", tests[i].name,
                   ok ? "" : ": ", ok ? "" : rig.why);
        if (getenv("TIMES"))
            printf("  %" PRIu64 " ms\n", (io_now_ns() - began) / 1000000);
        fflush(stdout);
        failed += !ok && !skipped;
        rig_end(&rig);
    }
    return failed > 0;
}
