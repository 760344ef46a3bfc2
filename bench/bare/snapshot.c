/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of bare guests for measurements; see the header. */
#include "bench/bare/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "tests/bare_guests.h"
#include "trial/monitor.h"

#define TIMEOUT_MS 60000

void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

void go_first(void)
{
    const struct sched_param param = {.sched_priority = 1};

    (void)sched_setscheduler(0, SCHED_FIFO, &param);
}

static int open_nameless(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0)
        die(dir, strerror(errno));
    return fd;
}

/* The same file for reading only; the other descriptor is closed. */
static int reopen(int fd)
{
    char path[64];
    int again;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    again = open(path, O_RDONLY | O_CLOEXEC);
    if (again < 0)
        die(path, strerror(errno));
    io_close(&fd);
    return again;
}

static int open_kvm(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        die("/dev/kvm", strerror(errno));
    return fd;
}

/* Boots it, its console on a pipe: returns our end. */
static int boot(struct monitor *m, const char *guest, uint64_t bytes)
{
    const struct monitor_names names = {.kernel = guest};
    struct failure f = {0};
    struct vm_config config;
    int console[2];

    if (pipe2(console, O_CLOEXEC) < 0)
        die("pipe", strerror(errno));
    vm_config_init(&config);
    config.memory_bytes = bytes;
    config.cpu_count = 1;
    config.kvm_fd = open_kvm();
    config.kernel_fd = bare_guest_open(guest);
    config.console_out_fd = console[1];
    if (config.kernel_fd < 0)
        die(guest, "there is no such guest");
    if (monitor_build(m, &config, &names, &f) < 0)
        die("monitor", f.message);
    vm_config_fini(&config);
    if (monitor_start(m) < 0)
        die("monitor", "it is gone");
    return console[0];
}

/*
 * What a guest says meanwhile must go somewhere, or it would be saved: a guest
 * that talks without end says each byte at once (a line of its own), and its
 * pipe is read until it is paused.
 */
static void save(struct monitor *m, int console, struct snapshot *s)
{
    struct monitor_save_files files = {.state_fd = s->state_fd,
                                       .memory_fd = s->memory_fd};
    struct monitor_saved saved;
    struct failure f = {0};
    pid_t reader;
    char scrap[4096];

    if (read(console, scrap, 1) != 1)
        die("guest", "it said nothing");
    reader = fork();
    if (reader == 0) {
        while (read(console, scrap, sizeof(scrap)) > 0)
            continue;
        _exit(0);
    }
    if (monitor_pause(m, &f) < 0 || monitor_save(m, &files, &saved, &f) < 0)
        die("monitor", f.message);
    kill(reader, SIGKILL);
    (void)waitpid(reader, NULL, 0);
}

void snapshot_make(struct snapshot *s, const char *guest, uint64_t bytes,
                   const char *dir)
{
    struct monitor *m;
    struct failure f = {0};
    int console;

    *s = (struct snapshot){
        .bytes = bytes,
        .state_fd = open_nameless(dir),
        .memory_fd = open_nameless(dir),
    };
    if (monitor_spawn(&m, &f) < 0)
        die("monitor", f.message);
    console = boot(m, guest, bytes);
    save(m, console, s);
    monitor_stop(m);
    (void)monitor_finish(m, TIMEOUT_MS);
    monitor_free(m);
    io_close(&console);
    s->state_fd = reopen(s->state_fd);
    s->memory_fd = reopen(s->memory_fd);
}

void snapshot_close(struct snapshot *s)
{
    io_close(&s->state_fd);
    io_close(&s->memory_fd);
}

void snapshot_config(const struct snapshot *s, int console_out_fd,
                     struct vm_config *ret_config)
{
    vm_config_init(ret_config);
    ret_config->memory_bytes = s->bytes;
    ret_config->cpu_count = 1;
    ret_config->kvm_fd = open_kvm();
    ret_config->state_fd = fcntl(s->state_fd, F_DUPFD_CLOEXEC, 0);
    ret_config->memory_fd = fcntl(s->memory_fd, F_DUPFD_CLOEXEC, 0);
    ret_config->console_out_fd = console_out_fd;
    ret_config->cpu_compared = true; /* as the harness does */
}
