/* SPDX-License-Identifier: Apache-2.0 */
/* The way to the agent; see the header. */
#include "trial/agent_link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/wary.h"
#include "guest/proto.h"

#define RETRY_NS 10000000u

void agent_link_init(struct agent_link *link)
{
    *link = (struct agent_link){.fd = -1};
}

void agent_link_fini(struct agent_link *link)
{
    io_close(&link->fd);
}

int agent_link_try(struct agent_link *link, struct monitor *m, uint64_t now)
{
    char line[32];
    int n = snprintf(line, sizeof(line), "CONNECT %u\n", PROTO_VSOCK_PORT);
    int pair[2];
    int ret;

    if (link->fd >= 0 || now < link->retry_ns)
        return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                   pair) != 0)
        return -errno;
    wary_refuse_fds(pair[0]);
    ret = monitor_add_vsock_client(m, pair[1]);
    close(pair[1]);
    if (ret == 0 && write(pair[0], line, (size_t)n) != n)
        ret = -EPIPE;
    link->line_len = 0;
    link->retry_ns = now + RETRY_NS;
    if (ret != 0) {
        close(pair[0]);
        /* A monitor that is gone or busy says so elsewhere. */
        return ret == -EPIPE || ret == -EAGAIN ? 0 : ret;
    }
    link->fd = pair[0];
    return 0;
}

/* One byte at a time: what follows the line is the agent's stream. */
int agent_link_read(struct agent_link *link, uint64_t now, int *ret_fd)
{
    for (;;) {
        char c;
        ssize_t n = read(link->fd, &c, 1);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (n <= 0 || link->line_len == sizeof(link->line) - 1)
            break;
        if (c == '\n') {
            link->line[link->line_len] = '\0';
            if (strncmp(link->line, "OK ", 3) != 0)
                break;
            *ret_fd = link->fd;
            link->fd = -1;
            return 1;
        }
        link->line[link->line_len++] = c;
    }
    io_close(&link->fd);
    link->retry_ns = now + RETRY_NS;
    return 0;
}
