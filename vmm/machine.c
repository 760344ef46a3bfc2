/* SPDX-License-Identifier: Apache-2.0 */
/* How a machine runs and ends; see the header. */
#include "vmm/machine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/io.h"
#include "vmm/machine_internal.h"

int machine_fail(struct monitor_error *error, enum monitor_error_code code,
                 int ret, const char *format, ...)
{
    va_list args;

    *error = (struct monitor_error){.code = code, .error = ret};
    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    return ret;
}

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
    atomic_store_explicit(&m->leave, true, memory_order_release);
    vcpu_gate_end(&m->gate);
    evloop_stop(m->devices.loop);
}

int machine_start(struct machine *m)
{
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < m->config.cpu_count; i++)
        ret = vcpu_start(&m->vcpus[i]);
    return ret < 0 ? ret
                   : vcpu_gate_wait_arrived(&m->gate, m->config.cpu_count);
}

void machine_go(struct machine *m, uint64_t now_ns)
{
    if (m->pristine)
        machine_announce(m);
    m->first_run_ns = now_ns;
    vcpu_gate_open(&m->gate);
}

void machine_run(struct machine *m)
{
    int ret = evloop_run(m->devices.loop);

    if (ret < 0)
        machine_end(m, MONITOR_EXIT_HOST_ERROR, ret,
                    "waiting for devices failed");
}

void machine_break(struct machine *m)
{
    evloop_stop(m->devices.loop);
}

bool machine_has_ended(struct machine *m)
{
    bool set;

    pthread_mutex_lock(&m->ending.lock);
    set = m->ending.set;
    pthread_mutex_unlock(&m->ending.lock);
    return set;
}

bool machine_is_pristine(const struct machine *m)
{
    return m->pristine;
}

/* Has every vCPU come out of the guest. */
static void call_out(struct machine *m)
{
    atomic_store(&m->leave, true);
    for (unsigned i = 0; m->vcpus && i < m->config.cpu_count; i++)
        vcpu_kick(&m->vcpus[i]);
}

int machine_pause(struct machine *m)
{
    if (machine_has_ended(m))
        return -ESHUTDOWN;
    vcpu_gate_shut(&m->gate);
    call_out(m);
    vcpu_gate_wait_out(&m->gate, m->config.cpu_count);
    /* Nobody is left but this thread: what is decided now stays so. */
    if (machine_has_ended(m))
        return -ESHUTDOWN;
    for (unsigned i = 0; i < m->config.cpu_count; i++)
        vcpu_unkick(&m->vcpus[i]);
    atomic_store(&m->leave, false);
    device_set_quiesce(&m->devices);
    m->paused = true;
    return 0;
}

void machine_resume(struct machine *m)
{
    if (m->pristine)
        machine_announce(m);
    else
        device_set_resume(&m->devices);
    m->paused = false;
    vcpu_gate_open(&m->gate);
}

void machine_halt(struct machine *m)
{
    vcpu_gate_end(&m->gate);
    call_out(m);
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

/* Since the machine was built, however often it was rolled back. */
static void total_stats(struct machine *m, struct monitor_stats *ret_stats)
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

void machine_restart_stats(struct machine *m)
{
    total_stats(m, &m->before);
}

/* A thread's clock that can no longer be read is 0, and so is the time. */
static uint64_t since(uint64_t total, uint64_t before)
{
    return total > before ? total - before : 0;
}

void machine_stats(struct machine *m, struct monitor_stats *ret_stats)
{
    const struct monitor_stats *before = &m->before;
    struct monitor_stats s;

    total_stats(m, &s);
    s.exits = since(s.exits, before->exits);
    s.guest_cpu_ns = since(s.guest_cpu_ns, before->guest_cpu_ns);
    s.device_cpu_ns = since(s.device_cpu_ns, before->device_cpu_ns);
    s.unclaimed = since(s.unclaimed, before->unclaimed);
    *ret_stats = s;
}

void machine_exit_info(struct machine *m, struct monitor_exit *ret_exit)
{
    bool debug = m->ending.reason == MONITOR_EXIT_DEBUG;

    *ret_exit = (struct monitor_exit){
        .reason = m->ending.reason,
        .error = debug ? 0 : m->ending.error,
        .status = debug ? (uint32_t)m->ending.error : 0,
    };
    memcpy(ret_exit->text, m->ending.text, sizeof(ret_exit->text));
    machine_stats(m, &ret_exit->stats);
}

void machine_nudge(struct machine *m)
{
    device_set_nudge(&m->devices);
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
    free(m->origin.bytes);
    vcpu_shape_fini(&m->shape);
    vm_config_fini(&m->config);
    vcpu_gate_fini(&m->gate);
    pthread_mutex_destroy(&m->ending.lock);
    free(m);
}
