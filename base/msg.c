/* SPDX-License-Identifier: Apache-2.0 */
/* Typed messages with descriptors; see the header. */
#include "base/msg.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/io.h"
#include "base/num.h"

/* On the wire: u32 total length, u32 type, payload. */
#define HEADER_SIZE 8u

union control_buffer {
    char bytes[CMSG_SPACE(sizeof(int) * MSG_FDS_MAX)];
    struct cmsghdr align;
};

static void control_put_fds(struct msghdr *h, union control_buffer *control,
                            const int *fds, size_t fd_count)
{
    struct cmsghdr *c;

    memset(control, 0, sizeof(*control));
    h->msg_control = control->bytes;
    h->msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
    c = CMSG_FIRSTHDR(h);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
}

int msg_send(int sock, uint32_t type, const void *payload, size_t len,
             const int *fds, size_t fd_count)
{
    uint8_t header[HEADER_SIZE];
    union control_buffer control;
    struct iovec iov[2] = {
        {.iov_base = header, .iov_len = sizeof(header)},
        {.iov_base = (void *)(uintptr_t)payload, .iov_len = len},
    };
    struct msghdr h = {.msg_iov = iov, .msg_iovlen = len > 0 ? 2 : 1};
    ssize_t n;

    if (len > MSG_PAYLOAD_MAX || fd_count > MSG_FDS_MAX)
        return -EMSGSIZE;
    num_put_le32(header, (uint32_t)(HEADER_SIZE + len));
    num_put_le32(header + 4, type);
    if (fd_count > 0)
        control_put_fds(&h, &control, fds, fd_count);
    do {
        n = sendmsg(sock, &h, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* Moves the descriptors of a received packet into the message. */
static void control_take_fds(struct msghdr *h, struct msg *m)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        size_t count;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (count > MSG_FDS_MAX - m->fd_count)
            count = MSG_FDS_MAX - m->fd_count;
        memcpy(m->fds + m->fd_count, CMSG_DATA(c), count * sizeof(int));
        m->fd_count += count;
    }
}

int msg_receive(int sock, struct msg *ret_msg)
{
    uint8_t header[HEADER_SIZE];
    union control_buffer control;
    struct iovec iov[2] = {
        {.iov_base = header, .iov_len = sizeof(header)},
        {.iov_base = ret_msg->payload, .iov_len = MSG_PAYLOAD_MAX},
    };
    struct msghdr h = {.msg_iov = iov,
                       .msg_iovlen = 2,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    bool reset = false;
    ssize_t n;

    ret_msg->fd_count = 0;
    ret_msg->len = 0;
    /*
     * A peer that closed without having read all of ours leaves one
     * ECONNRESET, in front of its last messages: they are asked for again.
     */
    do {
        n = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == ECONNRESET && !reset) {
            reset = true;
            errno = EINTR;
        }
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? 0 : -errno;
    if (n == 0)
        return 0;
    control_take_fds(&h, ret_msg);
    if ((h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || (size_t)n < HEADER_SIZE ||
        num_get_le32(header) != (uint32_t)n) {
        msg_close_fds(ret_msg);
        return -EBADMSG;
    }
    ret_msg->type = num_get_le32(header + 4);
    ret_msg->len = (size_t)n - HEADER_SIZE;
    return 1;
}

void msg_close_fds(struct msg *m)
{
    for (size_t i = 0; i < m->fd_count; i++)
        io_close(&m->fds[i]);
    m->fd_count = 0;
}
