/* SPDX-License-Identifier: Apache-2.0 */
/* Guests' connections to the host; see the header. */
#include "trial/vsock_dial.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/io.h"

/* A connected descriptor, or -1. Non-blocking: a full backlog is a refusal. */
static int connect_port(const char *path, uint32_t port)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s_%u", path, port);
    int fd;

    if (n < 0 || (size_t)n >= sizeof(addr.sun_path))
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 &&
        connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0)
        io_close(&fd);
    return fd;
}

void vsock_dial_answer(struct monitor *m, const struct monitor_event *event,
                       const char *path)
{
    int fd = path ? connect_port(path, event->dial_port) : -1;
    int ret = monitor_dial_reply(m, event->dial_token, fd);

    /* This user has too many descriptors on their way: that is a refusal. */
    if (fd >= 0 && ret < 0 && ret != -EPIPE && ret != -EAGAIN)
        (void)monitor_dial_reply(m, event->dial_token, -1);
    /* A monitor that is gone says so by an event of its own. */
    io_close(&fd);
}
