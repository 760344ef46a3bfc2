/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a trial's monitor comes from and what becomes of it: a new process for
 * each trial, or (in place) one whose machine is rolled back.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/patience.h"
#include "trial/runner.h"

/* A monitor answers at once; this is generous. */
#define STATS_WAIT_MS 2000

void trial_vm_init(struct trial_vm *vm)
{
    *vm = (struct trial_vm){.console_fd = -1};
}

void trial_vm_fini(struct trial_vm *vm)
{
    monitor_free(vm->monitor);
    io_close(&vm->console_fd);
    trial_vm_init(vm);
}

/* The proof stands between the machine and its first instruction. */
static int build_prove_start(struct runner *r,
                             const struct monitor_names *names)
{
    struct failure *f = &r->result->failure;
    int ret = monitor_build(r->monitor, &r->machine->config, names, f);

    if (ret == 0)
        ret = runner_prove(r);
    if (ret != 0)
        return ret;
    ret = monitor_start(r->monitor);
    if (ret != 0)
        failure_set(f, "monitor_died", "microsbx-vmm", NULL,
                    "the monitor ended before the guest ran");
    return ret;
}

/* It has been told to start: what it says now is to be believed, or a fault. */
static int await_running(struct runner *r)
{
    struct failure *f = &r->result->failure;
    int ret = monitor_await_running(r->monitor, &r->result->running_ns, f);

    r->go_ns = r->result->running_ns;
    r->facts->guest_ran = ret == 0 || ret == -EPROTO;
    r->facts->monitor_fault = ret == -EPROTO;
    return ret;
}

static int start_monitor(struct runner *r)
{
    struct monitor_names names = machine_names(r->machine);
    struct failure *f = &r->result->failure;
    int ret = monitor_spawn(&r->monitor, f);

    for (uint32_t i = 0; i < r->machine->config.disk_count; i++) {
        const struct vm_disk *disk = &r->machine->config.disks[i];

        if (!strcmp(disk->id, IMAGE_SCRATCH_ID))
            r->scratch_limit = disk->overlay_limit;
    }
    r->machine_memory = r->machine->config.memory_bytes;
    r->machine->config.track_dirty = r->spec->vm != NULL;
    r->machine->config.renew_generation =
        r->spec->restore && !r->spec->restore->pinned;
    if (ret == 0 && r->spec->restore && r->spec->restore->prove)
        ret = build_prove_start(r, &names);
    else if (ret == 0)
        ret =
            monitor_build_and_start(r->monitor, &r->machine->config, &names, f);
    vm_config_fini(&r->machine->config);
    return ret == 0 ? await_running(r) : ret;
}

/* The machine of the trial before, paused and rolled back: goes on. */
static int continue_machine(struct runner *r)
{
    struct trial_vm *vm = r->spec->vm;
    struct trial_result *result = r->result;
    uint64_t began;
    int ret;

    r->monitor = vm->monitor;
    r->console_fd = vm->console_fd;
    r->scratch_limit = vm->scratch_limit;
    r->machine_memory = vm->machine_memory;
    vm->monitor = NULL;
    vm->console_fd = -1;
    /* Whoever looks has run a guest before. */
    result->proof.exposed = true;
    ret = runner_prove(r);
    /* Whoever says when it went on may be the guest's by now: from here. */
    began = io_now_ns();
    if (ret == 0)
        ret = monitor_resume(r->monitor, &result->failure);
    if (ret != 0)
        return ret;
    result->running_ns = io_now_ns();
    r->go_ns = began;
    r->facts->guest_ran = true;
    if (r->spec->cpu_time_ms > 0)
        r->cpu_before_ns = monitor_guest_cpu_ns(r->monitor);
    return 0;
}

int runner_take_monitor(struct runner *r)
{
    struct trial_vm *vm = r->spec->vm;
    int ret;

    if (!vm || !vm->monitor)
        return start_monitor(r);
    vm_config_fini(&r->machine->config);
    ret = continue_machine(r);
    if (ret == 0)
        return 0;
    if (ret == -ESHUTDOWN || ret == -EPIPE || ret == -ETIMEDOUT ||
        ret == -EPROTO)
        runner_blame_kept(r);
    /* Nothing of this trial has run: the next gets a new monitor. */
    monitor_free(r->monitor);
    r->monitor = NULL;
    return ret;
}

void runner_ask_for_stats(struct runner *r)
{
    struct patience patience = patience_of_ms(STATS_WAIT_MS);

    r->stats_seen = false;
    if (!r->monitor || r->machine_ended ||
        monitor_request_stats(r->monitor) != 0)
        return;
    while (!r->stats_seen && !r->machine_ended) {
        struct pollfd p = {monitor_fd(r->monitor), POLLIN, 0};

        if (!runner_on_monitor(r) && patience_poll(&patience, &p, 1) <= 0 &&
            patience_is_over(&patience))
            break;
    }
}

/* Nothing went wrong that could be the monitor's, or the machine's end. */
static bool may_go_on(const struct runner *r)
{
    const struct outcome_facts *facts = r->facts;

    return r->spec->vm && !r->machine_ended && !facts->monitor_fault &&
           !facts->host_failed && !facts->cancelled && !facts->protocol_broken;
}

/* The guest's time was over when it said this: it is no trial's. */
static void drop_console(struct runner *r)
{
    uint8_t buf[4096];

    while (r->console_fd >= 0 && read(r->console_fd, buf, sizeof(buf)) > 0)
        continue;
}

/*
 * The roll-back, with all that the guest said taken before and after: what is
 * still in the monitor when it is rolled back goes out then. False: the machine
 * can do no more than end.
 */
static bool roll_back(struct runner *r)
{
    struct failure f = {0};

    runner_drain_output(r);
    if (r->halted)
        drop_console(r);
    if (!may_go_on(r) ||
        monitor_rollback(r->monitor, &r->result->rollback, &f) != 0)
        return false;
    r->result->rolled_back = true;
    if (!runner_forget_events(r))
        return false;
    if (r->halted)
        drop_console(r);
    else
        runner_drain_output(r);
    return may_go_on(r);
}

bool runner_leave_monitor(struct runner *r)
{
    struct trial_vm *vm = r->spec->vm;
    struct failure f = {0};

    if (!may_go_on(r) || r->past_asking)
        return false;
    if (r->halted)
        monitor_continue(r->monitor);
    runner_ask_for_stats(r);
    if (!r->stats_seen || !may_go_on(r) || monitor_pause(r->monitor, &f) != 0)
        return false;
    r->result->has_stats = true;
    if (!roll_back(r))
        return false;
    vm->monitor = r->monitor;
    vm->console_fd = r->console_fd;
    vm->scratch_limit = r->scratch_limit;
    vm->machine_memory = r->machine_memory;
    r->monitor = NULL;
    r->console_fd = -1;
    return true;
}
