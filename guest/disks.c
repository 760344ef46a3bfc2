/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the guest's disks and mounting its root; see boot.h. */
#include "guest/boot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "guest/sysfile.h"

#define LOWER "/lower"     /* the read-only root */
#define SCRATCH "/scratch" /* upper/ and work/ of the overlay */
#define ROOT_SERIAL "root"
#define SCRATCH_SERIAL "scratch"

#define EROFS_MAGIC 0xe0f5e1e2u
#define EROFS_OFFSET 1024
#define SQUASHFS_MAGIC 0x73717368u /* "hsqs" */
/*
 * Blocks of the limit that the workload does not get: what ext4 itself writes
 * (bitmaps, inode tables) counts against the host's limit, too.
 */
#define META_PART 32u

/* ---- finding ------------------------------------------------------------ */

/* A serial comes from the host's configuration: made safe for a file name. */
static void clean_serial(char *serial)
{
    for (; *serial; serial++) {
        if (*serial == '/' || *serial <= ' ' || *serial > '~')
            *serial = '_';
    }
}

/* One entry of /sys/block: 0 if it is a virtio disk. */
static int read_disk(const char *name, struct sandbox_disk *ret_disk)
{
    struct sandbox_disk disk = {0};
    char path[300], text[64];

    if (strncmp(name, "vd", 2) != 0 || strlen(name) >= sizeof(disk.name))
        return -ENODEV;
    strcpy(disk.name, name);
    snprintf(path, sizeof(path), "/sys/block/%s/dev", name);
    if (sysfile_read(AT_FDCWD, path, text, sizeof(text)) < 0 ||
        sscanf(text, "%u:%u", &disk.major, &disk.minor) != 2)
        return -ENODEV;
    snprintf(path, sizeof(path), "/sys/block/%s/serial", name);
    if (sysfile_read(AT_FDCWD, path, disk.serial, sizeof(disk.serial)) < 0)
        disk.serial[0] = '\0';
    clean_serial(disk.serial);
    *ret_disk = disk;
    return 0;
}

/* All virtio disks; returns how many. */
static size_t find_disks(struct sandbox_disk *ret_disks, size_t max)
{
    DIR *dir = opendir("/sys/block");
    struct dirent *entry;
    size_t count = 0;

    while (dir && count < max && (entry = readdir(dir))) {
        if (read_disk(entry->d_name, &ret_disks[count]) == 0)
            count++;
    }
    if (dir)
        closedir(dir);
    return count;
}

/* Takes the disk of that serial out of the config. */
static bool take_disk(struct sandbox_config *config, const char *serial,
                      struct sandbox_disk *ret_disk)
{
    for (size_t i = 0; i < config->disk_count; i++) {
        if (strcmp(config->disks[i].serial, serial) != 0)
            continue;
        *ret_disk = config->disks[i];
        config->disks[i] = config->disks[--config->disk_count];
        return true;
    }
    return false;
}

/* ---- mounting ----------------------------------------------------------- */

/* "erofs", "squashfs", or NULL. */
static const char *detect_type(const char *device)
{
    uint32_t magic[2] = {0, 0};
    int fd = open(device, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return NULL;
    if (pread(fd, &magic[0], 4, EROFS_OFFSET) != 4 ||
        pread(fd, &magic[1], 4, 0) != 4)
        magic[0] = magic[1] = 0;
    close(fd);
    if (magic[0] == EROFS_MAGIC)
        return "erofs";
    return magic[1] == SQUASHFS_MAGIC ? "squashfs" : NULL;
}

static int mount_lower(const struct sandbox_disk *disk)
{
    char device[32];
    const char *type;

    snprintf(device, sizeof(device), "/dev/%s", disk->name);
    type = detect_type(device);
    if (!type)
        return -EINVAL;
    (void)!mkdir(LOWER, 0755);
    if (mount(device, LOWER, type, MS_RDONLY | MS_NODEV, NULL) < 0)
        return -errno;
    return 0;
}

/*
 * The host refuses writes beyond its limit with nothing better than an I/O
 * error, long after write(2) said yes. Reserving the clusters beyond the
 * limit in ext4 turns that into an honest ENOSPC (Documentation/ABI,
 * sysfs-fs-ext4: reserved_clusters).
 */
static void limit_scratch(const struct sandbox_disk *disk, int fd,
                          uint64_t limit)
{
    uint64_t total, usable;
    struct statvfs fs;
    char path[64];
    int ret;

    if (limit == 0 || fstatvfs(fd, &fs) < 0 || fs.f_frsize == 0)
        return;
    total = fs.f_blocks;
    usable = limit / fs.f_frsize;
    usable -= usable / META_PART;
    if (usable >= fs.f_bfree || usable >= total)
        return;
    snprintf(path, sizeof(path), "/sys/fs/ext4/%s/reserved_clusters",
             disk->name);
    ret = sysfile_write_u64(AT_FDCWD, path, fs.f_bfree - usable);
    if (ret)
        boot_say("cannot limit the scratch disk: %s", strerror(-ret));
}

static int mount_scratch(const struct sandbox_disk *disk, uint64_t limit,
                         int *ret_fd)
{
    char device[32];
    int fd;

    snprintf(device, sizeof(device), "/dev/%s", disk->name);
    (void)!mkdir(SCRATCH, 0755);
    if (mount(device, SCRATCH, "ext4", MS_NODEV | MS_NOATIME, NULL) < 0)
        return -errno;
    if ((mkdir(SCRATCH "/upper", 0755) < 0 && errno != EEXIST) ||
        (mkdir(SCRATCH "/work", 0755) < 0 && errno != EEXIST))
        return -errno;
    fd = open(SCRATCH "/work", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    limit_scratch(disk, fd, limit);
    *ret_fd = fd;
    return 0;
}

/* The overlay holds on to its layers: their own mounts are taken away. */
static int mount_overlay(bool writable)
{
    (void)!mkdir(BOOT_ROOT, 0755);
    if (!writable) {
        if (mount(LOWER, BOOT_ROOT, NULL, MS_MOVE, NULL) < 0)
            return -errno;
        return 0;
    }
    if (mount("overlay", BOOT_ROOT, "overlay", MS_NODEV,
              "lowerdir=" LOWER ",upperdir=" SCRATCH "/upper,workdir=" SCRATCH
              "/work") < 0)
        return -errno;
    (void)!umount2(LOWER, MNT_DETACH);
    (void)!umount2(SCRATCH, MNT_DETACH);
    return 0;
}

int boot_mount_root(struct sandbox_config *config, uint64_t scratch_limit,
                    int *ret_scratch_fd)
{
    struct sandbox_disk root, scratch;
    int scratch_fd = -1;
    int ret;

    config->disk_count = find_disks(config->disks, SANDBOX_DISKS_MAX);
    if (!take_disk(config, ROOT_SERIAL, &root))
        return -ENODEV;
    ret = mount_lower(&root);
    if (ret)
        return ret;
    if (take_disk(config, SCRATCH_SERIAL, &scratch)) {
        ret = mount_scratch(&scratch, scratch_limit, &scratch_fd);
        if (ret)
            return ret;
    }
    ret = mount_overlay(scratch_fd >= 0);
    if (ret) {
        sysfile_close(&scratch_fd);
        return ret;
    }
    config->root = BOOT_ROOT;
    *ret_scratch_fd = scratch_fd;
    return 0;
}

/* ---- two scratch disks, to be compared ---------------------------------- */

#define QUIET (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)

static int open_directory(const char *path, int *ret_fd)
{
    *ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd < 0 ? -errno : 0;
}

/* The disk at /ID, and the root below its layer at /view-ID. */
static int mount_compared(struct sandbox_config *config, const char *id,
                          struct compare_side *ret_side)
{
    char device[32], disk_path[16], upper[32], view[32], data[80];
    struct sandbox_disk disk;
    int ret;

    if (!take_disk(config, id, &disk))
        return -ENODEV;
    snprintf(device, sizeof(device), "/dev/%s", disk.name);
    snprintf(disk_path, sizeof(disk_path), "/%s", id);
    snprintf(upper, sizeof(upper), "/%s/upper", id);
    snprintf(view, sizeof(view), "/view-%s", id);
    snprintf(data, sizeof(data), "lowerdir=%s:" LOWER, upper);
    (void)!mkdir(disk_path, 0755);
    (void)!mkdir(view, 0755);
    if (mount(device, disk_path, "ext4", QUIET, NULL) < 0 ||
        mount("overlay", view, "overlay", QUIET, data) < 0)
        return -errno;
    ret = open_directory(view, &ret_side->view);
    return ret ? ret : open_directory(upper, &ret_side->upper);
}

int boot_mount_compared(struct compare_side ret_sides[2])
{
    struct sandbox_config config = {0};
    struct sandbox_disk root;
    int ret;

    config.disk_count = find_disks(config.disks, SANDBOX_DISKS_MAX);
    if (!take_disk(&config, PROTO_COMPARE_ROOT, &root))
        return -ENODEV;
    ret = mount_lower(&root);
    if (ret == 0)
        ret = mount_compared(&config, PROTO_COMPARE_A, &ret_sides[0]);
    if (ret == 0)
        ret = mount_compared(&config, PROTO_COMPARE_B, &ret_sides[1]);
    return ret;
}
