/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small files that are there as a whole or not at all: stamps and caches.
 *
 * The file is made without a name and gets it when it is complete, so that
 * whoever is killed before leaves nothing. Where the file system has no such
 * files (9p, NFS), it is written beside, as PATH.XXXXXX, and renamed.
 */
#ifndef MICROSBX_BASE_WHOLE_FILE_H
#define MICROSBX_BASE_WHOLE_FILE_H

#include <stddef.h>
#include <sys/types.h>

/* A file on its way to its name; {.fd = -1} is none. */
struct whole_file {
    int fd;       /* owned: to be written to; also read from */
    char *path;   /* owned: where it will be */
    char *beside; /* owned: where it is; NULL: it has no name yet */
};

/*
 * Makes a file for PATH with these permissions, less the umask. Nothing is at
 * PATH for it yet, and what is there stays until whole_file_publish. 0, or a
 * negative errno with *ret_file untouched.
 */
int whole_file_begin(const char *path, mode_t mode, struct whole_file *ret_file)
    __attribute__((warn_unused_result));

/*
 * What was written appears as PATH, in place of what is there. 0 or a negative
 * errno; whole_file_drop in any case.
 */
int whole_file_publish(struct whole_file *file)
    __attribute__((warn_unused_result));

/* Closes and frees; without whole_file_publish nothing is left of it. */
void whole_file_drop(struct whole_file *file);

/*
 * Writes PATH, mode 0600. What was there is replaced; for a moment there may be
 * nothing, and of two who do it at once one fails with -EEXIST. Not synced: a
 * file that a crash of the host may lose. 0, or a negative errno with nothing
 * left of the attempt.
 */
int whole_file_write(const char *path, const void *bytes, size_t len)
    __attribute__((warn_unused_result));

#endif
