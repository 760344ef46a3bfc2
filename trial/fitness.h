/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can this host's KVM run stock Linux guests? Measured by a tiny guest in the
 * monitor (`struct monitor_probe`), judged here, for doctor and before a boot.
 */
#ifndef MICROSBX_TRIAL_FITNESS_H
#define MICROSBX_TRIAL_FITNESS_H

#include <stdbool.h>

#include "base/failure.h"
#include "vmm/monitor_proto.h"

/*
 * Below this many instructions a second at CPL 0 a guest's kernel is being
 * interpreted one by one: hardware does thousands of millions, an emulated
 * host tens of millions, an interpreting KVM about one million.
 */
#define FITNESS_CPL0_MIN 5000000u

/* True if Linux guests run; else *f says why not and what to do. */
bool fitness_judge(const struct monitor_probe *probe, struct failure *f);

/*
 * What the monitor finds out about this host's KVM, unfit or not. A fit one's
 * answer is remembered (host_stamp.h). kvm_fd is borrowed. 0, or a negative
 * errno with *f filled.
 */
int fitness_probe(int kvm_fd, struct monitor_probe *ret_probe,
                  struct failure *f) __attribute__((warn_unused_result));

/*
 * The same, but only what a host without Linux guests is asked: capabilities
 * and the CPU. No guest is tried, and no speed measured.
 */
int fitness_probe_cpu(int kvm_fd, struct monitor_probe *ret_probe,
                      struct failure *f) __attribute__((warn_unused_result));

/*
 * Probes and judges. kvm_fd is borrowed. 0, or a negative errno with *f filled.
 */
int fitness_require(int kvm_fd, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Has a monitor on this host, since it booted, compared the whole CPUID of the
 * snapshot state with that digest (64 hex digits) with KVM's, and taken it? It
 * then need not again, which takes as long as to create a VM. False if it is
 * not known. fitness_cpu_remember makes it known.
 */
bool fitness_cpu_known(const char *state_sha256);
void fitness_cpu_remember(const char *state_sha256);

#endif
