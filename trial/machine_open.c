/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens what a machine is made of. Every path the user gave is opened here,
 * once, and checked on the descriptor; the monitor gets only descriptors.
 */
#include "trial/machine_spec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "base/units.h"
#include "trial/kernel_platform.h"
#include "trial/kvm_open.h"
#include "trial/machine_parts.h"
#include "trial/snapshot.h"

#define SECTOR 512
#define VSOCK_BACKLOG 128

/* Opens a regular file to be read: kernel or initrd. */
static int open_part(const char *what, const char *path, int *ret_fd,
                     struct failure *f)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    const char *why = NULL;
    struct stat st;
    int ret = 0;

    if (fd < 0) {
        ret = -errno;
        why = strerror(errno);
    } else if (fstat(fd, &st) != 0) {
        ret = -errno;
        why = strerror(errno);
    } else if (S_ISDIR(st.st_mode)) {
        ret = -EISDIR;
        why = "it is a directory";
    } else if (!S_ISREG(st.st_mode)) {
        ret = -EINVAL;
        why = "it is not a regular file";
    } else if (st.st_size == 0) {
        ret = -EINVAL;
        why = "the file is empty";
    }
    if (ret != 0) {
        io_close(&fd);
        failure_set(f, what, path, failure_remedy(ret, "check the path given"),
                    "cannot open the %s %s: %s", what, path, why);
        return ret;
    }
    *ret_fd = fd;
    return 0;
}

static int fail_disk(const char *path, const char *why, const char *remedy,
                     int error, struct failure *f)
{
    failure_set(f, "disk", path, failure_remedy(error, remedy),
                "cannot use the disk %s: %s", path, why);
    return error;
}

/* A disk's file is a non-empty multiple of sectors, or a block device. */
static int check_disk_file(int fd, const char *path, struct failure *f)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return fail_disk(path, strerror(errno), "check the file", -errno, f);
    if (S_ISDIR(st.st_mode))
        return fail_disk(path, "it is a directory", "give a file", -EISDIR, f);
    if (S_ISBLK(st.st_mode))
        return 0;
    if (!S_ISREG(st.st_mode))
        return fail_disk(path, "it is neither a file nor a block device",
                         "give a raw disk image", -EINVAL, f);
    if (st.st_size == 0)
        return fail_disk(path, "it has zero bytes",
                         "make it larger, for example truncate -s 64M FILE",
                         -EINVAL, f);
    if (st.st_size % SECTOR != 0)
        return fail_disk(path, "its size is not a multiple of 512 bytes",
                         "give a raw disk image, or truncate it to a "
                         "multiple of 512",
                         -EINVAL, f);
    return 0;
}

/*
 * A writable disk is locked exclusively, any other shared, for as long as the
 * descriptor lives (the monitor's copy included). A file system that has no
 * locks is no reason to refuse a disk that is only read.
 */
static int lock_disk(int fd, const char *path, bool writable, struct failure *f)
{
    if (flock(fd, (writable ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return fail_disk(path,
                         writable ? "it is in use, and rw needs it alone"
                                  : "a machine has it open for writing",
                         "end the other machine, or use cow on both sides",
                         -EBUSY, f);
    if (!writable)
        return 0;
    return fail_disk(path, "its file system has no locks, which rw needs",
                     "copy the file elsewhere, or use cow", -errno, f);
}

/* An unlinked file for the changed clusters, or memory. */
int machine_open_overlay(bool in_memory, int *ret_fd, struct failure *f)
{
    const char *dir = getenv("TMPDIR");
    char path[4096];
    int fd;

    if (!dir || dir[0] != '/')
        dir = "/var/tmp";
    if (in_memory) {
        fd = memfd_create("microsbx-overlay", MFD_CLOEXEC);
    } else {
        fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0) {
            /* File systems without O_TMPFILE: a name for a moment. */
            snprintf(path, sizeof(path), "%s/microsbx-overlay-XXXXXX", dir);
            fd = mkostemp(path, O_CLOEXEC);
            if (fd >= 0)
                unlink(path);
        }
    }
    if (fd < 0) {
        int error = errno;
        /* Room and permissions there are the user's to choose. */
        bool place = error != EMFILE && error != ENFILE && error != ENOMEM;
        const char *elsewhere = "set TMPDIR to a writable folder with room, or "
                                "use --overlay memory";

        failure_set(f, "overlay", dir,
                    place ? elsewhere : failure_remedy(error, elsewhere),
                    "cannot make a disk overlay in %s: %s",
                    in_memory ? "memory" : dir, strerror(error));
        return -error;
    }
    *ret_fd = fd;
    return 0;
}

/* Adds one disk to the configuration; path is kept for messages. */
static int add_disk(struct machine *m, const struct machine_spec *spec,
                    const char *path, const char *id, enum vm_disk_mode mode,
                    struct failure *f)
{
    struct vm_config *c = &m->config;
    struct vm_disk *disk = &c->disks[c->disk_count];
    int flags = mode == VM_DISK_RW ? O_RDWR : O_RDONLY;
    int fd, ret;

    if (c->disk_count == VM_DISKS_MAX)
        return fail_disk(path, "there are too many disks",
                         "a machine has 8 disks, of which an image takes 2",
                         -EINVAL, f);
    fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return fail_disk(
            path, errno == EISDIR ? "it is a directory" : strerror(errno),
            "check the path given", -errno, f);
    ret = check_disk_file(fd, path, f);
    if (ret == 0)
        ret = lock_disk(fd, path, mode == VM_DISK_RW, f);
    if (ret == 0 && mode == VM_DISK_COW)
        ret =
            machine_open_overlay(spec->overlay_in_memory, &disk->overlay_fd, f);
    m->disk_paths[c->disk_count] = strdup(path);
    if (ret == 0 && !m->disk_paths[c->disk_count])
        ret = fail_disk(path, "out of memory", NULL, -ENOMEM, f);
    if (ret != 0) {
        io_close(&fd);
        io_close(&disk->overlay_fd);
        return ret;
    }
    disk->fd = fd;
    disk->mode = mode;
    disk->overlay_limit = mode == VM_DISK_COW ? spec->disk_limit : 0;
    snprintf(disk->id, sizeof(disk->id), "%s", id);
    c->disk_count++;
    return 0;
}

/* The file twice, once writable: both machines' views would tear. */
static int check_disk_twice(const struct machine_spec *spec, struct failure *f)
{
    struct stat a, b;

    for (unsigned i = 0; i < spec->disk_count; i++) {
        for (unsigned k = i + 1; k < spec->disk_count; k++) {
            const struct disk_spec *p = &spec->disks[i], *q = &spec->disks[k];

            if (p->mode != VM_DISK_RW && q->mode != VM_DISK_RW)
                continue;
            if (stat(p->path, &a) != 0 || stat(q->path, &b) != 0)
                continue; /* opening it will say so */
            if (a.st_dev == b.st_dev && a.st_ino == b.st_ino)
                return fail_disk(
                    q->path, "it is given twice, and once writable",
                    "give it once, or cow or ro both times", -EINVAL, f);
        }
    }
    return 0;
}

static int open_disks(struct machine *m, const struct machine_spec *spec,
                      struct failure *f)
{
    int ret = check_disk_twice(spec, f);

    if (ret == 0 && m->has_image)
        ret = add_disk(m, spec, m->image.rootfs.path, "root", VM_DISK_RO, f);
    if (ret == 0 && m->has_image)
        ret = add_disk(m, spec, m->image.scratch.path, IMAGE_SCRATCH_ID,
                       VM_DISK_COW, f);
    for (unsigned i = 0; ret == 0 && i < spec->disk_count; i++) {
        const struct disk_spec *disk = &spec->disks[i];
        char id[VM_DISK_ID_MAX + 1];

        snprintf(id, sizeof(id), "disk%u", i);
        ret = add_disk(m, spec, disk->path, disk->id[0] ? disk->id : id,
                       disk->mode, f);
    }
    return ret;
}

static int fail_vsock(const char *path, const char *why, const char *remedy,
                      struct failure *f)
{
    failure_set(f, "vsock", path, remedy,
                "cannot listen on the vsock socket %s: %s", path, why);
    return -EINVAL;
}

int machine_open_vsock(struct machine *m, const char *path, struct failure *f)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof(addr.sun_path))
        return fail_vsock(path, "the path is too long (107 bytes at most)",
                          "give a shorter path", f);
    strcpy(addr.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail_vsock(path, strerror(errno), failure_remedy(errno, NULL),
                          f);
    if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        int error = errno;

        io_close(&fd);
        if (error == EADDRINUSE)
            return fail_vsock(path, "it exists already",
                              "end the machine that has it, or remove it", f);
        if (error == ENOENT)
            return fail_vsock(path, "its folder does not exist",
                              "make the folder first", f);
        return fail_vsock(path, strerror(error),
                          failure_remedy(error, "choose another path"), f);
    }
    m->vsock_path = strdup(path);
    if (!m->vsock_path || listen(fd, VSOCK_BACKLOG) != 0) {
        unlink(path);
        io_close(&fd);
        return fail_vsock(path, strerror(errno), NULL, f);
    }
    m->config.vsock_listen_fd = fd;
    return 0;
}

/* Memory within what the format, the device models and the host can do. */
static int check_memory(uint64_t bytes, struct failure *f)
{
    struct sysinfo info;
    char asked[32], have[32];

    units_format_size(bytes, asked, sizeof(asked));
    if (bytes < VM_MEMORY_MIN) {
        failure_set(f, "memory", asked, "give at least --memory 32M",
                    "cannot make a machine with %s of memory: too little",
                    asked);
        return -EINVAL;
    }
    if (bytes % VM_MEMORY_ALIGN != 0) {
        failure_set(f, "memory", asked, "give an even number of MiB",
                    "cannot make a machine with %s of memory: it is not a "
                    "multiple of 2 MiB",
                    asked);
        return -EINVAL;
    }
    if (sysinfo(&info) != 0)
        return 0;
    if (bytes > (uint64_t)info.totalram * info.mem_unit) {
        units_format_size((uint64_t)info.totalram * info.mem_unit, have,
                          sizeof(have));
        failure_set(f, "memory", asked, "give less --memory",
                    "cannot make a machine with %s of memory: this host has "
                    "%s",
                    asked, have);
        return -ENOMEM;
    }
    return 0;
}

static int check_cpus(uint64_t count, struct failure *f)
{
    if (count >= 1 && count <= VM_CPUS_MAX)
        return 0;
    failure_set(f, "cpus", "--cpus", "give a number from 1 to 64",
                "cannot make a machine with %llu CPUs",
                (unsigned long long)count);
    return -EINVAL;
}

/*
 * The overlay refuses writes beyond its limit with an I/O error, all a disk
 * can say; told of the limit, the agent has ext4 say "no space left" before.
 */
static int append_scratch_limit(struct machine *m, uint64_t limit,
                                struct failure *f)
{
    char word[64];

    snprintf(word, sizeof(word), "microsbx.scratch_limit=%llu",
             (unsigned long long)limit);
    return machine_append(m, word, f);
}

/* Kernel, initrd and command line, from the image or the user. */
static int open_kernel(struct machine *m, const struct machine_spec *spec,
                       struct failure *f)
{
    const char *kernel = spec->kernel;
    const char *initrd = spec->initrd;
    const char *cmdline = "console=ttyS0 panic=-1 reboot=k";
    int ret;

    if (m->has_image) {
        cmdline = m->image.cmdline;
        kernel = kernel ? kernel : m->image.kernel.path;
        initrd = initrd ? initrd : m->image.initrd.path;
    }
    if (spec->cmdline)
        cmdline = spec->cmdline;
    if (!kernel) {
        failure_set(f, "usage", "--kernel",
                    "give --image NAME (microsbx image ls) or --kernel FILE",
                    "there is nothing to boot: no image and no kernel given");
        return -EINVAL;
    }
    m->kernel_path = strdup(kernel);
    m->initrd_path = initrd ? strdup(initrd) : NULL;
    if (!m->kernel_path || (initrd && !m->initrd_path)) {
        failure_set(f, "host", "memory", NULL, "out of memory");
        return -ENOMEM;
    }
    ret = open_part("kernel", kernel, &m->config.kernel_fd, f);
    if (ret == 0 && initrd)
        ret = open_part("initrd", initrd, &m->config.initrd_fd, f);
    if (ret == 0)
        ret = machine_append(m, cmdline, f);
    if (ret == 0 && m->has_image)
        ret = append_scratch_limit(m, spec->disk_limit, f);
    if (ret == 0 && !m->has_image && spec->root && !strstr(cmdline, "root="))
        ret = machine_append(m, spec->root, f);
    if (ret == 0 && spec->append)
        ret = machine_append(m, spec->append, f);
    return ret;
}

static int choose_platform(struct machine *m, const struct machine_spec *spec,
                           struct failure *f)
{
    enum vm_platform *platform = &m->config.platform;

    if (spec->platform == MACHINE_PLATFORM_AUTO)
        return kernel_choose_platform(m->config.kernel_fd, m->kernel_path,
                                      platform, f);
    *platform = spec->platform == MACHINE_PLATFORM_ACPI
                    ? VM_PLATFORM_ACPI
                    : VM_PLATFORM_DEVICE_TREE;
    return 0;
}

static int open_image(struct machine *m, const char *name, struct failure *f)
{
    char err[IMAGE_ERR_MAX];
    char *dir = NULL;
    int ret = image_find(name, &dir, err, sizeof(err));

    if (ret == 0)
        ret = image_open(dir, &m->image, err, sizeof(err));
    if (ret != 0)
        failure_set(f, "image", name,
                    "microsbx image ls lists images; microsbx image build "
                    "makes one",
                    "%s", err);
    else
        m->has_image = true;
    free(dir);
    return ret;
}

int machine_open(const struct machine_spec *spec, struct machine *ret_machine,
                 struct failure *f)
{
    struct machine *m = ret_machine;
    int ret;

    memset(m, 0, sizeof(*m));
    vm_config_init(&m->config);
    ret = check_memory(spec->memory_bytes, f);
    if (ret == 0)
        ret = check_cpus(spec->cpu_count, f);
    if (ret == 0 && spec->image)
        ret = open_image(m, spec->image, f);
    if (ret == 0)
        ret = open_kernel(m, spec, f);
    if (ret == 0)
        ret = choose_platform(m, spec, f);
    if (ret == 0)
        ret = open_disks(m, spec, f);
    if (ret == 0 && spec->vsock_path)
        ret = machine_open_vsock(m, spec->vsock_path, f);
    if (ret == 0)
        ret = kvm_open(&m->config.kvm_fd, f);
    if (ret != 0) {
        machine_close(m);
        return ret;
    }
    m->config.memory_bytes = spec->memory_bytes;
    m->config.cpu_count = (uint32_t)spec->cpu_count;
    m->config.debug_exit = spec->debug_exit;
    m->guest_cid = spec->guest_cid;
    if (spec->vsock_path)
        machine_add_vsock(m);
    return 0;
}

void machine_add_vsock(struct machine *machine)
{
    machine->config.vsock = true;
    machine->config.vsock_dial = true;
    machine->config.guest_cid = machine->guest_cid;
}

void machine_close(struct machine *machine)
{
    if (machine->vsock_path)
        unlink(machine->vsock_path);
    free(machine->vsock_path);
    free(machine->kernel_path);
    free(machine->initrd_path);
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        free(machine->disk_paths[i]);
    image_fini(&machine->image);
    vm_config_fini(&machine->config);
    memset(machine, 0, sizeof(*machine));
    vm_config_init(&machine->config);
}

struct monitor_names machine_names(const struct machine *machine)
{
    return (struct monitor_names){
        .kernel = machine->kernel_path,
        .initrd = machine->initrd_path,
        .disks = (const char *const *)machine->disk_paths,
        .snapshot = machine->snapshot ? machine->snapshot->dir : NULL,
    };
}

int machine_append(struct machine *machine, const char *words,
                   struct failure *f)
{
    char *line = machine->config.cmdline;
    size_t used = strlen(line);
    int n = snprintf(line + used, VM_CMDLINE_MAX + 1 - used, "%s%s",
                     used > 0 && words[0] ? " " : "", words);

    if (used + (size_t)n <= VM_CMDLINE_MAX)
        return 0;
    line[used] = '\0';
    failure_set(f, "usage", "--append", "shorten it",
                "the kernel command line is longer than %u bytes",
                VM_CMDLINE_MAX);
    return -E2BIG;
}
