/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the vsock device: what its files share. Not for other modules.
 *
 *   virtio_vsock.c  ops, entry and exit of every call, CONNECT, dial results
 *   vsock_tx.c      the tx queue: packets from the guest
 *   vsock_rx.c      the rx queue: packets to the guest
 *   vsock_link.c    life of a link: sockets watched, deadlines, ending
 *   vsock_restore.c save and load, the reset event and the gate
 *
 * Everything that happens (a kick, a socket, a timer, a dial result) runs
 * between vsock_enter and vsock_leave. It only changes the state of links and
 * marks them with vsock_link_touch; vsock_leave then sends the guest what it is
 * owed, as far as there are rx buffers, ends links that are over and raises
 * each interrupt once. So no link is freed while somebody below holds it.
 *
 * Bounds (what a guest and slow readers can make the device hold):
 *   links       VSOCK_CONNS_MAX of about 500 bytes
 *   held bytes  the sum of all advertised buffers, VSOCK_PROMISE_MAX (48 MiB):
 *               the first links advertise VSOCK_BUFFER_SIZE, and once
 *               VSOCK_PROMISE_FULL is promised, VSOCK_BUFFER_SMALL each
 *   RSTs        VSOCK_RSTS_MAX for unknown connections; then the tx queue
 *               waits until the guest gives rx buffers
 */
#ifndef MICROSBX_DEVICES_VSOCK_VSOCK_DEVICE_H
#define MICROSBX_DEVICES_VSOCK_VSOCK_DEVICE_H

#include "devices/vsock/virtio_vsock.h"
#include "devices/vsock/vsock_table.h"

/* VirtIO 1.2, 5.10.2. */
#define VSOCK_QUEUE_RX 0u
#define VSOCK_QUEUE_TX 1u
#define VSOCK_QUEUE_EVENT 2u
#define VSOCK_FEATURE_STREAM ((uint64_t)1 << 0)

#define VSOCK_BUFFER_SMALL (16u * 1024u)
#define VSOCK_PROMISE_FULL (32u * 1024u * 1024u)
#define VSOCK_PROMISE_MAX                                                      \
    (VSOCK_PROMISE_FULL + VSOCK_CONNS_MAX * VSOCK_BUFFER_SMALL)

#define VSOCK_RSTS_MAX 256u
#define VSOCK_CLIENTS_MAX 64u /* accepted clients that sent no line yet */

/* Work per wake, so that no connection keeps the others waiting. */
#define VSOCK_TX_CHAINS 256u  /* packets taken from the tx queue */
#define VSOCK_TX_BATCH 64u    /* packets in one sendmsg */
#define VSOCK_RX_BURST_MIN 2u /* rx buffers filled by one recvmsg */
#define VSOCK_RX_BURST_MAX 32u
#define VSOCK_RX_LINK_BUFFERS 64u /* rx buffers for one link */

/* A guest's rx buffer may be cut in this many parts (Linux: 1 or 2). */
#define VSOCK_RX_PARTS_MAX 8u
#define VSOCK_RX_PAYLOAD_MAX 65536u

#define VSOCK_LINE_TIMEOUT_MS 5000u    /* a client's CONNECT line */
#define VSOCK_CONNECT_TIMEOUT_MS 5000u /* the guest's answer */
#define VSOCK_DIAL_TIMEOUT_MS 10000u   /* the dialer's answer */
#define VSOCK_CLOSE_TIMEOUT_MS 8000u   /* the guest, once the host is gone */
#define VSOCK_GATE_TIMEOUT_MS 10000u   /* a client's wait for the gate */
#define VSOCK_TICK_MS 250u

/* A RST for a connection that we do not have. */
struct vsock_rst {
    uint64_t host_cid; /* as the guest called it */
    uint32_t host_port;
    uint32_t guest_port;
    uint16_t type;
};

/* A popped rx buffer that waits to be filled. */
struct vsock_rx_buffer {
    uint16_t head;
    unsigned parts;
    uint32_t room; /* for payload, behind the header */
    struct iovec iov[VSOCK_RX_PARTS_MAX];
};

struct vsock_rx {
    /* Taken from the queue in order, used in order; the oldest at `first`. */
    struct vsock_rx_buffer buffers[VSOCK_RX_BURST_MAX];
    unsigned first;
    unsigned count;
    bool kicks; /* the driver is asked to kick for new buffers */
    bool used;  /* something was pushed since the last interrupt */
    struct vsock_list touched;
    struct vsock_list waiting;
    struct vsock_rst rsts[VSOCK_RSTS_MAX];
    unsigned rst_first;
    unsigned rst_count;
};

/* Data packets of one link, in a row, that go out in one sendmsg. */
struct vsock_tx_batch {
    struct vsock_link *link; /* NULL: empty */
    unsigned parts;
    unsigned heads_count;
    uint32_t total;
    struct iovec iov[VIRTQUEUE_SIZE_MAX];
    uint16_t heads[VSOCK_TX_BATCH];
};

struct vsock_tx {
    struct vsock_tx_batch batch;
    bool stopped; /* packets may be left: no room for RSTs, or budget used up */
    bool used;
};

/*
 * After a restore the guest has to read the event that ends its connections.
 * Until then the gate is shut: to the rx side it looks as if the guest had
 * given no buffers.
 */
struct vsock_gate {
    bool loaded; /* the event is still to be sent: as good as shut */
    bool shut;
    uint16_t since; /* the guest's index of event buffers when it was shut */
};

struct virtio_vsock {
    struct virtio_device dev; /* first */
    struct virtio_vsock_options options;
    struct virtio_vsock_stats stats;
    struct vsock_table table;
    struct vsock_list links; /* owned: every link there is */
    unsigned link_count;
    unsigned client_count; /* links in state NEW */
    unsigned timed_count;  /* links with a deadline */
    uint64_t promised;     /* sum of all buf_alloc */
    uint64_t last_token;
    struct vsock_pool pool;
    struct desc_chain chain; /* scratch: the one popped last */
    struct vsock_rx rx;
    struct vsock_tx tx;
    struct vsock_gate gate;
    struct evloop_source listener;
    struct evloop_source timer; /* ticks while something has a deadline */
    struct evloop_source again; /* eventfd: come back soon */
    bool ticking;
    bool listener_paused; /* no descriptors left: wait for a tick */
    bool halted;          /* the driver broke a queue: until reset */
    unsigned depth;       /* of vsock_enter */
};

/* ---- virtio_vsock.c ---- */

void vsock_enter(struct virtio_vsock *vsock);
void vsock_leave(struct virtio_vsock *vsock);
/* Makes the loop call us once more after the other sources had their turn. */
void vsock_come_back(struct virtio_vsock *vsock);
/* The driver broke a queue: DEVICE_NEEDS_RESET, every connection ends. */
void vsock_halt(struct virtio_vsock *vsock);
void vsock_count_violation(struct virtio_vsock *vsock);
/* A client's CONNECT line is complete: asks the guest, or refuses. */
void vsock_link_connect(struct vsock_link *link, uint32_t port);

/* ---- vsock_tx.c ---- */

/* Takes packets from the tx queue, within the budget. */
void vsock_tx_run(struct virtio_vsock *vsock);

/* ---- vsock_rx.c ---- */

void vsock_rx_init(struct vsock_rx *rx);
/* Forgets buffers and RSTs. Pre: no link is left. */
void vsock_rx_reset(struct vsock_rx *rx);
bool vsock_rx_has_rst_room(const struct vsock_rx *rx);
/* Answers a packet of a connection we do not have. Pre: has_rst_room. */
void vsock_rx_add_rst(struct vsock_rx *rx, const struct vsock_header *header);
/* Puts a link at the end of a list (or of none), whichever it was in. */
void vsock_rx_move(struct vsock_rx *rx, struct vsock_link *link,
                   enum vsock_list_name list);
/* Sends what can be sent, for every waiting and touched link in turn. */
void vsock_rx_serve(struct virtio_vsock *vsock);

/* ---- vsock_restore.c ---- */

/* The ops of these names. */
void vsock_quiesce(struct virtio_device *dev);
void vsock_save(const struct virtio_device *dev, struct state_writer *w);
int vsock_load(struct virtio_device *dev, struct state_reader *r)
    __attribute__((warn_unused_result));
void vsock_restored(struct virtio_device *dev);
/* Opens the gate if the guest has given back the event's buffer. */
void vsock_gate_check(struct virtio_vsock *vsock);
bool vsock_gate_is_shut(const struct virtio_vsock *vsock);

/* ---- vsock_link.c ---- */

/*
 * A link in state NEW around fd (-1: none yet). fd is the link's on success
 * only. NULL: too many, or no memory.
 */
struct vsock_link *vsock_link_new(struct virtio_vsock *vsock, int fd);
/* Ends it at once, whatever its state; the guest is told nothing. */
void vsock_link_free(struct vsock_link *link);
/* vsock_leave will look after it. */
void vsock_link_touch(struct vsock_link *link);
/* Host-initiated: the guest has accepted. Tells the client. */
void vsock_link_accepted(struct vsock_link *link);
/* Guest-initiated: the dialer has a socket for it, which is the link's now. */
void vsock_link_attach(struct vsock_link *link, int fd);
/* The guest shut down one direction: so does the socket. */
void vsock_link_guest_shut(struct vsock_link *link);
/* Ends both sides now; the guest gets a RST if it knows of the link. */
void vsock_link_kill(struct vsock_link *link);
/* Counts (or no longer counts) it as a client without a CONNECT line. */
void vsock_link_set_client(struct vsock_link *link, bool client);
/* From now on, in ms; 0: no deadline. */
void vsock_link_set_deadline(struct vsock_link *link, unsigned ms);
/* Watches the socket for what can be used now. */
void vsock_link_watch(struct vsock_link *link);
/* Lets go of the socket. */
void vsock_link_close_host(struct vsock_link *link);
/* The host side sent its last byte; if it hung up as well, that is its end. */
void vsock_link_host_eof(struct vsock_link *link);
/* Bytes were sent to the host, or thrown away with an error (< 0). */
void vsock_link_host_sent(struct vsock_link *link, uint32_t done, int error);
/* Ends every link whose time is over. */
void vsock_link_expire_all(struct virtio_vsock *vsock);
/* As _kill, for a request of either side that is not granted. */
void vsock_link_refuse(struct vsock_link *link);
/*
 * Last look at a link before we leave: frees it if it is over (then true),
 * else watches its socket.
 */
bool vsock_link_settle(struct vsock_link *link);

#endif
