/* SPDX-License-Identifier: Apache-2.0 */
/* The MSRs that are state; see the header. Numbers as in Intel's SDM, 4. */
#include "vmm/x86/msr_state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "vmm/kvm.h"

#define MSR_TSC 0x10u
#define MSR_TSC_DEADLINE 0x6e0u

#define MSR_KVM_WALL_CLOCK_OLD 0x11u
#define MSR_KVM_WALL_CLOCK 0x4b564d00u

/*
 * In the order in which they are loaded: the TSC first, its deadline last. Not
 * here: KVM's two wall clock MSRs. What they hold is the last order to write
 * the time to an address, which loading them would give again, into memory
 * that was just restored; msr_state_forget clears them.
 */
static const struct {
    uint32_t first, last;
} allowed[] = {
    {MSR_TSC, MSR_TSC},
    {0x12, 0x12},             /* KVM's old system time */
    {0x34, 0x34},             /* SMI count */
    {0x3a, 0x3b},             /* feature control, TSC_ADJUST */
    {0x48, 0x48},             /* SPEC_CTRL */
    {0x8b, 0x8b},             /* microcode revision */
    {0x9e, 0x9e},             /* SMBASE */
    {0xce, 0xce},             /* platform information */
    {0xe1, 0xe1},             /* UMWAIT control */
    {0x10a, 0x10a},           /* ARCH_CAPABILITIES */
    {0x122, 0x122},           /* TSX control */
    {0x140, 0x140},           /* MISC_FEATURES_ENABLES */
    {0x174, 0x176},           /* SYSENTER */
    {0x17a, 0x17b},           /* machine check status and control */
    {0x1a0, 0x1a0},           /* MISC_ENABLE */
    {0x1cc, 0x1d4},           /* FRED */
    {0x1d9, 0x1d9},           /* DEBUGCTL */
    {0x1fc, 0x1fc},           /* POWER_CTL */
    {0x200, 0x20f},           /* variable MTRRs */
    {0x250, 0x250},           /* fixed MTRRs ... */
    {0x258, 0x259},           /* ... */
    {0x268, 0x26f},           /* ... */
    {0x277, 0x277},           /* PAT */
    {0x2ff, 0x2ff},           /* default memory type */
    {0x400, 0x47f},           /* machine check banks */
    {0x4d0, 0x4d0},           /* machine check extended control */
    {0x6a0, 0x6a0},           /* user shadow stacks ... */
    {0x6a2, 0x6a2},           /* supervisor's */
    {0x6a4, 0x6a8},           /* shadow stack pointers */
    {0xd90, 0xd90},           /* bound registers' configuration */
    {0xda0, 0xda0},           /* XSS */
    {0xc0000081, 0xc0000084}, /* STAR, LSTAR, CSTAR, SYSCALL mask */
    {0xc0000102, 0xc0000103}, /* kernel GS base, TSC_AUX */
    {0xc0010015, 0xc0010015}, /* AMD hardware configuration */
    {0xc0010114, 0xc0010114}, /* VM_CR, which a guest without SVM may write */
    {0xc0010117, 0xc0010117}, /* VM_HSAVE_PA, likewise */
    {0xc001011f, 0xc001011f}, /* AMD virtual SPEC_CTRL */
    {0x4b564d01, 0x4b564d08}, /* KVM: system time, end of interrupt, ... */
    {MSR_TSC_DEADLINE, MSR_TSC_DEADLINE},
};

static bool is_allowed(uint32_t index)
{
    for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
        if (index >= allowed[i].first && index <= allowed[i].last)
            return true;
    return false;
}

/* ---- KVM's array ---- */

static struct kvm_msrs *msrs_alloc(uint32_t count)
{
    struct kvm_msrs *msrs =
        calloc(1, sizeof(*msrs) + count * sizeof(struct kvm_msr_entry));

    if (msrs)
        msrs->nmsrs = count;
    return msrs;
}

/*
 * KVM stops at the first MSR it does not take and tells how many came before.
 * These go on with one entry: 1 if it took it, 0 if not, or -errno.
 */
static int one_msr(int vcpu_fd, unsigned long request,
                   struct kvm_msr_entry *entry)
{
    _Alignas(struct kvm_msrs)
        uint8_t buf[sizeof(struct kvm_msrs) + sizeof(*entry)] = {0};
    struct kvm_msrs *msrs = (struct kvm_msrs *)(void *)buf;
    int ret;

    msrs->nmsrs = 1;
    memcpy(msrs->entries, entry, sizeof(*entry));
    ret = kvm_ioctl(vcpu_fd, request, msrs);
    memcpy(entry, msrs->entries, sizeof(*entry));
    return ret;
}

/* ---- the list ---- */

/* It is there, and takes the value it has. */
static bool can_be_state(int vcpu_fd, uint32_t index)
{
    struct kvm_msr_entry entry = {.index = index};

    if (one_msr(vcpu_fd, KVM_GET_MSRS, &entry) != 1)
        return false;
    if (index == MSR_TSC || index == MSR_TSC_DEADLINE)
        return true; /* setting these, too, would change them */
    return one_msr(vcpu_fd, KVM_SET_MSRS, &entry) == 1;
}

int msr_list_probe(int vcpu_fd, struct msr_list *ret_list)
{
    ret_list->count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
        for (uint32_t index = allowed[i].first; index <= allowed[i].last;
             index++) {
            if (!can_be_state(vcpu_fd, index))
                continue;
            if (ret_list->count == MSR_STATE_MAX)
                return -E2BIG;
            ret_list->index[ret_list->count++] = index;
        }
    return ret_list->count > 0 ? 0 : -EOPNOTSUPP;
}

bool msr_list_covers(const struct msr_list *list, const struct msr_list *all,
                     uint32_t *ret_missing)
{
    for (uint32_t i = 0, k; i < all->count; i++) {
        for (k = 0; k < list->count && list->index[k] != all->index[i]; k++)
            ;
        if (k == list->count) {
            *ret_missing = all->index[i];
            return false;
        }
    }
    return true;
}

/* ---- saving ---- */

/*
 * A deadline of 0 means that none is set, or that it has passed and its
 * interrupt is on its way: as one that passes now it is not lost, and a kernel
 * takes an early interrupt of its timer for what it is.
 */
static void fix_deadline(struct kvm_msrs *msrs)
{
    uint64_t tsc = 0;

    for (uint32_t i = 0; i < msrs->nmsrs; i++) {
        if (msrs->entries[i].index == MSR_TSC)
            tsc = msrs->entries[i].data;
        if (msrs->entries[i].index == MSR_TSC_DEADLINE &&
            msrs->entries[i].data == 0)
            msrs->entries[i].data = tsc;
    }
}

int msr_state_save(int vcpu_fd, const struct msr_list *list,
                   struct state_writer *w)
{
    struct kvm_msrs *msrs = msrs_alloc(list->count);
    int ret;

    if (!msrs)
        return -ENOMEM;
    for (uint32_t i = 0; i < list->count; i++)
        msrs->entries[i].index = list->index[i];
    ret = kvm_ioctl(vcpu_fd, KVM_GET_MSRS, msrs);
    if (ret >= 0 && (uint32_t)ret != list->count)
        ret = -EIO; /* one that was there is gone */
    if (ret >= 0) {
        fix_deadline(msrs);
        for (uint32_t i = 0; i < list->count; i++) {
            state_put_u32(w, msrs->entries[i].index);
            state_put_u64(w, msrs->entries[i].data);
        }
    }
    free(msrs);
    return ret < 0 ? ret : 0;
}

/* ---- loading ---- */

static int read_entries(struct msr_list *list, struct state_reader *r,
                        struct kvm_msrs *msrs, char why[STATE_WHY_MAX + 1])
{
    bool first = list->count == 0;

    if (!first && list->count != msrs->nmsrs) {
        snprintf(why, STATE_WHY_MAX + 1, "its vCPUs have different MSRs");
        return -EBADMSG;
    }
    for (uint32_t i = 0; i < msrs->nmsrs; i++) {
        struct kvm_msr_entry *e = &msrs->entries[i];

        e->index = state_get_u32(r);
        e->data = state_get_u64(r);
        if (first)
            list->index[i] = e->index;
        if (!is_allowed(e->index)) {
            snprintf(why, STATE_WHY_MAX + 1,
                     "MSR 0x%x is not a machine's state", e->index);
            return -EBADMSG;
        }
        if (list->index[i] != e->index) {
            snprintf(why, STATE_WHY_MAX + 1, "its vCPUs have different MSRs");
            return -EBADMSG;
        }
    }
    list->count = msrs->nmsrs;
    return 0;
}

/* KVM did not take it. That is no matter if it has this value already. */
static int tolerate(int vcpu_fd, const struct kvm_msr_entry *wanted,
                    char why[STATE_WHY_MAX + 1])
{
    struct kvm_msr_entry entry = {.index = wanted->index};

    if (one_msr(vcpu_fd, KVM_GET_MSRS, &entry) == 1 &&
        entry.data == wanted->data)
        return 0;
    snprintf(why, STATE_WHY_MAX + 1, "this KVM does not take MSR 0x%x = 0x%llx",
             wanted->index, wanted->data);
    return -EOPNOTSUPP;
}

static int set_all(int vcpu_fd, struct kvm_msrs *msrs,
                   char why[STATE_WHY_MAX + 1])
{
    uint32_t left = msrs->nmsrs;
    int ret;

    while (left > 0) {
        ret = kvm_ioctl(vcpu_fd, KVM_SET_MSRS, msrs);
        if (ret < 0) {
            snprintf(why, STATE_WHY_MAX + 1, "KVM_SET_MSRS: %s",
                     strerror(-ret));
            return ret;
        }
        left -= (uint32_t)ret;
        if (left == 0)
            break;
        ret = tolerate(vcpu_fd, &msrs->entries[msrs->nmsrs - left], why);
        if (ret < 0)
            return ret;
        left--;
        memmove(msrs->entries, &msrs->entries[msrs->nmsrs - left],
                left * sizeof(msrs->entries[0]));
        msrs->nmsrs = left;
    }
    return 0;
}

int msr_state_forget(int vcpu_fd)
{
    const struct kvm_msr_entry entries[] = {
        {.index = MSR_TSC, .data = 1ull << 62},
        {.index = MSR_KVM_WALL_CLOCK_OLD},
        {.index = MSR_KVM_WALL_CLOCK},
    };
    struct kvm_msrs *msrs = msrs_alloc(ARRAY_SIZE(entries));
    int ret;

    if (!msrs)
        return -ENOMEM;
    memcpy(msrs->entries, entries, sizeof(entries));
    ret = kvm_ioctl(vcpu_fd, KVM_SET_MSRS, msrs);
    free(msrs);
    return ret < 0 ? ret : 0;
}

int msr_state_load(int vcpu_fd, struct msr_list *list, struct state_reader *r,
                   char ret_why[STATE_WHY_MAX + 1])
{
    size_t size = sizeof(uint32_t) + sizeof(uint64_t);
    size_t count = (r->size - r->used) / size;
    struct kvm_msrs *msrs;
    int ret;

    if (count == 0 || count > MSR_STATE_MAX) {
        snprintf(ret_why, STATE_WHY_MAX + 1, "it has %zu MSRs", count);
        return -EBADMSG;
    }
    msrs = msrs_alloc((uint32_t)count);
    if (!msrs) {
        snprintf(ret_why, STATE_WHY_MAX + 1, "out of memory");
        return -ENOMEM;
    }
    ret = read_entries(list, r, msrs, ret_why);
    if (ret == 0)
        ret = set_all(vcpu_fd, msrs, ret_why);
    free(msrs);
    return ret;
}
