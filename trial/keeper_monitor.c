/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A monitor that somebody stopped (SIGSTOP) runs no guest: who waits for the
 * machine would wait until it is continued. Looked at only while somebody does.
 * That the monitor is slow is no reason: storage may be.
 */
#include "trial/keeper_internal.h"
#include "trial/process_look.h"

#define MS 1000000ull /* nanoseconds */
#define LOOK_NS (500 * MS)
/* Stopped for longer than by accident. */
#define STOPPED_NS (2000 * MS)

static bool is_awaited(const struct keeper *k)
{
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        enum keeper_client_state state = k->clients[i].state;

        if (state == CLIENT_ACTIVE || state == CLIENT_PENDING)
            return true;
    }
    return false;
}

static pid_t monitor_of(const struct keeper *k)
{
    const struct runner *r = k->runner;

    return r && r->monitor && !r->machine_ended ? monitor_pid(r->monitor) : -1;
}

uint64_t keeper_monitor_due_ns(const struct keeper *k)
{
    return monitor_of(k) > 0 && is_awaited(k) ? k->look_ns + LOOK_NS
                                              : UINT64_MAX;
}

void keeper_monitor_on_clock(struct keeper *k, uint64_t now_ns)
{
    struct failure why;
    char remedy[80];
    pid_t pid;

    if (now_ns < keeper_monitor_due_ns(k))
        return;
    if (now_ns - k->look_ns > STOPPED_NS)
        k->stopped_ns = 0; /* nobody has looked since */
    k->look_ns = now_ns;
    pid = monitor_of(k);
    if (process_look(pid, 0) != PROCESS_STOPPED) {
        k->stopped_ns = 0;
        return;
    }
    if (k->stopped_ns == 0)
        k->stopped_ns = now_ns;
    if (now_ns - k->stopped_ns < STOPPED_NS)
        return;
    k->stopped_ns = 0;
    snprintf(remedy, sizeof(remedy),
             "kill -CONT %d lets it go on; microsbx kill ends it", (int)pid);
    failure_set(&why, "monitor_stopped", k->entry.name, remedy,
                "the monitor of the machine %s (process %d) was stopped from "
                "outside (SIGSTOP)",
                k->entry.name, (int)pid);
    keeper_end_requests(k, "monitor_stopped", &why);
}
