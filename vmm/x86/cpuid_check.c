/* SPDX-License-Identifier: Apache-2.0 */
/* A saved CPUID table against a host's; see the header. */
#include "vmm/x86/cpuid_check.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

#define ANY_INDEX UINT32_MAX
#define LEAF_XSAVE 0xdu
#define TSC_DEADLINE (1u << 24) /* leaf 1, ECX */

enum { EAX, EBX, ECX, EDX };

static const char *const reg_names[] = {"EAX", "EBX", "ECX", "EDX"};

/*
 * Registers whose bits are features: each the guest has, the host must have.
 * `ours` are bits the machine sets by itself whatever the host has, or that
 * follow the guest's own CR4 (OSXSAVE, OSPKE).
 */
static const struct {
    uint32_t function, index;
    int reg;
    uint32_t ours;
} features[] = {
    /* x2APIC, OSXSAVE, hypervisor */
    {1, ANY_INDEX, ECX, 1u << 21 | 1u << 27 | 1u << 31},
    {1, ANY_INDEX, EDX, 1u << 28}, /* HTT: more than one CPU */
    {7, 0, EBX, 0},
    {7, 0, ECX, 1u << 4}, /* OSPKE */
    {7, 0, EDX, 0},
    {7, 1, EAX, 0},
    {7, 1, EBX, 0},
    {7, 1, ECX, 0},
    {7, 1, EDX, 0},
    {7, 2, EDX, 0},
    {LEAF_XSAVE, 0, EAX, 0}, /* what XCR0 may hold */
    {LEAF_XSAVE, 0, EDX, 0},
    {LEAF_XSAVE, 1, EAX, 0},
    {LEAF_XSAVE, 1, ECX, 0}, /* what XSS may hold */
    {LEAF_XSAVE, 1, EDX, 0},
    {0x40000001, ANY_INDEX, EAX, 0},
    {0x80000001, ANY_INDEX, ECX, 1u << 1}, /* CmpLegacy: more than one CPU */
    {0x80000001, ANY_INDEX, EDX, 0},
    {0x80000007, ANY_INDEX, EDX, 0},
    {0x80000008, ANY_INDEX, EBX, 0},
    {0x80000021, ANY_INDEX, EAX, 0},
};

static uint32_t reg_of(const struct kvm_cpuid_entry2 *e, int reg)
{
    const uint32_t regs[] = {e->eax, e->ebx, e->ecx, e->edx};

    return regs[reg];
}

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *cpuid,
                                           uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

        if (e->function == function &&
            (e->index == index ||
             !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
            return e;
    }
    return NULL;
}

static bool is_all_zero(const struct kvm_cpuid_entry2 *e)
{
    return (e->eax | e->ebx | e->ecx | e->edx) == 0;
}

/*
 * A leaf that says something to the guest must say something on this host: it
 * is absent or zeroed where the host cannot do it, or where the machine keeps
 * it from guests (performance counters and the like, by which KVM itself goes).
 * The machine's own topology leaves only depend on how far the host's go.
 */
static int check_leaf(const struct kvm_cpuid2 *host,
                      const struct kvm_cpuid_entry2 *e,
                      char why[STATE_WHY_MAX + 1])
{
    if (is_all_zero(e) || e->function == 0xb || e->function == 0x1f)
        return 0;
    for (uint32_t i = 0; i < host->nent; i++)
        if (host->entries[i].function == e->function &&
            !is_all_zero(&host->entries[i]))
            return 0;
    snprintf(why, STATE_WHY_MAX + 1,
             "its CPU has CPUID leaf 0x%x, this host's has not", e->function);
    return -EOPNOTSUPP;
}

static int check_vendor(const struct kvm_cpuid2 *host,
                        const struct kvm_cpuid2 *saved,
                        char why[STATE_WHY_MAX + 1])
{
    const struct kvm_cpuid_entry2 *a = find(host, 0, 0), *b = find(saved, 0, 0);

    if (a && b && a->ebx == b->ebx && a->ecx == b->ecx && a->edx == b->edx)
        return 0;
    snprintf(why, STATE_WHY_MAX + 1,
             "its CPU is of another vendor than this host's");
    return -EOPNOTSUPP;
}

/* One leaf's feature bits. An index that the host lacks has none. */
static int check_features(const struct kvm_cpuid2 *host,
                          const struct kvm_cpuid_entry2 *e,
                          char why[STATE_WHY_MAX + 1])
{
    const struct kvm_cpuid_entry2 none = {0};
    const struct kvm_cpuid_entry2 *h = find(host, e->function, e->index);

    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        int reg = features[i].reg;
        uint32_t missing;

        if (features[i].function != e->function ||
            (features[i].index != ANY_INDEX && features[i].index != e->index))
            continue;
        missing =
            reg_of(e, reg) & ~reg_of(h ? h : &none, reg) & ~features[i].ours;
        if (missing == 0)
            continue;
        snprintf(why, STATE_WHY_MAX + 1,
                 "its CPU has features that this host's has not: CPUID leaf "
                 "0x%x, %u, %s, bits 0x%x",
                 e->function, e->index, reg_names[reg], missing);
        return -EOPNOTSUPP;
    }
    return 0;
}

/* Where a component of extended state lies: size and offset, or compacted. */
static int check_layout(const struct kvm_cpuid2 *host,
                        const struct kvm_cpuid_entry2 *e,
                        char why[STATE_WHY_MAX + 1])
{
    const struct kvm_cpuid_entry2 *h;

    if (e->function != LEAF_XSAVE || e->index < 2 || is_all_zero(e))
        return 0;
    h = find(host, e->function, e->index);
    if (h && h->eax == e->eax && h->ebx == e->ebx)
        return 0;
    snprintf(why, STATE_WHY_MAX + 1,
             "component %u of its extended CPU state lies elsewhere than this "
             "host's",
             e->index);
    return -EOPNOTSUPP;
}

int cpuid_check(const struct kvm_cpuid2 *host, const struct kvm_cpuid2 *saved,
                char ret_why[STATE_WHY_MAX + 1])
{
    int ret = check_vendor(host, saved, ret_why);

    for (uint32_t i = 0; ret == 0 && i < saved->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &saved->entries[i];

        ret = check_leaf(host, e, ret_why);
        if (ret == 0)
            ret = check_features(host, e, ret_why);
        if (ret == 0)
            ret = check_layout(host, e, ret_why);
    }
    return ret;
}

int cpuid_check_own(const struct kvm_cpuid2 *saved,
                    const struct cpuid_options *options,
                    char ret_why[STATE_WHY_MAX + 1])
{
    struct kvm_cpuid2 *again = cpuid_copy(saved);
    struct cpuid_options own = *options;
    uint32_t i = 0;
    int ret;

    if (!again)
        return -ENOMEM;
    /* Whether there is such a timer is the host's to say. */
    own.tsc_deadline = (cpuid_word(saved, 1, 0, ECX) & TSC_DEADLINE) != 0;
    ret = cpuid_prepare(again, &own);
    while (ret == 0 && i < saved->nent && i < again->nent &&
           memcmp(&saved->entries[i], &again->entries[i],
                  sizeof(saved->entries[i])) == 0)
        i++;
    if (ret < 0 || i < saved->nent || i < again->nent) {
        snprintf(ret_why, STATE_WHY_MAX + 1,
                 "its CPU is none that this machine gives a guest: CPUID leaf "
                 "0x%x",
                 i < saved->nent ? saved->entries[i].function : 1);
        ret = -EOPNOTSUPP;
    }
    free(again);
    return ret;
}
