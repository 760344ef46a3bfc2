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

union receive_buffer {
    char bytes[CMSG_SPACE(sizeof(int) * MSG_FDS_SENT_MAX)];
    struct cmsghdr align;
};

/* Moves the descriptors of a received packet into fds: how many. */
static size_t control_take_fds(struct msghdr *h, int *fds)
{
    size_t used = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        size_t count;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (count > MSG_FDS_SENT_MAX - used)
            count = MSG_FDS_SENT_MAX - used;
        memcpy(fds + used, CMSG_DATA(c), count * sizeof(int));
        used += count;
    }
    return used;
}

/*
 * One packet: 1 with h->msg_flags and its size, 0 when the peer has closed, or
 * a negative errno. A peer that closed without having read all of ours leaves
 * one ECONNRESET, in front of its last messages: they are asked for again.
 */
static int receive_packet(int sock, struct msghdr *h, size_t *ret_size)
{
    bool reset = false;
    ssize_t n;

    do {
        n = recvmsg(sock, h, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == ECONNRESET && !reset) {
            reset = true;
            errno = EINTR;
        }
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? 0 : -errno;
    /* A packet of no bytes looks like the end, but for descriptors in it. */
    if (n == 0 && h->msg_controllen == 0 && !(h->msg_flags & MSG_CTRUNC))
        return 0;
    *ret_size = (size_t)n;
    return 1;
}

int msg_receive_apart(int sock, struct msg *m, int *fds, size_t *ret_fd_count)
{
    uint8_t header[HEADER_SIZE];
    union receive_buffer control;
    struct iovec iov[2] = {
        {.iov_base = header, .iov_len = sizeof(header)},
        {.iov_base = m->payload, .iov_len = MSG_PAYLOAD_MAX},
    };
    struct msghdr h = {.msg_iov = iov,
                       .msg_iovlen = 2,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    size_t n = 0;
    int ret = receive_packet(sock, &h, &n);

    m->fd_count = 0;
    m->len = 0;
    m->fds_lost = false;
    *ret_fd_count = 0;
    if (ret <= 0)
        return ret;
    *ret_fd_count = control_take_fds(&h, fds);
    if ((h.msg_flags & MSG_TRUNC) || n < HEADER_SIZE ||
        num_get_le32(header) != (uint32_t)n)
        return -EBADMSG;
    m->fds_lost = (h.msg_flags & MSG_CTRUNC) != 0;
    m->type = num_get_le32(header + 4);
    m->len = n - HEADER_SIZE;
    return 1;
}

int msg_receive(int sock, struct msg *ret_msg)
{
    int fds[MSG_FDS_SENT_MAX];
    size_t count;
    int ret = msg_receive_apart(sock, ret_msg, fds, &count);
    bool keep = ret == 1 && !ret_msg->fds_lost && count <= MSG_FDS_MAX;

    if (keep) {
        memcpy(ret_msg->fds, fds, count * sizeof(int));
        ret_msg->fd_count = count;
        return ret;
    }
    for (size_t i = 0; i < count; i++)
        io_close(&fds[i]);
    return count > MSG_FDS_MAX ? -EBADMSG : ret;
}

void msg_close_fds(struct msg *m)
{
    for (size_t i = 0; i < m->fd_count; i++)
        io_close(&m->fds[i]);
    m->fd_count = 0;
}
