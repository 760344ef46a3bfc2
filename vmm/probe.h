/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this host's KVM can do, measured: capabilities, the speed of guest
 * kernel code, and instructions that a KVM without hardware support gets wrong.
 */
#ifndef MICROSBX_VMM_PROBE_H
#define MICROSBX_VMM_PROBE_H

#include "vmm/monitor_proto.h"

/*
 * Borrows kvm_fd. Fills everything, which takes up to a few seconds, or all
 * that is known without running a guest for it.
 */
void probe_run(int kvm_fd, enum monitor_probe_depth depth,
               struct monitor_probe *ret_probe);

#endif
