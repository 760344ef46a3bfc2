/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor's conversation with its harness, on real KVM: refusals, orders
 * out of turn, and a harness that disappears. Needs /dev/kvm, but no host that
 * runs Linux guests.
 *
 * One line per test; status 0 if all passed, 77 without a usable /dev/kvm.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "tests/bare_guests.h"
#include "tests/vmm_process.h"

#define STATUS_SKIPPED 77
#define TIMEOUT_MS 10000
#define FDS_MAX 32 /* of an idle monitor */
/* Answers that fill a socket: it holds fewer (net.core.wmem_default). */
#define ANSWERS_TO_FILL 1000

struct talk {
    struct vmm_process vmm;
    struct vm_config config;
    struct msg msg;
    struct monitor_error error;
    struct monitor_exit exit;
};

/* ---- steps; each returns true if it went as expected ---- */

static int file_of(size_t size)
{
    int fd = memfd_create("file", MFD_CLOEXEC);

    return ftruncate(fd, (off_t)size) == 0 ? fd : -1;
}

static void talk_init(struct talk *t, const char *guest)
{
    vm_config_init(&t->config);
    t->config.memory_bytes = VM_MEMORY_MIN;
    t->config.cpu_count = 1;
    t->config.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    t->config.kernel_fd = bare_guest_open(guest);
    if (vmm_process_start(&t->vmm) < 0)
        t->vmm = (struct vmm_process){.pid = -1, .sock = -1};
}

static void talk_fini(struct talk *t)
{
    vmm_process_end(&t->vmm);
    vm_config_fini(&t->config);
}

static bool say(struct talk *t, unsigned type)
{
    return vmm_process_send(&t->vmm, (enum monitor_msg)type) == 0;
}

static bool hear(struct talk *t, enum monitor_msg type)
{
    return vmm_process_receive(&t->vmm, &t->msg, TIMEOUT_MS) == 1 &&
           t->msg.type == type;
}

static bool send_config(struct talk *t)
{
    return vmm_process_send_config(&t->vmm, &t->config) == 0;
}

static bool hear_error(struct talk *t, enum monitor_error_code code)
{
    return hear(t, MONITOR_ERROR) &&
           monitor_error_decode(t->msg.payload, t->msg.len, &t->error) == 0 &&
           t->error.code == code && t->error.text[0] != '\0';
}

static bool hear_exit(struct talk *t, enum monitor_exit_reason reason)
{
    return hear(t, MONITOR_EXIT) &&
           monitor_exit_decode(t->msg.payload, t->msg.len, &t->exit) == 0 &&
           t->exit.reason == reason;
}

static bool ends_with(struct talk *t, int expected)
{
    int status = vmm_process_wait(&t->vmm, TIMEOUT_MS);

    return status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == expected;
}

static bool starts(struct talk *t)
{
    return send_config(t) && hear(t, MONITOR_READY) && say(t, MONITOR_START) &&
           hear(t, MONITOR_RUNNING) && t->msg.len == 8;
}

/* ---- refusals ---- */

static bool first_message_is_nonsense(struct talk *t)
{
    return say(t, 999) && hear_error(t, MONITOR_ERROR_CONFIG) &&
           ends_with(t, 0);
}

static bool config_is_empty(struct talk *t)
{
    return say(t, MONITOR_CONFIG) && hear_error(t, MONITOR_ERROR_CONFIG) &&
           ends_with(t, 0);
}

static bool packet_lies_about_its_length(struct talk *t)
{
    const char packet[8] = "\xff\xff";

    return write(t->vmm.sock, packet, sizeof(packet)) == sizeof(packet) &&
           ends_with(t, 1);
}

static bool kvm_is_not_kvm(struct talk *t)
{
    io_close(&t->config.kvm_fd);
    t->config.kvm_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    return send_config(t) && hear_error(t, MONITOR_ERROR_KVM) &&
           t->error.error == -ENOTTY && ends_with(t, 0);
}

static bool kernel_is_empty(struct talk *t)
{
    io_close(&t->config.kernel_fd);
    t->config.kernel_fd = file_of(0);
    return send_config(t) && hear_error(t, MONITOR_ERROR_KERNEL) &&
           ends_with(t, 0);
}

static bool initrd_does_not_fit(struct talk *t)
{
    t->config.initrd_fd = file_of(64 * MIB);
    return send_config(t) && hear_error(t, MONITOR_ERROR_INITRD) &&
           ends_with(t, 0);
}

static bool disk_is_not_whole_sectors(struct talk *t)
{
    t->config.disk_count = 2;
    t->config.disks[0].fd = file_of(4096);
    t->config.disks[1].fd = file_of(513);
    return send_config(t) && hear_error(t, MONITOR_ERROR_DISK) &&
           t->error.disk == 1 && ends_with(t, 0);
}

/* Above the hole, and perhaps more than the host has: an answer either way. */
static bool memory_is_large(struct talk *t)
{
    t->config.memory_bytes = 16 * GIB;
    if (!send_config(t) ||
        vmm_process_receive(&t->vmm, &t->msg, TIMEOUT_MS) != 1)
        return false;
    if (t->msg.type == MONITOR_READY)
        return say(t, MONITOR_STOP) && hear_exit(t, MONITOR_EXIT_STOPPED);
    return t->msg.type == MONITOR_ERROR &&
           monitor_error_decode(t->msg.payload, t->msg.len, &t->error) == 0 &&
           t->error.code == MONITOR_ERROR_MEMORY;
}

/* ---- orders ---- */

static bool stop_before_start(struct talk *t)
{
    return send_config(t) && hear(t, MONITOR_READY) && say(t, MONITOR_STOP) &&
           hear_exit(t, MONITOR_EXIT_STOPPED) && ends_with(t, 0);
}

static bool start_twice(struct talk *t)
{
    return starts(t) && say(t, MONITOR_START) &&
           hear_exit(t, MONITOR_EXIT_HOST_ERROR) && t->exit.error == -EBADMSG &&
           ends_with(t, 0);
}

/* An interrupt for nothing, before and while the guest runs: it goes on. */
static bool nudges(struct talk *t)
{
    return send_config(t) && hear(t, MONITOR_READY) && say(t, MONITOR_NUDGE) &&
           say(t, MONITOR_START) && hear(t, MONITOR_RUNNING) &&
           say(t, MONITOR_NUDGE) && say(t, MONITOR_STATS_REQUEST) &&
           hear(t, MONITOR_STATS) && say(t, MONITOR_STOP) &&
           hear_exit(t, MONITOR_EXIT_STOPPED) && ends_with(t, 0);
}

static bool unknown_order(struct talk *t)
{
    return starts(t) && say(t, 64) && hear_exit(t, MONITOR_EXIT_HOST_ERROR) &&
           ends_with(t, 0);
}

static bool stats_while_running(struct talk *t)
{
    struct monitor_stats s;

    return starts(t) && say(t, MONITOR_STATS_REQUEST) &&
           hear(t, MONITOR_STATS) &&
           monitor_stats_decode(t->msg.payload, t->msg.len, &s) == 0 &&
           s.first_run_ns > 0 && say(t, MONITOR_STOP) &&
           hear_exit(t, MONITOR_EXIT_STOPPED) && ends_with(t, 0);
}

/* The monitor's first thread is in poll(2), on x86-64 the 7th call. */
static bool polls(pid_t pid)
{
    char path[64], text[16] = "";
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", (int)pid,
             (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    (void)!read(fd, text, sizeof(text) - 1);
    close(fd);
    return strncmp(text, "7 ", 2) == 0;
}

/* An order whose answer finds no room: it waits, whatever signal comes. */
static bool interrupted_while_waiting(struct talk *t)
{
    bool ok = starts(t);

    for (unsigned i = 0; ok && i < ANSWERS_TO_FILL; i++)
        ok = say(t, MONITOR_STATS_REQUEST);
    ok = ok && say(t, MONITOR_PAUSE);
    for (unsigned i = 0; ok && !polls(t->vmm.pid); i++) {
        ok = i < TIMEOUT_MS;
        usleep(1000);
    }
    ok = ok && syscall(SYS_tgkill, t->vmm.pid, t->vmm.pid,
                       MONITOR_SIGNAL_STAY_OUT) == 0;
    /* It has taken the signal once it is in the next call. */
    for (unsigned i = 0; ok && i < 10; i++)
        usleep(1000);
    while (ok && !hear(t, MONITOR_PAUSED))
        ok = t->msg.type == MONITOR_STATS;
    return ok && say(t, MONITOR_STOP) && hear_exit(t, MONITOR_EXIT_STOPPED) &&
           ends_with(t, 0);
}

/* A client for a machine without vsock: refused by closing it. */
static bool client_without_vsock(struct talk *t)
{
    int pipe_fds[2];
    char byte;
    bool ok;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return false;
    ok = starts(t) && msg_send(t->vmm.sock, MONITOR_VSOCK_CLIENT, NULL, 0,
                               &pipe_fds[1], 1) == 0;
    close(pipe_fds[1]);
    ok = ok && read(pipe_fds[0], &byte, 1) == 0;
    close(pipe_fds[0]);
    return ok && say(t, MONITOR_STOP) && hear_exit(t, MONITOR_EXIT_STOPPED);
}

/* ---- a harness that disappears ---- */

static bool gone_before_config(struct talk *t)
{
    io_close(&t->vmm.sock);
    return ends_with(t, 0);
}

static bool gone_before_start(struct talk *t)
{
    if (!send_config(t) || !hear(t, MONITOR_READY))
        return false;
    io_close(&t->vmm.sock);
    return ends_with(t, 0);
}

static bool gone_while_running(struct talk *t)
{
    if (!starts(t))
        return false;
    io_close(&t->vmm.sock);
    return ends_with(t, 0);
}

/* ---- the process ---- */

static unsigned count_fds(pid_t pid)
{
    char path[64];
    unsigned count = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count;
}

/* Of what it inherits only the socket and 0 to 2 stay ("." and ".." count). */
static bool closes_strays(void)
{
    int stray = dup(STDOUT_FILENO); /* not close-on-exec */
    struct vmm_process p;
    unsigned count = 0;

    if (vmm_process_start(&p) == 0)
        for (int i = 0; i < 100 && count != 6; i++) {
            usleep(10000);
            count = count_fds(p.pid);
        }
    vmm_process_end(&p);
    close(stray);
    return count == 6;
}

static bool holds_few_descriptors(struct talk *t)
{
    unsigned count;

    if (!starts(t))
        return false;
    count = count_fds(t->vmm.pid);
    return count > 6 && count < FDS_MAX && closes_strays();
}

static bool asks_probe(struct talk *t, uint8_t depth, struct monitor_probe *p)
{
    const uint8_t payload[4] = {depth};

    return msg_send(t->vmm.sock, MONITOR_PROBE, payload, sizeof(payload),
                    &t->config.kvm_fd, 1) == 0 &&
           hear(t, MONITOR_PROBE_RESULT) &&
           monitor_probe_decode(t->msg.payload, t->msg.len, p) == 0 &&
           p->error == 0 && p->api_version == 12 && p->missing_count == 0 &&
           p->cpu_vendor[0] != 0;
}

static bool probe_answers(struct talk *t)
{
    struct monitor_probe p;

    return asks_probe(t, MONITOR_PROBE_ALL, &p) &&
           p.guest_runs == PROBE_WORKS &&
           p.cpl0_instructions_per_second > 1000 && ends_with(t, 0);
}

/* What KVM itself says, asked here. */
static bool has(const struct talk *t, unsigned long capability)
{
    return ioctl(t->config.kvm_fd, KVM_CHECK_EXTENSION, capability) > 0;
}

/* No guest is run for it, and all else is what the whole probe says. */
static bool probe_of_cpu(struct talk *t)
{
    struct monitor_probe p;

    return asks_probe(t, MONITOR_PROBE_CPU, &p) &&
           p.guest_runs == PROBE_UNTESTED && p.xsave == PROBE_UNTESTED &&
           p.cpl0_instructions_per_second == 0 &&
           p.vcpus_max == (uint32_t)ioctl(t->config.kvm_fd, KVM_CHECK_EXTENSION,
                                          KVM_CAP_MAX_VCPUS) &&
           p.immediate_exit == has(t, KVM_CAP_IMMEDIATE_EXIT) &&
           p.irqfd == has(t, KVM_CAP_IRQFD) &&
           p.ioeventfd == has(t, KVM_CAP_IOEVENTFD) &&
           p.tsc_deadline == has(t, KVM_CAP_TSC_DEADLINE_TIMER) &&
           p.dirty_log_ring == has(t, KVM_CAP_DIRTY_LOG_RING) &&
           p.cpuid[0] != 0 && ends_with(t, 0);
}

static bool probe_of_nothing(struct talk *t)
{
    const uint8_t deeper[4] = {MONITOR_PROBE_CPU + 1};

    return msg_send(t->vmm.sock, MONITOR_PROBE, deeper, sizeof(deeper),
                    &t->config.kvm_fd, 1) == 0 &&
           hear_error(t, MONITOR_ERROR_CONFIG);
}

static const struct {
    const char *name;
    const char *guest;
    bool (*run)(struct talk *t);
} tests[] = {
    {"first message is nonsense", "hello", first_message_is_nonsense},
    {"empty configuration", "hello", config_is_empty},
    {"packet lies about its length", "hello", packet_lies_about_its_length},
    {"/dev/null instead of /dev/kvm", "hello", kvm_is_not_kvm},
    {"empty kernel", "hello", kernel_is_empty},
    {"initrd larger than memory", "hello", initrd_does_not_fit},
    {"disk of 513 bytes", "hello", disk_is_not_whole_sectors},
    {"16 GiB of memory", "hello", memory_is_large},
    {"STOP before START", "spin", stop_before_start},
    {"START twice", "spin", start_twice},
    {"nudges", "spin", nudges},
    {"unknown order", "spin", unknown_order},
    {"statistics while running", "spin", stats_while_running},
    {"a signal while an answer waits", "spin", interrupted_while_waiting},
    {"vsock client without vsock", "halt", client_without_vsock},
    {"harness gone before CONFIG", "hello", gone_before_config},
    {"harness gone before START", "hello", gone_before_start},
    {"harness gone while running", "spin", gone_while_running},
    {"few descriptors", "halt", holds_few_descriptors},
    {"probe", "hello", probe_answers},
    {"probe of the CPU", "hello", probe_of_cpu},
    {"probe of an unknown depth", "hello", probe_of_nothing},
};

int main(void)
{
    unsigned failed = 0;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return STATUS_SKIPPED;
    }
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        struct talk t = {0};
        bool ok;

        talk_init(&t, tests[i].guest);
        ok = t.vmm.sock >= 0 && tests[i].run(&t);
        printf("%s - monitor: %s%s%s\n", ok ? "ok" : "not ok", tests[i].name,
               ok || !t.error.text[0] ? "" : ": ", ok ? "" : t.error.text);
        fflush(stdout);
        talk_fini(&t);
        failed += !ok;
    }
    return failed > 0;
}
