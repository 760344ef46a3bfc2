/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The harness's handle on one monitor process: starts it, talks to it over one
 * socketpair, and knows how it ended.
 *
 * Owner: one thread of the harness. The monitor runs in a session of its own
 * (a Ctrl-C at the terminal is the harness's to handle) and dies with the
 * harness (parent-death signal, and the end of its socket).
 */
#ifndef MICROSBX_TRIAL_MONITOR_H
#define MICROSBX_TRIAL_MONITOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/failure.h"
#include "vmm/monitor_proto.h"

struct monitor;

enum monitor_event_kind {
    MONITOR_EVENT_NONE,    /* nothing to say yet */
    MONITOR_EVENT_RUNNING, /* the guest's first instruction is due */
    MONITOR_EVENT_DIAL,    /* the guest connects to a host port */
    MONITOR_EVENT_STATS,
    MONITOR_EVENT_EXIT, /* the machine ended, typed */
    MONITOR_EVENT_GONE, /* the process ended without saying why, or lied */
};

struct monitor_event {
    enum monitor_event_kind kind;
    uint64_t running_ns; /* RUNNING: io_now_ns, the monitor's */
    uint64_t dial_token; /* DIAL */
    uint32_t dial_port;
    struct monitor_stats stats; /* STATS */
    struct monitor_exit exit;   /* EXIT */
};

/* How a process ended, as the host saw it. */
struct monitor_end {
    bool exited; /* else it was killed by signal */
    int exit_status;
    int signal;
    bool killed_here; /* monitor_finish waited in vain and killed it */
    bool cpu_limit;   /* by SIGXCPU or SIGKILL, and RLIMIT_CPU was used up */
    bool left;        /* killed, and the host has not taken it apart yet:
                         neither exited nor signal says anything */
    bool lied;        /* it had sent a message that cannot be read */
};

/*
 * Starts a monitor process and sends it nothing yet. Returns 0, or a negative
 * errno with *f filled (the program is missing, fork failed).
 */
int monitor_spawn(struct monitor **ret_monitor, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Sends the machine and waits until it is built (READY). On failure *f says
 * what was refused; disks[i] (may be NULL) name the config's disks, kernel and
 * initrd the files, snapshot (may be NULL) what a machine is restored from.
 * Returns 0 or a negative errno.
 */
struct monitor_names {
    const char *kernel;
    const char *initrd;
    const char *const *disks;
    const char *snapshot;
};
int monitor_build(struct monitor *m, const struct vm_config *config,
                  const struct monitor_names *names, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * The same, and the guest starts as soon as it is built, without waiting for
 * us in between. If it fails, the guest has not run.
 */
int monitor_build_and_start(struct monitor *m, const struct vm_config *config,
                            const struct monitor_names *names,
                            struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Behind its start: waits for the word before the guest's first instruction and
 * tells when that was (io_now_ns). If it fails, the guest has not run.
 */
int monitor_await_running(struct monitor *m, uint64_t *ret_running_ns,
                          struct failure *f)
    __attribute__((warn_unused_result));

/* Asks a fresh monitor to measure what this KVM can do. Waits for it. */
int monitor_probe(struct monitor *m, int kvm_fd, enum monitor_probe_depth depth,
                  struct monitor_probe *ret_probe, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Messages; 0 or a negative errno (-EPIPE: it is gone, an event will say).
 * Once it is built they never wait: -EAGAIN if it does not read them.
 */
int monitor_start(struct monitor *m) __attribute__((warn_unused_result));
int monitor_stop(struct monitor *m);
int monitor_request_stats(struct monitor *m);
/*
 * Interrupts the guest for no reason. For emulated hosts: there a guest's timer
 * is now and then lost and it sleeps until the next interrupt, whatever that
 * is. Call it every MONITOR_NUDGE_MS where host_is_emulated().
 */
#define MONITOR_NUDGE_MS 1000
int monitor_nudge(struct monitor *m);
/* fd stays the caller's to close. */
int monitor_add_vsock_client(struct monitor *m, int fd)
    __attribute__((warn_unused_result));
/* fd -1 refuses. */
int monitor_dial_reply(struct monitor *m, uint64_t token, int fd);

/*
 * Orders that wait for their answer: 0, or a negative errno with *f filled
 * (-ESHUTDOWN: the machine ended first; -ETIMEDOUT; -ECANCELED; -EPROTO: the
 * monitor lied; else what the monitor said, -ENOSPC in particular, and the
 * machine is as it was before). Events that come meanwhile are kept:
 * monitor_fd does not tell of them, so that a caller asks monitor_receive
 * after each of these until it has none. After -ETIMEDOUT, -ECANCELED and
 * -EPROTO the monitor is good for nothing but its end.
 */
/* vCPUs and devices stand still from here on. Pre: started. */
int monitor_pause(struct monitor *m, struct failure *f)
    __attribute__((warn_unused_result));
/* Pre: paused. */
int monitor_resume(struct monitor *m, struct failure *f)
    __attribute__((warn_unused_result));

/* Borrowed, empty and writable; a disk file for each cow disk, in order. */
struct monitor_save_files {
    int state_fd, memory_fd;
    unsigned disk_count;
    int disk_fds[VM_DISKS_MAX];
};
/* Pre: paused. */
int monitor_save(struct monitor *m, const struct monitor_save_files *files,
                 struct monitor_saved *ret_saved, struct failure *f)
    __attribute__((warn_unused_result));
/*
 * What was really loaded (MONITOR_PROVE), into empty files. Pre: built from a
 * snapshot and not started, or rolled back and not resumed.
 */
int monitor_prove(struct monitor *m, int state_fd, int leaves_fd,
                  struct monitor_proved *ret_proved, struct failure *f)
    __attribute__((warn_unused_result));
/* Pre: paused, built from a snapshot with track_dirty. */
int monitor_rollback(struct monitor *m, struct monitor_rolled_back *ret_done,
                     struct failure *f) __attribute__((warn_unused_result));
/*
 * While an order waits, fd (borrowed; -1: none) becoming readable ends the
 * waiting with -ECANCELED.
 */
void monitor_set_cancel_fd(struct monitor *m, int fd);

/* The descriptor to poll for reading. */
int monitor_fd(const struct monitor *m);
/* Takes one event without waiting. After EXIT or GONE there are no more. */
void monitor_receive(struct monitor *m, struct monitor_event *ret_event);
/* Why the last event was GONE: a clause, or "". */
const char *monitor_reason(const struct monitor *m);

/* ---- without its help ----------------------------------------------------
 *
 * What the host does to the process and knows of it, whatever it is doing or
 * has become.
 */

/*
 * Stops all of it (SIGSTOP): once this has returned no vCPU executes another
 * instruction, and nothing more is sent than what lies in the sockets. 0;
 * -EBUSY: the same, but a thread of it is in the kernel and waits for the
 * host's storage, so that it will not answer soon; -ESRCH: it is ending, or
 * gone; -ETIMEDOUT: the host has not brought it to a halt yet.
 */
int monitor_suspend(struct monitor *m, int timeout_ms);
/*
 * Has it go on, for an order that ends the machine or pauses it: till then its
 * vCPUs stay out of the guest. Pre: monitor_suspend, and built before.
 */
void monitor_continue(struct monitor *m);
/* True if one of its threads waits for the host's storage now. */
bool monitor_in_storage(const struct monitor *m);
/* True if the host is taking it apart: none of its code runs any more. */
bool monitor_is_exiting(const struct monitor *m);
/* CPU time of its vCPUs as the host's scheduler has it; 0 if it does not say.
 */
uint64_t monitor_guest_cpu_ns(const struct monitor *m);

/*
 * Waits up to timeout_ms for the process to end, then kills it; reaps it. One
 * that the host cannot take apart within some seconds more (it waits for
 * storage) is left behind. Idempotent: later calls give the same answer, or a
 * better one.
 */
struct monitor_end monitor_finish(struct monitor *m, int timeout_ms);
/*
 * True if somebody stopped the process (SIGSTOP) and it has not been continued:
 * what it does not do is then not its fault.
 */
bool monitor_is_stopped(const struct monitor *m);
/* The failure that such a one is; what: "while the machine was built", ... */
void monitor_fail_stopped(struct failure *f, const char *when);
/* The same for one that waits for the host's storage. */
void monitor_fail_storage(struct failure *f, const char *when);
/*
 * It has not answered: true if the host holds it up in one of these two ways,
 * with *f filled.
 */
bool monitor_is_held(const struct monitor *m, const char *when,
                     struct failure *f);
/* The host's limit of CPU time (RLIMIT_CPU) has come: who had it. */
void monitor_fail_cpu_limit(struct failure *f, const char *who);
/* The host makes no process or thread for it: error tells, EAGAIN or other. */
void monitor_fail_threads(struct failure *f, int error, const char *what);
/* What a machine that ended by MONITOR_EXIT_HOST_ERROR says of the host. */
void monitor_fail_host(const struct monitor_exit *e, struct failure *f);
/* Its process id, for measurements; -1 once reaped. */
pid_t monitor_pid(const struct monitor *m);
/* Kills and reaps what is left, and frees. NULL is fine. */
void monitor_free(struct monitor *m);

/* Counts clients' view: a word for logs, e.g. "killed by signal 9". */
void monitor_end_describe(const struct monitor_end *end, char *buf,
                          unsigned size);

#endif
