/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest reads from CPUID: what this KVM supports, minus nested
 * virtualisation, performance counters and whatever else a guest must not have,
 * plus KVM's own leaves from an allow-list and each vCPU's place in the
 * topology (one socket, one thread per core, APIC id = vCPU index).
 */
#ifndef MICROSBX_VMM_X86_CPUID_H
#define MICROSBX_VMM_X86_CPUID_H

#include <stdbool.h>
#include <stdint.h>

/* Entries of struct kvm_cpuid2 we make room for; Linux 6.1 uses about 60. */
#define CPUID_ENTRIES_MAX 256u

struct kvm_cpuid2;

struct cpuid_options {
    uint32_t cpu_count;
    bool tsc_deadline; /* KVM_CAP_TSC_DEADLINE_TIMER */
    bool hide_rdrand;  /* neither RDRAND nor RDSEED */
    bool xsave;        /* XCR0 can be changed; else XSAVE and AVX are hidden */
};

/* KVM_GET_SUPPORTED_CPUID (free() it): 0 or -errno. */
int cpuid_get_supported(int kvm_fd, struct kvm_cpuid2 **ret_cpuid)
    __attribute__((warn_unused_result));

/* A copy with room for CPUID_ENTRIES_MAX entries (free() it), or NULL. */
struct kvm_cpuid2 *cpuid_copy(const struct kvm_cpuid2 *cpuid);

/*
 * Makes the table of this machine's vCPUs out of what KVM supports. Entries are
 * those of vCPU 0 until cpuid_set_vcpu(). 0, -EOPNOTSUPP or -E2BIG.
 */
int cpuid_prepare(struct kvm_cpuid2 *cpuid, const struct cpuid_options *options)
    __attribute__((warn_unused_result));

/* Writes the APIC id of one vCPU into the leaves that carry it. */
void cpuid_set_vcpu(struct kvm_cpuid2 *cpuid, uint32_t apic_id);

/*
 * A new vCPU, before it has its table: KVM obeys no paravirtual MSR and no
 * hypercall whose feature the table does not offer. 0 or -errno.
 */
int cpuid_enforce(int vcpu_fd) __attribute__((warn_unused_result));

/* One register (EAX 0, EBX 1, ECX 2, EDX 3) of a leaf; 0 if it is not there. */
uint32_t cpuid_word(const struct kvm_cpuid2 *cpuid, uint32_t function,
                    uint32_t index, unsigned reg);

/* True if the table offers SVM or VMX. */
bool cpuid_offers_nested(const struct kvm_cpuid2 *cpuid);
/* True if the table offers XSAVE. */
bool cpuid_offers_xsave(const struct kvm_cpuid2 *cpuid);

#endif
