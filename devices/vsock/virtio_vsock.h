/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock (VirtIO 1.2, 5.10), streams only, with Unix sockets on the host
 * side. All of its state is here, none in the host kernel, so the guest CID is
 * private to the machine.
 *
 * Host-initiated: a client socket says "CONNECT <guest port>\n" and reads
 * "OK <assigned host port>\n", or is closed without a reply if refused; from
 * then on it is the byte stream. Guest-initiated: the device asks the dialer,
 * which answers later with a connected descriptor or a refusal.
 *
 * Flow control both ways: the guest never has more than our advertised buffer
 * in flight, and we never send more than its credit; a slow peer on either side
 * makes nothing grow. Bounds are the constants below.
 *
 * Restore: connections are not part of the saved state. Just before a restored
 * guest runs, it is sent TRANSPORT_RESET (5.10.6.7), after which it drops the
 * connections it had. Until it has read that (it gave the event's buffer back
 * and kicked the event queue) the gate is shut: nothing is sent to it, and
 * clients that say CONNECT meanwhile wait, up to 10 s each, and are connected
 * then; so the first connection after a restore is not one the guest throws
 * away. Packets for connections from before are answered with RST, then. A
 * guest that offers no event buffer, or has no driver, is not waited for. A
 * machine that is only paused, or saved and goes on, keeps its connections.
 * Host ports go on where the saved machine was, so none is used again.
 *
 * Files: virtio_vsock.c (queues, packets), vsock_conn.c (one connection's
 * states and credit; knows no queue), vsock_host.c (host descriptors, CONNECT
 * line). Owner: the device thread.
 */
#ifndef MICROSBX_DEVICES_VSOCK_VIRTIO_VSOCK_H
#define MICROSBX_DEVICES_VSOCK_VIRTIO_VSOCK_H

#include "devices/evloop.h"
#include "devices/virtio/virtio_device.h"

#define VSOCK_CONNS_MAX 1024u            /* connections at once */
#define VSOCK_BUFFER_SIZE (256u * 1024u) /* buf_alloc we advertise */
#define VSOCK_CLIENT_LINE_MAX 32u        /* the CONNECT line, with newline */

struct vsock_dialer {
    /*
     * The guest connects to (CID 2, port). The answer comes by
     * virtio_vsock_dial_result with the same token, later or from inside
     * this call.
     */
    void (*dial)(void *ctx, uint64_t token, uint32_t port);
    void *ctx; /* borrowed */
};

struct virtio_vsock_options {
    uint64_t guest_cid;         /* >= 3 */
    struct evloop *loop;        /* borrowed */
    struct vsock_dialer dialer; /* dial == NULL: guests cannot connect out */
    int listen_fd; /* owned, non-blocking listening socket, or -1 */
    /* A connection's descriptor from this number on is refused: the rest is
     * kept for others. 0: none is. */
    int fd_end;
};

struct virtio_vsock_stats {
    uint64_t bytes_from_guest;
    uint64_t bytes_to_guest;
    uint64_t connections; /* ever established */
    uint64_t refused;     /* requests refused, either way */
};

/*
 * Takes options->listen_fd, also on failure. The loop must outlive the device.
 * A client has 5 s for its line, a guest 5 s for its answer, the dialer 10 s;
 * a guest that keeps a connection whose host end is gone gets a RST after 8 s.
 * All bounds and times are in vsock_device.h. Returns 0 or a negative errno.
 */
int virtio_vsock_new(const struct virtio_vsock_options *options,
                     struct virtio_device **ret_dev)
    __attribute__((warn_unused_result));

/*
 * Adds a client as if the listener had accepted it; owns fd, also on failure.
 * Returns 0 or a negative errno (-EMFILE: too many connections).
 */
int virtio_vsock_add_client(struct virtio_device *dev, int fd)
    __attribute__((warn_unused_result));

/* The dialer's answer: a connected socket (owned) or -1 to refuse. */
void virtio_vsock_dial_result(struct virtio_device *dev, uint64_t token,
                              int fd);

const struct virtio_vsock_stats *
virtio_vsock_stats(const struct virtio_device *dev);

#endif
