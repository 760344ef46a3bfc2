/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of a machine's memory at once: written to a file, digested, or put back
 * to what the file says. Nothing runs meanwhile.
 *
 * Pages that nobody ever touched are known to be zero without a look where the
 * host can tell (no mapping in the process, a hole in the file): looking would
 * give each of them a page of the host's.
 */
#ifndef MICROSBX_VMM_MEMORY_IMAGE_H
#define MICROSBX_VMM_MEMORY_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "vmm/memory.h"
#include "vmm/monitor_proto.h"

/*
 * Writes all of it to an empty regular file, as long as the memory; pages of
 * zeros become holes. 0 with the number of other pages; -EINVAL: the file is
 * not empty; or the host's errno, -ENOSPC in particular, after which the file
 * may hold anything.
 */
int memory_image_save(const struct memory *memory, int fd, uint64_t *ret_pages)
    __attribute__((warn_unused_result));

/*
 * Writes the SHA-256 of every MONITOR_CHUNK, as the guest sees it, to an empty
 * regular file, 32 bytes each. 0 or -errno.
 */
int memory_image_digest(const struct memory *memory, int fd)
    __attribute__((warn_unused_result));

/*
 * Puts every page that was written since it was mapped (or last put back) back
 * to what the file says, and forgets that it was written. Pre: tracked, mapped
 * from a file, and a slot of vm_fd. 0 or -errno: then nothing is certain.
 */
int memory_image_roll_back(const struct memory *memory, int vm_fd,
                           struct monitor_rolled_back *ret_done)
    __attribute__((warn_unused_result));

#endif
