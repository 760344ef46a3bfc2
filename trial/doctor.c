/* SPDX-License-Identifier: Apache-2.0 */
/* Findings about this host; see the header. */
#include "trial/doctor.h"

#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/fitness.h"
#include "trial/host.h"
#include "trial/kvm_open.h"
#include "trial/monitor.h"

#define CGROUP2_MAGIC 0x63677270
#define KVM_API_VERSION_WANTED 12

static void add(struct doctor *d, enum finding_level level, const char *name,
                const char *remedy, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static void add(struct doctor *d, enum finding_level level, const char *name,
                const char *remedy, const char *format, ...)
{
    struct finding *f;
    va_list args;

    if (d->count == DOCTOR_FINDINGS_MAX)
        return;
    f = &d->findings[d->count++];
    f->level = level;
    snprintf(f->name, sizeof(f->name), "%s", name);
    snprintf(f->remedy, sizeof(f->remedy), "%s", remedy ? remedy : "");
    va_start(args, format);
    vsnprintf(f->text, sizeof(f->text), format, args);
    va_end(args);
}

static void look_at_host(struct doctor *d)
{
    const char *emulator = host_emulator();
    char model[64];

    host_cpu_model(model, sizeof(model));
    add(d, FINDING_OK, "cpu", NULL, "%s", model);
    if (emulator)
        add(d, FINDING_NOTE, "host",
            "use it for tests only; measure on hardware",
            "this host's CPU is emulated (%s): times are not "
            "representative",
            emulator);
    else
        add(d, FINDING_OK, "host", NULL, "native: its CPU is not emulated");
}

static void judge_probe(struct doctor *d, const struct monitor_probe *p)
{
    static const char *const WORDS[] = {"was not tested", "works", "fails"};
    const struct {
        const char *name;
        enum probe_result result;
        bool needed;
    } tests[] = {
        {"xsave", p->xsave, false},
        {"cmpxchg16b", p->cmpxchg16b, true},
        {"int3", p->int3, true},
    };
    double rate = (double)p->cpl0_instructions_per_second / 1e6;

    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        bool fails = tests[i].result == PROBE_FAILS;

        add(d,
            tests[i].result == PROBE_WORKS ? FINDING_OK
            : fails && tests[i].needed     ? FINDING_FAIL
                                           : FINDING_NOTE,
            tests[i].name,
            fails ? tests[i].needed ? "use a host with VT-x or AMD-V"
                                    : "guests are told not to use it"
                  : NULL,
            "%s in guest kernel code (CPL 0)", WORDS[tests[i].result]);
    }
    if (p->guest_runs != PROBE_WORKS)
        add(d, FINDING_FAIL, "guest_kernel", "use a host with VT-x or AMD-V",
            "a guest of a few instructions does not run");
    else if (p->cpl0_instructions_per_second < FITNESS_CPL0_MIN)
        add(d, FINDING_FAIL, "guest_kernel",
            "use a host with VT-x or AMD-V, or the emulated host: "
            "scripts/kvmhost -i -- COMMAND",
            "guest kernel code is interpreted: %.1f million instructions a "
            "second",
            rate);
    else
        add(d, FINDING_OK, "guest_kernel", NULL,
            "guest kernel code runs at %.0f million instructions a second",
            rate);
}

static void judge_kvm(struct doctor *d, const struct monitor_probe *p)
{
    if (p->api_version == KVM_API_VERSION_WANTED)
        add(d, FINDING_OK, "kvm_api", NULL, "version %d", p->api_version);
    else
        add(d, FINDING_FAIL, "kvm_api", "use Linux 5.10 or newer",
            "version %d, not %d", p->api_version, KVM_API_VERSION_WANTED);
    for (uint32_t i = 0; i < p->missing_count && i < PROBE_MISSING_MAX; i++)
        add(d, FINDING_FAIL, "kvm_capability", "use Linux 5.10 or newer",
            "%s is missing", p->missing[i]);
    if (p->missing_count == 0)
        add(d, FINDING_OK, "kvm_capability", NULL, "all that are needed");
    add(d, p->tsc_deadline ? FINDING_OK : FINDING_NOTE, "tsc_deadline",
        p->tsc_deadline ? NULL : "guests get a PIT instead",
        "TSC deadline timer %s", p->tsc_deadline ? "present" : "missing");
    add(d, FINDING_OK, "vcpus", NULL, "up to %u virtual CPUs a machine",
        p->vcpus_max);
    add(d, FINDING_OK, "nested", NULL,
        "nested virtualisation is %s by KVM; guests never get it",
        p->svm_or_vmx_in_guest_cpuid ? "on offer" : "not on offer");
    judge_probe(d, p);
}

static void look_at_kvm(struct doctor *d)
{
    int fd = -1;
    struct monitor *m = NULL;
    struct monitor_probe probe;
    struct failure f = {0};
    int ret = kvm_open(&fd, &f);

    if (ret != 0) {
        /* Too few descriptors, say, tell nothing of KVM. */
        add(d, strcmp(f.code, "host") ? FINDING_FAIL : FINDING_UNKNOWN, "kvm",
            f.remedy, "%s", f.message);
        return;
    }
    add(d, FINDING_OK, "kvm", NULL, "/dev/kvm is there and may be used");
    ret = monitor_spawn(&m, &f);
    if (ret == 0)
        ret = monitor_probe(m, fd, MONITOR_PROBE_ALL, &probe, &f);
    monitor_free(m);
    close(fd);
    if (ret != 0)
        add(d, FINDING_UNKNOWN, "probe", f.remedy, "%s", f.message);
    else if (probe.error != 0)
        add(d, FINDING_FAIL, "probe",
            failure_remedy(probe.error, "look at the kernel's log"),
            "%.200s: %s", probe.text, strerror(abs(probe.error)));
    else
        judge_kvm(d, &probe);
}

/* The first line of /proc/swaps is a heading; another means swap. */
static void look_at_swap(struct doctor *d)
{
    char text[512];
    int fd = open("/proc/swaps", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    const char *heading;

    io_close(&fd);
    text[n > 0 ? n : 0] = '\0';
    heading = strchr(text, '\n');
    if (heading && heading[1] != '\0')
        add(d, FINDING_NOTE, "swap", "swapoff -a",
            "swap is on: guests' memory may reach a disk");
    else
        add(d, FINDING_OK, "swap", NULL, "no swap");
}

static void look_at_sharing(struct doctor *d)
{
    char line[64];

    if (host_has_smt())
        add(d, FINDING_NOTE, "smt",
            "boot the host with nosmt if trials of "
            "different owners run side by side",
            "hardware threads share cores: side channels between machines");
    else
        add(d, FINDING_OK, "smt", NULL, "no hardware threads share a core");
    if (host_read_line("/sys/kernel/mm/ksm/run", line, sizeof(line)) == 0 &&
        line[0] == '1')
        add(d, FINDING_NOTE, "ksm", "echo 0 > /sys/kernel/mm/ksm/run",
            "kernel same-page merging is on: a guest can tell what others "
            "hold");
    else
        add(d, FINDING_OK, "ksm", NULL, "kernel same-page merging is off");
}

/* Tries it in a child, as a jail would. */
static void look_at_namespaces(struct doctor *d)
{
    pid_t pid = fork();
    int status = 1;

    if (pid == 0)
        _exit(unshare(CLONE_NEWUSER) == 0 ? 0 : 1);
    if (pid > 0)
        waitpid(pid, &status, 0);
    if (status == 0)
        add(d, FINDING_OK, "user_namespaces", NULL, "can be made");
    else
        add(d, FINDING_NOTE, "user_namespaces",
            "sysctl kernel.unprivileged_userns_clone=1, or run as root",
            "cannot be made: a jail will be weaker");
}

static void look_at_cgroups(struct doctor *d)
{
    struct statfs fs;

    if (statfs("/sys/fs/cgroup", &fs) == 0 && fs.f_type == CGROUP2_MAGIC)
        add(d, FINDING_OK, "cgroup_v2", NULL, "mounted at /sys/fs/cgroup");
    else
        add(d, FINDING_NOTE, "cgroup_v2",
            "boot with systemd.unified_cgroup_hierarchy=1",
            "not mounted at /sys/fs/cgroup: the host's own limits on a "
            "monitor cannot be set");
}

void doctor_examine(struct doctor *ret_doctor)
{
    memset(ret_doctor, 0, sizeof(*ret_doctor));
    look_at_host(ret_doctor);
    look_at_kvm(ret_doctor);
    look_at_sharing(ret_doctor);
    look_at_swap(ret_doctor);
    look_at_namespaces(ret_doctor);
    look_at_cgroups(ret_doctor);
}

enum doctor_verdict doctor_verdict(const struct doctor *doctor)
{
    enum doctor_verdict verdict = DOCTOR_FIT;

    for (size_t i = 0; i < doctor->count; i++) {
        if (doctor->findings[i].level == FINDING_FAIL)
            return DOCTOR_UNFIT;
        if (doctor->findings[i].level == FINDING_UNKNOWN)
            verdict = DOCTOR_UNKNOWN;
    }
    return verdict;
}
