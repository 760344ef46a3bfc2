/* SPDX-License-Identifier: Apache-2.0 */
/* KVM's MSR filter; see the header. Numbers as in Intel's SDM, 4. */
#include "vmm/x86/msr_filter.h"

#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>

#include "base/num.h"
#include "vmm/kvm.h"
#include "vmm/x86/msr_state.h"

#define MSR_KVM_WALL_CLOCK 0x4b564d00u

/* Where there are MSRs. One bit each; a range's beginning is a multiple of 8.
 */
#define RANGE_MAX 0x2000u
static const struct {
    uint32_t first, count;
} ranges[] = {
    {0, RANGE_MAX},
    {MSR_KVM_WALL_CLOCK, 0x100},
    {0xc0000000, RANGE_MAX},
    {0xc0010000, RANGE_MAX},
};

_Static_assert(2 * ARRAY_SIZE(ranges) <= KVM_MSR_FILTER_MAX_RANGES,
               "one for reads and one for writes each");

/* Written without being saved by msr_state. */
static const struct msr_range others[] = {
    {0x1b, 0x1b},             /* APIC base: saved with SREGS */
    {0xc0000080, 0xc0000080}, /* EFER, likewise */
    {0xc0000100, 0xc0000101}, /* FS and GS base, likewise */
    {0x49, 0x49},             /* flushes branch predictors */
    {0x10b, 0x10b},           /* flushes the first cache */
    /* What KVM takes and forgets, since kernels write it unasked: */
    {0x79, 0x79},             /* microcode update */
    {0x11e, 0x11e},           /* second cache's control */
    {0xc001001f, 0xc0010020}, /* AMD north bridge, microcode update */
    {0xc0011022, 0xc0011022}, /* AMD data cache */
    {0xc001102a, 0xc001102a}, /* AMD bus unit */
    {0xc001102c, 0xc001102c}, /* AMD execution unit */
};

/* The last branches that AMD's CPUs note down: read, but never put back. */
static const struct msr_range unread = {0x1db, 0x1de};

/* One bit per MSR of each range. */
struct bitmaps {
    uint8_t bits[ARRAY_SIZE(ranges)][RANGE_MAX / 8];
};

static void set(struct bitmaps *b, struct msr_range r, bool allowed)
{
    for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
        for (uint32_t index = r.first; index <= r.last; index++) {
            uint32_t at = index - ranges[i].first;
            uint8_t bit = (uint8_t)(1u << (at % 8));

            if (at >= ranges[i].count)
                continue;
            if (allowed)
                b->bits[i][at / 8] |= bit;
            else
                b->bits[i][at / 8] &= (uint8_t)~bit;
        }
}

static void allow(struct bitmaps *b, struct msr_range r)
{
    set(b, r, true);
}

static void allow_writes(struct bitmaps *b, bool wall_clock)
{
    struct msr_range r = {MSR_KVM_WALL_CLOCK, MSR_KVM_WALL_CLOCK};

    if (wall_clock)
        allow(b, r);
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        allow(b, others[i]);
    for (size_t i = 0; msr_state_writable(i, &r); i++)
        allow(b, r);
}

/* All that there are, but for some; of KVM's own only those offered. */
static void allow_reads(struct bitmaps *b)
{
    struct msr_range r = {MSR_KVM_WALL_CLOCK, MSR_KVM_WALL_CLOCK};

    for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
        if (ranges[i].first != MSR_KVM_WALL_CLOCK)
            memset(b->bits[i], 0xff, sizeof(b->bits[i]));
    set(b, unread, false);
    allow(b, r);
    for (size_t i = 0; msr_state_writable(i, &r); i++)
        allow(b, r);
}

static struct kvm_msr_filter_range filter_range(size_t i, uint32_t flags,
                                                uint8_t *bits)
{
    return (struct kvm_msr_filter_range){.flags = flags,
                                         .base = ranges[i].first,
                                         .nmsrs = ranges[i].count,
                                         .bitmap = bits};
}

int msr_filter_set(int vm_fd, bool wall_clock)
{
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
    struct bitmaps reads = {0}, writes = {0};

    allow_reads(&reads);
    allow_writes(&writes, wall_clock);
    for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
        filter.ranges[2 * i] =
            filter_range(i, KVM_MSR_FILTER_READ, reads.bits[i]);
        filter.ranges[2 * i + 1] =
            filter_range(i, KVM_MSR_FILTER_WRITE, writes.bits[i]);
    }
    return kvm_ioctl(vm_fd, KVM_X86_SET_MSR_FILTER, &filter);
}
