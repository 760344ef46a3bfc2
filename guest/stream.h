/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data streams of a handle with their credit: an inlet takes DATA from the
 * host and feeds a pipe or terminal, an outlet reads one and sends DATA. An
 * inlet holds at most PROTO_WINDOW bytes; an outlet holds none, what it may
 * not send yet stays in the pipe.
 */
#ifndef MICROSBX_GUEST_STREAM_H
#define MICROSBX_GUEST_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest/conn.h"

struct inlet {
    int fd;        /* owned, non-blocking; -1: nobody takes bytes */
    bool expected; /* the host may send on it at all */
    bool tty;      /* its end is a character, not a close */
    bool ended;    /* the host has sent EOF */
    uint8_t *ring; /* PROTO_WINDOW bytes, owned */
    size_t head, used;
    uint32_t credit; /* what the host may still send */
    uint32_t owed;   /* disposed of, not yet given back */
    uint64_t bytes;  /* written to fd */
};

struct outlet {
    int fd;          /* owned, non-blocking; -1: at its end */
    uint32_t credit; /* what we may still send */
    uint64_t bytes;  /* sent */
};

/* An inlet that expects nothing. */
void inlet_init(struct inlet *in);

/* From now on the host may send; without inlet_open it is dropped. */
void inlet_expect(struct inlet *in);

/* After inlet_expect. Takes over fd. -ENOMEM: fd stays the caller's. */
int inlet_open(struct inlet *in, int fd, bool tty)
    __attribute__((warn_unused_result));

/* Closes and frees; the inlet expects nothing any more. */
void inlet_fini(struct inlet *in);

/* A new connection feeds it: full credit, nothing counted. None is unsent. */
void inlet_renew(struct inlet *in);

/*
 * Nobody reads any more: what comes is dropped, but its credit is given back
 * (a host that feeds a program which does not read must not hang).
 */
void inlet_shut(struct inlet *in);

/* DATA and EOF from the host: 0, or -EBADMSG without credit or after EOF. */
int inlet_receive(struct inlet *in, const uint8_t *bytes, size_t len)
    __attribute__((warn_unused_result));
int inlet_end(struct inlet *in) __attribute__((warn_unused_result));

bool inlet_wants_write(const struct inlet *in);

/* Writes what the fd takes; closes it when all is written after EOF. */
void inlet_pump(struct inlet *in);

/* Queues a CREDIT frame if enough is owed and the connection has room. */
void inlet_give_credit(struct inlet *in, struct conn *conn, uint32_t id,
                       uint32_t stream);

/* fd -1 is an outlet at its end. */
void outlet_init(struct outlet *out, int fd);
void outlet_fini(struct outlet *out);

/* A new connection reads it: full credit, nothing counted. */
void outlet_renew(struct outlet *out);

/* Reads a portion that nobody wants; closes fd at its end. */
void outlet_drop(struct outlet *out);

/* CREDIT from the host: 0, or -EBADMSG beyond the window. */
int outlet_add_credit(struct outlet *out, uint32_t bytes)
    __attribute__((warn_unused_result));

/* True if reading from it could lead to a frame now. */
bool outlet_can_read(const struct outlet *out, const struct conn *conn);

/* Moves at most one frame; closes fd at its end. True if bytes moved. */
bool outlet_pump(struct outlet *out, struct conn *conn, uint32_t id,
                 uint32_t stream);

#endif
