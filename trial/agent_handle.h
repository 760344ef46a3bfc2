/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the agent client, shared by its parts: agent_client.c (the
 * connection and what the guest sends), agent_request.c (what the harness
 * asks for) and agent_queue.c (the way out). Nobody else includes this.
 */
#ifndef MICROSBX_TRIAL_AGENT_HANDLE_H
#define MICROSBX_TRIAL_AGENT_HANDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trial/agent_client.h"

/*
 * Queued bytes to the guest: DATA only below the soft bound, so that a guest
 * that does not read costs this much; requests and small frames up to the
 * hard one (one exec with all its arguments fits).
 */
#define AGENT_OUT_SOFT (4u * PROTO_FRAME_MAX)
#define AGENT_OUT_MAX (4u << 20)

enum agent_kind { AGENT_FREE, AGENT_EXEC, AGENT_WRITE, AGENT_READ, AGENT_ASK };

/* A stream from the guest. allowed + pending + owed = PROTO_WINDOW. */
struct agent_inflow {
    uint32_t allowed; /* the guest may still send this much */
    uint32_t pending; /* delivered, not consumed yet */
    uint32_t owed;    /* consumed, credit not yet sent */
    uint64_t total;
};

struct agent_handle {
    enum agent_kind kind;
    uint32_t id;
    bool started;   /* exec: EXEC_STARTED came */
    bool cancelled; /* CANCEL was sent */
    /* to the guest: stdin or a file's contents */
    bool feeds;      /* there is such a stream */
    bool closed;     /* its EOF was sent */
    bool starved;    /* its owner wanted to send more than there was room */
    uint32_t credit; /* what we may still send */
    uint64_t sent;
    /* from the guest: stdout and stderr, or [0] a file's contents */
    struct agent_inflow in[2];
    /* file operations */
    int fd; /* borrowed */
    int local_err;
    uint64_t limit;
};

struct agent_client {
    int fd; /* owned */
    struct agent_client_ops ops;
    void *arg;
    bool hello;
    uint32_t features; /* as HELLO said */
    bool quiescing;    /* QUIESCE was sent and not answered yet */
    bool restoring;    /* RESTORE, the same */
    int error;         /* final result of process; 0: alive */
    uint32_t last_id;
    uint8_t *out; /* owned: bytes [out_head, out_used) are to be sent */
    size_t out_size, out_head, out_used;
    struct agent_handle handles[PROTO_HANDLES_MAX];
    struct proto_inbox in;
    char reason[160];
};

/* Live handle of that id, or NULL. */
struct agent_handle *agent_handle_find(struct agent_client *c, uint32_t id);

/*
 * A writer with room for `size` bytes of frames at the queue's end, growing it
 * as far as AGENT_OUT_MAX: 0, -EAGAIN (the guest does not read) or -ENOMEM.
 * What was written is queued by agent_out_commit.
 */
int agent_out_reserve(struct agent_client *c, size_t size,
                      struct proto_writer *ret_writer)
    __attribute__((warn_unused_result));
void agent_out_commit(struct agent_client *c,
                      const struct proto_writer *writer);

/* Bytes that wait to be sent. */
size_t agent_out_queued(const struct agent_client *c);

/* Sends what the socket takes: 0 or a negative errno (-ECONNRESET: gone). */
int agent_out_send(struct agent_client *c) __attribute__((warn_unused_result));

/* Bytes of DATA payload that may be queued for this handle now. */
size_t agent_handle_room(const struct agent_client *c,
                         const struct agent_handle *h);

/* Queues DATA within agent_handle_room; returns the bytes taken. */
size_t agent_handle_feed(struct agent_client *c, struct agent_handle *h,
                         const void *bytes, size_t len);

/* Queues EOF once: 0 or as agent_out_reserve. */
int agent_handle_close(struct agent_client *c, struct agent_handle *h)
    __attribute__((warn_unused_result));

/* Queues CANCEL once: as above. */
int agent_handle_cancel(struct agent_client *c, struct agent_handle *h)
    __attribute__((warn_unused_result));

/* Queues CREDIT for what is owed, if enough is and there is room. */
void agent_inflow_credit(struct agent_client *c, const struct agent_handle *h,
                         struct agent_inflow *flow, uint32_t stream);

#endif
