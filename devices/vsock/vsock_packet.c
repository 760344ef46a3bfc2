/* SPDX-License-Identifier: Apache-2.0 */
/* Byte layout of the vsock packet header: little-endian, no padding. */
#include "devices/vsock/vsock_packet.h"

#include "base/num.h"

void vsock_header_decode(const uint8_t bytes[VSOCK_HEADER_SIZE],
                         struct vsock_header *ret_header)
{
    ret_header->src_cid = num_get_le64(bytes);
    ret_header->dst_cid = num_get_le64(bytes + 8);
    ret_header->src_port = num_get_le32(bytes + 16);
    ret_header->dst_port = num_get_le32(bytes + 20);
    ret_header->len = num_get_le32(bytes + 24);
    ret_header->type = num_get_le16(bytes + 28);
    ret_header->op = num_get_le16(bytes + 30);
    ret_header->flags = num_get_le32(bytes + 32);
    ret_header->buf_alloc = num_get_le32(bytes + 36);
    ret_header->fwd_cnt = num_get_le32(bytes + 40);
}

void vsock_header_encode(const struct vsock_header *header,
                         uint8_t ret_bytes[VSOCK_HEADER_SIZE])
{
    num_put_le64(ret_bytes, header->src_cid);
    num_put_le64(ret_bytes + 8, header->dst_cid);
    num_put_le32(ret_bytes + 16, header->src_port);
    num_put_le32(ret_bytes + 20, header->dst_port);
    num_put_le32(ret_bytes + 24, header->len);
    num_put_le16(ret_bytes + 28, header->type);
    num_put_le16(ret_bytes + 30, header->op);
    num_put_le32(ret_bytes + 32, header->flags);
    num_put_le32(ret_bytes + 36, header->buf_alloc);
    num_put_le32(ret_bytes + 40, header->fwd_cnt);
}
