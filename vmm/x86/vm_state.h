/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM has beside its vCPUs and memory, as a section of the state file
 * ("vm  "): interrupt controllers, PIT if there is one, KVM's clock. Like
 * vcpu_state.h.
 */
#ifndef MICROSBX_VMM_X86_VM_STATE_H
#define MICROSBX_VMM_X86_VM_STATE_H

#include <stdbool.h>

#include "base/codec.h"
#include "vmm/state_file.h"

#define VM_STATE_VERSION 1u

/* Appends the payload. Pre: no vCPU runs. 0, or -errno and a clause why. */
int vm_state_save(int vm_fd, bool has_pit, struct state_writer *w,
                  char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));

/*
 * Loads a payload, to its last byte. A PIT that counts goes on at once, before
 * any vCPU runs; LAPICs' timers wait for theirs. Pre: the vCPUs have their
 * states; the PIT was made if vm_state_has_pit. 0, -EBADMSG or another -errno,
 * and why.
 */
int vm_state_load(int vm_fd, struct state_reader *r,
                  char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));

/* True if the payload has a PIT: then the VM must be built with one. */
bool vm_state_has_pit(struct state_reader r);

#endif
