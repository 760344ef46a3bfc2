/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few things every user of KVM in this folder needs: an ioctl that returns
 * -errno, and the list of capabilities without which no machine is built.
 */
#ifndef MICROSBX_VMM_KVM_H
#define MICROSBX_VMM_KVM_H

#include <stddef.h>

#include "vmm/monitor_proto.h"

/* An ioctl repeated on EINTR: its value, or a negative errno. */
int kvm_ioctl(int fd, unsigned long request, void *arg);
/* The same for ioctls whose argument is a number. */
int kvm_ioctl_value(int fd, unsigned long request, unsigned long value);

/* KVM_CHECK_EXTENSION: 0 if absent or unknown, else its (positive) value. */
int kvm_extension(int fd, int capability);

/* Needed capabilities that /dev/kvm does not have; names are constants. */
struct kvm_missing {
    unsigned count;
    const char *names[PROBE_MISSING_MAX];
};

/* Name i of the list of needed capabilities; NULL behind the last. */
const char *kvm_needed_name(unsigned i);

/*
 * Checks the API version and every needed capability. Returns 0; -ENOTTY if
 * kvm_fd is not KVM; -EPROTO for another API version; -EOPNOTSUPP with
 * *ret_missing filled.
 */
int kvm_check(int kvm_fd, struct kvm_missing *ret_missing)
    __attribute__((warn_unused_result));

/*
 * KVM_CREATE_VM. Only the process that made a VM may use it, so the monitor
 * makes it itself and never forks. Returns the descriptor or -errno.
 */
int kvm_create_vm(int kvm_fd) __attribute__((warn_unused_result));

/* A vCPU's descriptor and its shared page. */
struct kvm_run;
struct kvm_vcpu {
    int fd;              /* owned; -1 = none */
    struct kvm_run *run; /* owned mapping of run_size bytes */
    size_t run_size;
};

/* KVM_CREATE_VCPU and its mapping: 0 or -errno, then nothing is left open. */
int kvm_vcpu_open(struct kvm_vcpu *vcpu, int kvm_fd, int vm_fd, unsigned id)
    __attribute__((warn_unused_result));
/* Accepts one that is not open. */
void kvm_vcpu_close(struct kvm_vcpu *vcpu);

#endif
