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
 *     PAUSE  ----------------------------->  vCPUs and devices stand still
 *     <------------------------------------  PAUSED
 *     SAVE + state, memory, overlays  ---->  writes them
 *     <------------------------------------  SAVED, or ERROR (still paused)
 *     RESUME  ---------------------------->  goes on
 *     <------------------------------------  RESUMED
 *     STOP  ------------------------------>  stops all vCPUs, then EXIT
 *     <------------------------------------  EXIT {reason, stats}, and exit 0
 *
 * A machine restored from a snapshot says READY once its state is loaded; PROVE
 * may come before START, and once more after each ROLLBACK:
 *
 *     PROVE + state, leaves  ------------->  writes what was really loaded
 *     <------------------------------------  PROVED, or ERROR
 *     ROLLBACK (paused)  ----------------->  as restored; RESUME starts it
 *     <------------------------------------  ROLLED_BACK, or ERROR
 *
 * At a deadline the harness does not ask: it stops the process (SIGSTOP), takes
 * what was sent by then, and has it go on only to end or to be rolled back,
 * with MONITOR_SIGNAL_STAY_OUT before.
 *
 * A machine that ends while it is asked to pause answers EXIT. What is asked
 * out of turn ends the machine (EXIT, HOST_ERROR).
 *
 * or, instead of CONFIG: PROBE {} + /dev/kvm -> PROBE_RESULT, and exit.
 *
 * Once the guest runs, the monitor is assumed to be hostile: the harness
 * decodes strictly, and a message that does not fit is a monitor fault.
 */
#ifndef MICROSBX_VMM_MONITOR_PROTO_H
#define MICROSBX_VMM_MONITOR_PROTO_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/vm_config.h"

#define MONITOR_SOCKET_FD 3
/*
 * To each thread of a monitor that is stopped (SIGSTOP), before it goes on:
 * a vCPU's runs no instruction of its guest until the machine is paused or
 * ended. Harmless to the others. From READY on.
 */
#define MONITOR_SIGNAL_STAY_OUT (SIGRTMIN + 1)
#define MONITOR_TEXT_MAX 511u

enum monitor_msg {
    MONITOR_CONFIG = 1,           /* vm_config_encode */
    MONITOR_START = 2,            /* empty */
    MONITOR_STOP = 3,             /* empty */
    MONITOR_VSOCK_CLIENT = 4,     /* empty + 1 fd */
    MONITOR_VSOCK_DIAL_REPLY = 5, /* u64 token + 0 or 1 fd */
    MONITOR_STATS_REQUEST = 6,    /* empty */
    MONITOR_PROBE = 7,            /* u32 enum monitor_probe_depth + /dev/kvm */
    MONITOR_NUDGE = 8,            /* empty */
    MONITOR_PAUSE = 9,            /* empty */
    MONITOR_SAVE = 10,            /* empty + fds: see below */
    MONITOR_RESUME = 11,          /* empty */
    MONITOR_PROVE = 12,           /* empty + 2 fds: state, leaves */
    MONITOR_ROLLBACK = 13,        /* empty */

    MONITOR_READY = 65,        /* empty */
    MONITOR_ERROR = 66,        /* struct monitor_error */
    MONITOR_RUNNING = 67,      /* u64 io_now_ns */
    MONITOR_VSOCK_DIAL = 68,   /* u64 token, u32 port */
    MONITOR_STATS = 69,        /* struct monitor_stats */
    MONITOR_EXIT = 70,         /* struct monitor_exit */
    MONITOR_PROBE_RESULT = 71, /* struct monitor_probe */
    MONITOR_PAUSED = 72,       /* empty */
    MONITOR_SAVED = 73,        /* struct monitor_saved */
    MONITOR_RESUMED = 74,      /* empty */
    MONITOR_PROVED = 75,       /* struct monitor_proved */
    MONITOR_ROLLED_BACK = 76,  /* struct monitor_rolled_back */
};

/*
 * The files of SAVE, all empty and writable: the state (vmm/state_file.h), the
 * memory (sparse, memory_bytes long, RAM in address order without the hole),
 * and one per cow disk, in the order of the disks (everything that differs from
 * the disk's own file: layer and overlay in one). A save is always complete,
 * also of a machine that was itself restored.
 *
 * The files of PROVE, both empty and writable: the state as read back from KVM
 * and the devices, and the leaves of the memory's hash tree: the SHA-256 of
 * each MONITOR_CHUNK of the linear memory as mapped to the guest, 32 bytes
 * each. Compare the first by state_file_compare. The answer says what the
 * private overlays hold; a restored disk has all of its own in the layer.
 */
#define MONITOR_SAVE_FDS_MAX (2u + VM_DISKS_MAX)
#define MONITOR_CHUNK ((uint64_t)1 << 20)

/* What the harness could not be given, and why. */
enum monitor_error_code {
    MONITOR_ERROR_CONFIG = 1, /* the CONFIG message does not decode */
    MONITOR_ERROR_KVM = 2,    /* /dev/kvm: version, capability, ioctl */
    MONITOR_ERROR_MEMORY = 3, /* guest memory cannot be had */
    MONITOR_ERROR_KERNEL = 4, /* kernel: format, truncated, too large */
    MONITOR_ERROR_INITRD = 5,
    MONITOR_ERROR_DISK = 6,
    MONITOR_ERROR_HOST = 7, /* any other system call */
    /* A snapshot: state or memory do not fit or cannot be read, written or
     * loaded. The text names the place. */
    MONITOR_ERROR_STATE = 8,
};

struct monitor_error {
    enum monitor_error_code code;
    int32_t error; /* negative errno, or 0 */
    uint32_t disk; /* index, for MONITOR_ERROR_DISK */
    /* For a kernel or an initrd: as many bytes of memory would hold it; 0: more
     * memory would not help. */
    uint64_t memory_needed;
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
    MONITOR_EXIT_DEBUG = 9,        /* guest: debug-exit port, with a status */
};

struct monitor_stats {
    uint64_t first_run_ns;  /* io_now_ns of the first KVM_RUN */
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
    uint32_t status;                 /* DEBUG: what the guest wrote, else 0 */
    char text[MONITOR_TEXT_MAX + 1]; /* registers, suberror...; may be empty */
    struct monitor_stats stats;
};

/* What a save wrote. */
struct monitor_saved {
    uint64_t pages;    /* of memory that are not zero */
    uint64_t clusters; /* of all cow disks */
};

/* What a proof found of the disks; state and memory are in its files. */
struct monitor_proved {
    uint32_t disk_count; /* as configured, of any mode */
    struct {
        uint64_t clusters; /* in the private overlay; 0 without one */
        uint64_t first;    /* the first of them: an offset on the disk, bytes */
    } disks[VM_DISKS_MAX];
};

enum monitor_rollback_by {
    MONITOR_ROLLBACK_COPIED = 0,  /* page by page */
    MONITOR_ROLLBACK_DROPPED = 1, /* the private mapping as a whole */
};

struct monitor_rolled_back {
    uint64_t pages; /* that were dirty */
    enum monitor_rollback_by by;
};

/* How a piece of guest code fared in the probe. */
enum probe_result {
    PROBE_UNTESTED = 0,
    PROBE_WORKS = 1,
    PROBE_FAILS = 2,
};

#define PROBE_MISSING_MAX 32u
#define PROBE_NAME_MAX 39u /* bytes of a capability's name */

/* CPUID words of a probe: where they are, and the name a person may look up. */
#define PROBE_CPUID_WORDS 12u
struct probe_cpuid_place {
    const char *name; /* "7.ebx" */
    uint32_t function, index;
    unsigned reg; /* EAX 0, EBX 1, ECX 2, EDX 3 */
};
extern const struct probe_cpuid_place PROBE_CPUID[PROBE_CPUID_WORDS];

enum monitor_probe_depth {
    MONITOR_PROBE_ALL = 0,
    MONITOR_PROBE_CPU = 1, /* without guests that are timed or tried */
};

struct monitor_probe {
    int32_t error; /* 0, or errno of the ioctl that ended the probe */
    char text[MONITOR_TEXT_MAX + 1]; /* which and why, if error */
    int32_t api_version;
    uint32_t vcpus_max;
    bool immediate_exit, irqfd, ioeventfd, tsc_deadline, dirty_log_ring;
    uint32_t missing_count; /* needed capabilities that are not there */
    char missing[PROBE_MISSING_MAX][PROBE_NAME_MAX + 1];
    /* A tiny guest at CPL 0. */
    enum probe_result guest_runs; /* real mode/long mode OUT reached us */
    uint64_t cpl0_instructions_per_second;
    enum probe_result xsave, cmpxchg16b, int3; /* at CPL 0 */
    char cpu_vendor[13];
    char cpu_model[49];
    bool svm_or_vmx_in_guest_cpuid; /* nested on offer by this KVM */
    /* What a guest of ours with one CPU sees: PROBE_CPUID's words. */
    uint32_t cpuid[PROBE_CPUID_WORDS];
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
int monitor_saved_encode(const struct monitor_saved *s, void *buf, size_t size,
                         size_t *ret_len);
int monitor_saved_decode(const void *buf, size_t len,
                         struct monitor_saved *ret_s);
int monitor_proved_encode(const struct monitor_proved *p, void *buf,
                          size_t size, size_t *ret_len);
int monitor_proved_decode(const void *buf, size_t len,
                          struct monitor_proved *ret_p);
int monitor_rolled_back_encode(const struct monitor_rolled_back *b, void *buf,
                               size_t size, size_t *ret_len);
int monitor_rolled_back_decode(const void *buf, size_t len,
                               struct monitor_rolled_back *ret_b);
int monitor_probe_encode(const struct monitor_probe *p, void *buf, size_t size,
                         size_t *ret_len);
int monitor_probe_decode(const void *buf, size_t len,
                         struct monitor_probe *ret_p);

/* A stable word for a reason: "power_off", "triple_fault", ... */
const char *monitor_exit_reason_name(enum monitor_exit_reason reason);

#endif
