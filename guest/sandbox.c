/* SPDX-License-Identifier: Apache-2.0 */
/* The namespaces workloads live in; see the header. namespaces(7). */
#include "guest/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "guest/hosts.h"
#include "guest/sysfile.h"

#define SANDBOX_HOSTNAME "microsbx"
#define SANDBOX_NAMESPACES                                                     \
    (CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)

void sandbox_init(struct sandbox *sandbox, const struct sandbox_config *config)
{
    *sandbox = (struct sandbox){
        .config = config,
        .mnt_fd = -1,
        .pid_fd = -1,
        .ipc_fd = -1,
        .uts_fd = -1,
        .own_pid_fd = -1,
        .own_uts_fd = -1,
        .pts_fd = -1,
        .hostname = SANDBOX_HOSTNAME,
    };
}

/* A wish: a root that is full or read-only lives without. */
static void name_files(const char *root, const char *old, const char *name)
{
    int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void)!hosts_set_name(fd, old, name);
    close(fd);
}

/* ---- the keeper --------------------------------------------------------- */

/*
 * Makes the config's root the root of this mount namespace. pivot_root is
 * refused from an initramfs; moving the mount onto `/` and chroot into it is
 * what is left, and as the overlay then covers the initramfs's root entirely,
 * leaving the chroot ends in the overlay again.
 */
static int take_root(const struct sandbox_config *config)
{
    static const char *const agents[] = {"/proc", "/sys", "/dev"};

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        chdir(config->root) < 0)
        return -errno;
    /* The agent's own mounts have no business here (only in a guest are
       they directly below `/`; elsewhere the move hides them). */
    for (size_t i = 0; i < sizeof(agents) / sizeof(agents[0]); i++)
        (void)!umount2(agents[i], MNT_DETACH);
    if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0)
        return -errno;
    return 0;
}

static int keeper_build(const struct sandbox *sandbox)
{
    const struct sandbox_config *config = sandbox->config;
    int boot_id_fd = -1;
    int ret = 0;

    /* While there is a way to it; and in this namespace, whose mounts are the
       only ones that can be mounted again here. Never closed: keeper_run. */
    if (config->boot_id) {
        boot_id_fd = open(config->boot_id, O_PATH | O_CLOEXEC);
        ret = boot_id_fd < 0 ? -errno : 0;
    }
    if (ret == 0)
        ret = take_root(config);
    if (ret == 0)
        ret = sandbox_populate(config, boot_id_fd);
    if (ret == 0 &&
        sethostname(sandbox->hostname, strlen(sandbox->hostname)) < 0)
        ret = -errno;
    if (ret == 0)
        name_files("/", "", sandbox->hostname);
    return ret;
}

/*
 * The keeper's life. SIGCHLD is blocked and fetched, everything else from
 * outside its namespace is the agent's doing.
 */
static void __attribute__((noreturn)) keeper_run(void)
{
    sigset_t set;

    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    close_range(0, ~0u, 0);
    for (;;) {
        int signo;

        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        sigwait(&set, &signo);
    }
}

static void __attribute__((noreturn))
keeper_main(const struct sandbox *sandbox, int report_fd)
{
    int ret;

    /* In tests the agent is a process that can die before its keeper. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "keeper");
    ret = keeper_build(sandbox);
    if (write(report_fd, &ret, sizeof(ret)) != sizeof(ret) || ret)
        _exit(1);
    keeper_run();
}

/* fork() into new namespaces: the clone system call without a new stack. */
static pid_t fork_namespaces(void)
{
    long pid = syscall(SYS_clone, SANDBOX_NAMESPACES | SIGCHLD, NULL, NULL,
                       NULL, NULL);

    return pid < 0 ? -errno : (pid_t)pid;
}

static int start_keeper(struct sandbox *sandbox)
{
    int report[2];
    int result = -EIO;
    pid_t pid;

    if (pipe2(report, O_CLOEXEC) < 0)
        return -errno;
    pid = fork_namespaces();
    if (pid == 0)
        keeper_main(sandbox, report[1]);
    close(report[1]);
    if (pid > 0 &&
        read(report[0], &result, sizeof(result)) != (ssize_t)sizeof(result))
        result = -EIO;
    close(report[0]);
    if (pid < 0)
        return pid;
    sandbox->keeper = pid;
    return result;
}

static int open_of(pid_t pid, const char *name, int flags, int *ret_fd)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    *ret_fd = open(path, flags | O_RDONLY | O_CLOEXEC);
    return *ret_fd < 0 ? -errno : 0;
}

static int open_namespaces(struct sandbox *sandbox)
{
    pid_t pid = sandbox->keeper;
    int ret = open_of(pid, "ns/mnt", 0, &sandbox->mnt_fd);

    if (ret == 0)
        ret = open_of(pid, "ns/pid", 0, &sandbox->pid_fd);
    if (ret == 0)
        ret = open_of(pid, "ns/ipc", 0, &sandbox->ipc_fd);
    if (ret == 0)
        ret = open_of(pid, "ns/uts", 0, &sandbox->uts_fd);
    if (ret == 0)
        ret = open_of(getpid(), "ns/pid", 0, &sandbox->own_pid_fd);
    if (ret == 0)
        ret = open_of(getpid(), "ns/uts", 0, &sandbox->own_uts_fd);
    /* Held open now: no path that a workload can touch is walked later. */
    if (ret == 0)
        ret = open_of(pid, "root/dev/pts", O_DIRECTORY, &sandbox->pts_fd);
    return ret;
}

static void close_namespaces(struct sandbox *sandbox)
{
    sysfile_close(&sandbox->mnt_fd);
    sysfile_close(&sandbox->pid_fd);
    sysfile_close(&sandbox->ipc_fd);
    sysfile_close(&sandbox->uts_fd);
    sysfile_close(&sandbox->own_pid_fd);
    sysfile_close(&sandbox->own_uts_fd);
    sysfile_close(&sandbox->pts_fd);
}

int sandbox_ensure(struct sandbox *sandbox)
{
    int ret;

    if (!sandbox->config)
        return -ENODEV;
    if (sandbox->keeper > 0)
        return 0;
    ret = start_keeper(sandbox);
    if (ret == 0)
        ret = open_namespaces(sandbox);
    if (ret)
        sandbox_stop(sandbox);
    return ret;
}

void sandbox_lost(struct sandbox *sandbox)
{
    sandbox->keeper = 0;
    close_namespaces(sandbox);
}

int sandbox_set_hostname(struct sandbox *sandbox, const char *name)
{
    char old[SANDBOX_HOSTNAME_MAX];
    size_t len = strlen(name);
    int ret = 0;

    if (len >= sizeof(sandbox->hostname))
        return -ENAMETOOLONG;
    memcpy(old, sandbox->hostname, sizeof(old));
    memcpy(sandbox->hostname, name, len + 1);
    if (!sandbox->config)
        return 0;
    ret = sandbox_ensure(sandbox);
    if (ret)
        return ret;
    if (setns(sandbox->uts_fd, CLONE_NEWUTS) < 0)
        return -errno;
    if (sethostname(name, len) < 0)
        ret = -errno;
    else
        name_files(sandbox->config->root, old, name);
    /* As in sandbox_fork: the agent lives outside. */
    if (setns(sandbox->own_uts_fd, CLONE_NEWUTS) < 0)
        abort();
    return ret;
}

void sandbox_stop(struct sandbox *sandbox)
{
    if (sandbox->keeper > 0) {
        kill(sandbox->keeper, SIGKILL);
        while (waitpid(sandbox->keeper, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    sandbox_lost(sandbox);
}

/* ---- its users ---------------------------------------------------------- */

pid_t sandbox_fork(struct sandbox *sandbox, bool in_pids)
{
    int ret = sandbox_ensure(sandbox);
    pid_t pid;

    if (ret)
        return ret;
    if (in_pids && setns(sandbox->pid_fd, CLONE_NEWPID) < 0)
        return -errno;
    pid = fork();
    if (pid < 0)
        pid = -errno;
    /* Only this process's future children were concerned; undo that. */
    if (in_pids && pid != 0 && setns(sandbox->own_pid_fd, CLONE_NEWPID) < 0)
        abort();
    return pid;
}

int sandbox_enter(const struct sandbox *sandbox)
{
    if (setns(sandbox->ipc_fd, CLONE_NEWIPC) < 0 ||
        setns(sandbox->uts_fd, CLONE_NEWUTS) < 0 ||
        setns(sandbox->mnt_fd, CLONE_NEWNS) < 0)
        return -errno;
    /* setns put us at the topmost mount on `/`: the overlay root. */
    return 0;
}

int sandbox_open_pty(const struct sandbox *sandbox, int *ret_master,
                     int *ret_slave)
{
    int unlock = 0;
    int slave, ret;
    int master = openat(sandbox->pts_fd, "ptmx",
                        O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

    if (master < 0)
        return -errno;
    if (ioctl(master, TIOCSPTLCK, &unlock) < 0) {
        ret = -errno;
        goto out_close;
    }
    slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0) {
        ret = -errno;
        goto out_close;
    }
    *ret_master = master;
    *ret_slave = slave;
    return 0;
out_close:
    close(master);
    return ret;
}
