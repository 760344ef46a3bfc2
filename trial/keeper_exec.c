/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients have the agent do: commands and files. Everything the agent
 * says is a claim; its form was checked by the agent's client.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/host.h"
#include "trial/keeper_internal.h"

#define MS 1000000ull /* nanoseconds */

static struct agent_client *agent_of(const struct keeper *k)
{
    return k->runner->client;
}

static struct keeper_client *find(struct keeper *k, uint32_t id)
{
    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        struct keeper_client *c = &k->clients[i];

        if (c->state != CLIENT_FREE && c->live && c->handle == id)
            return c;
    }
    return NULL;
}

static uint64_t confirm_ns(void)
{
    return MS * (host_is_emulated() ? KEEPER_CONFIRM_EMULATED_MS
                                    : KEEPER_CONFIRM_MS);
}

static void refuse(struct keeper_client *c, const char *code,
                   const char *message, const char *remedy)
{
    struct failure f;

    failure_set(&f, code, "", remedy, "%s", message);
    keeper_client_refuse(c, &f);
}

/* What the agent's client answered to a request it did not take. */
static void refuse_error(struct keeper_client *c, int error)
{
    switch (error) {
    case -EBUSY:
        refuse(c, "busy",
               "as many commands and copies as a machine can have are under "
               "way in it (16)",
               "wait for one to end");
        break;
    case -E2BIG:
        refuse(c, "usage", "the arguments or the environment are too long",
               "give at most 1 MiB of each; pass more through a file");
        break;
    case -EINVAL:
        refuse(c, "usage",
               "the agent cannot be asked for that: a name is too long or a "
               "variable is not NAME=VALUE",
               NULL);
        break;
    default:
        refuse(c, "host", strerror(-error), NULL);
        break;
    }
}

/* ---- commands: the request ---- */

void keeper_exec_begin(struct keeper *k, struct keeper_client *c,
                       const struct keeper_exec *request)
{
    struct failure why;
    int ret = 0;

    if (keeper_refuses(k, &why)) {
        keeper_client_refuse(c, &why);
        return;
    }
    c->request = malloc(sizeof(*c->request));
    c->strings = malloc((size_t)request->argv_bytes + request->env_bytes);
    if (!c->request || !c->strings)
        ret = -ENOMEM;
    if (ret == 0)
        ret = fifo_init(&c->in, KEEPER_WINDOW);
    for (unsigned i = 0; ret == 0 && i < 2; i++)
        ret = fifo_init(&c->out[i], KEEPER_WINDOW);
    if (ret != 0) {
        refuse_error(c, ret);
        return;
    }
    *c->request = *request;
    c->state = CLIENT_COLLECT;
}

/* Pointers to exactly count strings in `bytes` of text: 0 or -EBADMSG. */
static int split(const char *text, size_t bytes, size_t count,
                 const char **ret_list)
{
    const char *end = text + bytes;
    size_t found = 0;

    while (text < end) {
        const char *nul = memchr(text, '\0', (size_t)(end - text));

        if (!nul || found == count)
            return -EBADMSG;
        ret_list[found++] = text;
        text = nul + 1;
    }
    return found == count ? 0 : -EBADMSG;
}

static bool has_name(const char *const *env, size_t count, const char *entry)
{
    size_t len = strcspn(entry, "=");

    for (size_t i = 0; i < count; i++) {
        if (!strncmp(env[i], entry, len) && env[i][len] == '=')
            return true;
    }
    return false;
}

/* The client's variables, then the machine's where it gave none: NULL-ended. */
static void add_own_env(const struct keeper *k, const char **env, size_t count)
{
    const char *const *own = k->runner->spec->env;
    size_t used = count;

    for (; own && *own; own++) {
        if (!has_name(env, count, *own))
            env[used++] = *own;
    }
    env[used] = NULL;
}

static size_t count_own_env(const struct keeper *k)
{
    const char *const *own = k->runner->spec->env;
    size_t count = 0;

    while (own && own[count])
        count++;
    return count;
}

/* What runs in the machine is part of each snapshot that is made of it. */
static void note_command(struct keeper *k, const char *const *argv)
{
    if (k->ran_count < KEEPER_RAN_MAX)
        machine_record_command(k->ran[k->ran_count], argv);
    k->ran_count++;
}

static int send_exec(const struct keeper *k, struct keeper_client *c,
                     const char *const *argv, const char *const *env)
{
    const struct trial_spec *spec = k->runner->spec;
    const struct keeper_exec *r = c->request;
    struct agent_exec_request request = {
        .argv = argv,
        .env = env,
        .cwd = r->cwd[0] ? r->cwd : spec->workdir,
        .user = r->user[0] ? r->user : spec->user,
        .timeout_ms = r->timeout_ms,
        .pids_max = r->pids_max,
        .tty = (r->flags & KEEPER_EXEC_TTY) != 0,
        .rows = r->rows,
        .cols = r->cols,
        .open_stdin = (r->flags & KEEPER_EXEC_STDIN) != 0,
        .leave = true,
    };

    return agent_client_exec(agent_of(k), &request, &c->handle);
}

static int ask_exec(struct keeper *k, struct keeper_client *c)
{
    const struct keeper_exec *r = c->request;
    const char **argv = calloc(r->argc + 1u, sizeof(*argv));
    const char **env = calloc(r->envc + count_own_env(k) + 1u, sizeof(*env));
    int ret = -ENOMEM;

    if (argv && env) {
        ret = split(c->strings, r->argv_bytes, r->argc, argv);
        if (ret == 0)
            ret = split(c->strings + r->argv_bytes, r->env_bytes, r->envc, env);
        if (ret == 0) {
            add_own_env(k, env, r->envc);
            ret = send_exec(k, c, argv, env);
            if (ret == 0)
                note_command(k, argv);
        }
    }
    free(argv);
    free(env);
    return ret == -EBADMSG ? -EINVAL : ret;
}

void keeper_exec_try(struct keeper *k, struct keeper_client *c)
{
    uint64_t timeout_ms = c->request->timeout_ms;
    struct failure why;
    int ret;

    if (keeper_refuses(k, &why)) {
        keeper_client_refuse(c, &why);
        return;
    }
    ret = ask_exec(k, c);
    c->state = CLIENT_PENDING;
    if (ret == -EAGAIN)
        return;
    free(c->request);
    free(c->strings);
    c->request = NULL;
    c->strings = NULL;
    if (ret != 0) {
        refuse_error(c, ret);
        return;
    }
    c->live = true;
    c->state = CLIENT_ACTIVE;
    if (timeout_ms > 0 && timeout_ms < UINT64_MAX / MS / 2) {
        c->deadline_ns = io_now_ns() + timeout_ms * MS;
        c->confirm_ns = c->deadline_ns + confirm_ns();
    }
}

void keeper_exec_strings(struct keeper *k, struct keeper_client *c,
                         const struct keeper_bytes *data)
{
    size_t total = (size_t)c->request->argv_bytes + c->request->env_bytes;

    if (data->len > total - c->strings_used) {
        refuse_error(c, -EINVAL);
        return;
    }
    memcpy(c->strings + c->strings_used, data->bytes, data->len);
    c->strings_used += data->len;
    if (c->strings_used == total)
        keeper_exec_try(k, c);
}

/* ---- commands: while one runs ---- */

/* Stdin as far as the agent takes it. */
static void pump_stdin(struct keeper *k, struct keeper_client *c)
{
    while (c->live && fifo_used(&c->in) > 0) {
        size_t len;
        const uint8_t *bytes = fifo_peek(&c->in, &len);
        ssize_t n =
            agent_client_stdin_write(agent_of(k), c->handle, bytes, len);

        if (n == 0)
            return; /* stdin_ready will tell */
        /* It has ended or reads no more: nobody misses the rest. */
        if (n < 0)
            n = (ssize_t)len;
        fifo_drop(&c->in, (size_t)n);
        c->in_owed += (uint32_t)n;
    }
    if (c->live && c->in_ended)
        agent_client_stdin_close(agent_of(k), c->handle);
}

static int on_credit(struct keeper *k, struct keeper_client *c,
                     const struct keeper_numbers *credit)
{
    unsigned i = credit->a == PROTO_STDERR;

    if (credit->b > c->sent[i])
        return -EBADMSG;
    c->sent[i] -= credit->b;
    /* After the deadline the agent has been given it all beforehand. */
    if (!c->late)
        agent_client_consumed(agent_of(k), c->handle, credit->a, credit->b);
    return 0;
}

int keeper_exec_message(struct keeper *k, struct keeper_client *c,
                        uint32_t type, const union keeper_body *body)
{
    if (c->is_file)
        return -EBADMSG;
    switch (type) {
    case KEEPER_STDIN:
        if (c->in_ended || body->data.len > fifo_room(&c->in) - c->in_owed)
            return -EBADMSG;
        fifo_add(&c->in, body->data.bytes, body->data.len);
        pump_stdin(k, c);
        return 0;
    case KEEPER_STDIN_END:
        c->in_ended = true;
        pump_stdin(k, c);
        return 0;
    case KEEPER_SIGNAL:
        if (c->live)
            agent_client_signal(agent_of(k), c->handle, (int)body->numbers.a);
        return 0;
    case KEEPER_WINSIZE:
        if (c->live)
            agent_client_winsize(agent_of(k), c->handle,
                                 (uint16_t)body->numbers.a,
                                 (uint16_t)body->numbers.b);
        return 0;
    case KEEPER_CREDIT:
        return on_credit(k, c, &body->numbers);
    default:
        return -EBADMSG;
    }
}

void keeper_on_started(struct keeper *k, uint32_t id)
{
    struct keeper_client *c = k ? find(k, id) : NULL;

    if (!c || c->state != CLIENT_ACTIVE)
        return;
    c->started = true;
    pump_stdin(k, c);
    keeper_client_flush(k, c);
}

void keeper_on_failed(struct keeper *k, uint32_t id,
                      const struct agent_exec_failure *failure)
{
    struct keeper_client *c = k ? find(k, id) : NULL;
    union keeper_body body = {
        .numbers = {.a = failure->reason, .b = (uint32_t)failure->err}};

    if (!c)
        return;
    c->live = false;
    if (c->state == CLIENT_ACTIVE)
        keeper_client_answer(c, KEEPER_NOT_STARTED, &body);
    keeper_client_flush(k, c);
    keeper_client_settle(c);
}

void keeper_on_output(struct keeper *k, uint32_t id, uint32_t stream,
                      const void *bytes, size_t len)
{
    struct keeper_client *c = k ? find(k, id) : NULL;
    unsigned i = stream == PROTO_STDERR;

    if (!k)
        return;
    /* Nobody reads it any more: away with it. */
    if (!c || c->state != CLIENT_ACTIVE || c->sock < 0) {
        agent_client_consumed(agent_of(k), id, stream, len);
        return;
    }
    /* Before the deadline all fits: the guest has no credit for more. */
    c->dropped[i] += len - fifo_add(&c->out[i], bytes, len);
    if (c->late)
        agent_client_consumed(agent_of(k), id, stream, len);
    keeper_client_flush(k, c);
}

void keeper_on_stdin_ready(struct keeper *k, uint32_t id)
{
    struct keeper_client *c = k ? find(k, id) : NULL;

    if (!c)
        return;
    pump_stdin(k, c);
    keeper_client_flush(k, c);
}

/* How a command ended, from the agent; and what the host has to say to it. */
static void answer_exit(struct keeper *k, struct keeper_client *c,
                        union keeper_body *exited)
{
    struct runner *r = k->runner;
    union keeper_body ended = {
        .ended = {.kind = OUTCOME_INFRA_UNKNOWN, .by_host = true}};
    struct failure *why = &ended.ended.failure;

    /* By then the host knows: what was refused is part of the answer. */
    runner_ask_for_stats(r);
    /* Then this ends the machine, and that is what its clients are told. */
    if (r->facts->host_failed || r->facts->monitor_fault)
        return;
    if (r->monitor && !r->machine_ended && !r->stats_seen &&
        monitor_is_held(r->monitor, "when the command ended", why)) {
        snprintf(ended.ended.cause, sizeof(ended.ended.cause), "%s", why->code);
        keeper_client_answer(c, KEEPER_ENDED, &ended);
        return;
    }
    exited->exited.disk_refused = runner_disk_refused(r);
    keeper_client_answer(c, KEEPER_EXITED, exited);
}

void keeper_on_exit(struct keeper *k, uint32_t id,
                    const struct proto_exec_exit *status)
{
    struct keeper_client *c = k ? find(k, id) : NULL;
    union keeper_body body = {.exited = {.status = *status}};
    uint64_t now = io_now_ns();

    if (!c)
        return;
    c->live = false;
    body.exited.late = c->deadline_ns != 0 && now >= c->deadline_ns &&
                       !(status->flags & PROTO_EXIT_TIMED_OUT);
    body.exited.dropped[0] = c->dropped[0];
    body.exited.dropped[1] = c->dropped[1];
    if (c->state == CLIENT_ACTIVE)
        answer_exit(k, c, &body);
    keeper_client_flush(k, c);
    keeper_client_settle(c);
}

/* ---- files ---- */

static int ask_file(struct keeper *k, struct keeper_client *c,
                    enum keeper_message type, const struct keeper_file *r)
{
    const char *user = r->user[0] ? r->user : k->runner->spec->user;
    struct stat st;

    if (fstat(c->file_fd, &st) != 0)
        return -errno;
    /* Reading and writing it must not make the machine wait. */
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if (type == KEEPER_PUT)
        return agent_client_write_file(agent_of(k), r->path, user, r->mode,
                                       c->file_fd, &c->handle);
    return agent_client_read_file(agent_of(k), r->path, user, r->limit,
                                  c->file_fd, &c->handle);
}

void keeper_file_begin(struct keeper *k, struct keeper_client *c,
                       enum keeper_message type,
                       const struct keeper_file *request, int fd)
{
    struct failure why;
    int ret;

    c->is_file = true;
    c->file_fd = fd;
    if (keeper_refuses(k, &why)) {
        keeper_client_refuse(c, &why);
        return;
    }
    ret = ask_file(k, c, type, request);
    if (ret == -EAGAIN)
        ret = -EBUSY;
    if (ret != 0) {
        refuse_error(c, ret);
        return;
    }
    c->live = true;
    c->state = CLIENT_ACTIVE;
    c->deadline_ns = io_now_ns() + TRIAL_FILE_MS * MS;
    c->confirm_ns = c->deadline_ns + confirm_ns();
}

void keeper_on_file_done(struct keeper *k, uint32_t id,
                         const struct proto_file_done *done, int local_err)
{
    struct keeper_client *c = k ? find(k, id) : NULL;
    union keeper_body body = {.file_done = {.err = done->err,
                                            .local_err = (uint32_t)local_err,
                                            .mode = done->mode,
                                            .bytes = done->bytes}};

    if (!c)
        return;
    c->live = false;
    io_close(&c->file_fd);
    if (c->late && done->err != 0)
        body.file_done.err = ETIMEDOUT;
    if (c->state == CLIENT_ACTIVE)
        keeper_client_answer(c, KEEPER_FILE_DONE, &body);
    keeper_client_flush(k, c);
    keeper_client_settle(c);
}

/* ---- the end of a request ---- */

void keeper_request_cancel(struct keeper *k, struct keeper_client *c)
{
    if (c->live && agent_of(k))
        agent_client_cancel(agent_of(k), c->handle);
}

/*
 * From here on the client is not waited for: an agent that may not send the
 * rest of the output could not report the end.
 */
static void stop_waiting_for_client(struct keeper *k, struct keeper_client *c)
{
    c->late = true;
    if (c->is_file) {
        keeper_request_cancel(k, c);
        return;
    }
    for (unsigned i = 0; i < 2; i++)
        agent_client_consumed(agent_of(k), c->handle,
                              i == 0 ? PROTO_STDOUT : PROTO_STDERR,
                              fifo_used(&c->out[i]) + c->sent[i]);
}

void keeper_request_on_clock(struct keeper *k, struct keeper_client *c,
                             uint64_t now_ns)
{
    if (!c->live || c->deadline_ns == 0)
        return;
    if (!c->late && now_ns >= c->deadline_ns)
        stop_waiting_for_client(k, c);
    if (now_ns >= c->confirm_ns)
        keeper_give_up(k);
}
