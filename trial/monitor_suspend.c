/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A monitor that is stopped as it stands, and what the host's kernel says of
 * its threads; see monitor.h. None of it needs anything of the monitor.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "trial/monitor_handle.h"

/* A call that a stop has waited for so long is a slow one. */
#define SLOW_CALL_NS 200000000u
/* Threads are stopped within microseconds, on a host that is not busy. */
#define LOOK_AGAIN_US 200
/* A monitor has one a vCPU and one more; a hostile one may make many. */
#define THREADS_MAX 4096u
/* "flags" of /proc/PID/stat: PF_EXITING. */
#define FLAG_EXITING 4u

/* The threads of a monitor, at one look. */
struct threads {
    unsigned count;
    unsigned running;    /* in user mode or in the guest, or about to be */
    unsigned in_storage; /* in the kernel, waiting for the host's storage */
    unsigned exiting;
    uint64_t cpu_ns; /* of all but the first, which is the device thread */
};

/* Reads a small file of /proc: its length, or 0. */
static size_t read_proc(pid_t pid, pid_t tid, const char *name, char *buf,
                        size_t size)
{
    char path[96];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", (int)pid, (int)tid,
             name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = io_read_full(fd, buf, size - 1);
    io_close(&fd);
    buf[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

/* True if fd is a file or a disk in there. Root's or our own to look at. */
static bool is_storage(pid_t pid, unsigned long long fd)
{
    char path[64];
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%d/fd/%llu", (int)pid, fd);
    return stat(path, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

/*
 * Waits that the kernel does not call a disk's: those of a file system in user
 * space, and of a tracer that holds a call back. Told only to whoever might
 * trace the monitor.
 */
static bool is_storage_call(pid_t pid, pid_t tid)
{
    static const long calls[] = {
        SYS_preadv,  SYS_pwritev,   SYS_pread64,   SYS_pwrite64,
        SYS_fsync,   SYS_fdatasync, SYS_fallocate, SYS_ftruncate,
        SYS_preadv2, SYS_pwritev2,  SYS_read,      SYS_write,
    };
    unsigned long long fd;
    char text[256];
    long nr;

    if (read_proc(pid, tid, "syscall", text, sizeof(text)) == 0 ||
        sscanf(text, "%ld 0x%llx", &nr, &fd) != 2)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        if (calls[i] == nr)
            return is_storage(pid, fd);
    return false;
}

static void look_at_thread(pid_t pid, pid_t tid, struct threads *t)
{
    char text[1024], *end;
    unsigned long long ns;
    unsigned flags;
    char state;

    if (read_proc(pid, tid, "stat", text, sizeof(text)) == 0)
        return; /* it has just ended */
    end = strrchr(text, ')');
    if (!end || sscanf(end, ") %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2)
        return;
    t->count++;
    if (flags & FLAG_EXITING)
        t->exiting++;
    /* D: asleep in the kernel, whatever signal comes. In a monitor that is the
     * host's storage: a call of its own, or a page that is read in. */
    if (state == 'D' || (state != 'R' && state != 'T' && state != 'Z' &&
                         is_storage_call(pid, tid)))
        t->in_storage++;
    else if (!strchr("TtZX", state))
        t->running++;
    if (tid != pid &&
        read_proc(pid, tid, "schedstat", text, sizeof(text)) > 0 &&
        sscanf(text, "%llu", &ns) == 1)
        t->cpu_ns += ns;
}

/* Looks at each thread, once. It is our child: its number stays its own. */
static void look_at_threads(const struct monitor *m, struct threads *ret)
{
    char path[64];
    struct dirent *entry;
    DIR *dir;

    *ret = (struct threads){0};
    if (m->pid < 0)
        return;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)m->pid);
    dir = opendir(path);
    if (!dir)
        return;
    while ((entry = readdir(dir)) && ret->count < THREADS_MAX)
        if (entry->d_name[0] != '.')
            look_at_thread(m->pid, (pid_t)atoi(entry->d_name), ret);
    closedir(dir);
}

int monitor_suspend(struct monitor *m, int timeout_ms)
{
    uint64_t now = io_now_ns(), began = now;
    uint64_t end = now + (uint64_t)timeout_ms * 1000000u;
    struct threads t;

    if (m->pid < 0 || kill(m->pid, SIGSTOP) != 0)
        return -ESRCH;
    for (; now < end; now = io_now_ns()) {
        if (monitor_is_stopped(m))
            return 0;
        look_at_threads(m, &t);
        if (t.count == 0 || t.exiting == t.count)
            return -ESRCH;
        if (t.running == 0 && t.in_storage == 0 && now - began > SLOW_CALL_NS)
            return 0; /* a tracer holds it */
        if (t.running == 0 && now - began > SLOW_CALL_NS)
            return -EBUSY;
        usleep(LOOK_AGAIN_US);
    }
    return -ETIMEDOUT;
}

void monitor_continue(struct monitor *m)
{
    char path[64];
    struct dirent *entry;
    unsigned count = 0;
    DIR *dir;

    if (m->pid < 0)
        return;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)m->pid);
    dir = opendir(path);
    while (dir && (entry = readdir(dir)) && count++ < THREADS_MAX)
        if (entry->d_name[0] != '.')
            (void)tgkill(m->pid, (pid_t)atoi(entry->d_name),
                         MONITOR_SIGNAL_STAY_OUT);
    if (dir)
        closedir(dir);
    kill(m->pid, SIGCONT);
}

bool monitor_in_storage(const struct monitor *m)
{
    struct threads t;

    look_at_threads(m, &t);
    return t.in_storage > 0;
}

bool monitor_is_exiting(const struct monitor *m)
{
    struct threads t;

    look_at_threads(m, &t);
    return t.count > 0 && t.exiting == t.count;
}

uint64_t monitor_guest_cpu_ns(const struct monitor *m)
{
    struct threads t;

    look_at_threads(m, &t);
    return t.cpu_ns;
}
