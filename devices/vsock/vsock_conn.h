/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One vsock connection as the protocol sees it (VirtIO 1.2, 5.10.6.3-5): its
 * state, which directions are shut, credit both ways and the control packets
 * it still owes the guest. It knows no queue and no descriptor: packets come in
 * as headers and go out as headers.
 *
 *   NEW ----start---> CONNECTING --RESPONSE--> ESTABLISHED --+
 *    |                                              ^        | RST, violation,
 *    +--------------> DIALING ------accept----------+        | both directions
 *        REQUEST                                             | shut, abort
 *   any state but NEW ------------------------------------> DEAD
 *
 * All counters are 32 bits and wrap, as in the specification; only their
 * differences mean something. Owner: the device thread.
 */
#ifndef MICROSBX_DEVICES_VSOCK_VSOCK_CONN_H
#define MICROSBX_DEVICES_VSOCK_VSOCK_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/vsock/vsock_packet.h"

enum vsock_conn_state {
    VSOCK_CONN_NEW,         /* no ports yet */
    VSOCK_CONN_CONNECTING,  /* we asked the guest */
    VSOCK_CONN_DIALING,     /* the guest asked us */
    VSOCK_CONN_ESTABLISHED, /* bytes may flow */
    VSOCK_CONN_DEAD,        /* at most a RST is still owed */
};

/* Control packets owed to the guest: at most one of each, never a queue. */
#define VSOCK_DUE_RST 0x01u
#define VSOCK_DUE_REQUEST 0x02u
#define VSOCK_DUE_RESPONSE 0x04u
#define VSOCK_DUE_SHUTDOWN 0x08u
#define VSOCK_DUE_CREDIT 0x10u

/* What the caller has to do about a packet that was received. */
enum vsock_verdict {
    VSOCK_VERDICT_NONE,        /* nothing (credit may have changed) */
    VSOCK_VERDICT_ESTABLISHED, /* the guest accepted our request */
    VSOCK_VERDICT_DATA,        /* pass on header.len bytes of payload */
    VSOCK_VERDICT_SHUTDOWN,    /* guest_shut changed */
    VSOCK_VERDICT_END,         /* DEAD by the guest's wish */
    VSOCK_VERDICT_VIOLATION,   /* DEAD because the guest broke a rule */
};

struct vsock_conn {
    uint32_t guest_port;
    uint32_t host_port;
    enum vsock_conn_state state;
    uint8_t due;         /* VSOCK_DUE_* */
    uint32_t host_shut;  /* VSOCK_SHUTDOWN_*: told (or owed to) the guest */
    uint32_t guest_shut; /* VSOCK_SHUTDOWN_*: the guest told us */
    /* Guest to host. */
    uint32_t buf_alloc;    /* what we advertise; constant */
    uint32_t rx_cnt;       /* bytes the guest sent */
    uint32_t fwd_cnt;      /* of them, left us for good */
    uint32_t told_fwd_cnt; /* the fwd_cnt the guest knows of */
    /* Host to guest. */
    uint32_t tx_cnt;         /* bytes we sent */
    uint32_t peer_buf_alloc; /* what the guest advertised last */
    uint32_t peer_fwd_cnt;
};

/* A connection in state NEW that will advertise buf_alloc bytes. */
void vsock_conn_init(struct vsock_conn *conn, uint32_t buf_alloc);

/* Host-initiated. Pre: NEW. Now CONNECTING, with a REQUEST due. */
void vsock_conn_start(struct vsock_conn *conn, uint32_t guest_port,
                      uint32_t host_port);

/* Guest-initiated. Pre: NEW; header is a REQUEST. Now DIALING. */
void vsock_conn_request(struct vsock_conn *conn,
                        const struct vsock_header *header);

/* The request was granted. Pre: DIALING. ESTABLISHED, with a RESPONSE due. */
void vsock_conn_accept(struct vsock_conn *conn);

/*
 * A packet from the guest for this connection; CIDs, ports, type and the length
 * of the chain have been checked by the caller. Pre: not NEW.
 */
enum vsock_verdict vsock_conn_receive(struct vsock_conn *conn,
                                      const struct vsock_header *header)
    __attribute__((warn_unused_result));

/* len bytes of the guest's left our hands (sent on or thrown away). */
void vsock_conn_forwarded(struct vsock_conn *conn, uint32_t len);

/* Bytes the guest allows us to send now; 0 unless ESTABLISHED and open. */
uint32_t vsock_conn_credit(const struct vsock_conn *conn);

/*
 * Tells the guest (once) that the host side will not receive or send any more.
 * No effect unless ESTABLISHED.
 */
void vsock_conn_shutdown(struct vsock_conn *conn, uint32_t flags);

/*
 * Ends the connection from our side. A RST becomes due if the guest knows of
 * the connection. No effect if NEW or DEAD.
 */
void vsock_conn_abort(struct vsock_conn *conn);

/*
 * Takes the next control packet that is due: true and ret_header filled except
 * for its CIDs, or false. The most urgent comes first: RST, REQUEST, RESPONSE,
 * SHUTDOWN, CREDIT_UPDATE.
 */
bool vsock_conn_next_due(struct vsock_conn *conn,
                         struct vsock_header *ret_header);

/*
 * The header of a data packet of len bytes (<= credit), except for its CIDs;
 * counts the bytes as sent.
 */
void vsock_conn_send(struct vsock_conn *conn, uint32_t len,
                     struct vsock_header *ret_header);

/* The invariants; for tests and fuzzers. */
bool vsock_conn_check(const struct vsock_conn *conn);

#endif
