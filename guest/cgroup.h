/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's cgroup (v2) tree:
 *
 *     base/            the cgroup root in a guest; a test's own elsewhere
 *       agent/         the agent itself: memory.min, no limit
 *       work/          memory.max = what is available less a reserve
 *         files/       the agent's file helpers
 *         x<n>/        one per exec: memory.max, pids.max, killed as one
 *
 * A controller the kernel lacks is noted and not enforced; the tree itself is
 * needed, because cgroup.kill is how a process tree is ended for certain.
 */
#ifndef MICROSBX_GUEST_CGROUP_H
#define MICROSBX_GUEST_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#define CGROUP_PIDS_DEFAULT 512u
#define CGROUP_LEFT_MAX 256u /* execs that left processes behind */
#define CGROUP_NAME_MAX 16u  /* with its NUL */

struct cgroup_tree {
    int base_fd, work_fd, files_fd; /* directories, owned */
    bool has_memory, has_pids;      /* limits that are enforced */
    uint64_t work_max;              /* bytes for all workloads together */
    uint32_t serial;                /* of the next exec's cgroup */
    /* Cgroups without a handle, in which processes go on. */
    char left[CGROUP_LEFT_MAX][CGROUP_NAME_MAX];
    uint32_t left_count;
};

struct cgroup {
    int fd; /* its directory, owned; -1: none */
    char name[CGROUP_NAME_MAX];
};

struct cgroup_usage {
    uint32_t oom_kills, pids_hits;
    uint64_t cpu_us, user_us, system_us, memory_peak;
};

/*
 * Builds the tree under the cgroup2 directory `base` and moves the caller into
 * agent/. available: bytes of memory that are not in use yet (MemAvailable).
 * 0 or a negative errno.
 */
int cgroup_tree_open(struct cgroup_tree *tree, const char *base,
                     uint64_t available) __attribute__((warn_unused_result));

/* Removes what can be removed and closes; for tests. */
void cgroup_tree_close(struct cgroup_tree *tree);

/*
 * Makes the next work/x<n>. memory_max 0: as much as all workloads may have;
 * pids_max 0: CGROUP_PIDS_DEFAULT. 0 or a negative errno.
 */
int cgroup_create(struct cgroup_tree *tree, uint64_t memory_max,
                  uint32_t pids_max, struct cgroup *ret_cgroup)
    __attribute__((warn_unused_result));

/* New limits for one, given as to cgroup_create: 0 or a negative errno. */
int cgroup_limit(const struct cgroup_tree *tree, const struct cgroup *cgroup,
                 uint64_t memory_max, uint32_t pids_max)
    __attribute__((warn_unused_result));

/*
 * A descriptor of dir's cgroup.procs: a child that writes "0" to it is in.
 * Or a negative errno.
 */
int cgroup_open_procs(int dir_fd) __attribute__((warn_unused_result));

/* Kills every process in it, also those that are being forked. */
void cgroup_kill(const struct cgroup *cgroup);

/* True while a process lives in it (zombies do not count). */
bool cgroup_is_populated(const struct cgroup *cgroup);

void cgroup_read_usage(const struct cgroup *cgroup,
                       struct cgroup_usage *ret_usage);

/* The same less what it had used `before`; memory_peak is not reset. */
void cgroup_read_usage_since(const struct cgroup *cgroup,
                             const struct cgroup_usage *before,
                             struct cgroup_usage *ret_usage);

/*
 * Lets its processes go on without a handle; it is removed some time after the
 * last of them. Nothing is changed if CGROUP_LEFT_MAX are left already: -EBUSY.
 */
int cgroup_leave(struct cgroup_tree *tree, struct cgroup *cgroup)
    __attribute__((warn_unused_result));

/* Removes it; -EBUSY (and nothing changed) while it is populated. */
int cgroup_remove(const struct cgroup_tree *tree, struct cgroup *cgroup);

#endif
