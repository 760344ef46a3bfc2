/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What machine_build.c (how a machine comes into being) and machine.c (how it
 * runs and ends) share; nobody else includes it.
 */
#ifndef MICROSBX_VMM_MACHINE_INTERNAL_H
#define MICROSBX_VMM_MACHINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "vmm/device_set.h"
#include "vmm/machine.h"
#include "vmm/memory.h"
#include "vmm/vcpu.h"

/* How the machine ended; the first one wins. */
struct machine_ending {
    pthread_mutex_t lock;
    bool set;
    enum monitor_exit_reason reason;
    int error; /* or the guest's status, see machine_end */
    char text[MONITOR_TEXT_MAX + 1];
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
    atomic_bool ending_flag; /* what the vCPUs look at */
    struct machine_ending ending;
};

#endif
