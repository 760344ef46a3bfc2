/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device thread's event loop: epoll over descriptors that devices watch.
 *
 * Owner: the device thread. Sources are added, changed and removed either
 * before the loop runs or with the loop's lock held (that is: from a handler,
 * or from a vCPU thread that took the lock for a register access).
 * evloop_stop may be called from any thread.
 */
#ifndef MICROSBX_DEVICES_EVLOOP_H
#define MICROSBX_DEVICES_EVLOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct evloop;

/*
 * A watched descriptor, embedded in its owner. The owner fills fd, handler and
 * ctx; events is changed by evloop_modify. The descriptor stays the owner's.
 */
struct evloop_source {
    int fd;
    uint32_t events; /* EPOLLIN, EPOLLOUT, ... ; 0: only errors and hang-ups */
    void (*handler)(void *ctx, uint32_t events);
    void *ctx;
    bool active;   /* the loop's own: true while watched */
    uint32_t slot; /* the loop's own */
};

/*
 * Makes a loop. lock (borrowed, may be NULL) is held while handlers run and
 * not while the loop waits. Returns 0 or a negative errno.
 */
int evloop_new(pthread_mutex_t *lock, struct evloop **ret_loop)
    __attribute__((warn_unused_result));
void evloop_free(struct evloop *loop);

/*
 * 0 or a negative errno; -EEXIST if the source is already active, -EPERM if
 * the descriptor cannot be watched (a regular file, for one).
 */
int evloop_add(struct evloop *loop, struct evloop_source *source)
    __attribute__((warn_unused_result));
/*
 * Changes what is waited for; no-op if events are the same already. 0 or a
 * negative errno; -ENOENT if the source is not active.
 */
int evloop_modify(struct evloop *loop, struct evloop_source *source,
                  uint32_t events) __attribute__((warn_unused_result));
/*
 * Stops watching; no-op if not active. The handler is not called again, not
 * even for an event already fetched in the running round: a handler may remove
 * and free any other source.
 */
void evloop_remove(struct evloop *loop, struct evloop_source *source);

/* Runs until evloop_stop; returns 0 or a negative errno of epoll. */
int evloop_run(struct evloop *loop) __attribute__((warn_unused_result));
/*
 * Waits at most timeout_ms (-1: for ever) for one round of events and handles
 * it: for tests and for draining. Returns the number of handlers called, or a
 * negative errno.
 */
int evloop_run_once(struct evloop *loop, int timeout_ms);
/* Makes evloop_run return after the round in progress. Any thread. */
void evloop_stop(struct evloop *loop);

#endif
