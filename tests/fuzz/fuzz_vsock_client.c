/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host-side client: the input is what it writes, in pieces (a length byte, 0
 * for a half close, and the bytes), to a guest that accepts every request. Only
 * a good line makes a request, and what follows it reaches the guest in order.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vsock/vsock_device.h"
#include "tests/vsock_guest.h"

static struct vsock_guest g;
static uint8_t sent[4096];
static size_t sent_len, got; /* got: bytes of `sent` that left the socket */

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void guest_accepts(const struct vsock_header *request)
{
    struct vsock_header answer = vsock_guest_header(
        VSOCK_OP_RESPONSE, request->dst_port, request->src_port);
    uint8_t *end = memchr(sent, '\n', sent_len);
    uint32_t port;

    require(got == 0 && end);
    got = (size_t)(end - sent) + 1;
    require(vsock_line_parse((char *)sent, got, &port) == 0);
    require(port == request->dst_port);
    vsock_guest_send(&g, &answer, NULL, 0);
}

static void guest_step(void)
{
    uint8_t bytes[VSOCK_GUEST_RX_SIZE];
    struct vsock_header h;

    vsock_guest_run(&g);
    while (vsock_guest_take(&g, &h, bytes)) {
        if (h.op == VSOCK_OP_REQUEST) {
            guest_accepts(&h);
        } else if (h.op == VSOCK_OP_RW) {
            require(got > 0 && got + h.len <= sent_len);
            require(memcmp(bytes, sent + got, h.len) == 0);
            got += h.len;
        }
        vsock_guest_post(&g, 1);
    }
    vsock_guest_run(&g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];

    sent_len = 0;
    got = 0;
    vsock_guest_init(&g, -1);
    vsock_guest_start(&g, 0, 32);
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    require(virtio_vsock_add_client(g.dev, pair[1]) == 0);
    while (size > 0) {
        size_t len = *data++;

        size--;
        if (len > size)
            len = size;
        if (len == 0)
            shutdown(pair[0], SHUT_WR);
        else if (len <= sizeof(sent) - sent_len &&
                 send(pair[0], data, len, MSG_NOSIGNAL) == (ssize_t)len) {
            memcpy(sent + sent_len, data, len);
            sent_len += len;
        }
        data += len;
        size -= len;
        guest_step();
    }
    guest_step();
    require(got == 0 || got == sent_len); /* all of it, once accepted */
    close(pair[0]);
    vsock_guest_run(&g);
    vsock_guest_fini(&g);
    return 0;
}
