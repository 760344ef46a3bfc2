/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the monitor's messages and its end mean for a trial. These are the
 * facts: the host saw them. Once the guest has run, the monitor itself is a
 * suspect.
 */
#include "trial/runner.h"

#include <signal.h>
#include <string.h>

#include "base/text.h"
#include "trial/vsock_dial.h"

#define MS 1000000ull /* nanoseconds */
/* One that is gone has only its memory to give back. */
#define REAP_TIMEOUT_MS 5000

static void fail_never_booted(struct runner *r, const char *cause,
                              const char *why)
{
    runner_fail(r, cause, r->machine->kernel_path,
                "microsbx boot with the same options shows its console; "
                "microsbx doctor looks at this host",
                "the guest %s before its agent answered", why);
}

static void fail_host_error(struct runner *r, const struct monitor_exit *e)
{
    struct failure f = {0};

    monitor_fail_host(e, &f);
    runner_fail_with(r, &f);
}

/* The words are made by a monitor that the guest may own by now. */
static void fail_emulation(struct runner *r, const struct monitor_exit *e)
{
    char shown[200];

    text_escape(e->text, strlen(e->text), shown, sizeof(shown));
    failure_set(&r->result->failure, r->facts->cause, "/dev/kvm",
                "run microsbx doctor: a KVM that interprets guest kernels "
                "lacks instructions; else keep the evidence",
                "KVM could not run the guest any further: %s", shown);
}

/* Ways to end that are the guest's own: what it does too late is a timeout. */
static bool is_guests_end(enum monitor_exit_reason reason)
{
    return reason == MONITOR_EXIT_POWER_OFF || reason == MONITOR_EXIT_RESET ||
           reason == MONITOR_EXIT_TRIPLE_FAULT ||
           reason == MONITOR_EXIT_PANIC || reason == MONITOR_EXIT_DEBUG;
}

static void on_machine_exit(struct runner *r, const struct monitor_exit *e)
{
    struct outcome_facts *facts = r->facts;
    bool early = !r->spec->no_agent && r->result->ready_ns == 0;

    r->machine_ended = true;
    /* Rolled back, it counts from 0 again: the trial's are known. */
    if (!r->result->rolled_back)
        r->result->stats = e->stats;
    r->result->has_stats = true;
    r->result->machine_end = e->reason;
    if (r->phase == RUNNER_OVER || facts->cancelled) {
        r->phase = RUNNER_OVER;
        return; /* we stopped it, or asked for it */
    }
    runner_event(r, "machine_end", monitor_exit_reason_name(e->reason));
    if (is_guests_end(e->reason) && runner_is_late(r))
        return;
    r->phase = RUNNER_OVER;
    if (runner_bare_status(r, e))
        return;
    switch (e->reason) {
    case MONITOR_EXIT_PANIC:
        facts->guest_panic = true;
        if (early)
            fail_never_booted(r, "guest_panic", "kernel panicked");
        break;
    case MONITOR_EXIT_POWER_OFF:
    case MONITOR_EXIT_RESET:
    case MONITOR_EXIT_TRIPLE_FAULT:
        facts->guest_halt = true;
        facts->cause = monitor_exit_reason_name(e->reason);
        if (early)
            fail_never_booted(r, facts->cause, "ended");
        break;
    case MONITOR_EXIT_EMULATION:
    case MONITOR_EXIT_INTERNAL:
        if (early) {
            facts->guest_ran = false; /* nothing of the workload did */
            fail_never_booted(r, "kvm_failed", "could not go on under KVM");
            break;
        }
        facts->monitor_fault = true;
        facts->cause = monitor_exit_reason_name(e->reason);
        fail_emulation(r, e);
        break;
    case MONITOR_EXIT_STOPPED: /* nobody had asked it to */
    case MONITOR_EXIT_DEBUG:   /* nobody had given it the port */
        facts->monitor_fault = true;
        facts->cause = "monitor_lied";
        break;
    case MONITOR_EXIT_HOST_ERROR:
        fail_host_error(r, e);
        break;
    }
}

/* What a monitor's end is called when the monitor is to blame. */
static const char *fault_cause(const struct monitor_end *end)
{
    if (end->lied)
        return "monitor_lied";
    if (end->killed_here)
        return "monitor_hung";
    if (end->exited)
        return "monitor_exited";
    return end->signal == SIGSYS ? "monitor_seccomp" : "monitor_crashed";
}

/* Not one that spoke nonsense, nor one that only we could end. */
static bool is_killed_outside(const struct monitor_end *end)
{
    return !end->exited && end->signal == SIGKILL && !end->lied &&
           !end->killed_here;
}

/* It ended without a word: what the host saw decides. */
static void on_monitor_gone(struct runner *r)
{
    struct monitor_end end;
    const char *why = monitor_reason(r->monitor);
    struct failure f = {0};
    char how[64];

    runner_watch_end(r);
    end = monitor_finish(r->monitor, REAP_TIMEOUT_MS);
    r->machine_ended = true;
    monitor_end_describe(&end, how, sizeof(how));
    runner_event(r, "monitor_gone", how);
    r->phase = RUNNER_OVER;
    if (end.cpu_limit && !end.lied) {
        monitor_fail_cpu_limit(&f, "the monitor");
        runner_fail_with(r, &f);
        return;
    }
    if (end.left && !end.killed_here && !end.lied) {
        runner_fail(r, "host_storage_slow", "microsbx-vmm",
                    "look at the disk, its folder and TMPDIR on this host",
                    "the monitor has ended, but this host has not taken it "
                    "apart in time to tell why");
        return;
    }
    if (is_killed_outside(&end)) {
        runner_fail(r, "monitor_killed", "microsbx-vmm",
                    "look whether the host ran out of memory",
                    "the monitor was killed from outside (SIGKILL)");
        return;
    }
    r->facts->monitor_fault = true;
    r->facts->cause = fault_cause(&end);
    failure_set(&r->result->failure, r->facts->cause, "microsbx-vmm",
                "keep the evidence: a guest may have attacked the monitor",
                "the monitor died: %s (%s)",
                why[0] ? why : "it did not do as it was told", how);
}

/*
 * The host refused what a file system had taken: nothing that the workload says
 * of its files holds any more, its status included. The scratch disk's own file
 * system knows the limit and does not come to that.
 */
static void on_disk_refused(struct runner *r, const char *disk)
{
    char shown[200];

    text_escape(disk, strlen(disk), shown, sizeof(shown));
    if (r->facts->ended_by != LIMIT_DISK)
        runner_event(r, "disk_refused", shown);
    r->result->hit_disk = true;
    r->facts->ended_by = LIMIT_DISK;
    r->facts->limit_by_host = true;
    if (r->phase == RUNNER_EXEC && r->spec->disk_ends && !runner_is_late(r))
        r->phase = RUNNER_OVER;
}

bool runner_disk_refused(const struct runner *r)
{
    return r->facts->ended_by == LIMIT_DISK && r->facts->limit_by_host;
}

static void on_disk_stats(struct runner *r, const struct monitor_stats *stats,
                          uint32_t i)
{
    const char *disk = i < VM_DISKS_MAX && r->machine->disk_paths[i]
                           ? r->machine->disk_paths[i]
                           : "disk";

    if (stats->disks[i].limit_hit)
        on_disk_refused(r, disk);
    /* Refused, but not by a limit: the workload saw I/O errors. */
    else if (stats->disks[i].no_space > 0)
        runner_fail(r, "host_disk_full", disk,
                    "make room where TMPDIR points (or where the rw disk "
                    "lies), or use --overlay memory",
                    "this host had no room left for what the guest wrote");
    else if (stats->disks[i].io_errors > 0)
        runner_fail(r, "host_io_error", disk,
                    "look at the host's log and at the disk that TMPDIR and "
                    "the machine's own disks are on",
                    "this host could not read or write what the guest asked "
                    "for: its programs saw I/O errors");
}

void runner_check_cpu(struct runner *r, uint64_t guest_cpu_ns)
{
    uint64_t limit = r->spec->cpu_time_ms * MS;

    if (r->phase != RUNNER_EXEC || limit == 0 || guest_cpu_ns <= limit)
        return;
    r->result->hit_cpu = true;
    r->facts->timed_out = true;
    r->facts->cause = "cpu_time";
    r->phase = RUNNER_OVER;
}

void runner_on_stats(struct runner *r, const struct monitor_stats *stats)
{
    for (uint32_t i = 0; i < stats->disk_count; i++)
        on_disk_stats(r, stats, i);
    if (r->phase == RUNNER_EXEC && !runner_is_late(r))
        runner_check_cpu(r, stats->guest_cpu_ns);
}

void runner_on_lie(struct runner *r)
{
    r->facts->monitor_fault = true;
    r->facts->cause = "monitor_lied";
    r->phase = RUNNER_OVER;
}

bool runner_on_monitor(struct runner *r)
{
    struct monitor_event event;

    monitor_receive(r->monitor, &event);
    switch (event.kind) {
    case MONITOR_EVENT_RUNNING: /* once, and that was before */
        runner_on_lie(r);
        break;
    case MONITOR_EVENT_DIAL:
        if (r->halted)
            monitor_dial_reply(r->monitor, event.dial_token, -1);
        else
            vsock_dial_answer(r->monitor, &event, r->machine->vsock_path);
        break;
    case MONITOR_EVENT_STATS:
        r->result->stats = event.stats;
        r->stats_seen = true;
        runner_on_stats(r, &event.stats);
        break;
    case MONITOR_EVENT_EXIT:
        on_machine_exit(r, &event.exit);
        break;
    case MONITOR_EVENT_GONE:
        on_monitor_gone(r);
        break;
    case MONITOR_EVENT_NONE:
        break;
    }
    return event.kind != MONITOR_EVENT_NONE;
}

bool runner_forget_events(struct runner *r)
{
    for (;;) {
        struct monitor_event event;

        monitor_receive(r->monitor, &event);
        switch (event.kind) {
        case MONITOR_EVENT_NONE:
            return true;
        case MONITOR_EVENT_STATS: /* asked for before it was paused */
            r->result->stats = event.stats;
            break;
        case MONITOR_EVENT_EXIT:
            on_machine_exit(r, &event.exit);
            return false;
        case MONITOR_EVENT_GONE:
            on_monitor_gone(r);
            return false;
        case MONITOR_EVENT_RUNNING:
        case MONITOR_EVENT_DIAL: /* its connection was rolled back, too */
            break;
        }
    }
}

void runner_blame_kept(struct runner *r)
{
    struct monitor_event event;

    r->facts->guest_ran = true; /* that of a trial before */
    do {
        monitor_receive(r->monitor, &event);
    } while (event.kind != MONITOR_EVENT_NONE &&
             event.kind != MONITOR_EVENT_EXIT &&
             event.kind != MONITOR_EVENT_GONE);
    if (event.kind == MONITOR_EVENT_EXIT &&
        event.exit.reason == MONITOR_EXIT_HOST_ERROR)
        fail_host_error(r, &event.exit);
    else
        on_monitor_gone(r);
}

/*
 * A word of farewell does not excuse a monitor that then crashes. One that had
 * to be killed is no fault of its own: to free much memory may take that long;
 * nor is one that this host's limit of CPU time meets then.
 */
void runner_reap_monitor(struct runner *r)
{
    struct monitor_end end =
        monitor_finish(r->monitor, r->past_asking ? 0 : REAP_TIMEOUT_MS);

    if (!r->result->has_stats || end.exited || end.left || end.cpu_limit ||
        end.signal == SIGKILL)
        return;
    r->facts->monitor_fault = true;
    r->facts->cause = fault_cause(&end);
}
