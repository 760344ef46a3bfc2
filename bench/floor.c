/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor below every restore: a program that makes only the calls nobody can
 * avoid, in the order that is fastest (memory slot before the irqchip), until a
 * guest whose registers and memory it was given has done its first OUT.
 *
 *   floor MEMORY_FILE RIP CR3     prints a line per step, "name ns", each the
 *                                 time from exec until that step was done
 *   floor NS BYTES RIP CR3        the second half of that: memory file on
 *                                 descriptor 3; a byte on standard output at
 *                                 the OUT, then the lines
 *
 * No devices, no interrupts routed, no CPUID, one thread, nothing checked that
 * could be checked later. It is a yardstick, not a monitor.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_FD 3
#define SERIAL_PORT 0x3f8u

enum step {
    MAIN, /* the kernel has loaded this program */
    OPEN_KVM,
    CREATE_VM,
    MAP_MEMORY,
    ADD_SLOT,
    CREATE_IRQCHIP,
    CREATE_VCPU,
    SET_REGISTERS,
    FIRST_OUT,
    STEPS
};
static const char *const names[STEPS] = {
    "exec_ns",    "open_kvm_ns", "create_vm_ns", "map_ns", "slot_ns",
    "irqchip_ns", "vcpu_ns",     "registers_ns", "out_ns",
};
static uint64_t done[STEPS];

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* The result of a call, or the end. */
static int check(int result, enum step step)
{
    if (result < 0)
        die(names[step]);
    done[step] = now_ns();
    return result;
}

static void *map(size_t size, int flags, int fd)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

    if (at == MAP_FAILED)
        die("mmap");
    return at;
}

/* 64-bit mode, flat segments, interrupts off: as every bare guest is. */
static int set_registers(int vcpu, uint64_t rip, uint64_t cr3)
{
    struct kvm_segment code = {.limit = ~0u,
                               .selector = 0x10,
                               .type = 11,
                               .present = 1,
                               .s = 1,
                               .g = 1,
                               .l = 1};
    struct kvm_segment data = {.limit = ~0u,
                               .selector = 0x18,
                               .type = 3,
                               .present = 1,
                               .s = 1,
                               .g = 1,
                               .db = 1};
    struct kvm_sregs sregs = {
        .cs = code,
        .ds = data,
        .es = data,
        .fs = data,
        .gs = data,
        .ss = data,
        .tr = {.limit = 0xffff, .type = 11, .present = 1},
        .ldt = {.limit = 0xffff, .type = 2, .present = 1},
        .cr0 = 0x80000011,
        .cr3 = cr3,
        .cr4 = 0x20,
        .efer = 0x500,
        .apic_base = 0xfee00900,
    };
    struct kvm_regs regs = {
        .rip = rip, .rax = '!', .rdx = SERIAL_PORT, .rflags = 2};

    if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0)
        return -1;
    return ioctl(vcpu, KVM_SET_REGS, &regs);
}

/* Runs the vCPU until its first OUT to the serial port. */
static int run_to_out(int vcpu, const struct kvm_run *run)
{
    if (ioctl(vcpu, KVM_RUN, 0) < 0)
        return -1;
    return run->exit_reason == KVM_EXIT_IO && run->io.port == SERIAL_PORT ? 0
                                                                          : -1;
}

static void run_machine(size_t bytes, uint64_t rip, uint64_t cr3)
{
    struct kvm_userspace_memory_region slot = {.memory_size = bytes};
    int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), OPEN_KVM);
    int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), CREATE_VM);
    const struct kvm_run *run;
    int vcpu;

    slot.userspace_addr =
        (uintptr_t)map(bytes, MAP_PRIVATE | MAP_NORESERVE, MEMORY_FD);
    check(0, MAP_MEMORY);
    check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), ADD_SLOT);
    check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), CREATE_IRQCHIP);
    vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), CREATE_VCPU);
    run = map(sizeof(*run), MAP_SHARED, vcpu);
    check(set_registers(vcpu, rip, cr3), SET_REGISTERS);
    check(run_to_out(vcpu, run), FIRST_OUT);
}

/* The first half: opens the file, and starts this program anew. */
static void exec_self(char **argv)
{
    char ns[24], bytes[24];
    char *const again[] = {argv[0], ns, bytes, argv[2], argv[3], NULL};
    int fd = open(argv[1], O_RDONLY);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || dup2(fd, MEMORY_FD) < 0)
        die(argv[1]);
    snprintf(bytes, sizeof(bytes), "%lld", (long long)st.st_size);
    snprintf(ns, sizeof(ns), "%" PRIu64, now_ns());
    execv("/proc/self/exe", again);
    die("execv");
}

int main(int argc, char **argv)
{
    uint64_t began;

    done[MAIN] = now_ns();
    if (argc == 4)
        exec_self(argv);
    if (argc != 5) {
        fprintf(stderr, "usage: floor MEMORY_FILE RIP CR3\n");
        return 2;
    }
    began = strtoull(argv[1], NULL, 0);
    run_machine(strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0),
                strtoull(argv[4], NULL, 0));
    if (write(STDOUT_FILENO, "!", 1) != 1)
        return 1;
    for (int i = 0; i < STEPS; i++)
        printf("%s%s %" PRIu64, i > 0 ? "\n" : "", names[i], done[i] - began);
    printf("\n");
    return 0;
}
