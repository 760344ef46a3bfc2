/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sandbox's root gets besides the image: /proc, /sys, /dev, /tmp and
 * the default user's home. Runs in the keeper, once, before any workload, with
 * the image's root as `/`: the image is trusted at that time.
 */
#include "guest/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "guest/users.h"

/* Files below /proc that a root workload could write without a capability. */
static const char *const proc_read_only[] = {
    "/proc/sys",           /* panic, core_pattern, modprobe, ... */
    "/proc/sysrq-trigger", /* reboots the guest */
    "/proc/irq",           "/proc/bus",  "/proc/fs",
    "/proc/acpi",          "/proc/scsi", "/proc/dynamic_debug",
};

/* Windows into the kernel: replaced by /dev/null. */
static const char *const proc_masked[] = {
    "/proc/kcore",      "/proc/kmsg",        "/proc/keys",
    "/proc/timer_list", "/proc/sched_debug", "/proc/kallsyms",
    "/proc/kpagecount", "/proc/kpageflags",  "/proc/kpagecgroup",
    "/proc/slabinfo",
};

struct node {
    const char *path;
    unsigned int major, minor;
};

static const struct node nodes[] = {
    {"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
    {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},
};

static const char *const dev_links[][2] = {
    {"pts/ptmx", "/dev/ptmx"},          {"/proc/self/fd", "/dev/fd"},
    {"/proc/self/fd/0", "/dev/stdin"},  {"/proc/self/fd/1", "/dev/stdout"},
    {"/proc/self/fd/2", "/dev/stderr"},
};

#define TTY_GROUP "5" /* of terminals, everywhere */

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* A mount point; the image may lack it, or be read-only and have it. */
static int make_dir(const char *path, mode_t mode)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return -errno;
    return 0;
}

static int mount_at(const char *type, const char *path, unsigned long flags,
                    const char *data)
{
    int ret = make_dir(path, 0755);

    if (ret == 0 && mount(type, path, type, flags, data) < 0)
        ret = -errno;
    return ret;
}

/* Covers a path by itself, read-only. A path that is absent needs nothing. */
static int make_read_only(const char *path)
{
    if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (mount(NULL, path, NULL,
              MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV |
                  MS_NOEXEC,
              NULL) < 0)
        return -errno;
    return 0;
}

static int make_proc(void)
{
    int ret = mount_at("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);

    for (size_t i = 0; ret == 0 && i < COUNT(proc_read_only); i++)
        ret = make_read_only(proc_read_only[i]);
    for (size_t i = 0; ret == 0 && i < COUNT(proc_masked); i++) {
        if (mount("/dev/null", proc_masked[i], NULL, MS_BIND, NULL) < 0 &&
            errno != ENOENT)
            ret = -errno;
    }
    return ret;
}

static int make_sys(void)
{
    int ret = mount_at("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);

    if (ret)
        return ret;
    /* On the mount, not on the file system, which the agent shares. */
    if (mount(NULL, "/sys", NULL,
              MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV |
                  MS_NOEXEC,
              NULL) < 0)
        return -errno;
    return 0;
}

static int make_node(const char *path, mode_t mode, dev_t dev)
{
    if (mknod(path, mode, dev) < 0 || chmod(path, mode & 07777) < 0)
        return -errno;
    return 0;
}

/* A disk of the workload's: its default user may read and write it. */
static int make_disk(const struct sandbox_disk *disk)
{
    char path[64], target[32];
    int ret;

    snprintf(path, sizeof(path), "/dev/%s", disk->name);
    ret = make_node(path, S_IFBLK | 0660, makedev(disk->major, disk->minor));
    if (ret == 0 && chown(path, USERS_DEFAULT_ID, USERS_DEFAULT_ID) < 0)
        ret = -errno;
    if (ret || disk->serial[0] == '\0')
        return ret;
    (void)!mkdir("/dev/disk", 0755);
    (void)!mkdir("/dev/disk/by-id", 0755);
    snprintf(target, sizeof(target), "../../%s", disk->name);
    snprintf(path, sizeof(path), "/dev/disk/by-id/virtio-%s", disk->serial);
    if (symlink(target, path) < 0 && errno != EEXIST)
        return -errno;
    return 0;
}

static int make_dev(const struct sandbox_config *config)
{
    /* Bounded: a tmpfs is memory. Both are charged to who fills them. */
    int ret = mount_at("tmpfs", "/dev", MS_NOSUID | MS_NOEXEC,
                       "mode=755,size=256k,nr_inodes=1024");

    for (size_t i = 0; ret == 0 && i < COUNT(nodes); i++)
        ret = make_node(nodes[i].path, S_IFCHR | 0666,
                        makedev(nodes[i].major, nodes[i].minor));
    for (size_t i = 0; ret == 0 && i < COUNT(dev_links); i++) {
        if (symlink(dev_links[i][0], dev_links[i][1]) < 0)
            ret = -errno;
    }
    if (ret == 0)
        ret = mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC,
                       "newinstance,ptmxmode=0666,mode=620,gid=" TTY_GROUP
                       ",max=256");
    if (ret == 0)
        ret = mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV,
                       "mode=1777,size=50%");
    for (size_t i = 0; ret == 0 && i < config->disk_count; i++)
        ret = make_disk(&config->disks[i]);
    return ret;
}

/* Wishes: a read-only root may refuse them, and then lives without. */
static void make_places(void)
{
    if (mkdir("/tmp", 01777) == 0)
        (void)!chmod("/tmp", 01777);
    (void)!mkdir("/home", 0755);
    if (mkdir(USERS_DEFAULT_HOME, 0755) == 0)
        (void)!chown(USERS_DEFAULT_HOME, USERS_DEFAULT_ID, USERS_DEFAULT_ID);
}

/*
 * The kernel's boot id cannot be changed, and all machines of one snapshot
 * have the same: workloads read the agent's file in its place.
 */
static int make_boot_id(int fd)
{
    static const char place[] = "/proc/sys/kernel/random/boot_id";
    char file[32];

    snprintf(file, sizeof(file), "/proc/self/fd/%d", fd);
    if (mount(file, place, NULL, MS_BIND, NULL) < 0 ||
        mount(NULL, place, NULL,
              MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV |
                  MS_NOEXEC,
              NULL) < 0)
        return -errno;
    return 0;
}

int sandbox_populate(const struct sandbox_config *config, int boot_id_fd)
{
    int ret;

    umask(022);
    make_places();
    ret = make_dev(config);
    if (ret == 0)
        ret = make_proc();
    if (ret == 0 && boot_id_fd >= 0)
        ret = make_boot_id(boot_id_fd);
    if (ret == 0)
        ret = make_sys();
    return ret;
}
