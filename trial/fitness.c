/* SPDX-License-Identifier: Apache-2.0 */
/* Whether this host's KVM runs Linux guests; see the header. */
#include "trial/fitness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/whole_file.h"
#include "trial/monitor.h"

#define STAMP_MAX (sizeof(struct monitor_probe) + 512)

static const char REMEDY[] =
    "run microsbx doctor for details; use a host with VT-x or AMD-V, or run "
    "inside the emulated host: scripts/kvmhost -- COMMAND";

static bool unfit(struct failure *f, const char *why)
{
    failure_set(f, "kvm_unfit", "/dev/kvm", REMEDY,
                "this host's KVM cannot run Linux guests: %s", why);
    return false;
}

bool fitness_judge(const struct monitor_probe *probe, struct failure *f)
{
    char why[256];

    if (probe->error != 0) {
        snprintf(why, sizeof(why), "%.200s", probe->text);
        return unfit(f, why);
    }
    if (probe->missing_count > 0) {
        snprintf(why, sizeof(why), "it lacks %s (and %u more)",
                 probe->missing[0], probe->missing_count - 1);
        return unfit(f, why);
    }
    if (probe->guest_runs != PROBE_WORKS)
        return unfit(f, "not even a guest of a few instructions runs");
    if (probe->cmpxchg16b == PROBE_FAILS || probe->int3 == PROBE_FAILS)
        return unfit(f, "guest kernel code is interpreted, and CMPXCHG16B or "
                        "INT3 fails in it");
    if (probe->cpl0_instructions_per_second < FITNESS_CPL0_MIN)
        return unfit(f, "guest kernel code is interpreted, a thousand times "
                        "too slowly");
    return true;
}

/* Where something is remembered: named by this boot of the host. */
static bool stamp_path(const char *what, char *buf, size_t size)
{
    const char *dir = getenv("XDG_RUNTIME_DIR");
    char boot_id[37] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, boot_id, 36);

    io_close(&fd);
    if (!dir || dir[0] != '/' || n != 36)
        return false;
    snprintf(buf, size, "%s/microsbx", dir);
    mkdir(buf, 0700);
    snprintf(buf, size, "%s/microsbx/%s-%s", dir, what, boot_id);
    return true;
}

/* The answer of an earlier probe: 0, or a negative errno. */
static int read_stamp(const char *path, struct monitor_probe *ret_probe)
{
    uint8_t buf[STAMP_MAX];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -errno : io_read_full(fd, buf, sizeof(buf));

    io_close(&fd);
    if (n < 0)
        return (int)n;
    return monitor_probe_decode(buf, (size_t)n, ret_probe);
}

/* A failure is none: the next one probes again. */
static void write_stamp(const char *path, const struct monitor_probe *probe)
{
    uint8_t buf[STAMP_MAX];
    size_t len = 0;

    if (monitor_probe_encode(probe, buf, sizeof(buf), &len) == 0)
        (void)!whole_file_write(path, buf, len);
}

int fitness_probe(int kvm_fd, struct monitor_probe *ret_probe,
                  struct failure *f)
{
    struct failure unfit_why;
    struct monitor *m = NULL;
    char stamp[4096];
    bool have_stamp = stamp_path("fit", stamp, sizeof(stamp));
    int ret;

    if (have_stamp && read_stamp(stamp, ret_probe) == 0)
        return 0;
    ret = monitor_spawn(&m, f);
    if (ret == 0)
        ret = monitor_probe(m, kvm_fd, ret_probe, f);
    monitor_free(m);
    if (ret == 0 && have_stamp && fitness_judge(ret_probe, &unfit_why))
        write_stamp(stamp, ret_probe);
    return ret;
}

int fitness_require(int kvm_fd, struct failure *f)
{
    struct monitor_probe probe;
    int ret = fitness_probe(kvm_fd, &probe, f);

    if (ret == 0 && !fitness_judge(&probe, f))
        ret = -ENODEV;
    return ret;
}

/* ---- a snapshot's CPU --------------------------------------------------- */

static bool cpu_stamp_path(const char *state_sha256, char *buf, size_t size)
{
    char what[80];

    snprintf(what, sizeof(what), "cpu-%.64s", state_sha256);
    return stamp_path(what, buf, size);
}

bool fitness_cpu_known(const char *state_sha256)
{
    char path[4096];
    struct stat st;

    return cpu_stamp_path(state_sha256, path, sizeof(path)) &&
           lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
           st.st_uid == geteuid();
}

void fitness_cpu_remember(const char *state_sha256)
{
    char path[4096];

    if (!fitness_cpu_known(state_sha256) &&
        cpu_stamp_path(state_sha256, path, sizeof(path)))
        (void)!whole_file_write(path, "", 0);
}
