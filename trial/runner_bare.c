/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's console, and what becomes of it where there is no agent: there it
 * is the trial's output, and the way the guest ends its machine is its status.
 * That the machine ended so is a fact; that it means success is the guest's
 * claim, as an agent's exit frame would be.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/wary.h"
#include "trial/runner.h"

/* A process's status has a byte; what does not fit is no success either. */
#define STATUS_MAX 255u

int runner_open_console(struct runner *r)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                   pair) != 0)
        return -errno;
    r->console_fd = pair[0];
    wary_refuse_fds(r->console_fd);
    r->machine->config.console_out_fd = pair[1];
    return 0;
}

bool runner_console_wanted(const struct runner *r)
{
    if (r->halted && r->console_left == 0)
        return false;
    /* A guest faster than its reader waits, as on a real line. */
    return !r->spec->no_agent || relay_room(&r->out.relay) > 0;
}

/* The end of what the console said, for people. */
static void keep_tail(struct trial_result *t, const uint8_t *bytes, size_t n)
{
    size_t drop = t->console_len + n > TRIAL_CONSOLE_TAIL
                      ? t->console_len + n - TRIAL_CONSOLE_TAIL
                      : 0;

    memmove(t->console, t->console + drop, t->console_len - drop);
    t->console_len -= drop;
    memcpy(t->console + t->console_len, bytes, n);
    t->console_len += n;
}

bool runner_on_console(struct runner *r)
{
    uint8_t buf[TRIAL_CONSOLE_TAIL / 2];
    size_t size = sizeof(buf);
    ssize_t n;

    /* output_add would drop, and count, what its buffer does not hold. */
    if (r->spec->no_agent && relay_room(&r->out.relay) < size)
        size = relay_room(&r->out.relay);
    if (r->halted && size > r->console_left)
        size = r->console_left;
    n = read(r->console_fd, buf, size);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        io_close(&r->console_fd);
        return false;
    }
    if (r->halted)
        r->console_left -= (size_t)n;
    if (r->spec->no_agent) {
        (void)runner_add_output(r, &r->out, buf, (size_t)n);
        runner_watch_ready(r, buf, (size_t)n);
    }
    keep_tail(r->result, buf, (size_t)n);
    return true;
}

void runner_drain_console(struct runner *r)
{
    while (r->console_fd >= 0 && runner_console_wanted(r) &&
           runner_on_console(r))
        continue;
}

bool runner_bare_status(struct runner *r, const struct monitor_exit *e)
{
    bool debug = e->reason == MONITOR_EXIT_DEBUG;
    struct outcome_facts *facts = r->facts;

    if (!r->spec->no_agent || (!debug && e->reason != MONITOR_EXIT_POWER_OFF))
        return false;
    if (!facts->guest_ran) {
        facts->monitor_fault = true;
        facts->cause = "monitor_lied";
        return true;
    }
    facts->has_status = true;
    if (debug)
        facts->exit_code =
            (int)(e->status < STATUS_MAX ? e->status : STATUS_MAX);
    facts->cause = monitor_exit_reason_name(e->reason);
    return true;
}
