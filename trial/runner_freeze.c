/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine that becomes a snapshot: when its warm-up has ended or waits, the
 * agent parks, the connection is closed, and the machine is stopped and saved.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/io.h"
#include "trial/keeper_runner.h"
#include "trial/runner.h"

/* Syncing, dropping caches and clearing free memory, on a slow host. */
#define QUIESCE_MS 180000u
/*
 * Linux's random generator re-keys itself when its key is older than half the
 * uptime, and at most once a minute (6.1, crng_reseed_interval): one
 * that is set after a minute of uptime then holds for a whole minute.
 */
#define PINNED_AGE_MS 63000u
/* The guest hears that the host has hung up, and lets go of its end. */
#define SETTLE_MS 50
#define MS 1000000ull /* nanoseconds */

/* ---- the line that says "ready" ---- */

static void end_line(struct runner *r)
{
    struct line_watch *w = &r->ready;
    size_t len = w->len;

    while (len > 0 && len <= RUNNER_LINE_MAX && w->line[len - 1] == '\r')
        len--;
    if (len == strlen(r->spec->freeze->ready) &&
        !memcmp(w->line, r->spec->freeze->ready, len))
        w->seen = true;
    w->len = 0;
}

void runner_watch_ready(struct runner *r, const void *bytes, size_t len)
{
    struct line_watch *w = &r->ready;
    const char *at = bytes;

    if (!r->spec->freeze || !r->spec->freeze->ready || w->seen)
        return;
    for (size_t i = 0; i < len && !w->seen; i++) {
        if (at[i] == '\n')
            end_line(r);
        else if (w->len < RUNNER_LINE_MAX)
            w->line[w->len++] = at[i];
        else
            w->len = RUNNER_LINE_MAX + 1; /* too long to be it */
    }
    if (!w->seen || runner_is_late(r))
        return;
    runner_event(r, "warm", NULL);
    r->spec->freeze->waiting = !r->spec->no_agent;
    if (r->spec->no_agent)
        r->phase = RUNNER_OVER;
    else
        runner_begin_quiesce(r);
}

/* ---- parking ---- */

static void ask_to_park(struct runner *r)
{
    uint32_t flags = PROTO_QUIESCE_FREE_MEMORY;
    int ret;

    if (r->spec->freeze->pinned)
        flags |= PROTO_QUIESCE_PINNED;
    runner_enter_phase(r, RUNNER_QUIESCE, "quiesce");
    r->deadline_ns = io_now_ns() + QUIESCE_MS * MS;
    ret = agent_client_quiesce(r->client, flags);
    if (ret != 0)
        runner_fail(r, "quiesce_failed", "agent",
                    "build the image anew with this version",
                    "cannot ask the guest to make ready: %s", strerror(-ret));
}

void runner_begin_quiesce(struct runner *r)
{
    r->deadline_ns = 0;
    runner_watch(r);
    /* One that was restored comes from a machine that was old enough. */
    if (r->spec->freeze->pinned && !r->spec->restore) {
        r->old_enough_ns = r->result->running_ns + PINNED_AGE_MS * MS;
        runner_enter_phase(r, RUNNER_AGE, "age");
        return;
    }
    ask_to_park(r);
}

void runner_is_old_enough(struct runner *r)
{
    r->old_enough_ns = 0;
    ask_to_park(r);
}

void runner_waiting_ended(struct runner *r)
{
    r->spec->freeze->waiting = false;
    runner_fail(r, "warmup_failed", "--warmup",
                "let it say its ready line when it is about to read its input",
                "the warm-up ended after its ready line");
}

void runner_quiesce_late(struct runner *r)
{
    if (runner_blame_storage(r, "did not make ready to be frozen"))
        return;
    runner_fail(r, "quiesce_failed", "agent",
                "give it fewer --cpus or less to write back, or a faster host",
                "the guest did not make ready to be frozen within %u s",
                QUIESCE_MS / 1000);
}

void runner_on_quiesced(void *arg, const struct proto_quiesced *quiesced)
{
    struct runner *r = arg;
    struct trial_freeze *freeze = r->spec->freeze;

    if (r->phase != RUNNER_QUIESCE) {
        keeper_on_quiesced(r->spec->keeper, quiesced);
        return;
    }
    if (quiesced->err != 0) {
        runner_fail(r, "quiesce_failed", "agent",
                    "let the warm-up leave nothing behind but the process "
                    "that waits, with its input read and open",
                    "the guest cannot be frozen: %s",
                    strerror((int)quiesced->err));
        return;
    }
    freeze->memory_used = r->machine_memory > quiesced->memory_free
                              ? r->machine_memory - quiesced->memory_free
                              : 0;
    freeze->uptime_ms = quiesced->uptime_ms;
    freeze->window_ms = quiesced->pin_window_ms;
    r->quiesced = true;
    runner_event(r, "quiesced", NULL);
    r->phase = RUNNER_OVER;
}

/* ---- freezing ---- */

/* Events go on being taken while the guest's end of the connection closes. */
static void settle(struct runner *r)
{
    const struct timespec pause = {.tv_nsec = SETTLE_MS * 1000000};

    agent_client_free(r->client);
    r->client = NULL;
    (void)nanosleep(&pause, NULL);
}

void runner_freeze(struct runner *r)
{
    struct trial_freeze *freeze = r->spec->freeze;
    bool ready = r->spec->no_agent ? r->ready.seen : r->quiesced;
    struct failure f = {0};
    int ret;

    if (!freeze || !ready || r->machine_ended || r->facts->host_failed ||
        r->facts->cancelled)
        return;
    /* It said so after it had parked. */
    if (freeze->waiting && !r->exec_live) {
        runner_waiting_ended(r);
        return;
    }
    settle(r);
    /* What was refused is not on the disk: no machine to start from. */
    runner_ask_for_stats(r);
    if (r->machine_ended || runner_disk_refused(r))
        return;
    if (r->spec->progress)
        r->spec->progress(r->spec->progress_ctx, "save");
    monitor_set_cancel_fd(r->monitor, r->spec->signal_fd);
    ret = monitor_pause(r->monitor, &f);
    if (ret == 0)
        ret = monitor_save(r->monitor, &freeze->files, &freeze->saved, &f);
    monitor_set_cancel_fd(r->monitor, -1);
    if (ret == 0)
        freeze->done = true;
    else if (ret == -ECANCELED)
        runner_cancel(r, "signal", f.message);
    else
        runner_fail_with(r, &f);
    if (freeze->done)
        runner_event(r, "saved", NULL);
}
