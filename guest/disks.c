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
#include <unistd.h>

#include "guest/sysfile.h"

#define LOWER "/lower"     /* the read-only root */
#define SCRATCH "/scratch" /* upper/ and work/ of the overlay */
#define ROOT_SERIAL "root"
#define SCRATCH_SERIAL "scratch"

#define EROFS_MAGIC 0xe0f5e1e2u
#define EROFS_OFFSET 1024
#define SQUASHFS_MAGIC 0x73717368u /* "hsqs" */

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

/* The scratch disk, with the folders that an overlay wants on it. */
static int mount_scratch(const struct sandbox_disk *disk, uint64_t limit,
                         struct scratch *ret_scratch)
{
    int ret = scratch_mount(disk->name, limit, SCRATCH, ret_scratch);

    if (ret)
        return ret;
    if ((mkdir(SCRATCH "/upper", 0755) < 0 && errno != EEXIST) ||
        (mkdir(SCRATCH "/work", 0755) < 0 && errno != EEXIST))
        return -errno;
    return 0;
}

/*
 * The overlay holds on to its layers: their own mounts are taken away. A folder
 * of the image can be renamed (redirect_dir), and a file has one inode number,
 * whichever call asks for it (xino): programs expect both.
 */
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
              "/work,redirect_dir=on,xino=on") < 0)
        return -errno;
    (void)!umount2(LOWER, MNT_DETACH);
    (void)!umount2(SCRATCH, MNT_DETACH);
    return 0;
}

int boot_mount_root(struct sandbox_config *config, uint64_t limit,
                    struct scratch *ret_scratch)
{
    struct sandbox_disk root, disk;
    struct scratch scratch = {.fd = -1};
    int ret;

    config->disk_count = find_disks(config->disks, SANDBOX_DISKS_MAX);
    if (!take_disk(config, ROOT_SERIAL, &root))
        return -ENODEV;
    ret = mount_lower(&root);
    if (ret == 0 && take_disk(config, SCRATCH_SERIAL, &disk))
        ret = mount_scratch(&disk, limit, &scratch);
    if (ret == 0)
        ret = mount_overlay(scratch.fd >= 0);
    if (ret) {
        sysfile_close(&scratch.fd);
        return ret;
    }
    config->root = BOOT_ROOT;
    *ret_scratch = scratch;
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
    char device[32], disk_path[16], upper[32], view[32], data[112];
    struct sandbox_disk disk;
    int ret;

    if (!take_disk(config, id, &disk))
        return -ENODEV;
    snprintf(device, sizeof(device), "/dev/%s", disk.name);
    snprintf(disk_path, sizeof(disk_path), "/%s", id);
    snprintf(upper, sizeof(upper), "/%s/upper", id);
    snprintf(view, sizeof(view), "/view-%s", id);
    snprintf(data, sizeof(data), "lowerdir=%s:" LOWER ",redirect_dir=follow",
             upper);
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
