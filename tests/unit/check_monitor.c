/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The harness against a monitor that is hostile or dying. This program is
 * started a second time under the monitor's name, in a folder of its own, and
 * there plays every part that the mode file beside it says.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/io.h"
#include "base/msg.h"
#include "base/num.h"
#include "trial/fetched.h"
#include "trial/monitor.h"
#include "trial/trial.h"

#define SOCK MONITOR_SOCKET_FD
#define WAIT_MS 20000
#define DEBUG_STATUS 256u /* its last byte is that of success */
#define HERE "MICROSBX_CHECK_DIR"

static int null_error; /* of opening /dev/null; 0: none */

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    va_start(args, flags);
    if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE)
        mode = va_arg(args, mode_t);
    va_end(args);
    if (null_error != 0 && !strcmp(path, "/dev/null")) {
        errno = null_error;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* ---- the hostile monitor ------------------------------------------------- */

static void send_message(uint32_t type, const void *payload, size_t len)
{
    int ret = msg_send(SOCK, type, payload, len, NULL, 0);

    if (ret != 0)
        _exit(99);
}

static void send_packet(const void *bytes, size_t len)
{
    if (send(SOCK, bytes, len, MSG_NOSIGNAL) != (ssize_t)len)
        _exit(99);
}

static void send_error(uint32_t code, uint64_t memory_needed)
{
    struct monitor_error e = {
        .code = (enum monitor_error_code)code,
        .disk = 1,
        .memory_needed = memory_needed,
        .text = "the reason",
    };
    uint8_t buf[1024];
    size_t len;

    if (monitor_error_encode(&e, buf, sizeof(buf), &len) != 0)
        _exit(99);
    send_message(MONITOR_ERROR, buf, len);
}

/* A well-formed EXIT, and `extra` bytes behind it. */
/* What the guest's console held unread when it halted. */
static uint64_t console_lost;

static void send_exit_for(enum monitor_exit_reason reason, size_t extra)
{
    static struct monitor_exit e;
    static uint8_t buf[8192];
    size_t len;

    e.reason = reason;
    e.stats.console_dropped = console_lost;
    e.status = reason == MONITOR_EXIT_DEBUG ? DEBUG_STATUS : 0;
    if (monitor_exit_encode(&e, buf, sizeof(buf) - extra, &len) != 0)
        _exit(99);
    send_message(MONITOR_EXIT, buf, len + extra);
}

static void send_exit(size_t extra)
{
    send_exit_for(MONITOR_EXIT_POWER_OFF, extra);
}

static void send_lying_length(void)
{
    uint8_t packet[64] = {0};

    memset(packet, 0x7f, sizeof(packet));
    send_packet(packet, sizeof(packet));
}

static int said_fd = -1;

static void keep_console(struct msg *m)
{
    struct vm_config config;

    if (vm_config_decode(m->payload, m->len, m->fds, m->fd_count, &config) == 0)
        said_fd = dup(config.console_out_fd);
}

static void send_descriptors(uint32_t type)
{
    int fds[MSG_FDS_MAX];

    for (size_t i = 0; i < MSG_FDS_MAX; i++)
        fds[i] = SOCK;
    if (msg_send(SOCK, type, NULL, 0, fds, MSG_FDS_MAX) != 0)
        _exit(99);
}

static void read_mode(char *mode, size_t size)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 8);
    int fd;

    if (n <= 0)
        _exit(98);
    path[n] = '\0';
    strcpy(strrchr(path, '/'), "/mode");
    fd = open(path, O_RDONLY);
    n = fd < 0 ? -1 : read(fd, mode, size - 1);
    if (n <= 0)
        _exit(98);
    close(fd);
    mode[n] = '\0';
}

/* Refuses, and is gone with what came meanwhile unread. */
static void refuse_unread(void)
{
    struct pollfd p = {.fd = SOCK, .events = POLLIN};

    (void)poll(&p, 1, WAIT_MS);
    send_error(MONITOR_ERROR_KERNEL, 0);
    close(SOCK); /* sooner than an exit would, and than anybody wakes up */
    _exit(1);
}

/* Answers to CONFIG or PROBE. */
static void play_build(const char *mode)
{
    unsigned number = 0;
    unsigned long long memory = 0;

    if (!strcmp(mode, "exit"))
        _exit(7);
    else if (!strcmp(mode, "abort"))
        abort();
    else if (!strcmp(mode, "unread"))
        refuse_unread();
    else if (sscanf(mode, "error %u %llu", &number, &memory) >= 1)
        send_error(number, memory);
    else if (!strcmp(mode, "short error"))
        send_message(MONITOR_ERROR, "\x04", 1);
    else if (sscanf(mode, "type %u", &number) == 1)
        send_message(number, NULL, 0);
    else if (!strcmp(mode, "long ready"))
        send_message(MONITOR_READY, "x", 1);
    else if (!strcmp(mode, "one byte"))
        send_packet("x", 1);
    else if (!strcmp(mode, "lying length"))
        send_lying_length();
    else if (!strcmp(mode, "descriptors"))
        send_descriptors(MONITOR_READY);
    else
        send_message(MONITOR_READY, NULL, 0);
}

/* What comes once the guest runs. */
static void play_run(const char *mode)
{
    uint8_t bytes[64] = {0};
    unsigned number = 0;

    if (!strcmp(mode, "run short running"))
        send_message(MONITOR_RUNNING, bytes, 7);
    else if (!strcmp(mode, "run long running"))
        send_message(MONITOR_RUNNING, bytes, 9);
    else if (!strcmp(mode, "run short dial"))
        send_message(MONITOR_VSOCK_DIAL, bytes, 11);
    else if (!strcmp(mode, "run short stats"))
        send_message(MONITOR_STATS, bytes, 63);
    else if (!strcmp(mode, "run long exit"))
        send_exit(1);
    else if (!strcmp(mode, "run short exit"))
        send_message(MONITOR_EXIT, bytes, 4);
    else if (sscanf(mode, "run type %u", &number) == 1)
        send_message(number, NULL, 0);
    else if (!strcmp(mode, "run one byte"))
        send_packet("x", 1);
    else if (!strcmp(mode, "run lying length"))
        send_lying_length();
    else if (!strcmp(mode, "run descriptors"))
        send_descriptors(MONITOR_RUNNING);
    else if (!strcmp(mode, "run exit twice")) {
        send_exit(0);
        send_exit(0);
    } else if (!strcmp(mode, "run crash"))
        raise(SIGSEGV);
    else if (!strcmp(mode, "run deaf"))
        pause();
    else if (!strcmp(mode, "run leave"))
        _exit(3);
}

/* The answer to a request for a file, by mode; none if it says nothing. */
static void put_file(struct proto_writer *w, uint32_t id, const char *mode)
{
    struct proto_file_done done = {.err = 0};

    if (strstr(mode, "bytes")) {
        proto_put_data(w, id, PROTO_FILE, "ne", 2);
        proto_put_data(w, id, PROTO_FILE, "w", 1);
        done.bytes = 3;
    }
    if (strstr(mode, "fails"))
        done = (struct proto_file_done){.err = ENOENT};
    if (strstr(mode, "file"))
        proto_put_file_done(w, id, &done);
}

/* The answer to a file of 13 bytes that is there. */
static void put_taken(struct proto_writer *w, uint32_t id, const char *mode)
{
    struct proto_file_done done = {.bytes = 13};

    if (strstr(mode, "fails"))
        done = (struct proto_file_done){.err = EACCES};
    proto_put_file_done(w, id, &done);
}

/* Runs every command at once; gives and takes files by mode. */
static void play_agent(int fd, const char *mode)
{
    static uint8_t out[PROTO_FRAME_MAX];
    static struct proto_inbox in;
    struct proto_hello hello = {.version = PROTO_VERSION};
    struct proto_exec_exit status = {0};
    struct proto_header header;
    const uint8_t *payload;
    struct proto_writer w;
    char line[64];

    fcntl(fd, F_SETFL, 0);
    proto_inbox_init(&in, PROTO_FROM_HOST);
    proto_writer_init(&w, out, sizeof(out));
    proto_put_hello(&w, &hello);
    if (read(fd, line, sizeof(line)) <= 0 || write(fd, "OK 1\n", 5) != 5 ||
        write(fd, out, w.used) != (ssize_t)w.used)
        _exit(97);
    for (;;) {
        size_t room;
        uint8_t *space = proto_inbox_space(&in, &room);
        ssize_t n = read(fd, space, room);

        if (n <= 0)
            _exit(0);
        proto_inbox_add(&in, (size_t)n);
        while (proto_inbox_next(&in, &header, &payload) > 0) {
            proto_writer_init(&w, out, sizeof(out));
            if (header.type == PROTO_FILE_READ)
                put_file(&w, header.id, mode);
            if (header.type == PROTO_EOF && strstr(mode, "take"))
                put_taken(&w, header.id, mode);
            if (header.type == PROTO_EXEC_STRINGS) {
                proto_put_empty(&w, PROTO_EXEC_STARTED, header.id);
                proto_put_exec_exit(&w, header.id, &status);
            }
            if (write(fd, out, w.used) != (ssize_t)w.used)
                _exit(97);
        }
    }
}

/*
 * Asleep in the kernel whatever signal comes, as one that waits for a disk.
 * `then` is done by somebody else, once that is so.
 */
static void sleep_as_for_a_disk(void (*then)(void *), void *arg)
{
    if (vfork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        then(arg);
        for (;;)
            pause();
    }
}

struct agent_part {
    int fd;
    const char *mode;
};

static void start_agent(void *arg)
{
    struct agent_part *part = arg;

    if (fork() == 0)
        play_agent(part->fd, part->mode);
}

/* A machine with such an agent, in a process of its own; STOP ends it. */
static void play_machine(struct msg *m, const char *mode)
{
    uint8_t now[8] = {0};

    send_message(MONITOR_RUNNING, now, sizeof(now));
    while (msg_receive(SOCK, m) == 1) {
        struct agent_part part = {m->fds[0], mode};

        if (m->type == MONITOR_VSOCK_CLIENT && strstr(mode, "stuck"))
            sleep_as_for_a_disk(start_agent, &part);
        if (m->type == MONITOR_VSOCK_CLIENT)
            start_agent(&part);
        msg_close_fds(m);
        if (m->type == MONITOR_STOP) {
            send_exit(0);
            _exit(0);
        }
    }
    _exit(0);
}

static void send_running(void *unused)
{
    uint8_t now[8];

    (void)unused;
    num_put_le64(now, io_now_ns());
    send_message(MONITOR_RUNNING, now, sizeof(now));
}

static void send_dials(unsigned count)
{
    uint8_t dial[12] = {0};

    for (unsigned i = 0; i < count; i++) {
        dial[0] = (uint8_t)i;
        send_message(MONITOR_VSOCK_DIAL, dial, sizeof(dial));
    }
}

static void say_late(int signal_number)
{
    (void)signal_number;
    if (said_fd >= 0 && write(said_fd, "late", 4) != 4)
        _exit(95);
}

/*
 * A guest without an end, whose monitor is like none of ours when its time is
 * over.
 */
static void play_late(struct msg *m, const char *mode)
{
    signal(SIGCONT, say_late);
    if (said_fd >= 0 && write(said_fd, "early", 5) != 5)
        _exit(95);
    if (strstr(mode, "storage"))
        sleep_as_for_a_disk(send_running, NULL);
    send_running(NULL);
    while (strstr(mode, "deaf"))
        pause();
    while (msg_receive(SOCK, m) == 1 && m->type != MONITOR_STOP)
        msg_close_fds(m);
    while (strstr(mode, "floods"))
        send_dials(1);
    send_exit_for(MONITOR_EXIT_STOPPED, 0);
    _exit(0);
}

/* How a monitor's last moments look to a trial. */
static void play_trial(const char *mode)
{
    uint8_t now[8] = {0};

    if (strstr(mode, "unread"))
        console_lost = 77;
    if (!strstr(mode, "early"))
        send_message(MONITOR_RUNNING, now, sizeof(now));
    if (strstr(mode, "lie"))
        send_packet("x", 1);
    if (strstr(mode, "stopped"))
        send_exit_for(MONITOR_EXIT_STOPPED, 0);
    if (strstr(mode, "debug"))
        send_exit_for(MONITOR_EXIT_DEBUG, 0);
    if (strstr(mode, "exit"))
        send_exit(0);
    if (strstr(mode, "kill"))
        raise(SIGKILL);
    if (strstr(mode, "crash"))
        raise(SIGSEGV);
    close(SOCK);
    pause();
}

/* How many of the dials are answered, before something else comes. */
static void count_refusals(struct msg *m, unsigned expected)
{
    while (expected > 0) {
        if (msg_receive(SOCK, m) != 1 || m->type != MONITOR_VSOCK_DIAL_REPLY ||
            m->fd_count != 0)
            _exit(96);
        expected--;
    }
}

static void send_saved(void)
{
    const struct monitor_saved saved = {.pages = 11, .clusters = 22};
    uint8_t buf[64];
    size_t len;

    if (monitor_saved_encode(&saved, buf, sizeof(buf), &len) != 0)
        _exit(99);
    send_message(MONITOR_SAVED, buf, len);
}

static void send_proved(void)
{
    const struct monitor_proved done = {
        .disk_count = 2, .disks = {[1] = {.clusters = 44, .first = 55}}};
    uint8_t buf[64];
    size_t len;

    if (monitor_proved_encode(&done, buf, sizeof(buf), &len) != 0)
        _exit(99);
    send_message(MONITOR_PROVED, buf, len);
}

static void send_rolled_back(void)
{
    const struct monitor_rolled_back done = {.pages = 33,
                                             .by = MONITOR_ROLLBACK_DROPPED};
    uint8_t buf[64];
    size_t len;

    if (monitor_rolled_back_encode(&done, buf, sizeof(buf), &len) != 0)
        _exit(99);
    send_message(MONITOR_ROLLED_BACK, buf, len);
}

/* The answers as they should be. */
static void obey(uint32_t order)
{
    switch (order) {
    case MONITOR_PAUSE:
        send_message(MONITOR_PAUSED, NULL, 0);
        break;
    case MONITOR_RESUME:
        send_message(MONITOR_RESUMED, NULL, 0);
        break;
    case MONITOR_SAVE:
        send_saved();
        break;
    case MONITOR_PROVE:
        send_proved();
        break;
    case MONITOR_ROLLBACK:
        send_rolled_back();
        break;
    default:
        _exit(95);
    }
}

/* Orders that wait for an answer. */
static void play_order(const char *mode, struct msg *m)
{
    uint8_t bytes[64] = {0};
    uint32_t order = m->type;
    int number = 0;

    if (!strcmp(mode, "order obey")) {
        obey(order);
    } else if (!strcmp(mode, "order chat")) {
        send_message(MONITOR_RUNNING, bytes, 8);
        send_dials(12);
        count_refusals(m, 5);
        obey(order);
    } else if (!strcmp(mode, "order exit")) {
        send_dials(8);
        send_exit(0);
        _exit(0);
    } else if (!strcmp(mode, "order die")) {
        _exit(0);
    } else if (!strcmp(mode, "order long")) {
        send_message(MONITOR_PAUSED + order - MONITOR_PAUSE, bytes, 63);
    } else if (!strcmp(mode, "order other")) {
        send_message(MONITOR_READY, NULL, 0);
    } else if (sscanf(mode, "order error %d", &number) == 1) {
        struct monitor_error e = {
            .code = MONITOR_ERROR_STATE, .error = number, .text = "the reason"};
        size_t len;

        if (monitor_error_encode(&e, bytes, sizeof(bytes), &len) != 0)
            _exit(99);
        send_message(MONITOR_ERROR, bytes, len);
    } /* "order silence": none */
}

static void __attribute__((noreturn)) play(void)
{
    struct rlimit none = {0};
    static struct msg m;
    char mode[64];

    setrlimit(RLIMIT_CORE, &none);
    signal(SIGSEGV, SIG_DFL);
    signal(SIGABRT, SIG_DFL);
    signal(MONITOR_SIGNAL_STAY_OUT, SIG_IGN);
    read_mode(mode, sizeof(mode));
    while (msg_receive(SOCK, &m) == 1) {
        if (m.type == MONITOR_CONFIG && !strncmp(mode, "late", 4))
            keep_console(&m);
        msg_close_fds(&m); /* before the answer: a test counts them */
        if (m.type == MONITOR_CONFIG || m.type == MONITOR_PROBE)
            play_build(mode);
        else if (m.type >= MONITOR_PAUSE && m.type <= MONITOR_ROLLBACK)
            play_order(mode, &m);
        else if (m.type == MONITOR_START && !strncmp(mode, "machine", 7))
            play_machine(&m, mode);
        else if (m.type == MONITOR_START && !strncmp(mode, "trial", 5))
            play_trial(mode);
        else if (m.type == MONITOR_START && !strncmp(mode, "late", 4))
            play_late(&m, mode);
        else if (m.type == MONITOR_START)
            play_run(mode);
    }
    if (!strcmp(mode, "hang"))
        for (;;)
            pause();
    _exit(0);
}

/* ---- the tests ----------------------------------------------------------- */

static struct monitor *monitor;
static struct failure failure;

static void set_mode(const char *mode)
{
    char path[4096];
    FILE *file;

    snprintf(path, sizeof(path), "%s/mode", getenv(HERE));
    file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(mode, file);
    ck_assert_int_eq(fclose(file), 0);
}

/* Starts one in that mode and asks it to build, and maybe to start: its
 * answer. */
static bool few_descriptors; /* room for the socket's two ends, and no more */

static int spawn(void)
{
    struct rlimit files, few;
    int next = dup(0);
    int ret;

    close(next);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &files), 0);
    few = files;
    if (few_descriptors)
        few.rlim_cur = (rlim_t)next + 2;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    ret = monitor_spawn(&monitor, &failure);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &files), 0);
    return ret;
}

static int build_with(const char *mode,
                      int (*ask)(struct monitor *, const struct vm_config *,
                                 const struct monitor_names *,
                                 struct failure *))
{
    static const char *const DISKS[VM_DISKS_MAX] = {"disk zero", "disk one"};
    static const struct monitor_names NAMES = {.kernel = "the kernel",
                                               .initrd = "the initrd",
                                               .disks = DISKS,
                                               .snapshot = "the snapshot"};
    struct vm_config config;
    int ret;

    memset(&failure, 0, sizeof(failure));
    set_mode(mode);
    ck_assert_int_eq(spawn(), 0);
    vm_config_init(&config);
    config.memory_bytes = 64u << 20;
    config.cpu_count = 1;
    config.kvm_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    config.kernel_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    ret = ask(monitor, &config, &NAMES, &failure);
    vm_config_fini(&config);
    return ret;
}

static int build(const char *mode)
{
    return build_with(mode, monitor_build);
}

static unsigned open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* The next event, within WAIT_MS. */
static struct monitor_event next_event(void)
{
    struct pollfd p = {.fd = monitor_fd(monitor), .events = POLLIN};
    struct monitor_event e;

    ck_assert_int_eq(poll(&p, 1, WAIT_MS), 1);
    monitor_receive(monitor, &e);
    return e;
}

static const struct {
    const char *mode;
    const char *code, *message; /* of the failure */
} refusals[] = {
    {"exit", "monitor_died", "exit status 7"},
    {"abort", "monitor_died", "killed by signal 6"},
    {"error 1", "host", "could not build the machine: the reason"},
    {"error 2", "kvm", "KVM cannot run this machine: the reason"},
    {"error 3", "memory", "guest's memory: the reason"},
    {"error 4", "kernel", "kernel the kernel: the reason"},
    {"error 5", "initrd", "initrd the initrd: the reason"},
    {"error 6", "disk", "disk disk one: the reason"},
    {"error 7", "host", "could not build the machine: the reason"},
    {"error 8", "snapshot", "cannot restore the snapshot: the reason"},
    {"error 9", "monitor_lied", "message of type 66"},
    {"short error", "monitor_lied", "message of type 66"},
    {"type 0", "monitor_lied", "message of type 0"},
    {"type 67", "monitor_lied", "message of type 67"},
    {"type 4294967295", "monitor_lied", "type 4294967295"},
    {"long ready", "monitor_lied", "type 65"},
    {"one byte", "monitor_died", "before the guest ran"},
    {"lying length", "monitor_died", "before the guest ran"},
};

static void expect_refusal(int i)
{
    ck_assert_msg(strcmp(failure.code, refusals[i].code) == 0 &&
                      strstr(failure.message, refusals[i].message),
                  "%s: %s: %s", refusals[i].mode, failure.code,
                  failure.message);
    monitor_free(monitor);
}

/* What to do: words of its own, or as much memory as would do. */
static const struct {
    const char *mode, *remedy;
} remedies[] = {
    {"error 4", "give an x86-64 vmlinux or bzImage"},
    {"error 4 71303168", "give it at least -m 68M"},
    {"error 4 71303169", "give it at least -m 70M"}, /* it must be even */
    {"error 4 18446744073709551615", "give an x86-64 vmlinux or bzImage"},
    {"error 5", "give a smaller initrd"},
    {"error 5 71303168", "give it at least -m 68M"},
};

START_TEST(test_remedies)
{
    ck_assert_int_lt(build(remedies[_i].mode), 0);
    ck_assert_str_eq(failure.remedy, remedies[_i].remedy);
    monitor_free(monitor);
}
END_TEST

START_TEST(test_refusals)
{
    ck_assert_int_lt(build(refusals[_i].mode), 0);
    expect_refusal(_i);
    ck_assert_int_lt(build_with(refusals[_i].mode, monitor_build_and_start), 0);
    expect_refusal(_i);
}
END_TEST

/* The socket is reset under what it said last, which is heard all the same. */
START_TEST(test_start_unread)
{
    for (int i = 0; i < 20; i++) {
        ck_assert_int_lt(build_with("unread", monitor_build_and_start), 0);
        ck_assert_str_eq(failure.code, "kernel");
        monitor_free(monitor);
    }
}
END_TEST

START_TEST(test_build_and_start)
{
    struct monitor_event event = {0};

    ck_assert_int_eq(build_with("machine", monitor_build_and_start), 0);
    for (int i = 0; i < WAIT_MS && event.kind == MONITOR_EVENT_NONE; i++) {
        usleep(1000);
        monitor_receive(monitor, &event);
    }
    ck_assert_int_eq(event.kind, MONITOR_EVENT_RUNNING);
    monitor_free(monitor);
}
END_TEST

START_TEST(test_descriptors_are_refused)
{
    unsigned before = open_descriptors();

    if (_i) {
        ck_assert_int_eq(build("run descriptors"), 0);
        ck_assert_int_eq(monitor_start(monitor), 0);
        ck_assert_int_eq(next_event().kind, MONITOR_EVENT_GONE);
    } else {
        ck_assert_int_lt(build("descriptors"), 0);
    }
    monitor_free(monitor);
    ck_assert_uint_eq(open_descriptors(), before);
}
END_TEST

static const char *const liars[] = {
    "run short running", "run long running",    "run short dial",
    "run short stats",   "run long exit",       "run short exit",
    "run type 0",        "run type 65",         "run type 66",
    "run type 71",       "run type 4294967295", "run one byte",
    "run lying length",
};

/* Nothing that does not decode is an event: the monitor counts as gone. */
START_TEST(test_liars)
{
    struct monitor_event e;

    ck_assert_int_eq(build(liars[_i]), 0);
    ck_assert_int_eq(monitor_start(monitor), 0);
    e = next_event();
    ck_assert_msg(e.kind == MONITOR_EVENT_GONE, "%s gives event %d", liars[_i],
                  e.kind);
    ck_assert_str_ne(monitor_reason(monitor), "");
    monitor_receive(monitor, &e); /* and for good */
    ck_assert_int_eq(e.kind, MONITOR_EVENT_NONE);
    monitor_free(monitor);
}
END_TEST

START_TEST(test_exit_is_last)
{
    struct monitor_event e;

    ck_assert_int_eq(build("run exit twice"), 0);
    ck_assert_int_eq(monitor_start(monitor), 0);
    e = next_event();
    ck_assert_int_eq(e.kind, MONITOR_EVENT_EXIT);
    ck_assert_int_eq(e.exit.reason, MONITOR_EXIT_POWER_OFF);
    monitor_receive(monitor, &e);
    ck_assert_int_eq(e.kind, MONITOR_EVENT_NONE);
    monitor_free(monitor);
}
END_TEST

static const struct {
    const char *mode;
    bool exited;
    int number; /* status or signal */
    const char *words;
} ends[] = {
    {"run crash", false, SIGSEGV, "killed by signal 11"},
    {"run leave", true, 3, "exit status 3"},
};

START_TEST(test_ends)
{
    struct monitor_end end;
    char how[64];

    ck_assert_int_eq(build(ends[_i].mode), 0);
    ck_assert_int_eq(monitor_start(monitor), 0);
    ck_assert_int_eq(next_event().kind, MONITOR_EVENT_GONE);
    end = monitor_finish(monitor, WAIT_MS);
    ck_assert_int_eq(end.exited, ends[_i].exited);
    ck_assert_int_eq(end.exited ? end.exit_status : end.signal,
                     ends[_i].number);
    monitor_end_describe(&end, how, sizeof(how));
    ck_assert_str_eq(how, ends[_i].words);
    end = monitor_finish(monitor, 0); /* the same answer again */
    ck_assert_int_eq(end.exited, ends[_i].exited);
    ck_assert_int_eq(monitor_pid(monitor), -1);
    monitor_free(monitor);
}
END_TEST

/* One that does not end is killed, in time. */
START_TEST(test_hang)
{
    uint64_t began = io_now_ns();
    struct monitor_end end;

    ck_assert_int_eq(build("hang"), 0);
    end = monitor_finish(monitor, 200);
    ck_assert(!end.exited);
    ck_assert_int_eq(end.signal, SIGKILL);
    ck_assert(end.killed_here && !end.lied);
    ck_assert_uint_lt(io_now_ns() - began, 10000000000u);
    monitor_free(monitor);
}
END_TEST

/* One that does not read: nothing that is sent to it ever waits. */
START_TEST(test_deaf)
{
    int ret = 0;

    ck_assert_int_eq(build("run deaf"), 0);
    ck_assert_int_eq(monitor_start(monitor), 0);
    alarm(WAIT_MS / 1000);
    for (unsigned i = 0; i < 1000000 && ret == 0; i++)
        ret = monitor_dial_reply(monitor, i, -1);
    alarm(0);
    ck_assert_int_eq(ret, -EAGAIN);
    ck_assert_int_eq(monitor_stop(monitor), -EAGAIN);
    ck_assert_int_eq(monitor_request_stats(monitor), -EAGAIN);
    ck_assert(monitor_finish(monitor, 0).killed_here);
    monitor_free(monitor);
}
END_TEST

/* Messages to one that is gone are errors, not signals. */
START_TEST(test_gone_before)
{
    ck_assert_int_lt(build("exit"), 0);
    ck_assert_int_eq(monitor_start(monitor), -EPIPE);
    ck_assert_int_eq(monitor_stop(monitor), -EPIPE);
    ck_assert_int_eq(monitor_request_stats(monitor), -EPIPE);
    ck_assert_int_eq(monitor_dial_reply(monitor, 1, -1), -EPIPE);
    monitor_free(monitor);
    monitor_free(NULL);
}
END_TEST

/*
 * Only a plain SIGKILL may be the host's doing (out of memory): one that spoke
 * nonsense, had to be killed by us, or crashed after its farewell is to blame.
 */
static const struct {
    const char *mode;
    enum outcome_kind kind;
    const char *cause;
} trials[] = {
    {"trial kill", OUTCOME_INFRA_NEVER_RAN, "monitor_killed"},
    {"trial lie kill", OUTCOME_MONITOR_FAULT, "monitor_lied"},
    {"trial lie hang", OUTCOME_MONITOR_FAULT, "monitor_lied"},
    {"trial hang", OUTCOME_MONITOR_FAULT, "monitor_hung"},
    {"trial exit crash", OUTCOME_MONITOR_FAULT, "monitor_crashed"},
    {"trial stopped", OUTCOME_MONITOR_FAULT, "monitor_lied"},
    {"trial debug", OUTCOME_MONITOR_FAULT, "monitor_lied"},
};

static struct trial_result result;
static uint64_t trial_timeout_ms;
static FILE *trial_events;

static void run_trial(const char *mode, const struct trial_file *file,
                      bool no_agent)
{
    static const char *const argv[] = {"true", NULL};
    static const char *const env[] = {NULL};
    static char kernel[] = "the kernel";
    static struct machine machine;
    struct trial_spec spec = {.no_agent = no_agent,
                              .argv = argv,
                              .env = env,
                              .stdin_fd = -1,
                              .ready_ms = WAIT_MS,
                              .signal_fd = -1,
                              .file_ms = 300,
                              .timeout_ms = trial_timeout_ms,
                              .events = trial_events,
                              .output_limit = 1000,
                              .files = file,
                              .file_count = file != NULL,
                              .out = {.fd = -1},
                              .err = {.fd = -1}};

    set_mode(mode);
    vm_config_init(&machine.config);
    machine.kernel_path = kernel;
    machine.guest_cid = 3;
    machine.config.memory_bytes = 64u << 20;
    machine.config.cpu_count = 1;
    machine.config.kvm_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    machine.config.kernel_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    trial_run(&spec, &machine, &result);
}

START_TEST(test_trial_blames)
{
    run_trial(trials[_i].mode, NULL, false);
    ck_assert_str_eq(outcome_name(result.outcome.kind),
                     outcome_name(trials[_i].kind));
    ck_assert(result.outcome.by_host);
    ck_assert_str_eq(result.outcome.cause, trials[_i].cause);
}
END_TEST

/* Without an agent the machine's end is the guest's word, if it is sound. */
static const struct {
    const char *mode;
    enum outcome_kind kind;
    const char *cause;
    int exit_code;
} bares[] = {
    {"trial exit", OUTCOME_OK, "power_off", 0},
    {"trial debug", OUTCOME_FAIL, "debug_exit", 255},
    {"trial early exit", OUTCOME_MONITOR_FAULT, "monitor_lied", 0},
    {"trial early debug", OUTCOME_MONITOR_FAULT, "monitor_lied", 0},
    {"trial exit crash", OUTCOME_MONITOR_FAULT, "monitor_crashed", 0},
    {"trial stopped", OUTCOME_MONITOR_FAULT, "monitor_lied", 0},
    {"trial kill", OUTCOME_INFRA_UNKNOWN, "monitor_killed", 0},
    {"trial lie hang", OUTCOME_MONITOR_FAULT, "monitor_lied", 0},
};

START_TEST(test_bare_trial)
{
    bool word = bares[_i].kind == OUTCOME_OK || bares[_i].kind == OUTCOME_FAIL;

    run_trial(bares[_i].mode, NULL, true);
    ck_assert_str_eq(outcome_name(result.outcome.kind),
                     outcome_name(bares[_i].kind));
    ck_assert(result.outcome.by_host != word);
    ck_assert_str_eq(result.outcome.cause, bares[_i].cause);
    ck_assert_int_eq(result.facts.exit_code, bares[_i].exit_code);
}
END_TEST

/*
 * At its deadline the monitor is stopped as it stands. What it says later is
 * not the guest's; what it does not say is not held against it if it waits for
 * the host's storage.
 */
static const struct {
    const char *mode;
    enum outcome_kind kind;
    const char *cause;
    bool has_stats;
} lates[] = {
    {"late", OUTCOME_TIMEOUT, NULL, true},
    {"late storage", OUTCOME_TIMEOUT, "host_storage_slow", false},
    {"late deaf", OUTCOME_MONITOR_FAULT, "monitor_hung", false},
    {"late floods", OUTCOME_MONITOR_FAULT, "monitor_lied", false},
};

START_TEST(test_deadline)
{
    trial_timeout_ms = 300;
    run_trial(lates[_i].mode, NULL, true);
    ck_assert_str_eq(outcome_name(result.outcome.kind),
                     outcome_name(lates[_i].kind));
    ck_assert(result.outcome.by_host);
    ck_assert_pstr_eq(result.outcome.cause, lates[_i].cause);
    ck_assert_int_eq(result.has_stats, lates[_i].has_stats);
    ck_assert(result.hit_timeout);
    ck_assert_uint_eq(result.out.bytes, strlen("early"));
}
END_TEST

/* Of our only child: the state that its kernel tells, or '?'. */
static char state_of_child(void)
{
    char path[64], state = '?';
    int pid = 0;
    FILE *f = fopen("/proc/thread-self/children", "r");

    if (!f || fscanf(f, "%d", &pid) != 1)
        pid = 0;
    if (f)
        fclose(f);
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    f = fopen(path, "r");
    if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
        state = '?';
    if (f)
        fclose(f);
    return state;
}

/* Storage that takes an event only when the monitor has been stopped. */
static ssize_t write_late(void *unused, const char *bytes, size_t len)
{
    (void)unused;
    if (memmem(bytes, len, "\"running\"", 9))
        for (int i = 0; i < WAIT_MS && state_of_child() != 'T'; i++)
            usleep(1000);
    return (ssize_t)len;
}

/* The harness is in a write when the time is over: it is kept all the same. */
START_TEST(test_deadline_in_a_write)
{
    const cookie_io_functions_t ops = {.write = write_late};
    uint64_t began = io_now_ns();

    trial_timeout_ms = 300;
    trial_events = fopencookie(NULL, "w", ops);
    run_trial("late", NULL, true);
    fclose(trial_events);
    trial_events = NULL;
    ck_assert_uint_lt(io_now_ns() - began, (uint64_t)WAIT_MS * 1000000u);
    ck_assert_str_eq(outcome_name(result.outcome.kind), "timeout");
    ck_assert_ptr_null(result.outcome.cause);
    ck_assert(result.has_stats);
    ck_assert_uint_eq(result.out.bytes, strlen("early"));
}
END_TEST

/* Stopped, it takes no step; it goes on where it was. */
START_TEST(test_suspend)
{
    struct pollfd p = {.events = POLLIN};

    ck_assert_int_eq(build("late"), 0);
    ck_assert_int_eq(monitor_start(monitor), 0);
    ck_assert_int_eq(next_event().kind, MONITOR_EVENT_RUNNING);
    p.fd = monitor_fd(monitor);
    ck_assert_int_eq(monitor_suspend(monitor, WAIT_MS), 0);
    ck_assert(!monitor_in_storage(monitor) && !monitor_is_exiting(monitor));
    /* Once more: there is nothing to wait for. */
    ck_assert_int_eq(monitor_suspend(monitor, WAIT_MS), 0);
    ck_assert_int_eq(monitor_stop(monitor), 0);
    ck_assert_int_eq(poll(&p, 1, 100), 0);
    monitor_continue(monitor);
    ck_assert_int_eq(next_event().kind, MONITOR_EVENT_EXIT);
    ck_assert(monitor_finish(monitor, WAIT_MS).exited);
    ck_assert_int_eq(monitor_suspend(monitor, WAIT_MS), -ESRCH);
    monitor_free(monitor);
}
END_TEST

START_TEST(test_suspend_in_storage)
{
    struct monitor_end end;

    ck_assert_int_eq(build("late storage"), 0);
    ck_assert_int_eq(monitor_start(monitor), 0);
    ck_assert_int_eq(next_event().kind, MONITOR_EVENT_RUNNING);
    ck_assert_int_eq(monitor_suspend(monitor, WAIT_MS), -EBUSY);
    ck_assert(monitor_in_storage(monitor));
    end = monitor_finish(monitor, 0);
    ck_assert(end.killed_here && !end.left && end.signal == SIGKILL);
    monitor_free(monitor);
}
END_TEST

/* Bytes of the console that nobody could read are counted as lost output; an
 * agent's guest has other output. */
START_TEST(test_console_lost)
{
    run_trial("trial exit", NULL, true);
    ck_assert_uint_eq(result.out.dropped, 0);
    run_trial("trial unread exit", NULL, true);
    ck_assert_str_eq(outcome_name(result.outcome.kind), "ok");
    ck_assert_uint_eq(result.out.dropped, 77);
    run_trial("trial unread exit", NULL, false);
    ck_assert_uint_eq(result.out.dropped, 0);
}
END_TEST

/* The last event is the outcome of the result, whatever that became at last. */
static const char *const last_events[] = {
    "trial kill", "trial lie kill",     "trial hang", "trial exit crash",
    "machine",    "machine file fails", "exit",       "machine file bytes",
};

START_TEST(test_last_event)
{
    char wanted[80], dst[200], *text = NULL, *last;
    struct trial_file get = {.get = true, .src = "p", .dst = dst};
    size_t size = 0;

    snprintf(dst, sizeof(dst), "%s/fetched", getenv(HERE));
    trial_events = open_memstream(&text, &size);
    run_trial(last_events[_i], &get, false);
    ck_assert_int_eq(fclose(trial_events), 0);
    trial_events = NULL;
    unlink(dst);
    ck_assert_uint_gt(size, 1);
    text[size - 1] = '\0'; /* its newline */
    last = strrchr(text, '\n');
    ck_assert_ptr_nonnull(last);
    snprintf(wanted, sizeof(wanted),
             "\"event\": \"outcome\", \"detail\": \"%s\"}",
             outcome_name(result.outcome.kind));
    ck_assert_msg(strstr(last, wanted) != NULL, "%s is not %s", last, wanted);
    free(text);
}
END_TEST

/* A guest that never takes or gives a file does not hold the trial. */
START_TEST(test_file_stalls)
{
    static const struct trial_file put = {.src = "/etc/passwd", .dst = "p"};
    char dst[200];
    struct trial_file get = {.get = true, .src = "p", .dst = dst};

    snprintf(dst, sizeof(dst), "%s/fetched", getenv(HERE));
    alarm(WAIT_MS / 1000);
    run_trial("machine", _i ? &get : &put, false);
    alarm(0);
    ck_assert_str_eq(outcome_name(result.outcome.kind),
                     _i ? "timeout" : "infra_never_ran");
    ck_assert_str_eq(result.outcome.cause, _i ? "files" : "put_failed");
    ck_assert_int_eq(result.files[0].status, TRIAL_FILE_NOT_DONE);
    ck_assert_int_ne(access(dst, F_OK), 0); /* nor half a file */
}
END_TEST

/*
 * Its disk does not answer: a file that does not come or go is not the guest's
 * fault, and one whose command has ended is not held against anybody.
 */
START_TEST(test_storage)
{
    static const char *const outcomes[] = {"ok", "infra_never_ran", "timeout"};
    const struct trial_file put = {.src = "/etc/passwd", .dst = "p"};
    char dst[200];
    const struct trial_file get = {.get = true, .src = "p", .dst = dst};
    const struct trial_file *files[] = {NULL, &put, &get};

    snprintf(dst, sizeof(dst), "%s/fetched", getenv(HERE));
    run_trial("machine stuck", files[_i], false);
    ck_assert_str_eq(outcome_name(result.outcome.kind), outcomes[_i]);
    ck_assert_pstr_eq(result.outcome.cause,
                      _i == 0 ? NULL : "host_storage_slow");
    ck_assert(!result.has_stats);
}
END_TEST

static const char *const probes[] = {"exit",    "ready",        "one byte",
                                     "type 71", "lying length", "error 2"};

#define SHA_NEW                                                                \
    "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437"
#define SHA_EMPTY                                                              \
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SHA_TEXT                                                               \
    "759ae7b7ac72bf271ec79dd281cac37cfe7e508095bbaea8f37e1e8f9a670cd7"

/* What is at a fetched file's place before and after; NULL: no file. */
static const struct {
    const char *mode, *before, *after, *sha256;
} fetches[] = {
    {"machine file bytes", "a longer text", "new", SHA_NEW},
    {"machine file bytes", "", "new", SHA_NEW},
    {"machine file bytes", NULL, "new", SHA_NEW},
    {"machine file", "a longer text", "", SHA_EMPTY},
    {"machine file", NULL, "", SHA_EMPTY},
    {"machine file fails", "a longer text", NULL, ""},
    {"machine file fails", NULL, NULL, ""},
    {"machine file fails bytes", "a longer text", NULL, ""},
    {"machine file fails bytes", NULL, NULL, ""},
    {"machine", "a longer text", NULL, ""},
    {"machine bytes", "a longer text", NULL, ""},
    {"exit", "a longer text", NULL, ""}, /* it never ran */
};

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/* What is not fetched is not there: the one before is not taken for it. */
START_TEST(test_fetched_file)
{
    const char *before = fetches[_i].before, *after = fetches[_i].after;
    char dst[200], text[64] = "";
    struct trial_file get = {.get = true, .src = "p", .dst = dst};
    int fd;

    snprintf(dst, sizeof(dst), "%s/fetched", getenv(HERE));
    if (before)
        write_file(dst, before);
    run_trial(fetches[_i].mode, &get, false);
    ck_assert_int_eq(result.files[0].status == TRIAL_FILE_OK, after != NULL);
    ck_assert_str_eq(result.files[0].sha256, fetches[_i].sha256);
    ck_assert_int_eq(fetched_is_missing(&get, &result.files[0]), !after);
    fd = open(dst, O_RDONLY);
    ck_assert_int_eq(fd >= 0, after != NULL);
    if (after) {
        ck_assert_int_ge(read(fd, text, sizeof(text) - 1), 0);
        ck_assert_str_eq(text, after);
        close(fd);
        unlink(dst);
    }
}
END_TEST

/* One that may be absent is not missed if it is, and only then. */
START_TEST(test_optional_file)
{
    char dst[200];
    struct trial_file get = {
        .get = true, .optional = true, .src = "p", .dst = dst};

    snprintf(dst, sizeof(dst), "%s/fetched", getenv(HERE));
    write_file(dst, "a longer text");
    run_trial("machine file fails", &get, false);
    ck_assert_str_eq(outcome_name(result.outcome.kind), "ok");
    ck_assert(!fetched_is_missing(&get, &result.files[0]));
    ck_assert_int_ne(access(dst, F_OK), 0);
    run_trial("machine", &get, false);
    ck_assert(fetched_is_missing(&get, &result.files[0]));
}
END_TEST

/* Where nothing can be put, nothing runs, and what is there stays. */
START_TEST(test_fetch_places)
{
    char dst[200], other[220];
    struct trial_file get = {.get = true, .src = "p", .dst = dst};
    struct stat st;

    snprintf(dst, sizeof(dst), "%s/fetched", getenv(HERE));
    snprintf(other, sizeof(other), "%s.other", dst);
    write_file(other, "a longer text");
    if (_i == 0)
        ck_assert_int_eq(symlink(other, dst), 0);
    else if (_i == 1)
        ck_assert_int_eq(mkdir(dst, 0700), 0);
    else
        strcat(dst, "/none/file");
    run_trial("machine file bytes", &get, false);
    ck_assert_str_eq(outcome_name(result.outcome.kind), "infra_never_ran");
    ck_assert_str_eq(result.outcome.cause, "get_failed");
    ck_assert_ptr_nonnull(strstr(result.failure.message, dst));
    ck_assert_int_eq(stat(other, &st), 0);
    ck_assert_int_eq(st.st_size, 13);
    ck_assert_int_eq(remove(other), 0);
    ck_assert(_i == 2 || remove(dst) == 0);
}
END_TEST

/* What is no regular file is none of yesterday's: it is written to. */
START_TEST(test_fetch_to_pipe)
{
    char dst[200], text[8] = "";
    struct trial_file get = {.get = true, .src = "p", .dst = dst};
    int fd;

    snprintf(dst, sizeof(dst), "%s/pipe", getenv(HERE));
    ck_assert_int_eq(mkfifo(dst, 0600), 0);
    fd = open(dst, O_RDONLY | O_NONBLOCK);
    run_trial("machine file bytes", &get, false);
    ck_assert_int_eq(result.files[0].status, TRIAL_FILE_OK);
    ck_assert_int_eq(read(fd, text, sizeof(text)), 3);
    ck_assert_str_eq(text, "new");
    close(fd);
    ck_assert_int_eq(unlink(dst), 0);
}
END_TEST

/* The digest of a file put is that of what was sent; a broken one has none. */
START_TEST(test_put_file)
{
    char src[200];
    struct trial_file put = {.src = src, .dst = "p"};

    snprintf(src, sizeof(src), "%s/sent", getenv(HERE));
    write_file(src, "a longer text");
    run_trial(_i ? "machine take fails" : "machine take", &put, false);
    ck_assert_int_eq(result.files[0].status,
                     _i ? TRIAL_FILE_ERROR : TRIAL_FILE_OK);
    ck_assert_str_eq(result.files[0].sha256, _i ? "" : SHA_TEXT);
    ck_assert_uint_eq(result.files[0].bytes, _i ? 0 : 13);
    unlink(src);
}
END_TEST

START_TEST(test_probe_lies)
{
    struct monitor_probe probe;
    int fd = open("/dev/null", O_RDWR);

    set_mode(probes[_i]);
    ck_assert_int_eq(monitor_spawn(&monitor, &failure), 0);
    ck_assert_int_lt(
        monitor_probe(monitor, fd, MONITOR_PROBE_ALL, &probe, &failure), 0);
    ck_assert_str_ne(failure.message, "");
    monitor_free(monitor);
    close(fd);
}
END_TEST

/* ---- orders that wait for their answers ---- */

static struct monitor_saved saved;
static struct monitor_proved proved;
static struct monitor_rolled_back rolled_back;

/* Gives the order with this number. */
static int order(int number)
{
    struct monitor_save_files files = {.state_fd = 0, .memory_fd = 1};

    memset(&failure, 0, sizeof(failure));
    switch (number) {
    case 0:
        return monitor_pause(monitor, &failure);
    case 1:
        return monitor_resume(monitor, &failure);
    case 2:
        files.disk_count = 1;
        files.disk_fds[0] = 2;
        return monitor_save(monitor, &files, &saved, &failure);
    case 3:
        return monitor_prove(monitor, 0, 1, &proved, &failure);
    default:
        return monitor_rollback(monitor, &rolled_back, &failure);
    }
}

#define ORDERS 5

START_TEST(test_orders)
{
    struct monitor_event e;

    ck_assert_int_eq(build("order obey"), 0);
    for (int i = 0; i < ORDERS; i++)
        ck_assert_msg(order(i) == 0, "order %d: %s", i, failure.message);
    ck_assert_uint_eq(saved.pages, 11);
    ck_assert_uint_eq(saved.clusters, 22);
    ck_assert_uint_eq(proved.disk_count, 2);
    ck_assert_uint_eq(proved.disks[1].clusters, 44);
    ck_assert_uint_eq(proved.disks[1].first, 55);
    ck_assert_uint_eq(rolled_back.pages, 33);
    ck_assert_int_eq(rolled_back.by, MONITOR_ROLLBACK_DROPPED);
    monitor_receive(monitor, &e);
    ck_assert_int_eq(e.kind, MONITOR_EVENT_NONE);
    monitor_free(monitor);
}
END_TEST

/* What comes meanwhile is kept, up to a bound; dials beyond it are refused. */
START_TEST(test_orders_keep_events)
{
    struct monitor_event e;

    ck_assert_int_eq(build("order chat"), 0);
    ck_assert_msg(order(0) == 0, "%s", failure.message);
    monitor_receive(monitor, &e);
    ck_assert_int_eq(e.kind, MONITOR_EVENT_RUNNING);
    for (unsigned i = 0; i < 7; i++) {
        monitor_receive(monitor, &e);
        ck_assert_int_eq(e.kind, MONITOR_EVENT_DIAL);
        ck_assert_uint_eq(e.dial_token, i);
    }
    monitor_receive(monitor, &e);
    ck_assert_int_eq(e.kind, MONITOR_EVENT_NONE);
    monitor_free(monitor);
}
END_TEST

/* A machine that ends first: the order fails, and its end is still told. */
START_TEST(test_orders_and_the_end)
{
    enum monitor_event_kind kind =
        _i == 0 ? MONITOR_EVENT_EXIT : MONITOR_EVENT_GONE;
    struct monitor_event e;

    ck_assert_int_eq(build(_i == 0 ? "order exit" : "order die"), 0);
    ck_assert_int_eq(order(2), -ESHUTDOWN);
    ck_assert_str_eq(failure.code, "machine_ended");
    ck_assert_int_eq(order(1), -ESHUTDOWN); /* at once */
    do {
        monitor_receive(monitor, &e);
    } while (e.kind == MONITOR_EVENT_DIAL);
    ck_assert_int_eq(e.kind, kind);
    monitor_receive(monitor, &e);
    ck_assert_int_eq(e.kind, MONITOR_EVENT_NONE);
    monitor_free(monitor);
}
END_TEST

START_TEST(test_orders_answered_wrongly)
{
    ck_assert_int_eq(build("order long"), 0);
    ck_assert_int_eq(order(_i), -EPROTO);
    ck_assert_str_eq(failure.code, "monitor_lied");
    ck_assert(monitor_finish(monitor, 0).lied);
    monitor_free(monitor);
}
END_TEST

/* A message that is neither an answer nor an event. */
START_TEST(test_orders_other_message)
{
    struct monitor_event e;

    ck_assert_int_eq(build("order other"), 0);
    ck_assert_int_eq(order(0), -ESHUTDOWN);
    monitor_receive(monitor, &e);
    ck_assert_int_eq(e.kind, MONITOR_EVENT_GONE);
    ck_assert(monitor_finish(monitor, 0).lied);
    monitor_free(monitor);
}
END_TEST

static const struct {
    int error;
    const char *code;
} order_errors[] = {
    {-ENOSPC, "no_space"}, {-EFBIG, "no_space"}, {-EDQUOT, "no_space"},
    {-EIO, "snapshot"},    {0, "snapshot"},
};

START_TEST(test_orders_refused)
{
    char mode[64];
    int error = order_errors[_i].error;

    snprintf(mode, sizeof(mode), "order error %d", error);
    ck_assert_int_eq(build(mode), 0);
    ck_assert_int_eq(order(2), error ? error : -EINVAL);
    ck_assert_str_eq(failure.code, order_errors[_i].code);
    ck_assert_str_eq(failure.message,
                     "the machine cannot be saved: the reason");
    monitor_free(monitor);
}
END_TEST

/* A caller that has heard enough. */
START_TEST(test_orders_cancelled)
{
    int pipe_fds[2];

    ck_assert_int_eq(pipe(pipe_fds), 0);
    ck_assert_int_eq(build("order silence"), 0);
    monitor_set_cancel_fd(monitor, pipe_fds[0]);
    ck_assert_int_eq(write(pipe_fds[1], "x", 1), 1);
    ck_assert_int_eq(order(3), -ECANCELED);
    ck_assert_str_eq(failure.code, "cancelled");
    monitor_free(monitor);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}
END_TEST

/* It gets its socket, /dev/null three times, and no environment. */
START_TEST(test_inherits_nothing)
{
    char path[64], link[256];
    unsigned seen = 0;
    int secret = open("/etc/passwd", O_RDONLY); /* not close-on-exec */
    int environ_fd;
    DIR *dir;

    ck_assert_int_eq(build("ready"), 0);
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)monitor_pid(monitor));
    dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        ssize_t n = readlinkat(dirfd(dir), e->d_name, link, sizeof(link) - 1);

        if (n <= 0)
            continue;
        link[n] = '\0';
        ck_assert_msg(!strcmp(link, "/dev/null") ||
                          !strncmp(link, "socket:", 7),
                      "descriptor %s is %s", e->d_name, link);
        seen++;
    }
    ck_assert_uint_eq(seen, 4);
    closedir(dir);
    snprintf(path, sizeof(path), "/proc/%d/environ", (int)monitor_pid(monitor));
    environ_fd = open(path, O_RDONLY);
    ck_assert_int_eq(read(environ_fd, link, sizeof(link)), 0);
    close(environ_fd);
    monitor_free(monitor);
    close(secret);
}
END_TEST

/* Without /dev/null it would keep what is ours: it never starts. */
START_TEST(test_no_null)
{
    set_mode("ready");
    null_error = ENOENT;
    ck_assert_int_eq(monitor_spawn(&monitor, &failure), 0);
    null_error = 0;
    ck_assert_int_eq(monitor_finish(monitor, WAIT_MS).exit_status, 127);
    monitor_free(monitor);
}
END_TEST

/* It needs no descriptor beside the socket's two ends to start. */
START_TEST(test_few_descriptors)
{
    few_descriptors = true;
    ck_assert_int_eq(build("ready"), 0);
    monitor_free(monitor);
}
END_TEST

/* Not there, or no program: said before anything else happens. */
START_TEST(test_missing)
{
    char path[4096], aside[4200];

    snprintf(path, sizeof(path), "%s/microsbx-vmm", getenv(HERE));
    snprintf(aside, sizeof(aside), "%s.aside", path);
    ck_assert_int_eq(rename(path, aside), 0);
    ck_assert_int_lt(monitor_spawn(&monitor, &failure), 0);
    ck_assert_int_eq(rename(aside, path), 0);
    ck_assert_str_eq(failure.code, "monitor_missing");
    ck_assert_ptr_nonnull(strstr(failure.message, path));
    ck_assert_str_ne(failure.remedy, "");
}
END_TEST

/* ---- the folder ---------------------------------------------------------- */

static int copy_self(const char *path)
{
    int in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int out = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    struct stat st;
    off_t at = 0;
    int ret = -1;

    if (in >= 0 && out >= 0 && fstat(in, &st) == 0) {
        ret = 0;
        while (at < st.st_size && ret == 0)
            ret = sendfile(out, in, &at, (size_t)(st.st_size - at)) <= 0;
    }
    close(in);
    close(out);
    return ret;
}

/* The tests must find their monitor beside them: they run from a copy. */
static int run_from_copy(void)
{
    char dir[] = "/tmp/check_monitor.XXXXXX";
    char path[100], monitor_path[100], command[200];
    int status;

    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof(path), "%s/check_monitor", dir);
    snprintf(monitor_path, sizeof(monitor_path), "%s/microsbx-vmm", dir);
    if (copy_self(path) != 0 || link(path, monitor_path) != 0)
        return 1;
    setenv(HERE, dir, 1);
    status = system(path);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    if (system(command) != 0 || status != 0)
        return 1;
    return 0;
}

int main(int argc, char **argv)
{
    Suite *s;
    TCase *t;
    SRunner *sr;
    int failed;

    if (argc > 0 && !strcmp(argv[0], "microsbx-vmm"))
        play();
    if (!getenv(HERE))
        return run_from_copy();
    signal(SIGPIPE, SIG_IGN);
    s = suite_create("monitor");
    t = tcase_create("monitor");
    suite_add_tcase(s, t);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, test_refusals, 0,
                        (int)(sizeof(refusals) / sizeof(refusals[0])));
    tcase_add_loop_test(t, test_remedies, 0,
                        (int)(sizeof(remedies) / sizeof(remedies[0])));
    tcase_add_test(t, test_build_and_start);
    tcase_add_test(t, test_start_unread);
    tcase_add_loop_test(t, test_descriptors_are_refused, 0, 2);
    tcase_add_loop_test(t, test_liars, 0,
                        (int)(sizeof(liars) / sizeof(liars[0])));
    tcase_add_test(t, test_exit_is_last);
    tcase_add_loop_test(t, test_ends, 0, (int)(sizeof(ends) / sizeof(ends[0])));
    tcase_add_test(t, test_hang);
    tcase_add_test(t, test_deaf);
    tcase_add_loop_test(t, test_trial_blames, 0,
                        (int)(sizeof(trials) / sizeof(trials[0])));
    tcase_add_loop_test(t, test_bare_trial, 0,
                        (int)(sizeof(bares) / sizeof(bares[0])));
    tcase_add_loop_test(t, test_deadline, 0,
                        (int)(sizeof(lates) / sizeof(lates[0])));
    tcase_add_loop_test(t, test_storage, 0, 3);
    tcase_add_test(t, test_deadline_in_a_write);
    tcase_add_test(t, test_suspend);
    tcase_add_test(t, test_suspend_in_storage);
    tcase_add_test(t, test_console_lost);
    tcase_add_loop_test(t, test_last_event, 0,
                        (int)(sizeof(last_events) / sizeof(last_events[0])));
    tcase_add_loop_test(t, test_file_stalls, 0, 2);
    tcase_add_loop_test(t, test_fetched_file, 0,
                        (int)(sizeof(fetches) / sizeof(fetches[0])));
    tcase_add_test(t, test_optional_file);
    tcase_add_loop_test(t, test_fetch_places, 0, 3);
    tcase_add_test(t, test_fetch_to_pipe);
    tcase_add_loop_test(t, test_put_file, 0, 2);
    tcase_add_test(t, test_gone_before);
    tcase_add_loop_test(t, test_probe_lies, 0,
                        (int)(sizeof(probes) / sizeof(probes[0])));
    tcase_add_test(t, test_orders);
    tcase_add_test(t, test_orders_keep_events);
    tcase_add_loop_test(t, test_orders_and_the_end, 0, 2);
    tcase_add_loop_test(t, test_orders_answered_wrongly, 0, ORDERS);
    tcase_add_test(t, test_orders_other_message);
    tcase_add_loop_test(t, test_orders_refused, 0,
                        (int)(sizeof(order_errors) / sizeof(order_errors[0])));
    tcase_add_test(t, test_orders_cancelled);
    tcase_add_test(t, test_inherits_nothing);
    tcase_add_test(t, test_no_null);
    tcase_add_test(t, test_few_descriptors);
    tcase_add_test(t, test_missing);
    sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
