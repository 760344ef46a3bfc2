/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which MSRs a guest may write at all: those that are saved (msr_state.h), and
 * a few that hold nothing. Whatever else a KVM obeys today or tomorrow, a write
 * of it is a general protection fault, so that nothing of a guest outlives its
 * trial in a register that nobody saves.
 *
 * Reads are KVM's to judge, but for its own MSRs, and for those in which a CPU
 * notes down by itself what a guest did. The filter knows nothing of
 * x2APIC registers, which KVM exempts; they are the LAPIC's, and saved with it.
 */
#ifndef MICROSBX_VMM_X86_MSR_FILTER_H
#define MICROSBX_VMM_X86_MSR_FILTER_H

#include <stdbool.h>

/*
 * Right after KVM_CREATE_VM: behind memory slots, interrupt controllers or
 * vCPUs it takes 15 ms in place of 7 us. wall_clock: the guest may ask for the
 * host's time of day by KVM's MSR. 0 or -errno.
 */
int msr_filter_set(int vm_fd, bool wall_clock)
    __attribute__((warn_unused_result));

#endif
