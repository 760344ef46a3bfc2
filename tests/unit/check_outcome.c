/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every combination of facts against the order that the contract states, and
 * the exit status of each outcome.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "trial/outcome.h"

#define BITS 13
#define COMBINATIONS (1u << BITS)

/* The facts numbered `bits`; a limit is given apart. */
static struct outcome_facts facts_of(unsigned bits, enum limit_kind limit)
{
    return (struct outcome_facts){
        .guest_ran = bits & 1,
        .workload_may_run = bits >> 1 & 1,
        .monitor_fault = bits >> 2 & 1,
        .host_failed = bits >> 3 & 1,
        .cancelled = bits >> 4 & 1,
        .timed_out = bits >> 5 & 1,
        .limit_by_host = bits >> 6 & 1,
        .guest_panic = bits >> 7 & 1,
        .guest_halt = bits >> 8 & 1,
        .protocol_broken = bits >> 9 & 1,
        .has_status = bits >> 10 & 1,
        .exit_code = bits >> 11 & 1 ? 3 : 0,
        .signal = bits >> 12 & 1 ? 9 : 0,
        .ended_by = limit,
    };
}

/* The contract's list, word for word: the first that applies. */
static enum outcome_kind first_that_applies(const struct outcome_facts *f)
{
    const struct {
        bool applies;
        enum outcome_kind kind;
    } list[] = {
        {f->monitor_fault && (f->guest_ran || f->workload_may_run),
         OUTCOME_MONITOR_FAULT},
        {f->host_failed && f->workload_may_run, OUTCOME_INFRA_UNKNOWN},
        {f->cancelled, OUTCOME_CANCELLED},
        {!f->workload_may_run, OUTCOME_INFRA_NEVER_RAN},
        {f->timed_out, OUTCOME_TIMEOUT},
        {f->ended_by == LIMIT_MEMORY, OUTCOME_OOM},
        {f->ended_by == LIMIT_DISK, OUTCOME_DISK_FULL},
        {f->ended_by == LIMIT_PIDS, OUTCOME_PIDS_LIMIT},
        {f->ended_by == LIMIT_OUTPUT, OUTCOME_OUTPUT_LIMIT},
        {f->guest_panic, OUTCOME_GUEST_PANIC},
        {f->guest_halt, OUTCOME_GUEST_HALT},
        {f->protocol_broken, OUTCOME_PROTOCOL_VIOLATION},
        {!f->has_status, OUTCOME_INFRA_UNKNOWN},
        {f->signal != 0, OUTCOME_SIGNAL},
        {f->exit_code != 0, OUTCOME_FAIL},
    };

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        if (list[i].applies)
            return list[i].kind;
    }
    return OUTCOME_OK;
}

static bool is_workloads(enum outcome_kind kind)
{
    return kind == OUTCOME_OK || kind == OUTCOME_FAIL || kind == OUTCOME_SIGNAL;
}

/* Who decided: the agent's word for a workload's end, and for its limits. */
static bool decided_by_host(const struct outcome_facts *f,
                            enum outcome_kind kind)
{
    switch (kind) {
    case OUTCOME_OK:
    case OUTCOME_FAIL:
    case OUTCOME_SIGNAL:
        return false;
    case OUTCOME_OOM:
    case OUTCOME_DISK_FULL:
    case OUTCOME_PIDS_LIMIT:
    case OUTCOME_OUTPUT_LIMIT:
        return f->limit_by_host;
    default:
        return true;
    }
}

START_TEST(test_order)
{
    enum limit_kind limit = (enum limit_kind)_i;

    for (unsigned bits = 0; bits < COMBINATIONS; bits++) {
        struct outcome_facts f = facts_of(bits, limit);
        struct outcome o = outcome_decide(&f);

        ck_assert_int_eq(o.kind, first_that_applies(&f));
        ck_assert_int_eq(o.by_host, decided_by_host(&f, o.kind));
    }
}
END_TEST

/* No result of a workload without a live guest, an exec, and an exit frame. */
START_TEST(test_dead_is_never_ok)
{
    for (unsigned bits = 0; bits < COMBINATIONS; bits++) {
        struct outcome_facts f = facts_of(bits, LIMIT_NONE);
        bool dead = f.monitor_fault && (f.guest_ran || f.workload_may_run);

        dead = dead || f.host_failed || f.guest_panic || f.guest_halt ||
               f.protocol_broken || !f.has_status || !f.workload_may_run;
        if (dead)
            ck_assert(!is_workloads(outcome_decide(&f).kind));
    }
}
END_TEST

START_TEST(test_cause)
{
    struct outcome_facts f = {.guest_ran = true, .guest_panic = true};

    ck_assert_str_eq(outcome_decide(&f).cause, "guest_panic");
    f = (struct outcome_facts){.guest_ran = true, .guest_halt = true};
    ck_assert_str_eq(outcome_decide(&f).cause, "guest_halt");
    f = (struct outcome_facts){.monitor_fault = true};
    ck_assert_str_eq(outcome_decide(&f).cause, "monitor");
    f = (struct outcome_facts){.workload_may_run = true};
    ck_assert_str_eq(outcome_decide(&f).cause, "no_status");
    f = (struct outcome_facts){.workload_may_run = true,
                               .host_failed = true,
                               .cause = "monitor_killed"};
    ck_assert_str_eq(outcome_decide(&f).cause, "monitor_killed");
    /* It powered itself off behind a write that was refused. */
    f = (struct outcome_facts){.workload_may_run = true,
                               .has_status = true,
                               .ended_by = LIMIT_DISK,
                               .cause = "power_off"};
    ck_assert_ptr_null(outcome_decide(&f).cause);
}
END_TEST

static const struct {
    enum outcome_kind kind;
    const char *name;
    int status; /* with exit code 3 and signal 9 */
} outcomes[] = {
    {OUTCOME_OK, "ok", 3},
    {OUTCOME_FAIL, "fail", 3},
    {OUTCOME_SIGNAL, "signal", 137},
    {OUTCOME_TIMEOUT, "timeout", 124},
    {OUTCOME_OOM, "oom", 137},
    {OUTCOME_DISK_FULL, "disk_full", 137},
    {OUTCOME_PIDS_LIMIT, "pids_limit", 137},
    {OUTCOME_OUTPUT_LIMIT, "output_limit", 137},
    {OUTCOME_GUEST_PANIC, "guest_panic", 137},
    {OUTCOME_GUEST_HALT, "guest_halt", 137},
    {OUTCOME_PROTOCOL_VIOLATION, "protocol_violation", 137},
    {OUTCOME_MONITOR_FAULT, "monitor_fault", 137},
    {OUTCOME_CANCELLED, "cancelled", 130},
    {OUTCOME_INFRA_NEVER_RAN, "infra_never_ran", 125},
    {OUTCOME_INFRA_UNKNOWN, "infra_unknown", 137},
};
#define OUTCOMES (int)(sizeof(outcomes) / sizeof(outcomes[0]))

START_TEST(test_names_and_statuses)
{
    const struct outcome_facts f = {.exit_code = 3, .signal = 9};
    const struct outcome o = {.kind = outcomes[_i].kind};

    ck_assert_str_eq(outcome_name(o.kind), outcomes[_i].name);
    ck_assert_int_eq(outcome_exit_status(&o, &f), outcomes[_i].status);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("outcome");
    TCase *t = tcase_create("outcome");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_loop_test(t, test_order, LIMIT_NONE, LIMIT_OUTPUT + 1);
    tcase_add_test(t, test_dead_is_never_ok);
    tcase_add_test(t, test_cause);
    tcase_add_loop_test(t, test_names_and_statuses, 0, OUTCOMES);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
