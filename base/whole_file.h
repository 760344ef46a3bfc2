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

/*
 * Writes PATH, mode 0600. What was there is replaced; for a moment there may be
 * nothing, and of two who do it at once one fails with -EEXIST. Not synced: a
 * file that a crash of the host may lose. 0, or a negative errno with nothing
 * left of the attempt.
 */
int whole_file_write(const char *path, const void *bytes, size_t len)
    __attribute__((warn_unused_result));

#endif
