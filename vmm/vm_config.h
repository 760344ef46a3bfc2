/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine is, as plain data: filled by the harness, sent to the monitor
 * as one message with descriptors, and read there by machine_build(). No paths:
 * everything a machine needs is an open descriptor.
 *
 * Shared by harness and monitor; links nothing but base.
 */
#ifndef MICROSBX_VMM_VM_CONFIG_H
#define MICROSBX_VMM_VM_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VM_CPUS_MAX 64u
#define VM_MEMORY_MIN ((uint64_t)32 << 20)
#define VM_MEMORY_MAX ((uint64_t)1 << 40)
#define VM_MEMORY_ALIGN ((uint64_t)2 << 20) /* memory is a multiple of this */
#define VM_DISKS_MAX 8u
#define VM_DISK_ID_MAX 20u
#define VM_CMDLINE_MAX 2047u

/* How the guest learns what machine it is in. */
enum vm_platform {
    VM_PLATFORM_ACPI = 0,
    VM_PLATFORM_DEVICE_TREE = 1,
};

enum vm_disk_mode {
    VM_DISK_RO = 0,  /* read-only */
    VM_DISK_RW = 1,  /* the file itself is written (the harness holds a lock) */
    VM_DISK_COW = 2, /* writes go to an overlay; the file is only read */
};

struct vm_disk {
    char id[VM_DISK_ID_MAX + 1]; /* serial number the guest sees */
    enum vm_disk_mode mode;
    int fd;                 /* the file; owned by the config */
    int overlay_fd;         /* cow: an empty file or memfd; else -1; owned */
    int layer_fd;           /* cow: a file of MONITOR_SAVE between the disk and
                             * its overlay, only read; or -1; owned */
    uint64_t overlay_limit; /* cow: bytes, 0 = none */
};

struct vm_config {
    uint64_t memory_bytes;
    uint32_t cpu_count;
    enum vm_platform platform;
    char cmdline[VM_CMDLINE_MAX + 1];

    /*
     * A machine is booted from a kernel or restored from a snapshot, never
     * both. The memory file is of memory_bytes and is mapped privately: it is
     * never written, and must not change while the machine lives.
     */
    int kvm_fd;         /* /dev/kvm; owned, like every fd here; -1 = none */
    int kernel_fd;      /* vmlinux ELF or bzImage; -1: restored */
    int initrd_fd;      /* or -1 */
    int state_fd;       /* vmm/state_file.h; -1: booted */
    int memory_fd;      /* with state_fd, else -1 */
    int console_in_fd;  /* or -1 */
    int console_out_fd; /* or -1 */

    bool vsock; /* has a vsock device */
    uint64_t guest_cid;
    int vsock_listen_fd; /* listening Unix socket, or -1 */
    bool vsock_dial;     /* the harness answers MONITOR_VSOCK_DIAL */

    bool hide_rdrand;      /* the guest sees neither RDRAND nor RDSEED */
    bool renew_generation; /* a restored guest is given a new generation id and
                            * told so, when it starts; with state_fd */
    bool track_dirty;      /* MONITOR_ROLLBACK is possible; with state_fd */
    bool debug_exit;       /* the guest has the debug-exit port */
    bool cpu_compared;     /* the harness knows that this host has all that the
                            * CPU of the state has; with state_fd */

    uint32_t disk_count;
    struct vm_disk disks[VM_DISKS_MAX];
};

/* All descriptors -1, everything else 0. */
void vm_config_init(struct vm_config *config);
/* Closes every descriptor and initialises again. */
void vm_config_fini(struct vm_config *config);

/*
 * Encodes for MONITOR_CONFIG: payload into buf, descriptors (borrowed) into
 * ret_fds (room for MSG_FDS_MAX). 0, or -ENOSPC if buf is too small.
 */
int vm_config_encode(const struct vm_config *config, void *buf, size_t size,
                     size_t *ret_len, int *ret_fds, size_t *ret_fd_count)
    __attribute__((warn_unused_result));

/*
 * Decodes and checks everything that can be checked without KVM (ranges,
 * counts, enum values, descriptors present). Takes the descriptors it used out
 * of fds (sets them to -1). 0, or -EBADMSG with nothing taken.
 */
int vm_config_decode(const void *buf, size_t len, int *fds, size_t fd_count,
                     struct vm_config *ret_config)
    __attribute__((warn_unused_result));

#endif
