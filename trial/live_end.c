/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a long-lived machine that somebody wants, whether its keeper
 * listens or not; see live.h.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/live.h"
#include "trial/machine_end.h"
#include "trial/process_look.h"

#define MS 1000000ull /* nanoseconds */
/* The host takes a killed process apart; much memory takes a while. */
#define REAP_MS 10000
/* Its monitor has that long to let go of the machine's vsock socket. */
#define VSOCK_GONE_MS 3000

/* The keeper's process dies, and its monitor with it: 0 or a negative errno. */
static int kill_keeper(const struct registry_entry *entry, pid_t pid,
                       uint64_t start_ticks)
{
    int ret = 0;

    if (registry_is_alive(entry))
        ret = process_kill(pid, start_ticks);
    if (ret != 0 && ret != -ESRCH)
        return ret;
    return registry_wait_end(entry, REAP_MS) ? 0 : -EBUSY;
}

static int fail_alive(const char *name, struct failure *f)
{
    failure_set(f, "keeper_hangs", name, "kill its process by hand",
                "the keeper of the machine %s does not end", name);
    return -EBUSY;
}

/* Asks it to, and waits: as live_wait_end, -ETIMEDOUT with *f filled. */
static int ask_to_end(struct live *live, int grace_ms, struct failure *f)
{
    union keeper_body body = {
        .numbers = {.a = grace_ms < 0 ? 0 : (uint32_t)grace_ms}};
    int wait_ms = (int)(live_answer_ns() / MS) + (grace_ms < 0 ? 0 : grace_ms);
    int ret = live_connect(live, f);

    if (ret != 0)
        return ret;
    ret = live_send(live, grace_ms < 0 ? KEEPER_KILL : KEEPER_STOP,
                    grace_ms < 0 ? NULL : &body, -1);
    if (ret == 0 || ret == -EPIPE)
        return live_wait_end(live, wait_ms, -1, f);
    *f = live->why;
    return ret;
}

int live_stop(struct live *live, int grace_ms, struct failure *f)
{
    const struct machine_record *r = &live->record;
    uint64_t grace_ns =
        io_now_ns() + (grace_ms < 0 ? 0u : (unsigned)grace_ms) * MS;
    int ret = ask_to_end(live, grace_ms, f);

    if (ret == -ETIMEDOUT)
        failure_set(f, "keeper_hangs", r->name, NULL,
                    "the keeper of the machine %s (process %d) did not end it",
                    r->name, (int)r->keeper);
    else if (ret != -EHOSTDOWN)
        return ret;
    /* It may go on by itself while there is time. */
    while (io_now_ns() < grace_ns) {
        if (registry_wait_end(&live->entry, 100))
            return live_reread(live, f);
    }
    return kill_keeper(&live->entry, r->keeper, r->keeper_start) == 0
               ? 1
               : fail_alive(r->name, f);
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

/* Who listens at its socket, or else what the record says. */
static int find_keeper(const struct registry_entry *entry, int sock,
                       pid_t *ret_pid, uint64_t *ret_start)
{
    struct machine_record record;
    struct failure ignored;

    *ret_pid = sock < 0 ? -1 : keeper_of(sock);
    *ret_start = 0;
    if (*ret_pid > 1)
        return 0;
    if (machine_record_read(entry, &record, &ignored) != 0)
        return -ENOENT;
    *ret_pid = record.keeper;
    *ret_start = record.keeper_start;
    return *ret_start != 0 ? 0 : -ENOENT;
}

/* True if it ended by itself; false: too late, or it is stopped. */
static bool ends_by_itself(const struct registry_entry *entry, pid_t pid,
                           uint64_t start_ticks)
{
    uint64_t deadline = io_now_ns() + live_answer_ns();
    unsigned stopped_ms = 0;

    while (io_now_ns() < deadline && stopped_ms <= LIVE_STOPPED_MS) {
        if (registry_wait_end(entry, LIVE_LOOK_MS))
            return true;
        stopped_ms = process_look(pid, start_ticks) == PROCESS_STOPPED
                         ? stopped_ms + LIVE_LOOK_MS
                         : 0;
    }
    return false;
}

int live_end_keeper(const struct registry_entry *entry, struct failure *f)
{
    int sock = registry_try_connect(entry);
    uint64_t start = 0;
    pid_t pid = -1;
    bool known = find_keeper(entry, sock, &pid, &start) == 0;
    bool ended;

    if (sock >= 0)
        (void)!keeper_send(sock, KEEPER_KILL, NULL);
    ended = ends_by_itself(entry, pid, start);
    /* The lock is held: the number is still the keeper's. */
    if (!ended && known)
        ended = kill_keeper(entry, pid, start) == 0;
    io_close(&sock);
    return ended ? 0 : fail_alive(entry->name, f);
}

int live_conclude(struct live *live, const struct trial_result *result,
                  const char *line, struct failure *f)
{
    int ret = registry_adopt(&live->entry);

    if (ret == 0) {
        unlinkat(live->entry.dir_fd, "socket", 0);
        ret =
            machine_end_write(&live->entry, &live->record, result, false, line);
    }
    io_close(&live->entry.lock_fd);
    if (ret != 0)
        failure_set(f, "host", live->record.name, "microsbx rm removes it",
                    "cannot write how the machine %s ended: %s",
                    live->record.name, strerror(-ret));
    return ret;
}

/* True if nobody listens there any more. */
static bool is_deserted(const struct sockaddr_un *a)
{
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool refused = sock >= 0 &&
                   connect(sock, (const struct sockaddr *)a, sizeof(*a)) != 0 &&
                   errno == ECONNREFUSED;

    io_close(&sock);
    return refused;
}

void live_remove_vsock(const struct registry_entry *entry)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct machine_record r;
    struct failure ignored;
    struct stat st;

    if (machine_record_read(entry, &r, &ignored) != 0 ||
        r.state != MACHINE_DEAD || r.vsock[0] == '\0' ||
        strlen(r.vsock) >= sizeof(a.sun_path) || lstat(r.vsock, &st) != 0 ||
        !S_ISSOCK(st.st_mode))
        return;
    strcpy(a.sun_path, r.vsock);
    /* A monitor dies with its keeper, but not in the same instant. */
    for (unsigned ms = 0; ms < VSOCK_GONE_MS && !is_deserted(&a); ms += 20)
        (void)poll(NULL, 0, 20);
    if (is_deserted(&a))
        unlink(r.vsock);
}
