/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether guests of this KVM can switch on extended state (XSAVE, AVX). Where
 * they cannot, both must be hidden from them: a kernel that sets XCR0 and finds
 * it unchanged warns and misjudges the size of its save areas.
 */
#ifndef MICROSBX_VMM_X86_XCR0_H
#define MICROSBX_VMM_X86_XCR0_H

#include <stdbool.h>

/*
 * On hardware: yes, without a test. Under another hypervisor, where this KVM is
 * itself a guest of emulation, a tiny guest tries it, with this CPUID table
 * (which offers XSAVE). Single-threaded.
 */
struct kvm_cpuid2;
bool xcr0_works(int kvm_fd, struct kvm_cpuid2 *cpuid);

#endif
