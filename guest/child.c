/* SPDX-License-Identifier: Apache-2.0 */
/* From fork to execve; see the header. capabilities(7), execve(2). */
#include "guest/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "guest/proto.h"
#include "guest/sysfile.h"

#define DEFAULT_PATH                                                           \
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define DEFAULTS_MAX 5u   /* variables the agent adds */
#define NOFILE_SOFT 1024u /* what programs that loop over all fds expect */
#define NOFILE_HARD 65536u
#define TERMINAL_MODE 0620 /* of the user, and of those who may write to it */

/*
 * What a root workload keeps: acting as root towards its own files and
 * processes. It is an allow-list, so that a capability a later kernel invents
 * is not given by accident. Not given, and why:
 *   SYS_ADMIN (mounts, namespaces, devices), SYS_BOOT, SYS_MODULE,
 *   SYS_RAWIO, MKNOD (the raw disks under the root): the guest itself;
 *   SYS_PTRACE, CHECKPOINT_RESTORE: other processes, the keeper among them;
 *   SYS_RESOURCE: oom_score_adj below 0, rlimits, reserved disk blocks;
 *   SYS_NICE: real-time priority would starve the agent; IPC_LOCK, IPC_OWNER;
 *   SYS_TIME, WAKE_ALARM: clocks; SYSLOG, AUDIT_*: the kernel's log;
 *   NET_ADMIN, NET_RAW, NET_BROADCAST: there is no network to manage;
 *   BPF, PERFMON: programs in the kernel; BLOCK_SUSPEND, LINUX_IMMUTABLE,
 *   LEASE, MAC_*, SYS_PACCT, SYS_TTY_CONFIG: nothing a workload does;
 *   DAC_READ_SEARCH: opens files by handle, around the sandbox's root.
 */
static const unsigned char kept_capabilities[] = {
    CAP_CHOWN,            /* change owners of its files */
    CAP_DAC_OVERRIDE,     /* read and write whatever the mode says */
    CAP_FOWNER,           /* chmod, utime on files of others */
    CAP_FSETID,           /* keep set-id bits when writing */
    CAP_KILL,             /* signal processes of other users */
    CAP_SETGID,           /* su, package scripts */
    CAP_SETUID,           /* the same */
    CAP_SETPCAP,          /* only gives up or passes on what is here */
    CAP_SETFCAP,          /* unpack packages; bounded by this set */
    CAP_NET_BIND_SERVICE, /* a server on port 80 of loopback */
    CAP_SYS_CHROOT,       /* build tools; leads back to the overlay */
};

/* ---- steps -------------------------------------------------------------- */

int child_enter(const struct sandbox *sandbox, int procs_fd,
                const char *oom_adj)
{
    int ret;

    if (write(procs_fd, "0", 1) != 1)
        return -errno;
    ret = sysfile_write(AT_FDCWD, "/proc/self/oom_score_adj", oom_adj);
    if (ret && ret != -EACCES) /* lowering: an agent under test may not */
        return ret;
    ret = sandbox_enter(sandbox);
    if (ret)
        return ret;
    umask(022);
    return 0;
}

static bool is_kept(int capability)
{
    for (size_t i = 0; i < sizeof(kept_capabilities); i++) {
        if (kept_capabilities[i] == capability)
            return true;
    }
    return false;
}

/* The bounding set is what no execve, set-uid or not, gets beyond. */
static int shed_bounding_set(void)
{
    for (int c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++) {
        if (!is_kept(c) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0)
            return -errno;
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 &&
        errno != EINVAL)
        return -errno;
    return 0;
}

/* This process's own sets; root keeps the list, a user nothing. */
static int set_capabilities(bool root)
{
    struct __user_cap_header_struct header = {
        .version = _LINUX_CAPABILITY_VERSION_3,
    };
    struct __user_cap_data_struct data[2] = {{0}, {0}};

    for (size_t i = 0; root && i < sizeof(kept_capabilities); i++) {
        unsigned int c = kept_capabilities[i];

        data[c / 32].permitted |= 1u << (c % 32);
        data[c / 32].effective |= 1u << (c % 32);
    }
    if (syscall(SYS_capset, &header, data) < 0)
        return -errno;
    return 0;
}

int child_become(const struct user *user)
{
    int ret = shed_bounding_set();

    if (ret)
        return ret;
    if (setgroups(user->group_count, user->groups) < 0 ||
        setresgid(user->gid, user->gid, user->gid) < 0 ||
        setresuid(user->uid, user->uid, user->uid) < 0)
        return -errno;
    return set_capabilities(user->uid == 0);
}

int child_keep_fds(const int *fds, unsigned int count)
{
    int moved[8];

    /* First out of the way of 0..count-1, then down in order. */
    for (unsigned int i = 0; i < count; i++) {
        moved[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 16);
        if (moved[i] < 0)
            return -errno;
    }
    for (unsigned int i = 0; i < count; i++) {
        if (dup2(moved[i], (int)i) < 0)
            return -errno;
    }
    if (close_range(count, ~0u, 0) < 0)
        return -errno;
    return 0;
}

/* ---- the program -------------------------------------------------------- */

/* A default variable unless the request has one of that name. */
static void add_default(const char **env, size_t *count,
                        const char *const *given, const char *name,
                        const char *value)
{
    size_t len = strlen(name);
    char *text;

    for (; *given; given++) {
        if (strncmp(*given, name, len) == 0 && (*given)[len] == '=')
            return;
    }
    if (asprintf(&text, "%s=%s", name, value) > 0)
        env[(*count)++] = text;
}

/*
 * The request's variables and the usual ones. Lives until execve or exit.
 * NULL: no memory.
 */
static const char **make_env(const struct child_exec *spec,
                             const struct user *user)
{
    size_t given = 0, count = 0;
    const char **env;

    while (spec->env[given])
        given++;
    env = calloc(given + DEFAULTS_MAX + 1, sizeof(*env));
    if (!env)
        return NULL;
    add_default(env, &count, spec->env, "PATH", DEFAULT_PATH);
    add_default(env, &count, spec->env, "HOME", user->home);
    if (user->name[0]) {
        add_default(env, &count, spec->env, "USER", user->name);
        add_default(env, &count, spec->env, "LOGNAME", user->name);
    }
    if (spec->flags & PROTO_EXEC_TTY)
        add_default(env, &count, spec->env, "TERM", "xterm");
    memcpy(env + count, spec->env, given * sizeof(*env));
    return env;
}

static const char *env_find(const char *const *env, const char *name)
{
    size_t len = strlen(name);

    for (; *env; env++) {
        if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
            return *env + len + 1;
    }
    return "";
}

/*
 * execve takes pointers to writable strings for history's sake and does not
 * write to them; the detour keeps -Wcast-qual of use elsewhere.
 */
static void exec_file(const char *path, const char *const *argv,
                      const char *const *env)
{
    union {
        const char *const *in;
        char *const *out;
    } a = {.in = argv}, e = {.in = env};

    execve(path, a.out, e.out);
}

/*
 * As execvp, except that no shell is asked to run what the kernel refuses.
 * Returns the errno to report: EACCES if something was found that may not be
 * executed, else the last error.
 */
static int exec_program(const char *const *argv, const char *const *env)
{
    const char *path = env_find(env, "PATH");
    bool denied = false;
    char file[PATH_MAX];

    if (strchr(argv[0], '/') || argv[0][0] == '\0') {
        exec_file(argv[0], argv, env);
        return errno;
    }
    while (*path) {
        int len = (int)strcspn(path, ":");
        const char *slash = len ? "/" : "./";

        if (snprintf(file, sizeof(file), "%.*s%s%s", len, path, slash,
                     argv[0]) < (int)sizeof(file)) {
            exec_file(file, argv, env);
            denied |= errno == EACCES;
            if (errno != EACCES && errno != ENOENT && errno != ENOTDIR)
                return errno;
        }
        path += len;
        path += *path == ':';
    }
    return denied ? EACCES : ENOENT;
}

/*
 * The user owns what it reads and writes: /dev/stdin and its like open a pipe
 * or terminal anew, and then its owner and mode count. A device that others
 * use, too (/dev/null), is left alone.
 */
static int own_stdio(const struct user *user)
{
    for (int fd = 0; fd < 3; fd++) {
        struct stat st;

        if (fstat(fd, &st) < 0)
            return -errno;
        if (S_ISFIFO(st.st_mode) && fchown(fd, user->uid, user->gid) < 0)
            return -errno;
        /* Its group stays, who writes to terminals. Not every one can be
           given away (a console): a wish. */
        if (isatty(fd) && fchown(fd, user->uid, (gid_t)-1) == 0)
            (void)!fchmod(fd, TERMINAL_MODE);
    }
    return 0;
}

static int reset_process(void)
{
    const struct rlimit core = {0, 0};
    struct rlimit files = {NOFILE_SOFT, NOFILE_HARD};
    sigset_t none;

    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (setrlimit(RLIMIT_CORE, &core) < 0)
        return -errno;
    if (setrlimit(RLIMIT_NOFILE, &files) == 0)
        return 0;
    /* Raising it takes a right that an agent under test may lack. */
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return -errno;
    files.rlim_cur =
        files.rlim_max < NOFILE_SOFT ? files.rlim_max : NOFILE_SOFT;
    return setrlimit(RLIMIT_NOFILE, &files) < 0 ? -errno : 0;
}

static uint32_t exec_reason(int err)
{
    return err == ENOENT || err == ENOTDIR ? PROTO_FAIL_NOT_FOUND
                                           : PROTO_FAIL_NOT_EXECUTABLE;
}

/*
 * Runs in the child; returns only on failure. Descriptors are 0, 1, 2 and
 * the report pipe as 3 once child_keep_fds is through.
 */
static struct child_failure child_run(const struct child_exec *spec,
                                      const struct user *user)
{
    const char *cwd = spec->cwd[0] ? spec->cwd : user->home;
    const char **env = make_env(spec, user);
    int ret = env ? 0 : -ENOMEM;

    if (ret == 0 && setsid() < 0)
        ret = -errno;
    if (ret == 0 && (spec->flags & PROTO_EXEC_TTY) &&
        ioctl(0, TIOCSCTTY, 0) < 0)
        ret = -errno;
    if (ret == 0)
        ret = own_stdio(user);
    if (ret == 0)
        ret = reset_process();
    if (ret == 0)
        ret = child_become(user);
    if (ret == 0 && user->uid != 0 && !(spec->flags & PROTO_EXEC_NEW_PRIVS) &&
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        ret = -errno;
    if (ret) {
        free(env);
        return (struct child_failure){PROTO_FAIL_SYSTEM, (uint32_t)-ret};
    }
    /* As the user: what they may not enter is no working directory. Only a
       home that is gone is forgiven, nobody asked for it by name. */
    if (chdir(cwd) < 0 && (spec->cwd[0] || chdir("/") < 0))
        return (struct child_failure){PROTO_FAIL_CWD, (uint32_t)errno};
    ret = exec_program(spec->argv, env);
    return (struct child_failure){exec_reason(ret), (uint32_t)ret};
}

static void __attribute__((noreturn))
child_main(const struct sandbox *sandbox, const struct child_exec *spec,
           int report_fd)
{
    const int fds[] = {spec->fds[0], spec->fds[1], spec->fds[2], report_fd};
    struct child_failure failure = {PROTO_FAIL_SYSTEM, 0};
    struct user user;
    int ret, root_fd;

    /* Whoever is root in the sandbox must not trace us before the execve:
       our memory holds what other execs sent and received. */
    prctl(PR_SET_DUMPABLE, 0);
    ret = child_enter(sandbox, spec->procs_fd, "0");
    if (ret == 0)
        ret = child_keep_fds(fds, 4);
    if (ret == 0 && fcntl(3, F_SETFD, FD_CLOEXEC) < 0)
        ret = -errno;
    if (ret) {
        failure.err = (uint32_t)-ret;
        goto out_report;
    }
    report_fd = 3;
    root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    ret = users_resolve_at(root_fd, spec->user, &user);
    sysfile_close(&root_fd);
    if (ret) {
        failure = (struct child_failure){PROTO_FAIL_USER, (uint32_t)-ret};
        goto out_report;
    }
    failure = child_run(spec, &user);
out_report:
    (void)!write(report_fd, &failure, sizeof(failure));
    _exit(127);
}

pid_t child_spawn(struct sandbox *sandbox, const struct child_exec *spec,
                  int *ret_report_fd)
{
    int report[2];
    pid_t pid;

    if (pipe2(report, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    pid = sandbox_fork(sandbox, true);
    if (pid == 0)
        child_main(sandbox, spec, report[1]);
    close(report[1]);
    if (pid < 0) {
        close(report[0]);
        return pid;
    }
    *ret_report_fd = report[0];
    return pid;
}
