/* SPDX-License-Identifier: Apache-2.0 */
/* The answer of the machine that compares disks; see snapshot_files.h. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "trial/snapshot_files.h"

/* One line with its CR and newline. */
#define BUF_SIZE (PROTO_COMPARE_LINE_MAX + 2u)

struct lines {
    int fd;
    uint64_t offset; /* of what is to be read next */
    size_t head, used;
    char buf[BUF_SIZE];
};

/* Reads on: 1; 0 at the end of the file; -EBADMSG if a line is too long. */
static int read_more(struct lines *l)
{
    ssize_t n;

    memmove(l->buf, l->buf + l->head, l->used - l->head);
    l->used -= l->head;
    l->head = 0;
    if (l->used == BUF_SIZE)
        return -EBADMSG;
    n = io_pread_full(l->fd, l->buf + l->used, BUF_SIZE - l->used, l->offset);
    if (n <= 0)
        return (int)n;
    l->used += (size_t)n;
    l->offset += (uint64_t)n;
    return 1;
}

/* 1 and the line without its end; 0 if there is none more; or -errno. */
static int next_line(struct lines *l, const char **ret_line, size_t *ret_len)
{
    char *end;
    int ret;

    while (!(end = memchr(l->buf + l->head, '\n', l->used - l->head))) {
        ret = read_more(l);
        if (ret != 1)
            return ret;
    }
    *ret_line = l->buf + l->head;
    *ret_len = (size_t)(end - *ret_line);
    l->head += *ret_len + 1;
    /* The guest's terminal ends lines so. */
    if (*ret_len > 0 && end[-1] == '\r')
        (*ret_len)--;
    return 1;
}

/* The kernel talks until the answer begins. */
static int skip_to_begin(struct lines *l, struct proto_compare *m)
{
    const char *line;
    size_t len;
    int ret;

    while ((ret = next_line(l, &line, &len)) == 1) {
        if (proto_compare_parse(line, len, m) == 0 &&
            m->kind == PROTO_COMPARE_BEGIN)
            return 0;
    }
    return ret < 0 ? ret : -EBADMSG;
}

int snapshot_files_read(int fd,
                        void (*report)(void *ctx,
                                       const struct proto_compare *entry),
                        void *ctx, uint32_t *ret_count)
{
    struct lines *l = malloc(sizeof(*l));
    struct proto_compare *m = malloc(sizeof(*m));
    uint32_t count = 0;
    const char *line;
    size_t len;
    int ret = -ENOMEM;

    if (!l || !m)
        goto out_free;
    l->fd = fd;
    l->offset = l->head = l->used = 0;
    ret = skip_to_begin(l, m);
    while (ret == 0) {
        ret = next_line(l, &line, &len);
        if (ret >= 0)
            ret = ret == 1 ? proto_compare_parse(line, len, m) : -EBADMSG;
        if (ret != 0 || m->kind != PROTO_COMPARE_ENTRY)
            break;
        if (++count > PROTO_COMPARE_MAX)
            ret = -EBADMSG;
        else if (report)
            report(ctx, m);
    }
    if (ret == 0 && m->kind == PROTO_COMPARE_FAILED)
        ret = (int)m->err;
    else if (ret == 0 && (m->kind != PROTO_COMPARE_END || m->count != count))
        ret = -EBADMSG;
    if (ret == 0)
        *ret_count = count;
out_free:
    free(m);
    free(l);
    return ret;
}
