/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The harness's side of the control connection to the guest's agent: requests
 * out, events in, over one non-blocking stream descriptor that somebody else
 * connected (vsock, after the monitor's "OK <port>\n" line has been consumed).
 *
 * What comes in is hostile. Nothing is allocated by a number the guest gave;
 * per stream at most PROTO_WINDOW bytes are in flight; any frame that does not
 * fit the protocol or its state ends the connection with -EPROTO and a reason.
 * Numbers and texts in events are claims of the guest, checked for form only.
 *
 * No threads, no globals, no clock: the owner polls and calls process.
 *
 *     struct agent_client *c;
 *     ret = agent_client_new(fd, &ops, me, &c);
 *     ... poll(agent_client_fd(c), agent_client_events(c)) ...
 *     ret = agent_client_process(c, revents);     (calls the ops)
 *
 * Inside a callback every request may be made, but not process or free.
 * A request before HELLO arrived gives -ENOTCONN, and after an error -EPROTO
 * or what process returned.
 */
#ifndef MICROSBX_TRIAL_AGENT_CLIENT_H
#define MICROSBX_TRIAL_AGENT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/proto.h"

struct agent_client;

/* Why a program never ran: `reason` is enum proto_exec_failure. */
struct agent_exec_failure {
    uint32_t reason;
    int err;       /* Linux errno or 0 */
    int exit_code; /* 127 not found, 126 not executable, else -1 */
};

/* Events. A member that is NULL drops its event. `arg` as given to new. */
struct agent_client_ops {
    /* The agent is ready. Once, before anything else. */
    void (*hello)(void *arg, const struct proto_hello *hello);
    /* The program was executed (its execve succeeded). */
    void (*exec_started)(void *arg, uint32_t id);
    /* It was not; the handle is over. */
    void (*exec_failed)(void *arg, uint32_t id,
                        const struct agent_exec_failure *failure);
    /*
     * Bytes of PROTO_STDOUT or PROTO_STDERR, only valid during the call. They
     * count against the stream's window until agent_client_consumed() says
     * that they are disposed of (it may be called right here).
     */
    void (*output)(void *arg, uint32_t id, uint32_t stream, const void *bytes,
                   size_t len);
    /* agent_client_stdin_write() would accept this many bytes again. */
    void (*stdin_ready)(void *arg, uint32_t id, size_t room);
    /* The command has ended; all its output came before; handle is over. */
    void (*exec_exit)(void *arg, uint32_t id,
                      const struct proto_exec_exit *status);
    /* The agent is parked, or says why not (err). See agent_client_quiesce. */
    void (*quiesced)(void *arg, const struct proto_quiesced *quiesced);
    /* It serves again, or says at which step it failed. */
    void (*restored)(void *arg, const struct proto_restored *restored);
    /* Bytes of a file on their way, in order, either direction (digests). */
    void (*file_bytes)(void *arg, uint32_t id, const void *bytes, size_t len);
    /*
     * The file operation is over. local_err is 0, or the errno that reading
     * or writing the local descriptor gave (then `done` counts for nothing).
     */
    void (*file_done)(void *arg, uint32_t id,
                      const struct proto_file_done *done, int local_err);
};

struct agent_exec_request {
    const char *const *argv; /* NULL-terminated, at least one */
    const char *const *env;  /* NULL-terminated "NAME=value", or NULL */
    const char *cwd;         /* NULL: the user's home */
    const char *user;        /* name, uid, uid:gid; NULL: the default user */
    uint64_t timeout_ms;     /* by the agent's clock; 0: none */
    uint64_t memory_max;     /* bytes; 0: all that workloads may have */
    uint32_t pids_max;       /* 0: the agent's default, 512 */
    bool tty;                /* one terminal in place of three pipes */
    uint16_t rows, cols;     /* its size; 0: unset */
    bool open_stdin;         /* else stdin is /dev/null */
    bool allow_new_privs;    /* set-uid programs work for a user */
    bool pids_note;          /* touching pids_max does not end it */
    bool disk_ends;          /* a full disk does, if the agent can see to it */
    bool leave;              /* processes that outlive it go on */
    bool warm;               /* stays for agent_client_attach; opens stdin */
};

/* How the warm process goes on; members as in agent_exec_request. */
struct agent_attach_request {
    uint64_t timeout_ms; /* from now on */
    uint64_t memory_max;
    uint32_t pids_max;
    bool pids_note;
    bool disk_ends;
};

/*
 * Takes over fd (made non-blocking; closed by free; on error still the
 * caller's). Returns 0, -ENOMEM or fcntl's errno.
 */
int agent_client_new(int fd, const struct agent_client_ops *ops, void *arg,
                     struct agent_client **ret_client)
    __attribute__((warn_unused_result));

/* NULL is fine. The guest kills what still runs, unless it was quiesced. */
void agent_client_free(struct agent_client *client);

int agent_client_fd(const struct agent_client *client);

/* The poll events wanted now: POLLIN always, POLLOUT with bytes to send. */
short agent_client_events(const struct agent_client *client);

/*
 * Sends and receives what is possible without blocking, a bounded amount
 * (about 1 MiB a call), and calls the ops. Call it when poll says so; calling
 * without need is harmless. 0 to go on; -EPROTO: the guest broke the
 * protocol; -ECONNRESET: the connection is gone (end of stream included);
 * other negative errnos from the socket. Errors are final and repeated.
 */
int agent_client_process(struct agent_client *client, short revents)
    __attribute__((warn_unused_result));

/* One sentence for the error process returned; "" before. Never NULL. */
const char *agent_client_reason(const struct agent_client *client);

/* Number of execs and file operations that have not ended. */
size_t agent_client_live(const struct agent_client *client);

/*
 * Runs a program; events carry *ret_id. 0; -EINVAL for what the protocol
 * cannot say (no argv, user or cwd too long, an env string without '=');
 * -E2BIG: argv or env beyond its maximum; -EBUSY: PROTO_HANDLES_MAX are live;
 * -ENOMEM. The strings are copied.
 */
int agent_client_exec(struct agent_client *client,
                      const struct agent_exec_request *request,
                      uint32_t *ret_id) __attribute__((warn_unused_result));

/*
 * Takes over the process that an exec with `warm` left waiting before the
 * machine was frozen; it goes on as the exec *ret_id, with stdin open. Then
 * exec_started, or exec_failed (PROTO_FAIL_NO_WARM). Returns as exec does.
 */
int agent_client_attach(struct agent_client *client,
                        const struct agent_attach_request *request,
                        uint32_t *ret_id) __attribute__((warn_unused_result));

/*
 * Prepares the guest to be frozen: PROTO_QUIESCE_* flags. `quiesced` has the
 * answer, seconds later; without KEEP nothing may be live but a warm process.
 * Then free the client (without KEEP) and freeze the machine. A machine that
 * goes on after all needs agent_client_restore(SAME), on a new connection or,
 * with KEEP, on this one. 0; -EINVAL; -EBUSY: one is going on; -EOPNOTSUPP:
 * the image's agent is too old for it; -ENOMEM.
 */
int agent_client_quiesce(struct agent_client *client, uint32_t flags)
    __attribute__((warn_unused_result));

/*
 * The first request to a machine that was quiesced (hello says
 * PROTO_FEATURE_PARKED); until `restored` came without err, it refuses all
 * others. 0; -EINVAL: not exactly one flag, or members that do not go with
 * it; -EBUSY, -EOPNOTSUPP, -ENOMEM as above.
 */
int agent_client_restore(struct agent_client *client,
                         const struct proto_restore *request)
    __attribute__((warn_unused_result));

/* Bytes stdin_write would take now (0 also for an unknown id). */
size_t agent_client_stdin_room(const struct agent_client *client, uint32_t id);

/*
 * Gives stdin bytes; returns how many were taken, 0 to len, as far as credit
 * goes. -ENOENT: no such live exec (a race with its end: not an error for
 * most callers); -EPIPE after close.
 */
ssize_t agent_client_stdin_write(struct agent_client *client, uint32_t id,
                                 const void *bytes, size_t len)
    __attribute__((warn_unused_result));

/* End of stdin. 0, also if already closed; -ENOENT as above. */
int agent_client_stdin_close(struct agent_client *client, uint32_t id);

/*
 * The bytes of `output` are disposed of: their credit goes back to the guest.
 * More than was delivered: -EINVAL. A handle that is over: 0.
 */
int agent_client_consumed(struct agent_client *client, uint32_t id,
                          uint32_t stream, size_t bytes);

/* Signal to the command's own process (SIGKILL: to all it started). */
int agent_client_signal(struct agent_client *client, uint32_t id, int signal);

/* New size of the exec's terminal. */
int agent_client_winsize(struct agent_client *client, uint32_t id,
                         uint16_t rows, uint16_t cols);

/* Ends an exec (kills all) or file operation; its last event still comes. */
int agent_client_cancel(struct agent_client *client, uint32_t id);

/*
 * Copies from fd, from its position to its end, into the guest's file `path`
 * (parents are created; an existing file is overwritten). fd must not block
 * for long (a regular file); it stays the caller's and must stay open until
 * file_done. mode: permission bits of a new file, e.g. 0644. user NULL: the
 * default user, who then owns the file. Returns as agent_client_exec.
 */
int agent_client_write_file(struct agent_client *client, const char *path,
                            const char *user, uint32_t mode, int fd,
                            uint32_t *ret_id)
    __attribute__((warn_unused_result));

/*
 * Copies the guest's regular file to fd (as above). A file of more than
 * `limit` bytes (0: none) ends with EFBIG; never more than limit bytes are
 * written, whatever the guest sends.
 */
int agent_client_read_file(struct agent_client *client, const char *path,
                           const char *user, uint64_t limit, int fd,
                           uint32_t *ret_id)
    __attribute__((warn_unused_result));

/* file_done has the answer: type, size, owner. Follows symbolic links. */
int agent_client_stat(struct agent_client *client, const char *path,
                      const char *user, uint32_t *ret_id)
    __attribute__((warn_unused_result));

/* Makes a directory and those above it; one that exists is fine. */
int agent_client_mkdir(struct agent_client *client, const char *path,
                       const char *user, uint32_t mode, uint32_t *ret_id)
    __attribute__((warn_unused_result));

/* Asks the guest to sync and power off. There is no answer but its end. */
int agent_client_shutdown(struct agent_client *client);

#endif
