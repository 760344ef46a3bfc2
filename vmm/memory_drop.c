/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dropping memory by threads. They share one counter of pieces, so that it does
 * not matter where in memory the guest has written.
 */
#include "vmm/memory_drop.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "base/num.h"

#define PIECE ((uint64_t)8 << 20)
#define HELPERS_MAX 3u /* beyond that the kernel's own locks are the limit */
#define STACK_SIZE ((size_t)64 << 10)

struct drop {
    const struct guest_mem *guest;
    atomic_uint_fast64_t next; /* the next piece's linear offset */
    atomic_int error;          /* the last one; 0: none */
};

/* The part of a region in [linear, linear + PIECE), from `start` on linearly.
 */
static int drop_part(const struct guest_mem_region *region, uint64_t start,
                     uint64_t linear)
{
    uint64_t from = linear > start ? linear - start : 0;
    uint64_t to = num_min(linear + PIECE - start, region->size);

    return madvise(region->host + from, to - from, MADV_DONTNEED) < 0 ? -errno
                                                                      : 0;
}

static int drop_piece(const struct guest_mem *guest, uint64_t linear)
{
    uint64_t start = 0;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < guest->region_count; i++) {
        const struct guest_mem_region *region = &guest->regions[i];

        if (linear < start + region->size && linear + PIECE > start)
            ret = drop_part(region, start, linear);
        start += region->size;
    }
    return ret;
}

static void *drop_pieces(void *arg)
{
    struct drop *d = arg;
    uint64_t size = 0, linear;

    for (unsigned i = 0; i < d->guest->region_count; i++)
        size += d->guest->regions[i].size;
    /* A counter alone: what the pieces are does not change meanwhile. */
    while ((linear = atomic_fetch_add(&d->next, PIECE)) < size) {
        int ret = drop_piece(d->guest, linear);

        if (ret < 0)
            atomic_store(&d->error, ret);
    }
    return NULL;
}

/* How many threads besides this one find a CPU of their own. */
static unsigned count_helpers(void)
{
    cpu_set_t set;
    int cpus = 1;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        cpus = CPU_COUNT(&set);
    return cpus > 1 ? (unsigned)num_min((uint64_t)cpus - 1, HELPERS_MAX) : 0;
}

int memory_drop(const struct guest_mem *guest)
{
    struct drop d = {.guest = guest};
    pthread_t helpers[HELPERS_MAX];
    unsigned wanted = count_helpers(), started = 0;
    pthread_attr_t attr;

    if (pthread_attr_init(&attr) == 0) {
        (void)pthread_attr_setstacksize(&attr, STACK_SIZE);
        /* Without them it takes longer, no more. */
        while (started < wanted &&
               pthread_create(&helpers[started], &attr, drop_pieces, &d) == 0)
            started++;
        (void)pthread_attr_destroy(&attr);
    }
    (void)drop_pieces(&d);
    while (started > 0)
        (void)pthread_join(helpers[--started], NULL);
    return d.error;
}
