/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A handle: one exec or one file operation of the host, from its request to
 * its last frame. exec.c and fileop.c drive it; the server owns the table.
 *
 * A handle whose connection is gone is an orphan and says nothing any more. As
 * a rule it is killed, and free when its processes are. If the agent had been
 * quiesced it may stay: a warm exec, which waits to be attached, and whose
 * output is not touched; or, of a machine that was frozen while it ran, any
 * exec, whose output then is dropped.
 */
#ifndef MICROSBX_GUEST_HANDLE_H
#define MICROSBX_GUEST_HANDLE_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/cgroup.h"
#include "guest/conn.h"
#include "guest/kernel.h"
#include "guest/proto.h"
#include "guest/sandbox.h"
#include "guest/scratch.h"
#include "guest/stream.h"

/* What handles need of the machine around them; owned by main or a test. */
struct agent {
    struct sandbox sandbox;
    struct cgroup_tree cgroups;
    struct scratch scratch;
    uint32_t features;
    uint64_t memory_total;
    const struct kernel_ops *kernel; /* never NULL */
    const char *boot_id; /* the file workloads read it from; NULL: none */
};

enum handle_kind { HANDLE_FREE, HANDLE_EXEC, HANDLE_FILE };

enum handle_state {
    HANDLE_COLLECT, /* exec: its strings are on the way */
    HANDLE_START,   /* exec: forked, execve not heard of yet */
    HANDLE_RUN,
    HANDLE_DRAIN, /* its process has ended; the rest is being cleared up */
};

#define HANDLE_NO_TIME UINT64_MAX
#define HANDLE_FDS_MAX 4u

struct handle {
    enum handle_kind kind;
    enum handle_state state;
    uint32_t id;
    uint16_t type; /* file: PROTO_FILE_* */
    bool orphan;
    bool stays; /* an orphan that is not killed */

    pid_t pid; /* 0: never forked */
    bool reaped;
    int wait_status;
    int report_fd; /* what the child has to say; owned */

    struct inlet in;      /* stdin, or the contents of a FILE_WRITE */
    struct outlet out[2]; /* stdout and stderr, or [0] of a FILE_READ */
    int tty_fd;           /* the terminal's master, for its size; owned */

    /* exec */
    struct proto_exec_open *request; /* owned, until it is forked */
    char *strings;                   /* owned, until it is forked */
    size_t strings_used;
    struct cgroup cgroup;
    struct proto_exec_failed failure; /* reason 0: none */
    uint32_t exit_flags;
    uint64_t started_ms, ended_ms;
    uint64_t deadline_ms;       /* the request's timeout */
    uint64_t sample_ms;         /* next look at disk and processes */
    bool note_pids;             /* the process limit does not end it */
    bool end_disk;              /* a full disk does */
    bool leave;                 /* what outlives its process goes on */
    bool warm;                  /* can be attached as an orphan that stays */
    struct cgroup_usage before; /* what it had used when it was attached */
    uint64_t drain_ms;          /* output is waited for until then */
    uint64_t kill_ms;           /* processes are waited for until then */

    /* file */
    struct proto_file_done done;
    bool has_done;
};

/* A free handle. */
void handle_init(struct handle *h);

/* Closes and frees what it owns, whatever its state; it is free then. */
void handle_fini(struct handle *h);

/* Ends everything it started, at once. */
void handle_kill(struct handle *h);

/* An orphan that waits to be attached, alive or not. */
bool handle_is_waiting(const struct handle *h);

/* An orphan that runs on, with nobody for its output. */
bool handle_is_unheard(const struct handle *h);

/*
 * The descriptors it waits for, at most HANDLE_FDS_MAX: count written. With
 * conn NULL (an orphan) its output is waited for only if it is dropped.
 */
size_t handle_poll(const struct handle *h, const struct conn *conn,
                   struct pollfd *ret_fds);

/* DATA, EOF and CREDIT from the host: 0 or -EBADMSG. */
int handle_data(struct handle *h, const uint8_t *payload, size_t len)
    __attribute__((warn_unused_result));
int handle_end(struct handle *h, uint32_t stream)
    __attribute__((warn_unused_result));
int handle_credit(struct handle *h, uint32_t stream, uint32_t bytes)
    __attribute__((warn_unused_result));

/* Room for a handle's small frames (its last among them). */
bool handle_has_room(const struct conn *conn);

#endif
