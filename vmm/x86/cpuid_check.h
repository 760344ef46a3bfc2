/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a host can be the CPU that a snapshot was taken on: every feature the
 * guest was told of must be one that this machine would tell of here, too.
 */
#ifndef MICROSBX_VMM_X86_CPUID_CHECK_H
#define MICROSBX_VMM_X86_CPUID_CHECK_H

#include "vmm/state_file.h"

struct kvm_cpuid2;

/*
 * Compares a saved table with the one that cpuid_prepare() makes of this host
 * with everything on. Another vendor, a leaf that this host has not, a feature
 * that it has not, extended state that lies elsewhere in memory: -EOPNOTSUPP
 * with the reason as a clause. A table that offers what no guest of ours is
 * offered (nested virtualisation, another hypervisor's leaves) is refused by
 * the same rule.
 */
int cpuid_check(const struct kvm_cpuid2 *host, const struct kvm_cpuid2 *saved,
                char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));

#endif
