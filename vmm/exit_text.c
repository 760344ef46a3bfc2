/* SPDX-License-Identifier: Apache-2.0 */
/* Words for failed exits; see the header. */
#include "vmm/exit_text.h"

#include <inttypes.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "base/num.h"

#define INSN_BYTES_MAX 15u /* of an x86 instruction */

struct text {
    char *at;
    size_t left;
};

/* Appends; what does not fit is cut off. */
static void __attribute__((format(printf, 2, 3)))
add(struct text *t, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(t->at, t->left, format, args);
    va_end(args);
    if (n < 0)
        return;
    if ((size_t)n >= t->left)
        n = (int)t->left - 1;
    t->at += n;
    t->left -= (size_t)n;
}

/* The bytes of the instruction, if KVM reports them (KVM API, 5.35). */
static void add_instruction(struct text *t, const struct kvm_run *run)
{
    const uint64_t flag = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    uint8_t size = run->emulation_failure.insn_size;

    if (run->emulation_failure.ndata < 3 ||
        !(run->emulation_failure.flags & flag))
        return;
    add(t, ", instruction");
    for (uint8_t i = 0; i < size && i < INSN_BYTES_MAX; i++)
        add(t, " %02x", run->emulation_failure.insn_bytes[i]);
}

static void add_internal_error(struct text *t, const struct kvm_run *run)
{
    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
        add(t, "KVM cannot emulate an instruction of the guest");
        add_instruction(t, run);
        return;
    }
    add(t, "KVM internal error %u", run->internal.suberror);
    for (uint32_t i = 0; i < run->internal.ndata && i < 4; i++)
        add(t, " %#" PRIx64, (uint64_t)run->internal.data[i]);
}

static void add_registers(struct text *t, int vcpu_fd)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    if (kvm_ioctl(vcpu_fd, KVM_GET_REGS, &regs) < 0 ||
        kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return;
    add(t,
        "; rip %#" PRIx64 " cs %#x base %#" PRIx64 " cr0 %#" PRIx64
        " cr3 %#" PRIx64 " cr4 %#" PRIx64 " efer %#" PRIx64,
        (uint64_t)regs.rip, sregs.cs.selector, (uint64_t)sregs.cs.base,
        (uint64_t)sregs.cr0, (uint64_t)sregs.cr3, (uint64_t)sregs.cr4,
        (uint64_t)sregs.efer);
}

void exit_text_describe(const struct kvm_vcpu *vcpu, char *text, size_t size)
{
    const struct kvm_run *run = vcpu->run;
    struct text t = {.at = text, .left = size};

    text[0] = '\0';
    switch (run->exit_reason) {
    case KVM_EXIT_INTERNAL_ERROR:
        add_internal_error(&t, run);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        add(&t, "the CPU refused to enter the guest: hardware reason %#" PRIx64,
            (uint64_t)run->fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_SHUTDOWN:
        /* No registers: on AMD, KVM has reset the vCPU by now. */
        add(&t, "triple fault");
        return;
    default:
        add(&t, "KVM exit reason %u is not one of ours", run->exit_reason);
        break;
    }
    add_registers(&t, vcpu->fd);
}
