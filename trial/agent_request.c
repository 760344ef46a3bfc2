/* SPDX-License-Identifier: Apache-2.0 */
/* What the harness asks the agent for; see agent_client.h. */
#include <errno.h>
#include <string.h>

#include "trial/agent_client.h"
#include "trial/agent_handle.h"

/* Strings of an exec: how many, and their bytes with NULs. */
struct string_list {
    const char *const *strings; /* NULL-terminated, or NULL */
    uint32_t count, bytes;
};

static int usable(const struct agent_client *c)
{
    if (c->error)
        return c->error;
    return c->hello ? 0 : -ENOTCONN;
}

/* A free handle that is not yet in use, with the next id. */
static int new_handle(struct agent_client *c, struct agent_handle **ret_handle)
{
    int ret = usable(c);

    if (ret)
        return ret;
    if (c->last_id == UINT32_MAX)
        return -EBUSY;
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        struct agent_handle *h = &c->handles[i];

        if (h->kind != AGENT_FREE)
            continue;
        memset(h, 0, sizeof(*h));
        h->id = c->last_id + 1;
        h->fd = -1;
        h->in[0].allowed = PROTO_WINDOW;
        h->in[1].allowed = PROTO_WINDOW;
        *ret_handle = h;
        return 0;
    }
    return -EBUSY;
}

static void activate(struct agent_client *c, struct agent_handle *h,
                     enum agent_kind kind, uint32_t *ret_id)
{
    h->kind = kind;
    c->last_id = h->id;
    *ret_id = h->id;
}

/* A text of fixed size in a request; NULL is "". -EINVAL: too long. */
static int copy_text(char *ret_text, size_t size, const char *text)
{
    size_t len = text ? strlen(text) : 0;

    if (len >= size)
        return -EINVAL;
    memcpy(ret_text, text ? text : "", len + 1);
    return 0;
}

/* ---- exec --------------------------------------------------------------- */

static int measure(const char *const *strings, size_t max_count,
                   size_t max_bytes, struct string_list *ret_list)
{
    size_t count = 0, bytes = 0;

    for (; strings && strings[count]; count++) {
        size_t len = strlen(strings[count]) + 1;

        if (count == max_count || len > max_bytes - bytes)
            return -E2BIG;
        bytes += len;
    }
    ret_list->strings = strings;
    ret_list->count = (uint32_t)count;
    ret_list->bytes = (uint32_t)bytes;
    return 0;
}

static int check_env(const char *const *env)
{
    for (; env && *env; env++) {
        const char *equals = strchr(*env, '=');

        if (!equals || equals == *env)
            return -EINVAL;
    }
    return 0;
}

/* Collects strings into full EXEC_STRINGS frames. */
struct packer {
    struct proto_writer *w;
    uint32_t id;
    size_t used;
    uint8_t buf[PROTO_PAYLOAD_MAX];
};

static void pack_flush(struct packer *p)
{
    if (p->used)
        proto_put_strings(p->w, p->id, p->buf, p->used);
    p->used = 0;
}

static void pack_list(struct packer *p, const struct string_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        const char *s = list->strings[i];
        size_t len = strlen(s) + 1;

        while (len > 0) {
            size_t part = sizeof(p->buf) - p->used;

            if (part > len)
                part = len;
            memcpy(p->buf + p->used, s, part);
            p->used += part;
            s += part;
            len -= part;
            if (p->used == sizeof(p->buf))
                pack_flush(p);
        }
    }
}

static int make_exec_open(const struct agent_exec_request *request,
                          const struct string_list *argv,
                          const struct string_list *env,
                          struct proto_exec_open *m)
{
    memset(m, 0, sizeof(*m));
    if (request->tty)
        m->flags |= PROTO_EXEC_TTY;
    if (request->open_stdin || request->warm)
        m->flags |= PROTO_EXEC_STDIN;
    if (request->warm)
        m->flags |= PROTO_EXEC_WARM;
    if (request->allow_new_privs)
        m->flags |= PROTO_EXEC_NEW_PRIVS;
    if (request->pids_note)
        m->flags |= PROTO_EXEC_NOTE_PIDS;
    if (request->disk_ends)
        m->flags |= PROTO_EXEC_END_DISK;
    if (request->leave)
        m->flags |= PROTO_EXEC_LEAVE;
    m->rows = request->rows;
    m->cols = request->cols;
    m->timeout_ms = request->timeout_ms;
    m->memory_max = request->memory_max;
    m->pids_max = request->pids_max;
    m->argc = argv->count;
    m->envc = env->count;
    m->argv_bytes = argv->bytes;
    m->env_bytes = env->bytes;
    if (copy_text(m->user, sizeof(m->user), request->user) ||
        copy_text(m->cwd, sizeof(m->cwd), request->cwd))
        return -EINVAL;
    return 0;
}

static int send_exec(struct agent_client *c, uint32_t id,
                     const struct proto_exec_open *m,
                     const struct string_list *argv,
                     const struct string_list *env)
{
    size_t bytes = (size_t)argv->bytes + env->bytes;
    struct packer packer = {.id = id};
    struct proto_writer w;
    /* The strings, a header for each frame of them, and the request. */
    int ret = agent_out_reserve(
        c,
        bytes + (bytes / PROTO_PAYLOAD_MAX + 1) * PROTO_HEADER_SIZE +
            PROTO_HEADER_SIZE + sizeof(*m),
        &w);

    if (ret)
        return ret;
    proto_put_exec_open(&w, id, m);
    packer.w = &w;
    pack_list(&packer, argv);
    pack_list(&packer, env);
    pack_flush(&packer);
    if (w.overflow)
        return -E2BIG;
    agent_out_commit(c, &w);
    return 0;
}

int agent_client_exec(struct agent_client *client,
                      const struct agent_exec_request *request,
                      uint32_t *ret_id)
{
    struct string_list argv, env;
    struct proto_exec_open m;
    struct agent_handle *h;
    int ret = new_handle(client, &h);

    if (ret)
        return ret;
    ret = measure(request->argv, PROTO_ARGV_MAX, PROTO_ARGV_BYTES_MAX, &argv);
    if (ret == 0)
        ret = measure(request->env, PROTO_ENV_MAX, PROTO_ENV_BYTES_MAX, &env);
    if (ret)
        return ret;
    if (argv.count == 0 || check_env(request->env) ||
        (request->warm && request->tty))
        return -EINVAL;
    if (request->warm && !(client->features & PROTO_FEATURE_SNAPSHOT))
        return -EOPNOTSUPP;
    ret = make_exec_open(request, &argv, &env, &m);
    /* An agent of the past kills what is left, and says so. */
    if (!(client->features & PROTO_FEATURE_LEAVE))
        m.flags &= ~PROTO_EXEC_LEAVE;
    /* It looks at the disk, but leaves the end to us. */
    if (!(client->features & PROTO_FEATURE_DISK))
        m.flags &= ~PROTO_EXEC_END_DISK;
    if (ret == 0)
        ret = send_exec(client, h->id, &m, &argv, &env);
    if (ret)
        return ret;
    h->feeds = request->open_stdin || request->warm;
    h->credit = PROTO_WINDOW;
    activate(client, h, AGENT_EXEC, ret_id);
    return 0;
}

/* ---- around a freeze ---------------------------------------------------- */

/* As usable, for what an agent of the past does not know. */
static int usable_for_snapshots(const struct agent_client *c)
{
    int ret = usable(c);

    if (ret == 0 && !(c->features & PROTO_FEATURE_SNAPSHOT))
        ret = -EOPNOTSUPP;
    return ret;
}

int agent_client_attach(struct agent_client *client,
                        const struct agent_attach_request *request,
                        uint32_t *ret_id)
{
    struct proto_attach m = {
        .flags = request->pids_note ? PROTO_EXEC_NOTE_PIDS : 0,
        .pids_max = request->pids_max,
        .timeout_ms = request->timeout_ms,
        .memory_max = request->memory_max,
    };
    struct agent_handle *h;
    struct proto_writer w;
    int ret = usable_for_snapshots(client);

    if (request->disk_ends && (client->features & PROTO_FEATURE_DISK))
        m.flags |= PROTO_EXEC_END_DISK;
    if (ret == 0)
        ret = new_handle(client, &h);
    if (ret == 0)
        ret = agent_out_reserve(client, PROTO_HEADER_SIZE + sizeof(m), &w);
    if (ret)
        return ret;
    proto_put_attach(&w, h->id, &m);
    agent_out_commit(client, &w);
    h->feeds = true;
    h->credit = PROTO_WINDOW;
    activate(client, h, AGENT_EXEC, ret_id);
    return 0;
}

int agent_client_quiesce(struct agent_client *client, uint32_t flags)
{
    struct proto_writer w;
    int ret = usable_for_snapshots(client);

    if (ret)
        return ret;
    if (!proto_quiesce_is_sane(flags))
        return -EINVAL;
    if (client->quiescing)
        return -EBUSY;
    ret = agent_out_reserve(client, PROTO_HEADER_SIZE + 4, &w);
    if (ret)
        return ret;
    proto_put_u32(&w, PROTO_QUIESCE, 0, flags);
    agent_out_commit(client, &w);
    client->quiescing = true;
    return 0;
}

int agent_client_restore(struct agent_client *client,
                         const struct proto_restore *request)
{
    struct proto_restore m = *request;
    struct proto_writer w;
    int ret = usable_for_snapshots(client);

    if (ret)
        return ret;
    if (!proto_restore_is_sane(request))
        return -EINVAL;
    /* An agent of the past keeps to the limit that it was booted with. */
    if (!(client->features & PROTO_FEATURE_DISK)) {
        m.flags &= ~PROTO_RESTORE_LIMIT;
        m.scratch_limit = 0;
    }
    if (client->restoring)
        return -EBUSY;
    ret = agent_out_reserve(client, PROTO_HEADER_SIZE + sizeof(m), &w);
    if (ret)
        return ret;
    proto_put_restore(&w, &m);
    agent_out_commit(client, &w);
    client->restoring = true;
    return 0;
}

/* ---- to a live exec ----------------------------------------------------- */

static int find_exec(struct agent_client *c, uint32_t id,
                     struct agent_handle **ret_handle)
{
    struct agent_handle *h;
    int ret = usable(c);

    if (ret)
        return ret;
    h = agent_handle_find(c, id);
    if (!h || h->kind != AGENT_EXEC)
        return -ENOENT;
    *ret_handle = h;
    return 0;
}

size_t agent_client_stdin_room(const struct agent_client *client, uint32_t id)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        const struct agent_handle *h = &client->handles[i];

        if (h->kind == AGENT_EXEC && h->id == id)
            return agent_handle_room(client, h);
    }
    return 0;
}

ssize_t agent_client_stdin_write(struct agent_client *client, uint32_t id,
                                 const void *bytes, size_t len)
{
    struct agent_handle *h;
    int ret = find_exec(client, id, &h);

    if (ret)
        return ret;
    if (!h->feeds || h->closed)
        return -EPIPE;
    return (ssize_t)agent_handle_feed(client, h, bytes, len);
}

int agent_client_stdin_close(struct agent_client *client, uint32_t id)
{
    struct agent_handle *h;
    int ret = find_exec(client, id, &h);

    return ret ? ret : agent_handle_close(client, h);
}

int agent_client_consumed(struct agent_client *client, uint32_t id,
                          uint32_t stream, size_t bytes)
{
    struct agent_inflow *flow;
    struct agent_handle *h;

    if (stream != PROTO_STDOUT && stream != PROTO_STDERR)
        return -EINVAL;
    if (find_exec(client, id, &h))
        return 0;
    flow = &h->in[stream == PROTO_STDERR];
    if (bytes > flow->pending)
        return -EINVAL;
    flow->pending -= (uint32_t)bytes;
    flow->owed += (uint32_t)bytes;
    agent_inflow_credit(client, h, flow, stream);
    return 0;
}

int agent_client_signal(struct agent_client *client, uint32_t id, int signal)
{
    struct proto_writer w;
    struct agent_handle *h;
    int ret = find_exec(client, id, &h);

    if (ret)
        return ret;
    if (signal < 1 || signal > 64)
        return -EINVAL;
    ret = agent_out_reserve(client, PROTO_HEADER_SIZE + 4, &w);
    if (ret)
        return ret;
    proto_put_u32(&w, PROTO_EXEC_SIGNAL, id, (uint32_t)signal);
    agent_out_commit(client, &w);
    return 0;
}

int agent_client_winsize(struct agent_client *client, uint32_t id,
                         uint16_t rows, uint16_t cols)
{
    struct proto_writer w;
    struct agent_handle *h;
    int ret = find_exec(client, id, &h);

    if (ret == 0)
        ret = agent_out_reserve(client, PROTO_HEADER_SIZE + 4, &w);
    if (ret)
        return ret;
    proto_put_winsize(&w, id, rows, cols);
    agent_out_commit(client, &w);
    return 0;
}

int agent_client_cancel(struct agent_client *client, uint32_t id)
{
    struct agent_handle *h;
    int ret = usable(client);

    if (ret)
        return ret;
    h = agent_handle_find(client, id);
    return h ? agent_handle_cancel(client, h) : -ENOENT;
}

/* ---- files -------------------------------------------------------------- */

static int send_file_open(struct agent_client *c, uint16_t type, uint32_t id,
                          const struct proto_file_open *m)
{
    struct proto_writer w;
    int ret = agent_out_reserve(c, PROTO_HEADER_SIZE + sizeof(*m), &w);

    if (ret)
        return ret;
    proto_put_file_open(&w, type, id, m);
    agent_out_commit(c, &w);
    return 0;
}

/* Common to all: fills in the names, takes a handle, sends the request. */
static int open_file(struct agent_client *c, uint16_t type, const char *path,
                     const char *user, struct proto_file_open *m,
                     struct agent_handle **ret_handle)
{
    struct agent_handle *h;
    int ret = new_handle(c, &h);

    if (ret)
        return ret;
    if (!path || path[0] == '\0' || m->mode > 07777 ||
        copy_text(m->path, sizeof(m->path), path) ||
        copy_text(m->user, sizeof(m->user), user))
        return -EINVAL;
    ret = send_file_open(c, type, h->id, m);
    if (ret)
        return ret;
    *ret_handle = h;
    return 0;
}

int agent_client_write_file(struct agent_client *client, const char *path,
                            const char *user, uint32_t mode, int fd,
                            uint32_t *ret_id)
{
    struct proto_file_open m = {.mode = mode};
    struct agent_handle *h;
    int ret = open_file(client, PROTO_FILE_WRITE, path, user, &m, &h);

    if (ret)
        return ret;
    h->fd = fd;
    h->feeds = true;
    h->credit = PROTO_WINDOW;
    activate(client, h, AGENT_WRITE, ret_id);
    return 0;
}

int agent_client_read_file(struct agent_client *client, const char *path,
                           const char *user, uint64_t limit, int fd,
                           uint32_t *ret_id)
{
    struct proto_file_open m = {.limit = limit};
    struct agent_handle *h;
    int ret = open_file(client, PROTO_FILE_READ, path, user, &m, &h);

    if (ret)
        return ret;
    h->fd = fd;
    h->limit = limit;
    activate(client, h, AGENT_READ, ret_id);
    return 0;
}

int agent_client_stat(struct agent_client *client, const char *path,
                      const char *user, uint32_t *ret_id)
{
    struct proto_file_open m = {0};
    struct agent_handle *h;
    int ret = open_file(client, PROTO_FILE_STAT, path, user, &m, &h);

    if (ret)
        return ret;
    activate(client, h, AGENT_ASK, ret_id);
    return 0;
}

int agent_client_mkdir(struct agent_client *client, const char *path,
                       const char *user, uint32_t mode, uint32_t *ret_id)
{
    struct proto_file_open m = {.mode = mode};
    struct agent_handle *h;
    int ret = open_file(client, PROTO_FILE_MKDIR, path, user, &m, &h);

    if (ret)
        return ret;
    activate(client, h, AGENT_ASK, ret_id);
    return 0;
}

int agent_client_shutdown(struct agent_client *client)
{
    struct proto_writer w;
    int ret = usable(client);

    if (ret == 0)
        ret = agent_out_reserve(client, PROTO_HEADER_SIZE, &w);
    if (ret)
        return ret;
    proto_put_empty(&w, PROTO_SHUTDOWN, 0);
    agent_out_commit(client, &w);
    return 0;
}
