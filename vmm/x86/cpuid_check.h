/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a saved CPUID table is one of ours, and whether a host can be the CPU
 * that a snapshot was taken on: every feature the guest was told of must be one
 * that this machine would tell of here, too.
 */
#ifndef MICROSBX_VMM_X86_CPUID_CHECK_H
#define MICROSBX_VMM_X86_CPUID_CHECK_H

#include "vmm/state_file.h"
#include "vmm/x86/cpuid.h"

/*
 * Is it a table that this machine could have made, by whatever host? It is, if
 * preparing it once more changes nothing: no nested virtualisation, no
 * performance counters, no hypervisor leaves but ours, this topology. options
 * as for cpuid_prepare, the timer apart. 0, -EOPNOTSUPP with the reason as a
 * clause, -ENOMEM.
 */
int cpuid_check_own(const struct kvm_cpuid2 *saved,
                    const struct cpuid_options *options,
                    char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));

/*
 * Compares a saved table with the one that cpuid_prepare() makes of this host
 * with everything on. Another vendor, a leaf that this host has not, a feature
 * that it has not, extended state that lies elsewhere in memory: -EOPNOTSUPP
 * with the reason as a clause.
 */
int cpuid_check(const struct kvm_cpuid2 *host, const struct kvm_cpuid2 *saved,
                char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));

#endif
