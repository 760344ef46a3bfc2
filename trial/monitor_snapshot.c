/* SPDX-License-Identifier: Apache-2.0 */
/* Orders to a monitor that wait for their answer; see monitor.h. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/io.h"
#include "base/patience.h"
#include "trial/monitor_handle.h"

/* A slow host with many vCPUs, and disks that finish what they began. */
#define ORDER_TIMEOUT_MS 60000
/* Saving and proving touch all of the memory: at least this many bytes a ms. */
#define BYTES_PER_MS 8192u

/* An order and its answer. */
struct order {
    enum monitor_msg type;
    enum monitor_msg answer;
    bool touches_memory;
    const char *verb; /* "the machine cannot be ..." */
};

static const struct order ORDER_PAUSE = {MONITOR_PAUSE, MONITOR_PAUSED, false,
                                         "paused"};
static const struct order ORDER_SAVE = {MONITOR_SAVE, MONITOR_SAVED, true,
                                        "saved"};
static const struct order ORDER_RESUME = {MONITOR_RESUME, MONITOR_RESUMED,
                                          false, "resumed"};
static const struct order ORDER_PROVE = {MONITOR_PROVE, MONITOR_PROVED, true,
                                         "proved"};
static const struct order ORDER_ROLLBACK = {
    MONITOR_ROLLBACK, MONITOR_ROLLED_BACK, true, "rolled back"};

static void keep_event(struct monitor *m, const struct monitor_event *e)
{
    if (m->queued < MONITOR_QUEUE_MAX)
        m->queue[m->queued++] = *e;
    else if (e->kind == MONITOR_EVENT_DIAL)
        monitor_dial_reply(m, e->dial_token, -1);
    else if (m->ended) /* its end is always told */
        m->queue[MONITOR_QUEUE_MAX - 1] = *e;
}

/* Waits until the socket is readable: 0, -ETIMEDOUT, -ECANCELED, -errno. */
static int wait_readable(const struct monitor *m, struct patience *patience)
{
    struct pollfd p[2] = {{.fd = m->sock, .events = POLLIN},
                          {.fd = m->cancel_fd, .events = POLLIN}};
    int n = patience_poll(patience, p, 2);

    if (n < 0)
        return n;
    if (n > 0 && p[1].revents)
        return -ECANCELED;
    return n == 0 && patience_is_over(patience) ? -ETIMEDOUT : 0;
}

/* Until m->msg holds the answer or an ERROR: 0 or a negative errno. */
static int await_answer(struct monitor *m, const struct order *order)
{
    uint64_t more_ms =
        order->touches_memory ? m->memory_bytes / BYTES_PER_MS : 0;
    struct patience patience = patience_of_ms(ORDER_TIMEOUT_MS + more_ms);
    struct monitor_event event;
    int ret;

    while (!m->ended) {
        ret = wait_readable(m, &patience);
        if (ret < 0)
            return ret;
        ret = monitor_take(m, &event);
        if (ret == 0)
            continue;
        if (ret > 0 &&
            (m->msg.type == order->answer || m->msg.type == MONITOR_ERROR))
            return 0;
        if (ret > 0)
            monitor_message_event(m, &event);
        keep_event(m, &event);
    }
    return -ESHUTDOWN;
}

static int fail_unanswered(const struct monitor *m, const struct order *order,
                           int error, struct failure *f)
{
    switch (error) {
    case -ETIMEDOUT:
        if (monitor_is_held(m, "when it was to answer", f))
            break;
        failure_set(f, "monitor_hangs", "microsbx-vmm", "try again",
                    "the machine cannot be %s: the monitor did not answer",
                    order->verb);
        break;
    case -ECANCELED:
        failure_set(f, "cancelled", "microsbx-vmm", NULL,
                    "cancelled before the machine was %s", order->verb);
        break;
    case -ESHUTDOWN:
    case -EPIPE:
        failure_set(f, "machine_ended", "microsbx-vmm", NULL,
                    "the machine ended before it was %s", order->verb);
        break;
    default:
        failure_set(f, "host", "microsbx-vmm", NULL,
                    "the machine cannot be %s: %s", order->verb,
                    strerror(-error));
        break;
    }
    return error;
}

static int fail_lied(struct monitor *m, const struct order *order,
                     struct failure *f)
{
    m->end.lied = true;
    failure_set(f, "monitor_lied", "microsbx-vmm", NULL,
                "the machine cannot be %s: the monitor's answer of type %u "
                "makes no sense",
                order->verb, m->msg.type);
    return -EPROTO;
}

/* The monitor said why not. */
static int fail_refused(struct monitor *m, const struct order *order,
                        struct failure *f)
{
    struct monitor_error e;

    if (monitor_error_decode(m->msg.payload, m->msg.len, &e) != 0)
        return fail_lied(m, order, f);
    if (e.error == -ENOSPC || e.error == -EDQUOT || e.error == -EFBIG)
        failure_set(f, "no_space", "snapshot",
                    "free space there, or choose another place",
                    "the machine cannot be %s: %s", order->verb, e.text);
    else
        failure_set(f, "snapshot", "snapshot", "run microsbx doctor",
                    "the machine cannot be %s: %s", order->verb, e.text);
    return e.error != 0 ? e.error : -EINVAL;
}

/* Gives an order and waits: 0 with its answer in m->msg. */
static int give_order(struct monitor *m, const struct order *order,
                      const int *fds, size_t fd_count, struct failure *f)
{
    int ret = m->ended ? -ESHUTDOWN
                       : msg_send(m->sock, order->type, NULL, 0, fds, fd_count);

    /* One that is gone has left the reason to be read. */
    if (ret == 0 || ret == -EPIPE)
        ret = await_answer(m, order);
    if (ret == -ETIMEDOUT || ret == -ECANCELED)
        m->late_answer = order->answer;
    if (ret < 0)
        return fail_unanswered(m, order, ret, f);
    if (m->msg.type == MONITOR_ERROR)
        return fail_refused(m, order, f);
    return 0;
}

/* An answer without contents. */
static int expect_empty(struct monitor *m, const struct order *order,
                        struct failure *f)
{
    return m->msg.len == 0 ? 0 : fail_lied(m, order, f);
}

int monitor_pause(struct monitor *m, struct failure *f)
{
    int ret = give_order(m, &ORDER_PAUSE, NULL, 0, f);

    return ret < 0 ? ret : expect_empty(m, &ORDER_PAUSE, f);
}

int monitor_resume(struct monitor *m, struct failure *f)
{
    int ret = give_order(m, &ORDER_RESUME, NULL, 0, f);

    return ret < 0 ? ret : expect_empty(m, &ORDER_RESUME, f);
}

int monitor_save(struct monitor *m, const struct monitor_save_files *files,
                 struct monitor_saved *ret_saved, struct failure *f)
{
    int fds[MONITOR_SAVE_FDS_MAX] = {files->state_fd, files->memory_fd};
    unsigned count = 2;
    int ret;

    for (unsigned i = 0; i < files->disk_count && i < VM_DISKS_MAX; i++)
        fds[count++] = files->disk_fds[i];
    ret = give_order(m, &ORDER_SAVE, fds, count, f);
    if (ret < 0)
        return ret;
    return monitor_saved_decode(m->msg.payload, m->msg.len, ret_saved) == 0
               ? 0
               : fail_lied(m, &ORDER_SAVE, f);
}

int monitor_prove(struct monitor *m, int state_fd, int leaves_fd,
                  struct monitor_proved *ret_proved, struct failure *f)
{
    const int fds[] = {state_fd, leaves_fd};
    int ret = give_order(m, &ORDER_PROVE, fds, 2, f);

    if (ret < 0)
        return ret;
    return monitor_proved_decode(m->msg.payload, m->msg.len, ret_proved) == 0
               ? 0
               : fail_lied(m, &ORDER_PROVE, f);
}

int monitor_rollback(struct monitor *m, struct monitor_rolled_back *ret_done,
                     struct failure *f)
{
    int ret = give_order(m, &ORDER_ROLLBACK, NULL, 0, f);

    if (ret < 0)
        return ret;
    return monitor_rolled_back_decode(m->msg.payload, m->msg.len, ret_done) == 0
               ? 0
               : fail_lied(m, &ORDER_ROLLBACK, f);
}

void monitor_set_cancel_fd(struct monitor *m, int fd)
{
    m->cancel_fd = fd;
}
