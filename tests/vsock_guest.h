/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's vsock driver on top of the fake guest, for tests and fuzzers: it
 * posts rx buffers, sends any header it is told to, and hands out what it
 * received. It keeps no connections: tests do. Test code: own mistakes abort.
 */
#ifndef MICROSBX_TESTS_VSOCK_GUEST_H
#define MICROSBX_TESTS_VSOCK_GUEST_H

#include "devices/evloop.h"
#include "devices/vsock/virtio_vsock.h"
#include "devices/vsock/vsock_packet.h"
#include "tests/fake_guest.h"

#define VSOCK_GUEST_CID 3u
#define VSOCK_GUEST_MEMORY (16u << 20)
#define VSOCK_GUEST_RX_MAX 128u    /* rx buffers it owns */
#define VSOCK_GUEST_RX_SIZE 4096u  /* payload bytes of each */
#define VSOCK_GUEST_EVENTS_MAX 8u  /* event buffers it owns, as Linux */
#define VSOCK_GUEST_TX_MAX 64u     /* packets in flight */
#define VSOCK_GUEST_TX_SIZE 65536u /* payload bytes of each */

enum vsock_guest_dial {
    VSOCK_GUEST_DIAL_KEEP,   /* remember the token, answer later */
    VSOCK_GUEST_DIAL_REFUSE, /* at once */
    VSOCK_GUEST_DIAL_ACCEPT, /* at once, with one end of a socket pair */
};

struct vsock_guest {
    struct fake_driver driver;
    struct virtio_device *dev; /* the driver's */
    struct evloop *loop;       /* owned */
    gpa_t rx_at[VSOCK_GUEST_RX_MAX];
    unsigned rx_free[VSOCK_GUEST_RX_MAX]; /* stack of indices */
    unsigned rx_free_count;
    unsigned rx_of_head[VIRTQUEUE_SIZE_MAX];
    gpa_t tx_at[VSOCK_GUEST_TX_MAX];
    unsigned tx_free[VSOCK_GUEST_TX_MAX];
    unsigned tx_free_count;
    unsigned tx_of_head[VIRTQUEUE_SIZE_MAX];
    gpa_t event_at[VSOCK_GUEST_EVENTS_MAX];
    unsigned event_of_head[VIRTQUEUE_SIZE_MAX];
    int listen_fd; /* given to the device, for its successor; or -1 */
    enum vsock_guest_dial dial;
    unsigned dial_count;
    uint64_t dial_token; /* of the last dial */
    uint32_t dial_port;
    int dial_fd; /* our end of the last accepted pair; the test closes it */
};

/* A device with this listening socket (or -1), not started. */
void vsock_guest_init(struct vsock_guest *g, int listen_fd);
void vsock_guest_fini(struct vsock_guest *g);
/* The driver starts (over) and posts rx_buffers of its rx buffers. */
void vsock_guest_start(struct vsock_guest *g, uint64_t features,
                       unsigned rx_buffers);
/* Posts n more (as far as there are any) and kicks. */
void vsock_guest_post(struct vsock_guest *g, unsigned n);

/* Runs the loop until nothing is ready. */
void vsock_guest_run(struct vsock_guest *g);

/*
 * Queues one packet exactly as it stands, with payload_len bytes behind the
 * header; no kick. False: all tx buffers are in flight.
 */
bool vsock_guest_queue(struct vsock_guest *g, const struct vsock_header *header,
                       const void *payload, uint32_t payload_len);
/* Queues and kicks; aborts if there is no tx buffer. */
void vsock_guest_send(struct vsock_guest *g, const struct vsock_header *header,
                      const void *payload, uint32_t payload_len);
/* A well-formed header for a stream between these ports. */
struct vsock_header vsock_guest_header(uint16_t op, uint32_t guest_port,
                                       uint32_t host_port);
/* Sends a packet without payload. */
void vsock_guest_control(struct vsock_guest *g, uint16_t op,
                         uint32_t guest_port, uint32_t host_port);

/*
 * Takes the next packet the device sent: true, the header and up to
 * VSOCK_GUEST_RX_SIZE bytes (ret_payload may be NULL). The buffer is not
 * posted again by itself. Aborts on a length that does not fit the header.
 */
bool vsock_guest_take(struct vsock_guest *g, struct vsock_header *ret_header,
                      uint8_t *ret_payload);

/* Posts n (of VSOCK_GUEST_EVENTS_MAX) event buffers and kicks. */
void vsock_guest_post_events(struct vsock_guest *g, unsigned n);
/*
 * Takes the next event: true and its id. Aborts on another length than 4.
 * *ret_buffer is to be given back by vsock_guest_return_event, which kicks if
 * the device wants a kick, and says whether it did.
 */
bool vsock_guest_take_event(struct vsock_guest *g, uint32_t *ret_id,
                            unsigned *ret_buffer);
bool vsock_guest_return_event(struct vsock_guest *g, unsigned buffer);

/*
 * Another monitor goes on with the guest: fake_driver_move to a fresh device.
 * The caller does virtio_mmio_restored.
 */
void vsock_guest_move(struct vsock_guest *g);

/*
 * A client on the host: connects by add_client, says "CONNECT <port>\n", the
 * guest accepts with this buf_alloc, and "OK <port>\n" is read. Returns the
 * client's socket (non-blocking) and the host port.
 */
int vsock_guest_connect(struct vsock_guest *g, uint32_t guest_port,
                        uint32_t buf_alloc, uint32_t *ret_host_port);

#endif
