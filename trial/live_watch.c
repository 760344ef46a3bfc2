/* SPDX-License-Identifier: Apache-2.0 */
/* Signs of life of a keeper; see the header. */
#include "trial/live_watch.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/host.h"
#include "trial/keeper_proto.h"
#include "trial/process_look.h"

#define MS 1000000ull /* nanoseconds */

uint64_t live_answer_ns(void)
{
    return MS * (host_is_emulated() ? LIVE_ANSWER_EMULATED_MS : LIVE_ANSWER_MS);
}

void live_watch_init(struct live_watch *watch)
{
    uint64_t now = io_now_ns();

    *watch = (struct live_watch){.sock = -1, .look_ns = now, .heard_ns = now};
}

void live_watch_fini(struct live_watch *watch)
{
    io_close(&watch->sock);
}

void live_watch_heard(struct live_watch *watch)
{
    watch->heard_ns = io_now_ns();
    io_close(&watch->sock);
}

static int fail_stopped(const struct machine_record *r, struct failure *f)
{
    char remedy[80];

    snprintf(remedy, sizeof(remedy),
             "kill -CONT %d lets it go on; microsbx kill ends the machine",
             (int)r->keeper);
    failure_set(f, "keeper_stopped", r->name, remedy,
                "the keeper of the machine %s (process %d) was stopped "
                "(SIGSTOP)",
                r->name, (int)r->keeper);
    return -EHOSTDOWN;
}

static int fail_hangs(const struct machine_record *r, struct failure *f)
{
    failure_set(f, "keeper_hangs", r->name, "microsbx kill ends the machine",
                "the keeper of the machine %s (process %d) does not answer",
                r->name, (int)r->keeper);
    return -EHOSTDOWN;
}

/* Asks how it is; whatever it says, or that it hangs up, is an answer. */
static void ask(struct live_watch *watch, const struct registry_entry *entry)
{
    struct pollfd p = {.fd = watch->sock, .events = POLLIN};

    if (watch->sock >= 0) {
        if (poll(&p, 1, 0) > 0)
            live_watch_heard(watch);
        return;
    }
    watch->sock = registry_try_connect(entry);
    if (watch->sock >= 0 && keeper_send(watch->sock, KEEPER_STATUS, NULL) != 0)
        io_close(&watch->sock);
}

int live_watch_look(struct live_watch *watch,
                    const struct registry_entry *entry,
                    const struct machine_record *record, struct failure *f)
{
    uint64_t now = io_now_ns();
    uint64_t since = now - watch->look_ns;

    if (since < LIVE_LOOK_MS * MS)
        return 0;
    watch->look_ns = now;
    /* It was us who slept: then nothing is said by that time. */
    if (since > 4 * LIVE_LOOK_MS * MS) {
        watch->heard_ns += since;
        watch->stopped_ns = 0;
    }
    if (process_look(record->keeper, record->keeper_start) == PROCESS_STOPPED) {
        if (watch->stopped_ns == 0)
            watch->stopped_ns = now;
        return now - watch->stopped_ns < LIVE_STOPPED_MS * MS
                   ? 0
                   : fail_stopped(record, f);
    }
    watch->stopped_ns = 0;
    ask(watch, entry);
    if (!registry_is_busy(entry))
        watch->busy_ns = 0;
    else if (watch->busy_ns == 0)
        watch->busy_ns = now;
    if (watch->busy_ns != 0 && now - watch->busy_ns < LIVE_BUSY_MS * MS)
        live_watch_heard(watch);
    return now < watch->heard_ns + live_answer_ns() ? 0 : fail_hangs(record, f);
}
