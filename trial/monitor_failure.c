/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a person is told of a monitor that this host, and not its guest, kept
 * from going on; see monitor.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "trial/monitor.h"
#include "trial/monitor_handle.h"

#define MIB ((uint64_t)1 << 20)

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

/* What to do about a kernel or an initrd: words, or how much memory it needs.
 */
static const char *boot_remedy(const struct monitor_error *e, const char *words,
                               char *buf, size_t size)
{
    if (e->memory_needed == 0 || e->memory_needed > VM_MEMORY_MAX)
        return words;
    snprintf(
        buf, size, "give it at least -m %lluM",
        (unsigned long long)(num_align_up(e->memory_needed, VM_MEMORY_ALIGN) /
                             MIB));
    return buf;
}

/* What the user is told for each kind of refusal. */
void monitor_fail_refused(const struct monitor_error *e,
                          const struct monitor_names *names, struct failure *f)
{
    char remedy[64];

    switch (e->code) {
    case MONITOR_ERROR_KERNEL:
        failure_set(f, "kernel", names->kernel,
                    boot_remedy(e, "give an x86-64 vmlinux or bzImage", remedy,
                                sizeof(remedy)),
                    "cannot boot the kernel %s: %s", names->kernel, e->text);
        break;
    case MONITOR_ERROR_INITRD:
        failure_set(
            f, "initrd", names->initrd,
            boot_remedy(e, "give a smaller initrd", remedy, sizeof(remedy)),
            "cannot load the initrd %s: %s", names->initrd, e->text);
        break;
    case MONITOR_ERROR_MEMORY:
        failure_set(f, "memory", "guest memory",
                    e->error == -ENOMEM
                        ? "give less --memory"
                        : failure_remedy(e->error, "give less --memory"),
                    "cannot set up the guest's memory: %s", e->text);
        break;
    case MONITOR_ERROR_DISK: {
        const char *name = names->disks && e->disk < VM_DISKS_MAX
                               ? names->disks[e->disk]
                               : "disk";

        if (e->error == -ENOSPC || e->error == -EDQUOT)
            failure_set(f, "overlay", name,
                        "set TMPDIR to a writable folder with room, or use "
                        "--overlay memory",
                        "cannot make the overlay of the disk %s: %s", name,
                        e->text);
        else
            failure_set(f, "disk", name,
                        failure_remedy(e->error, "check the file"),
                        "cannot open the disk %s: %s", name, e->text);
        break;
    }
    case MONITOR_ERROR_STATE: {
        const char *name = names->snapshot ? names->snapshot : "snapshot";

        failure_set(f, "snapshot", name,
                    failure_remedy(e->error, "make the snapshot again"),
                    "cannot restore %s: %s", name, e->text);
        break;
    }
    case MONITOR_ERROR_KVM:
        failure_set(f, "kvm", "/dev/kvm",
                    failure_remedy(e->error, "run microsbx doctor"),
                    "KVM cannot run this machine: %s", e->text);
        break;
    case MONITOR_ERROR_CONFIG:
    case MONITOR_ERROR_HOST:
        failure_set(f, "host", "microsbx-vmm",
                    failure_remedy(e->error, "run microsbx doctor"),
                    "the monitor could not build the machine: %s", e->text);
        break;
    }
}
