/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compressed stream of an archive, one way and back: exact counts of bytes
 * over zlib. Private to snapshot_export.c and snapshot_import.c.
 */
#ifndef MICROSBX_TRIAL_SNAPSHOT_STREAM_H
#define MICROSBX_TRIAL_SNAPSHOT_STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#define ARCHIVE_MAGIC "MSBXARC1"
#define ARCHIVE_VERSION 1u
#define ARCHIVE_HEADER_SIZE 12u /* magic, u32 version */

#define STREAM_BUFFER (64u * 1024u)

/* Both: begun once, ended once; a zeroed struct can be ended. */
struct snapshot_stream {
    z_stream z;
    int fd;       /* borrowed */
    int begun;    /* 0, 'w' or 'r' */
    int ended;    /* reading: the stream has ended */
    uint8_t *buf; /* compressed bytes; owned */
};

/* 0 or a negative errno. The descriptor is at the stream's first byte. */
int stream_begin_write(struct snapshot_stream *s, int fd)
    __attribute__((warn_unused_result));
int stream_write(struct snapshot_stream *s, const void *bytes, size_t len)
    __attribute__((warn_unused_result));
/* Writes what is left. */
int stream_finish_write(struct snapshot_stream *s)
    __attribute__((warn_unused_result));

int stream_begin_read(struct snapshot_stream *s, int fd)
    __attribute__((warn_unused_result));
/* Exactly len bytes: 0, -EBADMSG (damaged, or it ends before), or -errno. */
int stream_read(struct snapshot_stream *s, void *bytes, size_t len)
    __attribute__((warn_unused_result));
/* Nothing is left in the stream, and nothing behind it: as above. */
int stream_finish_read(struct snapshot_stream *s)
    __attribute__((warn_unused_result));

void stream_end(struct snapshot_stream *s);

#endif
