/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's registers at power-on of our machine: the boot CPU in 64-bit mode at
 * the kernel's entry point (Linux x86 boot protocol, 64-bit entry), the others
 * as KVM leaves them, waiting for INIT and SIPI.
 */
#ifndef MICROSBX_VMM_X86_CPU_STATE_H
#define MICROSBX_VMM_X86_CPU_STATE_H

#include "vmm/x86/boot.h"

/*
 * What every vCPU needs before it first runs: MSRs, and NMI on LINT1. Pre: the
 * VM has its irqchip, the vCPU its CPUID. 0 or -errno.
 */
int cpu_state_init(int vcpu_fd) __attribute__((warn_unused_result));

/*
 * Registers of the boot CPU: flat segments from the guest's GDT, paging on,
 * interrupts off. Pre: the tables are in guest memory.
 */
int cpu_state_set_entry(int vcpu_fd, const struct boot_entry *entry)
    __attribute__((warn_unused_result));

/* Masks both in-kernel 8259s: they wake up with every line open. */
int cpu_state_mask_pic(int vm_fd) __attribute__((warn_unused_result));

#endif
