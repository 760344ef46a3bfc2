/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop over epoll.
 *
 * epoll does not carry pointers to sources but (generation, slot): between
 * epoll_wait and the handler another handler, or a vCPU thread that took the
 * lock, may remove and free a source. Its slot then has another generation and
 * the late event is dropped, without touching freed memory.
 */
#include "devices/evloop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/io.h"

#define EVLOOP_ROUND_MAX 64
#define EVLOOP_SLOTS_FIRST 16u
#define EVLOOP_SLOTS_MAX 65536u
#define EVLOOP_STOP_TAG UINT64_MAX
#define SLOT_NONE UINT32_MAX

struct evloop_slot {
    struct evloop_source *source; /* borrowed; NULL: free */
    uint32_t generation;          /* changes whenever the slot is freed */
    uint32_t next_free;
};

struct evloop {
    int epoll_fd;
    int stop_fd;           /* eventfd that wakes the loop */
    pthread_mutex_t *lock; /* borrowed, may be NULL */
    atomic_bool stop;
    struct evloop_slot *slots;
    uint32_t slot_count;
    uint32_t first_free;
};

static void loop_lock(struct evloop *loop)
{
    if (loop->lock)
        pthread_mutex_lock(loop->lock);
}

static void loop_unlock(struct evloop *loop)
{
    if (loop->lock)
        pthread_mutex_unlock(loop->lock);
}

static int slots_grow(struct evloop *loop)
{
    uint32_t count =
        loop->slot_count ? loop->slot_count * 2 : EVLOOP_SLOTS_FIRST;
    struct evloop_slot *slots;

    if (count > EVLOOP_SLOTS_MAX)
        return -ENOSPC;
    slots = realloc(loop->slots, count * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    for (uint32_t i = loop->slot_count; i < count; i++) {
        slots[i] = (struct evloop_slot){.next_free =
                                            i + 1 < count ? i + 1 : SLOT_NONE};
    }
    loop->first_free = loop->slot_count;
    loop->slots = slots;
    loop->slot_count = count;
    return 0;
}

static uint64_t slot_tag(const struct evloop *loop, uint32_t slot)
{
    return (uint64_t)loop->slots[slot].generation << 32 | slot;
}

static void slot_release(struct evloop *loop, uint32_t slot)
{
    loop->slots[slot].source = NULL;
    loop->slots[slot].generation++;
    loop->slots[slot].next_free = loop->first_free;
    loop->first_free = slot;
}

/* Pre: a free slot exists. */
static uint32_t slot_take(struct evloop *loop, struct evloop_source *source)
{
    uint32_t slot = loop->first_free;

    loop->first_free = loop->slots[slot].next_free;
    loop->slots[slot].source = source;
    return slot;
}

int evloop_new(pthread_mutex_t *lock, struct evloop **ret_loop)
{
    int ret = -ENOMEM;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = EVLOOP_STOP_TAG};
    struct evloop *loop = calloc(1, sizeof(*loop));

    if (!loop)
        return -ENOMEM;
    loop->lock = lock;
    loop->first_free = SLOT_NONE;
    loop->stop_fd = -1;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        ret = -errno;
        goto out_free;
    }
    loop->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->stop_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->stop_fd, &event) < 0) {
        ret = -errno;
        goto out_free;
    }
    *ret_loop = loop;
    return 0;
out_free:
    evloop_free(loop);
    return ret;
}

void evloop_free(struct evloop *loop)
{
    if (!loop)
        return;
    /* Sources outlive the loop in their owners: tell them. */
    for (uint32_t i = 0; i < loop->slot_count; i++) {
        if (loop->slots[i].source)
            loop->slots[i].source->active = false;
    }
    io_close(&loop->epoll_fd);
    io_close(&loop->stop_fd);
    free(loop->slots);
    free(loop);
}

int evloop_add(struct evloop *loop, struct evloop_source *source)
{
    struct epoll_event event = {.events = source->events};
    uint32_t slot;
    int ret;

    if (source->active)
        return -EEXIST;
    if (loop->first_free == SLOT_NONE) {
        ret = slots_grow(loop);
        if (ret < 0)
            return ret;
    }
    slot = slot_take(loop, source);
    event.data.u64 = slot_tag(loop, slot);
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0) {
        ret = -errno;
        slot_release(loop, slot);
        return ret;
    }
    source->slot = slot;
    source->active = true;
    return 0;
}

int evloop_modify(struct evloop *loop, struct evloop_source *source,
                  uint32_t events)
{
    struct epoll_event event = {.events = events};

    if (!source->active)
        return -ENOENT;
    if (source->events == events)
        return 0;
    event.data.u64 = slot_tag(loop, source->slot);
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
        return -errno;
    source->events = events;
    return 0;
}

void evloop_remove(struct evloop *loop, struct evloop_source *source)
{
    struct epoll_event unused = {0};

    if (!source->active)
        return;
    /* Fails only if the owner has closed fd already, which removes it too. */
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, &unused);
    slot_release(loop, source->slot);
    source->active = false;
}

/*
 * Returns 1 if a handler was called; 0 if its source had gone, or no longer
 * waits for this (an earlier handler of the round changed its mind).
 */
static int dispatch(struct evloop *loop, const struct epoll_event *event)
{
    uint32_t slot = (uint32_t)event->data.u64;
    struct evloop_source *source = NULL;
    uint32_t ready = 0;

    loop_lock(loop);
    if (slot < loop->slot_count && slot_tag(loop, slot) == event->data.u64)
        source = loop->slots[slot].source;
    if (source)
        ready = event->events & (source->events | EPOLLERR | EPOLLHUP);
    if (ready)
        source->handler(source->ctx, ready);
    loop_unlock(loop);
    return ready ? 1 : 0;
}

int evloop_run_once(struct evloop *loop, int timeout_ms)
{
    struct epoll_event events[EVLOOP_ROUND_MAX];
    int called = 0;
    int n = epoll_wait(loop->epoll_fd, events, EVLOOP_ROUND_MAX, timeout_ms);

    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        uint64_t count;

        if (events[i].data.u64 != EVLOOP_STOP_TAG)
            called += dispatch(loop, &events[i]);
        else if (read(loop->stop_fd, &count, sizeof(count)) < 0)
            continue; /* somebody read it before us; the flag decides */
    }
    return called;
}

int evloop_run(struct evloop *loop)
{
    /*
     * The flag, not the eventfd, says "stop": a stop that comes before the
     * loop runs, or while a handler runs, is seen at the next turn.
     */
    while (!atomic_exchange(&loop->stop, false)) {
        int ret = evloop_run_once(loop, -1);

        if (ret < 0)
            return ret;
    }
    return 0;
}

void evloop_stop(struct evloop *loop)
{
    uint64_t one = 1;

    /*
     * Flag first, then the wake-up: a loop that wakes by the eventfd finds the
     * flag set.
     */
    atomic_store(&loop->stop, true);
    /* Can only fail with the counter full, and then the loop wakes anyway. */
    if (write(loop->stop_fd, &one, sizeof(one)) < 0)
        return;
}
