/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's loop; see the header. vsock(7). */
#include "guest/server.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>
/* after sys/socket.h: it needs sa_family_t */
#include <linux/vm_sockets.h>

#include "guest/exec.h"
#include "guest/fileop.h"
#include "guest/sysfile.h"

#define FIXED_FDS 3u /* signals, listening socket, connection */
#define POLL_FDS_MAX (FIXED_FDS + PROTO_HANDLES_MAX * HANDLE_FDS_MAX)

/* ---- handles ------------------------------------------------------------ */

/* Handles that a connection has, or that have to end before the next. */
static bool has_handles(const struct server *server)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        const struct handle *h = &server->handles[i];

        if (h->kind != HANDLE_FREE && !h->stays)
            return true;
    }
    return false;
}

static void abandon(struct handle *h)
{
    h->orphan = true;
    if (h->kind == HANDLE_EXEC)
        exec_cancel(h);
    else
        fileop_cancel(h);
}

/* The connection is gone: nobody is left to hear of the handles. */
static void disconnect(struct server *server)
{
    enum park_state state = server->park.state;

    conn_close(&server->conn);
    park_disconnect(&server->park);
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        struct handle *h = &server->handles[i];

        if (h->kind == HANDLE_FREE || h->orphan)
            continue;
        if (state != PARK_AWAKE && exec_can_wait(h))
            exec_wait(h);
        else if (state == PARK_KEPT && h->kind == HANDLE_EXEC &&
                 (h->state == HANDLE_START || h->state == HANDLE_RUN))
            exec_unhear(h);
        else
            abandon(h);
    }
}

/* ---- frames ------------------------------------------------------------- */

/* All whole frames, as long as there is room for an answer to each. */
static int dispatch_all(struct server *server)
{
    server->stalled = false;
    while (!server->shutdown) {
        struct proto_header header;
        const uint8_t *payload;
        int ret;

        if (!handle_has_room(&server->conn)) {
            server->stalled = true;
            return 0;
        }
        ret = proto_inbox_next(&server->conn.in, &header, &payload);
        if (ret <= 0)
            return ret;
        ret = server_dispatch(server, &header, payload);
        if (ret)
            return ret;
    }
    return 0;
}

/* ---- connections -------------------------------------------------------- */

int server_listen(void)
{
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK,
        .svm_cid = VMADDR_CID_ANY,
        .svm_port = PROTO_VSOCK_PORT,
    };
    int ret;
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, 8) < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    return fd;
}

int server_attach(struct server *server, int fd)
{
    struct proto_hello hello = {
        .version = PROTO_VERSION,
        .features = server->agent->features | PROTO_FEATURE_SNAPSHOT |
                    PROTO_FEATURE_LEAVE | PROTO_FEATURE_DISK,
        .boot_ms = sysfile_now_ms(),
        .memory_total = server->agent->memory_total,
    };
    struct proto_writer w;
    struct utsname name;
    int ret;

    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    if (server->park.state == PARK_PARKED)
        hello.features |= PROTO_FEATURE_PARKED;
    if (uname(&name) == 0)
        memcpy(hello.release, name.release, sizeof(hello.release));
    hello.release[sizeof(hello.release) - 1] = '\0';
    conn_open(&server->conn, fd);
    server->last_id = 0;
    server->stalled = false;
    w = conn_writer(&server->conn);
    proto_put_hello(&w, &hello);
    conn_commit(&server->conn, &w);
    return 0;
}

/*
 * The host, and nobody in the guest: with the loopback transport a workload
 * can dial CID 1 or the guest's own, and is seen by that number here.
 */
static bool peer_is_host(const struct sockaddr_vm *peer)
{
    return peer->svm_family == AF_VSOCK && peer->svm_cid == VMADDR_CID_HOST;
}

static void accept_peer(struct server *server)
{
    struct sockaddr_vm peer = {0};
    socklen_t len = sizeof(peer);
    int fd = accept4(server->listen_fd, (struct sockaddr *)&peer, &len,
                     SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    if (len < sizeof(peer) || !peer_is_host(&peer) ||
        conn_is_open(&server->conn)) {
        close(fd);
        return;
    }
    (void)!server_attach(server, fd);
}

/* ---- the loop ----------------------------------------------------------- */

/* True if the watched process was among them. */
static bool reap(struct server *server)
{
    struct signalfd_siginfo info;
    bool watched = false;
    int status;
    pid_t pid;

    while (read(server->signal_fd, &info, sizeof(info)) > 0)
        ; /* signals merge: what counts is what waitpid finds */
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == server->watch_pid)
            watched = true;
        if (pid == server->agent->sandbox.keeper)
            sandbox_lost(&server->agent->sandbox);
        park_reaped(&server->park, pid, status);
        for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
            struct handle *h = &server->handles[i];

            if (h->kind == HANDLE_FREE || h->pid != pid || h->reaped)
                continue;
            h->reaped = true;
            h->wait_status = status;
        }
    }
    return watched;
}

/* Every live handle once, the first one in turn. */
static void step_handles(struct server *server)
{
    uint64_t now = sysfile_now_ms();

    server->turn++;
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        struct handle *h =
            &server->handles[(server->turn + i) % PROTO_HANDLES_MAX];
        struct conn *conn = h->orphan ? NULL : &server->conn;
        bool over = false;

        if (h->kind == HANDLE_EXEC)
            over = exec_step(h, server->agent, conn, now);
        else if (h->kind == HANDLE_FILE)
            over = fileop_step(h, conn);
        if (over)
            handle_fini(h);
    }
}

static size_t fill_poll(const struct server *server, struct pollfd *fds)
{
    const struct conn *conn = &server->conn;
    size_t count = FIXED_FDS;
    short events = 0;

    /* A new connection waits until the old one's handles are gone. */
    bool accepting = conn_is_open(conn) || !has_handles(server);

    fds[0] = (struct pollfd){server->signal_fd, POLLIN, 0};
    fds[1] = (struct pollfd){accepting ? server->listen_fd : -1, POLLIN, 0};
    if (!server->stalled)
        events |= POLLIN;
    if (conn_wants_send(conn))
        events |= POLLOUT;
    fds[2] = (struct pollfd){conn->fd, events, 0};
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        const struct handle *h = &server->handles[i];

        if (h->kind != HANDLE_FREE)
            count += handle_poll(h, h->orphan ? NULL : conn, fds + count);
    }
    return count;
}

/* Milliseconds to wait, -1: for ever. */
static int poll_timeout(const struct server *server)
{
    uint64_t now = sysfile_now_ms();
    uint64_t due = HANDLE_NO_TIME;

    if (server->stalled && handle_has_room(&server->conn))
        return 0;
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        const struct handle *h = &server->handles[i];
        uint64_t its = HANDLE_NO_TIME;

        if (h->kind == HANDLE_EXEC)
            its = exec_due_ms(h, now);
        if (its < due)
            due = its;
    }
    if (due == HANDLE_NO_TIME)
        return -1;
    if (due <= now)
        return 0;
    return due - now > INT_MAX ? INT_MAX : (int)(due - now);
}

/* Receive, act, send: 0, or an error that ends the connection. */
static int serve_conn(struct server *server, short revents)
{
    int ret = 0;

    if (revents & (POLLIN | POLLHUP | POLLERR))
        ret = conn_receive(&server->conn);
    if (ret >= 0)
        ret = dispatch_all(server);
    return ret;
}

int server_run(struct server *server)
{
    struct pollfd fds[POLL_FDS_MAX];

    for (;;) {
        struct conn *conn = &server->conn;
        size_t count = fill_poll(server, fds);
        int ret = poll(fds, count, poll_timeout(server));

        if (ret < 0 && errno != EINTR)
            return -errno;
        if (ret < 0)
            continue;
        if (fds[0].revents && reap(server))
            return SERVER_WATCHED_ENDED;
        ret = conn_is_open(conn) ? serve_conn(server, fds[2].revents) : 0;
        if (server->shutdown)
            return SERVER_SHUTDOWN;
        step_handles(server);
        server_step_park(server);
        /* What a step could not say for want of room, the next one does:
           sending makes room, and no descriptor tells of that. */
        if (!handle_has_room(conn))
            server->stalled = true;
        if (ret == 0 && conn_is_open(conn))
            ret = conn_send(conn);
        if (ret < 0)
            disconnect(server);
        if (!conn_is_open(conn) && server->listen_fd < 0 &&
            !server->watch_pid && !has_handles(server))
            return SERVER_DISCONNECTED;
        if (fds[1].revents & POLLIN)
            accept_peer(server);
    }
}

int server_init(struct server *server, struct agent *agent, int listen_fd)
{
    sigset_t set;

    memset(server, 0, sizeof(*server));
    server->agent = agent;
    server->listen_fd = listen_fd;
    server->conn.fd = -1;
    park_init(&server->park);
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++)
        handle_init(&server->handles[i]);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    server->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return server->signal_fd < 0 ? -errno : 0;
}

void server_fini(struct server *server)
{
    conn_close(&server->conn);
    park_fini(&server->park);
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        handle_kill(&server->handles[i]);
        handle_fini(&server->handles[i]);
    }
    sysfile_close(&server->listen_fd);
    sysfile_close(&server->signal_fd);
}
