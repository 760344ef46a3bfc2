/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microsbx boot: starts a machine and attaches its console to this terminal.
 * With an image, the agent opens a shell there and powers off when it ends.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "base/wary.h"
#include "cli/cli.h"
#include "cli/console.h"
#include "cli/machine_options.h"
#include "trial/fitness.h"
#include "trial/host.h"
#include "trial/monitor.h"
#include "trial/relay.h"
#include "trial/vsock_dial.h"

#define BUFFER_SIZE 16384u
/* How long the monitor may take to stop before it is killed. */
#define STOP_TIMEOUT_MS 2000

enum source {
    SOURCE_STDIN,
    SOURCE_STDOUT,
    SOURCE_GUEST,
    SOURCE_MONITOR,
    SOURCE_SIGNAL,
    SOURCE_COUNT
};

struct boot {
    struct machine machine;
    struct monitor *monitor;
    struct console console;
    struct relay to_guest;
    struct relay to_user;
    int guest_fd; /* our end of the console's socketpair */
    int signal_fd;
    bool stdin_open;
    bool guest_open;
    bool running; /* its first instruction was due */
    bool ended;
    int status;     /* what microsbx exits with */
    char note[512]; /* said once the terminal is itself again */
};

static void end_with(struct boot *b, int status, const char *format,
                     const char *detail)
{
    if (b->ended)
        return;
    b->ended = true;
    b->status = status;
    snprintf(b->note, sizeof(b->note), format, detail);
}

/* The exit reason as status and sentence. */
static void end_by_guest(struct boot *b, const struct monitor_exit *exit)
{
    struct failure f = {0};
    char text[200];

    switch (exit->reason) {
    case MONITOR_EXIT_POWER_OFF:
    case MONITOR_EXIT_RESET:
    case MONITOR_EXIT_STOPPED:
        end_with(b, 0, "%s", "");
        break;
    case MONITOR_EXIT_PANIC:
        end_with(b, EXIT_NO_STATUS, "the guest's kernel panicked%s", "");
        break;
    case MONITOR_EXIT_TRIPLE_FAULT:
        end_with(b, EXIT_NO_STATUS, "the guest ended with a triple fault%s",
                 "");
        break;
    case MONITOR_EXIT_HOST_ERROR:
        monitor_fail_host(exit, &f);
        end_with(b, b->running ? EXIT_NO_STATUS : EXIT_INFRA, "%.400s",
                 f.message);
        break;
    default:
        /* Made by the monitor, which the guest may own by now. */
        text_escape(exit->text, strlen(exit->text), text, sizeof(text));
        end_with(b, EXIT_NO_STATUS,
                 "KVM could not run the guest any further: %s\n"
                 "  microsbx doctor says whether this host can",
                 text);
        break;
    }
}

static void on_monitor(struct boot *b)
{
    struct monitor_event event;
    struct monitor_end end;
    char how[64];

    monitor_receive(b->monitor, &event);
    switch (event.kind) {
    case MONITOR_EVENT_RUNNING:
        b->running = true;
        break;
    case MONITOR_EVENT_DIAL:
        vsock_dial_answer(b->monitor, &event, b->machine.vsock_path);
        break;
    case MONITOR_EVENT_EXIT:
        end_by_guest(b, &event.exit);
        break;
    case MONITOR_EVENT_GONE:
        end = monitor_finish(b->monitor, STOP_TIMEOUT_MS);
        monitor_end_describe(&end, how, sizeof(how));
        end_with(b, EXIT_NO_STATUS, "the monitor died (%s)", how);
        break;
    default:
        break;
    }
}

static void on_signal(struct boot *b)
{
    struct signalfd_siginfo info;

    if (read(b->signal_fd, &info, sizeof(info)) == sizeof(info))
        end_with(b, EXIT_CANCELLED, "cancelled by signal %s",
                 sigabbrev_np((int)info.ssi_signo));
}

static void show_help(struct boot *b)
{
    static const char HELP[] = "\r\nCtrl-A x  end the machine\r\n"
                               "Ctrl-A h  this help\r\n"
                               "Ctrl-A Ctrl-A  send one Ctrl-A\r\n";

    relay_add(&b->to_user, HELP, sizeof(HELP) - 1);
}

static void on_stdin(struct boot *b)
{
    uint8_t in[1024], out[sizeof(in) * 2];
    size_t room = relay_room(&b->to_guest) / 2;
    size_t len = 0;
    ssize_t n = read(STDIN_FILENO, in, room < sizeof(in) ? room : sizeof(in));

    if (n < 0 && errno != EINTR && errno != EAGAIN && b->console.fd >= 0) {
        end_with(b, EXIT_CANCELLED, "the terminal is gone: %s",
                 strerror(errno));
        return;
    }
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) { /* also one that was closed, or is a folder */
        b->stdin_open = false;
        return;
    }
    switch (console_filter(&b->console, in, (size_t)n, out, &len)) {
    case CONSOLE_KEY_END:
        end_with(b, 0, "%s", "");
        break;
    case CONSOLE_KEY_HELP:
        show_help(b);
        break;
    case CONSOLE_KEY_NONE:
        break;
    }
    relay_add(&b->to_guest, out, len);
}

static void on_guest(struct boot *b, short revents)
{
    uint8_t in[4096];
    size_t room = relay_room(&b->to_user);
    ssize_t n;

    if ((revents & POLLOUT) && relay_write(&b->to_guest) < 0)
        b->guest_open = false;
    if (!(revents & (POLLIN | POLLHUP | POLLERR)) || room == 0)
        return;
    n = read(b->guest_fd, in, room < sizeof(in) ? room : sizeof(in));
    if (n > 0)
        relay_add(&b->to_user, in, (size_t)n);
    else if (n == 0 || (errno != EINTR && errno != EAGAIN))
        b->guest_open = false;
}

static void on_stdout(struct boot *b)
{
    ssize_t n = relay_write(&b->to_user);

    if (n < 0)
        end_with(b, EXIT_CANCELLED, "cannot write to standard output: %s",
                 strerror((int)-n));
}

static void fill_polls(const struct boot *b, struct pollfd *polls)
{
    bool to_guest = !relay_is_empty(&b->to_guest);
    bool to_user = !relay_is_empty(&b->to_user);
    short guest = (short)((relay_room(&b->to_user) > 0 ? POLLIN : 0) |
                          (to_guest ? POLLOUT : 0));

    polls[SOURCE_STDIN] = (struct pollfd){
        b->stdin_open && relay_room(&b->to_guest) > 64 ? STDIN_FILENO : -1,
        POLLIN, 0};
    /* Without events poll still tells that the reader is gone. */
    polls[SOURCE_STDOUT] =
        (struct pollfd){STDOUT_FILENO, to_user ? POLLOUT : 0, 0};
    polls[SOURCE_GUEST] =
        (struct pollfd){b->guest_open ? b->guest_fd : -1, guest, 0};
    polls[SOURCE_MONITOR] = (struct pollfd){monitor_fd(b->monitor), POLLIN, 0};
    polls[SOURCE_SIGNAL] = (struct pollfd){b->signal_fd, POLLIN, 0};
}

static void relay_until_end(struct boot *b)
{
    struct pollfd polls[SOURCE_COUNT];
    int idle_ms = host_is_emulated() ? MONITOR_NUDGE_MS : -1;

    while (!b->ended) {
        int n;

        fill_polls(b, polls);
        n = poll(polls, SOURCE_COUNT, idle_ms);
        if (n < 0 && errno != EINTR) {
            end_with(b, EXIT_INFRA, "poll failed: %s", strerror(errno));
            return;
        }
        if (n == 0)
            monitor_nudge(b->monitor);
        if (n <= 0)
            continue;
        if (polls[SOURCE_SIGNAL].revents)
            on_signal(b);
        if (polls[SOURCE_GUEST].revents)
            on_guest(b, polls[SOURCE_GUEST].revents);
        if (polls[SOURCE_STDIN].revents)
            on_stdin(b);
        if (polls[SOURCE_STDOUT].revents & POLLOUT)
            on_stdout(b);
        else if (polls[SOURCE_STDOUT].revents)
            end_with(b, EXIT_CANCELLED, "standard output was closed%s", "");
        if (polls[SOURCE_MONITOR].revents)
            on_monitor(b);
    }
}

/* What the guest wrote before it ended must reach the user. */
static void drain_console(struct boot *b)
{
    struct pollfd out = {STDOUT_FILENO, POLLOUT, 0};
    uint64_t deadline = io_now_ns() + 1000000000u;

    while (b->to_user.error == 0 && io_now_ns() < deadline) {
        if (b->guest_open && relay_room(&b->to_user) > 0)
            on_guest(b, POLLIN);
        if (relay_is_empty(&b->to_user))
            break;
        if (poll(&out, 1, 100) > 0)
            relay_write(&b->to_user);
    }
}

/* The shell's terminal: its size and type as this one's. */
static int append_shell(struct boot *b, struct failure *f)
{
    const char *term = getenv("TERM");
    unsigned rows, columns;
    char words[200];

    console_size(&b->console, &rows, &columns);
    if (!term || strlen(term) > 40 || strpbrk(term, " \t\n\"'\\"))
        term = "vt100";
    snprintf(words, sizeof(words),
             "microsbx.shell=1 microsbx.term=%s microsbx.rows=%u "
             "microsbx.cols=%u",
             term, rows, columns);
    return machine_append(&b->machine, words, f);
}

/* The console's two ends; the machine's is used for both directions. */
static int open_console(struct boot *b, struct failure *f)
{
    int pair[2];
    int copy;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                   pair) != 0) {
        failure_set(f, "host", "socketpair", NULL,
                    "cannot make the console: %s", strerror(errno));
        return -errno;
    }
    b->guest_fd = pair[0];
    wary_refuse_fds(b->guest_fd);
    b->machine.config.console_in_fd = pair[1];
    copy = dup(pair[1]);
    b->machine.config.console_out_fd = copy;
    if (copy < 0 || relay_init(&b->to_guest, pair[0], BUFFER_SIZE) != 0 ||
        relay_init(&b->to_user, STDOUT_FILENO, BUFFER_SIZE) != 0) {
        failure_set(f, "host", "console", NULL, "cannot make the console: %s",
                    strerror(ENOMEM));
        return -ENOMEM;
    }
    b->guest_open = true;
    return 0;
}

static int boot_prepare(struct boot *b, const struct machine_spec *spec,
                        struct failure *f)
{
    struct monitor_names names;
    int ret = machine_open(spec, &b->machine, f);

    if (ret == 0)
        ret = fitness_require(b->machine.config.kvm_fd, f);
    if (ret == 0)
        ret = open_console(b, f);
    if (ret == 0 && b->machine.has_image)
        ret = append_shell(b, f);
    if (ret == 0)
        ret = monitor_spawn(&b->monitor, f);
    if (ret != 0)
        return ret;
    names = machine_names(&b->machine);
    ret = monitor_build(b->monitor, &b->machine.config, &names, f);
    /* The monitor has its own copies now; ours would keep the ends open. */
    vm_config_fini(&b->machine.config);
    return ret;
}

static int boot_run(struct boot *b, struct failure *f)
{
    int ret = console_make_raw(&b->console);

    if (ret == 0)
        ret = monitor_start(b->monitor);
    if (ret != 0) {
        failure_set(f, "host", "console", NULL, "cannot start: %s",
                    strerror(-ret));
        return ret;
    }
    relay_until_end(b);
    monitor_stop(b->monitor);
    monitor_finish(b->monitor, STOP_TIMEOUT_MS);
    drain_console(b);
    return 0;
}

static void boot_fini(struct boot *b)
{
    console_restore(&b->console);
    monitor_free(b->monitor);
    relay_fini(&b->to_guest);
    relay_fini(&b->to_user);
    io_close(&b->guest_fd);
    io_close(&b->signal_fd);
    machine_close(&b->machine);
}

static int boot_main(const struct verb *verb, int argc, char **argv)
{
    struct boot b = {.guest_fd = -1, .signal_fd = -1, .stdin_open = true};
    struct machine_spec spec;
    struct options *options = calloc(1, sizeof(*options));
    struct failure f = {0};
    int ret = options ? cli_parse(verb, argc, argv, options) : EXIT_INFRA;

    if (ret >= 0) {
        free(options);
        return ret;
    }
    vm_config_init(&b.machine.config);
    machine_spec_init(&spec);
    console_init(&b.console, STDIN_FILENO);
    if (options->positional_count > 0) {
        failure_set(&f, "usage", options->positional[0],
                    "to run a command use microsbx run",
                    "boot takes no argument, but got '%s'",
                    options->positional[0]);
        ret = -EINVAL;
    } else {
        ret = machine_options_read(options, &spec, &f);
    }
    if (ret == 0)
        ret = cli_watch_signals(0, &b.signal_fd, &f);
    if (ret == 0)
        ret = boot_prepare(&b, &spec, &f);
    if (ret == 0)
        ret = boot_run(&b, &f);
    boot_fini(&b);
    machine_spec_fini(&spec);
    free(options);
    if (ret != 0)
        return cli_fail(verb, &f);
    if (b.note[0])
        fprintf(stderr, "microsbx boot: %s\n", b.note);
    return b.status;
}

const struct verb VERB_BOOT = {
    .name = "boot",
    .synopsis = "[MACHINE OPTIONS]",
    .summary = "Start a machine and attach its console (Ctrl-A x ends it).",
    .description =
        "Boots a machine and attaches its serial console to this terminal. "
        "With --image a shell opens in it, and leaving the shell powers the "
        "machine off. Ctrl-A x ends the machine, Ctrl-A h helps. The exit "
        "status is 0 after a power-off or reset by the guest and after Ctrl-A "
        "x, 137 when the guest panicked or died otherwise, 130 when "
        "cancelled, 125 when it could not start.",
    .example = "  microsbx boot --image python\n"
               "  microsbx boot --kernel vmlinux --initrd initrd -m 512M\n",
    .groups = {&MACHINE_OPTIONS, NULL},
    .main = boot_main,
};
