/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of the vsock measurement; bench/guest/vsock.c is the other.
 *
 *   vsock_peer uds:PATH | cid:N
 *
 * The first dials through a Unix socket (CONNECT), the second through the host
 * kernel's vhost. From there on both do the same system calls. Prints
 * "rtt_us", "to_guest_mib_s" and "from_guest_mib_s".
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

#include "base/io.h"
#include "base/standard_fds.h"
#include "bench/guest/guest.h"

#define ROUND_TRIPS 400u
#define WARM_UP 50u
#define CHUNK (64u * 1024u)
#define NS_PER_S 1000000000ull

/* One buffer for all: contents do not matter. */
static uint8_t chunk[CHUNK];

static void die(const char *what)
{
    fprintf(stderr, "vsock_peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int dial_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char line[64];
    size_t len = 0;

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        die(path);
    dprintf(fd, "CONNECT %u\n", BENCH_PORT);
    do {
        if (len == sizeof(line) || read(fd, line + len, 1) != 1)
            die("no OK");
    } while (line[len++] != '\n');
    return fd;
}

static int dial_vhost(const char *cid)
{
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK,
        .svm_cid = (unsigned)strtoul(cid, NULL, 10),
        .svm_port = BENCH_PORT,
    };
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        die("connect to the guest");
    return fd;
}

/* A connection on which the guest does what the order says. */
static int dial(const char *peer, uint32_t what, uint32_t bytes)
{
    struct bench_order order = {.what = what, .bytes = bytes};
    int fd;

    if (strncmp(peer, "uds:", 4) == 0)
        fd = dial_unix(peer + 4);
    else if (strncmp(peer, "cid:", 4) == 0)
        fd = dial_vhost(peer + 4);
    else
        exit(2);
    if (io_write_full(fd, &order, sizeof(order)) < 0)
        die("order");
    return fd;
}

static void read_all(int fd, size_t len)
{
    while (len > 0) {
        ssize_t n = read(fd, chunk, len < CHUNK ? len : CHUNK);

        if (n <= 0)
            die("read");
        len -= (size_t)n;
    }
}

static void write_all(int fd, size_t len)
{
    while (len > 0) {
        size_t part = len < CHUNK ? len : CHUNK;

        if (io_write_full(fd, chunk, part) < 0)
            die("write");
        len -= part;
    }
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static void measure_round_trip(const char *peer)
{
    static uint64_t took[ROUND_TRIPS];
    int fd = dial(peer, BENCH_ECHO, 0);

    for (unsigned i = 0; i < WARM_UP + ROUND_TRIPS; i++) {
        uint64_t start = io_now_ns();

        write_all(fd, BENCH_ECHO_BYTES);
        read_all(fd, BENCH_ECHO_BYTES);
        if (i >= WARM_UP)
            took[i - WARM_UP] = io_now_ns() - start;
    }
    io_close(&fd);
    qsort(took, ROUND_TRIPS, sizeof(took[0]), compare);
    printf("rtt_us %.1f\n", (double)took[ROUND_TRIPS / 2] / 1000.0);
}

/* The last byte is acknowledged by the other side, so buffers do not count. */
static void measure_stream(const char *peer, const char *name, bool to_guest,
                           uint32_t bytes)
{
    int fd = dial(peer, to_guest ? BENCH_SINK : BENCH_SOURCE, bytes);
    uint64_t start = io_now_ns();
    double seconds;

    if (to_guest) {
        write_all(fd, bytes);
        read_all(fd, 1);
    } else {
        read_all(fd, bytes);
    }
    seconds = (double)(io_now_ns() - start) / (double)NS_PER_S;
    io_close(&fd);
    if (name)
        printf("%s %.2f\n", name, bytes / 1048576.0 / seconds);
}

int main(int argc, char **argv)
{
    const uint32_t bytes = 32u << 20;

    if (standard_fds_ensure() != 0)
        return 2;
    if (argc != 2) {
        fprintf(stderr, "usage: vsock_peer uds:PATH | cid:N\n");
        return 2;
    }
    measure_round_trip(argv[1]);
    measure_stream(argv[1], NULL, true, bytes / 8);
    measure_stream(argv[1], "to_guest_mib_s", true, bytes);
    measure_stream(argv[1], NULL, false, bytes / 8);
    measure_stream(argv[1], "from_guest_mib_s", false, bytes);
    return 0;
}
