/* SPDX-License-Identifier: Apache-2.0 */
/* A virtual machine of 64 KiB; see the header. */
#include "vmm/x86/tiny_guest.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "base/io.h"
#include "base/num.h"
#include "vmm/kvm.h"
#include "vmm/x86/cpu_state.h"
#include "vmm/x86/map.h"

#define MEMORY_SIZE 0x10000u
#define PML4 0x1000u
#define PDPT 0x2000u
#define PD 0x3000u
#define IDT 0x4000u
#define GDT 0x5000u
#define STACK_TOP 0xff00u

#define PAGE_PRESENT_WRITE 3u
#define PAGE_HUGE 0x80u

#define RFLAGS_IF 0x200u

#define CR4_OSFXSR ((uint64_t)1 << 9)
#define CR4_OSXSAVE ((uint64_t)1 << 18)

#define INT3_VECTOR 3u

struct tiny_guest {
    int vm_fd;
    struct kvm_vcpu vcpu;
    uint8_t *memory;
};

static void tiny_guest_free(struct tiny_guest *guest)
{
    kvm_vcpu_close(&guest->vcpu);
    io_close(&guest->vm_fd);
    if (guest->memory)
        munmap(guest->memory, MEMORY_SIZE);
}

/* A 64-bit interrupt gate to code segment 0x10, DPL 0. */
static void put_gate(uint8_t *gate, uint32_t target)
{
    num_put_le16(gate, (uint16_t)target);
    num_put_le16(gate + 2, 0x10);
    num_put_le16(gate + 4, 0x8e00);
    num_put_le16(gate + 6, (uint16_t)(target >> 16));
}

/* Page tables (identity, one huge page), GDT, IDT and the code. */
static void fill_memory(uint8_t *memory, const struct tiny_guest_run *run)
{
    num_put_le64(memory + PML4, PDPT | PAGE_PRESENT_WRITE);
    num_put_le64(memory + PDPT, PD | PAGE_PRESENT_WRITE);
    num_put_le64(memory + PD, PAGE_PRESENT_WRITE | PAGE_HUGE);
    num_put_le64(memory + GDT + 0x10, 0x00af9b000000ffffull); /* code */
    num_put_le64(memory + GDT + 0x18, 0x00cf93000000ffffull); /* data */
    if (run->int3_offset != 0)
        put_gate(memory + IDT + 16 * INT3_VECTOR,
                 TINY_GUEST_CODE + run->int3_offset);
    memcpy(memory + TINY_GUEST_CODE, run->code, run->code_len);
}

static int add_memory(struct tiny_guest *guest,
                      const struct tiny_guest_run *run)
{
    struct kvm_userspace_memory_region slot = {.memory_size = MEMORY_SIZE};
    void *memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return -errno;
    guest->memory = memory;
    fill_memory(guest->memory, run);
    slot.userspace_addr = (uintptr_t)memory;
    return kvm_ioctl(guest->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot);
}

static int set_registers(int vcpu_fd, bool xsave)
{
    const struct boot_entry entry = {
        .rip = TINY_GUEST_CODE,
        .rsp = STACK_TOP,
        .cr3 = PML4,
        .gdt = GDT,
        .gdt_limit = 0x1f,
    };
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    int ret = cpu_state_set_entry(vcpu_fd, &entry);

    if (ret == 0)
        ret = kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs);
    if (ret != 0)
        return ret;
    sregs.idt.base = IDT;
    sregs.idt.limit = 16 * (INT3_VECTOR + 1) - 1;
    sregs.cr4 |= CR4_OSFXSR | (xsave ? CR4_OSXSAVE : 0);
    ret = kvm_ioctl(vcpu_fd, KVM_SET_SREGS, &sregs);
    if (ret == 0)
        ret = kvm_ioctl(vcpu_fd, KVM_GET_REGS, &regs);
    if (ret != 0)
        return ret;
    regs.rdi = TINY_GUEST_DATA;
    /*
     * No device here interrupts it. But for Bochs' emulation of VT-x, a guest
     * that closes itself to interrupts closes the host to them, too: one that
     * does not end would never be interrupted.
     */
    regs.rflags |= RFLAGS_IF;
    return kvm_ioctl(vcpu_fd, KVM_SET_REGS, &regs);
}

static int tiny_guest_init(struct tiny_guest *guest, int kvm_fd,
                           const struct tiny_guest_run *run)
{
    uint64_t identity = MAP_KVM_IDENTITY;
    int ret;

    *guest = (struct tiny_guest){.vm_fd = -1, .vcpu = {.fd = -1}};
    ret = kvm_create_vm(kvm_fd);
    if (ret < 0)
        return ret;
    guest->vm_fd = ret;
    ret = kvm_ioctl(guest->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    if (ret == 0)
        ret = kvm_ioctl_value(guest->vm_fd, KVM_SET_TSS_ADDR, MAP_KVM_TSS);
    if (ret == 0)
        ret = add_memory(guest, run);
    if (ret == 0)
        ret = kvm_vcpu_open(&guest->vcpu, kvm_fd, guest->vm_fd, 0);
    if (ret == 0)
        ret = kvm_ioctl(guest->vcpu.fd, KVM_SET_CPUID2, run->cpuid);
    if (ret == 0)
        ret = set_registers(guest->vcpu.fd, run->xsave);
    if (ret != 0)
        tiny_guest_free(guest);
    return ret;
}

static void ignore_signal(int signal_number)
{
    (void)signal_number;
}

/*
 * Interrupts KVM_RUN when the time is over. The timer goes on ticking, so that
 * a tick that falls just before KVM_RUN is followed by another.
 */
static int timer_start(uint32_t timeout_ms)
{
    const struct sigaction action = {.sa_handler = ignore_signal};
    const struct timeval value = {.tv_sec = timeout_ms / 1000,
                                  .tv_usec = (timeout_ms % 1000) * 1000};
    const struct itimerval timer = {.it_interval = value, .it_value = value};

    if (sigaction(SIGALRM, &action, NULL) < 0 ||
        setitimer(ITIMER_REAL, &timer, NULL) < 0)
        return -errno;
    return 0;
}

static void timer_stop(void)
{
    const struct itimerval none = {0};

    (void)setitimer(ITIMER_REAL, &none, NULL);
    (void)signal(SIGALRM, SIG_DFL);
}

static bool is_answer(const struct kvm_run *run)
{
    return run->exit_reason == KVM_EXIT_IO &&
           run->io.direction == KVM_EXIT_IO_OUT && run->io.size == 4 &&
           run->io.count == 1 && run->io.port == TINY_GUEST_PORT;
}

/*
 * Runs until an exit of any kind or the end of the time. 0, or -EAGAIN if KVM
 * did not run it at all: the host had no thread for it.
 */
static int run_once(struct tiny_guest *guest, uint32_t timeout_ms,
                    struct tiny_guest_result *result)
{
    struct kvm_run *run = guest->vcpu.run;
    uint64_t start = io_now_ns();
    int ret;

    do {
        ret = ioctl(guest->vcpu.fd, KVM_RUN, 0) < 0 ? -errno : 0;
        result->elapsed_ns = io_now_ns() - start;
        result->timed_out =
            result->elapsed_ns >= (uint64_t)timeout_ms * 1000000u;
    } while ((ret == -EINTR || ret == -EAGAIN) && !result->timed_out);
    if (ret == 0 && is_answer(run)) {
        result->answered = true;
        result->answer = num_get_le32((uint8_t *)run + run->io.data_offset);
    }
    return ret == -EAGAIN ? ret : 0;
}

static void read_registers(const struct tiny_guest *guest,
                           struct tiny_guest_result *result)
{
    struct kvm_regs regs;
    struct kvm_xcrs xcrs = {0};

    if (kvm_ioctl(guest->vcpu.fd, KVM_GET_REGS, &regs) == 0)
        result->rax = regs.rax;
    if (kvm_ioctl(guest->vcpu.fd, KVM_GET_XCRS, &xcrs) == 0 && xcrs.nr_xcrs > 0)
        result->xcr0 = xcrs.xcrs[0].value;
}

int tiny_guest_run(int kvm_fd, const struct tiny_guest_run *run,
                   struct tiny_guest_result *ret_result)
{
    struct tiny_guest_result result = {0};
    struct tiny_guest guest;
    int ret;

    if (run->code_len > TINY_GUEST_CODE_MAX)
        return -EINVAL;
    ret = tiny_guest_init(&guest, kvm_fd, run);
    if (ret != 0)
        return ret;
    ret = timer_start(run->timeout_ms);
    if (ret == 0) {
        ret = run_once(&guest, run->timeout_ms, &result);
        timer_stop();
        read_registers(&guest, &result);
    }
    if (ret == 0)
        *ret_result = result;
    tiny_guest_free(&guest);
    return ret;
}
