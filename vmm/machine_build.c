/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a machine comes into being; see machine.h. The order is KVM's: memory
 * slots before the in-kernel irqchip (behind it each costs milliseconds), the
 * irqchip before vCPUs, devices last.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/io.h"
#include "vmm/kvm.h"
#include "vmm/machine_internal.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/cpu_state.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/map.h"
#include "vmm/x86/msr_filter.h"
#include "vmm/x86/xcr0.h"

/* ---- what the guest does to the machine, on a vCPU's thread ---- */

static void vcpu_ended(void *ctx, enum monitor_exit_reason reason, int error,
                       const char *text)
{
    machine_end(ctx, reason, error, text);
}

/* The guest asked for the end, or told of it. */
static void control_event(void *ctx, enum control_event event)
{
    switch (event) {
    case CONTROL_EVENT_POWER_OFF:
        machine_end(ctx, MONITOR_EXIT_POWER_OFF, 0, "");
        break;
    case CONTROL_EVENT_RESET:
        machine_end(ctx, MONITOR_EXIT_RESET, 0, "");
        break;
    case CONTROL_EVENT_PANIC:
        machine_end(ctx, MONITOR_EXIT_PANIC, 0, "");
        break;
    case CONTROL_EVENT_CRASH_LOADED:
        break; /* a crash kernel takes over: the guest goes on */
    }
}

static void debug_exited(void *ctx, uint32_t status)
{
    machine_end(ctx, MONITOR_EXIT_DEBUG, (int)status, "");
}

/* ---- building ---- */

static int check_kvm(const struct machine *m, struct monitor_error *ret_error)
{
    struct kvm_missing missing;
    int ret = kvm_check(m->config.kvm_fd, &missing);
    size_t used;

    if (ret == 0)
        return 0;
    if (ret == -EPROTO)
        return machine_fail(ret_error, MONITOR_ERROR_KVM, ret,
                            "KVM speaks another API version");
    if (ret != -EOPNOTSUPP)
        return machine_fail(ret_error, MONITOR_ERROR_KVM, ret,
                            "this is not KVM: %s", strerror(-ret));
    machine_fail(ret_error, MONITOR_ERROR_KVM, ret, "this KVM lacks");
    for (unsigned i = 0; i < missing.count; i++) {
        used = strlen(ret_error->text);
        snprintf(ret_error->text + used, sizeof(ret_error->text) - used,
                 "%s %s", i > 0 ? "," : "", missing.names[i]);
    }
    return ret;
}

static int check_cpu_count(const struct machine *m,
                           struct monitor_error *ret_error)
{
    int max = kvm_extension(m->vm_fd, KVM_CAP_MAX_VCPUS);

    if (max <= 0)
        max = kvm_extension(m->vm_fd, KVM_CAP_NR_VCPUS);
    if (max > 0 && m->config.cpu_count > (uint32_t)max)
        return machine_fail(ret_error, MONITOR_ERROR_KVM, -EINVAL,
                            "this KVM allows at most %d CPUs", max);
    return 0;
}

/*
 * The guest gets nothing that it is not told of, and nothing that is not saved.
 * The time of day is the host's: who restores a machine whose clock is pinned
 * gives it another one (a kernel asks KVM when it boots, and never again).
 */
static int restrict_vm(struct machine *m, struct monitor_error *ret_error)
{
    /* AMD's counters are there without CPUID. Not all KVMs can do without. */
    struct kvm_enable_cap no_counters = {.cap = KVM_CAP_PMU_CAPABILITY,
                                         .args = {KVM_PMU_CAP_DISABLE}};
    /* Since Linux 6.0: a triple fault that is pending can be seen and undone.
     */
    struct kvm_enable_cap triple_fault = {.cap = KVM_CAP_X86_TRIPLE_FAULT_EVENT,
                                          .args = {1}};
    bool pinnable = m->origin.bytes && m->config.hide_rdrand;
    int ret = msr_filter_set(m->vm_fd, !pinnable);

    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_KVM, ret,
                            "KVM_X86_SET_MSR_FILTER: %s", strerror(-ret));
    (void)kvm_ioctl(m->vm_fd, KVM_ENABLE_CAP, &no_counters);
    (void)kvm_ioctl(m->vm_fd, KVM_ENABLE_CAP, &triple_fault);
    return 0;
}

/* The VM, empty but for addresses that Intel's KVM wants for itself. */
static int create_vm(struct machine *m, struct monitor_error *ret_error)
{
    uint64_t identity = MAP_KVM_IDENTITY;
    int ret = kvm_create_vm(m->config.kvm_fd);

    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_KVM, ret,
                            "KVM_CREATE_VM: %s", strerror(-ret));
    m->vm_fd = ret;
    ret = restrict_vm(m, ret_error);
    if (ret < 0)
        return ret;
    ret = kvm_ioctl(m->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    if (ret == 0)
        ret = kvm_ioctl_value(m->vm_fd, KVM_SET_TSS_ADDR, MAP_KVM_TSS);
    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_KVM, ret,
                            "KVM_SET_TSS_ADDR: %s", strerror(-ret));
    return check_cpu_count(m, ret_error);
}

static int create_memory(struct machine *m, struct monitor_error *ret_error)
{
    int ret =
        memory_init(&m->memory, m->config.memory_bytes, m->config.memory_fd);

    if (ret == -EBADMSG)
        return machine_fail(ret_error, MONITOR_ERROR_STATE, ret,
                            "its memory file is not as long as the memory");
    if (ret == 0 && m->config.track_dirty)
        ret = memory_track(&m->memory);
    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_MEMORY, ret,
                            "the host does not give it: %s", strerror(-ret));
    ret = memory_add_slots(&m->memory, m->vm_fd);
    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_MEMORY, ret,
                            "KVM_SET_USER_MEMORY_REGION: %s", strerror(-ret));
    return 0;
}

/*
 * PIC, I/O APIC and LAPICs in KVM. A PIT only where KVM cannot do the LAPIC's
 * TSC deadline, for kernels that would find no timer otherwise: it costs
 * milliseconds when the machine ends.
 */
static int create_irqchip(struct machine *m)
{
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    int ret = kvm_ioctl_value(m->vm_fd, KVM_CREATE_IRQCHIP, 0);

    if (ret == 0 && !m->origin.bytes)
        ret = cpu_state_mask_pic(m->vm_fd);
    m->tsc_deadline = kvm_extension(m->vm_fd, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    /* A restored machine has what the saved one had. */
    m->has_pit = m->origin.bytes ? m->origin.has_pit : !m->tsc_deadline;
    if (ret == 0 && m->has_pit)
        ret = kvm_ioctl(m->vm_fd, KVM_CREATE_PIT2, &pit);
    return ret;
}

/* A restored one is told its CPUID with the rest of its state. */
static int create_vcpu(struct machine *m, unsigned id)
{
    struct vcpu *vcpu = &m->vcpus[id];
    int ret = vcpu_init(vcpu, m->config.kvm_fd, m->vm_fd, id, &m->env);

    if (ret == 0)
        ret = cpuid_enforce(vcpu->kvm.fd);
    if (ret < 0 || m->origin.bytes)
        return ret;
    cpuid_set_vcpu(m->shape.cpuid, id);
    return kvm_ioctl(vcpu->kvm.fd, KVM_SET_CPUID2, m->shape.cpuid);
}

/* The CPUID table of this machine (free() it). */
static int make_cpuid(const struct machine *m, struct kvm_cpuid2 **ret_cpuid)
{
    struct cpuid_options options = {
        .cpu_count = m->config.cpu_count,
        .tsc_deadline = m->tsc_deadline,
        .hide_rdrand = m->config.hide_rdrand,
    };
    struct kvm_cpuid2 *cpuid = NULL;
    int ret = cpuid_get_supported(m->config.kvm_fd, &cpuid);

    if (ret < 0)
        return ret;
    options.xsave =
        cpuid_offers_xsave(cpuid) && xcr0_works(m->config.kvm_fd, cpuid);
    ret = cpuid_prepare(cpuid, &options);
    if (ret < 0)
        free(cpuid);
    else
        *ret_cpuid = cpuid;
    return ret;
}

static int create_vcpus(struct machine *m)
{
    int ret = vcpu_setup_signals();

    if (ret == 0 && !m->origin.bytes)
        ret = make_cpuid(m, &m->shape.cpuid);
    if (ret < 0)
        return ret;
    m->vcpus = calloc(m->config.cpu_count, sizeof(*m->vcpus));
    if (!m->vcpus)
        ret = -ENOMEM;
    for (unsigned i = 0; ret == 0 && i < m->config.cpu_count; i++)
        ret = create_vcpu(m, i);
    return ret;
}

static int create_cpus(struct machine *m, struct monitor_error *ret_error)
{
    int ret = create_irqchip(m);

    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_KVM, ret,
                            "the interrupt controllers cannot be made: %s",
                            strerror(-ret));
    ret = create_vcpus(m);
    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_KVM, ret,
                            "a virtual CPU cannot be made: %s", strerror(-ret));
    return 0;
}

static int create_devices(struct machine *m, struct vsock_dialer dialer,
                          struct monitor_error *ret_error)
{
    const struct device_hooks hooks = {
        .control = {.event = control_event, .ctx = m},
        .debug_exit = {.exited = debug_exited, .ctx = m},
        .dialer = dialer,
    };
    int ret = device_set_init(&m->devices, m->vm_fd, &m->memory.guest,
                              &m->config, &hooks, ret_error);

    m->has_devices = ret == 0;
    return ret;
}

static struct machine *machine_alloc(struct vm_config *config)
{
    struct machine *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    m->config = *config;
    m->vm_fd = -1;
    m->memory.fd = -1;
    pthread_mutex_init(&m->ending.lock, NULL);
    vcpu_gate_init(&m->gate);
    m->env = (struct vcpu_env){
        .pio = &m->devices.pio,
        .mmio = &m->devices.mmio,
        .leave = &m->leave,
        .gate = &m->gate,
        .ended = vcpu_ended,
        .ctx = m,
    };
    return m;
}

int machine_build(struct vm_config *config, struct vsock_dialer dialer,
                  struct machine **ret_machine, struct monitor_error *ret_error)
{
    struct machine *m = machine_alloc(config);
    int ret;

    if (!m) {
        vm_config_fini(config);
        return machine_fail(ret_error, MONITOR_ERROR_HOST, -ENOMEM,
                            "out of memory");
    }
    vm_config_init(config); /* its descriptors are the machine's now */
    ret = check_kvm(m, ret_error);
    if (ret == 0)
        ret = machine_open_origin(m, ret_error);
    if (ret == 0)
        ret = create_vm(m, ret_error);
    if (ret == 0)
        ret = create_memory(m, ret_error);
    if (ret == 0)
        ret = create_cpus(m, ret_error);
    if (ret == 0)
        ret = create_devices(m, dialer, ret_error);
    if (ret < 0) {
        machine_free(m);
        return ret;
    }
    io_close(&m->config.kvm_fd); /* the VM needs it no more */
    *ret_machine = m;
    return 0;
}

/* ---- booting ---- */

static int set_power_on_state(struct machine *m, const struct boot_entry *entry)
{
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < m->config.cpu_count; i++)
        ret = cpu_state_init(m->vcpus[i].kvm.fd);
    return ret < 0 ? ret : cpu_state_set_entry(m->vcpus[0].kvm.fd, entry);
}

int machine_boot(struct machine *m, struct monitor_error *ret_error)
{
    const struct boot_machine machine = {
        .memory_bytes = m->config.memory_bytes,
        .cpu_count = m->config.cpu_count,
        .virtio_slots_used = m->devices.slots_used,
    };
    struct boot_entry entry;
    int ret = boot_load_linux(&m->config, &machine, &m->memory.guest, &entry,
                              ret_error);

    if (ret < 0)
        return ret;
    ret = set_power_on_state(m, &entry);
    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_KVM, ret,
                            "the registers cannot be set: %s", strerror(-ret));
    io_close(&m->config.kernel_fd);
    io_close(&m->config.initrd_fd);
    return 0;
}
