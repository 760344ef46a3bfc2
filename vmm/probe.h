/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this host's KVM can do, measured: capabilities, the speed of guest
 * kernel code, and instructions that a KVM without hardware support gets wrong.
 */
#ifndef MICROSBX_VMM_PROBE_H
#define MICROSBX_VMM_PROBE_H

#include "vmm/monitor_proto.h"

/* Borrows kvm_fd. Fills everything; takes at most a few seconds. */
void probe_run(int kvm_fd, struct monitor_probe *ret_probe);

#endif
