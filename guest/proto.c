/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoding and decoding of the agent protocol; see the header. Linked into
 * both sides, knows neither. Holds no state and allocates nothing. The
 * messages around a freeze are in proto_snapshot.c.
 */
#include "guest/proto.h"

#include <errno.h>
#include <string.h>

#include "guest/proto_bytes.h"

/* Who may send a type, with what length, and whether it names a handle. */
struct type_rule {
    uint16_t type;
    uint8_t senders; /* bits of enum proto_sender */
    bool has_id;
    uint32_t min_length, max_length;
};

/* Sizes of payloads that have one. */
#define HELLO_FIXED 26u /* then the release's text */
#define EXEC_OPEN_FIXED 48u
#define EXEC_EXIT_SIZE 84u
#define FILE_OPEN_FIXED 20u
#define FILE_DONE_SIZE 32u
#define EITHER (PROTO_FROM_HOST | PROTO_FROM_GUEST)

static const struct type_rule type_rules[] = {
    {PROTO_EXEC_OPEN, PROTO_FROM_HOST, true, EXEC_OPEN_FIXED,
     EXEC_OPEN_FIXED + PROTO_USER_MAX + PROTO_PATH_MAX - 2},
    {PROTO_EXEC_STRINGS, PROTO_FROM_HOST, true, 1, PROTO_PAYLOAD_MAX},
    {PROTO_EXEC_SIGNAL, PROTO_FROM_HOST, true, 4, 4},
    {PROTO_EXEC_WINSIZE, PROTO_FROM_HOST, true, 4, 4},
    {PROTO_FILE_WRITE, PROTO_FROM_HOST, true, FILE_OPEN_FIXED,
     FILE_OPEN_FIXED + PROTO_USER_MAX + PROTO_PATH_MAX - 2},
    {PROTO_FILE_READ, PROTO_FROM_HOST, true, FILE_OPEN_FIXED,
     FILE_OPEN_FIXED + PROTO_USER_MAX + PROTO_PATH_MAX - 2},
    {PROTO_FILE_STAT, PROTO_FROM_HOST, true, FILE_OPEN_FIXED,
     FILE_OPEN_FIXED + PROTO_USER_MAX + PROTO_PATH_MAX - 2},
    {PROTO_FILE_MKDIR, PROTO_FROM_HOST, true, FILE_OPEN_FIXED,
     FILE_OPEN_FIXED + PROTO_USER_MAX + PROTO_PATH_MAX - 2},
    {PROTO_CANCEL, PROTO_FROM_HOST, true, 0, 0},
    {PROTO_SHUTDOWN, PROTO_FROM_HOST, false, 0, 0},
    {PROTO_EOF, PROTO_FROM_HOST, true, 4, 4},
    {PROTO_QUIESCE, PROTO_FROM_HOST, false, 4, 4},
    {PROTO_RESTORE, PROTO_FROM_HOST, false, PROTO_RESTORE_FIXED,
     PROTO_RESTORE_FIXED + PROTO_HOSTNAME_MAX - 1},
    {PROTO_ATTACH, PROTO_FROM_HOST, true, PROTO_ATTACH_SIZE, PROTO_ATTACH_SIZE},
    {PROTO_DATA, EITHER, true, 5, PROTO_PAYLOAD_MAX},
    {PROTO_CREDIT, EITHER, true, 8, 8},
    {PROTO_HELLO, PROTO_FROM_GUEST, false, HELLO_FIXED,
     HELLO_FIXED + PROTO_RELEASE_MAX - 1},
    {PROTO_EXEC_STARTED, PROTO_FROM_GUEST, true, 0, 0},
    {PROTO_EXEC_FAILED, PROTO_FROM_GUEST, true, 8, 8},
    {PROTO_EXEC_EXIT, PROTO_FROM_GUEST, true, EXEC_EXIT_SIZE, EXEC_EXIT_SIZE},
    {PROTO_FILE_DONE, PROTO_FROM_GUEST, true, FILE_DONE_SIZE, FILE_DONE_SIZE},
    {PROTO_QUIESCED, PROTO_FROM_GUEST, false, PROTO_QUIESCED_SIZE,
     PROTO_QUIESCED_SIZE},
    {PROTO_RESTORED, PROTO_FROM_GUEST, false, PROTO_RESTORED_FIXED,
     PROTO_RESTORED_FIXED + PROTO_BOOT_ID_MAX - 1},
};

/* ---- encoding ----------------------------------------------------------- */

void proto_writer_init(struct proto_writer *w, void *buf, size_t size)
{
    w->buf = buf;
    w->size = size;
    w->used = 0;
    w->overflow = false;
}

void proto_put_empty(struct proto_writer *w, uint16_t type, uint32_t id)
{
    proto_put_frame(w, type, id, 0);
}

void proto_put_u32(struct proto_writer *w, uint16_t type, uint32_t id,
                   uint32_t value)
{
    uint8_t *p = proto_put_frame(w, type, id, 4);

    if (p)
        proto_put32(p, value);
}

void proto_put_winsize(struct proto_writer *w, uint32_t id, uint16_t rows,
                       uint16_t cols)
{
    uint8_t *p = proto_put_frame(w, PROTO_EXEC_WINSIZE, id, 4);

    if (!p)
        return;
    proto_put16(p, rows);
    proto_put16(p + 2, cols);
}

void proto_put_credit(struct proto_writer *w, uint32_t id, uint32_t stream,
                      uint32_t bytes)
{
    uint8_t *p = proto_put_frame(w, PROTO_CREDIT, id, 8);

    if (!p)
        return;
    proto_put32(p, stream);
    proto_put32(p + 4, bytes);
}

void proto_put_data(struct proto_writer *w, uint32_t id, uint32_t stream,
                    const void *bytes, size_t len)
{
    uint8_t *p = proto_put_frame(w, PROTO_DATA, id, 4 + len);

    if (!p)
        return;
    proto_put32(p, stream);
    memcpy(p + 4, bytes, len);
}

void proto_put_strings(struct proto_writer *w, uint32_t id, const void *bytes,
                       size_t len)
{
    uint8_t *p = proto_put_frame(w, PROTO_EXEC_STRINGS, id, len);

    if (p)
        memcpy(p, bytes, len);
}

void proto_put_hello(struct proto_writer *w, const struct proto_hello *m)
{
    size_t len = strnlen(m->release, sizeof(m->release) - 1);
    uint8_t *p = proto_put_frame(w, PROTO_HELLO, 0, HELLO_FIXED + len);

    if (!p)
        return;
    proto_put32(p, PROTO_MAGIC);
    proto_put16(p + 4, m->version);
    proto_put32(p + 6, m->features);
    proto_put64(p + 10, m->boot_ms);
    proto_put64(p + 18, m->memory_total);
    memcpy(p + HELLO_FIXED, m->release, len);
}

void proto_put_exec_open(struct proto_writer *w, uint32_t id,
                         const struct proto_exec_open *m)
{
    size_t user = strnlen(m->user, sizeof(m->user) - 1);
    size_t cwd = strnlen(m->cwd, sizeof(m->cwd) - 1);
    uint8_t *p =
        proto_put_frame(w, PROTO_EXEC_OPEN, id, EXEC_OPEN_FIXED + user + cwd);

    if (!p)
        return;
    proto_put32(p, m->flags);
    proto_put16(p + 4, m->rows);
    proto_put16(p + 6, m->cols);
    proto_put64(p + 8, m->timeout_ms);
    proto_put64(p + 16, m->memory_max);
    proto_put32(p + 24, m->pids_max);
    proto_put32(p + 28, m->argc);
    proto_put32(p + 32, m->envc);
    proto_put32(p + 36, m->argv_bytes);
    proto_put32(p + 40, m->env_bytes);
    proto_put32(p + 44, (uint32_t)user); /* cwd: what is left of the frame */
    memcpy(p + EXEC_OPEN_FIXED, m->user, user);
    memcpy(p + EXEC_OPEN_FIXED + user, m->cwd, cwd);
}

void proto_put_exec_failed(struct proto_writer *w, uint32_t id,
                           const struct proto_exec_failed *m)
{
    uint8_t *p = proto_put_frame(w, PROTO_EXEC_FAILED, id, 8);

    if (!p)
        return;
    proto_put32(p, m->reason);
    proto_put32(p + 4, m->err);
}

void proto_put_exec_exit(struct proto_writer *w, uint32_t id,
                         const struct proto_exec_exit *m)
{
    uint8_t *p = proto_put_frame(w, PROTO_EXEC_EXIT, id, EXEC_EXIT_SIZE);

    if (!p)
        return;
    proto_put32(p, m->flags);
    proto_put32(p + 4, m->code);
    proto_put32(p + 8, m->signal);
    proto_put32(p + 12, m->oom_kills);
    proto_put32(p + 16, m->pids_hits);
    proto_put64(p + 20, m->wall_ms);
    proto_put64(p + 28, m->cpu_us);
    proto_put64(p + 36, m->user_us);
    proto_put64(p + 44, m->system_us);
    proto_put64(p + 52, m->memory_peak);
    proto_put64(p + 60, m->stdin_bytes);
    proto_put64(p + 68, m->stdout_bytes);
    proto_put64(p + 76, m->stderr_bytes);
}

void proto_put_file_open(struct proto_writer *w, uint16_t type, uint32_t id,
                         const struct proto_file_open *m)
{
    size_t user = strnlen(m->user, sizeof(m->user) - 1);
    size_t path = strnlen(m->path, sizeof(m->path) - 1);
    uint8_t *p = proto_put_frame(w, type, id, FILE_OPEN_FIXED + user + path);

    if (!p)
        return;
    proto_put32(p, m->flags);
    proto_put32(p + 4, m->mode);
    proto_put64(p + 8, m->limit);
    proto_put32(p + 16, (uint32_t)user);
    memcpy(p + FILE_OPEN_FIXED, m->user, user);
    memcpy(p + FILE_OPEN_FIXED + user, m->path, path);
}

void proto_put_file_done(struct proto_writer *w, uint32_t id,
                         const struct proto_file_done *m)
{
    uint8_t *p = proto_put_frame(w, PROTO_FILE_DONE, id, FILE_DONE_SIZE);

    if (!p)
        return;
    proto_put32(p, m->err);
    proto_put32(p + 4, m->mode);
    proto_put64(p + 8, m->bytes);
    proto_put32(p + 16, m->uid);
    proto_put32(p + 20, m->gid);
    proto_put64(p + 24, (uint64_t)m->mtime_s);
}

/* ---- decoding ----------------------------------------------------------- */

static const struct type_rule *find_rule(uint16_t type)
{
    size_t count = sizeof(type_rules) / sizeof(type_rules[0]);

    for (size_t i = 0; i < count; i++) {
        if (type_rules[i].type == type)
            return &type_rules[i];
    }
    return NULL;
}

int proto_get_header(const uint8_t bytes[PROTO_HEADER_SIZE],
                     enum proto_sender sender, struct proto_header *ret_header)
{
    uint32_t length = proto_get32(bytes);
    uint32_t id = proto_get32(bytes + 8);
    const struct type_rule *rule = find_rule(proto_get16(bytes + 4));

    if (!rule || !(rule->senders & sender) || proto_get16(bytes + 6) != 0)
        return -EBADMSG;
    if (length < rule->min_length || length > rule->max_length)
        return -EBADMSG;
    if ((id != 0) != rule->has_id)
        return -EBADMSG;
    ret_header->length = length;
    ret_header->type = rule->type;
    ret_header->id = id;
    return 0;
}

int proto_get_u32(const void *payload, size_t len, uint32_t *ret_value)
{
    if (len != 4)
        return -EBADMSG;
    *ret_value = proto_get32(payload);
    return 0;
}

int proto_get_winsize(const void *payload, size_t len, uint16_t *ret_rows,
                      uint16_t *ret_cols)
{
    const uint8_t *p = payload;

    if (len != 4)
        return -EBADMSG;
    *ret_rows = proto_get16(p);
    *ret_cols = proto_get16(p + 2);
    return 0;
}

int proto_get_credit(const void *payload, size_t len, uint32_t *ret_stream,
                     uint32_t *ret_bytes)
{
    const uint8_t *p = payload;
    uint32_t bytes;

    if (len != 8 || proto_get32(p) >= PROTO_STREAMS)
        return -EBADMSG;
    bytes = proto_get32(p + 4);
    if (bytes == 0 || bytes > PROTO_WINDOW)
        return -EBADMSG;
    *ret_stream = proto_get32(p);
    *ret_bytes = bytes;
    return 0;
}

int proto_get_data(const void *payload, size_t len, uint32_t *ret_stream,
                   const uint8_t **ret_bytes, size_t *ret_len)
{
    const uint8_t *p = payload;

    if (len < 5 || len > PROTO_PAYLOAD_MAX || proto_get32(p) >= PROTO_STREAMS)
        return -EBADMSG;
    *ret_stream = proto_get32(p);
    *ret_bytes = p + 4;
    *ret_len = len - 4;
    return 0;
}

int proto_get_hello(const void *payload, size_t len, struct proto_hello *ret_m)
{
    const uint8_t *p = payload;
    struct proto_hello m = {0};

    if (len < HELLO_FIXED || proto_get32(p) != PROTO_MAGIC)
        return -EBADMSG;
    m.version = proto_get16(p + 4);
    m.features = proto_get32(p + 6);
    m.boot_ms = proto_get64(p + 10);
    m.memory_total = proto_get64(p + 18);
    if (proto_copy_text(p + HELLO_FIXED, p + len, len - HELLO_FIXED, m.release,
                        sizeof(m.release)))
        return -EBADMSG;
    *ret_m = m;
    return 0;
}

/* Counts and sizes that can be true: one NUL at least for each string. */
static bool exec_open_is_sane(const struct proto_exec_open *m)
{
    return !(m->flags & ~PROTO_EXEC_FLAGS_KNOWN) && m->argc >= 1 &&
           m->argc <= PROTO_ARGV_MAX && m->envc <= PROTO_ENV_MAX &&
           m->argv_bytes >= m->argc && m->env_bytes >= m->envc &&
           m->argv_bytes <= PROTO_ARGV_BYTES_MAX &&
           m->env_bytes <= PROTO_ENV_BYTES_MAX &&
           (m->envc > 0 || m->env_bytes == 0) &&
           (!(m->flags & PROTO_EXEC_WARM) ||
            (m->flags & (PROTO_EXEC_STDIN | PROTO_EXEC_TTY)) ==
                PROTO_EXEC_STDIN);
}

int proto_get_exec_open(const void *payload, size_t len,
                        struct proto_exec_open *ret_m)
{
    const uint8_t *p = payload;
    const uint8_t *end = p + len;
    size_t user, cwd;

    if (len < EXEC_OPEN_FIXED)
        return -EBADMSG;
    ret_m->flags = proto_get32(p);
    ret_m->rows = proto_get16(p + 4);
    ret_m->cols = proto_get16(p + 6);
    ret_m->timeout_ms = proto_get64(p + 8);
    ret_m->memory_max = proto_get64(p + 16);
    ret_m->pids_max = proto_get32(p + 24);
    ret_m->argc = proto_get32(p + 28);
    ret_m->envc = proto_get32(p + 32);
    ret_m->argv_bytes = proto_get32(p + 36);
    ret_m->env_bytes = proto_get32(p + 40);
    user = proto_get32(p + 44);
    if (!exec_open_is_sane(ret_m) || user > len - EXEC_OPEN_FIXED)
        return -EBADMSG;
    cwd = len - EXEC_OPEN_FIXED - user;
    p += EXEC_OPEN_FIXED;
    if (proto_copy_text(p, end, user, ret_m->user, sizeof(ret_m->user)) ||
        proto_copy_text(p + user, end, cwd, ret_m->cwd, sizeof(ret_m->cwd)))
        return -EBADMSG;
    return 0;
}

int proto_get_exec_failed(const void *payload, size_t len,
                          struct proto_exec_failed *ret_m)
{
    const uint8_t *p = payload;
    struct proto_exec_failed m;

    if (len != 8)
        return -EBADMSG;
    m.reason = proto_get32(p);
    m.err = proto_get32(p + 4);
    if (m.reason < 1 || m.reason > PROTO_FAIL_LAST || m.err > PROTO_ERRNO_MAX)
        return -EBADMSG;
    *ret_m = m;
    return 0;
}

int proto_get_exec_exit(const void *payload, size_t len,
                        struct proto_exec_exit *ret_m)
{
    const uint8_t *p = payload;
    struct proto_exec_exit m;

    if (len != EXEC_EXIT_SIZE)
        return -EBADMSG;
    m.flags = proto_get32(p);
    m.code = proto_get32(p + 4);
    m.signal = proto_get32(p + 8);
    m.oom_kills = proto_get32(p + 12);
    m.pids_hits = proto_get32(p + 16);
    m.wall_ms = proto_get64(p + 20);
    m.cpu_us = proto_get64(p + 28);
    m.user_us = proto_get64(p + 36);
    m.system_us = proto_get64(p + 44);
    m.memory_peak = proto_get64(p + 52);
    m.stdin_bytes = proto_get64(p + 60);
    m.stdout_bytes = proto_get64(p + 68);
    m.stderr_bytes = proto_get64(p + 76);
    if ((m.flags & ~PROTO_EXIT_FLAGS_KNOWN) || m.code > 255 || m.signal > 64 ||
        (m.code != 0 && m.signal != 0))
        return -EBADMSG;
    *ret_m = m;
    return 0;
}

int proto_get_file_open(const void *payload, size_t len,
                        struct proto_file_open *ret_m)
{
    const uint8_t *p = payload;
    const uint8_t *end = p + len;
    size_t user, path;

    if (len < FILE_OPEN_FIXED)
        return -EBADMSG;
    ret_m->flags = proto_get32(p);
    ret_m->mode = proto_get32(p + 4);
    ret_m->limit = proto_get64(p + 8);
    user = proto_get32(p + 16);
    if ((ret_m->flags & ~PROTO_FILE_FLAGS_KNOWN) || ret_m->mode > 07777 ||
        user > len - FILE_OPEN_FIXED)
        return -EBADMSG;
    path = len - FILE_OPEN_FIXED - user;
    p += FILE_OPEN_FIXED;
    if (path == 0 ||
        proto_copy_text(p, end, user, ret_m->user, sizeof(ret_m->user)) ||
        proto_copy_text(p + user, end, path, ret_m->path, sizeof(ret_m->path)))
        return -EBADMSG;
    return 0;
}

int proto_get_file_done(const void *payload, size_t len,
                        struct proto_file_done *ret_m)
{
    const uint8_t *p = payload;
    struct proto_file_done m;

    if (len != FILE_DONE_SIZE)
        return -EBADMSG;
    m.err = proto_get32(p);
    m.mode = proto_get32(p + 4);
    m.bytes = proto_get64(p + 8);
    m.uid = proto_get32(p + 16);
    m.gid = proto_get32(p + 20);
    m.mtime_s = (int64_t)proto_get64(p + 24);
    if (m.err > PROTO_ERRNO_MAX)
        return -EBADMSG;
    *ret_m = m;
    return 0;
}

/* ---- stream to frames --------------------------------------------------- */

void proto_inbox_init(struct proto_inbox *inbox, enum proto_sender sender)
{
    inbox->sender = sender;
    inbox->head = 0;
    inbox->used = 0;
}

uint8_t *proto_inbox_space(struct proto_inbox *inbox, size_t *ret_len)
{
    /* Move only when it gains much: a large frame is moved once at most. */
    if (inbox->head == inbox->used) {
        inbox->head = 0;
        inbox->used = 0;
    } else if (sizeof(inbox->buf) - inbox->head < PROTO_FRAME_MAX) {
        memmove(inbox->buf, inbox->buf + inbox->head,
                inbox->used - inbox->head);
        inbox->used -= inbox->head;
        inbox->head = 0;
    }
    *ret_len = sizeof(inbox->buf) - inbox->used;
    return inbox->buf + inbox->used;
}

void proto_inbox_add(struct proto_inbox *inbox, size_t len)
{
    inbox->used += len;
}

int proto_inbox_next(struct proto_inbox *inbox, struct proto_header *ret_header,
                     const uint8_t **ret_payload)
{
    const uint8_t *frame = inbox->buf + inbox->head;
    size_t unread = inbox->used - inbox->head;
    struct proto_header header;

    if (unread < PROTO_HEADER_SIZE)
        return 0;
    if (proto_get_header(frame, inbox->sender, &header))
        return -EBADMSG;
    if (unread - PROTO_HEADER_SIZE < header.length)
        return 0;
    inbox->head += PROTO_HEADER_SIZE + header.length;
    *ret_header = header;
    *ret_payload = frame + PROTO_HEADER_SIZE;
    return 1;
}
