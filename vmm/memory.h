/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as the host sees it: one reservation with the RAM below the hole
 * and the RAM from 4 GiB on, and inaccessible guard pages before, between and
 * behind them, so that an access a little out of bounds faults instead of
 * reaching something of ours.
 *
 *   guard | RAM from 0 to 3 GiB | guard | RAM from 4 GiB | guard
 *
 * Owner: the machine; constant once built.
 */
#ifndef MICROSBX_VMM_MEMORY_H
#define MICROSBX_VMM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "devices/guest_mem.h"

struct memory {
    void *reservation; /* owned mapping, guards included; NULL = none */
    size_t reserved;
    struct guest_mem guest; /* the regions in it */
};

/*
 * Maps bytes (a multiple of VM_MEMORY_ALIGN) of private zero pages, not yet
 * backed by anything. 0, -ENOMEM or another errno of mmap.
 */
int memory_init(struct memory *memory, uint64_t bytes)
    __attribute__((warn_unused_result));
/* Accepts a zeroed struct. Pre: no vCPU of the machine is left. */
void memory_fini(struct memory *memory);

/* Makes each region a memory slot of the VM (slot n = region n). */
int memory_add_slots(const struct memory *memory, int vm_fd)
    __attribute__((warn_unused_result));

#endif
