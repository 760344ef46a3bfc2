/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: dispatch, changes in mid-round, stop, odd descriptors. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "devices/evloop.h"
#include "tests/fake_guest.h"

struct watcher {
    struct evloop_source source;
    struct evloop *loop;
    unsigned calls;
    uint32_t events;
    struct watcher *victim; /* removed and freed by the handler */
};

static void watcher_handler(void *ctx, uint32_t events)
{
    struct watcher *w = ctx;

    w->calls++;
    w->events = events;
    if (w->victim) {
        evloop_remove(w->loop, &w->victim->source);
        close(w->victim->source.fd);
        free(w->victim);
        w->victim = NULL;
    }
}

/* A watched eventfd; signalled if count is not 0. */
static struct watcher *watcher_new(struct evloop *loop, unsigned count)
{
    struct watcher *w = calloc(1, sizeof(*w));

    ck_assert_ptr_nonnull(w);
    w->loop = loop;
    w->source.fd = eventfd(count, EFD_NONBLOCK);
    w->source.events = EPOLLIN;
    w->source.handler = watcher_handler;
    w->source.ctx = w;
    ck_assert_int_eq(evloop_add(loop, &w->source), 0);
    return w;
}

static void watcher_free(struct watcher *w)
{
    evloop_remove(w->loop, &w->source);
    close(w->source.fd);
    free(w);
}

static struct evloop *loop_new(void)
{
    struct evloop *loop;

    ck_assert_int_eq(evloop_new(NULL, &loop), 0);
    return loop;
}

START_TEST(dispatches)
{
    struct evloop *loop = loop_new();
    struct watcher *quiet = watcher_new(loop, 0);
    struct watcher *loud = watcher_new(loop, 1);

    ck_assert_int_eq(evloop_run_once(loop, 0), 1);
    ck_assert_uint_eq(loud->calls, 1);
    ck_assert_uint_eq(loud->events, EPOLLIN);
    ck_assert_uint_eq(quiet->calls, 0);
    ck_assert_int_eq(evloop_add(loop, &loud->source), -EEXIST);

    ck_assert_int_eq(evloop_modify(loop, &loud->source, 0), 0);
    ck_assert_int_eq(evloop_run_once(loop, 0), 0);
    ck_assert_int_eq(evloop_modify(loop, &loud->source, EPOLLOUT), 0);
    ck_assert_int_eq(evloop_run_once(loop, 0), 1);
    ck_assert_uint_eq(loud->events, EPOLLOUT);

    evloop_remove(loop, &loud->source);
    evloop_remove(loop, &loud->source);
    ck_assert(!loud->source.active);
    ck_assert_int_eq(evloop_modify(loop, &loud->source, EPOLLIN), -ENOENT);
    ck_assert_int_eq(evloop_run_once(loop, 0), 0);
    watcher_free(quiet);
    watcher_free(loud);
    evloop_free(loop);
}
END_TEST

/* Each handler of the round frees the other source; only one may run. */
START_TEST(handler_frees_other)
{
    struct evloop *loop = loop_new();
    struct watcher *a = watcher_new(loop, 1);
    struct watcher *b = watcher_new(loop, 1);
    struct watcher *left;

    a->victim = b;
    b->victim = a;
    ck_assert_int_eq(evloop_run_once(loop, 0), 1);
    /* The one that ran took its victim with it (ASan watches). */
    left = a->calls ? a : b;
    ck_assert_ptr_null(left->victim);
    watcher_free(left);
    evloop_free(loop);
}
END_TEST

static void replace_handler(void *ctx, uint32_t events)
{
    struct watcher *w = ctx;

    (void)events;
    w->calls++;
    /* A new source in the slot of one with an event already fetched. */
    evloop_remove(w->loop, &w->victim->source);
    ck_assert_int_eq(evloop_add(w->loop, &w->victim->source), 0);
}

START_TEST(late_event_misses_successor)
{
    struct evloop *loop = loop_new();
    struct watcher *a = watcher_new(loop, 1);
    struct watcher *b = watcher_new(loop, 1);

    a->source.handler = replace_handler;
    b->source.handler = replace_handler;
    a->victim = b;
    b->victim = a;
    ck_assert_int_eq(evloop_run_once(loop, 0), 1);
    a->victim = b->victim = NULL;
    watcher_free(a);
    watcher_free(b);
    evloop_free(loop);
}
END_TEST

static void mute_handler(void *ctx, uint32_t events)
{
    struct watcher *w = ctx;

    (void)events;
    w->calls++;
    ck_assert_int_eq(evloop_modify(w->loop, &w->victim->source, EPOLLOUT), 0);
}

START_TEST(event_no_longer_wanted)
{
    struct evloop *loop = loop_new();
    struct watcher *a = watcher_new(loop, 1);
    struct watcher *b = watcher_new(loop, 1);

    a->source.handler = mute_handler;
    b->source.handler = mute_handler;
    a->victim = b;
    b->victim = a;
    ck_assert_int_eq(evloop_run_once(loop, 0), 1);
    a->victim = b->victim = NULL;
    watcher_free(a);
    watcher_free(b);
    evloop_free(loop);
}
END_TEST

static void *stopper(void *ctx)
{
    usleep(20 * 1000);
    evloop_stop(ctx);
    return NULL;
}

START_TEST(stops)
{
    struct evloop *loop = loop_new();
    pthread_t thread;

    /* A stop before the run counts. */
    evloop_stop(loop);
    ck_assert_int_eq(evloop_run(loop), 0);
    /* And is used up by it: this one waits for the thread's. */
    ck_assert_int_eq(pthread_create(&thread, NULL, stopper, loop), 0);
    ck_assert_int_eq(evloop_run(loop), 0);
    pthread_join(thread, NULL);
    ck_assert_int_eq(evloop_run_once(loop, 0), 0);
    evloop_free(loop);
}
END_TEST

START_TEST(odd_descriptors)
{
    struct evloop *loop = loop_new();
    FILE *file = tmpfile();
    struct evloop_source source = {.events = EPOLLIN};

    ck_assert_ptr_nonnull(file);
    source.fd = fileno(file);
    ck_assert_int_eq(evloop_add(loop, &source), -EPERM);
    ck_assert(!source.active);
    source.fd = -1;
    ck_assert_int_eq(evloop_add(loop, &source), -EBADF);
    /* Both slots came back: the next source gets one. */
    watcher_free(watcher_new(loop, 0));
    fclose(file);
    evloop_free(loop);
}
END_TEST

/* An owner that closes before it removes does no harm. */
START_TEST(closed_before_removed)
{
    struct evloop *loop = loop_new();
    struct watcher *w = watcher_new(loop, 1);

    close(w->source.fd);
    ck_assert_int_eq(evloop_run_once(loop, 0), 0);
    evloop_remove(loop, &w->source);
    ck_assert(!w->source.active);
    free(w);
    evloop_free(loop);
}
END_TEST

#define MANY 1500

START_TEST(many_sources)
{
    struct evloop *loop = loop_new();
    static struct watcher *all[MANY];
    struct rlimit limit = {MANY + 100, MANY + 100};
    unsigned called = 0;

    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        ck_abort_msg("needs %d descriptors", MANY + 100);
    for (unsigned i = 0; i < MANY; i++)
        all[i] = watcher_new(loop, i % 2);
    for (unsigned round = 0; round < MANY / 2 && called < MANY / 2; round++) {
        int n = evloop_run_once(loop, 0);

        ck_assert_int_gt(n, 0);
        for (unsigned i = 0; i < MANY; i++) {
            if (all[i]->calls && all[i]->source.active) {
                evloop_remove(loop, &all[i]->source);
                called++;
            }
        }
    }
    ck_assert_uint_eq(called, MANY / 2);
    for (unsigned i = 0; i < MANY; i++)
        watcher_free(all[i]);
    evloop_free(loop);
}
END_TEST

static void lock_probe(void *ctx, uint32_t events)
{
    struct watcher *w = ctx;

    (void)events;
    w->calls = (unsigned)pthread_mutex_trylock((pthread_mutex_t *)w->victim);
}

START_TEST(holds_lock_in_handlers)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct evloop *loop;
    struct watcher *w;

    ck_assert_int_eq(evloop_new(&lock, &loop), 0);
    w = watcher_new(loop, 1);
    w->source.handler = lock_probe;
    w->victim = (struct watcher *)(void *)&lock;
    ck_assert_int_eq(evloop_run_once(loop, 0), 1);
    ck_assert_uint_eq(w->calls, EBUSY);
    ck_assert_int_eq(pthread_mutex_trylock(&lock), 0);
    pthread_mutex_unlock(&lock);
    w->victim = NULL;
    watcher_free(w);
    evloop_free(loop);
}
END_TEST

START_TEST(free_accepts)
{
    struct evloop *loop = loop_new();
    struct watcher *w = watcher_new(loop, 0);

    evloop_free(NULL);
    evloop_free(loop);
    ck_assert(!w->source.active); /* its owner need not know */
    close(w->source.fd);
    free(w);
}
END_TEST

/* No descriptor for the n-th thing it needs: an error and nothing leaked. */
START_TEST(out_of_descriptors)
{
    struct evloop *loop = NULL;
    int first = dup(0);
    int ret;

    close(first);
    for (int spare = 0; spare < 2; spare++) {
        struct rlimit limit = {(rlim_t)(first + spare), 1024};

        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        ck_assert_int_eq(evloop_new(NULL, &loop), -EMFILE);
        ck_assert_ptr_null(loop);
        limit.rlim_cur = 1024;
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        ret = dup(0);
        ck_assert_int_eq(ret, first);
        close(ret);
    }
}
END_TEST

START_TEST(out_of_memory)
{
    struct evloop *loop = loop_new();
    struct evloop_source source = {.fd = 0, .events = EPOLLIN};
    struct evloop *second = NULL;
    int added, made;

    if (fake_out_of_memory_begin()) {
        added = evloop_add(loop, &source);
        made = evloop_new(NULL, &second);
        fake_out_of_memory_end();
        ck_assert_int_eq(added, -ENOMEM);
        ck_assert(!source.active);
        ck_assert_int_eq(made, -ENOMEM);
        ck_assert_ptr_null(second);
    }
    evloop_free(loop);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("evloop");
    TCase *tc = tcase_create("all");

    tcase_add_test(tc, dispatches);
    tcase_add_test(tc, handler_frees_other);
    tcase_add_test(tc, late_event_misses_successor);
    tcase_add_test(tc, event_no_longer_wanted);
    tcase_add_test(tc, stops);
    tcase_add_test(tc, odd_descriptors);
    tcase_add_test(tc, closed_before_removed);
    tcase_add_test(tc, many_sources);
    tcase_add_test(tc, holds_lock_in_handlers);
    tcase_add_test(tc, free_accepts);
    tcase_add_test(tc, out_of_descriptors);
    tcase_add_test(tc, out_of_memory);
    suite_add_tcase(s, tc);
    return s;
}

int main(void)
{
    SRunner *sr = srunner_create(suite());
    int failed;

    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
