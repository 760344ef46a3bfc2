/* SPDX-License-Identifier: Apache-2.0 */
/* result.json and the last machine.json; see the header. */
#include "trial/machine_end.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"

static enum machine_state final_state(const struct trial_result *result,
                                      bool expired)
{
    switch (result->outcome.kind) {
    case OUTCOME_GUEST_PANIC:
    case OUTCOME_PROTOCOL_VIOLATION:
    case OUTCOME_MONITOR_FAULT:
    case OUTCOME_INFRA_NEVER_RAN:
    case OUTCOME_INFRA_UNKNOWN:
        return MACHINE_FAILED;
    default:
        return expired ? MACHINE_EXPIRED : MACHINE_EXITED;
    }
}

static void fill_record(struct machine_record *r,
                        const struct trial_result *result, bool expired)
{
    r->state = final_state(result, expired);
    r->ended_at = (int64_t)time(NULL);
    r->exit_status = outcome_exit_status(&result->outcome, &result->facts);
    if (r->exit_status == 0 && result->missing > 0)
        r->exit_status = OUTCOME_STATUS_UNDELIVERED;
    snprintf(r->outcome, sizeof(r->outcome), "%s",
             outcome_name(result->outcome.kind));
    snprintf(r->cause, sizeof(r->cause), "%s",
             result->outcome.cause ? result->outcome.cause : "");
    snprintf(r->message, sizeof(r->message), "%s",
             failure_is_set(&result->failure) ? result->failure.message
                                              : result->missing_why.message);
}

static int write_result(const struct registry_entry *entry, const char *line)
{
    int fd = openat(entry->dir_fd, "result.json",
                    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int ret = fd < 0 ? -errno : io_write_full(fd, line, strlen(line));

    if (ret == 0)
        ret = io_write_full(fd, "\n", 1);
    io_close(&fd);
    return ret;
}

int machine_end_write(const struct registry_entry *entry,
                      struct machine_record *record,
                      const struct trial_result *result, bool expired,
                      const char *line)
{
    int ret = line ? write_result(entry, line) : 0;

    if (ret != 0)
        return ret;
    fill_record(record, result, expired);
    return machine_record_write(entry, record);
}
