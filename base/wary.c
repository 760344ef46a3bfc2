/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets with a hostile other end; see the header. */
#include "base/wary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

void wary_refuse_fds(int sock)
{
    const int off = 0;

    (void)setsockopt(sock, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off));
}

/* Never returns: ends, and all that it has open, when `gate` does. */
static void end_behind(const int gate[2])
{
    char byte;

    close(gate[1]);
    while (read(gate[0], &byte, 1) < 0 && errno == EINTR)
        continue;
    _exit(0);
}

/* A process that nobody waits for, till gate[1] is closed: false if none. */
static bool make_heir(const int gate[2])
{
    pid_t child = fork();
    int status = 1;

    if (child == 0) {
        pid_t heir = fork();

        if (heir == 0)
            end_behind(gate);
        _exit(heir < 0);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return child > 0 && status == 0;
}

void wary_close(int *fds, size_t count)
{
    int gate[2];
    bool heir;

    if (pipe2(gate, O_CLOEXEC) != 0)
        return;
    heir = make_heir(gate);
    for (size_t i = 0; i < count && heir; i++)
        io_close(&fds[i]);
    io_close(&gate[0]);
    io_close(&gate[1]);
}

/*
 * True if a packet lies in it. One of no bytes is told from the end of all by
 * the sender's credentials, for which there is no room here (MSG_CTRUNC).
 */
static bool has_unread(int sock)
{
    const int on = 1;
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    (void)setsockopt(sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    n = recvmsg(sock, &h, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && errno == ECONNRESET) /* once, and in front of all */
        n = recvmsg(sock, &h, MSG_PEEK | MSG_DONTWAIT);
    return n > 0 || (n == 0 && (h.msg_flags & MSG_CTRUNC));
}

void wary_close_socket(int *sock)
{
    if (*sock >= 0 && has_unread(*sock))
        wary_close(sock, 1);
    else
        io_close(sock);
}

int msg_receive_wary(int sock, struct msg *ret_msg)
{
    int fds[MSG_FDS_SENT_MAX];
    size_t count;
    int ret = msg_receive_apart(sock, ret_msg, fds, &count);

    if (count == 0 && !ret_msg->fds_lost)
        return ret;
    wary_close(fds, count);
    return -EBADMSG;
}
