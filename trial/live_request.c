/* SPDX-License-Identifier: Apache-2.0 */
/* An exec as messages to a keeper; see live.h and keeper_proto.h. */
#include <errno.h>
#include <string.h>

#include "trial/live.h"

struct strings {
    const char *const *list; /* NULL-ended, or NULL */
    uint32_t count, bytes;
};

/* Bytes on their way into full messages. */
struct packer {
    struct live *live;
    size_t len;
    uint8_t bytes[KEEPER_DATA_MAX];
};

static int measure(const char *const *list, size_t max_count, size_t max_bytes,
                   struct strings *ret)
{
    size_t count = 0, bytes = 0;

    for (; list && list[count]; count++) {
        size_t len = strlen(list[count]) + 1;

        if (count == max_count || len > max_bytes - bytes)
            return -E2BIG;
        bytes += len;
    }
    *ret = (struct strings){list, (uint32_t)count, (uint32_t)bytes};
    return 0;
}

static int pack_flush(struct packer *p)
{
    union keeper_body body = {.data = {.bytes = p->bytes, .len = p->len}};

    if (p->len == 0)
        return 0;
    p->len = 0;
    return live_send(p->live, KEEPER_STRINGS, &body, -1);
}

static int pack(struct packer *p, const struct strings *s)
{
    int ret = 0;

    for (uint32_t i = 0; ret == 0 && i < s->count; i++) {
        const char *at = s->list[i];
        size_t len = strlen(at) + 1;

        while (ret == 0 && len > 0) {
            size_t part = sizeof(p->bytes) - p->len;

            if (part > len)
                part = len;
            memcpy(p->bytes + p->len, at, part);
            p->len += part;
            at += part;
            len -= part;
            if (p->len == sizeof(p->bytes))
                ret = pack_flush(p);
        }
    }
    return ret;
}

static int send_exec(struct live *live, const struct trial_spec *s,
                     const struct strings *argv, const struct strings *env)
{
    union keeper_body body = {.exec = {.rows = s->tty_rows,
                                       .cols = s->tty_columns,
                                       .timeout_ms = s->timeout_ms,
                                       .pids_max = s->pids_limit,
                                       .argc = argv->count,
                                       .envc = env->count,
                                       .argv_bytes = argv->bytes,
                                       .env_bytes = env->bytes}};
    struct keeper_exec *m = &body.exec;

    m->flags = (s->tty ? KEEPER_EXEC_TTY : 0) |
               (s->stdin_fd >= 0 ? KEEPER_EXEC_STDIN : 0);
    if ((s->user && strlen(s->user) >= sizeof(m->user)) ||
        (s->workdir && strlen(s->workdir) >= sizeof(m->cwd)))
        return -ENAMETOOLONG;
    strcpy(m->user, s->user ? s->user : "");
    strcpy(m->cwd, s->workdir ? s->workdir : "");
    return live_send(live, KEEPER_EXEC, &body, -1);
}

int live_request_exec(struct live *live, const struct trial_spec *spec)
{
    struct packer packer = {.live = live};
    struct strings argv = {0}, env = {0};
    int ret = measure(spec->argv, PROTO_ARGV_MAX, PROTO_ARGV_BYTES_MAX, &argv);

    if (ret == 0)
        ret = measure(spec->env, PROTO_ENV_MAX, PROTO_ENV_BYTES_MAX, &env);
    if (ret == 0)
        ret = send_exec(live, spec, &argv, &env);
    if (ret == 0)
        ret = pack(&packer, &argv);
    if (ret == 0)
        ret = pack(&packer, &env);
    return ret ? ret : pack_flush(&packer);
}
