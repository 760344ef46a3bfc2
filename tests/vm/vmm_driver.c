/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs one machine on the bare monitor: console to stdout, how it ended to
 * stderr. For tests and measurements that want no harness in between.
 *
 *   vmm_driver [-m MIB] [-c CPUS] [-t SECONDS] [-D] [-S] [-a CMDLINE]
 *              [-i INITRD] [-d FILE[,ro|rw|cow]]... KERNEL
 *   vmm_driver -P
 *
 * -D describes the machine by device tree instead of ACPI, -S prints the
 * statistics, -P measures the host instead. The exit status is 0 for a
 * power-off, 3 for any other end, 1 for a machine that was refused, 4 when the
 * time was over.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "tests/vmm_process.h"

struct driver {
    struct vmm_process vmm;
    struct vm_config config;
    int console; /* our end of the console's pipe; -1 once at its end */
    unsigned timeout_s;
    bool stats;
    uint64_t started_ns; /* before the monitor's exec */
    uint64_t ready_ns;
    bool timed_out;
};

static int fail(const char *what, int error)
{
    fprintf(stderr, "vmm_driver: %s: %s\n", what, strerror(-error));
    return 1;
}

static int open_or_die(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);

    if (fd < 0)
        exit(fail(path, -errno));
    return fd;
}

static void add_disk(struct driver *d, char *spec)
{
    struct vm_disk *disk = &d->config.disks[d->config.disk_count];
    char *mode = strchr(spec, ',');

    if (d->config.disk_count == VM_DISKS_MAX)
        exit(fail("too many disks", -E2BIG));
    if (mode)
        *mode++ = '\0';
    disk->mode = !mode || strcmp(mode, "cow") == 0 ? VM_DISK_COW
                 : strcmp(mode, "rw") == 0         ? VM_DISK_RW
                                                   : VM_DISK_RO;
    disk->fd = open_or_die(spec, disk->mode == VM_DISK_RW ? O_RDWR : O_RDONLY);
    if (disk->mode == VM_DISK_COW)
        disk->overlay_fd = memfd_create("overlay", MFD_CLOEXEC);
    snprintf(disk->id, sizeof(disk->id), "disk%u", d->config.disk_count++);
}

static void parse_options(struct driver *d, int argc, char **argv,
                          bool *ret_probe)
{
    int c;

    while ((c = getopt(argc, argv, "m:c:t:a:i:d:DSP")) != -1) {
        switch (c) {
        case 'm':
            d->config.memory_bytes = strtoull(optarg, NULL, 10) << 20;
            break;
        case 'c':
            d->config.cpu_count = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 't':
            d->timeout_s = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'a':
            snprintf(d->config.cmdline, sizeof(d->config.cmdline), "%s",
                     optarg);
            break;
        case 'i':
            d->config.initrd_fd = open_or_die(optarg, O_RDONLY);
            break;
        case 'd':
            add_disk(d, optarg);
            break;
        case 'D':
            d->config.platform = VM_PLATFORM_DEVICE_TREE;
            break;
        case 'S':
            d->stats = true;
            break;
        case 'P':
            *ret_probe = true;
            break;
        default:
            exit(2);
        }
    }
}

/* ---- the probe ---- */

static const char *word(enum probe_result r)
{
    return r == PROBE_WORKS ? "works" : r == PROBE_FAILS ? "fails" : "untested";
}

static void print_probe(const struct monitor_probe *p)
{
    printf("error %d %s\n", p->error, p->text);
    printf("api %d vcpus %u tsc_deadline %d dirty_ring %d nested %d\n",
           p->api_version, p->vcpus_max, p->tsc_deadline, p->dirty_log_ring,
           p->svm_or_vmx_in_guest_cpuid);
    for (uint32_t i = 0; i < p->missing_count; i++)
        printf("missing %s\n", p->missing[i]);
    printf("guest %s, %" PRIu64 " instructions/s at CPL 0\n",
           word(p->guest_runs), p->cpl0_instructions_per_second);
    printf("xsave %s cmpxchg16b %s int3 %s\n", word(p->xsave),
           word(p->cmpxchg16b), word(p->int3));
    printf("cpu %s, %s\n", p->cpu_vendor, p->cpu_model);
}

static int run_probe(struct driver *d)
{
    struct monitor_probe probe;
    struct msg m;
    const uint8_t all[4] = {MONITOR_PROBE_ALL};
    int ret = msg_send(d->vmm.sock, MONITOR_PROBE, all, sizeof(all),
                       &d->config.kvm_fd, 1);

    if (ret == 0)
        ret = vmm_process_receive(&d->vmm, &m, 30000);
    if (ret != 1 || m.type != MONITOR_PROBE_RESULT ||
        monitor_probe_decode(m.payload, m.len, &probe) < 0)
        return fail("no probe result", ret < 0 ? ret : -EBADMSG);
    print_probe(&probe);
    return 0;
}

/* ---- a machine ---- */

static int build(struct driver *d)
{
    struct monitor_error error;
    struct msg m;
    int pipe_fds[2];
    int ret;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return fail("pipe", -errno);
    d->console = pipe_fds[0];
    d->config.console_out_fd = pipe_fds[1];
    ret = vmm_process_send_config(&d->vmm, &d->config);
    vm_config_fini(&d->config);
    if (ret == 0)
        ret = vmm_process_receive(&d->vmm, &m, 60000);
    if (ret != 1)
        return fail("no answer to CONFIG", ret < 0 ? ret : -EPIPE);
    d->ready_ns = io_now_ns();
    if (m.type == MONITOR_ERROR &&
        monitor_error_decode(m.payload, m.len, &error) == 0) {
        fprintf(stderr, "vmm_driver: refused: code %d disk %u: %s\n",
                (int)error.code, error.disk, error.text);
        return 1;
    }
    return m.type == MONITOR_READY ? 0 : fail("CONFIG", -EBADMSG);
}

static void copy_console(struct driver *d)
{
    char buf[4096];
    ssize_t n = read(d->console, buf, sizeof(buf));

    if (n <= 0)
        io_close(&d->console);
    else if (io_write_full(STDOUT_FILENO, buf, (size_t)n) < 0)
        exit(1);
}

static void print_stats(const struct driver *d, const struct monitor_stats *s)
{
    fprintf(stderr,
            "ready_us %" PRIu64 " first_run_us %" PRIu64 " wall_us %" PRIu64
            "\nexits %" PRIu64 " guest_cpu_us %" PRIu64
            " device_cpu_us %" PRIu64 " violations %" PRIu64
            " unclaimed %" PRIu64 " console %" PRIu64 "+%" PRIu64 "\n",
            (d->ready_ns - d->started_ns) / 1000,
            (s->first_run_ns - d->started_ns) / 1000,
            (io_now_ns() - d->started_ns) / 1000, s->exits,
            s->guest_cpu_ns / 1000, s->device_cpu_ns / 1000, s->violations,
            s->unclaimed, s->console_bytes, s->console_dropped);
    for (uint32_t i = 0; i < s->disk_count; i++)
        fprintf(stderr,
                "disk %u clusters %" PRIu64 " no_space %" PRIu64
                " io_errors %" PRIu64 "\n",
                i, s->disks[i].clusters, s->disks[i].no_space,
                s->disks[i].io_errors);
}

static int print_exit(const struct driver *d, const struct msg *m)
{
    struct monitor_exit e;

    if (m->type != MONITOR_EXIT ||
        monitor_exit_decode(m->payload, m->len, &e) < 0)
        return fail("EXIT", -EBADMSG);
    fprintf(stderr, "vmm_driver: exit: %s%s%s\n",
            monitor_exit_reason_name(e.reason), e.text[0] ? ": " : "", e.text);
    if (d->stats)
        print_stats(d, &e.stats);
    if (d->timed_out)
        return 4;
    return e.reason == MONITOR_EXIT_POWER_OFF ? 0 : 3;
}

/* Until EXIT and the end of the console. */
static int run(struct driver *d)
{
    uint64_t end = io_now_ns() + d->timeout_s * 1000000000ull;
    struct msg m = {0};
    int ret = vmm_process_send(&d->vmm, MONITOR_START);

    while (ret == 0 && m.type != MONITOR_EXIT) {
        struct pollfd p[2] = {{.fd = d->vmm.sock, .events = POLLIN},
                              {.fd = d->console, .events = POLLIN}};

        (void)poll(p, 2, 100);
        if (p[1].revents)
            copy_console(d);
        if (p[0].revents && msg_receive(d->vmm.sock, &m) != 1)
            return fail("the monitor is gone", -EPIPE);
        if (!d->timed_out && io_now_ns() > end) {
            d->timed_out = true;
            ret = vmm_process_send(&d->vmm, MONITOR_STOP);
        }
    }
    while (d->console >= 0)
        copy_console(d);
    return ret < 0 ? fail("START", ret) : print_exit(d, &m);
}

int main(int argc, char **argv)
{
    struct driver d = {.console = -1, .timeout_s = 60};
    bool probe = false;
    int ret;

    vm_config_init(&d.config);
    d.config.memory_bytes = (uint64_t)128 << 20;
    d.config.cpu_count = 1;
    parse_options(&d, argc, argv, &probe);
    d.config.kvm_fd = open_or_die("/dev/kvm", O_RDWR);
    if (!probe && optind + 1 != argc) {
        fprintf(stderr, "usage: vmm_driver [options] KERNEL\n");
        return 2;
    }
    if (!probe)
        d.config.kernel_fd = open_or_die(argv[optind], O_RDONLY);
    d.started_ns = io_now_ns();
    ret = vmm_process_start(&d.vmm);
    if (ret < 0)
        return fail("microsbx-vmm", ret);
    ret = probe ? run_probe(&d) : build(&d);
    if (!probe && ret == 0)
        ret = run(&d);
    vmm_process_end(&d.vmm);
    vm_config_fini(&d.config);
    return ret;
}
