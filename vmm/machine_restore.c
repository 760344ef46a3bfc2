/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a machine's state comes in, at first or again; see machine.h. The state
 * file is read once, before the VM exists, and kept: a roll-back loads the very
 * same bytes.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/io.h"
#include "vmm/kvm.h"
#include "vmm/machine_internal.h"
#include "vmm/memory_image.h"
#include "vmm/state_file.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/cpuid_check.h"
#include "vmm/x86/map.h"
#include "vmm/x86/vm_state.h"

static int refuse(struct monitor_error *error, int ret, const char *why)
{
    return machine_fail(error, MONITOR_ERROR_STATE, ret, "its state: %s", why);
}

static int refuse_section(struct monitor_error *error, int ret, const char *tag,
                          unsigned index, const char *why)
{
    return machine_fail(error, MONITOR_ERROR_STATE, ret,
                        "its state: section %s %u: %s", tag, index, why);
}

/* ---- before there is a VM ---- */

static int read_state(struct machine *m, struct monitor_error *ret_error)
{
    struct machine_origin *origin = &m->origin;
    struct stat st;
    ssize_t n;

    if (fstat(m->config.state_fd, &st) < 0)
        return refuse(ret_error, -errno, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size <= 0 ||
        (uint64_t)st.st_size > STATE_FILE_MAX)
        return refuse(ret_error, -EBADMSG, "it is empty, too large or no file");
    origin->bytes = malloc((size_t)st.st_size);
    if (!origin->bytes)
        return machine_fail(ret_error, MONITOR_ERROR_HOST, -ENOMEM,
                            "out of memory");
    n = io_pread_full(m->config.state_fd, origin->bytes, (size_t)st.st_size, 0);
    if (n < 0)
        return refuse(ret_error, (int)n, strerror((int)-n));
    origin->len = (size_t)n;
    io_close(&m->config.state_fd);
    return 0;
}

/* Asks KVM what it has; that alone takes as long as to create the VM. */
static int compare_cpu(struct machine *m, const struct cpuid_options *options,
                       struct monitor_error *ret_error)
{
    struct kvm_cpuid2 *host = NULL;
    char why[STATE_WHY_MAX + 1];
    int ret = cpuid_get_supported(m->config.kvm_fd, &host);

    if (ret == 0)
        ret = cpuid_prepare(host, options);
    if (ret < 0)
        machine_fail(ret_error, MONITOR_ERROR_KVM, ret,
                     "KVM_GET_SUPPORTED_CPUID: %s", strerror(-ret));
    else if ((ret = cpuid_check(host, m->shape.cpuid, why)) < 0)
        machine_fail(ret_error, MONITOR_ERROR_STATE, ret, "%s", why);
    free(host);
    return ret;
}

/*
 * What the guest was told that its CPU is must be true here, and nothing that
 * this machine would not have told it.
 */
static int check_cpu(struct machine *m, struct state_reader cpu,
                     struct monitor_error *ret_error)
{
    const struct cpuid_options options = {
        .cpu_count = m->config.cpu_count,
        .tsc_deadline =
            kvm_extension(m->config.kvm_fd, KVM_CAP_TSC_DEADLINE_TIMER) > 0,
        .hide_rdrand = m->config.hide_rdrand,
        .xsave = true, /* what it had, it had */
    };
    char why[STATE_WHY_MAX + 1] = "out of memory";
    int ret = vcpu_state_cpuid(cpu, &m->shape.cpuid);

    if (ret < 0)
        return refuse_section(ret_error, ret, "cpu", 0,
                              "its CPUID table is malformed");
    ret = cpuid_check_own(m->shape.cpuid, &options, why);
    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_STATE, ret, "%s", why);
    return m->config.cpu_compared ? 0 : compare_cpu(m, &options, ret_error);
}

/*
 * Sections one after the other as a machine of so many CPUs has them: the VM's,
 * each CPU's, and none of theirs after that. 0, or -EBADMSG.
 */
static int find_cpus(struct machine *m, struct state_reader *ret_first,
                     char why[STATE_WHY_MAX + 1])
{
    struct state_reader r = {0};
    struct state_section next;
    struct state_file f;
    int ret = state_file_open(&f, m->origin.bytes, m->origin.len, why);

    if (ret == 0)
        ret = state_file_expect(&f, STATE_TAG_VM, VM_STATE_VERSION, 0, &r, why);
    if (ret < 0)
        return ret;
    m->origin.has_pit = vm_state_has_pit(r);
    for (unsigned i = 0; ret == 0 && i < m->config.cpu_count; i++) {
        ret = state_file_expect(&f, STATE_TAG_CPU, VCPU_STATE_VERSION,
                                (uint16_t)i, &r, why);
        if (i == 0)
            *ret_first = r;
    }
    if (ret == 0 && state_file_next(&f, &next) == 1 &&
        strcmp(next.tag, STATE_TAG_CPU) == 0) {
        snprintf(why, STATE_WHY_MAX + 1, "it has more than %u CPUs",
                 m->config.cpu_count);
        ret = -EBADMSG;
    }
    return ret;
}

int machine_open_origin(struct machine *m, struct monitor_error *ret_error)
{
    char why[STATE_WHY_MAX + 1];
    struct state_reader cpu = {0};
    int ret;

    if (m->config.state_fd < 0)
        return 0;
    ret = read_state(m, ret_error);
    if (ret < 0)
        return ret;
    ret = find_cpus(m, &cpu, why);
    return ret < 0 ? refuse(ret_error, ret, why) : check_cpu(m, cpu, ret_error);
}

/* ---- loading ---- */

static int load_vcpu(struct machine *m, unsigned id, enum vcpu_age age,
                     struct state_file *f, struct monitor_error *ret_error)
{
    const struct vcpu_place place = {m->vm_fd, m->vcpus[id].kvm.fd, id};
    char why[STATE_WHY_MAX + 1];
    struct state_reader r;
    int ret = state_file_expect(f, STATE_TAG_CPU, VCPU_STATE_VERSION,
                                (uint16_t)id, &r, why);

    if (ret < 0)
        return refuse(ret_error, ret, why);
    ret = vcpu_state_load(&place, age, &m->shape, &r, why);
    return ret < 0 ? refuse_section(ret_error, ret, "cpu", id, why) : 0;
}

/*
 * A register that the state leaves out would be the next trial's as this one
 * left it: a machine that is to be put back needs all that this KVM has.
 */
static int check_complete(struct machine *m, struct monitor_error *ret_error)
{
    char why[STATE_WHY_MAX + 1];
    struct msr_list *all = malloc(sizeof(*all));
    uint32_t missing = 0;
    int ret = all ? msr_list_probe(m->vcpus[0].kvm.fd, all) : -ENOMEM;

    if (ret == 0 && !msr_list_covers(&m->shape.msrs, all, &missing)) {
        snprintf(why, sizeof(why),
                 "it has no MSR 0x%x, so that it cannot be put back in place",
                 missing);
        ret = refuse_section(ret_error, -EBADMSG, "cpu", 0, why);
    } else if (ret < 0) {
        machine_fail(ret_error, MONITOR_ERROR_KVM, ret, "KVM_GET_MSRS: %s",
                     strerror(-ret));
    }
    free(all);
    return ret;
}

/* The vCPUs come first, although the VM's section does in the file. */
int machine_load_origin(struct machine *m, enum vcpu_age age,
                        struct monitor_error *ret_error)
{
    char why[STATE_WHY_MAX + 1];
    struct state_reader vm;
    struct state_file f;
    int ret = state_file_open(&f, m->origin.bytes, m->origin.len, why);

    if (ret == 0)
        ret =
            state_file_expect(&f, STATE_TAG_VM, VM_STATE_VERSION, 0, &vm, why);
    if (ret < 0)
        return refuse(ret_error, ret, why);
    ret = msr_state_forget(m->vcpus[0].kvm.fd);
    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_KVM, ret,
                            "KVM_SET_MSRS: %s", strerror(-ret));
    for (unsigned i = 0; ret == 0 && i < m->config.cpu_count; i++)
        ret = load_vcpu(m, i, age, &f, ret_error);
    if (ret < 0)
        return ret;
    ret = vm_state_load(m->vm_fd, &vm, why);
    if (ret < 0)
        return refuse_section(ret_error, ret, "vm", 0, why);
    ret = device_set_load(&m->devices, &f, why);
    return ret < 0 ? refuse(ret_error, ret, why) : 0;
}

int machine_load(struct machine *m, struct monitor_error *ret_error)
{
    int ret = machine_load_origin(m, VCPU_NEW, ret_error);

    if (ret == 0 && m->config.track_dirty)
        ret = check_complete(m, ret_error);
    if (ret < 0)
        return ret;
    m->pristine = true;
    if (!m->config.track_dirty) {
        free(m->origin.bytes);
        m->origin = (struct machine_origin){0};
    }
    return 0;
}

int machine_roll_back(struct machine *m, struct monitor_rolled_back *ret_done,
                      struct monitor_error *ret_error)
{
    struct monitor_rolled_back done;
    int ret;

    if (!m->config.track_dirty || !m->origin.bytes)
        return machine_fail(ret_error, MONITOR_ERROR_STATE, -EINVAL,
                            "it is not a machine that can be put back");
    m->pristine = false;
    /* Before the registers: some are loaded by looking at memory. */
    ret = memory_image_roll_back(&m->memory, m->vm_fd, &done);
    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_MEMORY, ret,
                            "the memory cannot be put back: %s",
                            strerror(-ret));
    ret = machine_load_origin(m, VCPU_RAN, ret_error);
    if (ret < 0)
        return ret;
    ret = device_set_reset_disks(&m->devices, &m->config);
    if (ret < 0)
        return machine_fail(ret_error, MONITOR_ERROR_HOST, ret,
                            "a disk's overlay cannot be emptied: %s",
                            strerror(-ret));
    machine_restart_stats(m);
    m->pristine = true;
    *ret_done = done;
    return 0;
}

/* ---- when it runs ---- */

/* A new generation id, and the event that says so: after the irqchip's state.
 * Guests that were told of the machine by a device tree know of none. */
static void renew_generation(const struct machine *m)
{
    struct gsi_line line = {.vm_fd = m->vm_fd, .gsi = MAP_EVENT_GSI};
    struct irq_line irq = gsi_line_irq(&line);

    if (m->config.platform != VM_PLATFORM_ACPI)
        return;
    if (acpi_write_generation_id(&m->memory.guest) == 0)
        irq_line_raise(&irq);
}

void machine_announce(struct machine *m)
{
    m->pristine = false;
    device_set_restored(&m->devices);
    if (m->config.renew_generation)
        renew_generation(m);
    /* So that a guest's watchdog does not count the time in between; EINVAL
     * if the guest does not use KVM's clock. */
    for (unsigned i = 0; i < m->config.cpu_count; i++)
        (void)kvm_ioctl_value(m->vcpus[i].kvm.fd, KVM_KVMCLOCK_CTRL, 0);
}
