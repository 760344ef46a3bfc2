/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drops what a guest has written into a private mapping, so that the file's
 * pages are seen again.
 */
#ifndef MICROSBX_VMM_MEMORY_DROP_H
#define MICROSBX_VMM_MEMORY_DROP_H

#include "devices/guest_mem.h"

/*
 * By several threads, which end with the call: to free a page takes a quarter
 * of a microsecond, and a guest may have written hundreds of thousands. Pre: no
 * vCPU runs, nobody reads the memory. 0 or -errno.
 */
int memory_drop(const struct guest_mem *guest)
    __attribute__((warn_unused_result));

#endif
