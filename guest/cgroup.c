/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's cgroup tree; see the header. Admin guide: cgroup-v2. */
#include "guest/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/sysfile.h"

/*
 * What workloads may never have of the memory that is available when they
 * start: room for the agent, its buffers (16 handles of PROTO_WINDOW bytes,
 * requests) and for kernel memory that nobody is charged for. With less, a
 * hog brings the whole guest to thrashing before it meets its own limit.
 */
#define RESERVE_MIN (16ull << 20)
#define RESERVE_MAX (64ull << 20)
#define AGENT_MIN (8ull << 20)

static uint64_t work_limit(uint64_t available)
{
    uint64_t reserve = available / 8;

    if (reserve < RESERVE_MIN)
        reserve = RESERVE_MIN;
    if (reserve > RESERVE_MAX)
        reserve = RESERVE_MAX;
    /* A guest this small has no room to keep: half each. */
    return available > 2 * reserve ? available - reserve : available / 2;
}

static int open_dir(int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static int make_dir(int dirfd, const char *name)
{
    if (mkdirat(dirfd, name, 0755) < 0 && errno != EEXIST)
        return -errno;
    return open_dir(dirfd, name);
}

/* Turns a controller on for the children of a cgroup. */
static bool enable(int dirfd, const char *controller)
{
    return sysfile_write(dirfd, "cgroup.subtree_control", controller) == 0;
}

/* The agent's own corner; it must be out of base before controllers go on. */
static int move_self(int base_fd)
{
    int ret;
    int fd = make_dir(base_fd, "agent");

    if (fd < 0)
        return fd;
    ret = sysfile_write(fd, "cgroup.procs", "0");
    close(fd);
    return ret;
}

static void set_limits(struct cgroup_tree *tree)
{
    tree->has_memory =
        enable(tree->base_fd, "+memory") && enable(tree->work_fd, "+memory");
    tree->has_pids =
        enable(tree->base_fd, "+pids") && enable(tree->work_fd, "+pids");
    if (tree->has_memory &&
        sysfile_write_u64(tree->work_fd, "memory.max", tree->work_max))
        tree->has_memory = false;
    /* A wish, not a need: reclaim takes from the workload first. */
    if (tree->has_memory)
        (void)!sysfile_write_u64(tree->base_fd, "agent/memory.min", AGENT_MIN);
}

/* Removes those that are empty by now. */
static void sweep_left(struct cgroup_tree *tree)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < tree->left_count; i++) {
        if (unlinkat(tree->work_fd, tree->left[i], AT_REMOVEDIR) < 0 &&
            errno == EBUSY)
            memmove(tree->left[kept++], tree->left[i], CGROUP_NAME_MAX);
    }
    tree->left_count = kept;
}

int cgroup_tree_open(struct cgroup_tree *tree, const char *base,
                     uint64_t available)
{
    int ret;

    *tree = (struct cgroup_tree){.base_fd = -1, .work_fd = -1, .files_fd = -1};
    tree->work_max = work_limit(available);
    ret = tree->base_fd = open_dir(AT_FDCWD, base);
    if (ret < 0)
        return ret;
    ret = tree->work_fd = make_dir(tree->base_fd, "work");
    if (ret < 0)
        goto out_close;
    ret = move_self(tree->base_fd);
    if (ret)
        goto out_close;
    set_limits(tree);
    ret = tree->files_fd = make_dir(tree->work_fd, "files");
    if (ret < 0)
        goto out_close;
    return 0;
out_close:
    cgroup_tree_close(tree);
    return ret;
}

void cgroup_tree_close(struct cgroup_tree *tree)
{
    if (tree->work_fd >= 0) {
        sweep_left(tree);
        unlinkat(tree->work_fd, "files", AT_REMOVEDIR);
    }
    if (tree->base_fd >= 0)
        unlinkat(tree->base_fd, "work", AT_REMOVEDIR);
    sysfile_close(&tree->files_fd);
    sysfile_close(&tree->work_fd);
    sysfile_close(&tree->base_fd);
}

static int limit_memory(const struct cgroup_tree *tree, int fd, uint64_t max)
{
    int ret;

    if (!tree->has_memory)
        return 0;
    if (max == 0 || max > tree->work_max)
        max = tree->work_max;
    ret = sysfile_write_u64(fd, "memory.max", max);
    if (ret)
        return ret;
    /* One victim in the tree leaves a half-dead workload: kill it whole. */
    ret = sysfile_write(fd, "memory.oom.group", "1");
    if (ret)
        return ret;
    /* No file without swap support in the kernel; then there is none. */
    (void)!sysfile_write(fd, "memory.swap.max", "0");
    return 0;
}

int cgroup_limit(const struct cgroup_tree *tree, const struct cgroup *cgroup,
                 uint64_t memory_max, uint32_t pids_max)
{
    int ret = limit_memory(tree, cgroup->fd, memory_max);

    if (ret == 0 && tree->has_pids)
        ret = sysfile_write_u64(cgroup->fd, "pids.max",
                                pids_max ? pids_max : CGROUP_PIDS_DEFAULT);
    return ret;
}

int cgroup_leave(struct cgroup_tree *tree, struct cgroup *cgroup)
{
    sweep_left(tree);
    if (tree->left_count == CGROUP_LEFT_MAX)
        return -EBUSY;
    memcpy(tree->left[tree->left_count++], cgroup->name, CGROUP_NAME_MAX);
    sysfile_close(&cgroup->fd);
    return 0;
}

int cgroup_create(struct cgroup_tree *tree, uint64_t memory_max,
                  uint32_t pids_max, struct cgroup *ret_cgroup)
{
    struct cgroup cgroup = {.fd = -1};
    int ret;

    sweep_left(tree);
    /* Never a number twice: one that could not be removed stays behind. */
    snprintf(cgroup.name, sizeof(cgroup.name), "x%u", tree->serial++);
    if (mkdirat(tree->work_fd, cgroup.name, 0755) < 0)
        return -errno;
    ret = cgroup.fd = open_dir(tree->work_fd, cgroup.name);
    if (ret < 0)
        goto out_remove;
    ret = cgroup_limit(tree, &cgroup, memory_max, pids_max);
    if (ret)
        goto out_remove;
    *ret_cgroup = cgroup;
    return 0;
out_remove:
    sysfile_close(&cgroup.fd);
    unlinkat(tree->work_fd, cgroup.name, AT_REMOVEDIR);
    return ret;
}

int cgroup_open_procs(int dir_fd)
{
    int fd = openat(dir_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

void cgroup_kill(const struct cgroup *cgroup)
{
    if (cgroup->fd >= 0)
        (void)!sysfile_write(cgroup->fd, "cgroup.kill", "1");
}

bool cgroup_is_populated(const struct cgroup *cgroup)
{
    char text[128];

    if (cgroup->fd < 0 ||
        sysfile_read(cgroup->fd, "cgroup.events", text, sizeof(text)) < 0)
        return false;
    return sysfile_field(text, "populated") != 0;
}

void cgroup_read_usage(const struct cgroup *cgroup,
                       struct cgroup_usage *ret_usage)
{
    struct cgroup_usage usage = {0};
    char text[1024];

    if (cgroup->fd < 0)
        goto out;
    if (sysfile_read(cgroup->fd, "cpu.stat", text, sizeof(text)) > 0) {
        usage.cpu_us = sysfile_field(text, "usage_usec");
        usage.user_us = sysfile_field(text, "user_usec");
        usage.system_us = sysfile_field(text, "system_usec");
    }
    if (sysfile_read(cgroup->fd, "memory.events", text, sizeof(text)) > 0)
        usage.oom_kills = (uint32_t)sysfile_field(text, "oom_kill");
    if (sysfile_read(cgroup->fd, "pids.events", text, sizeof(text)) > 0)
        usage.pids_hits = (uint32_t)sysfile_field(text, "max");
    if (sysfile_read(cgroup->fd, "memory.peak", text + 2, sizeof(text) - 2) >
        0) {
        text[0] = 'p';
        text[1] = ' ';
        usage.memory_peak = sysfile_field(text, "p");
    }
out:
    *ret_usage = usage;
}

void cgroup_read_usage_since(const struct cgroup *cgroup,
                             const struct cgroup_usage *before,
                             struct cgroup_usage *ret_usage)
{
    struct cgroup_usage usage;

    cgroup_read_usage(cgroup, &usage);
    usage.oom_kills -= before->oom_kills;
    usage.pids_hits -= before->pids_hits;
    usage.cpu_us -= before->cpu_us;
    usage.user_us -= before->user_us;
    usage.system_us -= before->system_us;
    *ret_usage = usage;
}

int cgroup_remove(const struct cgroup_tree *tree, struct cgroup *cgroup)
{
    if (cgroup->fd < 0)
        return 0;
    if (unlinkat(tree->work_fd, cgroup->name, AT_REMOVEDIR) < 0 &&
        errno != ENOENT)
        return -errno;
    sysfile_close(&cgroup->fd);
    return 0;
}
