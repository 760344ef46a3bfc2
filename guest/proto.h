/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control protocol between the harness (host) and the agent (guest): the
 * only header shared across that boundary, and the only parser of it.
 *
 * One stream connection (vsock, opened by the host) carries frames:
 *
 *      0        4      6          8      12
 *     +--------+------+----------+------+---------------------+
 *     | length | type | reserved | id   | payload: length B   |
 *     +--------+------+----------+------+---------------------+
 *       u32      u16    u16 = 0    u32        little-endian
 *
 * An id names one exec or one file operation ("handle"). The host chooses it,
 * strictly greater than any id before it on this connection; a frame for a
 * handle that has ended is late, not wrong, and the agent drops it. The guest
 * may speak of live handles only.
 *
 * A conversation:
 *
 *     guest                              host
 *     HELLO                        ->
 *                                  <-    EXEC_OPEN, EXEC_STRINGS... (id 1)
 *     EXEC_STARTED                 ->
 *                                  <-    DATA(stdin), EOF(stdin)
 *     CREDIT(stdin)                ->
 *     DATA(stdout), DATA(stderr)   ->
 *                                  <-    CREDIT(stdout), CREDIT(stderr)
 *     EXEC_EXIT                    ->    (id 1 is over)
 *
 *                                  <-    FILE_WRITE, DATA(file)..., EOF(file)
 *     CREDIT(file)..., FILE_DONE   ->
 *                                  <-    FILE_READ
 *     DATA(file)..., FILE_DONE     ->
 *
 * Instead of EXEC_STARTED comes EXEC_FAILED if the program could not be run;
 * it ends the handle too. FILE_DONE may come at any time, then it is an error.
 *
 * Flow control: each data stream of each handle has a window. A sender starts
 * with PROTO_WINDOW bytes of credit and may never send more than it has; the
 * receiver gives credit back with CREDIT as it disposes of bytes, so that at
 * most PROTO_WINDOW bytes per stream are ever held, however slow a reader is.
 *
 * Everything here is total: the decoders accept exactly what is described and
 * answer -EBADMSG to all else. They never allocate and never look beyond the
 * length given.
 */
#ifndef MICROSBX_GUEST_PROTO_H
#define MICROSBX_GUEST_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTO_MAGIC 0x5842534du /* "MSBX" */
#define PROTO_VERSION 1u
#define PROTO_VSOCK_PORT 1021u /* below 1024: a user cannot take it */

/* Hard upper bounds. What exceeds one of them is a protocol error. */
#define PROTO_HEADER_SIZE 12u
#define PROTO_PAYLOAD_MAX 65536u
#define PROTO_FRAME_MAX (PROTO_HEADER_SIZE + PROTO_PAYLOAD_MAX)
#define PROTO_DATA_MAX (PROTO_PAYLOAD_MAX - 4u) /* bytes in a DATA frame */
#define PROTO_WINDOW 131072u                    /* credit of a fresh stream */
#define PROTO_HANDLES_MAX 16u           /* live execs and file operations */
#define PROTO_ARGV_BYTES_MAX (1u << 20) /* all arguments, NULs included */
#define PROTO_ENV_BYTES_MAX (1u << 20)
#define PROTO_ARGV_MAX 65536u /* number of arguments */
#define PROTO_ENV_MAX 16384u
#define PROTO_PATH_MAX 4096u /* with its NUL */
#define PROTO_USER_MAX 256u  /* with its NUL */
#define PROTO_ERRNO_MAX 4095u
#define PROTO_RELEASE_MAX 65u /* with its NUL, as in struct utsname */

enum proto_type {
    /* host to guest */
    PROTO_EXEC_OPEN = 0x01,
    PROTO_EXEC_STRINGS = 0x02, /* argv then env, NUL-terminated, any split */
    PROTO_EXEC_SIGNAL = 0x03,  /* u32 signal number */
    PROTO_EXEC_WINSIZE = 0x04, /* u16 rows, u16 columns */
    PROTO_FILE_WRITE = 0x05,
    PROTO_FILE_READ = 0x06,
    PROTO_FILE_STAT = 0x07,
    PROTO_FILE_MKDIR = 0x08,
    PROTO_CANCEL = 0x09,   /* end the handle now; its end is still reported */
    PROTO_SHUTDOWN = 0x0a, /* id 0: sync and power off; no answer */
    PROTO_EOF = 0x0b,      /* u32 stream: no more data from the host */
    /* 0x10 to 0x1f are kept for snapshots (quiesce, resume, entropy, clock) */

    /* both ways */
    PROTO_DATA = 0x20,   /* u32 stream, then bytes */
    PROTO_CREDIT = 0x21, /* u32 stream, u32 bytes */

    /* guest to host */
    PROTO_HELLO = 0x40, /* id 0: first frame, once */
    PROTO_EXEC_STARTED = 0x41,
    PROTO_EXEC_FAILED = 0x42,
    PROTO_EXEC_EXIT = 0x43,
    PROTO_FILE_DONE = 0x44,
    /* 0x50 to 0x5f are kept for the answers of snapshots */
};

enum proto_stream {
    PROTO_STDIN = 0,  /* host to guest */
    PROTO_STDOUT = 1, /* guest to host; a terminal's output, too */
    PROTO_STDERR = 2, /* guest to host */
    PROTO_FILE = 3,   /* to the guest in FILE_WRITE, to the host in FILE_READ */
};
#define PROTO_STREAMS 4u

/* Which side sent the frame being decoded. */
enum proto_sender { PROTO_FROM_HOST = 1, PROTO_FROM_GUEST = 2 };

struct proto_header {
    uint32_t length; /* of the payload, at most PROTO_PAYLOAD_MAX */
    uint16_t type;   /* a type this sender may send */
    uint32_t id;
};

/* What the guest can do; a bit that is absent is not enforced there. */
#define PROTO_FEATURE_ROOT (1u << 0)    /* a root file system is mounted */
#define PROTO_FEATURE_SCRATCH (1u << 1) /* ... and writable, on the disk */
#define PROTO_FEATURE_MEMORY (1u << 2)  /* memory limits are enforced */
#define PROTO_FEATURE_PIDS (1u << 3)    /* process limits are enforced */
#define PROTO_FEATURES_KNOWN 0xfu

struct proto_hello {
    uint16_t version;
    uint32_t features;
    uint64_t boot_ms;      /* CLOCK_MONOTONIC of the guest at readiness */
    uint64_t memory_total; /* bytes the guest kernel has */
    char release[PROTO_RELEASE_MAX];
};

#define PROTO_EXEC_TTY (1u << 0)       /* a pseudo-terminal; no stderr */
#define PROTO_EXEC_STDIN (1u << 1)     /* else stdin is /dev/null */
#define PROTO_EXEC_NEW_PRIVS (1u << 2) /* set-uid programs work for users */
#define PROTO_EXEC_NOTE_PIDS (1u << 3) /* its limit touched: go on */
#define PROTO_EXEC_FLAGS_KNOWN 0xfu

struct proto_exec_open {
    uint32_t flags;
    uint16_t rows, cols; /* of the terminal; 0: unset */
    uint64_t timeout_ms; /* 0: none */
    uint64_t memory_max; /* bytes; 0: all that workloads may have */
    uint32_t pids_max;   /* 0: the agent's default */
    uint32_t argc;       /* at least 1 */
    uint32_t envc;
    uint32_t argv_bytes; /* NULs included */
    uint32_t env_bytes;
    char user[PROTO_USER_MAX]; /* name, uid or uid:gid; "": the default */
    char cwd[PROTO_PATH_MAX];  /* "": the user's home */
};

enum proto_exec_failure {
    PROTO_FAIL_NOT_FOUND = 1,      /* status 127 */
    PROTO_FAIL_NOT_EXECUTABLE = 2, /* status 126 */
    PROTO_FAIL_USER = 3,           /* no such user in the image */
    PROTO_FAIL_CWD = 4,            /* working directory: see err */
    PROTO_FAIL_NO_ROOT = 5,        /* the guest has no root file system */
    PROTO_FAIL_BUSY = 6,           /* too many handles */
    PROTO_FAIL_SYSTEM = 7,         /* the agent could not: see err */
};
#define PROTO_FAIL_LAST 7u

struct proto_exec_failed {
    uint32_t reason; /* enum proto_exec_failure */
    uint32_t err;    /* Linux errno, 0 if none */
};

#define PROTO_EXIT_TIMED_OUT (1u << 0) /* killed by its timeout */
#define PROTO_EXIT_OOM (1u << 1)       /* the kernel killed for memory */
#define PROTO_EXIT_PIDS (1u << 2)      /* a fork was refused by the limit */
#define PROTO_EXIT_DISK_FULL (1u << 3) /* no room was left on scratch */
#define PROTO_EXIT_LEFTOVERS (1u << 4) /* processes outlived it: killed */
#define PROTO_EXIT_UNDRAINED (1u << 5) /* output was still open: cut off */
#define PROTO_EXIT_UNKILLED (1u << 6)  /* a process could not be killed */
#define PROTO_EXIT_CANCELLED (1u << 7) /* killed by CANCEL */
#define PROTO_EXIT_FLAGS_KNOWN 0xffu

struct proto_exec_exit {
    uint32_t flags;
    uint32_t code;   /* 0 to 255; 0 if a signal ended it */
    uint32_t signal; /* 1 to 64, or 0 */
    uint32_t oom_kills;
    uint32_t pids_hits;
    uint64_t wall_ms;
    uint64_t cpu_us; /* of the whole cgroup */
    uint64_t user_us;
    uint64_t system_us;
    uint64_t memory_peak; /* bytes; 0 if not known */
    uint64_t stdin_bytes; /* that the workload's stdin took */
    uint64_t stdout_bytes;
    uint64_t stderr_bytes;
};

#define PROTO_FILE_NO_PARENTS (1u << 0) /* do not create directories above */
#define PROTO_FILE_FLAGS_KNOWN 0x1u

/* FILE_WRITE, FILE_READ, FILE_STAT and FILE_MKDIR carry this alike. */
struct proto_file_open {
    uint32_t flags;
    uint32_t mode;  /* permission bits for what is created; else 0 */
    uint64_t limit; /* FILE_READ: larger is EFBIG; 0: no limit */
    char user[PROTO_USER_MAX];
    char path[PROTO_PATH_MAX]; /* relative: to the user's home */
};

struct proto_file_done {
    uint32_t err;   /* Linux errno; 0: done */
    uint32_t mode;  /* type and permissions, as st_mode */
    uint64_t bytes; /* moved; for FILE_STAT the size of the file */
    uint32_t uid, gid;
    int64_t mtime_s;
};

/*
 * Encoding. A writer fills a caller's buffer with whole frames and remembers
 * if one did not fit (`overflow`); a frame that did not fit leaves nothing.
 */
struct proto_writer {
    uint8_t *buf;
    size_t size;
    size_t used;
    bool overflow;
};

void proto_writer_init(struct proto_writer *w, void *buf, size_t size);

void proto_put_empty(struct proto_writer *w, uint16_t type, uint32_t id);
/* EXEC_SIGNAL, EOF: one number. */
void proto_put_u32(struct proto_writer *w, uint16_t type, uint32_t id,
                   uint32_t value);
void proto_put_winsize(struct proto_writer *w, uint32_t id, uint16_t rows,
                       uint16_t cols);
void proto_put_credit(struct proto_writer *w, uint32_t id, uint32_t stream,
                      uint32_t bytes);
/* At most PROTO_DATA_MAX bytes, at least one. */
void proto_put_data(struct proto_writer *w, uint32_t id, uint32_t stream,
                    const void *bytes, size_t len);
/* At most PROTO_PAYLOAD_MAX bytes, at least one. */
void proto_put_strings(struct proto_writer *w, uint32_t id, const void *bytes,
                       size_t len);
void proto_put_hello(struct proto_writer *w, const struct proto_hello *m);
void proto_put_exec_open(struct proto_writer *w, uint32_t id,
                         const struct proto_exec_open *m);
void proto_put_exec_failed(struct proto_writer *w, uint32_t id,
                           const struct proto_exec_failed *m);
void proto_put_exec_exit(struct proto_writer *w, uint32_t id,
                         const struct proto_exec_exit *m);
void proto_put_file_open(struct proto_writer *w, uint16_t type, uint32_t id,
                         const struct proto_file_open *m);
void proto_put_file_done(struct proto_writer *w, uint32_t id,
                         const struct proto_file_done *m);

/*
 * Decoding. The header first: reserved bits, a type that `sender` may send, a
 * length that this type may have, an id that is 0 exactly where it must be.
 * Then the payload, by the function of the type. All return 0 or -EBADMSG.
 */
int proto_get_header(const uint8_t bytes[PROTO_HEADER_SIZE],
                     enum proto_sender sender, struct proto_header *ret_header)
    __attribute__((warn_unused_result));
int proto_get_u32(const void *payload, size_t len, uint32_t *ret_value)
    __attribute__((warn_unused_result));
int proto_get_winsize(const void *payload, size_t len, uint16_t *ret_rows,
                      uint16_t *ret_cols) __attribute__((warn_unused_result));
int proto_get_credit(const void *payload, size_t len, uint32_t *ret_stream,
                     uint32_t *ret_bytes) __attribute__((warn_unused_result));
/* The bytes stay in the payload: ret_bytes points into it. */
int proto_get_data(const void *payload, size_t len, uint32_t *ret_stream,
                   const uint8_t **ret_bytes, size_t *ret_len)
    __attribute__((warn_unused_result));
int proto_get_hello(const void *payload, size_t len, struct proto_hello *ret_m)
    __attribute__((warn_unused_result));
int proto_get_exec_open(const void *payload, size_t len,
                        struct proto_exec_open *ret_m)
    __attribute__((warn_unused_result));
int proto_get_exec_failed(const void *payload, size_t len,
                          struct proto_exec_failed *ret_m)
    __attribute__((warn_unused_result));
int proto_get_exec_exit(const void *payload, size_t len,
                        struct proto_exec_exit *ret_m)
    __attribute__((warn_unused_result));
int proto_get_file_open(const void *payload, size_t len,
                        struct proto_file_open *ret_m)
    __attribute__((warn_unused_result));
int proto_get_file_done(const void *payload, size_t len,
                        struct proto_file_done *ret_m)
    __attribute__((warn_unused_result));

/*
 * Frames out of a byte stream. The owner reads into inbox_space() and says
 * how much came; frames stay valid until the next call of any of these.
 */
struct proto_inbox {
    enum proto_sender sender; /* who is at the other end */
    size_t head, used;        /* bytes [head, used) of buf are unread */
    uint8_t buf[2 * PROTO_FRAME_MAX];
};

void proto_inbox_init(struct proto_inbox *inbox, enum proto_sender sender);

/* Room for at least one byte more, unless a whole frame waits. */
uint8_t *proto_inbox_space(struct proto_inbox *inbox, size_t *ret_len);
void proto_inbox_add(struct proto_inbox *inbox, size_t len);

/*
 * Takes the next frame: 1, 0 (none is complete) or -EBADMSG. The payload is
 * not looked at.
 */
int proto_inbox_next(struct proto_inbox *inbox, struct proto_header *ret_header,
                     const uint8_t **ret_payload)
    __attribute__((warn_unused_result));

#endif
