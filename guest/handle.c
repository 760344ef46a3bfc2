/* SPDX-License-Identifier: Apache-2.0 */
/* What execs and file operations have in common; see the header. */
#include "guest/handle.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/sysfile.h"

void handle_init(struct handle *h)
{
    memset(h, 0, sizeof(*h));
    h->kind = HANDLE_FREE;
    h->report_fd = -1;
    h->tty_fd = -1;
    h->cgroup.fd = -1;
    h->deadline_ms = HANDLE_NO_TIME;
    h->sample_ms = HANDLE_NO_TIME;
    h->drain_ms = HANDLE_NO_TIME;
    h->kill_ms = HANDLE_NO_TIME;
    inlet_init(&h->in);
    outlet_init(&h->out[0], -1);
    outlet_init(&h->out[1], -1);
}

void handle_fini(struct handle *h)
{
    inlet_fini(&h->in);
    outlet_fini(&h->out[0]);
    outlet_fini(&h->out[1]);
    sysfile_close(&h->report_fd);
    sysfile_close(&h->tty_fd);
    sysfile_close(&h->cgroup.fd);
    free(h->request);
    free(h->strings);
    handle_init(h);
}

void handle_kill(struct handle *h)
{
    /* The group first: it also catches what is being forked this moment. */
    cgroup_kill(&h->cgroup);
    if (h->pid > 0 && !h->reaped)
        kill(h->pid, SIGKILL);
}

bool handle_is_waiting(const struct handle *h)
{
    return h->orphan && h->stays && h->warm;
}

bool handle_is_unheard(const struct handle *h)
{
    return h->orphan && h->stays && !h->warm;
}

static size_t add_fd(struct pollfd *ret_fds, size_t count, int fd, short events)
{
    ret_fds[count] = (struct pollfd){.fd = fd, .events = events};
    return count + 1;
}

size_t handle_poll(const struct handle *h, const struct conn *conn,
                   struct pollfd *ret_fds)
{
    size_t count = 0;

    /* What it says leads to a frame: without room, later. */
    if (h->report_fd >= 0 && (!conn || handle_has_room(conn)))
        count = add_fd(ret_fds, count, h->report_fd, POLLIN);
    if (inlet_wants_write(&h->in))
        count = add_fd(ret_fds, count, h->in.fd, POLLOUT);
    /* Output is held back until its exec has been reported as started. */
    for (size_t i = 0; i < 2; i++) {
        bool reads = conn ? outlet_can_read(&h->out[i], conn)
                          : handle_is_unheard(h) && h->out[i].fd >= 0;

        if (h->state != HANDLE_START && reads)
            count = add_fd(ret_fds, count, h->out[i].fd, POLLIN);
    }
    return count;
}

static uint32_t inlet_stream(const struct handle *h)
{
    return h->kind == HANDLE_EXEC ? PROTO_STDIN : PROTO_FILE;
}

int handle_data(struct handle *h, const uint8_t *payload, size_t len)
{
    const uint8_t *bytes;
    uint32_t stream;
    size_t count;

    if (proto_get_data(payload, len, &stream, &bytes, &count) ||
        stream != inlet_stream(h) || h->state == HANDLE_COLLECT)
        return -EBADMSG;
    return inlet_receive(&h->in, bytes, count);
}

int handle_end(struct handle *h, uint32_t stream)
{
    if (stream != inlet_stream(h) || h->state == HANDLE_COLLECT)
        return -EBADMSG;
    return inlet_end(&h->in);
}

int handle_credit(struct handle *h, uint32_t stream, uint32_t bytes)
{
    if (h->kind == HANDLE_EXEC && stream == PROTO_STDOUT)
        return outlet_add_credit(&h->out[0], bytes);
    if (h->kind == HANDLE_EXEC && stream == PROTO_STDERR)
        return outlet_add_credit(&h->out[1], bytes);
    if (h->type == PROTO_FILE_READ && stream == PROTO_FILE)
        return outlet_add_credit(&h->out[0], bytes);
    return -EBADMSG;
}

bool handle_has_room(const struct conn *conn)
{
    return conn_room(conn) >= CONN_OUT_RESERVE / PROTO_HANDLES_MAX;
}
