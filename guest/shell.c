/* SPDX-License-Identifier: Apache-2.0 */
/* The console shell; see the header. tty_ioctl(4). */
#include "guest/shell.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "guest/boot.h"
#include "guest/child.h"
#include "guest/sysfile.h"

#define SHELL_PIDS_MAX 4096u
#define SHELL "/bin/sh"

/*
 * The terminal behind the console. /dev/console itself is a stand-in that
 * some programs do not take for a terminal of theirs.
 */
static int open_console(void)
{
    char active[128], path[160];
    const char *name = active;
    int fd;

    if (sysfile_read(AT_FDCWD, "/sys/class/tty/console/active", active,
                     sizeof(active)) > 0) {
        /* The last one is what /dev/console means. */
        if (strrchr(active, ' '))
            name = strrchr(active, ' ') + 1;
        snprintf(path, sizeof(path), "/dev/%s", name);
        fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (fd >= 0)
            return fd;
    }
    fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void set_size(int fd, const struct cmdline *options)
{
    struct winsize size = {.ws_row = options->rows, .ws_col = options->cols};

    if (options->rows && options->cols)
        (void)!ioctl(fd, TIOCSWINSZ, &size);
}

/* Waits for execve to happen or fail, and says why it failed. */
static pid_t await_exec(pid_t pid, int report_fd)
{
    struct child_failure failure;
    ssize_t n;

    (void)!fcntl(report_fd, F_SETFL, 0);
    n = read(report_fd, &failure, sizeof(failure));
    close(report_fd);
    if (n != (ssize_t)sizeof(failure))
        return pid;
    return failure.err ? -(pid_t)failure.err : -EIO;
}

static pid_t start_inside(struct agent *agent, int tty, const char *term)
{
    const char *const argv[] = {SHELL, "-i", NULL};
    char term_env[80];
    const char *const env[] = {term_env, NULL};
    struct child_exec spec = {
        .argv = argv,
        .env = env,
        .user = "root",
        .cwd = "",
        .flags = PROTO_EXEC_TTY,
        .fds = {tty, tty, tty},
    };
    struct cgroup cgroup;
    int report_fd;
    pid_t pid;
    int ret;

    snprintf(term_env, sizeof(term_env), "TERM=%s", term);
    ret = cgroup_create(&agent->cgroups, 0, SHELL_PIDS_MAX, &cgroup);
    if (ret)
        return ret;
    ret = spec.procs_fd = cgroup_open_procs(cgroup.fd);
    /* It lives as long as the machine does. */
    sysfile_close(&cgroup.fd);
    if (ret < 0)
        return ret;
    pid = child_spawn(&agent->sandbox, &spec, &report_fd);
    close(spec.procs_fd);
    return pid < 0 ? pid : await_exec(pid, report_fd);
}

/* No root: whoever booted a bare kernel wants to look around in it. */
static pid_t start_outside(int tty, const char *term)
{
    sigset_t none;
    pid_t pid;

    if (access(SHELL, X_OK) < 0)
        return -errno;
    pid = fork();
    if (pid != 0)
        return pid < 0 ? -errno : pid;
    setsid();
    (void)!ioctl(tty, TIOCSCTTY, 0);
    for (int fd = 0; fd < 3; fd++)
        dup2(tty, fd);
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setenv("TERM", term, 1);
    setenv("PATH", "/sbin:/usr/sbin:/bin:/usr/bin", 1);
    execl(SHELL, SHELL, "-i", (char *)NULL);
    _exit(127);
}

pid_t shell_start(struct agent *agent, const struct cmdline *options)
{
    const char *term = options->term[0] ? options->term : "vt100";
    pid_t pid;
    int tty = open_console();

    if (tty < 0)
        return tty;
    set_size(tty, options);
    if (agent->features & PROTO_FEATURE_ROOT)
        pid = start_inside(agent, tty, term);
    else
        pid = start_outside(tty, term);
    close(tty);
    return pid;
}
