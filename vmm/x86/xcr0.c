/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trying XSETBV; see the header.
 *
 * The emulation of SVM by QEMU before version 10 (seen with 7.2, not with 10.0)
 * is the known case: it does not intercept XSETBV, so the guest's value never
 * reaches KVM and is gone at the next exit. KVM's ioctls cannot tell:
 * KVM_SET_XCRS and KVM_GET_XCRS agree with each other there. Only a guest that
 * sets XCR0 and exits shows whether KVM saw it. That costs a virtual machine,
 * so it is not done on hardware, where XSETBV always exits.
 */
#include "vmm/x86/xcr0.h"

#include <cpuid.h>

#include "vmm/x86/tiny_guest.h"

#define LEAF1_ECX_HYPERVISOR (1u << 31)

#define XCR0_X87_SSE 3u
#define TIMEOUT_MS 5000u /* generous: a busy host must not look like it */

static bool on_hardware(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) &&
           !(ecx & LEAF1_ECX_HYPERVISOR);
}

bool xcr0_works(int kvm_fd, struct kvm_cpuid2 *cpuid)
{
    static const uint8_t code[] = {
        0x31, 0xc9, /* xor ecx, ecx */
        0x31, 0xd2, /* xor edx, edx */
        0xb8, XCR0_X87_SSE,
        0,    0,
        0, /* mov eax, 3 */
        0x0f, 0x01,
        0xd1,                  /* xsetbv */
        0xe7, TINY_GUEST_PORT, /* out port, eax */
        0xeb, 0xfe,            /* stay here */
    };
    const struct tiny_guest_run run = {
        .code = code,
        .code_len = sizeof(code),
        .cpuid = cpuid,
        .xsave = true,
        .timeout_ms = TIMEOUT_MS,
    };
    struct tiny_guest_result result;

    if (on_hardware())
        return true;
    return tiny_guest_run(kvm_fd, &run, &result) == 0 && result.answered &&
           result.xcr0 == XCR0_X87_SSE;
}
