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

static struct handle *find_handle(struct server *server, uint32_t id)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        struct handle *h = &server->handles[i];

        if (h->kind != HANDLE_FREE && !h->orphan && h->id == id)
            return h;
    }
    return NULL;
}

static struct handle *find_free(struct server *server)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        if (server->handles[i].kind == HANDLE_FREE)
            return &server->handles[i];
    }
    return NULL;
}

static bool has_handles(const struct server *server)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        if (server->handles[i].kind != HANDLE_FREE)
            return true;
    }
    return false;
}

/* The connection is gone: nobody is left to hear of the handles. */
static void disconnect(struct server *server)
{
    conn_close(&server->conn);
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        struct handle *h = &server->handles[i];

        if (h->kind == HANDLE_FREE)
            continue;
        h->orphan = true;
        if (h->kind == HANDLE_EXEC)
            exec_cancel(h);
        else
            fileop_cancel(h);
    }
}

/* ---- frames ------------------------------------------------------------- */

static int open_exec(struct server *server, uint32_t id, const uint8_t *payload,
                     size_t len)
{
    struct handle *h = find_free(server);
    struct proto_exec_open request;
    struct proto_writer w;

    if (proto_get_exec_open(payload, len, &request))
        return -EBADMSG;
    if (h) {
        exec_open(h, server->agent, id, &request);
        return 0;
    }
    w = conn_writer(&server->conn);
    proto_put_exec_failed(&w, id,
                          &(struct proto_exec_failed){PROTO_FAIL_BUSY, EBUSY});
    conn_commit(&server->conn, &w);
    return 0;
}

static int open_file(struct server *server, const struct proto_header *header,
                     const uint8_t *payload)
{
    struct handle *h = find_free(server);
    struct proto_file_open request;
    struct proto_writer w;

    if (proto_get_file_open(payload, header->length, &request))
        return -EBADMSG;
    if (h) {
        fileop_open(h, server->agent, header->id, header->type, &request);
        return 0;
    }
    w = conn_writer(&server->conn);
    proto_put_file_done(&w, header->id,
                        &(struct proto_file_done){.err = EBUSY});
    conn_commit(&server->conn, &w);
    return 0;
}

static bool is_opening(uint16_t type)
{
    return type == PROTO_EXEC_OPEN ||
           (type >= PROTO_FILE_WRITE && type <= PROTO_FILE_MKDIR);
}

static int dispatch_to(struct server *server, struct handle *h,
                       const struct proto_header *header,
                       const uint8_t *payload)
{
    uint32_t stream = 0, value = 0;
    uint16_t rows, cols;

    switch (header->type) {
    case PROTO_EXEC_STRINGS:
        return exec_strings(h, server->agent, payload, header->length);
    case PROTO_EXEC_SIGNAL:
        if (proto_get_u32(payload, header->length, &value))
            return -EBADMSG;
        return exec_signal(h, value);
    case PROTO_EXEC_WINSIZE:
        if (proto_get_winsize(payload, header->length, &rows, &cols))
            return -EBADMSG;
        return exec_winsize(h, rows, cols);
    case PROTO_CANCEL:
        if (h->kind == HANDLE_EXEC)
            exec_cancel(h);
        else
            fileop_cancel(h);
        return 0;
    case PROTO_EOF:
        if (proto_get_u32(payload, header->length, &stream))
            return -EBADMSG;
        return handle_end(h, stream);
    case PROTO_DATA:
        return handle_data(h, payload, header->length);
    case PROTO_CREDIT:
        if (proto_get_credit(payload, header->length, &stream, &value))
            return -EBADMSG;
        return handle_credit(h, stream, value);
    default:
        return -EBADMSG;
    }
}

int server_dispatch(struct server *server, const struct proto_header *header,
                    const uint8_t *payload)
{
    struct handle *h;

    if (header->type == PROTO_SHUTDOWN) {
        server->shutdown = true;
        return 0;
    }
    if (is_opening(header->type)) {
        /* Ids only grow: what is late is told from what is wrong by this. */
        if (header->id <= server->last_id)
            return -EBADMSG;
        server->last_id = header->id;
        if (header->type == PROTO_EXEC_OPEN)
            return open_exec(server, header->id, payload, header->length);
        return open_file(server, header, payload);
    }
    if (header->id > server->last_id)
        return -EBADMSG;
    h = find_handle(server, header->id);
    return h ? dispatch_to(server, h, header, payload) : 0;
}

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
        .features = server->agent->features,
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
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        handle_kill(&server->handles[i]);
        handle_fini(&server->handles[i]);
    }
    sysfile_close(&server->listen_fd);
    sysfile_close(&server->signal_fd);
}
