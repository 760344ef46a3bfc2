/* SPDX-License-Identifier: Apache-2.0 */
/* A real guest with its agent; see the header. */
#include "tests/guest_rig.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/agent_link.h"
#include "trial/host.h"

#define MS 1000000ull
#define BOOT_NS (180000 * MS)
#define EVENT_NS (120000 * MS)

/* ---- reporting ---------------------------------------------------------- */

void guest_rig_result(struct guest_rig *g, const char *name, bool good)
{
    if (good) {
        g->passed++;
        printf("ok - %s\n", name);
    } else {
        g->failed++;
        printf("not ok - %s: reason %u err %d, code %u signal %u flags %#x, "
               "file err %u, output: %.200s\n",
               name, g->failure.reason, g->failure.err, g->exit.code,
               g->exit.signal, g->exit.flags, g->done.err, g->text);
    }
    fflush(stdout);
}

void guest_rig_give_up(struct guest_rig *g, const char *what)
{
    printf("not ok - %s\n", what);
    printf("# console: the guest said:\n");
    for (;;) {
        char line[512];
        ssize_t n = recv(g->console, line, sizeof(line), MSG_DONTWAIT);

        if (n <= 0)
            break;
        fwrite(line, 1, (size_t)n, stdout);
    }
    fflush(stdout);
    monitor_free(g->monitor);
    exit(1);
}

/* ---- events ------------------------------------------------------------- */

static void on_hello(void *arg, const struct proto_hello *hello)
{
    struct guest_rig *g = arg;

    g->hello = *hello;
    g->has_hello = true;
}

static void on_started(void *arg, uint32_t id)
{
    struct guest_rig *g = arg;

    (void)id;
    g->started = true;
}

static void on_failed(void *arg, uint32_t id,
                      const struct agent_exec_failure *failure)
{
    struct guest_rig *g = arg;

    (void)id;
    g->failure = *failure;
    g->over = true;
}

uint64_t guest_rig_sum(uint64_t sum, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + bytes[i];
    return sum;
}

static void on_output(void *arg, uint32_t id, uint32_t stream,
                      const void *bytes, size_t len)
{
    struct guest_rig *g = arg;
    size_t room = sizeof(g->text) - 1;

    if (g->bytes < room)
        memcpy(g->text + g->bytes, bytes,
               room - g->bytes < len ? room - g->bytes : len);
    g->bytes += len;
    g->sum = guest_rig_sum(g->sum, bytes, len);
    agent_client_consumed(g->client, id, stream, len);
}

static void on_exec_exit(void *arg, uint32_t id,
                         const struct proto_exec_exit *status)
{
    struct guest_rig *g = arg;

    (void)id;
    g->exit = *status;
    g->over = true;
}

static void on_file_done(void *arg, uint32_t id,
                         const struct proto_file_done *done, int local_err)
{
    struct guest_rig *g = arg;

    (void)id;
    (void)local_err;
    g->done = *done;
    g->over = true;
}

static void on_quiesced(void *arg, const struct proto_quiesced *quiesced)
{
    struct guest_rig *g = arg;

    g->quiesced_frame = *quiesced;
    g->quiesced = true;
}

static void on_restored(void *arg, const struct proto_restored *restored)
{
    struct guest_rig *g = arg;

    g->restored_frame = *restored;
    g->restored = true;
}

static const struct agent_client_ops ops = {
    .hello = on_hello,
    .exec_started = on_started,
    .exec_failed = on_failed,
    .output = on_output,
    .exec_exit = on_exec_exit,
    .quiesced = on_quiesced,
    .restored = on_restored,
    .file_done = on_file_done,
};

/* ---- the machine -------------------------------------------------------- */

int guest_rig_start(struct guest_rig *g, struct machine_spec *spec)
{
    struct failure f = {0};
    struct monitor_names names = {0};
    int pair[2], ret;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    ret = machine_open(spec, &g->machine, &f);
    machine_spec_fini(spec);
    if (ret == 0) {
        machine_add_vsock(&g->machine);
        g->console = pair[0];
        g->machine.config.console_out_fd = pair[1];
        ret = monitor_spawn(&g->monitor, &f);
    }
    if (ret == 0)
        ret = monitor_build(g->monitor, &g->machine.config, &names, &f);
    vm_config_fini(&g->machine.config);
    if (ret == 0)
        ret = monitor_start(g->monitor);
    if (ret)
        printf("skipped: no machine: %s\n", f.message);
    return ret;
}

/* Takes what the monitor says; nothing may end before its time. */
static bool machine_ended(struct guest_rig *g)
{
    struct pollfd p = {monitor_fd(g->monitor), POLLIN, 0};
    struct monitor_event event;

    if (host_is_emulated() && io_now_ns() > g->nudge_ns) {
        g->nudge_ns = io_now_ns() + MONITOR_NUDGE_MS * MS;
        (void)monitor_nudge(g->monitor);
    }
    if (poll(&p, 1, 0) <= 0)
        return false;
    monitor_receive(g->monitor, &event);
    if (event.kind == MONITOR_EVENT_EXIT)
        printf("# the machine ended: %s: %s\n",
               monitor_exit_reason_name(event.exit.reason), event.exit.text);
    else if (event.kind == MONITOR_EVENT_GONE)
        printf("# the monitor is gone: %s\n", monitor_reason(g->monitor));
    return event.kind == MONITOR_EVENT_EXIT || event.kind == MONITOR_EVENT_GONE;
}

int guest_rig_dial(struct guest_rig *g)
{
    uint64_t until = io_now_ns() + BOOT_NS;
    struct agent_link link;
    int fd = -1;

    agent_link_init(&link);
    while (io_now_ns() < until) {
        struct pollfd p;

        if (machine_ended(g) || agent_link_try(&link, g->monitor, io_now_ns()))
            break;
        p = (struct pollfd){link.fd, POLLIN, 0};
        (void)!poll(&p, 1, 50);
        if (p.revents && agent_link_read(&link, io_now_ns(), &fd) == 1)
            break;
    }
    agent_link_fini(&link);
    return fd;
}

void guest_rig_turn(struct guest_rig *g, int ms)
{
    struct pollfd p = {agent_client_fd(g->client),
                       agent_client_events(g->client), 0};

    (void)!poll(&p, 1, ms);
    if (machine_ended(g))
        guest_rig_give_up(g, "the machine ended");
    if (agent_client_process(g->client, p.revents))
        guest_rig_give_up(g, agent_client_reason(g->client));
}

void guest_rig_wait(struct guest_rig *g, const bool *flag, const char *what)
{
    uint64_t until = io_now_ns() + EVENT_NS;

    while (!*flag) {
        guest_rig_turn(g, 100);
        if (io_now_ns() > until)
            guest_rig_give_up(g, what);
    }
}

/* 0 with HELLO; else the agent closed what it had accepted. */
static int try_connect(struct guest_rig *g)
{
    uint64_t until = io_now_ns() + EVENT_NS;
    int ret = 0;
    int fd;

    agent_client_free(g->client);
    g->client = NULL;
    fd = guest_rig_dial(g);
    if (fd < 0 || agent_client_new(fd, &ops, g, &g->client))
        guest_rig_give_up(g, "no connection to the agent");
    g->has_hello = false;
    while (!g->has_hello && ret == 0) {
        struct pollfd p = {fd, agent_client_events(g->client), 0};

        (void)!poll(&p, 1, 100);
        if (machine_ended(g) || io_now_ns() > until)
            guest_rig_give_up(g, "no hello");
        ret = agent_client_process(g->client, p.revents);
    }
    return ret;
}

void guest_rig_connect(struct guest_rig *g)
{
    int tries = 10;

    /* The monitor may say of the new connection before it says that the old
       one is gone; then the agent refuses the second. */
    while (try_connect(g)) {
        if (--tries == 0)
            guest_rig_give_up(g, agent_client_reason(g->client));
    }
}

/* ---- execs and files ---------------------------------------------------- */

void guest_rig_reset(struct guest_rig *g)
{
    g->started = g->over = false;
    memset(&g->failure, 0, sizeof(g->failure));
    memset(&g->exit, 0, sizeof(g->exit));
    memset(&g->done, 0, sizeof(g->done));
    memset(g->text, 0, sizeof(g->text));
    g->bytes = 0;
    g->sum = 0;
}

uint32_t guest_rig_send(struct guest_rig *g,
                        const struct agent_exec_request *request)
{
    uint32_t id = 0;

    guest_rig_reset(g);
    if (agent_client_exec(g->client, request, &id))
        guest_rig_give_up(g, "cannot ask for an exec");
    return id;
}

void guest_rig_sh(struct guest_rig *g, const char *user, const char *script)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    const struct agent_exec_request request = {.argv = argv, .user = user};

    guest_rig_send(g, &request);
    guest_rig_wait(g, &g->over, script);
}

bool guest_rig_exited(const struct guest_rig *g, uint32_t code)
{
    return g->over && g->failure.reason == 0 && g->exit.signal == 0 &&
           g->exit.code == code;
}

int guest_rig_end(struct guest_rig *g)
{
    agent_client_free(g->client);
    monitor_free(g->monitor);
    printf("# %u passed, %u failed\n", g->passed, g->failed);
    return g->failed ? 1 : 0;
}
