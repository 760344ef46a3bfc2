/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the handle on a monitor, shared by its parts: monitor.c (the
 * process and what it tells) and monitor_snapshot.c (what is asked of a machine
 * that stands still). Nobody else includes this.
 */
#ifndef MICROSBX_TRIAL_MONITOR_HANDLE_H
#define MICROSBX_TRIAL_MONITOR_HANDLE_H

#include "base/msg.h"
#include "trial/monitor.h"

/*
 * Events that came while an answer was waited for. A monitor sends STATS only
 * when asked and RUNNING once; dials beyond the room are refused.
 */
#define MONITOR_QUEUE_MAX 8u

struct monitor {
    pid_t pid; /* -1 once reaped */
    int sock;
    int cancel_fd;         /* borrowed; -1 = none */
    uint64_t memory_bytes; /* of the machine that was built */
    bool ended;            /* EXIT or GONE was seen: no more events */
    /* Of an order that nobody waits for any more; 0: there is none. */
    enum monitor_msg late_answer;
    struct monitor_end end;
    char reason[160];
    struct msg msg;
    struct monitor_event queue[MONITOR_QUEUE_MAX];
    unsigned queued;
};

/*
 * Takes one message off the socket, if there is one: 1 with m->msg filled and
 * its descriptors closed, 0 if there is none, or -EPIPE with *ret_event GONE.
 */
int monitor_take(struct monitor *m, struct monitor_event *ret_event)
    __attribute__((warn_unused_result));
/* Makes the message in hand an event; one that is none makes it GONE. */
void monitor_message_event(struct monitor *m, struct monitor_event *ret_event);

/* What a person is told of a machine that the monitor refused to build. */
void monitor_fail_refused(const struct monitor_error *e,
                          const struct monitor_names *names, struct failure *f);

#endif
