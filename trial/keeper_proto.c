/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's messages as bytes; see the header. Each record has one list of
 * fields, which drives both directions, and one check of what is in range.
 */
#include "trial/keeper_proto.h"

#include <errno.h>
#include <string.h>

#include "base/codec.h"

/* Either of the two; the other is NULL. */
struct coder {
    struct state_writer *w;
    struct state_reader *r;
};

static void code_u8(struct coder *c, uint8_t *value)
{
    if (c->w)
        state_put_u8(c->w, *value);
    else
        *value = state_get_u8(c->r);
}

static void code_u16(struct coder *c, uint16_t *value)
{
    if (c->w)
        state_put_u16(c->w, *value);
    else
        *value = state_get_u16(c->r);
}

static void code_u32(struct coder *c, uint32_t *value)
{
    if (c->w)
        state_put_u32(c->w, *value);
    else
        *value = state_get_u32(c->r);
}

static void code_u64(struct coder *c, uint64_t *value)
{
    if (c->w)
        state_put_u64(c->w, *value);
    else
        *value = state_get_u64(c->r);
}

static void code_text(struct coder *c, char *text, size_t size)
{
    if (c->w)
        state_put_string(c->w, text);
    else
        state_get_string(c->r, text, size);
}

/* ---- the records ---- */

static void code_exec(struct coder *c, struct keeper_exec *m)
{
    code_u32(c, &m->flags);
    code_u16(c, &m->rows);
    code_u16(c, &m->cols);
    code_u64(c, &m->timeout_ms);
    code_u32(c, &m->pids_max);
    code_u32(c, &m->argc);
    code_u32(c, &m->envc);
    code_u32(c, &m->argv_bytes);
    code_u32(c, &m->env_bytes);
    code_text(c, m->user, sizeof(m->user));
    code_text(c, m->cwd, sizeof(m->cwd));
}

/* Counts and sizes that can be true: one NUL at least for each string. */
static bool exec_is_sane(const struct keeper_exec *m)
{
    return !(m->flags & ~KEEPER_EXEC_FLAGS_KNOWN) && m->argc >= 1 &&
           m->argc <= PROTO_ARGV_MAX && m->envc <= PROTO_ENV_MAX &&
           m->argv_bytes >= m->argc && m->env_bytes >= m->envc &&
           m->argv_bytes <= PROTO_ARGV_BYTES_MAX &&
           m->env_bytes <= PROTO_ENV_BYTES_MAX &&
           (m->envc > 0 || m->env_bytes == 0);
}

static void code_numbers(struct coder *c, struct keeper_numbers *m)
{
    code_u32(c, &m->a);
    code_u32(c, &m->b);
}

static bool numbers_are_sane(enum keeper_message type,
                             const struct keeper_numbers *m)
{
    switch (type) {
    case KEEPER_SIGNAL:
        return m->a >= 1 && m->a <= 64 && m->b == 0;
    case KEEPER_WINSIZE:
        return m->a <= UINT16_MAX && m->b <= UINT16_MAX;
    case KEEPER_CREDIT:
        return (m->a == PROTO_STDOUT || m->a == PROTO_STDERR) && m->b >= 1 &&
               m->b <= KEEPER_WINDOW;
    case KEEPER_STDIN_CREDIT:
        return m->a >= 1 && m->a <= KEEPER_WINDOW && m->b == 0;
    case KEEPER_NOT_STARTED:
        return m->a >= 1 && m->a <= PROTO_FAIL_LAST && m->b <= PROTO_ERRNO_MAX;
    default: /* STOP */
        return m->b == 0;
    }
}

static void code_file(struct coder *c, struct keeper_file *m)
{
    code_u32(c, &m->mode);
    code_u64(c, &m->limit);
    code_text(c, m->user, sizeof(m->user));
    code_text(c, m->path, sizeof(m->path));
}

static bool file_is_sane(enum keeper_message type, const struct keeper_file *m)
{
    return m->path[0] != '\0' &&
           (type == KEEPER_PUT ? m->mode <= 07777 && m->limit == 0
                               : m->mode == 0);
}

static void code_exited(struct coder *c, struct keeper_exited *m)
{
    struct proto_exec_exit *s = &m->status;
    uint8_t disk_refused = m->disk_refused, late = m->late;

    code_u32(c, &s->flags);
    code_u32(c, &s->code);
    code_u32(c, &s->signal);
    code_u32(c, &s->oom_kills);
    code_u32(c, &s->pids_hits);
    code_u64(c, &s->wall_ms);
    code_u64(c, &s->cpu_us);
    code_u64(c, &s->user_us);
    code_u64(c, &s->system_us);
    code_u64(c, &s->memory_peak);
    code_u64(c, &s->stdin_bytes);
    code_u64(c, &s->stdout_bytes);
    code_u64(c, &s->stderr_bytes);
    code_u64(c, &m->dropped[0]);
    code_u64(c, &m->dropped[1]);
    code_u8(c, &disk_refused);
    code_u8(c, &late);
    if (c->r && (disk_refused > 1 || late > 1))
        c->r->error = -EBADMSG;
    m->disk_refused = disk_refused == 1;
    m->late = late == 1;
}

static bool exited_is_sane(const struct keeper_exited *m)
{
    const struct proto_exec_exit *s = &m->status;

    return !(s->flags & ~PROTO_EXIT_FLAGS_KNOWN) && s->code <= 255 &&
           s->signal <= 64 && (s->signal == 0 || s->code == 0);
}

static void code_file_done(struct coder *c, struct keeper_file_done *m)
{
    code_u32(c, &m->err);
    code_u32(c, &m->local_err);
    code_u32(c, &m->mode);
    code_u64(c, &m->bytes);
}

static void code_status(struct coder *c, struct keeper_status *m)
{
    uint32_t state = (uint32_t)m->state;

    code_u32(c, &state);
    code_u32(c, &m->execs);
    code_u64(c, &m->ttl_left_ms);
    m->state = (enum keeper_state)state;
}

static void code_failure(struct coder *c, struct failure *m)
{
    code_text(c, m->code, sizeof(m->code));
    code_text(c, m->object, sizeof(m->object));
    code_text(c, m->message, sizeof(m->message));
    code_text(c, m->remedy, sizeof(m->remedy));
}

static void code_ended(struct coder *c, struct keeper_ended *m)
{
    uint32_t kind = (uint32_t)m->kind;
    uint8_t by_host = m->by_host;

    code_u32(c, &kind);
    code_u8(c, &by_host);
    code_text(c, m->cause, sizeof(m->cause));
    code_failure(c, &m->failure);
    if (c->r && by_host > 1)
        c->r->error = -EBADMSG;
    m->kind = (enum outcome_kind)kind;
    m->by_host = by_host == 1;
}

static void code_snapshot(struct coder *c, struct keeper_snapshot *m)
{
    code_u32(c, &m->flags);
    code_text(c, m->dir, sizeof(m->dir));
}

static bool snapshot_is_sane(const struct keeper_snapshot *m)
{
    return !(m->flags & ~KEEPER_SNAPSHOT_FLAGS_KNOWN) && m->dir[0] == '/';
}

static void code_snapshot_done(struct coder *c, struct keeper_snapshot_done *m)
{
    code_u64(c, &m->pages);
    code_u64(c, &m->clusters);
    code_u64(c, &m->paused_ms);
    code_text(c, m->id, sizeof(m->id));
}

/* ---- all messages ---- */

/* A message of fields; false for a type that is none. */
static bool code_fields(struct coder *c, uint32_t type, union keeper_body *b)
{
    switch (type) {
    case KEEPER_EXEC:
        code_exec(c, &b->exec);
        return true;
    case KEEPER_SIGNAL:
    case KEEPER_WINSIZE:
    case KEEPER_CREDIT:
    case KEEPER_STOP:
    case KEEPER_NOT_STARTED:
    case KEEPER_STDIN_CREDIT:
        code_numbers(c, &b->numbers);
        return true;
    case KEEPER_PUT:
    case KEEPER_GET:
        code_file(c, &b->file);
        return true;
    case KEEPER_EXITED:
        code_exited(c, &b->exited);
        return true;
    case KEEPER_FILE_DONE:
        code_file_done(c, &b->file_done);
        return true;
    case KEEPER_STATUS_REPLY:
        code_status(c, &b->status);
        return true;
    case KEEPER_REFUSED:
        code_failure(c, &b->refused);
        return true;
    case KEEPER_ENDED:
        code_ended(c, &b->ended);
        return true;
    case KEEPER_SNAPSHOT:
        code_snapshot(c, &b->snapshot);
        return true;
    case KEEPER_SNAPSHOT_DONE:
        code_snapshot_done(c, &b->snapshot_done);
        return true;
    case KEEPER_STDIN_END:
    case KEEPER_STATUS:
    case KEEPER_KILL:
    case KEEPER_STARTED:
        return true;
    default:
        return false;
    }
}

static bool is_sane(uint32_t type, const union keeper_body *b)
{
    switch (type) {
    case KEEPER_EXEC:
        return exec_is_sane(&b->exec);
    case KEEPER_SIGNAL:
    case KEEPER_WINSIZE:
    case KEEPER_CREDIT:
    case KEEPER_STOP:
    case KEEPER_NOT_STARTED:
    case KEEPER_STDIN_CREDIT:
        return numbers_are_sane(type, &b->numbers);
    case KEEPER_PUT:
    case KEEPER_GET:
        return file_is_sane(type, &b->file);
    case KEEPER_SNAPSHOT:
        return snapshot_is_sane(&b->snapshot);
    case KEEPER_EXITED:
        return exited_is_sane(&b->exited);
    case KEEPER_FILE_DONE:
        return b->file_done.err <= PROTO_ERRNO_MAX &&
               b->file_done.local_err <= PROTO_ERRNO_MAX;
    case KEEPER_STATUS_REPLY:
        return b->status.state >= KEEPER_IS_STARTING &&
               b->status.state <= KEEPER_STATE_LAST;
    case KEEPER_REFUSED:
        return b->refused.code[0] != '\0';
    case KEEPER_ENDED:
        return b->ended.kind <= OUTCOME_LAST;
    default:
        return true;
    }
}

/* Messages of bytes: their stream's field is the only one. */
static bool is_data(uint32_t type)
{
    return type == KEEPER_STRINGS || type == KEEPER_STDIN ||
           type == KEEPER_OUTPUT;
}

static bool data_is_sane(uint32_t type, const struct keeper_bytes *d)
{
    if (type == KEEPER_OUTPUT)
        return (d->stream == PROTO_STDOUT || d->stream == PROTO_STDERR) &&
               d->len >= 1 && d->len <= KEEPER_OUTPUT_MAX;
    return d->stream == 0 && d->len >= 1 && d->len <= KEEPER_DATA_MAX;
}

int keeper_encode(enum keeper_message type, const union keeper_body *body,
                  uint8_t buf[MSG_PAYLOAD_MAX], size_t *ret_len)
{
    union keeper_body copy = {0};
    struct state_writer w;
    struct coder c = {.w = &w};

    state_writer_init(&w, buf, MSG_PAYLOAD_MAX);
    if (body)
        copy = *body;
    if (is_data(type)) {
        if (!data_is_sane(type, &copy.data))
            return -EINVAL;
        if (type == KEEPER_OUTPUT)
            state_put_u32(&w, copy.data.stream);
        state_put_bytes(&w, copy.data.bytes, copy.data.len);
    } else if (!is_sane(type, &copy) || !code_fields(&c, type, &copy)) {
        return -EINVAL;
    }
    if (w.error != 0)
        return -EINVAL;
    *ret_len = w.used;
    return 0;
}

int keeper_decode(uint32_t type, const uint8_t *payload, size_t len,
                  union keeper_body *ret_body)
{
    struct state_reader r;
    struct coder c = {.r = &r};

    memset(ret_body, 0, sizeof(*ret_body));
    state_reader_init(&r, payload, len);
    if (is_data(type)) {
        if (type == KEEPER_OUTPUT)
            ret_body->data.stream = state_get_u32(&r);
        if (r.error != 0)
            return -EBADMSG;
        ret_body->data.bytes = payload + r.used;
        ret_body->data.len = len - r.used;
        return data_is_sane(type, &ret_body->data) ? 0 : -EBADMSG;
    }
    if (!code_fields(&c, type, ret_body) || state_reader_finish(&r) != 0 ||
        !is_sane(type, ret_body))
        return -EBADMSG;
    return 0;
}

int keeper_send(int sock, enum keeper_message type,
                const union keeper_body *body)
{
    uint8_t buf[MSG_PAYLOAD_MAX];
    size_t len = 0;
    int ret = keeper_encode(type, body, buf, &len);

    return ret ? ret : msg_send(sock, type, buf, len, NULL, 0);
}
