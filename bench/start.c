/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the monitor itself costs: the time from its exec until a guest of four
 * instructions has spoken, and its memory. No Linux is booted, so any KVM will
 * do, also one that interprets guest kernels.
 *
 *   start ROUNDS
 *
 * Prints medians, one "name value" a line. microsbx-vmm must lie beside this
 * program (or a link to it).
 */
#include <elf.h>
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
#include "base/standard_fds.h"
#include "trial/monitor.h"

#define ROUNDS_MAX 1000u
#define WARM_UP 5u
#define TIMEOUT_MS 10000
#define MEMORY_BYTES ((uint64_t)128 << 20)
#define LOAD_ADDRESS 0x1000000u
#define CODE_OFFSET 0x1000u

/* mov $0x3f8,%dx; mov $'!',%al; out %al,(%dx); hlt, with interrupts off. */
static const uint8_t guest_code[] = {0x66, 0xba, 0xf8, 0x03,
                                     0xb0, '!',  0xee, 0xf4};

enum moment { READY, ENTRY, OUT, END, PRIVATE_KIB, MOMENTS };
static const char *const names[MOMENTS] = {"ready_us", "entry_us", "out_us",
                                           "end_us", "private_kib"};

struct round {
    struct monitor *monitor;
    int console;
    uint64_t started_ns;
    uint64_t stopped_ns;
    uint64_t entry_ns;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "start: %s: %s\n", what, why);
    exit(1);
}

/* An ELF kernel in a memory file. */
static int open_guest(void)
{
    const Elf64_Phdr phdr = {
        .p_type = PT_LOAD,
        .p_flags = PF_R | PF_X,
        .p_offset = CODE_OFFSET,
        .p_vaddr = LOAD_ADDRESS,
        .p_paddr = LOAD_ADDRESS,
        .p_filesz = sizeof(guest_code),
        .p_memsz = sizeof(guest_code),
        .p_align = CODE_OFFSET,
    };
    Elf64_Ehdr header = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
                    EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = LOAD_ADDRESS,
        .e_phoff = sizeof(header),
        .e_ehsize = sizeof(header),
        .e_phentsize = sizeof(phdr),
        .e_phnum = 1,
    };
    int fd = memfd_create("guest", MFD_CLOEXEC);

    if (fd < 0 || io_pwrite_full(fd, &header, sizeof(header), 0) < 0 ||
        io_pwrite_full(fd, &phdr, sizeof(phdr), sizeof(header)) < 0 ||
        io_pwrite_full(fd, guest_code, sizeof(guest_code), CODE_OFFSET) < 0)
        die("guest", strerror(errno));
    return fd;
}

static void configure(struct vm_config *config, int *ret_console)
{
    int fds[2];

    vm_config_init(config);
    config->memory_bytes = MEMORY_BYTES;
    config->cpu_count = 1;
    config->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    config->kernel_fd = open_guest();
    if (config->kvm_fd < 0 || pipe2(fds, O_CLOEXEC) < 0)
        die("/dev/kvm", strerror(errno));
    config->console_out_fd = fds[1];
    *ret_console = fds[0];
}

static void wait_for(struct round *r, enum monitor_event_kind kind)
{
    struct pollfd p = {.fd = monitor_fd(r->monitor), .events = POLLIN};
    struct monitor_event event = {0};

    while (event.kind != kind) {
        if (poll(&p, 1, TIMEOUT_MS) <= 0)
            die("monitor", "it does not answer");
        monitor_receive(r->monitor, &event);
        if (event.kind == MONITOR_EVENT_GONE)
            die("monitor", "it died");
        if (event.kind == MONITOR_EVENT_EXIT)
            r->entry_ns = event.exit.stats.first_run_ns;
    }
}

/* Private pages but for the guest's memory; 0 if we may not look. */
static uint64_t private_kib(pid_t pid)
{
    unsigned long long kib, size = 0, sum = 0;
    char path[64], line[512];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "Size: %llu kB", &kib) == 1)
            size = kib * 1024;
        else if (size < MEMORY_BYTES &&
                 (sscanf(line, "Private_Clean: %llu kB", &kib) == 1 ||
                  sscanf(line, "Private_Dirty: %llu kB", &kib) == 1))
            sum += kib;
    }
    if (f)
        fclose(f);
    return sum;
}

static void run_round(uint64_t *ret_moments)
{
    const struct monitor_names files = {.kernel = "guest"};
    struct round r = {0};
    struct vm_config config;
    struct failure f = {0};
    char out;

    configure(&config, &r.console);
    r.started_ns = io_now_ns();
    if (monitor_spawn(&r.monitor, &f) < 0 ||
        monitor_build(r.monitor, &config, &files, &f) < 0)
        die("monitor", f.message);
    ret_moments[READY] = (io_now_ns() - r.started_ns) / 1000;
    vm_config_fini(&config);
    if (monitor_start(r.monitor) < 0 || read(r.console, &out, 1) != 1)
        die("guest", "it said nothing");
    ret_moments[OUT] = (io_now_ns() - r.started_ns) / 1000;
    ret_moments[PRIVATE_KIB] = private_kib(monitor_pid(r.monitor));

    r.stopped_ns = io_now_ns();
    monitor_stop(r.monitor);
    wait_for(&r, MONITOR_EVENT_EXIT);
    (void)monitor_finish(r.monitor, TIMEOUT_MS);
    ret_moments[END] = (io_now_ns() - r.stopped_ns) / 1000;
    ret_moments[ENTRY] = (r.entry_ns - r.started_ns) / 1000;
    monitor_free(r.monitor);
    io_close(&r.console);
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

int main(int argc, char **argv)
{
    static uint64_t samples[MOMENTS][ROUNDS_MAX];
    unsigned long rounds = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    uint64_t moments[MOMENTS];

    if (standard_fds_ensure() != 0)
        return 2;
    if (rounds == 0 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: start ROUNDS\n");
        return 2;
    }
    for (unsigned long i = 0; i < WARM_UP + rounds; i++) {
        run_round(moments);
        for (int k = 0; i >= WARM_UP && k < MOMENTS; k++)
            samples[k][i - WARM_UP] = moments[k];
    }
    for (int k = 0; k < MOMENTS; k++) {
        qsort(samples[k], rounds, sizeof(samples[k][0]), compare);
        printf("%s %" PRIu64 "\n", names[k], samples[k][rounds / 2]);
    }
    return 0;
}
