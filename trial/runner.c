/* SPDX-License-Identifier: Apache-2.0 */
/* One trial, from an open machine to a verdict; see trial.h and runner.h. */
#include "trial/runner.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "trial/fetched.h"
#include "trial/host.h"
#include "trial/keeper_runner.h"

#define MS 1000000ull /* nanoseconds */

enum source {
    SOURCE_MONITOR,
    SOURCE_AGENT,
    SOURCE_STDIN,
    SOURCE_STDOUT,
    SOURCE_STDERR,
    SOURCE_SIGNAL,
    SOURCE_CONSOLE,
    SOURCE_CLOCK,
    SOURCE_COUNT
};

void runner_event(struct runner *r, const char *event, const char *detail)
{
    double ms = (double)(io_now_ns() - r->result->started_ns) / 1e6;

    if (!r->spec->events)
        return;
    /* detail is a word of ours or escaped text; quotes are replaced. */
    fprintf(r->spec->events, "{\"t_ms\": %.3f, \"event\": \"%s\"", ms, event);
    if (detail) {
        fputs(", \"detail\": \"", r->spec->events);
        for (; *detail; detail++)
            fputc(*detail == '"' || *detail == '\\' ? '\'' : *detail,
                  r->spec->events);
        fputc('"', r->spec->events);
    }
    fputs("}\n", r->spec->events);
    if (fflush(r->spec->events) != 0 && r->result->events_error == 0)
        r->result->events_error = errno;
}

void runner_fail(struct runner *r, const char *cause, const char *object,
                 const char *remedy, const char *format, ...)
{
    char message[sizeof(r->result->failure.message)];
    va_list args;

    r->phase = RUNNER_OVER;
    if (r->facts->host_failed)
        return;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    r->facts->host_failed = true;
    r->facts->cause = cause;
    failure_set(&r->result->failure, cause, object, remedy, "%s", message);
    runner_event(r, "failed", cause);
}

void runner_fail_with(struct runner *r, const struct failure *f)
{
    r->phase = RUNNER_OVER;
    if (r->facts->host_failed)
        return;
    r->result->failure = *f;
    r->facts->host_failed = true;
    r->facts->cause = r->result->failure.code;
    runner_event(r, "failed", f->code);
}

void runner_enter_phase(struct runner *r, enum runner_phase phase,
                        const char *name)
{
    r->phase = phase;
    runner_watch(r);
    r->file_index = 0;
    runner_event(r, "phase", name);
    if (r->spec->progress)
        r->spec->progress(r->spec->progress_ctx, name);
}

void runner_begin_workload(struct runner *r, uint64_t since_ns)
{
    const struct trial_spec *s = r->spec;

    r->facts->workload_may_run = true;
    r->result->exec_ns = since_ns;
    if (s->timeout_ms > 0)
        r->deadline_ns = r->result->exec_ns + s->timeout_ms * MS;
    if (s->cpu_time_ms > 0 || s->disk_ends)
        r->stats_at_ns = r->result->exec_ns;
}

size_t runner_add_output(struct runner *r, struct output *o, const void *bytes,
                         size_t len)
{
    size_t disposed = output_add(o, bytes, len);

    if (o->dropped > 0 && o->accepted >= o->limit && !r->result->hit_output) {
        r->result->hit_output = true;
        runner_event(r, "limit", "output");
        if (r->spec->output_ends && r->phase == RUNNER_EXEC &&
            !runner_is_late(r)) {
            r->facts->ended_by = LIMIT_OUTPUT;
            r->facts->limit_by_host = true;
            r->phase = RUNNER_OVER;
        }
    }
    return disposed;
}

void runner_cancel(struct runner *r, const char *cause, const char *message)
{
    r->facts->cancelled = true;
    /* As in outcome_decide: what the host did to a workload comes first. */
    if (!r->facts->host_failed || !r->facts->workload_may_run) {
        r->facts->cause = cause;
        failure_set(&r->result->failure, cause, "", NULL, "%s", message);
    }
    runner_event(r, "cancelled", cause);
    r->phase = RUNNER_OVER;
}

void runner_time_out(struct runner *r, const char *cause)
{
    r->facts->timed_out = true;
    if (!r->facts->host_failed)
        r->facts->cause = cause;
    r->result->hit_timeout = true;
    runner_event(r, "limit", cause ? cause : "timeout");
    r->phase = RUNNER_OVER;
}

void runner_power_off(struct runner *r)
{
    runner_cancel(r, "stopped", "the machine was stopped");
    r->phase = RUNNER_EXEC;
    agent_client_shutdown(r->client);
}

/* ---- signals, streams ---- */

static void on_signal(struct runner *r)
{
    struct signalfd_siginfo info;
    uint16_t rows = 0, columns = 0;
    struct failure f = {0};
    char message[64];

    if (read(r->spec->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH) {
        if (!r->exec_live || !r->spec->winsize)
            return;
        r->spec->winsize(r->spec->progress_ctx, &rows, &columns);
        agent_client_winsize(r->client, r->exec_id, rows, columns);
        return;
    }
    if (info.ssi_signo == SIGTSTP) {
        runner_event(r, TRIAL_NOT_STOPPED, NULL);
        if (r->spec->progress)
            r->spec->progress(r->spec->progress_ctx, TRIAL_NOT_STOPPED);
        return;
    }
    if (info.ssi_signo == SIGXCPU) {
        monitor_fail_cpu_limit(&f, "microsbx");
        runner_fail_with(r, &f);
        return;
    }
    snprintf(message, sizeof(message), "cancelled by signal %s",
             sigabbrev_np((int)info.ssi_signo));
    runner_cancel(r, "signal", message);
}

static void on_output_ready(struct runner *r, struct output *o, uint32_t stream,
                            const struct trial_sink *sink)
{
    ssize_t n = output_write(o);
    const char *name =
        stream == PROTO_STDOUT ? "standard output" : "standard error";

    if (n > 0)
        runner_consumed(r, stream, (size_t)n);
    if (n == -EPIPE)
        runner_cancel(r, "output_closed",
                      "cancelled: the reader of the output left");
    else if (n == -ENOSPC || n == -EDQUOT)
        runner_fail(r, "host_disk_full", sink->file ? sink->file : name,
                    "make room", "cannot write the workload's output to %s: %s",
                    sink->file ? sink->file : name, strerror((int)-n));
    else if (n < 0)
        runner_fail(r, "output_failed", sink->file ? sink->file : name,
                    "check where the output goes",
                    "cannot write the workload's output to %s: %s",
                    sink->file ? sink->file : name, strerror((int)-n));
}

/* ---- the loop ---- */

static int sink_fd(const struct output *o, const struct trial_sink *sink)
{
    /* Watched without events too: poll tells when the reader is gone. */
    return o->relay.error == 0 ? sink->fd : -1;
}

static void fill_polls(const struct runner *r, struct pollfd *polls)
{
    const struct trial_spec *s = r->spec;
    int agent = r->client ? agent_client_fd(r->client) : r->link.fd;
    short agent_events =
        r->client ? agent_client_events(r->client) : (short)POLLIN;

    if (r->verdict_at_ns != 0)
        agent = -1;
    polls[SOURCE_MONITOR] = (struct pollfd){
        r->machine_ended ? -1 : monitor_fd(r->monitor), POLLIN, 0};
    polls[SOURCE_AGENT] = (struct pollfd){agent, agent_events, 0};
    polls[SOURCE_STDIN] =
        (struct pollfd){runner_stdin_wanted(r) ? s->stdin_fd : -1, POLLIN, 0};
    polls[SOURCE_STDOUT] = (struct pollfd){
        sink_fd(&r->out, &s->out), output_pending(&r->out) ? POLLOUT : 0, 0};
    polls[SOURCE_STDERR] = (struct pollfd){
        sink_fd(&r->err, &s->err), output_pending(&r->err) ? POLLOUT : 0, 0};
    polls[SOURCE_SIGNAL] = (struct pollfd){s->signal_fd, POLLIN, 0};
    polls[SOURCE_CONSOLE] = (struct pollfd){
        runner_console_wanted(r) ? r->console_fd : -1, POLLIN, 0};
    /* Read by being armed anew: what is due by it is runner_on_clock's. */
    polls[SOURCE_CLOCK] = (struct pollfd){r->timer_fd, POLLIN, 0};
}

static void on_agent(struct runner *r, short revents)
{
    int fd = -1;

    if (r->client) {
        runner_agent_process(r, revents);
        return;
    }
    if (agent_link_read(&r->link, io_now_ns(), &fd) == 1) {
        int ret = runner_agent_start(r, fd);

        if (ret != 0)
            runner_fail(r, "host", "agent", NULL,
                        "cannot talk to the guest: %s", strerror(-ret));
    }
}

static void dispatch(struct runner *r, const struct pollfd *polls)
{
    if (polls[SOURCE_SIGNAL].revents)
        on_signal(r);
    if (polls[SOURCE_CONSOLE].revents)
        (void)runner_on_console(r);
    if (polls[SOURCE_AGENT].revents && r->phase != RUNNER_OVER)
        on_agent(r, polls[SOURCE_AGENT].revents);
    if (polls[SOURCE_MONITOR].revents)
        (void)runner_on_monitor(r);
    if (polls[SOURCE_STDIN].revents && runner_stdin_wanted(r))
        runner_stdin(r);
    if (polls[SOURCE_STDOUT].revents & POLLOUT)
        on_output_ready(r, &r->out, PROTO_STDOUT, &r->spec->out);
    else if (polls[SOURCE_STDOUT].revents && r->phase != RUNNER_OVER)
        runner_cancel(r, "output_closed",
                      "cancelled: the reader of the output left");
    if (polls[SOURCE_STDERR].revents & POLLOUT)
        on_output_ready(r, &r->err, PROTO_STDERR, &r->spec->err);
    else if (polls[SOURCE_STDERR].revents && r->phase != RUNNER_OVER)
        runner_cancel(r, "output_closed",
                      "cancelled: the reader of the errors left");
}

static void loop_until_over(struct runner *r)
{
    struct pollfd polls[SOURCE_COUNT + KEEPER_POLLS_MAX];
    struct pollfd *clients = polls + SOURCE_COUNT;

    while (r->phase != RUNNER_OVER) {
        uint64_t now = io_now_ns();
        size_t count;

        if (!r->client && r->phase == RUNNER_CONNECT &&
            agent_link_try(&r->link, r->monitor, now) != 0)
            runner_fail(r, "host", "agent", NULL,
                        "cannot reach the guest's agent: out of descriptors");
        fill_polls(r, polls);
        count = keeper_polls(r->spec->keeper, clients);
        runner_arm_clock(r);
        runner_watch(r);
        if (poll(polls, SOURCE_COUNT + count, -1) < 0) {
            if (errno != EINTR)
                runner_fail(r, "host", "poll", NULL, "poll failed: %s",
                            strerror(errno));
        } else {
            dispatch(r, polls);
            keeper_dispatch(r->spec->keeper, clients, count);
        }
        runner_on_clock(r);
    }
}

void runner_drain_output(struct runner *r)
{
    struct pollfd p[3];

    runner_drain_console(r);
    while ((output_pending(&r->out) || output_pending(&r->err)) &&
           !r->facts->cancelled && !r->facts->host_failed) {
        p[0] = (struct pollfd){output_pending(&r->out) ? r->spec->out.fd : -1,
                               POLLOUT, 0};
        p[1] = (struct pollfd){output_pending(&r->err) ? r->spec->err.fd : -1,
                               POLLOUT, 0};
        p[2] = (struct pollfd){r->spec->signal_fd, POLLIN, 0};
        if (poll(p, 3, -1) < 0 && errno != EINTR)
            break;
        if (p[2].revents)
            on_signal(r);
        if (p[0].revents)
            on_output_ready(r, &r->out, PROTO_STDOUT, &r->spec->out);
        if (p[1].revents)
            on_output_ready(r, &r->err, PROTO_STDERR, &r->spec->err);
        runner_drain_console(r);
    }
}

/* Everything up to the guest's first instruction. */
static int prepare(struct runner *r)
{
    struct failure *f = &r->result->failure;
    int ret = runner_init_clock(r);

    if (ret == 0)
        ret = output_init(&r->out, &r->spec->out, r->spec->output_limit);
    if (ret == 0)
        ret = output_init(&r->err, &r->spec->err, r->spec->output_limit);
    if (ret == 0 && !(r->spec->vm && r->spec->vm->monitor))
        ret = runner_open_console(r);
    if (ret != 0) {
        failure_set(f, "host", "trial", failure_remedy(ret, NULL),
                    "cannot prepare the trial: %s", strerror(-ret));
        return ret;
    }
    if (!r->spec->no_agent)
        machine_add_vsock(r->machine);
    ret = runner_take_monitor(r);
    if (ret != 0)
        r->facts->cause = f->code;
    return ret;
}

/* What an earlier trial has fetched is not to be taken for this one's. */
static int forget_fetched(struct runner *r)
{
    struct failure *f = &r->result->failure;
    int ret = fetched_forget(r->spec->files, r->spec->file_count, f);

    if (ret != 0)
        r->facts->cause = f->code;
    return ret;
}

static void runner_fini(struct runner *r)
{
    agent_client_free(r->client);
    agent_link_fini(&r->link);
    monitor_free(r->monitor);
    output_fini(&r->out);
    output_fini(&r->err);
    digest_free(r->file_digest);
    io_close(&r->file_fd);
    whole_file_drop(&r->fetched);
    io_close(&r->console_fd);
    io_close(&r->timer_fd);
}

/* What comes from here on is neither the workload's time nor its files'. */
static void end_of_time(struct trial_result *result)
{
    result->over_ns = io_now_ns();
    if (result->exec_ns != 0 && result->exec_end_ns == 0)
        result->exec_end_ns = result->over_ns;
}

void trial_run(const struct trial_spec *spec, struct machine *machine,
               struct trial_result *ret_result)
{
    struct timespec wall;
    struct runner r = {
        .spec = spec,
        .machine = machine,
        .result = ret_result,
        .facts = &ret_result->facts,
        .file_fd = -1,
        .fetched = {.fd = -1},
        .console_fd = -1,
        .timer_fd = -1,
    };

    memset(ret_result, 0, sizeof(*ret_result));
    clock_gettime(CLOCK_REALTIME, &wall);
    ret_result->started_at = (double)wall.tv_sec + (double)wall.tv_nsec / 1e9;
    ret_result->started_ns = io_now_ns();
    agent_link_init(&r.link);
    r.ready_deadline_ns = ret_result->started_ns + spec->ready_ms * MS;
    if (host_is_emulated())
        r.nudge_at_ns = ret_result->started_ns + MONITOR_NUDGE_MS * MS;
    keeper_attach(spec->keeper, &r);
    runner_enter_phase(&r, RUNNER_CONNECT, spec->restore ? "start" : "boot");
    if (forget_fetched(&r) == 0 && prepare(&r) == 0) {
        runner_watch_begin(&r);
        if (spec->no_agent) {
            runner_begin_workload(&r, r.go_ns);
            runner_enter_phase(&r, RUNNER_EXEC, "run");
            keeper_on_ready(spec->keeper);
        }
        runner_event(&r, "running", NULL);
        loop_until_over(&r);
        end_of_time(ret_result);
        runner_watch_end(&r);
        if (r.facts->timed_out)
            runner_halt(&r);
        runner_freeze(&r);
        if (!runner_leave_monitor(&r))
            runner_stop_machine(&r);
        runner_drain_output(&r);
    }
    runner_check_snapshot(&r);
    if (r.out.digest && r.err.digest) {
        output_result(&r.out, &ret_result->out);
        output_result(&r.err, &ret_result->err);
        if (spec->no_agent && ret_result->has_stats)
            ret_result->out.dropped += ret_result->stats.console_dropped;
    }
    keeper_detach(spec->keeper);
    runner_fini(&r);
    ret_result->end_ns = io_now_ns();
    ret_result->outcome = outcome_decide(&ret_result->facts);
    fetched_count(spec, ret_result);
    runner_event(&r, "outcome", outcome_name(ret_result->outcome.kind));
}
