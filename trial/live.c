/* SPDX-License-Identifier: Apache-2.0 */
/* Talking to a keeper; see the header. */
#include "trial/live.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/io.h"

/* How long a keeper may take to end, told to do so at once. */
#define KILL_MS 15000

int live_open(const char *name, struct live *ret_live, struct failure *f)
{
    int ret;

    memset(ret_live, 0, sizeof(*ret_live));
    ret_live->sock = -1;
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
    registry_close(&live->entry);
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
    /* It may have ended this very moment, and then its record says so. */
    if (error == -ECONNREFUSED && registry_wait_end(&live->entry, 1000)) {
        int ret = live_reread(live, f);

        return ret ? ret : fail_ended(live, f);
    }
    if (error == -EAGAIN || error == -ECONNREFUSED)
        failure_set(f, "keeper_hangs", live->record.name,
                    "microsbx rm -f removes it",
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
    live->sock = registry_connect(&live->entry);
    return live->sock >= 0 ? 0 : fail_connect(live, live->sock, f);
}

/* ---- messages ---- */

int live_send(struct live *live, enum keeper_message type,
              const union keeper_body *body, int fd)
{
    uint64_t deadline = io_now_ns() + (uint64_t)LIVE_ANSWER_MS * 1000000u;
    struct pollfd p = {.fd = live->sock, .events = POLLOUT};
    uint8_t buf[MSG_PAYLOAD_MAX];
    size_t len = 0;
    int ret = keeper_encode(type, body, buf, &len);

    while (ret == 0) {
        ret = msg_send(live->sock, type, buf, len, &fd, fd >= 0 ? 1 : 0);
        if (ret != -EAGAIN)
            return ret;
        if (io_now_ns() >= deadline)
            return -ETIMEDOUT;
        ret = poll(&p, 1, 1000) < 0 && errno != EINTR ? -errno : 0;
    }
    return ret;
}

int live_receive(struct live *live, int timeout_ms, uint32_t *ret_type,
                 union keeper_body *ret_body)
{
    struct pollfd p = {.fd = live->sock, .events = POLLIN};
    int ret;

    do {
        ret = poll(&p, 1, timeout_ms);
        if (ret == 0)
            return -ETIMEDOUT;
        if (ret > 0)
            ret = msg_receive(live->sock, &live->msg);
        else
            ret = -errno;
    } while (ret == -EINTR || ret == -EAGAIN);
    if (ret <= 0)
        return ret;
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

int live_wait_end(struct live *live, int timeout_ms, int wake_fd,
                  struct failure *f)
{
    uint64_t deadline = io_now_ns() + (uint64_t)timeout_ms * 1000000u;
    union keeper_body body;
    uint32_t type;

    while (live->sock >= 0) {
        struct pollfd p[2] = {{live->sock, POLLIN, 0}, {wake_fd, POLLIN, 0}};
        uint64_t now = io_now_ns();
        int left = timeout_ms < 0   ? -1
                   : now < deadline ? (int)((deadline - now) / 1000000u) + 1
                                    : 0;
        int n = poll(p, 2, left);

        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            return -ETIMEDOUT;
        if (p[1].revents)
            return -ECANCELED;
        /* Whatever it says, it closes behind it. */
        if (live_receive(live, 0, &type, &body) <= 0)
            io_close(&live->sock);
    }
    /* The lock is let go last of all. */
    if (!registry_wait_end(&live->entry, 10000)) {
        explain_silence(live, -ETIMEDOUT, f);
        return -EIO;
    }
    return live_reread(live, f);
}

int live_stop(struct live *live, int grace_ms, struct failure *f)
{
    union keeper_body body = {
        .numbers = {.a = grace_ms < 0 ? 0 : (uint32_t)grace_ms}};
    int ret = live_connect(live, f);
    int wait_ms = LIVE_ANSWER_MS + (grace_ms < 0 ? 0 : grace_ms);

    if (ret != 0)
        return ret;
    ret = live_send(live, grace_ms < 0 ? KEEPER_KILL : KEEPER_STOP,
                    grace_ms < 0 ? NULL : &body, -1);
    if (ret == 0 || ret == -EPIPE)
        ret = live_wait_end(live, wait_ms, -1, f);
    if (ret == -ETIMEDOUT)
        explain_silence(live, ret, f);
    return ret;
}

/* Waits for a message, or for cancel_fd: 0, -ECANCELED or -errno of poll. */
static int wait_or_cancel(const struct live *live, int cancel_fd)
{
    struct pollfd p[2] = {{live->sock, POLLIN, 0}, {cancel_fd, POLLIN, 0}};
    int n;

    do {
        n = poll(p, 2, -1);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return p[1].revents ? -ECANCELED : 0;
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
        ret = wait_or_cancel(live, cancel_fd);
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

/* Who listens at the other end: the keeper's process, by the kernel's word. */
static pid_t keeper_of(int sock)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0 ||
        peer.uid != geteuid())
        return -1;
    return peer.pid;
}

int live_end_keeper(const struct registry_entry *entry, struct failure *f)
{
    int sock = registry_connect(entry);
    pid_t pid = sock < 0 ? -1 : keeper_of(sock);
    bool ended;

    if (sock >= 0)
        (void)!keeper_send(sock, KEEPER_KILL, NULL);
    ended = registry_wait_end(entry, KILL_MS);
    if (!ended && pid > 1 && kill(pid, SIGKILL) == 0)
        ended = registry_wait_end(entry, KILL_MS);
    io_close(&sock);
    if (ended)
        return 0;
    failure_set(f, "keeper_hangs", entry->name, "kill its process by hand",
                "the keeper of the machine %s does not end", entry->name);
    return -EBUSY;
}

void live_remove_vsock(const struct registry_entry *entry)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct machine_record r;
    struct failure ignored;
    struct stat st;
    int sock;

    if (machine_record_read(entry, &r, &ignored) != 0 ||
        r.state != MACHINE_DEAD || r.vsock[0] == '\0' ||
        strlen(r.vsock) >= sizeof(a.sun_path) || lstat(r.vsock, &st) != 0 ||
        !S_ISSOCK(st.st_mode))
        return;
    strcpy(a.sun_path, r.vsock);
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sock >= 0 &&
        connect(sock, (const struct sockaddr *)&a, sizeof(a)) != 0 &&
        errno == ECONNREFUSED)
        unlink(r.vsock);
    io_close(&sock);
}

int live_copy(struct live *live, enum keeper_message type,
              const struct keeper_file *request, int fd,
              struct keeper_file_done *ret_done, struct failure *f)
{
    union keeper_body body = {.file = *request};
    uint32_t answer = 0;
    int ret = live_send(live, type, &body, fd);

    if (ret == 0)
        ret =
            live_receive(live, TRIAL_FILE_MS + LIVE_ANSWER_MS, &answer, &body);
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
