/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What PID 1 does before it is an agent: kernel file systems, modules, disks,
 * the overlay root. Each step reports its errno; only main decides what to
 * live without. Runs once, in a fresh guest.
 */
#ifndef MICROSBX_GUEST_BOOT_H
#define MICROSBX_GUEST_BOOT_H

#include <stdint.h>

#include "guest/compare.h"
#include "guest/sandbox.h"
#include "guest/scratch.h"

#define BOOT_ROOT "/newroot" /* where the overlay is mounted */
#define BOOT_CGROUP "/sys/fs/cgroup"
#define BOOT_ID                                                                \
    "/boot_id" /* in the initrd's own file system: see identity.h              \
                */

/* Prints one line "microsbx: ..." on the console. */
void boot_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* /proc, before anything else can be known. 0 or a negative errno. */
int boot_mount_proc(void) __attribute__((warn_unused_result));

/* /sys, /dev (devtmpfs), cgroup2. 0 or the first negative errno. */
int boot_mount_kernel(void) __attribute__((warn_unused_result));

/*
 * Loads /modules/<release>/order, one path a line, relative to that folder.
 * Without the folder the kernel has all built in. A module that fails is said
 * on the console and does not stop the others.
 */
void boot_load_modules(void);

/* Why something may be missing: modules that are for another kernel. */
void boot_say_modules(void);

/*
 * Takes the kernel's own limits on processes out of the way, for this process
 * and all that come from it: they follow from the size of memory, count all of
 * a user's programs together, and nobody is told when one is met. What ends a
 * fork bomb is its cgroup's pids.max. A limit that cannot be lifted is said.
 */
void boot_lift_process_limits(void);

/* Brings lo up, if there is one. */
void boot_loopback_up(void);

/*
 * Finds the disks and mounts the root: `root` (erofs or squashfs, by its
 * magic) below an overlay on `scratch` (ext4; see scratch.h). Fills config
 * with the disks that are left. limit: bytes that may be used of the scratch
 * disk (0: all). ret_scratch->fd is -1 if there is none (the root is then
 * read-only). 0; -ENODEV: no root disk; else errno.
 */
int boot_mount_root(struct sandbox_config *config, uint64_t limit,
                    struct scratch *ret_scratch)
    __attribute__((warn_unused_result));

/*
 * Mounts what a comparing guest looks at (proto.h): the disks PROTO_COMPARE_A
 * and _B, read-only, and over the root disk each, as its guest had it. Opens
 * the directories. 0 or a negative errno (-ENODEV: a disk is not there).
 */
int boot_mount_compared(struct compare_side ret_sides[2])
    __attribute__((warn_unused_result));

/* Bytes of memory: key is "MemTotal" or "MemAvailable"; 0: not known. */
uint64_t boot_memory(const char *key);

/* Writes everything back and powers off. Does not return. */
void boot_power_off(void) __attribute__((noreturn));

#endif
