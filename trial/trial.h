/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One trial: one virtual machine, one command, one result.
 *
 * What the user wants is struct trial_spec; what happened is struct
 * trial_result; trial_run does it and always fills the result, whatever
 * happens. result.c writes it as one line of JSON.
 */
#ifndef MICROSBX_TRIAL_TRIAL_H
#define MICROSBX_TRIAL_TRIAL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/digest.h"
#include "base/failure.h"
#include "guest/proto.h"
#include "trial/machine_spec.h"
#include "trial/monitor.h"
#include "trial/outcome.h"
#include "trial/proof.h"
#include "trial/snapshot.h"

struct keeper;         /* keeper.h */
struct machine_record; /* machine_record.h */

#define TRIAL_FILES_MAX 256u
#define TRIAL_TIMEOUT_DEFAULT_MS (10u * 60u * 1000u)
#define TRIAL_READY_TIMEOUT_MS (180u * 1000u) /* boot to the agent's hello */
#define TRIAL_OUTPUT_LIMIT_DEFAULT ((uint64_t)10 << 20)
#define TRIAL_PIDS_LIMIT_DEFAULT 512u
#define TRIAL_CONSOLE_TAIL 2048u /* last bytes of the console, kept */
#define TRIAL_FILE_MS 120000u    /* that one file may take on its way */
#define TRIAL_FILE_LIMIT ((uint64_t)100 << 20) /* of one fetched file */

#define TRIAL_NOT_STOPPED "not_stopped"

/* --put SRC:DST or --get SRC:DST */
struct trial_file {
    bool get;
    bool optional;   /* get: the guest may have no such file */
    const char *src; /* borrowed */
    const char *dst;
};

/* Where a stream of the workload goes. */
struct trial_sink {
    int fd;           /* borrowed; -1: nowhere, only counted */
    const char *file; /* its name, or NULL */
};

/*
 * The machine comes from machine_restore, and is told so before anything else:
 * its agent must acknowledge, or there is no trial.
 */
struct trial_restore {
    const struct snapshot *snapshot; /* borrowed */
    bool prove;                      /* before the first instruction */
    /* Pinned: nothing is re-keyed; else fresh entropy and this host's time. */
    bool pinned;
    uint64_t seed;
    int64_t clock_ns; /* CLOCK_REALTIME to start from */
    bool send;        /* the workload is the process that waits in there */
};

/*
 * A machine that is rolled back for the next trial, in place of a new monitor
 * process for each (--reset in-place). One trust domain only: a monitor that a
 * guest has taken over survives it, and lies.
 */
struct trial_vm {
    struct monitor *monitor; /* owned; NULL: the next trial starts one */
    int console_fd;          /* owned: our end of the guest's console; -1 */
    /* What its configuration said, which went to the monitor. */
    uint64_t scratch_limit;  /* bytes; 0: not an overlay */
    uint64_t machine_memory; /* bytes */
};

/* Nothing yet; what is left of one, ended. */
void trial_vm_init(struct trial_vm *vm);
void trial_vm_fini(struct trial_vm *vm);

/*
 * The command is a warm-up, and the machine is frozen behind it. The trial's
 * outcome is the warm-up's; what counts is `done`.
 */
struct trial_freeze {
    const char *ready; /* line of the warm-up (without an agent: of the console)
                        * that says it waits; NULL: it ends */
    bool pinned;
    struct monitor_save_files files; /* borrowed */
    /* Filled: */
    bool done;
    bool waiting;         /* a process waits for input in there */
    uint64_t memory_used; /* bytes, with the caches dropped */
    uint64_t uptime_ms;   /* the guest's */
    uint64_t window_ms;   /* pinned: how long no re-keying is due */
    struct monitor_saved saved;
};

/* All strings are borrowed and outlive the trial. */
struct trial_spec {
    /*
     * The guest itself is the trial: no agent is looked for, its console is the
     * output (out; err stays empty), and power-off or the debug-exit port ends
     * it. Of what follows only the limits that the host enforces count then.
     */
    bool no_agent;
    const char *id; /* the trial's name among several, or NULL */
    const struct trial_restore *restore; /* NULL: the machine boots */
    struct trial_freeze *freeze;         /* NULL: the machine ends */
    /* With restore: the machine is taken from here, and left here for the next
     * trial if nothing speaks against it; NULL: it ends. */
    struct trial_vm *vm;
    /*
     * NULL-ended; NULL without an agent, a warm-up, with restore->send, or for
     * a long-lived machine that waits for its keeper's clients.
     */
    const char *const *argv;
    const char *const *env; /* NAME=value, NULL-ended; image's included */
    const char *workdir;    /* or NULL */
    const char *user;       /* or NULL */
    int stdin_fd;           /* -1: the workload's stdin is empty */
    bool tty;
    uint16_t tty_rows, tty_columns;
    uint64_t timeout_ms;   /* of the workload, by the host's clock; 0: none */
    bool timeout_by_guest; /* ... or by the agent's: in a long-lived machine */
    uint64_t ready_ms;     /* boot to the agent's hello */
    uint64_t file_ms;      /* of one file in or out; 0: two minutes */
    uint64_t cpu_time_ms;  /* of all vCPUs; 0: no limit */
    uint64_t output_limit; /* bytes a stream */
    uint32_t pids_limit;
    bool output_ends, disk_ends;   /* a touched limit ends the trial */
    bool pids_notes, memory_notes; /* a touched limit does not */
    struct trial_sink out, err;
    const struct trial_file *files;
    size_t file_count;
    /* The machine there was before, in which exec ran; or NULL. */
    const struct machine_record *live;
    struct keeper *keeper; /* of a long-lived machine, or NULL */
    int signal_fd; /* SIGINT, SIGTERM, SIGHUP end it; SIGWINCH, SIGTSTP and
                    * SIGXCPU may arrive here, too */
    FILE *events;  /* NDJSON, or NULL */
    /* Called when a phase begins ("boot", "run", ...), and for a SIGTSTP that
     * was refused (TRIAL_NOT_STOPPED); may be NULL. */
    void (*progress)(void *ctx, const char *phase);
    void *progress_ctx;
    /* The terminal's new size after SIGWINCH; may be NULL. */
    void (*winsize)(void *ctx, uint16_t *rows, uint16_t *columns);
};

struct trial_stream {
    uint64_t bytes;   /* delivered to the sink */
    uint64_t dropped; /* beyond the limit, or by the guest's serial port */
    char sha256[DIGEST_HEX_SIZE]; /* of the delivered bytes */
};

enum trial_file_status {
    TRIAL_FILE_NOT_DONE, /* put: not_sent, get: not_fetched */
    TRIAL_FILE_OK,
    TRIAL_FILE_ERROR, /* error says which */
};

struct trial_file_result {
    enum trial_file_status status;
    int error;       /* a Linux errno, positive */
    bool error_here; /* of the host's file, not the guest's */
    uint64_t bytes;
    char sha256[DIGEST_HEX_SIZE];
};

struct trial_result {
    struct outcome_facts facts;
    struct outcome outcome;
    struct failure failure; /* set for infra_*: a sentence */
    bool has_exit;          /* exit holds the agent's claim */
    struct proto_exec_exit exit;
    bool has_stats;
    struct monitor_stats stats;
    enum monitor_exit_reason machine_end; /* 0: not known */
    struct trial_stream out, err;
    struct trial_file_result files[TRIAL_FILES_MAX];
    size_t missing; /* files that were to be fetched, of a trial that ran */
    struct failure missing_why; /* of the first of them */
    int events_error; /* errno of writing the events; 0: they are all there */
    bool hit_timeout, hit_output, hit_disk, hit_pids, hit_memory, hit_cpu;
    double started_at;    /* seconds since 1970, host */
    uint64_t started_ns;  /* io_now_ns at each step; 0: not reached */
    uint64_t running_ns;  /* first KVM_RUN */
    uint64_t hello_ns;    /* its agent's hello */
    uint64_t ready_ns;    /* the agent serves (restored: has acknowledged) */
    uint64_t exec_ns;     /* exec request sent, or the bare guest started */
    uint64_t exec_end_ns; /* its end, or when it was given up */
    uint64_t over_ns;     /* nothing more was expected of the guest */
    uint64_t end_ns;      /* nothing is left of it */
    char kernel_release[PROTO_RELEASE_MAX]; /* the guest's claim */
    struct proof proof;
    bool rolled_back; /* the machine is as before the trial again */
    struct monitor_rolled_back rollback;
    bool pin_expired; /* it ran on for longer than pinning holds */
    uint8_t console[TRIAL_CONSOLE_TAIL]; /* raw bytes of the guest */
    size_t console_len;
};

/*
 * Runs one trial in a machine that is open (its descriptors go to the monitor
 * and are closed here). Returns nothing: *ret_result says all. The monitor is
 * gone when this returns.
 */
void trial_run(const struct trial_spec *spec, struct machine *machine,
               struct trial_result *ret_result);

#endif
