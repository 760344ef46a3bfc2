/* SPDX-License-Identifier: Apache-2.0 */
/* Talking to a keeper; see the header. */
#include "trial/live.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"

#define MS 1000000ull /* nanoseconds */

int live_open(const char *name, struct live *ret_live, struct failure *f)
{
    int ret;

    memset(ret_live, 0, sizeof(*ret_live));
    ret_live->sock = -1;
    live_watch_init(&ret_live->watch);
    ret_live->entry = (struct registry_entry){.dir_fd = -1, .lock_fd = -1};
    ret = registry_find(name, &ret_live->entry, f);
    if (ret == 0)
        ret = machine_record_read(&ret_live->entry, &ret_live->record, f);
    if (ret != 0)
        live_close(ret_live);
    return ret;
}

void live_close(struct live *live)
{
    io_close(&live->sock);
    live_watch_fini(&live->watch);
    registry_close(&live->entry);
}

/* To be called while nothing comes: 0, or -EHOSTDOWN with live->why. */
static int look(struct live *live)
{
    return live_watch_look(&live->watch, &live->entry, &live->record,
                           &live->why);
}

int live_reread(struct live *live, struct failure *f)
{
    return machine_record_read(&live->entry, &live->record, f);
}

/* ---- connecting ---- */

static int fail_ended(const struct live *live, struct failure *f)
{
    const struct machine_record *r = &live->record;

    if (r->state == MACHINE_DEAD)
        failure_set(f, "machine_dead", r->name, "microsbx rm removes it",
                    "the machine %s is dead: its keeper was killed", r->name);
    else
        failure_set(f, "machine_ended", r->name,
                    "microsbx logs and microsbx wait tell how; microsbx rm "
                    "removes it",
                    "the machine %s has ended (%s%s%s)", r->name,
                    machine_state_name(r->state), r->outcome[0] ? ": " : "",
                    r->outcome);
    return -ESHUTDOWN;
}

static int fail_connect(struct live *live, int error, struct failure *f)
{
    if (error == -EHOSTDOWN) {
        *f = live->why;
        return error;
    }
    /* It may have ended this very moment, and then its record says so. */
    if (error == -ECONNREFUSED && registry_wait_end(&live->entry, 1000)) {
        int ret = live_reread(live, f);

        return ret ? ret : fail_ended(live, f);
    }
    if (error == -EAGAIN || error == -ECONNREFUSED)
        failure_set(f, "keeper_hangs", live->record.name,
                    "microsbx kill ends the machine",
                    "the keeper of the machine %s (process %d) does not answer",
                    live->record.name, (int)live->record.keeper);
    else
        failure_set(f, "host", live->record.name, NULL,
                    "cannot talk to the machine %s: %s", live->record.name,
                    strerror(-error));
    return error;
}

int live_connect(struct live *live, struct failure *f)
{
    const struct machine_record *r = &live->record;

    if (r->state != MACHINE_RUNNING && r->state != MACHINE_STARTING)
        return fail_ended(live, f);
    if (r->protocol != KEEPER_PROTO_VERSION) {
        failure_set(f, "keeper_version", r->name,
                    "use the program that started it, or microsbx rm -f",
                    "the machine %s was started by another version of microsbx",
                    r->name);
        return -EPROTO;
    }
    /* EAGAIN: as many wait already as it lets wait. */
    while ((live->sock = registry_try_connect(&live->entry)) == -EAGAIN) {
        if (look(live) != 0)
            return fail_connect(live, -EHOSTDOWN, f);
        usleep(20000);
    }
    return live->sock >= 0 ? 0 : fail_connect(live, live->sock, f);
}

/* ---- messages ---- */

int live_send(struct live *live, enum keeper_message type,
              const union keeper_body *body, int fd)
{
    struct pollfd p = {.fd = live->sock, .events = POLLOUT};
    uint8_t buf[MSG_PAYLOAD_MAX];
    size_t len = 0;
    int ret = keeper_encode(type, body, buf, &len);

    while (ret == 0) {
        ret = msg_send(live->sock, type, buf, len, &fd, fd >= 0 ? 1 : 0);
        if (ret != -EAGAIN)
            return ret;
        ret = poll(&p, 1, LIVE_LOOK_MS) < 0 && errno != EINTR ? -errno
                                                              : look(live);
    }
    return ret;
}

/* By the clock; a negative time has no end, and none is asked for. */
static uint64_t deadline_after(int timeout_ms)
{
    return io_now_ns() + (timeout_ms < 0 ? 0u : (unsigned)timeout_ms) * MS;
}

/* The rest of a time in slices between which is looked: milliseconds. */
static int next_slice(int timeout_ms, uint64_t deadline_ns)
{
    uint64_t now = io_now_ns();

    if (timeout_ms < 0)
        return LIVE_LOOK_MS;
    if (now >= deadline_ns)
        return 0;
    return deadline_ns - now > LIVE_LOOK_MS * MS
               ? LIVE_LOOK_MS
               : (int)((deadline_ns - now) / MS) + 1;
}

/*
 * Waits until the keeper, or wake_fd (-1: none), has something to say: 0;
 * -ECANCELED: wake_fd has; -ETIMEDOUT; -EHOSTDOWN; or a failure of poll.
 */
static int wait_readable(struct live *live, int timeout_ms, int wake_fd)
{
    uint64_t deadline = deadline_after(timeout_ms);

    for (;;) {
        struct pollfd p[2] = {{live->sock, POLLIN, 0}, {wake_fd, POLLIN, 0}};
        int slice = next_slice(timeout_ms, deadline);
        int n = poll(p, 2, slice);
        int ret;

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            return p[1].revents ? -ECANCELED : 0;
        if (n == 0 && slice == 0)
            return -ETIMEDOUT;
        ret = look(live);
        if (ret != 0)
            return ret;
    }
}

int live_receive(struct live *live, int timeout_ms, uint32_t *ret_type,
                 union keeper_body *ret_body)
{
    int ret;

    do {
        ret = wait_readable(live, timeout_ms, -1);
        if (ret == 0)
            ret = msg_receive(live->sock, &live->msg);
        else if (ret < 0)
            return ret;
    } while (ret == -EINTR || ret == -EAGAIN);
    if (ret <= 0)
        return ret;
    live_watch_heard(&live->watch);
    msg_close_fds(&live->msg); /* a keeper sends none */
    *ret_type = live->msg.type;
    ret = keeper_decode(live->msg.type, live->msg.payload, live->msg.len,
                        ret_body);
    return ret == 0 ? 1 : ret;
}

void live_explain(const struct live *live, uint32_t type,
                  const union keeper_body *body, struct failure *f)
{
    if (type == KEEPER_REFUSED) {
        *f = body->refused;
        return;
    }
    if (type == KEEPER_ENDED) {
        const struct keeper_ended *e = &body->ended;

        if (failure_is_set(&e->failure) && e->kind == OUTCOME_INFRA_UNKNOWN)
            *f = e->failure;
        else
            failure_set(f, "machine_ended", live->record.name, NULL,
                        "the machine %s ended meanwhile (%s%s%s)",
                        live->record.name, outcome_name(e->kind),
                        e->cause[0] ? ": " : "", e->cause);
        return;
    }
    failure_set(f, "keeper_lied", live->record.name, NULL,
                "the keeper of the machine %s answered with a message of type "
                "%u",
                live->record.name, type);
}

/* No message at all, for the reason `error` (0: it closed). */
static void explain_silence(struct live *live, int error, struct failure *f)
{
    if (error == -ETIMEDOUT)
        fail_connect(live, -EAGAIN, f);
    else if (error == 0 || error == -EPIPE || error == -ECONNRESET)
        failure_set(f, "keeper_died", live->record.name,
                    "microsbx rm removes it",
                    "the keeper of the machine %s died", live->record.name);
    else
        fail_connect(live, error, f);
}

int live_status(struct live *live, struct keeper_status *ret_status)
{
    union keeper_body body;
    struct failure f;
    uint32_t type = 0;
    int ret = live_connect(live, &f);

    if (ret == 0)
        ret = live_send(live, KEEPER_STATUS, NULL, -1);
    if (ret == 0)
        ret = live_receive(live, LIVE_STATUS_MS, &type, &body);
    io_close(&live->sock);
    if (ret == 1 && type == KEEPER_STATUS_REPLY) {
        *ret_status = body.status;
        return 0;
    }
    return ret < 0 ? ret : -ESHUTDOWN;
}

/* The lock is let go last of all: 0, or -EHOSTDOWN with live->why. */
static int wait_for_lock(struct live *live)
{
    int ret = 0;

    while (ret == 0 && !registry_wait_end(&live->entry, LIVE_LOOK_MS))
        ret = look(live);
    return ret;
}

int live_wait_end(struct live *live, int timeout_ms, int wake_fd,
                  struct failure *f)
{
    uint64_t deadline = deadline_after(timeout_ms);
    union keeper_body body;
    uint32_t type;
    int ret = 0;

    while (live->sock >= 0) {
        uint64_t now = io_now_ns();
        uint64_t left = now < deadline ? (deadline - now) / MS + 1 : 0;

        ret = wait_readable(live, timeout_ms < 0 ? -1 : (int)left, wake_fd);
        if (ret == -EHOSTDOWN)
            *f = live->why;
        if (ret != 0)
            return ret;
        /* Whatever it says, it closes behind it. */
        if (live_receive(live, 0, &type, &body) <= 0)
            io_close(&live->sock);
    }
    ret = wait_for_lock(live);
    if (ret != 0) {
        *f = live->why;
        return ret;
    }
    return live_reread(live, f);
}

int live_snapshot(struct live *live, const struct keeper_snapshot *request,
                  int cancel_fd, struct keeper_snapshot_done *ret_done,
                  struct failure *f)
{
    union keeper_body body = {.snapshot = *request};
    uint32_t type = 0;
    int ret = live_connect(live, f);

    if (ret != 0)
        return ret;
    ret = live_send(live, KEEPER_SNAPSHOT, &body, -1);
    if (ret == 0)
        ret = wait_readable(live, -1, cancel_fd);
    if (ret == -EHOSTDOWN) {
        *f = live->why;
        return ret;
    }
    if (ret == -ECANCELED) {
        failure_set(f, "interrupted", request->dir, NULL,
                    "interrupted; nothing was published");
        return ret;
    }
    if (ret == 0)
        ret = live_receive(live, 0, &type, &body);
    if (ret == 1 && type == KEEPER_SNAPSHOT_DONE) {
        *ret_done = body.snapshot_done;
        return 0;
    }
    if (ret == 1 && type == KEEPER_REFUSED) {
        *f = body.refused;
        return -EINVAL;
    }
    if (ret == 1 && type == KEEPER_ENDED)
        failure_set(f, "machine_ended", live->record.name, NULL,
                    "the machine %s ended before its snapshot was made",
                    live->record.name);
    else
        failure_set(f, "keeper_lied", live->record.name, NULL,
                    "the keeper of the machine %s did not answer as expected",
                    live->record.name);
    return -EPROTO;
}

int live_copy(struct live *live, enum keeper_message type,
              const struct keeper_file *request, int fd,
              struct keeper_file_done *ret_done, struct failure *f)
{
    union keeper_body body = {.file = *request};
    uint32_t answer = 0;
    int wait_ms = (int)(TRIAL_FILE_MS + live_answer_ns() / MS);
    int ret = live_send(live, type, &body, fd);

    if (ret == 0)
        ret = live_receive(live, wait_ms, &answer, &body);
    if (ret != 1) {
        explain_silence(live, ret, f);
        return ret == 0 ? -EPIPE : ret;
    }
    if (answer != KEEPER_FILE_DONE) {
        live_explain(live, answer, &body, f);
        return -ECANCELED;
    }
    *ret_done = body.file_done;
    return 0;
}
