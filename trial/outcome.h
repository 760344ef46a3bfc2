/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a trial ended: a closed set of outcomes, decided from facts by one pure
 * function. What the monitor, the kernel and the clock of the host saw is a
 * fact; what the guest's agent said is a claim (outcome_by "guest").
 */
#ifndef MICROSBX_TRIAL_OUTCOME_H
#define MICROSBX_TRIAL_OUTCOME_H

#include <stdbool.h>

enum outcome_kind {
    OUTCOME_OK,
    OUTCOME_FAIL,
    OUTCOME_SIGNAL,
    OUTCOME_TIMEOUT,
    OUTCOME_OOM,
    OUTCOME_DISK_FULL,
    OUTCOME_PIDS_LIMIT,
    OUTCOME_OUTPUT_LIMIT,
    OUTCOME_GUEST_PANIC,
    OUTCOME_GUEST_HALT,
    OUTCOME_PROTOCOL_VIOLATION,
    OUTCOME_MONITOR_FAULT,
    OUTCOME_CANCELLED,
    OUTCOME_INFRA_NEVER_RAN,
    OUTCOME_INFRA_UNKNOWN,
};
#define OUTCOME_LAST OUTCOME_INFRA_UNKNOWN

/* A limit that ended the trial (not one that was merely touched). */
enum limit_kind {
    LIMIT_NONE,
    LIMIT_MEMORY,
    LIMIT_DISK,
    LIMIT_PIDS,
    LIMIT_OUTPUT,
};

/* What was seen. All false at the start. */
struct outcome_facts {
    bool guest_ran;          /* the monitor said RUNNING */
    bool workload_may_run;   /* the exec request was sent */
    bool monitor_fault;      /* it crashed, lied, or KVM failed in it */
    bool host_failed;        /* the host did it: disk full, SIGKILL, ... */
    bool cancelled;          /* SIGINT, SIGTERM, closed output */
    bool timed_out;          /* by the host's clock, or else ... */
    bool timed_out_by_guest; /* ... by the agent's */
    enum limit_kind ended_by;
    bool limit_by_host; /* ended_by is the host's finding */
    bool guest_panic;
    bool guest_halt;      /* power-off, reset, triple fault */
    bool protocol_broken; /* the agent broke its protocol or hung up */
    bool has_status;      /* the exit frame came: a claim */
    int exit_code;
    int signal;        /* 0: exited */
    const char *cause; /* a stable word, or NULL */
};

struct outcome {
    enum outcome_kind kind;
    bool by_host;
    const char *cause; /* a stable word, or NULL */
};

/*
 * The first that applies: monitor_fault, infra_unknown, cancelled, timeout,
 * the limit that ended it, guest_panic, guest_halt, protocol_violation, the
 * workload's status. If the workload cannot have run, every ending but
 * monitor_fault and cancelled is infra_never_ran.
 */
struct outcome outcome_decide(const struct outcome_facts *facts);

/* "ok", "infra_never_ran", ... */
const char *outcome_name(enum outcome_kind kind);

/* In place of 0: the workload ended with it, but something asked for could not
 * be delivered. */
#define OUTCOME_STATUS_UNDELIVERED 123

/* The exit status of `run` for it; 124 to 137 may also be a workload's. */
int outcome_exit_status(const struct outcome *outcome,
                        const struct outcome_facts *facts);

#endif
