/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a vCPU waits for and what is on its way to it: two groups of its section
 * of the state (vcpu_state.h). KVM takes of them what no guest of this machine
 * comes to by itself: system management mode, for which there is no memory, and
 * waiting for what nobody sends. Such a state is refused, and none is saved.
 */
#ifndef MICROSBX_VMM_X86_VCPU_EVENTS_H
#define MICROSBX_VMM_X86_VCPU_EVENTS_H

#include "base/codec.h"
#include "vmm/state_file.h"

struct vcpu_place;

/*
 * Each: 0, -EBADMSG, -EOPNOTSUPP for what this KVM cannot, or another -errno of
 * KVM. ret_why: a clause, but for a group of another length, which the caller
 * finds by state_reader_finish.
 */
int vcpu_mp_state_save(const struct vcpu_place *vcpu, struct state_writer *w,
                       char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));
int vcpu_mp_state_load(const struct vcpu_place *vcpu, struct state_reader *r,
                       char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));
int vcpu_events_save(const struct vcpu_place *vcpu, struct state_writer *w,
                     char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));
int vcpu_events_load(const struct vcpu_place *vcpu, struct state_reader *r,
                     char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));

#endif
