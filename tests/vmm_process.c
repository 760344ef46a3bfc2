/* SPDX-License-Identifier: Apache-2.0 */
/* A monitor process for tests; see the header. */
#include "tests/vmm_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/standard_fds.h"

/* The program beside build/tests. */
static int find_program(char *buf, size_t size)
{
    const char *named = getenv("MICROSBX_VMM");
    ssize_t n;

    if (named) {
        snprintf(buf, size, "%s", named);
        return 0;
    }
    n = readlink("/proc/self/exe", buf, size - 32);
    if (n < 0)
        return -errno;
    buf[n] = '\0';
    for (int up = 0; up < 3; up++) {
        char *slash = strrchr(buf, '/');

        if (!slash)
            return -ENOENT;
        *slash = '\0';
    }
    strcat(buf, "/microsbx-vmm");
    return 0;
}

/* The child: never returns. */
static void exec_program(const char *path, int sock)
{
    bool ready = sock == MONITOR_SOCKET_FD
                     ? fcntl(sock, F_SETFD, 0) == 0
                     : dup2(sock, MONITOR_SOCKET_FD) == MONITOR_SOCKET_FD;

    if (ready && standard_fds_set_null() == 0)
        execl(path, "microsbx-vmm", (char *)NULL);
    _exit(127);
}

int vmm_process_start(struct vmm_process *p)
{
    char path[4096];
    int pair[2];
    int ret = find_program(path, sizeof(path));

    *p = (struct vmm_process){.pid = -1, .sock = -1};
    if (ret < 0)
        return ret;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    p->pid = vfork();
    if (p->pid == 0)
        exec_program(path, pair[1]);
    ret = p->pid < 0 ? -errno : 0;
    io_close(&pair[1]);
    p->sock = pair[0];
    return ret;
}

int vmm_process_send(struct vmm_process *p, enum monitor_msg type)
{
    return msg_send(p->sock, type, NULL, 0, NULL, 0);
}

int vmm_process_send_config(struct vmm_process *p,
                            const struct vm_config *config)
{
    uint8_t buf[MSG_PAYLOAD_MAX];
    int fds[MSG_FDS_MAX];
    size_t len, fd_count;
    int ret = vm_config_encode(config, buf, sizeof(buf), &len, fds, &fd_count);

    if (ret < 0)
        return ret;
    return msg_send(p->sock, MONITOR_CONFIG, buf, len, fds, fd_count);
}

int vmm_process_receive(struct vmm_process *p, struct msg *ret_msg,
                        int timeout_ms)
{
    struct pollfd poll_fd = {.fd = p->sock, .events = POLLIN};
    int n = poll(&poll_fd, 1, timeout_ms);

    if (n <= 0)
        return n < 0 ? -errno : -ETIMEDOUT;
    return msg_receive(p->sock, ret_msg);
}

int vmm_process_wait(struct vmm_process *p, int timeout_ms)
{
    const struct timespec step = {.tv_nsec = 1000000};
    uint64_t end = io_now_ns() + (uint64_t)timeout_ms * 1000000u;
    int status;

    while (p->pid > 0) {
        pid_t pid = waitpid(p->pid, &status, WNOHANG);

        if (pid == p->pid) {
            p->pid = -1;
            return status;
        }
        if (io_now_ns() > end)
            return -1;
        (void)nanosleep(&step, NULL);
    }
    return -1;
}

void vmm_process_end(struct vmm_process *p)
{
    io_close(&p->sock);
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        (void)waitpid(p->pid, NULL, 0);
        p->pid = -1;
    }
}
