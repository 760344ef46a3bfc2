/* SPDX-License-Identifier: Apache-2.0 */
/* Exact reads and writes over zlib; see the header. */
#include "trial/snapshot_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/num.h"

/* zlib counts in unsigned int. */
#define PIECE_MAX ((size_t)1 << 30)

static int begin(struct snapshot_stream *s, int fd)
{
    memset(s, 0, sizeof(*s));
    s->fd = fd;
    s->buf = malloc(STREAM_BUFFER);
    return s->buf ? 0 : -ENOMEM;
}

void stream_end(struct snapshot_stream *s)
{
    if (s->begun == 'w')
        (void)deflateEnd(&s->z);
    if (s->begun == 'r')
        (void)inflateEnd(&s->z);
    free(s->buf);
    memset(s, 0, sizeof(*s));
}

/* ---- writing ------------------------------------------------------------ */

int stream_begin_write(struct snapshot_stream *s, int fd)
{
    int ret = begin(s, fd);

    if (ret == 0 && deflateInit(&s->z, Z_BEST_SPEED) != Z_OK)
        ret = -ENOMEM;
    if (ret == 0)
        s->begun = 'w';
    return ret;
}

/* Compresses what is pending and writes what that gives. */
static int deflate_all(struct snapshot_stream *s, int flush)
{
    int status;

    do {
        int ret;

        s->z.next_out = s->buf;
        s->z.avail_out = STREAM_BUFFER;
        status = deflate(&s->z, flush);
        if (status == Z_STREAM_ERROR)
            return -EINVAL;
        ret = io_write_full(s->fd, s->buf, STREAM_BUFFER - s->z.avail_out);
        if (ret != 0)
            return ret;
    } while (s->z.avail_out == 0 ||
             (flush == Z_FINISH && status != Z_STREAM_END));
    return 0;
}

int stream_write(struct snapshot_stream *s, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    while (len > 0) {
        size_t piece = (size_t)num_min(len, PIECE_MAX);
        int ret;

        s->z.next_in = (z_const Bytef *)(uintptr_t)at;
        s->z.avail_in = (uInt)piece;
        ret = deflate_all(s, Z_NO_FLUSH);
        if (ret != 0)
            return ret;
        at += piece;
        len -= piece;
    }
    return 0;
}

int stream_finish_write(struct snapshot_stream *s)
{
    s->z.avail_in = 0;
    return deflate_all(s, Z_FINISH);
}

/* ---- reading ------------------------------------------------------------ */

int stream_begin_read(struct snapshot_stream *s, int fd)
{
    int ret = begin(s, fd);

    if (ret == 0 && inflateInit(&s->z) != Z_OK)
        ret = -ENOMEM;
    if (ret == 0)
        s->begun = 'r';
    return ret;
}

/* One step: takes input if there is none. */
static int inflate_some(struct snapshot_stream *s)
{
    int status;

    if (s->z.avail_in == 0) {
        ssize_t n = io_read_full(s->fd, s->buf, STREAM_BUFFER);

        if (n < 0)
            return (int)n;
        if (n == 0)
            return -EBADMSG; /* the file ends within the stream */
        s->z.next_in = s->buf;
        s->z.avail_in = (uInt)n;
    }
    status = inflate(&s->z, Z_NO_FLUSH);
    if (status == Z_STREAM_END)
        s->ended = 1;
    else if (status == Z_MEM_ERROR)
        return -ENOMEM;
    else if (status != Z_OK && status != Z_BUF_ERROR)
        return -EBADMSG;
    return 0;
}

int stream_read(struct snapshot_stream *s, void *bytes, size_t len)
{
    uint8_t *at = bytes;

    while (len > 0) {
        size_t piece = (size_t)num_min(len, PIECE_MAX);

        s->z.next_out = at;
        s->z.avail_out = (uInt)piece;
        while (s->z.avail_out > 0) {
            int ret = s->ended ? -EBADMSG : inflate_some(s);

            if (ret != 0)
                return ret;
        }
        at += piece;
        len -= piece;
    }
    return 0;
}

int stream_finish_read(struct snapshot_stream *s)
{
    uint8_t byte;
    ssize_t n;

    /* The end's checksum may not have been read yet. */
    while (!s->ended) {
        int ret;

        s->z.next_out = &byte;
        s->z.avail_out = 1;
        ret = inflate_some(s);
        if (ret != 0)
            return ret;
        if (s->z.avail_out == 0)
            return -EBADMSG;
    }
    if (s->z.avail_in > 0)
        return -EBADMSG;
    n = io_read_full(s->fd, &byte, 1);
    return n == 0 ? 0 : n < 0 ? (int)n : -EBADMSG;
}
