/* SPDX-License-Identifier: Apache-2.0 */
/* A fresh guest's first steps, except its disks; see the header. */
#include "guest/boot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "guest/sysfile.h"

#define MODULES "/modules"
#define ORDER_MAX 16384u /* bytes of a module list */

void boot_say(const char *format, ...)
{
    char line[256];
    va_list args;
    int len;

    len = snprintf(line, sizeof(line), "microsbx: ");
    va_start(args, format);
    vsnprintf(line + len, sizeof(line) - (size_t)len - 1, format, args);
    va_end(args);
    strcat(line, "\n");
    (void)!write(STDERR_FILENO, line, strlen(line));
}

static int mount_at(const char *type, const char *path, const char *data)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return -errno;
    /* Already there (devtmpfs by the kernel's own choice): fine. */
    if (mount(type, path, type, MS_NOSUID | MS_NOEXEC, data) < 0 &&
        errno != EBUSY)
        return -errno;
    return 0;
}

int boot_mount_proc(void)
{
    return mount_at("proc", "/proc", NULL);
}

int boot_mount_kernel(void)
{
    int ret = mount_at("sysfs", "/sys", NULL);

    if (ret == 0)
        ret = mount_at("devtmpfs", "/dev", NULL);
    if (ret == 0)
        ret = mount_at("cgroup2", BOOT_CGROUP, NULL);
    /*
     * A root workload owns the files of its own cgroup; without cgroup
     * namespaces it cannot mount cgroup2 to find them.
     */
    if (ret == 0)
        (void)!sysfile_write(AT_FDCWD, "/proc/sys/user/max_cgroup_namespaces",
                             "0");
    return ret;
}

/* ---- modules ------------------------------------------------------------ */

static void load_module(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0) {
        if (errno != EEXIST)
            boot_say("cannot load module %s: %s", name, strerror(errno));
    }
    if (fd >= 0)
        close(fd);
}

void boot_load_modules(void)
{
    static char order[ORDER_MAX];
    char path[sizeof(MODULES) + 1 + sizeof(((struct utsname *)0)->release)];
    struct utsname name;
    char *line, *rest = order;
    int dir_fd;

    if (uname(&name) < 0)
        return;
    snprintf(path, sizeof(path), MODULES "/%s", name.release);
    dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return;
    if (sysfile_read(dir_fd, "order", order, sizeof(order)) < 0)
        boot_say("no %s/order: modules are not loaded", path);
    while ((line = strsep(&rest, "\n"))) {
        if (line[0] && line[0] != '#')
            load_module(dir_fd, line);
    }
    close(dir_fd);
}

void boot_say_modules(void)
{
    struct utsname name;
    struct dirent *entry;
    DIR *dir = opendir(MODULES);

    if (!dir || uname(&name) < 0)
        goto out_close;
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, name.release) == 0)
            continue;
        boot_say("this kernel is %s; the initrd has modules for %s only",
                 name.release, entry->d_name);
        boot_say("a kernel of its own release, or one with these drivers "
                 "built in, is needed");
    }
out_close:
    if (dir)
        closedir(dir);
}

/* ---- processes ---------------------------------------------------------- */

/* The most that 64-bit Linux has numbers for (PID_MAX_LIMIT). */
#define PROCESSES_MAX 4194304u

void boot_lift_process_limits(void)
{
    static const char *const files[] = {"/proc/sys/kernel/threads-max",
                                        "/proc/sys/kernel/pid_max"};
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        int ret = sysfile_write_u64(AT_FDCWD, files[i], PROCESSES_MAX);

        if (ret)
            boot_say("cannot raise %s: %s", files[i], strerror(-ret));
    }
    if (setrlimit(RLIMIT_NPROC, &none) < 0)
        boot_say("cannot lift the limit on processes: %s", strerror(errno));
}

/* ---- the rest ----------------------------------------------------------- */

void boot_loopback_up(void)
{
    struct ifreq ifr = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return;
    if (ioctl(fd, SIOCGIFFLAGS, &ifr) == 0) {
        ifr.ifr_flags = (short)(ifr.ifr_flags | IFF_UP);
        (void)!ioctl(fd, SIOCSIFFLAGS, &ifr);
    }
    close(fd);
}

uint64_t boot_memory(const char *key)
{
    char text[4096];

    if (sysfile_read(AT_FDCWD, "/proc/meminfo", text, sizeof(text)) < 0)
        return 0;
    return sysfile_field(text, key) * 1024u;
}

void boot_power_off(void)
{
    sync();
    reboot(RB_POWER_OFF);
    /* Without a way to power off the kernel halts in there; a reboot the
       monitor treats as the end, too. */
    reboot(RB_AUTOBOOT);
    for (;;)
        pause();
}
