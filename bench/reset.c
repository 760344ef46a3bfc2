/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ways back to a snapshot: the same machine rolled back in place, and the
 * end of its process and a fresh one restored.
 *
 *   reset PAIRS PAGES DIR
 *
 * A bare guest writes into PAGES pages after each reset; then it is reset, by
 * the two ways in turns. Prints "PAIR SIDE NAME VALUE" lines, SIDE ours (in
 * place) or process, in nanoseconds: reset_ns, from the decision to reset until
 * the machine runs again; of ours besides pause_ns, rollback_ns and resume_ns;
 * of the other end_ns (until the old process is gone). Pair 0 warms up. The
 * snapshot's files lie in DIR. microsbx-vmm must lie beside this program.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "base/standard_fds.h"
#include "bench/bare/snapshot.h"
#include "trial/monitor.h"

#define GUEST "dirty_pages"
#define FIRST_PAGE_MIB 16u
#define TIMEOUT_MS 60000

/* A machine restored from the snapshot, and running. */
struct running {
    struct monitor *monitor;
    int to_guest;
    int from_guest;
};

static void say(unsigned pair, const char *side, const char *name, uint64_t ns)
{
    printf("%u %s %s %" PRIu64 "\n", pair, side, name, ns);
}

/* Everything that says something of its own accord is of no interest. */
static void skip_events(struct monitor *m)
{
    struct monitor_event event;

    do {
        monitor_receive(m, &event);
        if (event.kind == MONITOR_EVENT_EXIT ||
            event.kind == MONITOR_EVENT_GONE)
            die("monitor", "it ended by itself");
    } while (event.kind != MONITOR_EVENT_NONE);
}

static void wait_until_running(struct monitor *m)
{
    struct pollfd p = {.fd = monitor_fd(m), .events = POLLIN};
    struct monitor_event event = {0};

    while (event.kind != MONITOR_EVENT_RUNNING) {
        if (poll(&p, 1, TIMEOUT_MS) <= 0)
            die("monitor", "it does not answer");
        monitor_receive(m, &event);
        if (event.kind == MONITOR_EVENT_GONE)
            die("monitor", "it died");
    }
}

static void start(struct running *r, const struct snapshot *s)
{
    const struct monitor_names names = {.snapshot = "the snapshot"};
    struct failure f = {0};
    struct vm_config config;
    int in[2], out[2];

    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        die("pipe", strerror(errno));
    snapshot_config(s, out[1], &config);
    config.console_in_fd = in[0];
    config.track_dirty = true;
    if (monitor_spawn(&r->monitor, &f) < 0 ||
        monitor_build(r->monitor, &config, &names, &f) < 0)
        die("monitor", f.message);
    vm_config_fini(&config);
    if (monitor_start(r->monitor) < 0)
        die("monitor", "it is gone");
    wait_until_running(r->monitor);
    r->to_guest = in[1];
    r->from_guest = out[0];
}

static void end(struct running *r)
{
    monitor_stop(r->monitor);
    (void)monitor_finish(r->monitor, TIMEOUT_MS);
    monitor_free(r->monitor);
    io_close(&r->to_guest);
    io_close(&r->from_guest);
}

static void dirty(struct running *r, uint32_t pages)
{
    uint8_t number[4];
    char answer;

    num_put_le32(number, pages);
    if (write(r->to_guest, number, sizeof(number)) != sizeof(number) ||
        read(r->from_guest, &answer, 1) != 1)
        die("guest", "it did not answer");
}

static void reset_in_place(unsigned pair, struct running *r, uint32_t pages)
{
    struct monitor_rolled_back done;
    struct failure f = {0};
    uint64_t began = io_now_ns(), paused, rolled_back, now;

    if (monitor_pause(r->monitor, &f) < 0)
        die("monitor", f.message);
    paused = io_now_ns();
    if (monitor_rollback(r->monitor, &done, &f) < 0)
        die("monitor", f.message);
    rolled_back = io_now_ns();
    if (monitor_resume(r->monitor, &f) < 0)
        die("monitor", f.message);
    now = io_now_ns();
    skip_events(r->monitor);
    if (done.pages < pages)
        die("monitor", "it rolled back fewer pages than were written");
    say(pair, "ours", "reset_ns", now - began);
    say(pair, "ours", "pause_ns", paused - began);
    say(pair, "ours", "rollback_ns", rolled_back - paused);
    say(pair, "ours", "resume_ns", now - rolled_back);
    say(pair, "ours", "pages", done.pages);
    say(pair, "ours", "by_dropping", done.by == MONITOR_ROLLBACK_DROPPED);
}

static void reset_process(unsigned pair, struct running *r,
                          const struct snapshot *s)
{
    uint64_t began = io_now_ns(), gone;

    end(r);
    gone = io_now_ns();
    start(r, s);
    say(pair, "process", "reset_ns", io_now_ns() - began);
    say(pair, "process", "end_ns", gone - began);
}

int main(int argc, char **argv)
{
    unsigned long pairs = argc == 4 ? strtoul(argv[1], NULL, 10) : 0;
    unsigned long pages = argc == 4 ? strtoul(argv[2], NULL, 10) : 0;
    struct running r;
    struct snapshot s;
    uint64_t bytes = 64;

    if (standard_fds_ensure() != 0)
        return 2;
    if (pairs == 0 || pages == 0 || pages > 1000000) {
        fprintf(stderr, "usage: reset PAIRS PAGES DIR\n");
        return 2;
    }
    while (bytes < FIRST_PAGE_MIB + pages / 256 + 1)
        bytes *= 2;
    snapshot_make(&s, GUEST, bytes << 20, argv[3]);
    go_first();
    start(&r, &s);
    for (unsigned pair = 0; pair <= pairs; pair++) {
        bool in_place_first = pair % 2;

        for (int i = 0; i < 2; i++) {
            dirty(&r, (uint32_t)pages);
            if ((i == 0) == in_place_first)
                reset_in_place(pair, &r, (uint32_t)pages);
            else
                reset_process(pair, &r, &s);
        }
    }
    end(&r);
    snapshot_close(&s);
    return 0;
}
