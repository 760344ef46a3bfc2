/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine as the user asked for it (paths and numbers), and how it becomes a
 * struct vm_config (descriptors): every file is opened and checked here, once,
 * and every refusal is a sentence.
 */
#ifndef MICROSBX_TRIAL_MACHINE_SPEC_H
#define MICROSBX_TRIAL_MACHINE_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/failure.h"
#include "trial/image.h"
#include "trial/monitor.h"
#include "vmm/vm_config.h"

#define MACHINE_MEMORY_DEFAULT ((uint64_t)256 << 20)
#define MACHINE_DISK_LIMIT_DEFAULT ((uint64_t)1 << 30)
#define MACHINE_GUEST_CID 3u

struct snapshot;

enum machine_platform {
    MACHINE_PLATFORM_AUTO, /* what the kernel reads (kernel_platform.h) */
    MACHINE_PLATFORM_ACPI,
    MACHINE_PLATFORM_DEVICE_TREE,
};

struct disk_spec {
    char *path; /* owned */
    enum vm_disk_mode mode;
    char id[VM_DISK_ID_MAX + 1]; /* "" : disk0, disk1, ... */
};

/* Strings are owned; machine_spec_fini frees them. */
struct machine_spec {
    char *image;  /* name or directory, or NULL */
    char *kernel; /* overrides the image's */
    char *initrd;
    char *cmdline; /* replaces the default command line, or NULL */
    char *root;    /* root= of a machine without an image, or NULL */
    char *append;  /* added behind it */
    uint64_t memory_bytes;
    uint64_t cpu_count;
    enum machine_platform platform;
    bool overlay_in_memory;
    uint64_t disk_limit; /* bytes an overlay may hold */
    bool disk_lowered;   /* less than the snapshot asks for: for the result */
    /* The most that a snapshot may ask for; 0: see trial/snapshot_limits.h. */
    uint64_t memory_allowed;
    uint64_t cpus_allowed;
    char *vsock_path;   /* or NULL */
    uint64_t guest_cid; /* 3 or more; private to the machine */
    bool debug_exit;    /* has the debug-exit port: no agent will speak */
    bool cpu_compared;  /* fitness_cpu_known */
    unsigned disk_count;
    struct disk_spec disks[VM_DISKS_MAX];
};

/* An opened machine: what monitor_build needs. */
struct machine {
    struct vm_config config;
    bool has_image;
    struct image image;
    char *kernel_path;
    char *initrd_path;
    char *disk_paths[VM_DISKS_MAX];
    char *vsock_path; /* a socket we made there and remove; or NULL */
    uint64_t guest_cid;
    const struct snapshot *snapshot; /* borrowed: restored from it; or NULL */
    bool disk_lowered; /* restored, with a lower limit than it asks for */
};

void machine_spec_init(struct machine_spec *spec);
void machine_spec_fini(struct machine_spec *spec);

/* Replaces an owned string: 0 or -ENOMEM. */
int machine_spec_set(char **field, const char *value);

/* 1 to 20 letters, digits, '-', '_' or '.': safe wherever it appears. */
bool machine_spec_id_is_valid(const char *id);

/* Adds "FILE[,cow|ro|rw][,id=ID]": 0, or -EINVAL with *f filled. */
int machine_spec_add_disk(struct machine_spec *spec, const char *text,
                          struct failure *f)
    __attribute__((warn_unused_result));

/*
 * Opens everything. /dev/kvm last. Console descriptors are the caller's to
 * add. *ret_machine is initialised in any case; on failure nothing is left open
 * and *f is filled.
 */
int machine_open(const struct machine_spec *spec, struct machine *ret_machine,
                 struct failure *f) __attribute__((warn_unused_result));

/*
 * The same for a machine that is restored: what it is comes from the snapshot
 * (borrowed while the machine lives, its descriptors duplicated), as far as
 * this host and its user allow it (trial/snapshot_limits.h); of spec only
 * overlay_in_memory, disk_limit (0: what the snapshot may have),
 * memory_allowed, cpus_allowed and vsock_path count.
 */
int machine_restore(const struct machine_spec *spec,
                    const struct snapshot *snapshot,
                    struct machine *ret_machine, struct failure *f)
    __attribute__((warn_unused_result));

/* Gives it a vsock device, if it has none yet. Before monitor_build. */
void machine_add_vsock(struct machine *machine);

/* Closes, removes the vsock socket, frees. Pre: machine_open was called. */
void machine_close(struct machine *machine);

/* The names monitor_build wants; borrowed from machine. */
struct monitor_names machine_names(const struct machine *machine);

/* Appends words to the kernel command line: 0, or -E2BIG with *f filled. */
int machine_append(struct machine *machine, const char *words,
                   struct failure *f) __attribute__((warn_unused_result));

#endif
