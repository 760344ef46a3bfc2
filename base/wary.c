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

void wary_close_socket(int *sock)
{
    char byte;

    if (*sock >= 0 && recv(*sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
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
