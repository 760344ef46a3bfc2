/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What machine_build.c (how a machine comes into being), machine.c (how it runs
 * and ends), machine_save.c and machine_restore.c (how its state goes out and
 * in) share; nobody else includes it.
 */
#ifndef MICROSBX_VMM_MACHINE_INTERNAL_H
#define MICROSBX_VMM_MACHINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "vmm/device_set.h"
#include "vmm/machine.h"
#include "vmm/memory.h"
#include "vmm/vcpu.h"
#include "vmm/x86/vcpu_state.h"

/* How the machine ended; the first one wins. */
struct machine_ending {
    pthread_mutex_t lock;
    bool set;
    enum monitor_exit_reason reason;
    int error; /* or the guest's status, see machine_end */
    char text[MONITOR_TEXT_MAX + 1];
};

/* The state file of a restored machine. */
struct machine_origin {
    uint8_t *bytes; /* owned; NULL: it was booted */
    size_t len;
    bool has_pit;
};

struct machine {
    struct vm_config config; /* what is left of its descriptors is owned */
    int vm_fd;
    bool tsc_deadline;
    struct memory memory;
    struct device_set devices;
    bool has_devices;
    struct vcpu_env env;
    struct vcpu *vcpus; /* config.cpu_count of them; NULL = none yet */
    uint64_t first_run_ns;
    atomic_bool leave; /* what the vCPUs look at: come out */
    struct vcpu_gate gate;
    bool paused;
    bool has_pit;
    /* Memory and state are those of the snapshot to the last bit; what its
     * guest must learn of that comes when it runs. */
    bool pristine;
    struct machine_origin origin;
    /* Rolled back: what the counters that only grow had come to by then. */
    struct monitor_stats before;
    struct vcpu_shape shape;
    struct machine_ending ending;
};

/* Fills *error; returns ret. */
int machine_fail(struct monitor_error *error, enum monitor_error_code code,
                 int ret, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/*
 * Reads the state file of a machine to be restored and looks whether this host
 * can do that, before there is a VM. No-op for one to be booted.
 */
int machine_open_origin(struct machine *m, struct monitor_error *ret_error)
    __attribute__((warn_unused_result));
/*
 * Loads the origin's state, as often as wanted; age: of all vCPUs. After an
 * error it may be loaded again, but not run.
 */
int machine_load_origin(struct machine *m, enum vcpu_age age,
                        struct monitor_error *ret_error)
    __attribute__((warn_unused_result));
/* Counters begin anew; of those that live on, what there is now is noted. */
void machine_restart_stats(struct machine *m);
/* Pristine no more: a restored guest's first steps are prepared. */
void machine_announce(struct machine *m);

#endif
