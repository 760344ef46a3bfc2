/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a snapshot may ask of this host. Its manifest says how much memory, how
 * many CPUs and how much room on its disks the machine is to have; a stranger
 * may have written it. Limits are the host's and its user's:
 *
 *   memory      half of the host's, or what the user allows (-m)
 *   CPUs        as many as this process may use, or what the user allows
 *               (--cpus)
 *   disk limit  the user's (--disk-limit), else what the manifest asks for up
 *               to MACHINE_DISK_LIMIT_DEFAULT; 0, without a limit, is never
 *               had from a manifest
 *   debug exit  only where there is no agent
 *
 * A snapshot that was written here (snapshot_made_leave: by its id, which fixes
 * every byte of it) was given its numbers by this very user, and keeps them.
 */
#ifndef MICROSBX_TRIAL_SNAPSHOT_LIMITS_H
#define MICROSBX_TRIAL_SNAPSHOT_LIMITS_H

#include "trial/machine_spec.h"
#include "trial/snapshot_manifest.h"

/*
 * Refuses, with code snapshot_limit, what asks for too much memory, too many
 * CPUs or a port it must not have: 0 or -EPERM with *f filled. id and dir are
 * the snapshot's.
 */
int snapshot_limits_check(const struct snapshot_manifest *m, const char *id,
                          const char *dir, const struct machine_spec *spec,
                          struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Bytes that the overlay of a disk which asks for `asked` may hold; never 0.
 * *lowered becomes true if that is less than it asks for and nobody chose it.
 */
uint64_t snapshot_limits_disk(uint64_t asked, const char *id,
                              const struct machine_spec *spec, bool *lowered);

/* Remembers in the cache folder that this user wrote the snapshot of that id.
 * That it cannot be remembered is no failure: its limits must then be given. */
void snapshot_made_leave(const char *id);
bool snapshot_made_here(const char *id);

#endif
