/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building, running and ending a machine; see the header. The order of building
 * is KVM's: memory slots before the in-kernel irqchip (behind it each costs
 * milliseconds), the irqchip before vCPUs, irqfds after both.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "base/io.h"
#include "base/num.h"
#include "vmm/device_set.h"
#include "vmm/kvm.h"
#include "vmm/memory.h"
#include "vmm/vcpu.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/cpu_state.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/map.h"
#include "vmm/x86/xcr0.h"

/* How the machine ended; the first one wins. */
struct machine_ending {
    pthread_mutex_t lock;
    bool set;
    enum monitor_exit_reason reason;
    int error;
    char text[MONITOR_TEXT_MAX + 1];
};

struct machine {
    struct vm_config config; /* what is left of its descriptors is owned */
    int vm_fd;
    bool tsc_deadline;
    struct memory memory;
    struct device_set devices;
    bool has_devices;
    struct vcpu_env env;
    struct vcpu *vcpus; /* config.cpu_count of them; NULL = none yet */
    uint64_t first_run_ns;
    atomic_bool ending_flag; /* what the vCPUs look at */
    struct machine_ending ending;
};

static int __attribute__((format(printf, 4, 5)))
fail(struct monitor_error *error, enum monitor_error_code code, int ret,
     const char *format, ...)
{
    va_list args;

    *error = (struct monitor_error){.code = code, .error = ret};
    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    return ret;
}

/* ---- the end ---- */

void machine_end(struct machine *m, enum monitor_exit_reason reason, int error,
                 const char *text)
{
    struct machine_ending *ending = &m->ending;

    pthread_mutex_lock(&ending->lock);
    if (!ending->set) {
        ending->set = true;
        ending->reason = reason;
        ending->error = error;
        snprintf(ending->text, sizeof(ending->text), "%s", text);
    }
    pthread_mutex_unlock(&ending->lock);
    atomic_store_explicit(&m->ending_flag, true, memory_order_release);
    evloop_stop(m->devices.loop);
}

static void vcpu_ended(void *ctx, enum monitor_exit_reason reason, int error,
                       const char *text)
{
    machine_end(ctx, reason, error, text);
}

/* On a vCPU's thread: the guest asked for the end, or told of it. */
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

/* ---- building ---- */

static int check_kvm(const struct machine *m, struct monitor_error *ret_error)
{
    struct kvm_missing missing;
    int ret = kvm_check(m->config.kvm_fd, &missing);
    size_t used;

    if (ret == 0)
        return 0;
    if (ret == -EPROTO)
        return fail(ret_error, MONITOR_ERROR_KVM, ret,
                    "KVM speaks another API version");
    if (ret != -EOPNOTSUPP)
        return fail(ret_error, MONITOR_ERROR_KVM, ret, "this is not KVM: %s",
                    strerror(-ret));
    fail(ret_error, MONITOR_ERROR_KVM, ret, "this KVM lacks");
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
        return fail(ret_error, MONITOR_ERROR_KVM, -EINVAL,
                    "this KVM allows at most %d CPUs", max);
    return 0;
}

/* The VM, empty but for addresses that Intel's KVM wants for itself. */
static int create_vm(struct machine *m, struct monitor_error *ret_error)
{
    uint64_t identity = MAP_KVM_IDENTITY;
    int ret = kvm_create_vm(m->config.kvm_fd);

    if (ret < 0)
        return fail(ret_error, MONITOR_ERROR_KVM, ret, "KVM_CREATE_VM: %s",
                    strerror(-ret));
    m->vm_fd = ret;
    ret = kvm_ioctl(m->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    if (ret == 0)
        ret = kvm_ioctl_value(m->vm_fd, KVM_SET_TSS_ADDR, MAP_KVM_TSS);
    if (ret < 0)
        return fail(ret_error, MONITOR_ERROR_KVM, ret, "KVM_SET_TSS_ADDR: %s",
                    strerror(-ret));
    return check_cpu_count(m, ret_error);
}

static int create_memory(struct machine *m, struct monitor_error *ret_error)
{
    int ret = memory_init(&m->memory, m->config.memory_bytes);

    if (ret < 0)
        return fail(ret_error, MONITOR_ERROR_MEMORY, ret,
                    "the host does not give it: %s", strerror(-ret));
    ret = memory_add_slots(&m->memory, m->vm_fd);
    if (ret < 0)
        return fail(ret_error, MONITOR_ERROR_MEMORY, ret,
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

    if (ret == 0)
        ret = cpu_state_mask_pic(m->vm_fd);
    m->tsc_deadline = kvm_extension(m->vm_fd, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    if (ret == 0 && !m->tsc_deadline)
        ret = kvm_ioctl(m->vm_fd, KVM_CREATE_PIT2, &pit);
    return ret;
}

static int create_vcpu(struct machine *m, unsigned id, struct kvm_cpuid2 *cpuid)
{
    struct vcpu *vcpu = &m->vcpus[id];
    int ret = vcpu_init(vcpu, m->config.kvm_fd, m->vm_fd, id, &m->env);

    if (ret < 0)
        return ret;
    cpuid_set_vcpu(cpuid, id);
    return kvm_ioctl(vcpu->kvm.fd, KVM_SET_CPUID2, cpuid);
}

/* The CPUID table of this machine (free() it). */
static int make_cpuid(const struct machine *m, struct kvm_cpuid2 **ret_cpuid)
{
    struct cpuid_options options = {
        .cpu_count = m->config.cpu_count,
        .tsc_deadline = m->tsc_deadline,
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
    struct kvm_cpuid2 *cpuid = NULL;
    int ret = make_cpuid(m, &cpuid);

    if (ret < 0)
        return ret;
    m->vcpus = calloc(m->config.cpu_count, sizeof(*m->vcpus));
    if (!m->vcpus)
        ret = -ENOMEM;
    for (unsigned i = 0; ret == 0 && i < m->config.cpu_count; i++)
        ret = create_vcpu(m, i, cpuid);
    free(cpuid);
    return ret;
}

static int create_cpus(struct machine *m, struct monitor_error *ret_error)
{
    int ret = create_irqchip(m);

    if (ret < 0)
        return fail(ret_error, MONITOR_ERROR_KVM, ret,
                    "the interrupt controllers cannot be made: %s",
                    strerror(-ret));
    ret = create_vcpus(m);
    if (ret < 0)
        return fail(ret_error, MONITOR_ERROR_KVM, ret,
                    "a virtual CPU cannot be made: %s", strerror(-ret));
    return 0;
}

static int create_devices(struct machine *m, struct vsock_dialer dialer,
                          struct monitor_error *ret_error)
{
    const struct device_hooks hooks = {
        .control = {.event = control_event, .ctx = m},
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
    pthread_mutex_init(&m->ending.lock, NULL);
    m->env = (struct vcpu_env){
        .pio = &m->devices.pio,
        .mmio = &m->devices.mmio,
        .ending = &m->ending_flag,
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
        return fail(ret_error, MONITOR_ERROR_HOST, -ENOMEM, "out of memory");
    }
    vm_config_init(config); /* its descriptors are the machine's now */
    ret = check_kvm(m, ret_error);
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
        return fail(ret_error, MONITOR_ERROR_KVM, ret,
                    "the registers cannot be set: %s", strerror(-ret));
    io_close(&m->config.kernel_fd);
    io_close(&m->config.initrd_fd);
    return 0;
}

/* ---- running ---- */

int machine_start(struct machine *m)
{
    int ret = vcpu_setup_signal();

    m->first_run_ns = io_now_ns();
    for (unsigned i = 0; ret == 0 && i < m->config.cpu_count; i++)
        ret = vcpu_start(&m->vcpus[i]);
    return ret;
}

void machine_run(struct machine *m)
{
    int ret = evloop_run(m->devices.loop);

    if (ret < 0)
        machine_end(m, MONITOR_EXIT_HOST_ERROR, ret,
                    "waiting for devices failed");
}

void machine_halt(struct machine *m)
{
    atomic_store(&m->ending_flag, true);
    for (unsigned i = 0; m->vcpus && i < m->config.cpu_count; i++)
        vcpu_kick(&m->vcpus[i]);
    for (unsigned i = 0; m->vcpus && i < m->config.cpu_count; i++)
        vcpu_join(&m->vcpus[i]);
    if (m->has_devices)
        device_set_drain_console(&m->devices);
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void machine_stats(struct machine *m, struct monitor_stats *ret_stats)
{
    *ret_stats = (struct monitor_stats){
        .first_run_ns = m->first_run_ns,
        .device_cpu_ns = thread_cpu_ns(),
    };
    for (unsigned i = 0; i < m->config.cpu_count; i++) {
        ret_stats->exits +=
            atomic_load_explicit(&m->vcpus[i].exits, memory_order_relaxed);
        ret_stats->guest_cpu_ns += vcpu_cpu_ns(&m->vcpus[i]);
    }
    device_set_stats(&m->devices, ret_stats);
}

void machine_exit_info(struct machine *m, struct monitor_exit *ret_exit)
{
    *ret_exit = (struct monitor_exit){
        .reason = m->ending.reason,
        .error = m->ending.error,
    };
    memcpy(ret_exit->text, m->ending.text, sizeof(ret_exit->text));
    machine_stats(m, &ret_exit->stats);
}

struct evloop *machine_loop(struct machine *m)
{
    return m->devices.loop;
}

int machine_add_vsock_client(struct machine *m, int fd)
{
    if (!m->devices.vsock) {
        io_close(&fd);
        return -ENODEV;
    }
    return virtio_vsock_add_client(m->devices.vsock, fd);
}

void machine_dial_result(struct machine *m, uint64_t token, int fd)
{
    if (m->devices.vsock)
        virtio_vsock_dial_result(m->devices.vsock, token, fd);
    else
        io_close(&fd);
}

void machine_free(struct machine *m)
{
    if (!m)
        return;
    machine_halt(m);
    for (unsigned i = 0; m->vcpus && i < m->config.cpu_count; i++)
        vcpu_fini(&m->vcpus[i]);
    free(m->vcpus);
    if (m->has_devices)
        device_set_fini(&m->devices);
    io_close(&m->vm_fd);
    memory_fini(&m->memory);
    vm_config_fini(&m->config);
    pthread_mutex_destroy(&m->ending.lock);
    free(m);
}
