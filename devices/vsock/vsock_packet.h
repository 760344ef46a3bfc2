/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header of a vsock packet (VirtIO 1.2, 5.10.6): numbers and byte layout,
 * nothing about what they mean for a connection.
 */
#ifndef MICROSBX_DEVICES_VSOCK_VSOCK_PACKET_H
#define MICROSBX_DEVICES_VSOCK_VSOCK_PACKET_H

#include <stdint.h>

#define VSOCK_HEADER_SIZE 44u
#define VSOCK_CID_HOST 2u
#define VSOCK_PORT_ANY UINT32_MAX /* never a real port */

/* VirtIO 1.2, 5.10.6: the only type we serve. */
#define VSOCK_TYPE_STREAM 1u

enum vsock_op {
    VSOCK_OP_INVALID = 0,
    VSOCK_OP_REQUEST = 1,
    VSOCK_OP_RESPONSE = 2,
    VSOCK_OP_RST = 3,
    VSOCK_OP_SHUTDOWN = 4,
    VSOCK_OP_RW = 5,
    VSOCK_OP_CREDIT_UPDATE = 6,
    VSOCK_OP_CREDIT_REQUEST = 7,
};

/* Flags of VSOCK_OP_SHUTDOWN: what its sender will not do any more. */
#define VSOCK_SHUTDOWN_RECEIVE 1u
#define VSOCK_SHUTDOWN_SEND 2u
#define VSOCK_SHUTDOWN_BOTH 3u

struct vsock_header {
    uint64_t src_cid;
    uint64_t dst_cid;
    uint32_t src_port;
    uint32_t dst_port;
    uint32_t len; /* bytes of payload behind the header */
    uint16_t type;
    uint16_t op; /* enum vsock_op, or anything if it came from a guest */
    uint32_t flags;
    uint32_t buf_alloc; /* the sender's receive buffer, bytes */
    uint32_t fwd_cnt;   /* bytes its receiver consumed so far, wrapping */
};

void vsock_header_decode(const uint8_t bytes[VSOCK_HEADER_SIZE],
                         struct vsock_header *ret_header);
void vsock_header_encode(const struct vsock_header *header,
                         uint8_t ret_bytes[VSOCK_HEADER_SIZE]);

#endif
