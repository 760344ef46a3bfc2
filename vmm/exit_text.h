/* SPDX-License-Identifier: Apache-2.0 */
/* Words for the ways a vCPU ends that nobody wants; x86 registers included. */
#ifndef MICROSBX_VMM_EXIT_TEXT_H
#define MICROSBX_VMM_EXIT_TEXT_H

#include <stddef.h>

#include "vmm/kvm.h"

/*
 * Describes the exit in vcpu->run (an internal error, a failed entry, or one we
 * do not know) with where the vCPU was. Runs on the vCPU's thread. Always
 * terminates text.
 */
void exit_text_describe(const struct kvm_vcpu *vcpu, char *text, size_t size);

#endif
