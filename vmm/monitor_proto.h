/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor's public header: how the harness talks to `microsbx-vmm`.
 *
 * The monitor is started with one SOCK_SEQPACKET socket as descriptor
 * MONITOR_SOCKET_FD and speaks base/msg over it. It opens nothing by path,
 * never calls connect or bind, and ends when the socket closes.
 *
 *   harness                               monitor
 *     CONFIG + descriptors  ------------->  builds the machine
 *     <------------------------------------  READY, or ERROR and exit
 *     START  ---------------------------->  vCPUs run
 *     <------------------------------------  RUNNING (before the first KVM_RUN)
 *     VSOCK_CLIENT + fd  ---------------->  as if the listener had accepted it
 *     <------------------------------------  VSOCK_DIAL {token, port}
 *     VSOCK_DIAL_REPLY {token} + fd?  --->
 *     STATS_REQUEST  --------------------->  STATS
 *     NUDGE  -----------------------------> an interrupt without a cause
 *     STOP  ------------------------------>  stops all vCPUs, then EXIT
 *     <------------------------------------  EXIT {reason, stats}, and exit 0
 *
 * or, instead of CONFIG: PROBE {} + /dev/kvm -> PROBE_RESULT, and exit.
 *
 * Once the guest runs, the monitor is assumed to be hostile: the harness
 * decodes strictly, and a message that does not fit is a monitor fault.
 */
#ifndef MICROSBX_VMM_MONITOR_PROTO_H
#define MICROSBX_VMM_MONITOR_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/vm_config.h"

#define MONITOR_SOCKET_FD 3
#define MONITOR_TEXT_MAX 511u

enum monitor_msg {
    MONITOR_CONFIG = 1,           /* vm_config_encode */
    MONITOR_START = 2,            /* empty */
    MONITOR_STOP = 3,             /* empty */
    MONITOR_VSOCK_CLIENT = 4,     /* empty + 1 fd */
    MONITOR_VSOCK_DIAL_REPLY = 5, /* u64 token + 0 or 1 fd */
    MONITOR_STATS_REQUEST = 6,    /* empty */
    MONITOR_PROBE = 7,            /* empty + 1 fd (/dev/kvm) */
    MONITOR_NUDGE = 8,            /* empty */

    MONITOR_READY = 65,        /* empty */
    MONITOR_ERROR = 66,        /* struct monitor_error */
    MONITOR_RUNNING = 67,      /* u64 CLOCK_MONOTONIC ns */
    MONITOR_VSOCK_DIAL = 68,   /* u64 token, u32 port */
    MONITOR_STATS = 69,        /* struct monitor_stats */
    MONITOR_EXIT = 70,         /* struct monitor_exit */
    MONITOR_PROBE_RESULT = 71, /* struct monitor_probe */
};

/* What the harness could not be given, and why. */
enum monitor_error_code {
    MONITOR_ERROR_CONFIG = 1, /* the CONFIG message does not decode */
    MONITOR_ERROR_KVM = 2,    /* /dev/kvm: version, capability, ioctl */
    MONITOR_ERROR_MEMORY = 3, /* guest memory cannot be had */
    MONITOR_ERROR_KERNEL = 4, /* kernel: format, truncated, too large */
    MONITOR_ERROR_INITRD = 5,
    MONITOR_ERROR_DISK = 6,
    MONITOR_ERROR_HOST = 7, /* any other system call */
};

struct monitor_error {
    enum monitor_error_code code;
    int32_t error; /* negative errno, or 0 */
    uint32_t disk; /* index, for MONITOR_ERROR_DISK */
    /* Why, as a clause in English without object or remedy, e.g. "the file is
     * truncated: section 3 ends beyond it"; the harness knows the path. */
    char text[MONITOR_TEXT_MAX + 1];
};

/* Why the machine ended: what the monitor saw, typed. */
enum monitor_exit_reason {
    MONITOR_EXIT_STOPPED = 1,      /* STOP from the harness */
    MONITOR_EXIT_POWER_OFF = 2,    /* guest: ACPI S5 or syscon */
    MONITOR_EXIT_RESET = 3,        /* guest: reset register, port 0x64 */
    MONITOR_EXIT_TRIPLE_FAULT = 4, /* guest: KVM_EXIT_SHUTDOWN */
    MONITOR_EXIT_PANIC = 5,        /* guest: panic device */
    MONITOR_EXIT_EMULATION = 6,    /* KVM_INTERNAL_ERROR_EMULATION */
    MONITOR_EXIT_INTERNAL = 7,     /* other KVM internal error, failed entry */
    MONITOR_EXIT_HOST_ERROR = 8,   /* KVM_RUN or epoll failed: error */
};

struct monitor_stats {
    uint64_t first_run_ns;  /* CLOCK_MONOTONIC of the first KVM_RUN */
    uint64_t exits;         /* KVM_RUN returns, all vCPUs */
    uint64_t guest_cpu_ns;  /* CPU time of all vCPU threads */
    uint64_t device_cpu_ns; /* CPU time of the device thread */
    uint64_t violations;    /* devices: rules the guest broke */
    uint64_t unclaimed;     /* accesses to no device */
    uint64_t console_bytes; /* from the guest */
    uint64_t console_dropped;
    uint64_t vsock_from_guest; /* bytes */
    uint64_t vsock_to_guest;
    uint64_t vsock_connections;
    uint64_t vsock_refused;
    uint32_t disk_count;
    struct {
        uint64_t clusters; /* overlay: clusters present */
        uint64_t no_space; /* requests refused for lack of room */
        uint64_t io_errors;
        uint8_t limit_hit; /* the overlay's own limit, not the host's disk */
    } disks[VM_DISKS_MAX];
};

struct monitor_exit {
    enum monitor_exit_reason reason;
    int32_t error;                   /* negative errno for HOST_ERROR, else 0 */
    char text[MONITOR_TEXT_MAX + 1]; /* registers, suberror...; may be empty */
    struct monitor_stats stats;
};

/* How a piece of guest code fared in the probe. */
enum probe_result {
    PROBE_UNTESTED = 0,
    PROBE_WORKS = 1,
    PROBE_FAILS = 2,
};

#define PROBE_MISSING_MAX 32u

struct monitor_probe {
    int32_t error; /* 0, or errno of the ioctl that ended the probe */
    char text[MONITOR_TEXT_MAX + 1]; /* which and why, if error */
    int32_t api_version;
    uint32_t vcpus_max;
    bool immediate_exit, irqfd, ioeventfd, tsc_deadline, dirty_log_ring;
    uint32_t missing_count; /* needed capabilities that are not there */
    char missing[PROBE_MISSING_MAX][32];
    /* A tiny guest at CPL 0. */
    enum probe_result guest_runs; /* real mode/long mode OUT reached us */
    uint64_t cpl0_instructions_per_second;
    enum probe_result xsave, cmpxchg16b, int3; /* at CPL 0 */
    char cpu_vendor[13];
    char cpu_model[49];
    bool svm_or_vmx_in_guest_cpuid; /* nested on offer by this KVM */
};

/* Encoders and strict decoders: 0, -ENOSPC or -EBADMSG. */
int monitor_error_encode(const struct monitor_error *e, void *buf, size_t size,
                         size_t *ret_len);
int monitor_error_decode(const void *buf, size_t len,
                         struct monitor_error *ret_e);
int monitor_stats_encode(const struct monitor_stats *s, void *buf, size_t size,
                         size_t *ret_len);
int monitor_stats_decode(const void *buf, size_t len,
                         struct monitor_stats *ret_s);
int monitor_exit_encode(const struct monitor_exit *e, void *buf, size_t size,
                        size_t *ret_len);
int monitor_exit_decode(const void *buf, size_t len,
                        struct monitor_exit *ret_e);
int monitor_probe_encode(const struct monitor_probe *p, void *buf, size_t size,
                         size_t *ret_len);
int monitor_probe_decode(const void *buf, size_t len,
                         struct monitor_probe *ret_p);

/* A stable word for a reason: "power_off", "triple_fault", ... */
const char *monitor_exit_reason_name(enum monitor_exit_reason reason);

#endif
