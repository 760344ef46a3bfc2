/* SPDX-License-Identifier: Apache-2.0 */
/* How a command ended, by its agent's word; see the header. */
#include "trial/exec_result.h"

#include <string.h>

const char *exec_result_name(const struct trial_spec *spec)
{
    return spec->argv ? spec->argv[0] : "the process that waits";
}

/* A command that the guest has not, or that is none. */
static bool fail_status(struct trial_result *result,
                        const struct trial_spec *spec, bool found, int err,
                        struct failure *f)
{
    struct outcome_facts *facts = &result->facts;

    facts->has_status = true;
    facts->exit_code = found ? 126 : 127;
    facts->cause = found ? "not_executable" : "not_found";
    if (spec->argv && spec->argv[0][0] == '\0') {
        failure_set(f, facts->cause, "COMMAND",
                    "give a program's name (is a variable unset?)",
                    "cannot run a command in the guest: its name, the first "
                    "word, is empty");
        return true;
    }
    failure_set(f, facts->cause, exec_result_name(spec),
                found ? NULL : "check the command and the image",
                "cannot run %s in the guest: %s", exec_result_name(spec),
                strerror(err));
    return true;
}

bool exec_result_failed(struct trial_result *result,
                        const struct trial_spec *spec, uint32_t reason, int err,
                        struct failure *f)
{
    const char *name = exec_result_name(spec);
    const char *why = strerror(err);

    switch (reason) {
    case PROTO_FAIL_NOT_FOUND:
    case PROTO_FAIL_NOT_EXECUTABLE:
        return fail_status(result, spec, reason == PROTO_FAIL_NOT_EXECUTABLE,
                           err, f);
    case PROTO_FAIL_USER:
        why = "there is no such user in the image";
        name = spec->user ? spec->user : "(default user)";
        break;
    case PROTO_FAIL_CWD:
        name = spec->workdir ? spec->workdir : "(home)";
        break;
    case PROTO_FAIL_NO_WARM:
        name = spec->restore ? spec->restore->snapshot->dir : "";
        why = "no process waits in this snapshot";
        break;
    case PROTO_FAIL_NO_ROOT:
        why = "the guest has no root file system";
        break;
    default:
        break;
    }
    failure_set(f, "exec_refused", name, "check the options and the image",
                "cannot run %s in the guest: %s: %s", exec_result_name(spec),
                name, why);
    return false;
}

/* Which limits the agent says were touched, and which of them ended it. */
static void note_limits(struct trial_result *result,
                        const struct trial_spec *spec,
                        const struct proto_exec_exit *status)
{
    struct outcome_facts *facts = &result->facts;

    result->hit_memory = (status->flags & PROTO_EXIT_OOM) != 0;
    result->hit_pids = (status->flags & PROTO_EXIT_PIDS) != 0;
    if (status->flags & PROTO_EXIT_DISK_FULL)
        result->hit_disk = true;
    if (result->hit_memory && !spec->memory_notes)
        facts->ended_by = LIMIT_MEMORY;
    else if (result->hit_pids && !spec->pids_notes)
        facts->ended_by = LIMIT_PIDS;
    else if (result->hit_disk && spec->disk_ends)
        facts->ended_by = LIMIT_DISK;
}

void exec_result_exit(struct trial_result *result,
                      const struct trial_spec *spec,
                      const struct proto_exec_exit *status)
{
    struct outcome_facts *facts = &result->facts;

    result->exit = *status;
    result->has_exit = true;
    facts->has_status = true;
    facts->exit_code = (int)status->code;
    facts->signal = (int)status->signal;
    if (spec->timeout_by_guest && (status->flags & PROTO_EXIT_TIMED_OUT)) {
        facts->timed_out = true;
        facts->timed_out_by_guest = true;
        facts->has_status = false;
        result->hit_timeout = true;
    }
    note_limits(result, spec, status);
}
