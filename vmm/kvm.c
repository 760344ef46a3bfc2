/* SPDX-License-Identifier: Apache-2.0 */
/* KVM's front door; see the header. */
#include "vmm/kvm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "base/io.h"
#include "base/num.h"

/* The API has been version 12 since 2007; anything else is not for us. */
#define API_VERSION 12

static const struct {
    int capability;
    const char *name;
} needed[] = {
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"}, /* PIC, IOAPIC, LAPIC */
    {KVM_CAP_HLT, "KVM_CAP_HLT"},         /* idle vCPUs sleep in KVM */
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"}, /* KVM_GET_SUPPORTED_CPUID */
    {KVM_CAP_NR_VCPUS, "KVM_CAP_NR_VCPUS"},
    {KVM_CAP_NR_MEMSLOTS, "KVM_CAP_NR_MEMSLOTS"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},           /* QueueNotify */
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"}, /* stop without race */
    {KVM_CAP_CHECK_EXTENSION_VM, "KVM_CAP_CHECK_EXTENSION_VM"},
    /* Without these a machine cannot be saved and loaded. */
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    {KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"},
    /* Without these a guest reaches what it is not offered (Linux 5.10). */
    {KVM_CAP_ENFORCE_PV_FEATURE_CPUID, "KVM_CAP_ENFORCE_PV_FEATURE_CPUID"},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"},
};

_Static_assert(ARRAY_SIZE(needed) <= PROBE_MISSING_MAX, "all can be named");

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
    int ret;

    do {
        ret = ioctl(fd, request, arg);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

int kvm_ioctl_value(int fd, unsigned long request, unsigned long value)
{
    int ret;

    do {
        ret = ioctl(fd, request, value);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

int kvm_extension(int fd, int capability)
{
    int ret =
        kvm_ioctl_value(fd, KVM_CHECK_EXTENSION, (unsigned long)capability);

    return ret < 0 ? 0 : ret;
}

const char *kvm_needed_name(unsigned i)
{
    return i < ARRAY_SIZE(needed) ? needed[i].name : NULL;
}

int kvm_check(int kvm_fd, struct kvm_missing *ret_missing)
{
    int version = kvm_ioctl_value(kvm_fd, KVM_GET_API_VERSION, 0);

    ret_missing->count = 0;
    if (version < 0)
        return version;
    if (version != API_VERSION)
        return -EPROTO;
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        if (kvm_extension(kvm_fd, needed[i].capability) == 0)
            ret_missing->names[ret_missing->count++] = needed[i].name;
    return ret_missing->count > 0 ? -EOPNOTSUPP : 0;
}

int kvm_create_vm(int kvm_fd)
{
    return kvm_ioctl_value(kvm_fd, KVM_CREATE_VM, 0);
}

int kvm_vcpu_open(struct kvm_vcpu *vcpu, int kvm_fd, int vm_fd, unsigned id)
{
    int size = kvm_ioctl_value(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    void *run;

    *vcpu = (struct kvm_vcpu){.fd = -1};
    if (size < 0)
        return size;
    if ((size_t)size < sizeof(struct kvm_run))
        return -EPROTO;
    vcpu->fd = kvm_ioctl_value(vm_fd, KVM_CREATE_VCPU, id);
    if (vcpu->fd < 0) {
        int ret = vcpu->fd;

        vcpu->fd = -1;
        return ret;
    }
    run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd,
               0);
    if (run == MAP_FAILED) {
        int ret = -errno;

        io_close(&vcpu->fd);
        return ret;
    }
    vcpu->run = run;
    vcpu->run_size = (size_t)size;
    return 0;
}

void kvm_vcpu_close(struct kvm_vcpu *vcpu)
{
    if (vcpu->run)
        munmap(vcpu->run, vcpu->run_size);
    vcpu->run = NULL;
    io_close(&vcpu->fd);
}
