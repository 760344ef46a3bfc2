/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tx queue: packets from the guest. Headers are copied out once and then
 * checked; payload goes from guest memory to the host's socket by sendmsg,
 * consecutive packets of one connection in one call. See vsock_device.h.
 */
#include "devices/vsock/vsock_device.h"

static struct virtqueue *tx_queue(struct virtio_vsock *vsock)
{
    return &vsock->dev.queues[VSOCK_QUEUE_TX];
}

static void tx_push(struct virtio_vsock *vsock, uint16_t head)
{
    virtqueue_push(tx_queue(vsock), head, 0);
    vsock->tx.used = true;
}

/* Sends the batch and gives its chains back. */
static void tx_flush(struct virtio_vsock *vsock)
{
    struct vsock_tx_batch *batch = &vsock->tx.batch;
    struct vsock_link *link = batch->link;
    uint32_t done;
    int ret;

    if (!link)
        return;
    ret = vsock_host_send(&link->host, batch->iov, batch->parts, batch->total,
                          &done);
    vsock_link_host_sent(link, done, ret);
    vsock_link_touch(link);
    for (unsigned i = 0; i < batch->heads_count; i++)
        tx_push(vsock, batch->heads[i]);
    batch->link = NULL;
    batch->parts = 0;
    batch->heads_count = 0;
    batch->total = 0;
}

/* Adds the payload of the chain at hand; it is given back by the flush. */
static void tx_add_data(struct virtio_vsock *vsock, struct vsock_link *link,
                        uint32_t len)
{
    struct vsock_tx_batch *batch = &vsock->tx.batch;
    const struct desc_chain *chain = &vsock->chain;
    int parts;

    if (batch->link != link || batch->heads_count == VSOCK_TX_BATCH ||
        batch->parts + chain->readable_count > VIRTQUEUE_SIZE_MAX)
        tx_flush(vsock);
    parts = iov_slice(chain->iov, chain->readable_count, VSOCK_HEADER_SIZE, len,
                      batch->iov + batch->parts);
    if (parts < 0)
        parts = 0; /* cannot be: len was checked against the chain */
    batch->link = link;
    batch->parts += (unsigned)parts;
    batch->total += len;
    batch->heads[batch->heads_count++] = chain->head;
    vsock->stats.bytes_from_guest += len;
}

static void tx_refuse(struct virtio_vsock *vsock,
                      const struct vsock_header *header)
{
    /* A RST is never answered by another, or two ends could play for ever. */
    if (header->op != VSOCK_OP_RST)
        vsock_rx_add_rst(&vsock->rx, header);
}

/* The guest wants to connect to one of the host's ports. */
static void tx_request(struct virtio_vsock *vsock,
                       const struct vsock_header *header)
{
    const struct vsock_dialer *dialer = &vsock->options.dialer;
    struct vsock_link *link = NULL;

    if (dialer->dial && header->src_port != VSOCK_PORT_ANY &&
        header->dst_port != VSOCK_PORT_ANY)
        link = vsock_link_new(vsock, -1);
    if (!link) {
        vsock->stats.refused++;
        tx_refuse(vsock, header);
        return;
    }
    vsock_conn_request(&link->conn, header);
    vsock_table_insert(&vsock->table, link);
    vsock_link_set_deadline(link, VSOCK_DIAL_TIMEOUT_MS);
    link->token = ++vsock->last_token;
    /* The answer may come from inside this call. */
    dialer->dial(dialer->ctx, link->token, header->dst_port);
}

/* What the guest did to a connection, carried out on the host side. */
static void tx_apply(struct vsock_link *link, enum vsock_verdict verdict,
                     bool was_connecting)
{
    struct virtio_vsock *vsock = link->vsock;

    switch (verdict) {
    case VSOCK_VERDICT_ESTABLISHED:
        vsock_link_accepted(link);
        break;
    case VSOCK_VERDICT_SHUTDOWN:
        vsock_link_guest_shut(link);
        break;
    case VSOCK_VERDICT_VIOLATION:
        vsock_count_violation(vsock);
        __attribute__((fallthrough));
    case VSOCK_VERDICT_END:
        if (was_connecting)
            vsock_link_refuse(link);
        break;
    case VSOCK_VERDICT_NONE:
    case VSOCK_VERDICT_DATA:
    default:
        break;
    }
    vsock_link_touch(link);
}

/* A packet for a link we have. True if its chain is in the batch now. */
static bool tx_receive(struct vsock_link *link,
                       const struct vsock_header *header)
{
    bool was_connecting = link->conn.state == VSOCK_CONN_CONNECTING;
    struct virtio_vsock *vsock = link->vsock;
    enum vsock_verdict verdict;

    /* An end comes after the data before it. */
    if (header->op != VSOCK_OP_RW && vsock->tx.batch.link == link)
        tx_flush(vsock);
    verdict = vsock_conn_receive(&link->conn, header);
    if (verdict == VSOCK_VERDICT_DATA) {
        tx_add_data(vsock, link, header->len);
        return true;
    }
    tx_apply(link, verdict, was_connecting);
    return false;
}

/* The header is not what any driver would write. */
static void tx_violate(struct virtio_vsock *vsock, struct vsock_link *link,
                       const struct vsock_header *header)
{
    vsock_count_violation(vsock);
    if (!link) {
        tx_refuse(vsock, header);
        return;
    }
    vsock_conn_abort(&link->conn);
    vsock_link_touch(link);
}

/* The packet at hand. True if its chain is in the batch now. */
static bool tx_packet(struct virtio_vsock *vsock)
{
    const struct desc_chain *chain = &vsock->chain;
    uint8_t bytes[VSOCK_HEADER_SIZE];
    struct vsock_header header;
    struct vsock_link *link;

    if (chain->writable_count > 0 ||
        desc_chain_read(chain, 0, bytes, sizeof(bytes)) < 0) {
        vsock_count_violation(vsock);
        return false;
    }
    vsock_header_decode(bytes, &header);
    if (header.src_cid != vsock->options.guest_cid) {
        vsock_count_violation(vsock); /* in nobody's name: no answer */
        return false;
    }
    if (header.dst_cid != VSOCK_CID_HOST || header.type != VSOCK_TYPE_STREAM) {
        tx_refuse(vsock, &header);
        return false;
    }
    link = vsock_table_find(&vsock->table, header.src_port, header.dst_port);
    if (header.len > chain->readable_len - VSOCK_HEADER_SIZE) {
        tx_violate(vsock, link, &header);
        return false;
    }
    if (link)
        return tx_receive(link, &header);
    if (header.op == VSOCK_OP_REQUEST)
        tx_request(vsock, &header);
    else
        tx_refuse(vsock, &header);
    return false;
}

/* Takes at most *budget packets. 0: the queue is empty; else it is not. */
static int tx_take(struct virtio_vsock *vsock, unsigned *budget)
{
    int ret;

    do {
        if (*budget == 0 || !vsock_rx_has_rst_room(&vsock->rx))
            return 1;
        ret = virtqueue_pop(tx_queue(vsock), &vsock->chain);
        if (ret < 0)
            vsock_halt(vsock);
        if (ret <= 0)
            return 0;
        if (!tx_packet(vsock))
            tx_push(vsock, vsock->chain.head);
        (*budget)--;
    } while (!vsock->halted);
    return 0;
}

void vsock_tx_run(struct virtio_vsock *vsock)
{
    unsigned budget = VSOCK_TX_CHAINS;
    int left;

    if (!vsock->dev.active || vsock->halted)
        return;
    virtqueue_disable_kicks(tx_queue(vsock));
    do {
        left = tx_take(vsock, &budget);
        tx_flush(vsock);
    } while (!left && !vsock->halted &&
             virtqueue_enable_kicks(tx_queue(vsock)));
    /*
     * Stopped half-way, kicks stay off: either our turn is over and we come
     * back by ourselves, or the guest has to take its RSTs first, and its
     * kick of the rx queue brings us back.
     */
    vsock->tx.stopped = left;
    if (left && budget == 0)
        vsock_come_back(vsock);
}
