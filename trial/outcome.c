/* SPDX-License-Identifier: Apache-2.0 */
/* Outcomes from facts; see the header. */
#include "trial/outcome.h"

#include <stddef.h>

static struct outcome host(enum outcome_kind kind, const char *cause)
{
    return (struct outcome){.kind = kind, .by_host = true, .cause = cause};
}

static struct outcome guest(enum outcome_kind kind, const char *cause)
{
    return (struct outcome){.kind = kind, .by_host = false, .cause = cause};
}

static struct outcome by_limit(const struct outcome_facts *f)
{
    static const enum outcome_kind KINDS[] = {
        [LIMIT_MEMORY] = OUTCOME_OOM,
        [LIMIT_DISK] = OUTCOME_DISK_FULL,
        [LIMIT_PIDS] = OUTCOME_PIDS_LIMIT,
        [LIMIT_OUTPUT] = OUTCOME_OUTPUT_LIMIT,
    };
    enum outcome_kind kind = KINDS[f->ended_by];

    /* The limit says it all; a cause is that of an end which came behind. */
    return f->limit_by_host ? host(kind, NULL) : guest(kind, NULL);
}

struct outcome outcome_decide(const struct outcome_facts *f)
{
    /* guest_ran is the monitor's own word: not needed against itself. */
    if (f->monitor_fault && (f->guest_ran || f->workload_may_run))
        return host(OUTCOME_MONITOR_FAULT, f->cause);
    if (f->cancelled && (!f->workload_may_run || !f->host_failed))
        return host(OUTCOME_CANCELLED, f->cause);
    if (!f->workload_may_run)
        return host(OUTCOME_INFRA_NEVER_RAN, f->cause           ? f->cause
                                             : f->guest_panic   ? "guest_panic"
                                             : f->guest_halt    ? "guest_halt"
                                             : f->monitor_fault ? "monitor"
                                                                : NULL);
    if (f->host_failed)
        return host(OUTCOME_INFRA_UNKNOWN, f->cause);
    if (f->timed_out)
        return f->timed_out_by_guest ? guest(OUTCOME_TIMEOUT, f->cause)
                                     : host(OUTCOME_TIMEOUT, f->cause);
    if (f->ended_by != LIMIT_NONE)
        return by_limit(f);
    if (f->guest_panic)
        return host(OUTCOME_GUEST_PANIC, f->cause);
    if (f->guest_halt)
        return host(OUTCOME_GUEST_HALT, f->cause);
    if (f->protocol_broken)
        return host(OUTCOME_PROTOCOL_VIOLATION, f->cause);
    if (!f->has_status)
        return host(OUTCOME_INFRA_UNKNOWN, "no_status");
    if (f->signal != 0)
        return guest(OUTCOME_SIGNAL, f->cause);
    return guest(f->exit_code == 0 ? OUTCOME_OK : OUTCOME_FAIL, f->cause);
}

const char *outcome_name(enum outcome_kind kind)
{
    switch (kind) {
    case OUTCOME_OK:
        return "ok";
    case OUTCOME_FAIL:
        return "fail";
    case OUTCOME_SIGNAL:
        return "signal";
    case OUTCOME_TIMEOUT:
        return "timeout";
    case OUTCOME_OOM:
        return "oom";
    case OUTCOME_DISK_FULL:
        return "disk_full";
    case OUTCOME_PIDS_LIMIT:
        return "pids_limit";
    case OUTCOME_OUTPUT_LIMIT:
        return "output_limit";
    case OUTCOME_GUEST_PANIC:
        return "guest_panic";
    case OUTCOME_GUEST_HALT:
        return "guest_halt";
    case OUTCOME_PROTOCOL_VIOLATION:
        return "protocol_violation";
    case OUTCOME_MONITOR_FAULT:
        return "monitor_fault";
    case OUTCOME_CANCELLED:
        return "cancelled";
    case OUTCOME_INFRA_NEVER_RAN:
        return "infra_never_ran";
    case OUTCOME_INFRA_UNKNOWN:
        return "infra_unknown";
    }
    return "infra_unknown";
}

int outcome_exit_status(const struct outcome *outcome,
                        const struct outcome_facts *facts)
{
    switch (outcome->kind) {
    case OUTCOME_OK:
    case OUTCOME_FAIL:
        return facts->exit_code;
    case OUTCOME_SIGNAL:
        return 128 + facts->signal;
    case OUTCOME_TIMEOUT:
        return 124;
    case OUTCOME_INFRA_NEVER_RAN:
        return 125;
    case OUTCOME_CANCELLED:
        return 130;
    default:
        return 137;
    }
}
