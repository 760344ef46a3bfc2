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
#define MSR_SMBASE 0x9eu
#define MSR_PLATFORM_INFO 0xceu
#define MSR_ARCH_CAPABILITIES 0x10au
#define MSR_KVM_WALL_CLOCK 0x4b564d00u
#define MSR_KVM_POLL_CONTROL 0x4b564d05u

#define SMBASE_RESET 0x30000u
/* Bits of ARCH_CAPABILITIES that promise nothing: RSBA, RRSBA; and one that
 * concerns guests of guests. */
#define ARCH_CAPABILITIES_FREE ((1u << 2) | (1u << 3) | (1u << 19))

/*
 * In the order in which they are loaded: the TSC first, its deadline last. Not
 * here: KVM's wall clock. What it holds is the last order to write the time to
 * an address, which loading it would give again, into memory that was just
 * restored; msr_state_forget clears it.
 */
static const struct {
    struct msr_range range;
    enum {
        GUEST,  /* the guest may write it */
        HOST,   /* it is the host's; if a guest may at all, this one may not */
        HIDDEN, /* KVM's own, not offered and never changed; in older states */
    } by;
} allowed[] = {
    {{MSR_TSC, MSR_TSC}, GUEST},
    {{0x12, 0x12}, HIDDEN},            /* KVM's old system time */
    {{0x34, 0x34}, HOST},              /* SMI count */
    {{0x3a, 0x3b}, GUEST},             /* feature control, TSC_ADJUST */
    {{0x48, 0x48}, GUEST},             /* SPEC_CTRL */
    {{0x8b, 0x8b}, GUEST},             /* microcode revision */
    {{MSR_SMBASE, MSR_SMBASE}, HOST},  /* where SMM would have its memory */
    {{0xce, 0xce}, HOST},              /* platform information */
    {{0xe1, 0xe1}, GUEST},             /* UMWAIT control */
    {{0x10a, 0x10a}, HOST},            /* ARCH_CAPABILITIES */
    {{0x122, 0x122}, GUEST},           /* TSX control */
    {{0x140, 0x140}, GUEST},           /* MISC_FEATURES_ENABLES */
    {{0x174, 0x176}, GUEST},           /* SYSENTER */
    {{0x17a, 0x17b}, GUEST},           /* machine check status and control */
    {{0x1a0, 0x1a0}, GUEST},           /* MISC_ENABLE */
    {{0x1cc, 0x1d4}, GUEST},           /* FRED */
    {{0x1d9, 0x1d9}, GUEST},           /* DEBUGCTL */
    {{0x1fc, 0x1fc}, GUEST},           /* POWER_CTL */
    {{0x200, 0x20f}, GUEST},           /* variable MTRRs */
    {{0x250, 0x250}, GUEST},           /* fixed MTRRs ... */
    {{0x258, 0x259}, GUEST},           /* ... */
    {{0x268, 0x26f}, GUEST},           /* ... */
    {{0x277, 0x277}, GUEST},           /* PAT */
    {{0x2ff, 0x2ff}, GUEST},           /* default memory type */
    {{0x400, 0x47f}, GUEST},           /* machine check banks */
    {{0x4d0, 0x4d0}, GUEST},           /* machine check extended control */
    {{0x6a0, 0x6a0}, GUEST},           /* user shadow stacks ... */
    {{0x6a2, 0x6a2}, GUEST},           /* supervisor's */
    {{0x6a4, 0x6a8}, GUEST},           /* shadow stack pointers */
    {{0xd90, 0xd90}, GUEST},           /* bound registers' configuration */
    {{0xda0, 0xda0}, GUEST},           /* XSS */
    {{0xc0000081, 0xc0000084}, GUEST}, /* STAR, LSTAR, CSTAR, SYSCALL mask */
    {{0xc0000102, 0xc0000103}, GUEST}, /* kernel GS base, TSC_AUX */
    /* Linux 6.1 does not take back what a guest has set in it. */
    {{0xc0010015, 0xc0010015}, HOST}, /* AMD hardware configuration */
    /* For guests of guests, of which there are none; a bit of the first, once
     * it is set, could not be put back. */
    {{0xc0010114, 0xc0010114}, HOST},  /* VM_CR */
    {{0xc0010117, 0xc0010117}, HOST},  /* VM_HSAVE_PA */
    {{0xc001011f, 0xc001011f}, GUEST}, /* AMD virtual SPEC_CTRL */
    {{0x4b564d01, 0x4b564d01}, GUEST}, /* KVM: system time */
    {{0x4b564d02, 0x4b564d03}, HIDDEN},
    {{0x4b564d04, 0x4b564d04}, GUEST}, /* KVM: end of interrupt */
    {{0x4b564d05, 0x4b564d08}, HIDDEN},
    {{MSR_TSC_DEADLINE, MSR_TSC_DEADLINE}, GUEST},
};

static bool is_in(uint32_t index, struct msr_range r)
{
    return index >= r.first && index <= r.last;
}

static bool is_allowed(uint32_t index)
{
    for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
        if (is_in(index, allowed[i].range))
            return true;
    return false;
}

static bool is_hidden(uint32_t index)
{
    for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
        if (allowed[i].by == HIDDEN && is_in(index, allowed[i].range))
            return true;
    return false;
}

/* What a hidden one holds, whatever the guest does. */
static uint64_t hidden_value(uint32_t index)
{
    return index == MSR_KVM_POLL_CONTROL;
}

bool msr_state_writable(size_t i, struct msr_range *ret_range)
{
    const struct msr_range none = {1, 0};

    if (i >= ARRAY_SIZE(allowed))
        return false;
    *ret_range = allowed[i].by == GUEST ? allowed[i].range : none;
    return true;
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
        for (uint32_t index = allowed[i].range.first;
             index <= allowed[i].range.last; index++) {
            if (allowed[i].by == HIDDEN || !can_be_state(vcpu_fd, index))
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

/* KVM's answers in the list's order; of what it was not asked, the value. */
static void put_entries(const struct msr_list *list,
                        const struct kvm_msrs *msrs, struct state_writer *w)
{
    const struct kvm_msr_entry *e = msrs->entries;

    for (uint32_t i = 0; i < list->count; i++) {
        bool hidden = is_hidden(list->index[i]);

        state_put_u32(w, list->index[i]);
        state_put_u64(w, hidden ? hidden_value(list->index[i]) : (e++)->data);
    }
}

int msr_state_save(int vcpu_fd, const struct msr_list *list,
                   struct state_writer *w)
{
    struct kvm_msrs *msrs = msrs_alloc(list->count);
    int ret;

    if (!msrs)
        return -ENOMEM;
    msrs->nmsrs = 0;
    for (uint32_t i = 0; i < list->count; i++)
        if (!is_hidden(list->index[i]))
            msrs->entries[msrs->nmsrs++].index = list->index[i];
    ret = kvm_ioctl(vcpu_fd, KVM_GET_MSRS, msrs);
    if (ret >= 0 && (uint32_t)ret != msrs->nmsrs)
        ret = -EIO; /* one that was there is gone */
    if (ret >= 0) {
        fix_deadline(msrs);
        put_entries(list, msrs, w);
    }
    free(msrs);
    return ret < 0 ? ret : 0;
}

/* ---- loading ---- */

static uint64_t get_one(int vcpu_fd, uint32_t index)
{
    struct kvm_msr_entry entry = {.index = index};

    return one_msr(vcpu_fd, KVM_GET_MSRS, &entry) == 1 ? entry.data : 0;
}

static void ask_properties(int vcpu_fd, struct msr_list *list)
{
    if (list->asked)
        return;
    list->platform_info = get_one(vcpu_fd, MSR_PLATFORM_INFO);
    list->arch_capabilities = get_one(vcpu_fd, MSR_ARCH_CAPABILITIES);
    list->asked = true;
}

/* What a guest may be told of its CPU: no more than this host's says. */
static int check_properties(const struct msr_list *list,
                            const struct kvm_msr_entry *e,
                            char why[STATE_WHY_MAX + 1])
{
    uint64_t beyond = 0;

    if (e->index == MSR_PLATFORM_INFO)
        beyond = e->data & ~list->platform_info;
    if (e->index == MSR_ARCH_CAPABILITIES)
        beyond = e->data &
                 ~(list->arch_capabilities | (uint64_t)ARCH_CAPABILITIES_FREE);
    if (beyond == 0)
        return 0;
    snprintf(why, STATE_WHY_MAX + 1,
             "its CPU has properties that this host's has not: MSR 0x%x, bits "
             "0x%llx",
             e->index, (unsigned long long)beyond);
    return -EOPNOTSUPP;
}

/* Values that no guest of this machine comes to. */
static int check_value(const struct msr_list *list,
                       const struct kvm_msr_entry *e,
                       char why[STATE_WHY_MAX + 1])
{
    if (is_hidden(e->index) && e->data != hidden_value(e->index)) {
        snprintf(why, STATE_WHY_MAX + 1,
                 "MSR 0x%x = 0x%llx: this machine offers no such "
                 "paravirtualisation",
                 e->index, e->data);
        return -EBADMSG;
    }
    if (e->index == MSR_SMBASE && e->data != SMBASE_RESET) {
        snprintf(why, STATE_WHY_MAX + 1,
                 "MSR 0x%x = 0x%llx: this machine has no system management "
                 "mode",
                 e->index, e->data);
        return -EBADMSG;
    }
    return check_properties(list, e, why);
}

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

static void leave_out_hidden(struct kvm_msrs *msrs)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < msrs->nmsrs; i++)
        if (!is_hidden(msrs->entries[i].index))
            msrs->entries[kept++] = msrs->entries[i];
    msrs->nmsrs = kept;
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

int msr_state_clear_deadline(int vcpu_fd)
{
    struct kvm_msr_entry entry = {.index = MSR_TSC_DEADLINE};
    int ret = one_msr(vcpu_fd, KVM_SET_MSRS, &entry);

    return ret < 0 ? ret : 0;
}

int msr_state_forget(int vcpu_fd)
{
    const struct kvm_msr_entry entries[] = {
        {.index = MSR_TSC, .data = 1ull << 62},
        /* Of a new vCPU, which has no CPUID yet, KVM takes no order. */
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
    ask_properties(vcpu_fd, list);
    ret = read_entries(list, r, msrs, ret_why);
    for (uint32_t i = 0; ret == 0 && i < msrs->nmsrs; i++)
        ret = check_value(list, &msrs->entries[i], ret_why);
    if (ret == 0) {
        leave_out_hidden(msrs);
        ret = set_all(vcpu_fd, msrs, ret_why);
    }
    free(msrs);
    return ret;
}
