/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The place workloads live in: one set of pid, mount, ipc and uts namespaces
 * whose `/` is the overlay root, shared by all execs of the machine so that
 * they see each other as in a container.
 *
 * The pid namespace's first process (the keeper) is a fork of the agent that
 * only reaps orphans. Nothing inside can signal it (it is PID 1 there and
 * handles no signal), trace it (it is not dumpable and has more capabilities)
 * or starve it of memory (it stays in the agent's cgroup, OOM-exempt).
 *
 * What a workload finds: /proc with the dangerous parts read-only or masked
 * (a root workload owns those files, so permissions alone do not protect
 * them) and a boot id that the agent can change, /sys read-only, a /dev of its
 * own without console, kmsg or the disks the root file system is on.
 */
#ifndef MICROSBX_GUEST_SANDBOX_H
#define MICROSBX_GUEST_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SANDBOX_DISKS_MAX 16u
#define SANDBOX_HOSTNAME_MAX 65u /* with its NUL */

/* A disk that is left to the workload. */
struct sandbox_disk {
    unsigned int major, minor;
    char name[16];   /* "vdb" */
    char serial[24]; /* made safe for a file name; "" if it has none */
};

struct sandbox_config {
    const char *root;    /* a mount point of the agent's: becomes `/` */
    const char *boot_id; /* a file to read as the boot id; NULL: none */
    size_t disk_count;
    struct sandbox_disk disks[SANDBOX_DISKS_MAX];
};

struct sandbox {
    const struct sandbox_config *config; /* borrowed; NULL: no root, no execs */
    pid_t keeper;                        /* 0: not running */
    int mnt_fd, pid_fd, ipc_fd, uts_fd;  /* namespaces, owned; -1 */
    int own_pid_fd, own_uts_fd;          /* the agent's namespaces */
    int pts_fd;                          /* directory of its devpts */
    char hostname[SANDBOX_HOSTNAME_MAX]; /* also of those built later */
};

/* config NULL: every use answers -ENODEV. */
void sandbox_init(struct sandbox *sandbox, const struct sandbox_config *config);

/*
 * Makes sure that the namespaces exist, building them if there are none yet
 * or if their keeper has died. 0 or a negative errno (-ENODEV: no root).
 */
int sandbox_ensure(struct sandbox *sandbox) __attribute__((warn_unused_result));

/* The keeper was reaped; the namespaces died with it. */
void sandbox_lost(struct sandbox *sandbox);

/*
 * The host name that workloads see from now on, also in /etc/hostname and
 * /etc/hosts (if the root can be written), at most SANDBOX_HOSTNAME_MAX - 1
 * bytes. Without a root it is only noted. 0 or a negative errno.
 */
int sandbox_set_hostname(struct sandbox *sandbox, const char *name)
    __attribute__((warn_unused_result));

/* Kills the keeper, and with it all in the pid namespace; reaps it. */
void sandbox_stop(struct sandbox *sandbox);

/*
 * Forks a child that is not in the sandbox yet. in_pids: the child becomes a
 * member of its pid namespace (fork is the only way in). As fork(2), but with
 * a negative errno. The caller must be single-threaded.
 */
pid_t sandbox_fork(struct sandbox *sandbox, bool in_pids);

/* In that child: enter its mount (root becomes `/`), ipc and uts namespaces. */
int sandbox_enter(const struct sandbox *sandbox)
    __attribute__((warn_unused_result));

/* A new pseudo-terminal of the sandbox: 0 or a negative errno. */
int sandbox_open_pty(const struct sandbox *sandbox, int *ret_master,
                     int *ret_slave) __attribute__((warn_unused_result));

/*
 * sandbox_mounts.c: fills the root below the current directory. boot_id_fd: a
 * file of this mount namespace to mount as the boot id; -1: none.
 */
int sandbox_populate(const struct sandbox_config *config, int boot_id_fd)
    __attribute__((warn_unused_result));

#endif
