/* SPDX-License-Identifier: Apache-2.0 */
/* One vsock connection: states and credit. See the header. */
#include "devices/vsock/vsock_conn.h"

#include <string.h>

static void conn_fill(struct vsock_conn *conn, uint16_t op,
                      struct vsock_header *header)
{
    memset(header, 0, sizeof(*header));
    header->src_port = conn->host_port;
    header->dst_port = conn->guest_port;
    header->type = VSOCK_TYPE_STREAM;
    header->op = op;
    header->buf_alloc = conn->buf_alloc;
    header->fwd_cnt = conn->fwd_cnt;
    /* Every packet carries the credit, so an update of its own is spared. */
    conn->told_fwd_cnt = conn->fwd_cnt;
    conn->due &= (uint8_t)~VSOCK_DUE_CREDIT;
}

static void conn_die(struct vsock_conn *conn, bool rst)
{
    conn->state = VSOCK_CONN_DEAD;
    conn->due = rst ? VSOCK_DUE_RST : 0;
}

static enum vsock_verdict conn_violate(struct vsock_conn *conn)
{
    conn_die(conn, true);
    return VSOCK_VERDICT_VIOLATION;
}

static void conn_learn_credit(struct vsock_conn *conn,
                              const struct vsock_header *header)
{
    conn->peer_buf_alloc = header->buf_alloc;
    conn->peer_fwd_cnt = header->fwd_cnt;
}

static enum vsock_verdict conn_receive_data(struct vsock_conn *conn,
                                            uint32_t len)
{
    if (conn->guest_shut & VSOCK_SHUTDOWN_SEND)
        return conn_violate(conn);
    /*
     * Measured by what the guest was told, not by what is true by now: it
     * can only keep to the former. Never more than buf_alloc: no wrap.
     */
    if (len > conn->buf_alloc - (conn->rx_cnt - conn->told_fwd_cnt))
        return conn_violate(conn);
    conn->rx_cnt += len;
    return len > 0 ? VSOCK_VERDICT_DATA : VSOCK_VERDICT_NONE;
}

static enum vsock_verdict conn_receive_shutdown(struct vsock_conn *conn,
                                                uint32_t flags)
{
    conn->guest_shut |= flags & VSOCK_SHUTDOWN_BOTH;
    if (conn->guest_shut != VSOCK_SHUTDOWN_BOTH)
        return VSOCK_VERDICT_SHUTDOWN;
    /*
     * The guest is through with it. It keeps the port pair until it sees a
     * RST (Linux: for 8 s), so it gets one right away.
     */
    conn_die(conn, true);
    return VSOCK_VERDICT_END;
}

static enum vsock_verdict conn_receive_open(struct vsock_conn *conn,
                                            const struct vsock_header *header)
{
    conn_learn_credit(conn, header);
    switch (header->op) {
    case VSOCK_OP_RW:
        return conn_receive_data(conn, header->len);
    case VSOCK_OP_CREDIT_UPDATE:
        return VSOCK_VERDICT_NONE;
    case VSOCK_OP_CREDIT_REQUEST:
        conn->due |= VSOCK_DUE_CREDIT;
        return VSOCK_VERDICT_NONE;
    case VSOCK_OP_SHUTDOWN:
        return conn_receive_shutdown(conn, header->flags);
    default:
        return conn_violate(conn);
    }
}

void vsock_conn_init(struct vsock_conn *conn, uint32_t buf_alloc)
{
    memset(conn, 0, sizeof(*conn));
    conn->state = VSOCK_CONN_NEW;
    conn->buf_alloc = buf_alloc;
}

void vsock_conn_start(struct vsock_conn *conn, uint32_t guest_port,
                      uint32_t host_port)
{
    conn->guest_port = guest_port;
    conn->host_port = host_port;
    conn->state = VSOCK_CONN_CONNECTING;
    conn->due = VSOCK_DUE_REQUEST;
}

void vsock_conn_request(struct vsock_conn *conn,
                        const struct vsock_header *header)
{
    conn->guest_port = header->src_port;
    conn->host_port = header->dst_port;
    conn->state = VSOCK_CONN_DIALING;
    conn_learn_credit(conn, header);
}

void vsock_conn_accept(struct vsock_conn *conn)
{
    conn->state = VSOCK_CONN_ESTABLISHED;
    conn->due |= VSOCK_DUE_RESPONSE;
}

enum vsock_verdict vsock_conn_receive(struct vsock_conn *conn,
                                      const struct vsock_header *header)
{
    if (header->op == VSOCK_OP_RST) {
        conn_die(conn, false);
        return VSOCK_VERDICT_END;
    }
    switch (conn->state) {
    case VSOCK_CONN_CONNECTING:
        if (header->op != VSOCK_OP_RESPONSE)
            return conn_violate(conn);
        /* An answer to a question that was not asked yet. */
        if (conn->due & VSOCK_DUE_REQUEST)
            return conn_violate(conn);
        conn_learn_credit(conn, header);
        conn->state = VSOCK_CONN_ESTABLISHED;
        return VSOCK_VERDICT_ESTABLISHED;
    case VSOCK_CONN_DIALING:
        if (header->op != VSOCK_OP_SHUTDOWN)
            return conn_violate(conn);
        conn_die(conn, true);
        return VSOCK_VERDICT_END;
    case VSOCK_CONN_ESTABLISHED:
        return conn_receive_open(conn, header);
    case VSOCK_CONN_NEW:
    case VSOCK_CONN_DEAD:
    default:
        return VSOCK_VERDICT_NONE; /* the RST that is due says it all */
    }
}

void vsock_conn_forwarded(struct vsock_conn *conn, uint32_t len)
{
    conn->fwd_cnt += len;
    if (conn->state != VSOCK_CONN_ESTABLISHED ||
        (conn->guest_shut & VSOCK_SHUTDOWN_SEND))
        return;
    /*
     * Half a buffer: often enough that a streaming guest never waits, and
     * sure to come before the guest runs dry, because a guest without
     * credit has a whole buffer outstanding.
     */
    if (conn->fwd_cnt - conn->told_fwd_cnt >= conn->buf_alloc / 2)
        conn->due |= VSOCK_DUE_CREDIT;
}

uint32_t vsock_conn_credit(const struct vsock_conn *conn)
{
    uint32_t in_flight = conn->tx_cnt - conn->peer_fwd_cnt;

    if (conn->state != VSOCK_CONN_ESTABLISHED ||
        (conn->due & VSOCK_DUE_RESPONSE))
        return 0;
    if ((conn->host_shut & VSOCK_SHUTDOWN_SEND) ||
        (conn->guest_shut & VSOCK_SHUTDOWN_RECEIVE))
        return 0;
    /* A guest may shrink its buffer, or lie: then it gets nothing. */
    if (in_flight >= conn->peer_buf_alloc)
        return 0;
    return conn->peer_buf_alloc - in_flight;
}

void vsock_conn_shutdown(struct vsock_conn *conn, uint32_t flags)
{
    if (conn->state != VSOCK_CONN_ESTABLISHED ||
        (conn->host_shut & flags) == flags)
        return;
    conn->host_shut |= flags;
    conn->due |= VSOCK_DUE_SHUTDOWN;
}

void vsock_conn_abort(struct vsock_conn *conn)
{
    if (conn->state == VSOCK_CONN_NEW || conn->state == VSOCK_CONN_DEAD)
        return;
    conn_die(conn, !(conn->due & VSOCK_DUE_REQUEST));
}

bool vsock_conn_next_due(struct vsock_conn *conn,
                         struct vsock_header *ret_header)
{
    static const struct {
        uint8_t due;
        uint8_t op;
    } order[] = {
        {VSOCK_DUE_RST, VSOCK_OP_RST},
        {VSOCK_DUE_REQUEST, VSOCK_OP_REQUEST},
        {VSOCK_DUE_RESPONSE, VSOCK_OP_RESPONSE},
        {VSOCK_DUE_SHUTDOWN, VSOCK_OP_SHUTDOWN},
        {VSOCK_DUE_CREDIT, VSOCK_OP_CREDIT_UPDATE},
    };

    for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        if (!(conn->due & order[i].due))
            continue;
        conn->due &= (uint8_t)~order[i].due;
        conn_fill(conn, order[i].op, ret_header);
        if (order[i].op == VSOCK_OP_SHUTDOWN)
            ret_header->flags = conn->host_shut;
        return true;
    }
    return false;
}

void vsock_conn_send(struct vsock_conn *conn, uint32_t len,
                     struct vsock_header *ret_header)
{
    conn_fill(conn, VSOCK_OP_RW, ret_header);
    ret_header->len = len;
    conn->tx_cnt += len;
}

bool vsock_conn_check(const struct vsock_conn *conn)
{
    /* told_fwd_cnt <= fwd_cnt <= rx_cnt <= told_fwd_cnt + buf_alloc */
    if (conn->rx_cnt - conn->told_fwd_cnt > conn->buf_alloc)
        return false;
    if (conn->rx_cnt - conn->fwd_cnt > conn->rx_cnt - conn->told_fwd_cnt)
        return false;
    switch (conn->state) {
    case VSOCK_CONN_NEW:
    case VSOCK_CONN_DIALING:
        return conn->due == 0;
    case VSOCK_CONN_CONNECTING:
        return (conn->due & (uint8_t)~VSOCK_DUE_REQUEST) == 0;
    case VSOCK_CONN_ESTABLISHED:
        return !(conn->due & (VSOCK_DUE_RST | VSOCK_DUE_REQUEST)) &&
               conn->guest_shut != VSOCK_SHUTDOWN_BOTH;
    case VSOCK_CONN_DEAD:
        return (conn->due & (uint8_t)~VSOCK_DUE_RST) == 0;
    default:
        return false;
    }
}
