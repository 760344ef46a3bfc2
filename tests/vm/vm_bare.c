/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bare guests on the monitor: every way a machine can end, and what a guest
 * finds in an empty machine. Needs /dev/kvm, but no host that runs Linux
 * guests.
 *
 *   vm_bare [NAME]...
 *
 * One line per test; status 0 if all passed, 77 without a usable /dev/kvm.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "tests/bare_guests.h"
#include "tests/vmm_process.h"

#define STATUS_SKIPPED 77
#define TIMEOUT_MS 10000 /* generous: guest code may be interpreted */
#define CONSOLE_MAX 256
#define IDLE_CPU_NS_MAX (20 * 1000 * 1000) /* of a second */

/* What is done to the machine while it runs. */
enum act {
    ACT_WAIT, /* for it to end by itself */
    ACT_STOP, /* STOP, once the console said something */
    ACT_IDLE, /* the same, but first it must use no CPU for a second */
};

struct bare_test {
    const char *guest;
    const char *console; /* all of it; NULL: anything */
    enum monitor_exit_reason reason;
    enum act act;
    uint32_t cpus;
    uint64_t memory_mib;
    const char *text;    /* part of the exit's text, or NULL */
    uint64_t unclaimed;  /* at least */
    uint64_t violations; /* at least */
};

static const struct bare_test tests[] = {
    {"hello", "hello from a bare guest\n", MONITOR_EXIT_POWER_OFF, ACT_WAIT, 1,
     32, NULL, 0, 0},
    {"hello", "hello from a bare guest\n", MONITOR_EXIT_POWER_OFF, ACT_WAIT, 8,
     6144, NULL, 0, 0},
    {"reset_page", "", MONITOR_EXIT_RESET, ACT_WAIT, 1, 32, NULL, 0, 0},
    {"reset_port", "", MONITOR_EXIT_RESET, ACT_WAIT, 1, 32, NULL, 0, 0},
    {"triple_fault", "", MONITOR_EXIT_TRIPLE_FAULT, ACT_WAIT, 1, 32,
     "triple fault", 0, 0},
    {"panic", "P", MONITOR_EXIT_PANIC, ACT_WAIT, 1, 32, NULL, 0, 0},
    {"crash_loaded", "c", MONITOR_EXIT_POWER_OFF, ACT_WAIT, 1, 32, NULL, 0, 0},
    {"exit_zero", "z", MONITOR_EXIT_DEBUG, ACT_WAIT, 1, 32, NULL, 0, 0},
    {"exit_seven", "7", MONITOR_EXIT_DEBUG, ACT_WAIT, 1, 32, NULL, 0, 0},
    {"exit_large", "l", MONITOR_EXIT_DEBUG, ACT_WAIT, 2, 32, NULL, 0, 0},
    /* A machine that was not given the port. */
    {"exit_seven", "7", MONITOR_EXIT_POWER_OFF, ACT_WAIT, 1, 32, NULL, 1, 0},
    {"fetch_nowhere", "", MONITOR_EXIT_EMULATION, ACT_WAIT, 1, 32,
     "rip 0xd1000000", 0, 0},
    {"spin", "s", MONITOR_EXIT_STOPPED, ACT_STOP, 1, 32, NULL, 0, 0},
    {"spin", "s", MONITOR_EXIT_STOPPED, ACT_STOP, 4, 32, NULL, 0, 0},
    {"halt", "h", MONITOR_EXIT_STOPPED, ACT_IDLE, 1, 32, NULL, 0, 0},
    {"port_storm", "p", MONITOR_EXIT_STOPPED, ACT_STOP, 1, 32, NULL, 10, 0},
    {"notify_storm", "n", MONITOR_EXIT_STOPPED, ACT_STOP, 1, 32, NULL, 0, 0},
    {"console_storm", NULL, MONITOR_EXIT_STOPPED, ACT_STOP, 1, 32, NULL, 0, 0},
    {"empty_slot", "e", MONITOR_EXIT_POWER_OFF, ACT_WAIT, 1, 32, NULL, 0, 0},
    {"first_slot", "r", MONITOR_EXIT_POWER_OFF, ACT_WAIT, 1, 32, NULL, 0, 0},
    {"nowhere", "u", MONITOR_EXIT_POWER_OFF, ACT_WAIT, 1, 32, NULL, 4, 0},
    {"odd_accesses", "o", MONITOR_EXIT_POWER_OFF, ACT_WAIT, 1, 32, NULL, 1, 1},
    {"cpuid", "i", MONITOR_EXIT_POWER_OFF, ACT_WAIT, 1, 32, NULL, 0, 0},
    {"two_cpus", "1", MONITOR_EXIT_POWER_OFF, ACT_WAIT, 2, 32, NULL, 0, 0},
};

/* What these guests write to the debug-exit port. */
static const struct {
    const char *guest;
    uint32_t status;
} statuses[] = {
    {"exit_zero", 0},
    {"exit_seven", 7},
    {"exit_large", 0x12345600},
};

/* One running test. */
struct run {
    const struct bare_test *test;
    struct vmm_process vmm;
    int console; /* -1 at its end */
    char output[CONSOLE_MAX];
    size_t output_len;
    struct monitor_exit exit;
    char why[MONITOR_TEXT_MAX + 64]; /* it failed */
};

static int fail(struct run *r, const char *why, int error)
{
    snprintf(r->why, sizeof(r->why), "%s%s%s", why, error ? ": " : "",
             error ? strerror(-error) : "");
    return -1;
}

static int run_build(struct run *r)
{
    struct vm_config config;
    struct monitor_error error = {0};
    int pipe_fds[2];
    struct msg m;
    int ret;

    vm_config_init(&config);
    config.memory_bytes = r->test->memory_mib << 20;
    config.cpu_count = r->test->cpus;
    config.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    config.kernel_fd = bare_guest_open(r->test->guest);
    config.debug_exit = r->test->reason == MONITOR_EXIT_DEBUG;
    if (config.kernel_fd < 0 || pipe2(pipe_fds, O_CLOEXEC) < 0)
        return fail(r, "guest or pipe", config.kernel_fd);
    r->console = pipe_fds[0];
    config.console_out_fd = pipe_fds[1];
    ret = vmm_process_start(&r->vmm);
    if (ret == 0)
        ret = vmm_process_send_config(&r->vmm, &config);
    vm_config_fini(&config);
    if (ret < 0)
        return fail(r, "cannot start the monitor", ret);
    ret = vmm_process_receive(&r->vmm, &m, TIMEOUT_MS);
    if (ret == 1 && m.type == MONITOR_READY)
        return 0;
    if (ret == 1 && m.type == MONITOR_ERROR)
        ret = monitor_error_decode(m.payload, m.len, &error);
    return fail(r, error.text[0] ? error.text : "no READY", 0);
}

static void read_console(struct run *r)
{
    char scrap[4096];
    ssize_t n = read(r->console, scrap, sizeof(scrap));
    size_t room = sizeof(r->output) - 1 - r->output_len;

    if (n <= 0) {
        io_close(&r->console);
        return;
    }
    if ((size_t)n < room)
        room = (size_t)n;
    memcpy(r->output + r->output_len, scrap, room);
    r->output_len += room;
}

static int handle_message(struct run *r, const struct msg *m)
{
    if (m->type == MONITOR_RUNNING)
        return 0;
    if (m->type != MONITOR_EXIT ||
        monitor_exit_decode(m->payload, m->len, &r->exit) < 0)
        return fail(r, "a message that is not EXIT", 0);
    return 1;
}

/* CPU time of vCPUs and device thread so far: 0 or -1. */
static int read_cpu_ns(struct run *r, uint64_t *ret_ns)
{
    struct monitor_stats s;
    struct msg m = {0};
    int ret = vmm_process_send(&r->vmm, MONITOR_STATS_REQUEST);

    while (ret >= 0 && m.type != MONITOR_STATS)
        ret = vmm_process_receive(&r->vmm, &m, TIMEOUT_MS) == 1 ? 0 : -EPIPE;
    if (ret < 0 || monitor_stats_decode(m.payload, m.len, &s) < 0)
        return fail(r, "no STATS", ret);
    *ret_ns = s.guest_cpu_ns + s.device_cpu_ns;
    return 0;
}

/* Asking costs a little itself; an idle machine costs nothing else. */
static int check_idle(struct run *r)
{
    uint64_t before, after;
    int ret = read_cpu_ns(r, &before);

    sleep(1);
    if (ret == 0)
        ret = read_cpu_ns(r, &after);
    if (ret == 0 && after - before > IDLE_CPU_NS_MAX)
        ret = fail(r, "it used CPU while idle", 0);
    return ret;
}

/* A guest that is going to be stopped runs for a while first. */
static int stop(struct run *r)
{
    const struct timespec run_for = {.tv_nsec = 100000000};

    (void)nanosleep(&run_for, NULL);
    if (r->test->act == ACT_IDLE && check_idle(r) < 0)
        return -EPIPE;
    return vmm_process_send(&r->vmm, MONITOR_STOP);
}

/* From START to EXIT. */
static int run_machine(struct run *r)
{
    uint64_t end = io_now_ns() + TIMEOUT_MS * 1000000ull;
    bool stopped = r->test->act == ACT_WAIT;
    int ret = vmm_process_send(&r->vmm, MONITOR_START);
    struct msg m;

    while (ret == 0) {
        struct pollfd p[2] = {{.fd = r->vmm.sock, .events = POLLIN},
                              {.fd = r->console, .events = POLLIN}};

        if (io_now_ns() > end)
            return fail(r, "it did not end", 0);
        (void)poll(p, 2, 50);
        if (p[1].revents)
            read_console(r);
        if (!stopped && r->output_len > 0) {
            stopped = true;
            ret = stop(r);
        }
        if (ret == 0 && p[0].revents) {
            ret = msg_receive(r->vmm.sock, &m);
            ret = ret == 1 ? handle_message(r, &m) : -EPIPE;
        }
    }
    while (r->console >= 0)
        read_console(r);
    if (ret < 0 && !r->why[0])
        return fail(r, "the monitor", ret);
    return ret < 0 ? -1 : 0;
}

static int check_stats(struct run *r)
{
    const struct monitor_stats *s = &r->exit.stats;
    const struct bare_test *t = r->test;

    if (s->unclaimed < t->unclaimed)
        return fail(r, "too few unclaimed accesses", 0);
    if (s->violations < t->violations)
        return fail(r, "too few violations", 0);
    if (s->exits == 0 || s->first_run_ns == 0 || s->guest_cpu_ns == 0)
        return fail(r, "statistics are missing", 0);
    if (t->console && s->console_bytes != strlen(t->console))
        return fail(r, "console bytes are counted wrong", 0);
    return 0;
}

static int check_status(struct run *r)
{
    uint32_t want = 0;

    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
        if (r->exit.reason == MONITOR_EXIT_DEBUG &&
            strcmp(statuses[i].guest, r->test->guest) == 0)
            want = statuses[i].status;
    return r->exit.status == want ? 0 : fail(r, "another status", 0);
}

static int check(struct run *r)
{
    const struct bare_test *t = r->test;
    int status = vmm_process_wait(&r->vmm, TIMEOUT_MS);

    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return fail(r, "the monitor's exit status is not 0", 0);
    if (r->exit.reason != t->reason) {
        snprintf(r->why, sizeof(r->why), "it ended by %s (%s)",
                 monitor_exit_reason_name(r->exit.reason), r->exit.text);
        return -1;
    }
    if (t->console && strcmp(r->output, t->console) != 0)
        return fail(r, "the console says something else", 0);
    if (t->text && !strstr(r->exit.text, t->text))
        return fail(r, r->exit.text, 0);
    if (check_status(r) < 0)
        return -1;
    return check_stats(r);
}

static bool run_test(const struct bare_test *test)
{
    struct run r = {
        .test = test,
        .vmm = {.pid = -1, .sock = -1},
        .console = -1,
    };
    int ret = run_build(&r);

    if (ret == 0)
        ret = run_machine(&r);
    if (ret == 0)
        ret = check(&r);
    vmm_process_end(&r.vmm);
    io_close(&r.console);
    printf("%s - bare guest %s, %u CPUs, %" PRIu64 " MiB%s%s\n",
           ret == 0 ? "ok" : "not ok", test->guest, test->cpus,
           test->memory_mib, ret == 0 ? "" : ": ", r.why);
    fflush(stdout);
    return ret == 0;
}

static bool is_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2;
}

int main(int argc, char **argv)
{
    unsigned failed = 0;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return STATUS_SKIPPED;
    }
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
        if (is_wanted(tests[i].guest, argc, argv) && !run_test(&tests[i]))
            failed++;
    return failed > 0;
}
