/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control protocol between the harness (host) and the agent (guest): the
 * only header shared across that boundary, and the only parser of it. At its
 * end, what a guest says that is started only to compare two disks.
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
 * A machine about to be frozen, and one that goes on from there:
 *
 *                                  <-    QUIESCE
 *     QUIESCED                     ->    (the host closes, freezes, restores,
 *                                         and connects again)
 *     HELLO (PARKED)               ->
 *                                  <-    RESTORE
 *     RESTORED                     ->
 *                                  <-    ATTACH (id 1), or EXEC_OPEN, ...
 *     EXEC_STARTED                 ->
 *
 * With QUIESCED the agent is parked: it refuses execs, attaches and file
 * operations (PROTO_FAIL_PARKED, EAGAIN) on this connection and on all later
 * ones, until one RESTORE has succeeded. The agent cannot tell whether it was
 * frozen; so the host says it, also where it was not: FRESH or PINNED to a
 * machine made from the snapshot, SAME to the machine that simply goes on.
 *
 * Without PROTO_QUIESCE_KEEP nothing may be live but a warm process; with it
 * execs may, this connection serves on as if nothing had happened, and only
 * the later ones are parked. In a machine restored from there the old
 * connection breaks, and its execs go on without anybody to hear them (their
 * output is dropped); they would be killed if it broke at any other time.
 *
 * The warm process: an exec with PROTO_EXEC_WARM that the agent keeps when the
 * connection on which it was quiesced ends, with its pipes open and nothing
 * read from them, for the first ATTACH of a later connection to take over.
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
#define PROTO_RELEASE_MAX 65u  /* with its NUL, as in struct utsname */
#define PROTO_HOSTNAME_MAX 65u /* the same */
#define PROTO_BOOT_ID_MAX 37u  /* with its NUL: 8-4-4-4-12 hex digits */
#define PROTO_ENTROPY_SIZE 64u

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
    PROTO_QUIESCE = 0x10,  /* id 0: u32 flags */
    PROTO_RESTORE = 0x11,  /* id 0 */
    PROTO_ATTACH = 0x12,   /* the warm process becomes this handle */

    /* both ways */
    PROTO_DATA = 0x20,   /* u32 stream, then bytes */
    PROTO_CREDIT = 0x21, /* u32 stream, u32 bytes */

    /* guest to host */
    PROTO_HELLO = 0x40, /* id 0: first frame, once */
    PROTO_EXEC_STARTED = 0x41,
    PROTO_EXEC_FAILED = 0x42,
    PROTO_EXEC_EXIT = 0x43,
    PROTO_FILE_DONE = 0x44,
    PROTO_QUIESCED = 0x50, /* id 0: once for each QUIESCE */
    PROTO_RESTORED = 0x51, /* id 0: once for each RESTORE */
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
#define PROTO_FEATURE_ROOT (1u << 0)     /* a root file system is mounted */
#define PROTO_FEATURE_SCRATCH (1u << 1)  /* ... and writable, on the disk */
#define PROTO_FEATURE_MEMORY (1u << 2)   /* memory limits are enforced */
#define PROTO_FEATURE_PIDS (1u << 3)     /* process limits are enforced */
#define PROTO_FEATURES_LIMITS 0xfu       /* all of the above */
#define PROTO_FEATURE_SNAPSHOT (1u << 4) /* QUIESCE and what follows it */
#define PROTO_FEATURE_PARKED (1u << 5)   /* RESTORE has to come first */
#define PROTO_FEATURE_LEAVE (1u << 6)    /* PROTO_EXEC_LEAVE */
#define PROTO_FEATURE_DISK (1u << 7)     /* PROTO_RESTORE_LIMIT, _END_DISK */
#define PROTO_FEATURES_KNOWN 0xffu

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
#define PROTO_EXEC_WARM (1u << 4)      /* with STDIN and without TTY */
#define PROTO_EXEC_LEAVE (1u << 5)     /* what outlives it goes on */
#define PROTO_EXEC_END_DISK (1u << 6)  /* its disk is full: kill it */
#define PROTO_EXEC_FLAGS_KNOWN 0x7fu

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
    PROTO_FAIL_BUSY = 6,           /* too many handles; a warm one: EEXIST */
    PROTO_FAIL_SYSTEM = 7,         /* the agent could not: see err */
    PROTO_FAIL_PARKED = 8,         /* quiesced: RESTORE has to come first */
    PROTO_FAIL_NO_WARM = 9,        /* ATTACH: no process waits to be taken */
};
#define PROTO_FAIL_LAST 9u

struct proto_exec_failed {
    uint32_t reason; /* enum proto_exec_failure */
    uint32_t err;    /* Linux errno, 0 if none */
};

#define PROTO_EXIT_TIMED_OUT (1u << 0) /* killed by its timeout */
#define PROTO_EXIT_OOM (1u << 1)       /* the kernel killed for memory */
#define PROTO_EXIT_PIDS (1u << 2)      /* a fork was refused by the limit */
#define PROTO_EXIT_DISK_FULL (1u << 3) /* no room was left on scratch */
#define PROTO_EXIT_LEFTOVERS (1u << 4) /* outlived it: killed, or left */
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

/*
 * ATTACH: takes the warm process over. Its streams begin anew, with a full
 * window each and byte counts of 0; EXEC_EXIT counts time and use from here
 * (memory_peak alone is of its whole life). What it wrote since its first
 * connection ended comes as output; if it has ended meanwhile, EXEC_EXIT
 * follows. Its limits become those given here. The answer is EXEC_STARTED or
 * EXEC_FAILED.
 */
struct proto_attach {
    uint32_t flags;      /* of PROTO_EXEC_NOTE_PIDS, PROTO_EXEC_END_DISK */
    uint32_t pids_max;   /* as in EXEC_OPEN, all three */
    uint64_t timeout_ms; /* from now on */
    uint64_t memory_max;
};

/* FREE_MEMORY: caches are dropped, and free pages are zero as far as can be. */
#define PROTO_QUIESCE_FREE_MEMORY (1u << 0)
/* PINNED: the kernel's random generator is re-keyed last of all. */
#define PROTO_QUIESCE_PINNED (1u << 1)
/* KEEP: see above; not with FREE_MEMORY, which would press what runs. */
#define PROTO_QUIESCE_KEEP (1u << 2)
#define PROTO_QUIESCE_FLAGS_KNOWN 0x7u

/*
 * The last frame before a freeze: file systems are synced, and the agent does
 * nothing any more by itself. With err nothing was parked; EBUSY: something is
 * live that cannot be kept (an exec or file operation; a warm process that has
 * not taken all its stdin, or whose stdin was closed), or a QUIESCE is going
 * on already.
 */
struct proto_quiesced {
    uint32_t err;         /* Linux errno; 0: parked; else the rest is 0 */
    uint64_t memory_free; /* bytes of MemFree after all of it */
    uint64_t uptime_ms;   /* the guest's CLOCK_MONOTONIC now */
    /* PINNED: how long from now the kernel will not re-key by itself, by the
       rules of this kernel version; 0: not pinned, or not known. */
    uint64_t pin_window_ms;
};

/* Exactly one of these three. */
#define PROTO_RESTORE_FRESH (1u << 0)  /* a new machine, unlike all others */
#define PROTO_RESTORE_PINNED (1u << 1) /* a new machine, like its siblings */
#define PROTO_RESTORE_SAME (1u << 2)   /* the machine goes on, as itself */
/* With FRESH or PINNED: the message has a scratch_limit. */
#define PROTO_RESTORE_LIMIT (1u << 3)

/*
 * FRESH: entropy is added and credited, the kernel's generator re-keyed, the
 * clock set, the boot id new and random. PINNED: nothing is re-keyed; the
 * seed selects one of 65,536 places in the frozen generator's stream, and the
 * boot id; the clock is set. SAME: only ends the parking.
 *
 * The scratch limit is what the host lets this machine write of that disk; an
 * agent that is not told leaves it at what it was.
 *
 * The host name: "" is "microsbx-" and the first eight digits of the boot id.
 */
struct proto_restore {
    uint32_t flags;
    int64_t realtime_ns;                 /* CLOCK_REALTIME, 0 or more */
    uint64_t seed;                       /* PINNED; else 0 */
    uint8_t entropy[PROTO_ENTROPY_SIZE]; /* FRESH; else all 0 */
    uint64_t scratch_limit;              /* bytes, not 0: LIMIT; else 0 */
    char hostname[PROTO_HOSTNAME_MAX];   /* letters, digits, '.', '-', '_' */
};

/* What a RESTORE failed at, after the agent had done what stands above it. */
enum proto_restore_step {
    PROTO_STEP_NONE = 0,     /* nothing failed */
    PROTO_STEP_STATE = 1,    /* it is not parked */
    PROTO_STEP_RANDOM = 2,   /* the kernel's random generator */
    PROTO_STEP_CLOCK = 3,    /* the wall clock */
    PROTO_STEP_BOOT_ID = 4,  /* the boot id that workloads read */
    PROTO_STEP_HOSTNAME = 5, /* the host name */
    PROTO_STEP_DISK = 6,     /* the limit of the scratch disk */
};
#define PROTO_STEP_LAST 6u

/* With err the agent stays parked. */
struct proto_restored {
    uint32_t err;  /* Linux errno; 0: done, and the agent serves */
    uint32_t step; /* enum proto_restore_step; 0 exactly if err is 0 */
    char boot_id[PROTO_BOOT_ID_MAX]; /* now; "" with err */
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
/* EXEC_SIGNAL, EOF, QUIESCE: one number. */
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

/* What QUIESCE and RESTORE may say: the decoders ask, and so may a sender. */
bool proto_quiesce_is_sane(uint32_t flags);
bool proto_restore_is_sane(const struct proto_restore *m);

void proto_put_attach(struct proto_writer *w, uint32_t id,
                      const struct proto_attach *m);
void proto_put_quiesced(struct proto_writer *w, const struct proto_quiesced *m);
void proto_put_restore(struct proto_writer *w, const struct proto_restore *m);
void proto_put_restored(struct proto_writer *w, const struct proto_restored *m);
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
int proto_get_attach(const void *payload, size_t len,
                     struct proto_attach *ret_m)
    __attribute__((warn_unused_result));
int proto_get_quiesce(const void *payload, size_t len, uint32_t *ret_flags)
    __attribute__((warn_unused_result));
int proto_get_quiesced(const void *payload, size_t len,
                       struct proto_quiesced *ret_m)
    __attribute__((warn_unused_result));
int proto_get_restore(const void *payload, size_t len,
                      struct proto_restore *ret_m)
    __attribute__((warn_unused_result));
int proto_get_restored(const void *payload, size_t len,
                       struct proto_restored *ret_m)
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

/*
 * The answer of a guest that compares disks: no agent serves there, its console
 * carries lines (a CR before the newline is the terminal's). What stands before
 * the first and behind the last is the kernel's and means nothing.
 *
 *     files 1                  it begins
 *     M f /etc/my file         a difference: change, type, path
 *     A l /tmp/\x1b
 *     end 2                    all of them, and how many; or "failed ERRNO"
 *
 * Bytes of a path that are not printable ASCII, and backslashes, are \xNN.
 */
#define PROTO_COMPARE_WORD "microsbx.compare=1" /* on the command line */
#define PROTO_COMPARE_ROOT                                                     \
    "root"                  /* the serials: the root file system's disk        \
                             */
#define PROTO_COMPARE_A "a" /* and the two scratch disks */
#define PROTO_COMPARE_B "b"
#define PROTO_COMPARE_MAX 262144u /* differences that are listed at most */
#define PROTO_COMPARE_LINE_MAX                                                 \
    (4u * PROTO_PATH_MAX + 8u) /* with its newline                             \
                                */

enum proto_compare_kind {
    PROTO_COMPARE_BEGIN,
    PROTO_COMPARE_ENTRY,
    PROTO_COMPARE_END,
    PROTO_COMPARE_FAILED,
};

/* What became of a file between a and b. */
enum proto_change {
    PROTO_CHANGE_ADDED = 'A',
    PROTO_CHANGE_REMOVED = 'D',
    PROTO_CHANGE_CONTENT = 'M', /* or what a link or device node is of */
    PROTO_CHANGE_MODE = 'm',    /* permissions or owner alone */
};

struct proto_compare {
    enum proto_compare_kind kind;
    enum proto_change change;  /* ENTRY */
    char type;                 /* ENTRY: as find's -type: f d l c b p s */
    size_t path_len;           /* ENTRY */
    char path[PROTO_PATH_MAX]; /* ENTRY: absolute, plain; any bytes but NUL */
    uint32_t count;            /* END */
    uint32_t err;              /* FAILED: Linux errno */
};

/* The line with its newline, not terminated: its length. Pre: a sane one. */
size_t proto_compare_format(const struct proto_compare *m,
                            char ret_line[PROTO_COMPARE_LINE_MAX]);

/*
 * A line without its end. Total and strict: 0, or -EBADMSG to all that the
 * other function does not write (a path with "." in it, other escapes, ...).
 */
int proto_compare_parse(const char *line, size_t len,
                        struct proto_compare *ret_m)
    __attribute__((warn_unused_result));

#endif
