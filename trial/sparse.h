/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sparse files: finding data, copying without filling holes. A file system
 * that cannot tell data from holes has only data; then zeros are found by
 * looking at them.
 */
#ifndef MICROSBX_TRIAL_SPARSE_H
#define MICROSBX_TRIAL_SPARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPARSE_BLOCK 4096u       /* what is looked at for zeros */
#define SPARSE_BUFFER (1u << 20) /* bytes read at once */

/* Asked between blocks whether to go on; may be NULL in each use. */
struct sparse_cancel {
    bool (*cancelled)(void *ctx);
    void *ctx;
};
bool sparse_cancelled(const struct sparse_cancel *cancel);

bool sparse_is_zero(const void *buf, size_t len);

/*
 * The next extent of data in [offset, end): its start and end, both `end` if
 * there is none. Moves the file position. 0 or a negative errno.
 */
int sparse_next(int fd, uint64_t offset, uint64_t end, uint64_t *ret_start,
                uint64_t *ret_end) __attribute__((warn_unused_result));

/*
 * True if the file has holes, by what it takes of its disk, and its file system
 * cannot tell where (a shared folder of a virtual machine, for one).
 */
bool sparse_hides_holes(int fd);

/*
 * Copies the first len bytes into the empty file `to`, which is then len bytes
 * long: by sharing blocks (reflink) where the file system can and the source is
 * exactly as long, else block by block, zeros as holes. 0; -ENODATA if the
 * source is shorter; -ECANCELED; or another negative errno.
 */
int sparse_copy(int from, int to, uint64_t len,
                const struct sparse_cancel *cancel)
    __attribute__((warn_unused_result));

/* Writes all but the blocks of zeros: `to` has a hole there already. */
int sparse_write(int to, const uint8_t *buf, size_t len, uint64_t offset)
    __attribute__((warn_unused_result));

#endif
