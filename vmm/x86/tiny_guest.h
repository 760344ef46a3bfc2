/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual machine of 64 KiB that runs a few bytes of code in 64-bit mode at
 * CPL 0 and answers by one OUT: how we find out what a KVM can really do, as
 * opposed to what it says. Its code is ours, so nothing in it is hostile; but a
 * KVM may fail in any way, and no run lasts longer than it was given.
 *
 * Uses SIGALRM and the process's real-time interval timer: single-threaded
 * callers only, and only before a machine is built.
 */
#ifndef MICROSBX_VMM_X86_TINY_GUEST_H
#define MICROSBX_VMM_X86_TINY_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where things are, for the code that runs in it. */
#define TINY_GUEST_CODE 0x8000u
#define TINY_GUEST_DATA 0xa000u /* zeroed, aligned to a page, 4 KiB */
#define TINY_GUEST_PORT 0x99u   /* OUT EAX here is the answer */
#define TINY_GUEST_CODE_MAX 256u

struct kvm_cpuid2;

struct tiny_guest_run {
    struct kvm_cpuid2 *cpuid; /* borrowed: what it sees */
    const uint8_t *code;      /* starts at TINY_GUEST_CODE, RDI = data */
    size_t code_len;          /* at most TINY_GUEST_CODE_MAX */
    uint16_t int3_offset;     /* offset of the handler of INT3; 0 = none */
    bool xsave;               /* set CR4.OSXSAVE */
    uint32_t timeout_ms;
};

struct tiny_guest_result {
    bool answered; /* an OUT to our port came in time */
    bool timed_out;
    uint32_t answer;     /* EAX of the OUT */
    uint64_t rax;        /* at the end, however it ended */
    uint64_t xcr0;       /* as KVM has it at the end; 0 if it cannot say */
    uint64_t elapsed_ns; /* within KVM_RUN */
};

/* 0, or the -errno of the ioctl that kept it from running. */
int tiny_guest_run(int kvm_fd, const struct tiny_guest_run *run,
                   struct tiny_guest_result *ret_result)
    __attribute__((warn_unused_result));

#endif
