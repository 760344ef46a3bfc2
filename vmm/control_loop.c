/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's side of the conversation; see the header. */
#include "vmm/control_loop.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/io.h"
#include "base/msg.h"
#include "base/num.h"
#include "vmm/machine.h"
#include "vmm/monitor_proto.h"
#include "vmm/probe.h"

/* How long the last message may wait for a harness that does not read. */
#define LAST_MESSAGE_MS 5000

/* In all but RUNNING the machine stands still and only the socket is served. */
enum control_state {
    CONTROL_BUILT,
    CONTROL_RUNNING,
    CONTROL_PAUSED,
};

struct control_loop {
    int sock; /* borrowed */
    struct evloop_source source;
    struct machine *machine; /* owned */
    enum control_state state;
};

/* ---- sending ---- */

/* Sends now; while the machine runs, -EAGAIN if the harness is slow. */
static int send_now(const struct control_loop *c, enum monitor_msg type,
                    const void *payload, size_t len)
{
    return msg_send(c->sock, type, payload, len, NULL, 0);
}

/* Waits for room, also while signals come (MONITOR_SIGNAL_STAY_OUT). */
static bool wait_for_room(const struct control_loop *c)
{
    struct pollfd p = {.fd = c->sock, .events = POLLOUT};
    int n;

    do {
        n = poll(&p, 1, LAST_MESSAGE_MS);
    } while (n < 0 && errno == EINTR);
    return n > 0;
}

/* Sends, waiting for room if need be: before and after the machine runs. */
static int send_waiting(const struct control_loop *c, enum monitor_msg type,
                        const void *payload, size_t len)
{
    int ret = send_now(c, type, payload, len);

    while (ret == -EAGAIN && wait_for_room(c))
        ret = send_now(c, type, payload, len);
    return ret;
}

static int send_error(const struct control_loop *c,
                      const struct monitor_error *error)
{
    uint8_t buf[sizeof(*error) + 64];
    size_t len = 0;
    int ret = monitor_error_encode(error, buf, sizeof(buf), &len);

    return ret < 0 ? ret : send_waiting(c, MONITOR_ERROR, buf, len);
}

/* What came with a message found no room here. */
static int refuse_for_fds(const struct control_loop *c)
{
    const struct monitor_error error = {
        .code = MONITOR_ERROR_HOST,
        .error = -EMFILE,
        .text = "it may not open enough files (RLIMIT_NOFILE, ulimit -n)",
    };

    return send_error(c, &error);
}

static int refuse_config(const struct control_loop *c)
{
    const struct monitor_error error = {
        .code = MONITOR_ERROR_CONFIG,
        .error = -EBADMSG,
        .text = "the description of the machine does not decode",
    };

    return send_error(c, &error);
}

static void send_stats(const struct control_loop *c)
{
    uint8_t buf[sizeof(struct monitor_stats) + 64];
    struct monitor_stats stats;
    size_t len = 0;

    machine_stats(c->machine, &stats);
    /* A harness that does not read its answers gets fewer of them. */
    if (monitor_stats_encode(&stats, buf, sizeof(buf), &len) == 0)
        (void)!send_now(c, MONITOR_STATS, buf, len);
}

static int send_exit(const struct control_loop *c)
{
    uint8_t buf[sizeof(struct monitor_exit) + 64];
    struct monitor_exit info;
    size_t len = 0;
    int ret;

    machine_exit_info(c->machine, &info);
    ret = monitor_exit_encode(&info, buf, sizeof(buf), &len);
    return ret < 0 ? ret : send_waiting(c, MONITOR_EXIT, buf, len);
}

/* The guest connects out: the harness decides. Device thread, lock held. */
static void dial(void *ctx, uint64_t token, uint32_t port)
{
    struct control_loop *c = ctx;
    uint8_t buf[12];
    struct state_writer w;

    state_writer_init(&w, buf, sizeof(buf));
    state_put_u64(&w, token);
    state_put_u32(&w, port);
    if (send_now(c, MONITOR_VSOCK_DIAL, buf, w.used) < 0)
        machine_dial_result(c->machine, token, -1);
}

/* ---- while the machine is there ---- */

static int take_fd(struct msg *m)
{
    int fd = -1;

    if (m->fd_count == 1) {
        fd = m->fds[0];
        m->fds[0] = -1;
    }
    return fd;
}

/* RUNNING is said when nothing but the guest is missing, and before it runs. */
static int handle_start(struct control_loop *c)
{
    uint64_t now_ns;
    uint8_t now[8];
    int ret;

    if (c->state != CONTROL_BUILT)
        return -EBADMSG;
    ret = machine_start(c->machine);
    if (ret < 0) {
        machine_end(c->machine, MONITOR_EXIT_HOST_ERROR, ret,
                    "a virtual CPU cannot be started");
        return 0;
    }
    c->state = CONTROL_RUNNING;
    now_ns = io_now_ns();
    num_put_le64(now, now_ns);
    ret = send_waiting(c, MONITOR_RUNNING, now, sizeof(now));
    if (ret == 0)
        machine_go(c->machine, now_ns);
    return ret;
}

static int handle_dial_reply(struct control_loop *c, struct msg *m)
{
    struct state_reader r;
    uint64_t token;

    state_reader_init(&r, m->payload, m->len);
    token = state_get_u64(&r);
    if (state_reader_finish(&r) != 0 || m->fd_count > 1)
        return -EBADMSG;
    machine_dial_result(c->machine, token, take_fd(m));
    return 0;
}

static int handle_client(struct control_loop *c, struct msg *m)
{
    if (m->fds_lost)
        return 0; /* its other end has been closed, as a refused one is */
    if (m->len != 0 || m->fd_count != 1)
        return -EBADMSG;
    /* A refused client sees its connection closed: that is its answer. */
    (void)!machine_add_vsock_client(c->machine, take_fd(m));
    return 0;
}

/* The machine stops once the event loop has been left: see serve_machine. */
static int handle_pause(struct control_loop *c)
{
    if (c->state != CONTROL_RUNNING)
        return -EBADMSG;
    machine_break(c->machine);
    return 0;
}

static int handle_resume(struct control_loop *c)
{
    int ret;

    if (c->state != CONTROL_PAUSED)
        return -EBADMSG;
    c->state = CONTROL_RUNNING;
    ret = send_waiting(c, MONITOR_RESUMED, NULL, 0);
    if (ret == 0)
        machine_resume(c->machine);
    return ret;
}

static int handle_save(struct control_loop *c, const struct msg *m)
{
    struct monitor_saved saved = {0};
    struct monitor_error error;
    uint8_t buf[64];
    size_t len = 0;
    int ret;

    if (c->state != CONTROL_PAUSED || m->len != 0)
        return -EBADMSG;
    if (m->fds_lost)
        return refuse_for_fds(c);
    if (machine_save(c->machine, m->fds, (unsigned)m->fd_count, &saved,
                     &error) < 0)
        return send_error(c, &error);
    ret = monitor_saved_encode(&saved, buf, sizeof(buf), &len);
    return ret < 0 ? ret : send_waiting(c, MONITOR_SAVED, buf, len);
}

static int handle_prove(struct control_loop *c, const struct msg *m)
{
    struct monitor_proved proved = {0};
    struct monitor_error error;
    uint8_t buf[sizeof(proved)];
    size_t len = 0;
    int ret;

    if (c->state == CONTROL_RUNNING || m->len != 0 ||
        (m->fd_count != 2 && !m->fds_lost) || !machine_is_pristine(c->machine))
        return -EBADMSG;
    if (m->fds_lost)
        return refuse_for_fds(c);
    if (machine_prove(c->machine, m->fds[0], m->fds[1], &proved, &error) < 0)
        return send_error(c, &error);
    ret = monitor_proved_encode(&proved, buf, sizeof(buf), &len);
    return ret < 0 ? ret : send_waiting(c, MONITOR_PROVED, buf, len);
}

static int handle_rollback(struct control_loop *c)
{
    struct monitor_rolled_back done = {0};
    struct monitor_error error;
    uint8_t buf[64];
    size_t len = 0;
    int ret;

    if (c->state != CONTROL_PAUSED)
        return -EBADMSG;
    if (machine_roll_back(c->machine, &done, &error) < 0)
        return send_error(c, &error);
    ret = monitor_rolled_back_encode(&done, buf, sizeof(buf), &len);
    return ret < 0 ? ret : send_waiting(c, MONITOR_ROLLED_BACK, buf, len);
}

/* Orders without contents. */
static int handle_empty(struct control_loop *c, uint32_t type)
{
    switch (type) {
    case MONITOR_START:
        return handle_start(c);
    case MONITOR_PAUSE:
        return handle_pause(c);
    case MONITOR_RESUME:
        return handle_resume(c);
    case MONITOR_ROLLBACK:
        return handle_rollback(c);
    case MONITOR_STOP:
        machine_end(c->machine, MONITOR_EXIT_STOPPED, 0, "");
        return 0;
    case MONITOR_NUDGE:
        /* An interrupt is state, and a machine that stands still keeps its. */
        if (c->state == CONTROL_RUNNING)
            machine_nudge(c->machine);
        return 0;
    case MONITOR_STATS_REQUEST:
        send_stats(c);
        return 0;
    default:
        return -EBADMSG;
    }
}

static int handle_message(struct control_loop *c, struct msg *m)
{
    switch (m->type) {
    case MONITOR_VSOCK_CLIENT:
        return handle_client(c, m);
    case MONITOR_VSOCK_DIAL_REPLY:
        return handle_dial_reply(c, m);
    case MONITOR_SAVE:
        return handle_save(c, m);
    case MONITOR_PROVE:
        return handle_prove(c, m);
    default:
        return m->len == 0 && m->fd_count == 0 ? handle_empty(c, m->type)
                                               : -EBADMSG;
    }
}

/* The socket is readable: device thread, device lock held. */
static void handle_socket(void *ctx, uint32_t events)
{
    struct control_loop *c = ctx;
    struct msg m;
    int ret = msg_receive(c->sock, &m);

    (void)events;
    if (ret == -EAGAIN)
        return;
    if (ret == 0) {
        /* Nobody is left to tell anything: end at once, whatever runs. */
        _exit(0);
    }
    if (ret > 0) {
        ret = handle_message(c, &m);
        msg_close_fds(&m);
    }
    if (ret < 0)
        machine_end(c->machine, MONITOR_EXIT_HOST_ERROR, ret,
                    "the harness sent a message that makes no sense");
}

/* While the machine stands still: until it runs or ends. */
static void serve_still(struct control_loop *c)
{
    struct pollfd p = {.fd = c->sock, .events = POLLIN};

    while (c->state != CONTROL_RUNNING && !machine_has_ended(c->machine))
        if (poll(&p, 1, -1) > 0)
            handle_socket(c, POLLIN);
}

/* After the event loop: false if that was the end. */
static bool pause_machine(struct control_loop *c)
{
    int ret;

    if (machine_has_ended(c->machine) || machine_pause(c->machine) < 0)
        return false;
    c->state = CONTROL_PAUSED;
    ret = send_waiting(c, MONITOR_PAUSED, NULL, 0);
    if (ret < 0)
        machine_end(c->machine, MONITOR_EXIT_HOST_ERROR, ret,
                    "the harness does not read");
    return ret == 0;
}

/* From READY to EXIT. */
static int serve_machine(struct control_loop *c)
{
    int ret = send_waiting(c, MONITOR_READY, NULL, 0);

    if (ret == 0)
        ret = io_set_nonblock(c->sock);
    if (ret < 0)
        return ret;
    c->source = (struct evloop_source){
        .fd = c->sock,
        .events = EPOLLIN,
        .handler = handle_socket,
        .ctx = c,
    };
    ret = evloop_add(machine_loop(c->machine), &c->source);
    if (ret < 0)
        return ret;
    do {
        serve_still(c);
        if (!machine_has_ended(c->machine))
            machine_run(c->machine);
    } while (pause_machine(c));
    evloop_remove(machine_loop(c->machine), &c->source);
    machine_halt(c->machine);
    return send_exit(c);
}

/* ---- the first message ---- */

static int handle_config(struct control_loop *c, struct msg *m)
{
    const struct vsock_dialer dialer = {.dial = dial, .ctx = c};
    struct vm_config config;
    struct monitor_error error;
    int ret =
        vm_config_decode(m->payload, m->len, m->fds, m->fd_count, &config);
    bool restore;

    if (m->fds_lost)
        return refuse_for_fds(c);
    if (ret < 0)
        return refuse_config(c);
    restore = config.state_fd >= 0;
    ret = machine_build(&config, dialer, &c->machine, &error);
    if (ret == 0)
        ret = restore ? machine_load(c->machine, &error)
                      : machine_boot(c->machine, &error);
    ret = ret < 0 ? send_error(c, &error) : serve_machine(c);
    machine_free(c->machine);
    return ret;
}

static int handle_probe(struct control_loop *c, struct msg *m)
{
    uint8_t buf[sizeof(struct monitor_probe) + 512];
    struct monitor_probe probe;
    struct state_reader r;
    size_t len = 0;
    uint32_t depth;
    int ret;

    if (m->fds_lost)
        return refuse_for_fds(c);
    state_reader_init(&r, m->payload, m->len);
    depth = state_get_u32(&r);
    if (state_reader_finish(&r) != 0 || depth > MONITOR_PROBE_CPU ||
        m->fd_count != 1)
        return refuse_config(c);
    probe_run(m->fds[0], (enum monitor_probe_depth)depth, &probe);
    ret = monitor_probe_encode(&probe, buf, sizeof(buf), &len);
    return ret < 0 ? ret : send_waiting(c, MONITOR_PROBE_RESULT, buf, len);
}

int control_loop_main(int sock)
{
    struct control_loop c = {.sock = sock};
    struct msg m;
    int ret = msg_receive(sock, &m);

    if (ret <= 0)
        return ret;
    if (m.type == MONITOR_CONFIG)
        ret = handle_config(&c, &m);
    else if (m.type == MONITOR_PROBE)
        ret = handle_probe(&c, &m);
    else
        ret = refuse_config(&c);
    msg_close_fds(&m);
    return ret;
}
