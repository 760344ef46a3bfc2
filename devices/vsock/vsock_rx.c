/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rx queue: everything the guest is sent. Control packets are flags in
 * the links and a bounded list of RSTs; data go by recvmsg straight from the
 * host's sockets into the driver's buffers, many buffers in one call. See
 * vsock_device.h.
 */
#include "devices/vsock/vsock_device.h"

#include <errno.h>
#include <string.h>

/* Rounds of one wake; a driver that refills as fast as we use ends here. */
#define RX_ROUNDS 4u

static struct virtqueue *rx_queue(struct virtio_vsock *vsock)
{
    return &vsock->dev.queues[VSOCK_QUEUE_RX];
}

static struct vsock_rx_buffer *rx_buffer(struct vsock_rx *rx, unsigned n)
{
    return &rx->buffers[(rx->first + n) % VSOCK_RX_BURST_MAX];
}

/* Keeps of a popped chain what we need: false if it cannot hold a packet. */
static bool rx_buffer_take(struct vsock_rx_buffer *buffer,
                           const struct desc_chain *chain)
{
    const struct iovec *iov = desc_chain_writable(chain);
    uint64_t len = 0;

    if (chain->readable_count > 0)
        return false;
    buffer->head = chain->head;
    buffer->parts = chain->writable_count;
    if (buffer->parts > VSOCK_RX_PARTS_MAX)
        buffer->parts = VSOCK_RX_PARTS_MAX; /* the rest stays unused */
    for (unsigned i = 0; i < buffer->parts; i++) {
        buffer->iov[i] = iov[i];
        len += iov[i].iov_len;
    }
    if (len <= VSOCK_HEADER_SIZE)
        return false;
    len -= VSOCK_HEADER_SIZE;
    buffer->room =
        len < VSOCK_RX_PAYLOAD_MAX ? (uint32_t)len : VSOCK_RX_PAYLOAD_MAX;
    return true;
}

/* Tries to have `want` buffers at hand; returns how many of them there are. */
static unsigned rx_fill(struct virtio_vsock *vsock, unsigned want)
{
    struct vsock_rx *rx = &vsock->rx;
    struct desc_chain *chain = &vsock->chain;

    if (vsock_gate_is_shut(vsock))
        return 0;
    while (rx->count < want && !vsock->halted) {
        int ret = virtqueue_pop(rx_queue(vsock), chain);

        if (ret == 0)
            break;
        if (ret < 0 || !rx_buffer_take(rx_buffer(rx, rx->count), chain)) {
            vsock_halt(vsock);
            return 0;
        }
        rx->count++;
    }
    if (rx->count > 0 && rx->kicks) {
        virtqueue_disable_kicks(rx_queue(vsock));
        rx->kicks = false;
    }
    return rx->count < want ? rx->count : want;
}

/* Copies the header to the front of a buffer, however that is cut up. */
static void rx_write_header(const struct vsock_rx_buffer *buffer,
                            const struct vsock_header *header)
{
    uint8_t bytes[VSOCK_HEADER_SIZE];
    size_t done = 0;

    vsock_header_encode(header, bytes);
    for (unsigned i = 0; done < sizeof(bytes); i++) {
        size_t len = buffer->iov[i].iov_len;

        if (len > sizeof(bytes) - done)
            len = sizeof(bytes) - done;
        memcpy(buffer->iov[i].iov_base, bytes + done, len);
        done += len;
    }
}

/* Gives the oldest buffer back to the driver. Pre: one is at hand. */
static void rx_send(struct virtio_vsock *vsock, struct vsock_header *header,
                    uint64_t host_cid)
{
    struct vsock_rx *rx = &vsock->rx;
    struct vsock_rx_buffer *buffer = rx_buffer(rx, 0);

    header->src_cid = host_cid;
    header->dst_cid = vsock->options.guest_cid;
    rx_write_header(buffer, header);
    virtqueue_push(rx_queue(vsock), buffer->head,
                   VSOCK_HEADER_SIZE + header->len);
    rx->first = (rx->first + 1) % VSOCK_RX_BURST_MAX;
    rx->count--;
    rx->used = true;
}

/* Lists the payload parts of the first n buffers, up to limit bytes. */
static unsigned rx_gather(struct vsock_rx *rx, unsigned n, uint32_t limit,
                          struct iovec *iov, uint32_t *ret_len)
{
    unsigned count = 0;
    uint32_t total = 0;

    for (unsigned i = 0; i < n && total < limit; i++) {
        const struct vsock_rx_buffer *buffer = rx_buffer(rx, i);
        uint32_t len = buffer->room;
        int parts;

        if (len > limit - total)
            len = limit - total;
        parts = iov_slice(buffer->iov, buffer->parts, VSOCK_HEADER_SIZE, len,
                          iov + count);
        if (parts < 0) /* cannot be: room was measured from these parts */
            break;
        count += (unsigned)parts;
        total += len;
    }
    *ret_len = total;
    return count;
}

/* Hands len bytes that lie in the first buffers to the guest. */
static unsigned rx_send_data(struct vsock_link *link, uint32_t len)
{
    struct virtio_vsock *vsock = link->vsock;
    unsigned used = 0;

    vsock->stats.bytes_to_guest += len;
    while (len > 0) {
        struct vsock_header header;
        uint32_t part = rx_buffer(&vsock->rx, 0)->room;

        if (part > len)
            part = len;
        vsock_conn_send(&link->conn, part, &header);
        rx_send(vsock, &header, VSOCK_CID_HOST);
        len -= part;
        used++;
    }
    return used;
}

/*
 * One recvmsg into at most `burst` buffers. Returns the number of buffers
 * used if there may be more to read, else 0 (nothing there, end or error).
 * -ENOBUFS: no rx buffer. Pre: the guest gives credit.
 */
static int rx_read_burst(struct vsock_link *link, unsigned burst)
{
    struct iovec iov[VSOCK_RX_BURST_MAX * VSOCK_RX_PARTS_MAX];
    struct virtio_vsock *vsock = link->vsock;
    uint32_t credit = vsock_conn_credit(&link->conn);
    unsigned buffers, count, used;
    uint32_t asked;
    ssize_t n;

    buffers = rx_fill(vsock, burst);
    if (buffers == 0)
        return -ENOBUFS;
    count = rx_gather(&vsock->rx, buffers, credit, iov, &asked);
    n = vsock_host_receive(&link->host, iov, count);
    if (n == 0)
        vsock_link_host_eof(link);
    else if (n < 0 && n != -EAGAIN)
        vsock_link_kill(link);
    if (n <= 0)
        return 0;
    used = rx_send_data(link, (uint32_t)n);
    return (uint32_t)n == asked ? (int)used : 0;
}

/*
 * Reads from a link's socket until it is empty or the link has had its share.
 * The size of a burst follows the traffic: it doubles while bursts are full,
 * so that a small message costs two buffers taken, and a stream 32 a call.
 * False: no rx buffer was left.
 */
static bool rx_read(struct vsock_link *link)
{
    unsigned budget = VSOCK_RX_LINK_BUFFERS;

    while (budget > 0 && vsock_conn_credit(&link->conn) > 0) {
        unsigned burst = link->burst < budget ? link->burst : budget;
        int used = rx_read_burst(link, burst);

        if (used == -ENOBUFS)
            return false;
        if (used == 0) {
            if (link->burst > VSOCK_RX_BURST_MIN)
                link->burst /= 2;
            break;
        }
        budget -= (unsigned)used;
        if (link->burst < VSOCK_RX_BURST_MAX)
            link->burst *= 2;
    }
    /* If bytes are left, the level-triggered loop brings us back. */
    link->readable = false;
    return true;
}

/* Sends what a link owes. False: no rx buffer was left. */
static bool rx_serve_link(struct vsock_link *link)
{
    struct virtio_vsock *vsock = link->vsock;
    struct vsock_header header;

    do {
        while (link->conn.due != 0) {
            if (rx_fill(vsock, 1) == 0)
                return false;
            if (vsock_conn_next_due(&link->conn, &header))
                rx_send(vsock, &header, VSOCK_CID_HOST);
        }
        if (!link->readable && link->starved)
            link->readable = vsock_conn_credit(&link->conn) > 0;
        if (link->readable && !rx_read(link))
            return false;
    } while (link->conn.due != 0); /* reading may have found the end */
    return true;
}

static bool rx_serve_rsts(struct virtio_vsock *vsock)
{
    struct vsock_rx *rx = &vsock->rx;

    while (rx->rst_count > 0) {
        const struct vsock_rst *rst = &rx->rsts[rx->rst_first];
        struct vsock_header header = {
            .src_port = rst->host_port,
            .dst_port = rst->guest_port,
            .type = rst->type,
            .op = VSOCK_OP_RST,
        };

        if (rx_fill(vsock, 1) == 0)
            return false;
        rx_send(vsock, &header, rst->host_cid);
        rx->rst_first = (rx->rst_first + 1) % VSOCK_RSTS_MAX;
        rx->rst_count--;
    }
    return true;
}

/*
 * One link's turn. If it runs out of rx buffers it queues up for more, behind
 * all others, and its socket is not watched meanwhile.
 */
static void rx_serve_turn(struct vsock_link *link)
{
    struct vsock_rx *rx = &link->vsock->rx;

    if (!rx_serve_link(link)) {
        vsock_rx_move(rx, link, VSOCK_LIST_WAITING);
        vsock_link_watch(link);
        return;
    }
    vsock_rx_move(rx, link, VSOCK_LIST_NONE);
    (void)vsock_link_settle(link);
}

/*
 * One round: those that waited come first, as long as there are buffers; new
 * ones join the queue. Links that owe nothing are settled in any case. True:
 * everybody has got what there was.
 */
static bool rx_serve_round(struct virtio_vsock *vsock)
{
    struct vsock_rx *rx = &vsock->rx;
    bool rsts_done = rx_serve_rsts(vsock);
    unsigned turns = vsock->link_count;
    struct vsock_link *link;

    /* One turn each, however fast the driver gives new buffers. */
    while ((link = TAILQ_FIRST(&rx->waiting)) && turns-- > 0 &&
           rx_fill(vsock, 1) > 0)
        rx_serve_turn(link);
    while ((link = TAILQ_FIRST(&rx->touched)))
        rx_serve_turn(link);
    return rsts_done && TAILQ_EMPTY(&rx->waiting);
}

void vsock_rx_serve(struct virtio_vsock *vsock)
{
    struct vsock_rx *rx = &vsock->rx;

    for (unsigned i = 0; i < RX_ROUNDS; i++) {
        /* With the gate shut, what the guest waits for is not a buffer. */
        if (rx_serve_round(vsock) || vsock->halted || vsock_gate_is_shut(vsock))
            return;
        rx->kicks = true;
        if (!virtqueue_enable_kicks(rx_queue(vsock)) && rx->count == 0)
            return; /* the driver will kick */
    }
    vsock_come_back(vsock);
}

void vsock_rx_init(struct vsock_rx *rx)
{
    memset(rx, 0, sizeof(*rx));
    TAILQ_INIT(&rx->touched);
    TAILQ_INIT(&rx->waiting);
}

void vsock_rx_reset(struct vsock_rx *rx)
{
    vsock_rx_init(rx);
}

bool vsock_rx_has_rst_room(const struct vsock_rx *rx)
{
    return rx->rst_count < VSOCK_RSTS_MAX;
}

void vsock_rx_add_rst(struct vsock_rx *rx, const struct vsock_header *header)
{
    unsigned slot = (rx->rst_first + rx->rst_count) % VSOCK_RSTS_MAX;

    rx->rsts[slot] = (struct vsock_rst){
        .host_cid = header->dst_cid,
        .host_port = header->dst_port,
        .guest_port = header->src_port,
        .type = header->type,
    };
    rx->rst_count++;
}

void vsock_rx_move(struct vsock_rx *rx, struct vsock_link *link,
                   enum vsock_list_name list)
{
    if (link->list == list && list != VSOCK_LIST_WAITING)
        return;
    if (link->list == VSOCK_LIST_TOUCHED)
        TAILQ_REMOVE(&rx->touched, link, list_entry);
    else if (link->list == VSOCK_LIST_WAITING)
        TAILQ_REMOVE(&rx->waiting, link, list_entry);
    link->list = list;
    if (list == VSOCK_LIST_TOUCHED)
        TAILQ_INSERT_TAIL(&rx->touched, link, list_entry);
    else if (list == VSOCK_LIST_WAITING)
        TAILQ_INSERT_TAIL(&rx->waiting, link, list_entry);
}
