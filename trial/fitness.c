/* SPDX-License-Identifier: Apache-2.0 */
/* Whether this host's KVM runs Linux guests; see the header. */
#include "trial/fitness.h"

#include <errno.h>
#include <stdio.h>

#include "trial/host_stamp.h"
#include "trial/monitor.h"

#define STAMP_MAX (sizeof(struct monitor_probe) + 512)

static const char REMEDY[] =
    "run microsbx doctor for details; use a host with VT-x or AMD-V, or run "
    "inside the emulated host: scripts/kvmhost -i -- COMMAND";

static bool unfit(struct failure *f, const char *why)
{
    failure_set(f, "kvm_unfit", "/dev/kvm", REMEDY,
                "this host's KVM cannot run Linux guests: %s", why);
    return false;
}

bool fitness_judge(const struct monitor_probe *probe, struct failure *f)
{
    char why[256];

    if (probe->error == EAGAIN || probe->error == -EAGAIN) {
        monitor_fail_threads(f, -EAGAIN, "a virtual CPU");
        return false;
    }
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

/* The answer of an earlier probe: 0, or a negative errno. */
static int recall(const char *what, struct monitor_probe *ret_probe)
{
    uint8_t buf[STAMP_MAX];
    ssize_t n = host_stamp_read(what, buf, sizeof(buf));

    return n < 0 ? (int)n : monitor_probe_decode(buf, (size_t)n, ret_probe);
}

static void remember(const char *what, const struct monitor_probe *probe)
{
    uint8_t buf[STAMP_MAX];
    size_t len = 0;

    if (monitor_probe_encode(probe, buf, sizeof(buf), &len) == 0)
        host_stamp_write(what, buf, len);
}

static int ask_monitor(int kvm_fd, enum monitor_probe_depth depth,
                       struct monitor_probe *ret_probe, struct failure *f)
{
    struct monitor *m = NULL;
    int ret = monitor_spawn(&m, f);

    if (ret == 0)
        ret = monitor_probe(m, kvm_fd, depth, ret_probe, f);
    monitor_free(m);
    return ret;
}

int fitness_probe(int kvm_fd, struct monitor_probe *ret_probe,
                  struct failure *f)
{
    struct failure unfit_why;
    int ret;

    if (recall("fit", ret_probe) == 0)
        return 0;
    ret = ask_monitor(kvm_fd, MONITOR_PROBE_ALL, ret_probe, f);
    /* That it is unfit is not: somebody may mend it. */
    if (ret == 0 && fitness_judge(ret_probe, &unfit_why))
        remember("fit", ret_probe);
    return ret;
}

int fitness_probe_cpu(int kvm_fd, struct monitor_probe *ret_probe,
                      struct failure *f)
{
    int ret;

    if (recall("fit", ret_probe) == 0 || recall("cpu", ret_probe) == 0)
        return 0;
    ret = ask_monitor(kvm_fd, MONITOR_PROBE_CPU, ret_probe, f);
    if (ret == 0 && ret_probe->error == 0 && ret_probe->missing_count == 0)
        remember("cpu", ret_probe);
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

static const char *name_cpu(const char *state_sha256, char name[80])
{
    snprintf(name, 80, "cpu-%.64s", state_sha256);
    return name;
}

bool fitness_cpu_known(const char *state_sha256)
{
    char name[80], none;

    return host_stamp_read(name_cpu(state_sha256, name), &none, 0) == 0;
}

void fitness_cpu_remember(const char *state_sha256)
{
    char name[80];

    if (!fitness_cpu_known(state_sha256))
        host_stamp_write(name_cpu(state_sha256, name), "", 0);
}
