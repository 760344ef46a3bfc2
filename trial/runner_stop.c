/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a trial's machine. At the deadline nobody is asked: the monitor is
 * stopped by the host as it stands, what had come out of it by then is taken,
 * and it goes on only to say its last numbers. Otherwise it is asked to stop.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/patience.h"
#include "trial/runner.h"

#define MS 1000000ull /* nanoseconds */
/* A monitor that has been told to stop does so at once; this is generous. */
#define STOP_TIMEOUT_MS 10000
#define HALT_TIMEOUT_MS 10000
/* One that the host holds up has this long to answer all the same. */
#define PATIENCE_MS 1000
/* The same where its last numbers decide whether what the guest says holds. */
#define VERDICT_PATIENCE_MS 5000
/* Far more than a guest can cause before its machine is stopped: dials. */
#define EVENTS_MAX 100000u
/* Rounds in which the agent's frames are taken: more than a socket holds. */
#define REST_ROUNDS_MAX 64u

/* The frames that lie in our socket. Nothing comes after them. */
static void take_rest_of_agent(struct runner *r)
{
    struct pollfd p = {agent_client_fd(r->client), POLLIN, 0};

    for (unsigned i = 0; i < REST_ROUNDS_MAX && poll(&p, 1, 0) > 0; i++) {
        runner_agent_process(r, POLLIN);
        if (p.revents & (POLLHUP | POLLERR))
            break;
    }
}

static void say_storage_is_slow(struct runner *r)
{
    r->storage_slow = true;
    runner_event(r, "storage_slow", NULL);
}

bool runner_blame_stopped(struct runner *r)
{
    struct failure f = {0};

    if (r->machine_ended || !r->monitor || r->halted ||
        !monitor_is_stopped(r->monitor) || runner_watch_has_fired(r))
        return false;
    r->past_asking = true;
    monitor_fail_stopped(&f, "while the guest was to run");
    runner_fail_with(r, &f);
    return true;
}

void runner_halt(struct runner *r)
{
    int ret, left = 0;

    if (r->halted || r->machine_ended || !r->monitor || runner_blame_stopped(r))
        return;
    r->halted = true;
    r->phase = RUNNER_OVER;
    ret = monitor_suspend(r->monitor, HALT_TIMEOUT_MS);
    r->past_asking = ret == -EBUSY || ret == -ETIMEDOUT;
    if (ret == -EBUSY)
        say_storage_is_slow(r);
    if (r->client)
        take_rest_of_agent(r);
    if (r->console_fd >= 0 && ioctl(r->console_fd, FIONREAD, &left) == 0)
        r->console_left = (size_t)left;
}

static const char *storage_of(const struct runner *r)
{
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        if (r->machine->disk_paths[i])
            return r->machine->disk_paths[i];
    return "this host's storage";
}

#define STORAGE_REMEDY                                                         \
    "look at the disk, its folder and TMPDIR on this host; --overlay memory "  \
    "keeps what a guest writes off the storage"

bool runner_blame_storage(struct runner *r, const char *what)
{
    runner_halt(r);
    if (!r->storage_slow)
        return false;
    runner_fail(r, "host_storage_slow", storage_of(r), STORAGE_REMEDY,
                "the guest %s in time: the monitor waits for this host's "
                "storage",
                what);
    return true;
}

/*
 * A time-out stays one: this is why the guest could not have done better. One
 * by its own CPU time, or at the end of a machine's life, has its reason.
 */
static void explain_time_out(struct runner *r)
{
    if (!r->facts->timed_out || !r->storage_slow || r->facts->host_failed ||
        (r->facts->cause && strcmp(r->facts->cause, "files") != 0))
        return;
    r->facts->cause = "host_storage_slow";
    failure_set(&r->result->failure, r->facts->cause, storage_of(r),
                STORAGE_REMEDY,
                "when its time was over, the guest's monitor was waiting for "
                "this host's storage");
}

/*
 * The workload has ended as it says, if only the host has refused no write of
 * it: what the monitor alone can tell.
 */
static bool is_verdict_open(const struct runner *r)
{
    const struct outcome_facts *f = r->facts;

    return f->has_status && !f->timed_out && !f->cancelled && !f->host_failed &&
           !f->monitor_fault && r->machine->disk_paths[0];
}

static void on_slow_end(struct runner *r)
{
    say_storage_is_slow(r);
    if (is_verdict_open(r))
        runner_fail(r, "host_storage_slow", storage_of(r), STORAGE_REMEDY,
                    "the workload ended, but whether this host has taken all "
                    "it wrote is not known: the monitor waits for storage");
}

/* It will not answer soon, for no fault of its own. */
static bool is_held_by_host(struct runner *r)
{
    if (monitor_in_storage(r->monitor))
        on_slow_end(r);
    else if (!r->facts->cancelled && runner_blame_stopped(r))
        return true;
    else if (!monitor_is_stopped(r->monitor))
        return false;
    r->past_asking = true;
    return true;
}

/* Asks it to stop, and waits for its last word. */
static void await_end(struct runner *r)
{
    struct patience all = patience_of_ms(STOP_TIMEOUT_MS);
    uint64_t patience_ms =
        is_verdict_open(r) ? VERDICT_PATIENCE_MS : PATIENCE_MS;
    unsigned events = 0;
    bool told = false;

    while (!r->machine_ended) {
        struct pollfd p = {monitor_fd(r->monitor), POLLIN, 0};

        /* A busy one has no room for the word yet: say it again. */
        if (!told)
            told = monitor_stop(r->monitor) != -EAGAIN;
        if (events > EVENTS_MAX) {
            runner_on_lie(r);
            r->past_asking = true;
            break;
        }
        events += runner_on_monitor(r);
        if (patience_poll(&all, &p, 1) > 0)
            continue;
        if (all.left_ns <= (STOP_TIMEOUT_MS - patience_ms) * MS &&
            is_held_by_host(r))
            break;
        if (patience_is_over(&all)) {
            r->past_asking = true;
            r->facts->monitor_fault = true;
            r->facts->cause = "monitor_hung";
            break;
        }
    }
}

void runner_stop_machine(struct runner *r)
{
    explain_time_out(r);
    if (r->halted && !r->past_asking)
        monitor_continue(r->monitor);
    if (!r->past_asking)
        await_end(r);
    if (r->result->has_stats)
        runner_on_stats(r, &r->result->stats);
    runner_reap_monitor(r);
}
