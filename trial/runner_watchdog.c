/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second pair of eyes on the clock, for when the trial's own loop is in a
 * write to this host's storage that does not come back: a thread that stops the
 * monitor (SIGSTOP) shortly after the deadline. It decides nothing: what ended
 * the trial is for the loop to find, which looks at the clock before it
 * believes what it reads.
 *
 * The thread touches this struct only, under its lock, and never outlives the
 * trial's loop. The monitor is not reaped while it may be stopped.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "base/io.h"
#include "trial/runner.h"

/* The loop is first, unless it is held up. */
#define LAG_NS 500000000u
#define STACK_SIZE ((size_t)64 << 10)

struct watchdog {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* CLOCK_MONOTONIC */
    pid_t pid;
    uint64_t deadline_ns; /* io_now_ns; 0: none */
    bool over;
    bool fired; /* it has stopped the monitor */
};

/* Waits for ns nanoseconds or a change. Lock held. */
static void wait_for(struct watchdog *w, uint64_t ns)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    ns += (uint64_t)until.tv_nsec;
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    pthread_cond_timedwait(&w->changed, &w->lock, &until);
}

static void *watch(void *arg)
{
    struct watchdog *w = arg;

    pthread_mutex_lock(&w->lock);
    while (!w->over) {
        uint64_t now = io_now_ns(), due = w->deadline_ns + LAG_NS;

        if (w->deadline_ns == 0) {
            pthread_cond_wait(&w->changed, &w->lock);
        } else if (now < due) {
            wait_for(w, due - now);
        } else {
            kill(w->pid, SIGSTOP);
            w->fired = true;
            w->deadline_ns = 0;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* No signal is the thread's to take. 0 or an errno. */
static int start_thread(struct watchdog *w)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int ret = pthread_attr_init(&attr);

    if (ret != 0)
        return ret;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    ret = pthread_attr_setstacksize(&attr, STACK_SIZE);
    if (ret == 0)
        ret = pthread_create(&w->thread, &attr, watch, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return ret;
}

static struct watchdog *watchdog_new(pid_t pid)
{
    struct watchdog *w = calloc(1, sizeof(*w));
    pthread_condattr_t attr;

    if (!w)
        return NULL;
    w->pid = pid;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (start_thread(w) == 0)
        return w;
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
    return NULL;
}

/* Pipes and sockets are polled; a write to anything else may wait. */
static bool may_hold_us(const struct trial_sink *sink)
{
    struct stat st;

    return sink->fd >= 0 && fstat(sink->fd, &st) == 0 &&
           !S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode);
}

void runner_watch_begin(struct runner *r)
{
    const struct trial_spec *s = r->spec;

    /* A keeper moves deadlines while a machine is saved, which takes long. */
    if (s->keeper || (!s->events && s->file_count == 0 &&
                      !may_hold_us(&s->out) && !may_hold_us(&s->err)))
        return;
    /* Without it the deadline is the loop's alone to keep. */
    r->watchdog = watchdog_new(monitor_pid(r->monitor));
    runner_watch(r);
}

void runner_watch(struct runner *r)
{
    struct watchdog *w = r->watchdog;
    uint64_t deadline = 0;

    if (!w)
        return;
    if (r->phase == RUNNER_EXEC)
        deadline = r->deadline_ns;
    else if (r->phase == RUNNER_GET)
        deadline = r->file_deadline_ns;
    if (deadline == r->watched_ns)
        return;
    r->watched_ns = deadline;
    pthread_mutex_lock(&w->lock);
    w->deadline_ns = deadline;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

bool runner_watch_has_fired(struct runner *r)
{
    struct watchdog *w = r->watchdog;

    if (w) {
        pthread_mutex_lock(&w->lock);
        r->watch_fired = w->fired;
        pthread_mutex_unlock(&w->lock);
    }
    return r->watch_fired;
}

void runner_watch_end(struct runner *r)
{
    struct watchdog *w = r->watchdog;

    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->over = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    r->watch_fired = w->fired;
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
    r->watchdog = NULL;
}
