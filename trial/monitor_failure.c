/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a person is told of a monitor that this host, and not its guest, kept
 * from going on; see monitor.h.
 */
#include <errno.h>
#include <string.h>

#include "trial/monitor.h"

void monitor_fail_stopped(struct failure *f, const char *when)
{
    failure_set(f, "monitor_stopped", "microsbx-vmm",
                "look who stops processes on this host",
                "the monitor was stopped from outside (SIGSTOP) %s", when);
}

void monitor_fail_storage(struct failure *f, const char *when)
{
    failure_set(f, "host_storage_slow", "microsbx-vmm",
                "look at the disks, their folders and TMPDIR on this host",
                "the monitor was waiting for this host's storage %s", when);
}

bool monitor_is_held(const struct monitor *m, const char *when,
                     struct failure *f)
{
    if (monitor_in_storage(m))
        monitor_fail_storage(f, when);
    else if (monitor_is_stopped(m))
        monitor_fail_stopped(f, when);
    else
        return false;
    return true;
}

void monitor_fail_cpu_limit(struct failure *f, const char *who)
{
    failure_set(f, "host_cpu_limit", who,
                "raise this process's limit of CPU time (ulimit -t)",
                "this host's limit of CPU time (RLIMIT_CPU) ended %s", who);
}

void monitor_fail_threads(struct failure *f, int error, const char *what)
{
    if (error == -EAGAIN)
        failure_set(f, "host_pids_limit", "pids.max",
                    "allow more: pids.max of the control group (TasksMax in "
                    "systemd, the pod's limit in Kubernetes), ulimit -u",
                    "cannot start %s: this host's limit of processes and "
                    "threads is reached (pids.max or RLIMIT_NPROC)",
                    what);
    else
        failure_set(f, "host", what, "free processes or memory",
                    "cannot start %s: %s", what, strerror(-error));
}

void monitor_fail_host(const struct monitor_exit *e, struct failure *f)
{
    if (e->error == -EAGAIN) {
        monitor_fail_threads(f, e->error, "a virtual CPU");
        return;
    }
    failure_set(f, "host_error", "microsbx-vmm",
                failure_remedy(e->error, "look at the host's log"),
                "the monitor could not go on: %s", strerror(-e->error));
}
