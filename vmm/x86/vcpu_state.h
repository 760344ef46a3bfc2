/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of one vCPU as a section of the state file ("cpu "): all that
 * KVM knows of it, in groups, in the order in which KVM takes them. One table
 * of steps serves both directions.
 *
 * The contents are the guest's and are not judged: KVM checks what would hurt
 * the host. Lengths, the set of MSRs and what CPUID offers are checked.
 */
#ifndef MICROSBX_VMM_X86_VCPU_STATE_H
#define MICROSBX_VMM_X86_VCPU_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/codec.h"
#include "vmm/state_file.h"
#include "vmm/x86/msr_state.h"

#define VCPU_STATE_VERSION 1u

struct kvm_cpuid2;

/*
 * What all vCPUs of a machine have in common, and their states therefore too.
 * Zeroed at first but for cpuid; the first save or load finds out the rest.
 */
struct vcpu_shape {
    /*
     * The table of vCPU 0 as KVM was told it; the others' have their APIC id.
     * Not what KVM_GET_CPUID2 says: KVM keeps bits in it that follow CR4, and
     * this project's own kind of host (PVM) puts in features of its own.
     */
    struct kvm_cpuid2 *cpuid; /* owned */
    uint32_t xsave_size;      /* bytes of KVM's XSAVE area; 0: not known yet */
    uint32_t tsc_khz;         /* of the state it was loaded from; 0: none */
    bool xcrs; /* the guest has XSAVE, so extended control registers */
    struct msr_list msrs;
};

/* A vCPU of a VM; borrowed. */
struct vcpu_place {
    int vm_fd;
    int vcpu_fd;
    uint32_t id;
};

/* Frees what it owns. Accepts a zeroed one. */
void vcpu_shape_fini(struct vcpu_shape *shape);

/*
 * Appends the section's payload. Pre: the vCPU is stopped with no half-done
 * access (vcpu_kick). 0, or -errno with the reason as a clause.
 */
int vcpu_state_save(const struct vcpu_place *vcpu, struct vcpu_shape *shape,
                    struct state_writer *w, char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));

/* How far a vCPU has come when its state is loaded. */
enum vcpu_age {
    VCPU_NEW, /* it never ran: CPUID and TSC frequency are its state's */
    VCPU_RAN, /* it ran with those: KVM does not take them again */
};

/*
 * Loads a payload, to its last byte. Pre: memory slots and irqchip are there.
 * 0; -EBADMSG: it is no state; -EOPNOTSUPP: not one of this host's; or another
 * -errno of KVM. The reason is a clause. After an error the vCPU must not run.
 */
int vcpu_state_load(const struct vcpu_place *vcpu, enum vcpu_age age,
                    struct vcpu_shape *shape, struct state_reader *r,
                    char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));

/*
 * The CPUID table in a payload (free() it), for a look before there is a vCPU.
 * 0, -EBADMSG or -ENOMEM.
 */
int vcpu_state_cpuid(struct state_reader r, struct kvm_cpuid2 **ret_cpuid)
    __attribute__((warn_unused_result));

#endif
