/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest sees of its disk, past its own page cache. */
#include "bench/guest/guest.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define BIG (1024u * 1024u)
#define SMALL 4096u
#define SMALL_COUNT 400u
#define PASSES 3

static void transfer(int fd, bool write, uint8_t *buf, size_t len, off_t at)
{
    ssize_t n = write ? pwrite(fd, buf, len, at) : pread(fd, buf, len, at);

    if (n != (ssize_t)len)
        guest_die(write ? "write" : "read");
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(values[0]), compare);
    return values[count / 2];
}

/* The whole disk, in order; MiB/s. */
static double measure_pass(int fd, bool write, uint8_t *buf, off_t size)
{
    double start = guest_now();

    for (off_t at = 0; at + BIG <= size; at += BIG)
        transfer(fd, write, buf, BIG, at);
    return (double)(size / BIG) / (guest_now() - start);
}

static void measure_sequential(int fd, bool write, uint8_t *buf, off_t size)
{
    double rate[PASSES];

    for (unsigned i = 0; i < PASSES; i++)
        rate[i] = measure_pass(fd, write, buf, size);
    printf("bench: seq_%s_mib_s %.2f\n", write ? "write" : "read",
           median(rate, PASSES));
}

/* One request at a time, at places both monitors get alike; microseconds. */
static void measure_random(int fd, bool write, uint8_t *buf, off_t size)
{
    static double took[SMALL_COUNT];
    uint32_t place = 12345;

    for (unsigned i = 0; i < SMALL_COUNT; i++) {
        double start;

        place = place * 1664525u + 1013904223u;
        start = guest_now();
        transfer(fd, write, buf, SMALL,
                 (off_t)((place >> 4) % (size / SMALL)) * SMALL);
        took[i] = (guest_now() - start) * 1e6;
    }
    printf("bench: rand_%s_us %.1f\n", write ? "write" : "read",
           median(took, SMALL_COUNT));
}

void guest_measure_blk(void)
{
    int fd = open("/dev/vda", O_RDWR | O_DIRECT);
    off_t size = lseek(fd, 0, SEEK_END);
    uint8_t *buf = mmap(NULL, BIG, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (fd < 0 || size < (off_t)BIG || buf == MAP_FAILED)
        guest_die("/dev/vda");
    /* The first pass touches everything once, in the host too. */
    (void)measure_pass(fd, false, buf, size);
    measure_sequential(fd, true, buf, size);
    measure_sequential(fd, false, buf, size);
    measure_random(fd, false, buf, size);
    measure_random(fd, true, buf, size);
}
