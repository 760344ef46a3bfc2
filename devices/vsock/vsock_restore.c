/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vsock device across a save and a restore: what is saved, the event that
 * tells a restored guest that its connections are gone, and the gate that stays
 * shut until the guest has read it. See virtio_vsock.h and vsock_device.h.
 */
#include "devices/vsock/vsock_device.h"

#include <errno.h>

#include "base/num.h"
#include "base/state_field.h"

/* struct virtio_vsock_event (VirtIO 1.2, 5.10.6.7): one u32. */
#define EVENT_SIZE 4u
#define EVENT_TRANSPORT_RESET 0u

static struct virtio_vsock *vsock_of(struct virtio_device *dev)
{
    return (struct virtio_vsock *)dev; /* dev is its first member */
}

static struct virtqueue *event_queue(struct virtio_vsock *vsock)
{
    return &vsock->dev.queues[VSOCK_QUEUE_EVENT];
}

void vsock_quiesce(struct virtio_device *dev)
{
    struct vsock_rx *rx = &vsock_of(dev)->rx;

    /* Those at hand are the ones popped last: all before them were pushed. */
    virtqueue_unpop(&dev->queues[VSOCK_QUEUE_RX], (uint16_t)rx->count);
    rx->first = 0;
    rx->count = 0;
}

/*
 * A shut gate is state: its event lies in the guest's used ring, and a restore
 * then waits for that one instead of sending another.
 */
static const struct state_field fields[] = {
    STATE_FIELD(struct virtio_vsock, table.next_host_port),
    STATE_FIELD(struct virtio_vsock, rx.kicks),
    STATE_FIELD(struct virtio_vsock, halted),
    STATE_FIELD(struct virtio_vsock, gate.shut),
    STATE_FIELD(struct virtio_vsock, gate.since),
};

void vsock_save(const struct virtio_device *dev, struct state_writer *w)
{
    const struct virtio_vsock *vsock = (const struct virtio_vsock *)dev;

    state_put_u64(w, vsock->options.guest_cid);
    state_put_fields(w, vsock, fields, ARRAY_SIZE(fields));
}

static bool state_can_be(const struct virtio_vsock *vsock)
{
    /* A device that was never started has asked nobody for anything. */
    if (!vsock->dev.active &&
        (vsock->rx.kicks || vsock->halted || vsock->gate.shut))
        return false;
    return vsock_table_check_port(&vsock->table) &&
           (vsock->gate.shut || vsock->gate.since == 0);
}

int vsock_load(struct virtio_device *dev, struct state_reader *r)
{
    struct virtio_vsock *vsock = vsock_of(dev);
    uint64_t guest_cid = state_get_u64(r);

    vsock->stats = (struct virtio_vsock_stats){0};
    state_get_fields(r, vsock, fields, ARRAY_SIZE(fields));
    /* Clients may come before the guest runs; then they wait for it, too. */
    vsock->gate.loaded = dev->active;
    if (r->error == 0 && guest_cid == vsock->options.guest_cid &&
        state_can_be(vsock))
        return 0;
    vsock->table.next_host_port = VSOCK_HOST_PORT_FIRST;
    return -EBADMSG;
}

/*
 * Writes the event into a buffer of the guest: 1, 0 if there is none, or a
 * negative errno.
 */
static int send_event(struct virtio_vsock *vsock)
{
    struct desc_chain *chain = &vsock->chain;
    uint8_t event[EVENT_SIZE];
    int ret = virtqueue_pop(event_queue(vsock), chain);

    if (ret <= 0)
        return ret;
    num_put_le32(event, EVENT_TRANSPORT_RESET);
    if (chain->readable_count > 0 ||
        desc_chain_write(chain, 0, event, sizeof(event)) < 0)
        return -EPROTO;
    virtqueue_push(event_queue(vsock), chain->head, sizeof(event));
    virtio_device_interrupt_queue(&vsock->dev, VSOCK_QUEUE_EVENT);
    return 1;
}

/* Clients that waited are given the guest's time to answer from now on. */
static void open_gate(struct virtio_vsock *vsock)
{
    struct vsock_link *link;

    vsock->gate = (struct vsock_gate){0};
    TAILQ_FOREACH(link, &vsock->links, all_entry)
    {
        if (link->conn.state == VSOCK_CONN_CONNECTING)
            vsock_link_set_deadline(link, VSOCK_CONNECT_TIMEOUT_MS);
    }
}

static void shut_gate(struct virtio_vsock *vsock)
{
    vsock->gate.shut = true;
    /*
     * Linux gives the buffer back at once and kicks: it lies behind those that
     * it had given before, not behind the one we took.
     */
    vsock->gate.since = virtqueue_kick_on_next(event_queue(vsock));
}

void vsock_restored(struct virtio_device *dev)
{
    struct virtio_vsock *vsock = vsock_of(dev);
    int sent = 0;

    vsock_enter(vsock);
    vsock->gate.loaded = false;
    if (!vsock->halted && !vsock->gate.shut)
        sent = send_event(vsock);
    if (sent > 0)
        shut_gate(vsock);
    else if (!vsock->gate.shut)
        open_gate(vsock);
    if (sent < 0)
        vsock_halt(vsock);
    vsock_leave(vsock);
}

void vsock_gate_check(struct virtio_vsock *vsock)
{
    if (!vsock->gate.shut ||
        !virtqueue_has_grown(event_queue(vsock), vsock->gate.since))
        return;
    open_gate(vsock);
    virtqueue_disable_kicks(event_queue(vsock));
}

bool vsock_gate_is_shut(const struct virtio_vsock *vsock)
{
    return vsock->gate.loaded || vsock->gate.shut;
}
