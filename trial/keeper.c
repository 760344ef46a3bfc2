/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's machine: its socket, its time, its end; see keeper.h. */
#include "trial/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "trial/keeper_internal.h"
#include "trial/machine_end.h"

#define MS 1000000ull  /* nanoseconds */
#define FIXED_POLLS 3u /* before those of the clients */
/* How long clients that do not read may hold up the keeper's end. */
#define FAREWELL_MS 1000u

/* ---- life ---- */

int keeper_new(const struct keeper_setup *setup, struct keeper **ret_keeper,
               struct failure *f)
{
    struct keeper *k = calloc(1, sizeof(*k));
    int ret = -ENOMEM;

    if (!k) {
        failure_set(f, "host", "memory", NULL, "out of memory");
        (void)!registry_remove(setup->entry);
        return ret;
    }
    k->entry = *setup->entry;
    *setup->entry = (struct registry_entry){.dir_fd = -1, .lock_fd = -1};
    k->record = *setup->record;
    k->starter_fd = setup->starter_fd;
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++)
        k->clients[i].sock = k->clients[i].file_fd = -1;
    k->busy_fd = registry_hold_busy(&k->entry);
    k->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    ret = k->listen_fd = registry_listen(&k->entry);
    if (ret >= 0)
        ret = machine_record_write(&k->entry, &k->record);
    if (ret < 0)
        failure_set(f, "host", k->entry.name, failure_remedy(ret, NULL),
                    "cannot keep the machine %s: %s", k->entry.name,
                    strerror(-ret));
    else
        ret = registry_publish(&k->entry, f);
    if (ret != 0) {
        (void)!registry_remove(&k->entry);
        keeper_free(k);
        return ret;
    }
    *ret_keeper = k;
    return 0;
}

const struct registry_entry *keeper_entry(const struct keeper *keeper)
{
    return &keeper->entry;
}

struct machine_record *keeper_record(struct keeper *keeper)
{
    return &keeper->record;
}

bool keeper_was_ready(const struct keeper *keeper)
{
    return keeper->ready;
}

void keeper_free(struct keeper *keeper)
{
    if (!keeper)
        return;
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++)
        keeper_client_drop(&keeper->clients[i]);
    keeper_snapshot_abort(keeper);
    keeper_forget_machine(keeper);
    io_close(&keeper->listen_fd);
    io_close(&keeper->busy_fd);
    io_close(&keeper->spare_fd);
    registry_close(&keeper->entry);
    free(keeper);
}

void keeper_attach(struct keeper *k, struct runner *runner)
{
    if (k)
        k->runner = runner;
}

void keeper_detach(struct keeper *k)
{
    if (!k)
        return;
    keeper_snapshot_abort(k);
    /* The agent's client is gone: what it was asked for is over. */
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        k->clients[i].live = false;
        if (k->clients[i].state != CLIENT_FREE)
            keeper_client_settle(&k->clients[i]);
    }
    k->runner = NULL;
}

void keeper_on_ready(struct keeper *k)
{
    if (!k || k->ready)
        return;
    k->ready = true;
    k->record.state = MACHINE_RUNNING;
    text_escape(k->runner->result->kernel_release,
                strlen(k->runner->result->kernel_release), k->record.kernel,
                sizeof(k->record.kernel));
    k->expire_ns = io_now_ns() + k->record.ttl_ms * MS;
    /* Without it `ps` would call a machine that answers "starting". */
    if (machine_record_write(&k->entry, &k->record) != 0)
        runner_fail(k->runner, "host_disk_full", k->entry.name, "make room",
                    "cannot write the record of the machine %s", k->entry.name);
    else if (keeper_send(k->starter_fd, KEEPER_STARTED, NULL) != 0)
        runner_cancel(k->runner, "starter_left",
                      "cancelled: who started the machine left");
    k->starter_fd = -1;
}

/* ---- what clients may ask of the whole machine ---- */

static bool is_ending(const struct keeper *k)
{
    const struct runner *r = k->runner;

    return !r || r->phase == RUNNER_OVER || r->verdict_at_ns != 0 ||
           k->stopping;
}

bool keeper_refuses(const struct keeper *k, struct failure *ret_why)
{
    const char *name = k->entry.name;

    if (is_ending(k))
        failure_set(ret_why, "machine_ended", name, NULL,
                    "the machine %s is ending", name);
    else if (!k->ready)
        failure_set(ret_why, "machine_starting", name, "try again",
                    "the machine %s is still starting", name);
    else if (k->runner->spec->no_agent)
        failure_set(ret_why, "no_agent", name, "microsbx logs has its console",
                    "the machine %s has no agent: its guest takes no commands "
                    "and no files, and is not frozen",
                    name);
    else if (k->unavailable)
        failure_set(ret_why, "machine_unavailable", name,
                    "microsbx rm -f removes it",
                    "the machine %s is unavailable: its agent did not end a "
                    "command whose time was over",
                    name);
    else
        return false;
    return true;
}

void keeper_end_requests(struct keeper *k, const char *cause,
                         const struct failure *why)
{
    union keeper_body body = {.ended = {.kind = OUTCOME_INFRA_UNKNOWN,
                                        .by_host = true,
                                        .failure = *why}};

    snprintf(body.ended.cause, sizeof(body.ended.cause), "%s", cause);
    keeper_snapshot_abort(k); /* its client is told below */
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        struct keeper_client *c = &k->clients[i];

        if (c->state != CLIENT_ACTIVE && c->state != CLIENT_PENDING)
            continue;
        keeper_request_cancel(k, c);
        keeper_client_answer(c, KEEPER_ENDED, &body);
        keeper_client_flush(k, c);
    }
}

void keeper_give_up(struct keeper *k)
{
    struct failure why;

    if (k->unavailable)
        return;
    k->unavailable = true;
    (void)keeper_refuses(k, &why);
    keeper_end_requests(k, "machine_unavailable", &why);
}

void keeper_kill(struct keeper *k)
{
    if (k->runner && k->runner->phase != RUNNER_OVER)
        runner_cancel(k->runner, "killed", "the machine was killed");
}

/*
 * The command is asked to end, which ends the machine; without one the guest
 * is, and that it hangs up is then no surprise.
 */
void keeper_stop(struct keeper *k, uint32_t grace_ms)
{
    uint64_t until = io_now_ns() + grace_ms * MS;
    struct runner *r = k->runner;

    if (k->stop_ns == 0 || until < k->stop_ns)
        k->stop_ns = until;
    if (!r || r->phase == RUNNER_OVER || k->stopping)
        return;
    k->stopping = true;
    if (r->client && r->exec_live) {
        agent_client_signal(r->client, r->exec_id, SIGTERM);
    } else if (r->client) {
        runner_power_off(r);
    } else {
        keeper_kill(k);
    }
}

static uint32_t count_execs(const struct keeper *k)
{
    uint32_t count = k->runner && k->runner->exec_live ? 1 : 0;

    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++)
        count += k->clients[i].live && !k->clients[i].is_file;
    return count;
}

void keeper_get_status(const struct keeper *k, struct keeper_status *ret)
{
    uint64_t now = io_now_ns();

    *ret = (struct keeper_status){
        .state = is_ending(k)     ? KEEPER_IS_ENDING
                 : !k->ready      ? KEEPER_IS_STARTING
                 : k->unavailable ? KEEPER_IS_UNAVAILABLE
                                  : KEEPER_IS_RUNNING,
        .execs = count_execs(k),
        .ttl_left_ms = k->expire_ns > now ? (k->expire_ns - now) / MS : 0,
    };
}

/* ---- the loop's part ---- */

size_t keeper_polls(const struct keeper *k, struct pollfd *ret_polls)
{
    size_t count = 0;

    if (!k)
        return 0;
    ret_polls[count++] = (struct pollfd){k->listen_fd, POLLIN, 0};
    /* No events: that its other end is gone is told without. */
    ret_polls[count++] = (struct pollfd){k->starter_fd, 0, 0};
    ret_polls[count++] = (struct pollfd){keeper_snapshot_fd(k), POLLIN, 0};
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        const struct keeper_client *c = &k->clients[i];

        if (c->state == CLIENT_FREE)
            ret_polls[count++] = (struct pollfd){-1, 0, 0};
        else
            ret_polls[count++] =
                (struct pollfd){c->sock, keeper_client_events(c), 0};
    }
    return count;
}

static void accept_client(struct keeper *k)
{
    int sock = accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (sock >= 0) {
        keeper_client_accept(k, sock);
        return;
    }
    if (errno != EMFILE && errno != ENFILE)
        return;
    /* Left in the queue it would wake us again at once, and for ever. */
    io_close(&k->spare_fd);
    sock = accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (sock >= 0)
        keeper_client_turn_away(k, sock);
    k->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void keeper_dispatch(struct keeper *k, const struct pollfd *polls, size_t count)
{
    if (!k)
        return;
    for (size_t i = FIXED_POLLS; i < count; i++) {
        struct keeper_client *c = &k->clients[i - FIXED_POLLS];

        /* One that came into a free place since was not polled. */
        if (polls[i].revents && c->state != CLIENT_FREE &&
            c->sock == polls[i].fd)
            keeper_client_on_poll(k, c, polls[i].revents);
    }
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        if (k->clients[i].state == CLIENT_PENDING) {
            keeper_exec_try(k, &k->clients[i]);
            keeper_client_flush(k, &k->clients[i]);
        }
    }
    if (polls[1].revents & (POLLHUP | POLLERR) && k->starter_fd >= 0)
        runner_cancel(k->runner, "starter_left",
                      "cancelled: who started the machine left");
    if (polls[2].revents && polls[2].fd == keeper_snapshot_fd(k))
        keeper_snapshot_on_helper(k);
    if (polls[0].revents)
        accept_client(k);
}

uint64_t keeper_due_ns(const struct keeper *k)
{
    uint64_t due = k ? keeper_snapshot_due_ns(k) : UINT64_MAX;

    if (!k)
        return due;
    if (keeper_monitor_due_ns(k) < due)
        due = keeper_monitor_due_ns(k);
    if (k->expire_ns != 0 && k->expire_ns < due)
        due = k->expire_ns;
    if (k->stop_ns != 0 && k->stop_ns < due)
        due = k->stop_ns;
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        const struct keeper_client *c = &k->clients[i];
        uint64_t its = c->late ? c->confirm_ns : c->deadline_ns;

        if (c->live && its != 0 && its < due && !k->unavailable)
            due = its;
    }
    return due;
}

bool keeper_is_expired(struct keeper *k, uint64_t now_ns)
{
    if (!k || k->expire_ns == 0 || now_ns < k->expire_ns)
        return false;
    k->expired = true;
    runner_time_out(k->runner, "ttl");
    return true;
}

void keeper_on_clock(struct keeper *k, uint64_t now_ns)
{
    if (!k || k->runner->phase == RUNNER_OVER)
        return;
    io_close(&k->busy_fd); /* the loop turns: clients are served */
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX && !k->unavailable; i++)
        keeper_request_on_clock(k, &k->clients[i], now_ns);
    keeper_snapshot_on_clock(k, now_ns);
    keeper_monitor_on_clock(k, now_ns);
    if (keeper_is_expired(k, now_ns))
        return;
    if (k->stop_ns != 0 && now_ns >= k->stop_ns) {
        runner_cancel(k->runner, "stopped", "the machine was stopped");
    }
}

/* ---- the end ---- */

static void tell_clients(struct keeper *k, const struct trial_result *result)
{
    union keeper_body body = {.ended = {.kind = result->outcome.kind,
                                        .by_host = result->outcome.by_host,
                                        .failure = result->failure}};

    snprintf(body.ended.cause, sizeof(body.ended.cause), "%s",
             result->outcome.cause ? result->outcome.cause : "");
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        struct keeper_client *c = &k->clients[i];

        if (c->state != CLIENT_FREE && c->state != CLIENT_DONE)
            keeper_client_answer(c, KEEPER_ENDED, &body);
    }
}

/* Whoever reads gets all of it; who does not is left. */
static void say_farewell(struct keeper *k)
{
    uint64_t deadline = io_now_ns() + FAREWELL_MS * MS;
    struct pollfd polls[KEEPER_CLIENTS_MAX];

    for (;;) {
        nfds_t waiting = 0;

        for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++) {
            struct keeper_client *c = &k->clients[i];

            if (c->state == CLIENT_FREE)
                continue;
            keeper_client_flush(k, c);
            if (c->state != CLIENT_FREE && c->sock >= 0)
                polls[waiting++] = (struct pollfd){c->sock, POLLOUT, 0};
        }
        if (waiting == 0 || io_now_ns() >= deadline)
            return;
        if (poll(polls, waiting, 100) < 0 && errno != EINTR)
            return;
    }
}

void keeper_finish(struct keeper *keeper, const struct trial_result *result,
                   const char *line)
{
    int ret = 0;

    io_close(&keeper->listen_fd);
    if (!keeper->ready) {
        ret = registry_remove(&keeper->entry);
    } else {
        unlinkat(keeper->entry.dir_fd, "socket", 0);
        ret = machine_end_write(&keeper->entry, &keeper->record, result,
                                keeper->expired, line);
    }
    /* Without its record the machine is "dead" to everybody: the truth. */
    (void)ret;
    tell_clients(keeper, result);
    say_farewell(keeper);
}
