/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tells a machine from its siblings of one snapshot: the state of the
 * kernel's random generator, the wall clock, the boot id, the host name.
 *
 * The kernel's own boot id cannot be changed. What workloads read in its place
 * is a file of the agent's that the sandbox has mounted over it, read-only,
 * from the start; a fresh boot id is a matter of writing that file.
 */
#ifndef MICROSBX_GUEST_IDENTITY_H
#define MICROSBX_GUEST_IDENTITY_H

#include "guest/handle.h"
#include "guest/proto.h"

#define IDENTITY_KERNEL_BOOT_ID "/proc/sys/kernel/random/boot_id"

/*
 * Makes the file, with the kernel's own boot id; where workloads cannot reach
 * it. 0 or a negative errno.
 */
int identity_init(const char *path) __attribute__((warn_unused_result));

/*
 * RESTORE: does the steps of enum proto_restore_step in their order and stops
 * at the first that fails. Whether it is time for one, the caller decides.
 */
void identity_restore(struct agent *agent, const struct proto_restore *request,
                      struct proto_restored *ret_restored);

/* How many draws a pinned seed stands for: 0 to 65,535. */
uint32_t identity_seed_draws(uint64_t seed);

/* The boot id that a pinned seed stands for. */
void identity_seed_boot_id(uint64_t seed, char ret_boot_id[PROTO_BOOT_ID_MAX]);

#endif
