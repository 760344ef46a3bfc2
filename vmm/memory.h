/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as the host sees it: one reservation with the RAM below the hole
 * and the RAM from 4 GiB on, and inaccessible guard pages before, between and
 * behind them, so that an access a little out of bounds faults instead of
 * reaching something of ours.
 *
 *   guard | RAM from 0 to 3 GiB | guard | RAM from 4 GiB | guard
 *
 * The memory of a restored machine is a private mapping of a snapshot's memory
 * file: pages arrive on demand, and clean ones are shared by all who map it. In
 * files, and wherever a page has a number, RAM is linear: without the hole.
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
    int fd; /* borrowed: the file it is mapped from; -1 = none */
    const uint8_t *pristine; /* tracked: the file once more, to read; owned */
    struct guest_mem guest;  /* the regions in it; its dirty bits are owned */
};

/*
 * Maps bytes (a multiple of VM_MEMORY_ALIGN) of private pages: of zeros (fd
 * -1), or of the regular file fd (borrowed; at least until memory_fini), which
 * must be exactly as long. Nothing is read or backed yet. 0; -EBADMSG: the file
 * has another size; -ENOMEM or another errno of mmap.
 */
int memory_init(struct memory *memory, uint64_t bytes, int fd)
    __attribute__((warn_unused_result));
/*
 * Has the monitor's own writes recorded from now on, and maps the file a second
 * time. Pre: mapped from one. 0, -ENOMEM or another errno of mmap.
 */
int memory_track(struct memory *memory) __attribute__((warn_unused_result));
/* Accepts a zeroed struct. Pre: no vCPU of the machine is left. */
void memory_fini(struct memory *memory);

/*
 * Makes each region a memory slot of the VM (slot n = region n); with a dirty
 * log of KVM's if the memory is tracked.
 */
int memory_add_slots(const struct memory *memory, int vm_fd)
    __attribute__((warn_unused_result));

#endif
