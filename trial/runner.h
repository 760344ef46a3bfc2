/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of trial_run: one poll loop over the monitor, the agent, the
 * user's streams, signals and the clock. Private to trial/.
 *
 * runner.c         the loop, its phases and its end
 * runner_clock.c   what is due, and what is late
 * runner_monitor.c what the monitor's events mean
 * runner_agent.c   what the agent's events mean
 * runner_bare.c    the guest without an agent: its console, its last word
 * runner_restore.c the guest that comes from a snapshot
 * runner_vm.c      the monitor: a new one, or one that is rolled back
 * runner_freeze.c  the guest that becomes one
 * runner_stop.c    the end of the machine, at the deadline and otherwise
 * runner_watchdog.c the deadline, while the loop is held up by a write
 *
 * A trial with a keeper (keeper_runner.h) also serves its clients in the loop.
 */
#ifndef MICROSBX_TRIAL_RUNNER_H
#define MICROSBX_TRIAL_RUNNER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/whole_file.h"
#include "trial/agent_client.h"
#include "trial/agent_link.h"
#include "trial/output.h"
#include "trial/trial.h"

enum runner_phase {
    RUNNER_CONNECT, /* the machine boots; the agent does not answer yet */
    RUNNER_RESTORE, /* the agent is told that it was restored */
    RUNNER_PUT,
    RUNNER_EXEC, /* without an agent the first one */
    RUNNER_GET,
    RUNNER_AGE,     /* pinned: the guest is too young to be frozen */
    RUNNER_QUIESCE, /* the agent makes ready to be frozen */
    RUNNER_OVER,    /* nothing more is expected of the guest */
};

#define RUNNER_LINE_MAX 1024u

/* Looks for a line in a stream of bytes. */
struct line_watch {
    char line[RUNNER_LINE_MAX];
    size_t len; /* of the line so far; longer ones can be no match */
    bool seen;
};

struct runner {
    const struct trial_spec *spec;
    struct machine *machine;
    struct trial_result *result;
    struct outcome_facts *facts; /* of result */
    struct monitor *monitor;
    struct agent_link link;
    struct agent_client *client; /* NULL until connected */
    enum runner_phase phase;
    struct output out, err;
    uint32_t exec_id;
    bool exec_live;
    bool stdin_open;
    size_t file_index; /* of spec->files: the one in progress, or next */
    uint32_t file_id;
    int file_fd;               /* its local file, or -1 */
    struct whole_file fetched; /* ... or one that appears when it is whole */
    uint64_t file_deadline_ns; /* of the file in progress; 0: none */
    struct digest *file_digest;
    int console_fd;         /* our end; -1 */
    int timer_fd;           /* rings at armed_ns; -1 */
    uint64_t armed_ns;      /* UINT64_MAX: never */
    uint64_t scratch_limit; /* bytes; 0: it has no such disk */
    uint64_t go_ns;         /* a bare guest's time counts from here */
    uint64_t ready_deadline_ns;
    uint64_t deadline_ns;   /* of the workload; 0: none yet */
    uint64_t stats_at_ns;   /* next look at the counters; 0: not needed */
    uint64_t verdict_at_ns; /* connection lost: wait for the reason till then */
    uint64_t nudge_at_ns;   /* emulated hosts only; 0: never */
    bool stats_seen;        /* the last request for counters was answered */
    bool machine_ended;     /* EXIT or GONE was seen */
    bool halted;            /* at its deadline: nothing later counts */
    bool storage_slow;      /* the monitor waited for the host's storage */
    bool past_asking;       /* the monitor will not answer: only killed */
    size_t console_left;    /* halted: bytes that were there to read by then */
    struct watchdog *watchdog; /* or NULL */
    bool watch_fired;          /* it stopped the monitor */
    uint64_t watched_ns;       /* the deadline that it has */
    uint64_t cpu_before_ns;    /* of the vCPUs, when this trial began */
    struct line_watch ready;   /* freeze->ready */
    uint64_t old_enough_ns;    /* RUNNER_AGE: till then */
    bool quiesced;             /* freeze: now */
    uint64_t machine_memory;   /* bytes */
    char seed_line[128];       /* restore->send: what stdin is to begin with */
};

/* Ends the trial for the host's own reason; the first reason stays. */
void runner_fail(struct runner *r, const char *cause, const char *object,
                 const char *remedy, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The same with a failure that is known already. */
void runner_fail_with(struct runner *r, const struct failure *f);

/* Ends the trial because somebody wants it to end. */
void runner_cancel(struct runner *r, const char *cause, const char *message);
/* Ends the trial by the host's clock; cause may be NULL. */
void runner_time_out(struct runner *r, const char *cause);
/*
 * Asks the guest to sync and power off: the trial is cancelled, whatever the
 * guest says or does from now on, and over when the machine is.
 */
void runner_power_off(struct runner *r);

/* One NDJSON line, if the user asked for them. */
void runner_event(struct runner *r, const char *event, const char *detail);

/* The workload may run: its clock ticks since then. */
void runner_begin_workload(struct runner *r, uint64_t since_ns);

/* The timer of the loop: 0 or a negative errno. */
int runner_init_clock(struct runner *r) __attribute__((warn_unused_result));
/* Before each poll: the timer is readable when something is due. */
void runner_arm_clock(struct runner *r);
/* Behind each poll, and what it brought: does what is due. */
void runner_on_clock(struct runner *r);
/*
 * Called behind an event by which the workload would end (or a file of it be
 * there) and before it is believed. True: it came after the deadline, and the
 * trial is timed out.
 */
bool runner_is_late(struct runner *r);
/* Says which phase it is, to whoever wants to know. */
void runner_enter_phase(struct runner *r, enum runner_phase phase,
                        const char *name);
/* Bytes of the workload on their way to o's sink: returns how many of them are
 * disposed of at once. Notes the output limit. */
size_t runner_add_output(struct runner *r, struct output *o, const void *bytes,
                         size_t len);

/* Our end of the guest's console: 0 or a negative errno. */
int runner_open_console(struct runner *r) __attribute__((warn_unused_result));
/* True if what the guest says there can be taken now. */
bool runner_console_wanted(const struct runner *r);
/* The console is readable: takes a piece. False if there was none. */
bool runner_on_console(struct runner *r);
/* The guest is over: takes what it said before, as far as there is room. */
void runner_drain_console(struct runner *r);
/*
 * What the workload wrote reaches the user, however slow the reader is. After
 * it the console has been read to its end, unless the trial was cancelled or
 * the host failed.
 */
void runner_drain_output(struct runner *r);
/* A guest without an agent ended its machine: true if that decides it. */
bool runner_bare_status(struct runner *r, const struct monitor_exit *e);

/* Called when something of a phase has ended: goes on, or to the next. */
void runner_next_step(struct runner *r);

/*
 * The guest's time is over: stops the monitor as it stands, and takes what had
 * come out of it by then: the agent's frames in our socket, the console's bytes
 * in theirs, and no more of either. Once; later calls do nothing.
 */
void runner_halt(struct runner *r);
/*
 * A time has passed that the guest or the monitor had. If the monitor could not
 * help it, because it waits for this host's storage, that is the reason for the
 * end: true. Halts it to know.
 */
bool runner_blame_storage(struct runner *r, const char *what);
/*
 * The same for a monitor that somebody stopped (SIGSTOP) and did not continue;
 * it is then only killed.
 */
bool runner_blame_stopped(struct runner *r);
/*
 * Has the monitor stopped soon after the deadline even if the loop cannot,
 * because it writes to a file on storage that does not answer. Pre: the machine
 * runs. _end before the monitor is reaped.
 */
void runner_watch_begin(struct runner *r);
/* The deadline may have changed. */
void runner_watch(struct runner *r);
void runner_watch_end(struct runner *r);
/* True if it was that which stopped the monitor, and nobody from outside. */
bool runner_watch_has_fired(struct runner *r);
/* What the monitor says cannot be: its fault. */
void runner_on_lie(struct runner *r);
/* Ends the machine, whatever the monitor has become. */
void runner_stop_machine(struct runner *r);
/* The vCPUs' time, as the host's scheduler counts it: a limit. */
void runner_check_cpu(struct runner *r, uint64_t guest_cpu_ns);

/* The monitor of this trial, with the guest running. 0 or a negative errno. */
int runner_take_monitor(struct runner *r) __attribute__((warn_unused_result));
/* The trial is over: leaves the machine to the next one. False if it is to
 * be stopped. */
bool runner_leave_monitor(struct runner *r);

/* Between READY and the first instruction: proves, if asked to. */
int runner_prove(struct runner *r) __attribute__((warn_unused_result));
/* Tells the agent what it is now. */
void runner_begin_restore(struct runner *r);
void runner_on_restored(void *arg, const struct proto_restored *restored);
/* Takes the waiting process over. 0 or a negative errno. */
int runner_attach(struct runner *r) __attribute__((warn_unused_result));
/* It has begun to serve: its input begins with a line of fresh seed bytes. */
void runner_begin_input(struct runner *r);
/* The trial is over: was the snapshot the same all the while? */
void runner_check_snapshot(struct runner *r);

/* Bytes in which the line that says "ready" may be. */
void runner_watch_ready(struct runner *r, const void *bytes, size_t len);
/* The warm-up is done, or waits: asks the agent to park, once it may. */
void runner_begin_quiesce(struct runner *r);
/* The time for which RUNNER_AGE waits has come. */
void runner_is_old_enough(struct runner *r);
/* The process that was to wait in there has ended: nothing is frozen. */
void runner_waiting_ended(struct runner *r);
/* It has not parked in the time it has. */
void runner_quiesce_late(struct runner *r);
void runner_on_quiesced(void *arg, const struct proto_quiesced *quiesced);
/* The loop is over: stops the machine and has it saved, if it is ready. */
void runner_freeze(struct runner *r);

/*
 * The monitor's socket is readable, or may have been while an order waited for
 * its answer: takes one event. False if there was none.
 */
bool runner_on_monitor(struct runner *r);
/*
 * The machine was rolled back: takes what the monitor had said by then, so that
 * the next trial hears nothing of it. False: it said that it ended.
 */
bool runner_forget_events(struct runner *r);
/*
 * One that was kept is lost before this trial ran, or keeps an order's answer
 * to itself. It has run a guest: it is the suspect.
 */
void runner_blame_kept(struct runner *r);
/* Waits for its end and blames it for a bad one; kills it if need be. */
void runner_reap_monitor(struct runner *r);
/* The counters once more, as the end of the machine would tell them. */
void runner_ask_for_stats(struct runner *r);
/* The host has refused a write of the guest's, as far as was heard. */
bool runner_disk_refused(const struct runner *r);
/* Counters came: limits that the host enforces. */
void runner_on_stats(struct runner *r, const struct monitor_stats *stats);

/* Makes the client over a connected stream: 0 or a negative errno. */
int runner_agent_start(struct runner *r, int fd)
    __attribute__((warn_unused_result));
/* The agent's descriptor is ready, or looked at once more. */
void runner_agent_process(struct runner *r, short revents);
/* Gives stdin bytes to the workload when both sides are ready. */
void runner_stdin(struct runner *r);
/* True if stdin should be polled. */
bool runner_stdin_wanted(const struct runner *r);
/* Milliseconds one file may take into the guest or out of it. */
uint64_t runner_file_ms(const struct runner *r);
/* Credit for output that has been written. */
void runner_consumed(struct runner *r, uint32_t stream, size_t bytes);

#endif
