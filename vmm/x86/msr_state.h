/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model-specific registers of a vCPU that are state: which, and their
 * saving and loading. A list of ours: what KVM offers beyond it is hidden from
 * guests (performance counters, nested virtualisation), lies in other registers
 * (EFER, FS and GS base, APIC base: SREGS), or is no state.
 *
 * A machine has one list for all its vCPUs and keeps it: what a restored one
 * was given is what it saves again, on whichever kernel.
 */
#ifndef MICROSBX_VMM_X86_MSR_STATE_H
#define MICROSBX_VMM_X86_MSR_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/codec.h"
#include "vmm/state_file.h"

#define MSR_STATE_MAX 384u

struct msr_list {
    uint32_t count; /* 0: not known yet */
    uint32_t index[MSR_STATE_MAX];
    /* What this KVM says of its CPUs, before a state says otherwise. */
    bool asked;
    uint64_t platform_info, arch_capabilities;
};

/* MSRs first .. last; none if last is less. */
struct msr_range {
    uint32_t first, last;
};

/*
 * The i-th range of those that are saved and that a guest may write, if all of
 * it is; false behind the last.
 */
bool msr_state_writable(size_t i, struct msr_range *ret_range);

/*
 * Fills the list with what this vCPU has of ours and lets be set. 0 or -errno.
 * Pre: the vCPU has its CPUID.
 */
int msr_list_probe(int vcpu_fd, struct msr_list *ret_list)
    __attribute__((warn_unused_result));

/* True if a state with this list has all of those; else the first without. */
bool msr_list_covers(const struct msr_list *list, const struct msr_list *all,
                     uint32_t *ret_missing);

/* Pairs of u32 index and u64 value, of every MSR in the list. 0 or -errno. */
int msr_state_save(int vcpu_fd, const struct msr_list *list,
                   struct state_writer *w) __attribute__((warn_unused_result));

/*
 * Before a state is loaded, by vCPU 0: the TSC is far from every value that may
 * come. KVM takes a write of it that comes within a second of guest time of the
 * last one (kvm_synchronize_tsc), be it of a short run or the 0 of a new vCPU,
 * for a vCPU that catches up, and would keep what was counted. The last order
 * to write the wall clock is forgotten, too. 0 or -errno.
 */
int msr_state_forget(int vcpu_fd) __attribute__((warn_unused_result));

/*
 * Before a LAPIC is loaded into a vCPU that ran: no deadline of the TSC, which
 * that would find in the past and interrupt for. 0 or -errno.
 */
int msr_state_clear_deadline(int vcpu_fd) __attribute__((warn_unused_result));

/*
 * The opposite. An empty list is filled with what is in the state; otherwise
 * the state must have exactly those. 0; -EBADMSG for an MSR that is none of
 * ours, another list, or a value that no guest of this machine comes to;
 * -EOPNOTSUPP for what this host's CPU has not; -errno of KVM, for one it does
 * not take. The reason is a clause.
 */
int msr_state_load(int vcpu_fd, struct msr_list *list, struct state_reader *r,
                   char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));

#endif
