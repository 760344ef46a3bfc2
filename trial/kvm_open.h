/* SPDX-License-Identifier: Apache-2.0 */
/* /dev/kvm, and why it cannot be opened. */
#ifndef MICROSBX_TRIAL_KVM_OPEN_H
#define MICROSBX_TRIAL_KVM_OPEN_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/failure.h"

/* Opens /dev/kvm: 0, or a negative errno with *f filled. */
int kvm_open(int *ret_fd, struct failure *f)
    __attribute__((warn_unused_result));

/* What is known of it when it could not be opened. */
struct kvm_denial {
    int error;              /* errno of open, positive */
    mode_t mode;            /* of /dev/kvm; 0: not known */
    gid_t group;            /* whose it is */
    bool member;            /* this process is in that group */
    const char *group_name; /* borrowed; NULL: not known */
};

/* Fills *f with the reason, and what mends that one. */
void kvm_explain(const struct kvm_denial *denial, struct failure *f);

#endif
