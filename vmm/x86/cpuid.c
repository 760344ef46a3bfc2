/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's CPUID table; see the header. Leaves and bits as in Intel's SDM
 * volume 2 (CPUID), AMD's APM volume 3 (appendix E) and Linux's
 * Documentation/virt/kvm/x86/cpuid.rst.
 */
#include "vmm/x86/cpuid.h"

#include <asm/kvm_para.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/num.h"
#include "vmm/kvm.h"

#define BIT(n) (1u << (n))

#define LEAF_KVM_SIGNATURE 0x40000000u
#define LEAF_KVM_FEATURES 0x40000001u
#define LEAF_HYPERVISOR_END 0x4fffffffu
#define LEAF_TOPOLOGY 0xbu
#define LEAF_TOPOLOGY_V2 0x1fu
#define LEAF_XSAVE 0xdu
#define XSAVE_HEADER_END 576u /* of the area, where components begin */

#define LEAF1_ECX_XSAVE BIT(26)
#define LEAF1_ECX_VMX BIT(5)
#define LEAF8_1_ECX_SVM BIT(2)

/* Kinds of level in leaf 0xB and 0x1F, ECX bits 8-15. */
#define LEVEL_SMT (1u << 8)
#define LEVEL_CORE (2u << 8)

/*
 * Paravirtual features a guest may use: clocks, no delay on port I/O, cheap
 * end of interrupt, spinlock kicks. Not: steal time and asynchronous page
 * faults (KVM would write into guest memory behind a snapshot's back, and tell
 * the guest about the host), migration control, poll control.
 */
#define KVM_FEATURES_ALLOWED                                                   \
    (BIT(KVM_FEATURE_NOP_IO_DELAY) | BIT(KVM_FEATURE_CLOCKSOURCE2) |           \
     BIT(KVM_FEATURE_PV_EOI) | BIT(KVM_FEATURE_PV_UNHALT) |                    \
     BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT))

enum { EAX, EBX, ECX, EDX };

/* Bits taken away from leaves; index ~0 means every index of the function. */
#define ANY_INDEX UINT32_MAX
static const struct {
    uint32_t function, index;
    int reg;
    uint32_t clear;
} hidden[] = {
    /* DTES64, MONITOR, DS-CPL, VMX, SMX, PDCM (performance capabilities) */
    {1, ANY_INDEX, ECX,
     BIT(2) | BIT(3) | BIT(4) | LEAF1_ECX_VMX | BIT(6) | BIT(15)},
    {1, ANY_INDEX, EDX, BIT(21)},  /* debug store */
    {6, ANY_INDEX, ECX, BIT(0)},   /* APERF/MPERF */
    {7, 0, EBX, BIT(2) | BIT(25)}, /* SGX, processor trace */
    {7, 0, ECX, BIT(30)},          /* SGX launch configuration */
    {7, 0, EDX, BIT(19) | BIT(22) | BIT(24) | BIT(25)}, /* arch LBR, AMX */
    {7, 1, EAX, BIT(21)},                               /* AMX FP16 */
    {7, 1, EDX, BIT(8)},                                /* AMX COMPLEX */
    {LEAF_XSAVE, 1, EAX, BIT(4)},                       /* XFD: for AMX */
    {0x80000001u, ANY_INDEX, ECX,
     /* SVM, OSVW (a guest may write its MSRs), IBS, AMD's counters */
     LEAF8_1_ECX_SVM | BIT(9) | BIT(10) | BIT(23) | BIT(24) | BIT(27) |
         BIT(28)},
};

/* Leaves whose every register is zero for the guest. */
static const uint32_t zeroed[] = {
    0xa,               /* performance monitoring */
    0x12,              /* SGX */
    0x14,              /* processor trace */
    0x1c,              /* arch LBR */
    0x1d,        0x1e, /* AMX */
    0x8000000au,       /* SVM */
    0x8000001bu,       /* IBS */
    0x8000001fu,       /* memory encryption */
    0x80000022u,       /* AMD performance monitoring, version 2 */
};

/*
 * Components of extended state that are AMX's tiles. A guest has none of AMX:
 * the tiles' 8 KiB do not fit into what KVM_GET_XSAVE carries, and they need
 * the kernel's permission before there is a vCPU (ARCH_REQ_XCOMP_GUEST_PERM)
 * and two MSRs of XFD saved. That could be written, not tested: of the
 * emulators only Bochs 3.0 has AMX, and without XFD, so that no Linux 6.1 even
 * starts on its model of such a CPU.
 */
#define XSAVE_TILES (BIT(17) | BIT(18))

/* What disappears with XSAVE: all that lives in extended state. */
static const struct {
    uint32_t function, index;
    int reg;
    uint32_t clear;
} needs_xsave[] = {
    /* FMA, XSAVE, OSXSAVE, AVX, F16C */
    {1, ANY_INDEX, ECX,
     BIT(12) | LEAF1_ECX_XSAVE | BIT(27) | BIT(28) | BIT(29)},
    /* AVX2, AVX-512 (F, DQ, IFMA, PF, ER, CD, BW, VL) and MPX */
    {7, 0, EBX,
     BIT(5) | BIT(14) | BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) |
         BIT(28) | BIT(30) | BIT(31)},
    /* AVX-512 VBMI, PKU, VBMI2, shadow stacks, VAES, VPCLMULQDQ, VNNI,
     * BITALG, VPOPCNTDQ */
    {7, 0, ECX,
     BIT(1) | BIT(3) | BIT(4) | BIT(6) | BIT(7) | BIT(9) | BIT(10) | BIT(11) |
         BIT(12) | BIT(14)},
    /* AVX-512 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; indirect branch tracking */
    {7, 0, EDX, BIT(2) | BIT(3) | BIT(8) | BIT(20) | BIT(23)},
    {7, 1, EAX, BIT(4) | BIT(5) | BIT(23)}, /* AVX-VNNI, BF16, AVX-IFMA */
    {7, 1, EDX, BIT(4) | BIT(5) | BIT(10) | BIT(19)}, /* more of AVX */
    {0x80000001u, ANY_INDEX, ECX, BIT(11) | BIT(15) | BIT(16)}, /* XOP, LWP,
                                                                   FMA4 */
};

static uint32_t *entry_reg(struct kvm_cpuid_entry2 *e, int reg)
{
    switch (reg) {
    case EAX:
        return &e->eax;
    case EBX:
        return &e->ebx;
    case ECX:
        return &e->ecx;
    default:
        return &e->edx;
    }
}

static struct kvm_cpuid2 *cpuid_alloc(void)
{
    return calloc(1, sizeof(struct kvm_cpuid2) +
                         CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));
}

struct kvm_cpuid2 *cpuid_copy(const struct kvm_cpuid2 *cpuid)
{
    struct kvm_cpuid2 *copy = cpuid_alloc();

    if (copy)
        memcpy(copy, cpuid,
               sizeof(*cpuid) + cpuid->nent * sizeof(cpuid->entries[0]));
    return copy;
}

int cpuid_get_supported(int kvm_fd, struct kvm_cpuid2 **ret_cpuid)
{
    struct kvm_cpuid2 *cpuid = cpuid_alloc();
    int ret;

    if (!cpuid)
        return -ENOMEM;
    cpuid->nent = CPUID_ENTRIES_MAX;
    ret = kvm_ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid);
    if (ret < 0) {
        free(cpuid);
        return ret;
    }
    *ret_cpuid = cpuid;
    return 0;
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *cpuid,
                                     uint32_t function)
{
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == function)
            return &cpuid->entries[i];
    return NULL;
}

uint32_t cpuid_word(const struct kvm_cpuid2 *cpuid, uint32_t function,
                    uint32_t index, unsigned reg)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 e = cpuid->entries[i];

        if (e.function == function && e.index == index)
            return *entry_reg(&e, (int)reg);
    }
    return 0;
}

bool cpuid_offers_nested(const struct kvm_cpuid2 *cpuid)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

        if (e->function == 1 && (e->ecx & LEAF1_ECX_VMX))
            return true;
        if (e->function == 0x80000001u && (e->ecx & LEAF8_1_ECX_SVM))
            return true;
    }
    return false;
}

bool cpuid_offers_xsave(const struct kvm_cpuid2 *cpuid)
{
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == 1)
            return (cpuid->entries[i].ecx & LEAF1_ECX_XSAVE) != 0;
    return false;
}

static void clear_bits(struct kvm_cpuid2 *cpuid, uint32_t function,
                       uint32_t index, int reg, uint32_t bits)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

        if (e->function == function &&
            (index == ANY_INDEX || index == e->index))
            *entry_reg(e, reg) &= ~bits;
    }
}

static void zero_leaf(struct kvm_cpuid2 *cpuid, uint32_t function)
{
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == function)
            for (int reg = EAX; reg <= EDX; reg++)
                *entry_reg(&cpuid->entries[i], reg) = 0;
}

/* Takes the tiles away from what XCR0 may hold, and from the area's size. */
static void hide_tiles(struct kvm_cpuid2 *cpuid)
{
    struct kvm_cpuid_entry2 *area = find(cpuid, LEAF_XSAVE);
    uint32_t end = XSAVE_HEADER_END;

    if (!area)
        return;
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

        if (e->function != LEAF_XSAVE || e->index < 2 || e->index > 31)
            continue;
        if (XSAVE_TILES & BIT(e->index))
            e->eax = e->ebx = e->ecx = e->edx = 0;
        else if ((area->eax & BIT(e->index)) && e->ebx + e->eax > end)
            end = e->ebx + e->eax;
    }
    if (area->eax & XSAVE_TILES)
        area->ebx = area->ecx = end;
    area->eax &= ~XSAVE_TILES;
}

static void hide_features(struct kvm_cpuid2 *cpuid, bool xsave)
{
    for (size_t i = 0; i < ARRAY_SIZE(hidden); i++)
        clear_bits(cpuid, hidden[i].function, hidden[i].index, hidden[i].reg,
                   hidden[i].clear);
    for (size_t i = 0; i < ARRAY_SIZE(zeroed); i++)
        zero_leaf(cpuid, zeroed[i]);
    hide_tiles(cpuid);
    if (xsave)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(needs_xsave); i++)
        clear_bits(cpuid, needs_xsave[i].function, needs_xsave[i].index,
                   needs_xsave[i].reg, needs_xsave[i].clear);
    zero_leaf(cpuid, LEAF_XSAVE);
}

/* Drops entries of functions first .. last; the order stays. */
static void remove_leaves(struct kvm_cpuid2 *cpuid, uint32_t first,
                          uint32_t last)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < cpuid->nent; i++) {
        uint32_t function = cpuid->entries[i].function;

        if (function < first || function > last)
            cpuid->entries[kept++] = cpuid->entries[i];
    }
    cpuid->nent = kept;
}

static int append(struct kvm_cpuid2 *cpuid, struct kvm_cpuid_entry2 entry)
{
    if (cpuid->nent == CPUID_ENTRIES_MAX)
        return -E2BIG;
    cpuid->entries[cpuid->nent++] = entry;
    return 0;
}

/* Replaces whatever hypervisor leaves KVM offered by the two of ours. */
static int set_kvm_leaves(struct kvm_cpuid2 *cpuid)
{
    struct kvm_cpuid_entry2 signature = {.function = LEAF_KVM_SIGNATURE,
                                         .eax = LEAF_KVM_FEATURES};
    struct kvm_cpuid_entry2 features = {.function = LEAF_KVM_FEATURES};
    const struct kvm_cpuid_entry2 *offered = find(cpuid, LEAF_KVM_FEATURES);
    int ret;

    if (offered)
        features.eax = offered->eax & KVM_FEATURES_ALLOWED;
    memcpy(&signature.ebx, "KVMK", 4);
    memcpy(&signature.ecx, "VMKV", 4);
    memcpy(&signature.edx, "M\0\0\0", 4);
    remove_leaves(cpuid, LEAF_KVM_SIGNATURE, LEAF_HYPERVISOR_END);
    ret = append(cpuid, signature);
    return ret < 0 ? ret : append(cpuid, features);
}

/* Bits needed to number count cores. */
static uint32_t id_bits(uint32_t count)
{
    uint32_t bits = 0;

    while ((1u << bits) < count)
        bits++;
    return bits;
}

/*
 * Leaf 0xB or 0x1F: a thread level of one, a core level of all, and the end
 * (level type 0). Only where the CPU's leaves reach that far.
 */
static int set_topology_leaf(struct kvm_cpuid2 *cpuid, uint32_t function,
                             uint32_t cpu_count)
{
    const struct kvm_cpuid_entry2 levels[] = {
        {.index = 0, .eax = 0, .ebx = 1, .ecx = LEVEL_SMT | 0},
        {.index = 1,
         .eax = id_bits(cpu_count),
         .ebx = cpu_count,
         .ecx = LEVEL_CORE | 1},
        {.index = 2, .ecx = 2},
    };
    const struct kvm_cpuid_entry2 *leaf0 = find(cpuid, 0);
    int ret = 0;

    remove_leaves(cpuid, function, function);
    if (!leaf0 || leaf0->eax < function)
        return 0;
    for (size_t i = 0; ret == 0 && i < ARRAY_SIZE(levels); i++) {
        struct kvm_cpuid_entry2 level = levels[i];

        level.function = function;
        level.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        ret = append(cpuid, level);
    }
    return ret;
}

/*
 * Deterministic cache parameters (Intel 4, AMD 0x8000001D): EAX bits 14-25 are
 * the threads sharing a cache, less one. The last level is shared by all, the
 * others belong to one core.
 */
static void set_cache_sharing(struct kvm_cpuid_entry2 *e, uint32_t cpu_count)
{
    uint32_t level = (e->eax >> 5) & 7;
    uint32_t sharing = level >= 3 ? (1u << id_bits(cpu_count)) - 1 : 0;

    if ((e->eax & 0x1f) == 0) /* no more caches */
        return;
    e->eax &= ~(0xfffu << 14);
    e->eax |= sharing << 14;
    if (e->function == 4) {
        /* Bits 26-31: cores per package, less one. */
        e->eax &= ~(0x3fu << 26);
        e->eax |= ((1u << id_bits(cpu_count)) - 1) << 26;
    }
}

static void set_topology_entry(struct kvm_cpuid_entry2 *e, uint32_t cpu_count)
{
    switch (e->function) {
    case 1: /* EBX 16-23: logical CPUs; EDX 28 (HTT): that number is valid */
        e->ebx = (e->ebx & ~(0xffu << 16)) | (cpu_count << 16);
        e->edx = cpu_count > 1 ? e->edx | BIT(28) : e->edx & ~BIT(28);
        break;
    case 4:
    case 0x8000001du:
        set_cache_sharing(e, cpu_count);
        break;
    case 0x80000001u: /* ECX 1 (CmpLegacy): more than one core */
        e->ecx = cpu_count > 1 ? e->ecx | BIT(1) : e->ecx & ~BIT(1);
        break;
    case 0x80000008u: /* ECX 0-7: cores less one; 12-15: bits of their ids */
        e->ecx =
            (e->ecx & ~0xf0ffu) | (cpu_count - 1) | (id_bits(cpu_count) << 12);
        break;
    case 0x8000001eu: /* one thread per core, one node */
        e->ebx = 0;
        e->ecx = 0;
        break;
    default:
        break;
    }
}

static bool vendor_is_intel(const struct kvm_cpuid_entry2 *leaf0)
{
    return leaf0 && memcmp(&leaf0->ebx, "Genu", 4) == 0;
}

static int set_topology(struct kvm_cpuid2 *cpuid, uint32_t cpu_count)
{
    bool intel = vendor_is_intel(find(cpuid, 0));
    int ret;

    for (uint32_t i = 0; i < cpuid->nent; i++)
        set_topology_entry(&cpuid->entries[i], cpu_count);
    if (intel) /* CmpLegacy and the core count of 0x80000008 are AMD's */
        for (uint32_t i = 0; i < cpuid->nent; i++) {
            if (cpuid->entries[i].function == 0x80000001u)
                cpuid->entries[i].ecx &= ~BIT(1);
            if (cpuid->entries[i].function == 0x80000008u)
                cpuid->entries[i].ecx = 0;
        }
    ret = set_topology_leaf(cpuid, LEAF_TOPOLOGY, cpu_count);
    return ret < 0 ? ret
                   : set_topology_leaf(cpuid, LEAF_TOPOLOGY_V2, cpu_count);
}

int cpuid_prepare(struct kvm_cpuid2 *cpuid, const struct cpuid_options *options)
{
    struct kvm_cpuid_entry2 *leaf1;
    int ret;

    hide_features(cpuid, options->xsave);
    leaf1 = find(cpuid, 1);
    if (!leaf1)
        return -EOPNOTSUPP;
    /* x2APIC (the in-kernel LAPIC has it) and "runs in a virtual machine". */
    leaf1->ecx |= BIT(21) | BIT(31);
    /* KVM leaves the timer's bit to us: without it, and without a PIT, a
     * kernel finds no timer and hangs early. */
    leaf1->ecx &= ~BIT(24);
    if (options->tsc_deadline)
        leaf1->ecx |= BIT(24);
    if (options->hide_rdrand) {
        leaf1->ecx &= ~BIT(30);
        clear_bits(cpuid, 7, 0, EBX, BIT(18)); /* RDSEED */
    }
    ret = set_kvm_leaves(cpuid);
    if (ret == 0)
        ret = set_topology(cpuid, options->cpu_count);
    if (ret == 0)
        cpuid_set_vcpu(cpuid, 0);
    return ret;
}

int cpuid_enforce(int vcpu_fd)
{
    struct kvm_enable_cap enforce = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
                                     .args = {1}};

    return kvm_ioctl(vcpu_fd, KVM_ENABLE_CAP, &enforce);
}

void cpuid_set_vcpu(struct kvm_cpuid2 *cpuid, uint32_t apic_id)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

        switch (e->function) {
        case 1:
            e->ebx = (e->ebx & 0x00ffffffu) | (apic_id << 24);
            break;
        case LEAF_TOPOLOGY:
        case LEAF_TOPOLOGY_V2:
            e->edx = apic_id;
            break;
        case 0x8000001eu:
            e->eax = apic_id;
            e->ebx = apic_id & 0xff; /* core id; one thread in it */
            break;
        default:
            break;
        }
    }
}
