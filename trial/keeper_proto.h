/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a long-lived machine's keeper and its clients (exec, cp, stop, ...) say
 * to each other: typed messages (base/msg.h) over a Unix SEQPACKET socket in a
 * folder that is the user's alone. One connection, one request; it is over when
 * the keeper closes, which it does after the last message of an answer.
 *
 *     client                                   keeper
 *     EXEC, STRINGS...  --------------------->  (argv and environment)
 *     <---------------------------------------  STARTED, or NOT_STARTED
 *     STDIN..., STDIN_END, SIGNAL, WINSIZE  ->
 *     <---------------------------------------  STDIN_CREDIT
 *     <---------------------------------------  OUTPUT (stdout, stderr)
 *     CREDIT  ------------------------------->
 *     <---------------------------------------  EXITED
 *
 *     PUT + file, or GET + file  ------------>  <-  FILE_DONE
 *     STATUS  ------------------------------->  <-  STATUS_REPLY
 *     SNAPSHOT + files  --------------------->  <-  SNAPSHOT_DONE
 *     STOP or KILL, or nothing at all  ------>  <-  ENDED, when it has ended
 *
 * Any request may be answered by REFUSED instead, and by ENDED if the machine
 * ends first. Who hangs up during an exec or a file operation cancels it.
 *
 * Flow control as in guest/proto.h: each stream starts with KEEPER_WINDOW bytes
 * of credit, so that neither side holds more, however slow the other is.
 *
 * The decoder accepts exactly what the encoder makes and answers -EBADMSG to
 * all else.
 */
#ifndef MICROSBX_TRIAL_KEEPER_PROTO_H
#define MICROSBX_TRIAL_KEEPER_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/failure.h"
#include "base/msg.h"
#include "guest/proto.h"
#include "trial/outcome.h"

/* In the machine's record; who speaks another one does not try. */
#define KEEPER_PROTO_VERSION 2u

#define KEEPER_WINDOW PROTO_WINDOW      /* of stdin, stdout and stderr each */
#define KEEPER_DATA_MAX MSG_PAYLOAD_MAX /* bytes of one STDIN */
#define KEEPER_OUTPUT_MAX (MSG_PAYLOAD_MAX - 4u)
#define KEEPER_CAUSE_MAX 40u /* with its NUL */

enum keeper_message {
    /* client to keeper */
    KEEPER_EXEC = 1,      /* struct keeper_exec */
    KEEPER_STRINGS = 2,   /* argv then environment, NULs included, any split */
    KEEPER_STDIN = 3,     /* bytes */
    KEEPER_STDIN_END = 4, /* nothing */
    KEEPER_SIGNAL = 5,    /* struct keeper_numbers: number, 0 */
    KEEPER_WINSIZE = 6,   /* rows, columns */
    KEEPER_CREDIT = 7,    /* stream, bytes */
    KEEPER_PUT = 8,       /* struct keeper_file, and the file to read */
    KEEPER_GET = 9,       /* struct keeper_file, and the file to write */
    KEEPER_STATUS = 10,   /* nothing */
    KEEPER_STOP = 11,     /* milliseconds of grace, 0 */
    KEEPER_KILL = 12,     /* nothing */
    KEEPER_SNAPSHOT = 13, /* struct keeper_snapshot */

    /* keeper to client */
    KEEPER_STARTED = 64,       /* nothing */
    KEEPER_NOT_STARTED = 65,   /* reason (enum proto_exec_failure), errno */
    KEEPER_STDIN_CREDIT = 66,  /* bytes, 0 */
    KEEPER_OUTPUT = 67,        /* u32 stream, then bytes */
    KEEPER_EXITED = 68,        /* struct keeper_exited */
    KEEPER_FILE_DONE = 69,     /* struct keeper_file_done */
    KEEPER_STATUS_REPLY = 70,  /* struct keeper_status */
    KEEPER_REFUSED = 71,       /* struct failure */
    KEEPER_ENDED = 72,         /* struct keeper_ended */
    KEEPER_SNAPSHOT_DONE = 73, /* struct keeper_snapshot_done */
};

#define KEEPER_EXEC_TTY (1u << 0)
#define KEEPER_EXEC_STDIN (1u << 1)
#define KEEPER_EXEC_FLAGS_KNOWN 0x3u

/* What the client does not say (environment, user, folder) is as for `run`. */
struct keeper_exec {
    uint32_t flags;
    uint16_t rows, cols;
    uint64_t timeout_ms; /* 0: none */
    uint32_t pids_max;
    uint32_t argc; /* at least 1 */
    uint32_t envc;
    uint32_t argv_bytes; /* NULs included */
    uint32_t env_bytes;
    char user[PROTO_USER_MAX]; /* "": the machine's */
    char cwd[PROTO_PATH_MAX];  /* "": the machine's */
};

/* What several messages carry. */
struct keeper_numbers {
    uint32_t a, b;
};

struct keeper_exited {
    struct proto_exec_exit status; /* the agent's claim */
    /* Output that a client too slow for the timeout never got. */
    uint64_t dropped[2];
    /* The host refused a write of the machine's, in this exec or before. */
    bool disk_refused;
    /* Its deadline was over, and the agent had not ended it for that: whatever
     * it says, that is a timeout, by host. */
    bool late;
};

struct keeper_file {
    uint32_t mode;  /* PUT: permissions of a new file; GET: 0 */
    uint64_t limit; /* GET: larger is EFBIG; PUT: 0 */
    char user[PROTO_USER_MAX];
    char path[PROTO_PATH_MAX]; /* in the guest */
};

struct keeper_file_done {
    uint32_t err;       /* errno in the guest; 0: done */
    uint32_t local_err; /* errno of the client's file */
    uint32_t mode;      /* as st_mode */
    uint64_t bytes;
};

enum keeper_state {
    KEEPER_IS_STARTING = 1,
    KEEPER_IS_RUNNING = 2,
    KEEPER_IS_UNAVAILABLE = 3, /* its agent did not confirm a timeout */
    KEEPER_IS_ENDING = 4,
};
#define KEEPER_STATE_LAST 4u

struct keeper_status {
    enum keeper_state state;
    uint32_t execs;       /* commands that run, the machine's own included */
    uint64_t ttl_left_ms; /* 0: over */
};

/* How the machine ended, which ended the client's request, too. */
struct keeper_ended {
    enum outcome_kind kind;
    bool by_host;
    char cause[KEEPER_CAUSE_MAX]; /* or "" */
    struct failure failure;       /* code "": none */
};

#define KEEPER_SNAPSHOT_WITHOUT_BASE (1u << 0)
#define KEEPER_SNAPSHOT_FLAGS_KNOWN 0x1u

/* The keeper makes it: it knows the machine, and nobody else may. */
struct keeper_snapshot {
    uint32_t flags;
    char dir[PROTO_PATH_MAX]; /* absolute */
};

struct keeper_snapshot_done {
    uint64_t pages;           /* of memory that hold data */
    uint64_t clusters;        /* of all disks that were written */
    uint64_t paused_ms;       /* how long the machine stood still */
    char id[DIGEST_HEX_SIZE]; /* of the snapshot */
};

/* Bytes in place: they point into the message that was decoded. */
struct keeper_bytes {
    uint32_t stream; /* OUTPUT: PROTO_STDOUT or PROTO_STDERR; else 0 */
    const uint8_t *bytes;
    size_t len; /* at least 1 */
};

/* The contents of a message, by its type. */
union keeper_body {
    struct keeper_exec exec;
    struct keeper_bytes data;      /* STRINGS, STDIN, OUTPUT */
    struct keeper_numbers numbers; /* SIGNAL, WINSIZE, CREDIT, STOP, */
                                   /* NOT_STARTED, STDIN_CREDIT */
    struct keeper_file file;       /* PUT, GET */
    struct keeper_snapshot snapshot;
    struct keeper_exited exited;
    struct keeper_file_done file_done;
    struct keeper_status status;
    struct failure refused;
    struct keeper_ended ended;
    struct keeper_snapshot_done snapshot_done;
};

/*
 * Makes a message's payload. body may be NULL for a type without contents.
 * 0, or -EINVAL for what the decoder would refuse.
 */
int keeper_encode(enum keeper_message type, const union keeper_body *body,
                  uint8_t buf[MSG_PAYLOAD_MAX], size_t *ret_len)
    __attribute__((warn_unused_result));

/*
 * Reads a payload: 0, or -EBADMSG for an unknown type, anything out of range,
 * or bytes left over. Whether this peer may say it now is the caller's to know.
 */
int keeper_decode(uint32_t type, const uint8_t *payload, size_t len,
                  union keeper_body *ret_body)
    __attribute__((warn_unused_result));

/* Encodes and sends: as msg_send, or -EINVAL. */
int keeper_send(int sock, enum keeper_message type,
                const union keeper_body *body)
    __attribute__((warn_unused_result));

#endif
