/* SPDX-License-Identifier: Apache-2.0 */
/* Registers at power-on; see the header. Bits as in Intel's SDM, volume 3. */
#include "vmm/x86/cpu_state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/num.h"
#include "vmm/kvm.h"

#define CR0_PE ((uint64_t)1 << 0)
#define CR0_ET ((uint64_t)1 << 4)
#define CR0_PG ((uint64_t)1 << 31)
#define CR4_PAE ((uint64_t)1 << 5)
#define EFER_LME ((uint64_t)1 << 8)
#define EFER_LMA ((uint64_t)1 << 10)
#define RFLAGS_FIXED 2u

/* The boot protocol's __BOOT_CS and __BOOT_DS. */
#define BOOT_CS 0x10u
#define BOOT_DS 0x18u

#define SEGMENT_CODE 0xbu /* execute, read, accessed */
#define SEGMENT_DATA 0x3u /* read, write, accessed */

#define MSR_IA32_MISC_ENABLE 0x1a0u
#define MISC_ENABLE_FAST_STRING 1u
#define MSR_MTRR_DEF_TYPE 0x2ffu
#define MTRR_ENABLE ((uint64_t)1 << 11)
#define MTRR_WRITE_BACK 6u

#define LAPIC_LVT_LINT0 0x350u
#define LAPIC_LVT_LINT1 0x360u
#define LVT_MODE_NMI (4u << 8)
#define LVT_MODE_EXTINT (7u << 8)

static int set_msrs(int vcpu_fd)
{
    static const struct kvm_msr_entry entries[] = {
        {.index = MSR_IA32_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING},
        /* No firmware sets up memory types: all of it is write-back. */
        {.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE | MTRR_WRITE_BACK},
    };
    _Alignas(struct kvm_msrs)
        uint8_t buf[sizeof(struct kvm_msrs) + sizeof(entries)] = {0};
    struct kvm_msrs *msrs = (struct kvm_msrs *)(void *)buf;
    int ret;

    msrs->nmsrs = ARRAY_SIZE(entries);
    memcpy(msrs->entries, entries, sizeof(entries));
    ret = kvm_ioctl(vcpu_fd, KVM_SET_MSRS, msrs);
    /* The ioctl returns how many it set before the first it refused. */
    if (ret >= 0 && ret != ARRAY_SIZE(entries))
        return -EINVAL;
    return ret < 0 ? ret : 0;
}

/*
 * Virtual wire mode, as firmware leaves it: the 8259's output arrives at LINT0
 * as ExtINT (a kernel booted by device tree has its serial port there), NMI at
 * LINT1. On application CPUs an INIT resets this again, as on real ones.
 */
static int set_lapic(int vcpu_fd)
{
    struct kvm_lapic_state lapic;
    int ret = kvm_ioctl(vcpu_fd, KVM_GET_LAPIC, &lapic);

    if (ret < 0)
        return ret;
    num_put_le32(lapic.regs + LAPIC_LVT_LINT0, LVT_MODE_EXTINT);
    num_put_le32(lapic.regs + LAPIC_LVT_LINT1, LVT_MODE_NMI);
    return kvm_ioctl(vcpu_fd, KVM_SET_LAPIC, &lapic);
}

int cpu_state_init(int vcpu_fd)
{
    int ret = set_msrs(vcpu_fd);

    return ret < 0 ? ret : set_lapic(vcpu_fd);
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type)
{
    return (struct kvm_segment){
        .limit = 0xffffffffu,
        .selector = selector,
        .type = type,
        .present = 1,
        .s = 1,
        .g = 1,
        .l = type == SEGMENT_CODE,  /* 64-bit code ... */
        .db = type != SEGMENT_CODE, /* ... has no default size bit */
    };
}

static int set_sregs(int vcpu_fd, const struct boot_entry *entry)
{
    struct kvm_segment data = flat_segment(BOOT_DS, SEGMENT_DATA);
    struct kvm_sregs sregs;
    int ret = kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs);

    if (ret < 0)
        return ret;
    sregs.cs = flat_segment(BOOT_CS, SEGMENT_CODE);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt.base = entry->gdt;
    sregs.gdt.limit = entry->gdt_limit;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs.cr3 = entry->cr3;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
    return kvm_ioctl(vcpu_fd, KVM_SET_SREGS, &sregs);
}

int cpu_state_set_entry(int vcpu_fd, const struct boot_entry *entry)
{
    struct kvm_regs regs = {
        .rip = entry->rip,
        .rsi = entry->rsi,
        .rsp = entry->rsp,
        .rflags = RFLAGS_FIXED,
    };
    int ret = set_sregs(vcpu_fd, entry);

    return ret < 0 ? ret : kvm_ioctl(vcpu_fd, KVM_SET_REGS, &regs);
}

/*
 * A kernel that knows the 8259 initialises and masks it itself; one told by
 * ACPI that there is none never touches it, and an edge on a line it shares
 * with the I/O APIC would arrive twice, the second time as a bogus ExtINT.
 */
int cpu_state_mask_pic(int vm_fd)
{
    const uint32_t chips[] = {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE};

    for (size_t i = 0; i < ARRAY_SIZE(chips); i++) {
        struct kvm_irqchip chip = {.chip_id = chips[i]};
        int ret = kvm_ioctl(vm_fd, KVM_GET_IRQCHIP, &chip);

        if (ret < 0)
            return ret;
        chip.chip.pic.imr = 0xff;
        ret = kvm_ioctl(vm_fd, KVM_SET_IRQCHIP, &chip);
        if (ret < 0)
            return ret;
    }
    return 0;
}
