/* SPDX-License-Identifier: Apache-2.0 */
/* File operations; see the header. openat2(2). */
#include "guest/filejob.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/child.h"
#include "guest/sysfile.h"
#include "guest/users.h"

/* Descriptors of the helper after child_keep_fds. */
#define JOB_REPORT_FD 0
#define JOB_DATA_FD 1

struct job {
    const struct proto_file_open *request;
    const char *path; /* relative to root_fd's root or to the home */
    int root_fd;
    struct user user;
    struct proto_file_done done;
    char full[PROTO_PATH_MAX + USERS_HOME_MAX];
};

/* ---- opening ------------------------------------------------------------ */

/*
 * Opens below the sandbox's root. The process's root is that very directory;
 * RESOLVE_IN_ROOT says it again to the kernel, and no magic link of /proc
 * leads out. O_NONBLOCK: a FIFO or device must not hang us before fstat.
 */
static int open_inside(const struct job *job, const char *path, int flags,
                       mode_t mode)
{
    int extra = flags & O_PATH ? 0 : O_NOCTTY | O_NONBLOCK;
    struct open_how how = {
        .flags = (unsigned int)(flags | extra | O_CLOEXEC),
        .mode = flags & O_CREAT ? mode : 0,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    long fd = syscall(SYS_openat2, job->root_fd, path, &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

/* fstat, and that it is a regular file. */
static int check_regular(int fd, struct stat *ret_st)
{
    if (fstat(fd, ret_st) < 0)
        return -errno;
    if (S_ISDIR(ret_st->st_mode))
        return -EISDIR;
    return S_ISREG(ret_st->st_mode) ? 0 : -EINVAL;
}

static void set_done(struct job *job, const struct stat *st)
{
    job->done.mode = st->st_mode;
    job->done.uid = st->st_uid;
    job->done.gid = st->st_gid;
    job->done.mtime_s = st->st_mtim.tv_sec;
}

/* Makes each directory above the last component that is missing. */
static int make_parents(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        int ret;

        *slash = '\0';
        ret = mkdir(path, 0755) < 0 ? -errno : 0;
        *slash = '/';
        if (ret && ret != -EEXIST)
            return ret;
    }
    return 0;
}

/* ---- the operations: each fills job->done, 0 or a negative errno --------- */

static int write_all(int fd, const char *buf, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, buf, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        buf += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Pipe to file or file to pipe; limit as in the request. */
static int copy(struct job *job, int from, int to, uint64_t limit)
{
    static char buf[65536]; /* one helper, one copy */

    for (;;) {
        ssize_t n = read(from, buf, sizeof(buf));
        int ret;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        if (limit && (uint64_t)n > limit - job->done.bytes)
            return -EFBIG;
        ret = write_all(to, buf, (size_t)n);
        if (ret)
            return ret;
        job->done.bytes += (uint64_t)n;
    }
}

static int do_write(struct job *job)
{
    struct stat st;
    int fd;
    int ret = 0;

    if (!(job->request->flags & PROTO_FILE_NO_PARENTS))
        ret = make_parents(job->full);
    if (ret)
        return ret;
    ret = fd = open_inside(job, job->full, O_WRONLY | O_CREAT,
                           job->request->mode & 07777);
    /* A FIFO nobody reads: the open already fails; same answer. */
    if (ret == -ENXIO)
        return -EINVAL;
    if (ret < 0)
        return ret;
    ret = check_regular(fd, &st);
    /* Only now, so that a device is not touched. */
    if (ret == 0 && ftruncate(fd, 0) < 0)
        ret = -errno;
    if (ret == 0)
        ret = copy(job, JOB_DATA_FD, fd, 0);
    if (ret == 0 && fstat(fd, &st) == 0)
        set_done(job, &st);
    /* Delayed allocation reports a full disk here at the latest. */
    if (close(fd) < 0 && ret == 0)
        ret = -errno;
    return ret;
}

static int do_read(struct job *job)
{
    uint64_t limit = job->request->limit;
    struct stat st;
    int fd;
    int ret = fd = open_inside(job, job->full, O_RDONLY, 0);

    if (ret < 0)
        return ret;
    ret = check_regular(fd, &st);
    if (ret)
        goto out_close;
    set_done(job, &st);
    /* Told at once, before a byte moves; a file that grows is met again. */
    if (limit && (uint64_t)st.st_size > limit) {
        ret = -EFBIG;
        goto out_close;
    }
    ret = copy(job, fd, JOB_DATA_FD, limit);
out_close:
    close(fd);
    return ret;
}

static int do_stat(struct job *job)
{
    struct stat st;
    int fd;
    int ret = fd = open_inside(job, job->full, O_PATH, 0);

    if (ret < 0)
        return ret;
    ret = fstat(fd, &st) < 0 ? -errno : 0;
    close(fd);
    if (ret)
        return ret;
    set_done(job, &st);
    job->done.bytes = (uint64_t)st.st_size;
    return 0;
}

static int do_mkdir(struct job *job)
{
    struct stat st;
    int ret = make_parents(job->full);

    if (ret)
        return ret;
    if (mkdir(job->full, job->request->mode & 07777) < 0 && errno != EEXIST)
        return -errno;
    if (stat(job->full, &st) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode))
        return -ENOTDIR;
    set_done(job, &st);
    return 0;
}

static int run_operation(struct job *job, uint16_t type)
{
    switch (type) {
    case PROTO_FILE_WRITE:
        return do_write(job);
    case PROTO_FILE_READ:
        return do_read(job);
    case PROTO_FILE_STAT:
        return do_stat(job);
    case PROTO_FILE_MKDIR:
        return do_mkdir(job);
    default:
        return -ENOSYS;
    }
}

/* ---- the helper --------------------------------------------------------- */

/* Resolves the user, becomes it and makes the path absolute. */
static int prepare(struct job *job)
{
    const char *path = job->request->path;
    int ret = users_resolve_at(job->root_fd, job->request->user, &job->user);

    if (ret)
        return ret == -ENOENT ? -EINVAL : ret;
    ret = child_become(&job->user);
    if (ret)
        return ret;
    if (path[0] == '/') {
        strcpy(job->full, path);
        return 0;
    }
    if (strlen(job->user.home) + 1 + strlen(path) >= PROTO_PATH_MAX)
        return -ENAMETOOLONG;
    strcpy(job->full, job->user.home);
    strcat(job->full, "/");
    strcat(job->full, path);
    return 0;
}

static void __attribute__((noreturn))
job_main(const struct sandbox *sandbox, uint16_t type,
         const struct proto_file_open *request, const int fds[3])
{
    static struct job job;
    sigset_t none;
    int ret;

    prctl(PR_SET_DUMPABLE, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    job.request = request;
    /* It stays exempt from OOM: results are fetched after a memory hog. */
    ret = child_enter(sandbox, fds[2], "-1000");
    if (ret == 0)
        ret = child_keep_fds(fds, 2);
    if (ret)
        _exit(1);
    job.root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    ret = job.root_fd < 0 ? -errno : prepare(&job);
    if (ret == 0)
        ret = run_operation(&job, type);
    job.done.err = (uint32_t)-ret;
    (void)!write(JOB_REPORT_FD, &job.done, sizeof(job.done));
    _exit(0);
}

pid_t filejob_spawn(struct sandbox *sandbox, uint16_t type,
                    const struct proto_file_open *request, int data_fd,
                    int procs_fd, int *ret_report_fd)
{
    int report[2];
    pid_t pid;

    if (pipe2(report, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    pid = sandbox_fork(sandbox, false);
    if (pid == 0) {
        /* Without data the report stands in, so that there are two. */
        const int fds[3] = {report[1], data_fd >= 0 ? data_fd : report[1],
                            procs_fd};

        job_main(sandbox, type, request, fds);
    }
    close(report[1]);
    if (pid < 0) {
        close(report[0]);
        return pid;
    }
    *ret_report_fd = report[0];
    return pid;
}
