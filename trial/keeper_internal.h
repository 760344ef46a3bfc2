/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a keeper, shared by its parts and nobody else:
 *
 * keeper.c          the machine: its socket, its time, its end
 * keeper_client.c   a connection: messages in, and out as it takes them
 * keeper_exec.c     what a client has the agent do: commands and files
 * keeper_snapshot.c a snapshot of the machine, which goes on
 * keeper_monitor.c  whether the monitor was stopped by somebody
 */
#ifndef MICROSBX_TRIAL_KEEPER_INTERNAL_H
#define MICROSBX_TRIAL_KEEPER_INTERNAL_H

#include "base/fifo.h"
#include "base/msg.h"
#include "trial/keeper_proto.h"
#include "trial/keeper_runner.h"

enum keeper_client_state {
    CLIENT_FREE,
    CLIENT_IDLE,    /* has asked nothing, or waits for the end */
    CLIENT_COLLECT, /* exec: its strings are on the way */
    CLIENT_PENDING, /* exec: the agent's queue had no room for it */
    CLIENT_ACTIVE,  /* the agent does it */
    CLIENT_DONE,    /* the last message is set, and to be sent */
};

struct keeper_client {
    enum keeper_client_state state;
    int sock;        /* owned; -1: hung up, or done */
    bool live;       /* the agent's handle has not ended */
    uint32_t handle; /* of the agent, while live */

    /* exec */
    struct keeper_exec *request; /* owned, until the agent has it */
    char *strings;               /* owned, until the agent has it */
    size_t strings_used;
    struct fifo in;       /* stdin that the agent did not take yet */
    bool in_ended;        /* ... and nothing comes behind it */
    uint32_t in_owed;     /* credit for the client */
    struct fifo out[2];   /* stdout and stderr for the client */
    uint32_t sent[2];     /* of it, that it gave no credit for yet */
    uint64_t dropped[2];  /* of it, that came too late for a slow client */
    bool started;         /* STARTED is to be sent, or was */
    bool said_started;    /* it was */
    uint64_t deadline_ns; /* exec: its timeout; file: given up; 0: none */
    uint64_t confirm_ns;  /* the agent must have said so by then */
    bool late;            /* deadline_ns is over */

    /* file */
    bool is_file;
    int file_fd; /* owned; lent to the agent's client while live; -1 */

    enum keeper_message last_type;
    union keeper_body last;
};

/* Commands of clients that a snapshot of the machine names. */
#define KEEPER_RAN_MAX 64u

struct keeper {
    struct registry_entry entry; /* owned */
    struct machine_record record;
    int listen_fd;  /* owned */
    int spare_fd;   /* owned: given up to refuse a client when none is left */
    int starter_fd; /* borrowed; -1: told */
    int busy_fd;    /* owned: nobody is served yet; -1 */
    struct runner *runner;
    bool ready;
    bool unavailable;
    bool expired;
    uint64_t expire_ns; /* 0: not yet known */
    bool stopping;
    uint64_t stop_ns;    /* the grace is over; 0: none */
    uint64_t look_ns;    /* the monitor was last looked at */
    uint64_t stopped_ns; /* ... and is stopped since; 0: it is not */
    struct keeper_client clients[KEEPER_CLIENTS_MAX];
    struct keeper_freeze *freeze; /* owned; NULL: no snapshot under way */
    bool parking; /* the agent was asked to, and does not serve all again */
    /* What a snapshot describes: a copy with descriptors of its own. */
    struct machine origin;
    bool has_origin;
    /* What clients ran, as shown; ran_count counts also what has no room. */
    char ran[KEEPER_RAN_MAX][MACHINE_COMMAND_MAX + 1];
    size_t ran_count;
    struct msg msg; /* the one at hand */
};

/* ---- keeper.c ---- */

/* Why nothing can be asked of the machine now, as a refusal; false: it can. */
bool keeper_refuses(const struct keeper *k, struct failure *ret_why);
/* Its agent does not do what it is told: no more requests, no results. */
void keeper_give_up(struct keeper *k);
/* What is asked of the machine now has no result, for this reason. */
void keeper_end_requests(struct keeper *k, const char *cause,
                         const struct failure *why);
void keeper_stop(struct keeper *k, uint32_t grace_ms);
void keeper_kill(struct keeper *k);
void keeper_get_status(const struct keeper *k, struct keeper_status *ret);

/* ---- keeper_monitor.c ---- */

/* When it looks again; UINT64_MAX: nobody waits for the machine. */
uint64_t keeper_monitor_due_ns(const struct keeper *k);
/* Looks: a monitor that somebody stopped serves nobody. */
void keeper_monitor_on_clock(struct keeper *k, uint64_t now_ns);

/* ---- keeper_client.c ---- */

/* Tells one for whom there is no descriptor, and closes it. */
void keeper_client_turn_away(const struct keeper *k, int sock);
/* Takes over a connection; refuses it if there are too many. */
void keeper_client_accept(struct keeper *k, int sock);
short keeper_client_events(const struct keeper_client *c);
void keeper_client_on_poll(struct keeper *k, struct keeper_client *c,
                           short revents);
/* Sends what the client takes; closes behind the last message. */
void keeper_client_flush(struct keeper *k, struct keeper_client *c);
/* Sets the last message. body may be NULL. */
void keeper_client_answer(struct keeper_client *c, enum keeper_message type,
                          const union keeper_body *body);
void keeper_client_refuse(struct keeper_client *c, const struct failure *why);
/* The agent's handle is over: frees the slot, if its client has gone. */
void keeper_client_settle(struct keeper_client *c);
/* Closes and frees all of it, whatever its state. */
void keeper_client_drop(struct keeper_client *c);

/* ---- keeper_snapshot.c ---- */

/* SNAPSHOT: answers at once if it is refused, else when it is published. */
void keeper_snapshot_begin(struct keeper *k, struct keeper_client *c,
                           const struct keeper_snapshot *request);
/* The client has gone: what is made for it is not published. */
void keeper_snapshot_forget(struct keeper *k, const struct keeper_client *c);
/* Ends one that is under way, unpublished. */
void keeper_snapshot_abort(struct keeper *k);
/* Its helper's socket, to be read; -1: there is none. */
int keeper_snapshot_fd(const struct keeper *k);
void keeper_snapshot_on_helper(struct keeper *k);
/* When the agent must be parked; UINT64_MAX: none is waited for. */
uint64_t keeper_snapshot_due_ns(const struct keeper *k);
void keeper_snapshot_on_clock(struct keeper *k, uint64_t now_ns);
/* Lets go of the origin's descriptors. */
void keeper_forget_machine(struct keeper *k);

/* ---- keeper_exec.c: each is given a message that was decoded ---- */

void keeper_exec_begin(struct keeper *k, struct keeper_client *c,
                       const struct keeper_exec *request);
void keeper_exec_strings(struct keeper *k, struct keeper_client *c,
                         const struct keeper_bytes *data);
/* PENDING: tries again. */
void keeper_exec_try(struct keeper *k, struct keeper_client *c);
/* For an active exec: 0, or -EBADMSG if the client may not say that. */
int keeper_exec_message(struct keeper *k, struct keeper_client *c,
                        uint32_t type, const union keeper_body *body)
    __attribute__((warn_unused_result));
/* PUT or GET; the file's descriptor is taken over. */
void keeper_file_begin(struct keeper *k, struct keeper_client *c,
                       enum keeper_message type,
                       const struct keeper_file *request, int fd);
/* Nobody waits for it any more. */
void keeper_request_cancel(struct keeper *k, struct keeper_client *c);
/* Its deadline or its confirmation may be due. */
void keeper_request_on_clock(struct keeper *k, struct keeper_client *c,
                             uint64_t now_ns);

#endif
