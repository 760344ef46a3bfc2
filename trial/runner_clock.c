/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trial's clock: what is due, and whether what the guest did was in time.
 *
 * A harness that was stopped (SIGSTOP, a host that slept) finds the deadline
 * over and an event to be read, and cannot know which came first: late is late.
 * Who takes the guest's word for how it ended looks at the clock behind it.
 */
#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "base/units.h"
#include "trial/keeper_runner.h"
#include "trial/runner.h"

#define MS 1000000ull /* nanoseconds */
#define SECOND_NS 1000000000ull
#define STATS_EVERY_NS (200 * MS)

/* The agent is lost, and no reason came from the monitor: it is the agent. */
static void on_agent_lost(struct runner *r)
{
    char shown[200];

    text_escape(agent_client_reason(r->client),
                strlen(agent_client_reason(r->client)), shown, sizeof(shown));
    if (!r->facts->workload_may_run)
        runner_fail(r, "protocol_violation", r->machine->kernel_path,
                    "use an image or initrd built by this version",
                    "the guest's agent broke its protocol: %s", shown);
    else
        failure_set(&r->result->failure, "protocol_violation", "agent",
                    "what the guest says cannot be trusted; look at its "
                    "console with microsbx boot",
                    "the guest's agent broke its protocol: %s", shown);
    r->phase = RUNNER_OVER;
}

/* A guest must not hold the host by a file that never comes or goes. */
static void on_file_timeout(struct runner *r)
{
    const struct trial_file *file = &r->spec->files[r->file_index];
    char limit[40];

    if (r->phase == RUNNER_PUT) {
        if (runner_blame_storage(r, "did not take a file"))
            return;
        units_format_duration(runner_file_ms(r), limit, sizeof(limit));
        runner_fail(r, "put_failed", file->src, "try a smaller file",
                    "cannot put %s to %s: the guest did not take it within %s",
                    file->src, file->dst, limit);
        return;
    }
    runner_time_out(r, "files");
}

/*
 * What the workload must have done by now, and nothing else: who waits for it,
 * and who takes its word, look here.
 */
static bool is_past_deadline(const struct runner *r, uint64_t now)
{
    return r->phase == RUNNER_EXEC && r->deadline_ns != 0 &&
           now >= r->deadline_ns;
}

static bool is_past_file_deadline(const struct runner *r, uint64_t now)
{
    return r->file_deadline_ns != 0 && now >= r->file_deadline_ns;
}

bool runner_is_late(struct runner *r)
{
    uint64_t now = io_now_ns();

    if (is_past_deadline(r, now))
        runner_time_out(r, NULL);
    else if (r->phase == RUNNER_GET && is_past_file_deadline(r, now))
        runner_time_out(r, "files");
    else
        return r->phase != RUNNER_OVER &&
               keeper_is_expired(r->spec->keeper, now);
    return true;
}

static bool is_any_over(const struct runner *r, uint64_t now)
{
    return (r->phase < RUNNER_PUT && now >= r->ready_deadline_ns) ||
           is_past_deadline(r, now) || is_past_file_deadline(r, now) ||
           (r->phase == RUNNER_QUIESCE && now >= r->deadline_ns) ||
           (r->verdict_at_ns != 0 && now >= r->verdict_at_ns);
}

/* Deadlines, of which the first that is over ends the trial. */
static void check_deadlines(struct runner *r, uint64_t now)
{
    char limit[40];

    if (is_any_over(r, now) && runner_blame_stopped(r))
        return;
    if (r->phase < RUNNER_PUT && now >= r->ready_deadline_ns) {
        units_format_duration(r->spec->ready_ms, limit, sizeof(limit));
        if (!runner_blame_storage(r, "did not answer"))
            runner_fail(r, "guest_silent", r->machine->kernel_path,
                        "microsbx boot with the same options shows its "
                        "console; microsbx doctor looks at this host",
                        "the guest's agent did not answer within %s", limit);
    } else if (is_past_deadline(r, now)) {
        runner_time_out(r, NULL);
    } else if (r->phase == RUNNER_QUIESCE && now >= r->deadline_ns) {
        runner_quiesce_late(r);
    } else if (is_past_file_deadline(r, now)) {
        on_file_timeout(r);
    } else if (r->verdict_at_ns != 0 && now >= r->verdict_at_ns) {
        on_agent_lost(r);
    }
}

/* The host's own count: a monitor that is busy, or worse, tells none. */
static void check_cpu_here(struct runner *r)
{
    uint64_t ns;

    if (r->spec->cpu_time_ms == 0)
        return;
    ns = monitor_guest_cpu_ns(r->monitor);
    runner_check_cpu(r, ns > r->cpu_before_ns ? ns - r->cpu_before_ns : 0);
}

void runner_on_clock(struct runner *r)
{
    uint64_t now = io_now_ns();

    /* What ended it was in time: who took it has looked. */
    if (r->phase != RUNNER_OVER)
        check_deadlines(r, now);
    if (r->phase == RUNNER_AGE && now >= r->old_enough_ns)
        runner_is_old_enough(r);
    if (r->nudge_at_ns != 0 && now >= r->nudge_at_ns) {
        monitor_nudge(r->monitor);
        r->nudge_at_ns = now + MONITOR_NUDGE_MS * MS;
    }
    if (r->stats_at_ns != 0 && now >= r->stats_at_ns) {
        monitor_request_stats(r->monitor);
        check_cpu_here(r);
        r->stats_at_ns = now + STATS_EVERY_NS;
    }
    keeper_on_clock(r->spec->keeper, now);
}

/* When something is due by the clock; UINT64_MAX for never. */
static uint64_t next_due(const struct runner *r)
{
    uint64_t due = keeper_due_ns(r->spec->keeper);

    if (r->phase < RUNNER_PUT && r->ready_deadline_ns < due)
        due = r->ready_deadline_ns;
    if (r->phase < RUNNER_PUT && !r->client && r->link.fd < 0 &&
        r->link.retry_ns < due)
        due = r->link.retry_ns;
    if (r->deadline_ns != 0 && r->deadline_ns < due)
        due = r->deadline_ns;
    if (r->file_deadline_ns != 0 && r->file_deadline_ns < due)
        due = r->file_deadline_ns;
    if (r->old_enough_ns != 0 && r->old_enough_ns < due)
        due = r->old_enough_ns;
    if (r->nudge_at_ns != 0 && r->nudge_at_ns < due)
        due = r->nudge_at_ns;
    if (r->stats_at_ns != 0 && r->stats_at_ns < due)
        due = r->stats_at_ns;
    if (r->verdict_at_ns != 0 && r->verdict_at_ns < due)
        due = r->verdict_at_ns;
    return due;
}

int runner_init_clock(struct runner *r)
{
    r->armed_ns = UINT64_MAX;
    r->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    return r->timer_fd < 0 ? -errno : 0;
}

void runner_arm_clock(struct runner *r)
{
    uint64_t due = next_due(r);
    struct itimerspec when = {0};

    if (due == r->armed_ns)
        return;
    r->armed_ns = due;
    if (due == 0)
        due = 1; /* a time long past; 0 would be never */
    if (due != UINT64_MAX) {
        when.it_value.tv_sec = (time_t)(due / SECOND_NS);
        when.it_value.tv_nsec = (long)(due % SECOND_NS);
    }
    (void)timerfd_settime(r->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}
