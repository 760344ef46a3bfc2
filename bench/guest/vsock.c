/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's end of the vsock measurement: one connection at a time. */
#include "bench/guest/guest.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

#define CHUNK (64u * 1024u)

static uint8_t chunk[CHUNK];

/* All of it, or less if the host closed. */
static size_t read_full(int fd, void *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = read(fd, (uint8_t *)buf + done, len - done);

        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return done;
}

static void echo(int fd)
{
    ssize_t n;

    while ((n = read(fd, chunk, BENCH_ECHO_BYTES)) > 0)
        if (write(fd, chunk, (size_t)n) != n)
            break;
}

static void sink(int fd, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = read(fd, chunk, bytes < CHUNK ? bytes : CHUNK);

        if (n <= 0)
            return;
        bytes -= (size_t)n;
    }
    (void)!write(fd, "", 1);
}

static void source(int fd, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(fd, chunk, bytes < CHUNK ? bytes : CHUNK);

        if (n <= 0)
            return;
        bytes -= (size_t)n;
    }
}

static void serve(int fd)
{
    struct bench_order order;

    if (read_full(fd, &order, sizeof(order)) != sizeof(order))
        return;
    if (order.what == BENCH_ECHO)
        echo(fd);
    else if (order.what == BENCH_SINK)
        sink(fd, order.bytes);
    else if (order.what == BENCH_SOURCE)
        source(fd, order.bytes);
}

void guest_serve_vsock(void)
{
    const struct sockaddr_vm address = {
        .svm_family = AF_VSOCK,
        .svm_cid = VMADDR_CID_ANY,
        .svm_port = BENCH_PORT,
    };
    int listener = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (listener < 0 ||
        bind(listener, (const struct sockaddr *)&address, sizeof(address)) <
            0 ||
        listen(listener, 8) < 0)
        guest_die("vsock");
    puts("bench: ready");
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            guest_die("accept");
        serve(fd);
        close(fd);
    }
}
