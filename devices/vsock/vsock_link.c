/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a link: when its socket is watched and for what, what its
 * socket's events mean, deadlines, and when it is over. See vsock_device.h.
 */
#include "devices/vsock/vsock_device.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/io.h"

#define NS_PER_MS 1000000u

/* The host would have bytes for the guest, and the guest wants them. */
static bool link_wants_bytes(const struct vsock_link *link)
{
    return link->conn.state == VSOCK_CONN_ESTABLISHED && !link->host.eof &&
           !(link->conn.guest_shut & VSOCK_SHUTDOWN_RECEIVE);
}

static uint32_t link_events(struct vsock_link *link)
{
    uint32_t events = 0;

    if (link->conn.state == VSOCK_CONN_NEW)
        events |= EPOLLIN;
    if (link_wants_bytes(link) && link->list != VSOCK_LIST_WAITING) {
        link->starved = vsock_conn_credit(&link->conn) == 0;
        if (!link->starved)
            events |= EPOLLIN;
    }
    if (link->host.ring_len > 0)
        events |= EPOLLOUT;
    return events;
}

void vsock_link_watch(struct vsock_link *link)
{
    struct evloop *loop = link->vsock->options.loop;
    struct evloop_source *source = &link->host.source;
    uint32_t events;
    int ret;

    if (link->host.fd < 0)
        return;
    events = link_events(link);
    /*
     * A hang-up is reported whether asked for or not: unless we are going to
     * read until the end, the loop would spin on it. What there is to do is
     * done when the guest moves on.
     */
    if (link->host.hung_up && !(events & EPOLLIN)) {
        evloop_remove(loop, source);
        return;
    }
    if (source->active) {
        ret = evloop_modify(loop, source, events);
    } else {
        source->events = events;
        ret = evloop_add(loop, source);
    }
    if (ret < 0) /* no memory: better an end than a silent stall */
        vsock_link_kill(link);
}

void vsock_link_close_host(struct vsock_link *link)
{
    evloop_remove(link->vsock->options.loop, &link->host.source);
    vsock_host_close(&link->host);
}

void vsock_link_host_sent(struct vsock_link *link, uint32_t done, int error)
{
    vsock_conn_forwarded(&link->conn, done);
    if (error < 0) /* the guest may as well stop sending */
        vsock_conn_shutdown(&link->conn, VSOCK_SHUTDOWN_RECEIVE);
    if (link->host.ring_len == 0 &&
        (link->conn.guest_shut & VSOCK_SHUTDOWN_SEND))
        vsock_host_end_write(&link->host);
}

/* Neither direction of the socket is alive: only the guest's end is left. */
static void link_host_gone(struct vsock_link *link)
{
    uint32_t held = link->host.ring_len;

    vsock_link_close_host(link);
    vsock_conn_forwarded(&link->conn, held);
    vsock_conn_shutdown(&link->conn, VSOCK_SHUTDOWN_BOTH);
    vsock_link_set_deadline(link, VSOCK_CLOSE_TIMEOUT_MS);
}

void vsock_link_host_eof(struct vsock_link *link)
{
    link->host.eof = true;
    if (link->host.hung_up)
        link_host_gone(link);
    else
        vsock_conn_shutdown(&link->conn, VSOCK_SHUTDOWN_SEND);
}

static void link_flush(struct vsock_link *link)
{
    uint32_t done;
    int ret = vsock_host_flush(&link->host, &done);

    vsock_link_host_sent(link, done, ret);
}

static void link_open_event(struct vsock_link *link, uint32_t events)
{
    if (events & EPOLLOUT)
        link_flush(link);
    if (link_wants_bytes(link))
        link->readable = true; /* also to find the end, or the error */
    else if (link->host.hung_up)
        link_host_gone(link);
}

/* The guest is through with it; what it had sent still has to go out. */
static void link_drain_event(struct vsock_link *link)
{
    if (link->host.hung_up)
        vsock_link_close_host(link);
    else
        link_flush(link);
}

static void link_client_event(struct vsock_link *link)
{
    uint32_t port;
    int ret = vsock_host_read_line(&link->host, &port);

    if (ret < 0)
        vsock_link_refuse(link);
    else if (ret > 0)
        vsock_link_connect(link, port);
}

static void link_event(void *ctx, uint32_t events)
{
    struct vsock_link *link = ctx;
    struct virtio_vsock *vsock = link->vsock;

    vsock_enter(vsock);
    if (events & (EPOLLHUP | EPOLLERR))
        link->host.hung_up = true;
    switch (link->conn.state) {
    case VSOCK_CONN_NEW:
        link_client_event(link);
        break;
    case VSOCK_CONN_ESTABLISHED:
        link_open_event(link, events);
        break;
    case VSOCK_CONN_DEAD:
        link_drain_event(link);
        break;
    case VSOCK_CONN_CONNECTING: /* watched for nothing but a hang-up */
    case VSOCK_CONN_DIALING:
    default:
        vsock_link_kill(link);
        break;
    }
    vsock_link_touch(link);
    vsock_leave(vsock);
}

/* The first links get a whole buffer, the many a small one. */
static uint32_t link_buffer_size(const struct virtio_vsock *vsock)
{
    return vsock->promised + VSOCK_BUFFER_SIZE <= VSOCK_PROMISE_FULL
               ? VSOCK_BUFFER_SIZE
               : VSOCK_BUFFER_SMALL;
}

struct vsock_link *vsock_link_new(struct virtio_vsock *vsock, int fd)
{
    uint32_t buffer = link_buffer_size(vsock);
    struct vsock_link *link;

    if (vsock->link_count >= VSOCK_CONNS_MAX)
        return NULL;
    link = calloc(1, sizeof(*link));
    if (!link)
        return NULL;
    link->vsock = vsock;
    link->burst = VSOCK_RX_BURST_MIN;
    vsock_conn_init(&link->conn, buffer);
    vsock_host_init(&link->host, fd, buffer, &vsock->pool);
    link->host.source.fd = fd;
    link->host.source.handler = link_event;
    link->host.source.ctx = link;
    TAILQ_INSERT_TAIL(&vsock->links, link, all_entry);
    vsock->link_count++;
    vsock->promised += buffer;
    return link;
}

void vsock_link_free(struct vsock_link *link)
{
    struct virtio_vsock *vsock = link->vsock;

    vsock_link_set_deadline(link, 0);
    vsock_link_set_client(link, false);
    vsock_link_close_host(link);
    vsock_table_remove(link);
    vsock_rx_move(&vsock->rx, link, VSOCK_LIST_NONE);
    TAILQ_REMOVE(&vsock->links, link, all_entry);
    vsock->link_count--;
    vsock->promised -= link->conn.buf_alloc;
    free(link);
}

void vsock_link_touch(struct vsock_link *link)
{
    struct virtio_vsock *vsock = link->vsock;

    /*
     * One that waits for an rx buffer keeps its place; only if it waits for
     * nothing any more it is looked after now.
     */
    if (link->list != VSOCK_LIST_WAITING || link->conn.due == 0)
        vsock_rx_move(&vsock->rx, link, VSOCK_LIST_TOUCHED);
    else
        vsock_link_watch(link);
}

void vsock_link_kill(struct vsock_link *link)
{
    vsock_conn_abort(&link->conn);
    link->conn.state = VSOCK_CONN_DEAD; /* also one that was NEW */
    vsock_link_close_host(link);
    vsock_link_touch(link);
}

static void link_opened(struct vsock_link *link)
{
    vsock_link_set_deadline(link, 0);
    link->vsock->stats.connections++;
    if (link->conn.buf_alloc == VSOCK_BUFFER_SIZE)
        vsock_host_widen(&link->host);
    vsock_link_touch(link);
}

void vsock_link_attach(struct vsock_link *link, int fd)
{
    link->host.fd = fd;
    link->host.source.fd = fd;
    vsock_conn_accept(&link->conn);
    link_opened(link);
}

void vsock_link_accepted(struct vsock_link *link)
{
    if (vsock_host_reply_ok(&link->host, link->conn.host_port) < 0)
        vsock_link_kill(link);
    else
        link_opened(link);
}

void vsock_link_guest_shut(struct vsock_link *link)
{
    if (link->host.fd < 0)
        return;
    if (link->conn.guest_shut & VSOCK_SHUTDOWN_RECEIVE)
        (void)shutdown(link->host.fd, SHUT_RD); /* fails only if it is over */
    else if (link->host.ring_len == 0)
        vsock_host_end_write(&link->host); /* else once it is drained */
}

void vsock_link_set_client(struct vsock_link *link, bool client)
{
    if (link->client == client)
        return;
    link->client = client;
    if (client)
        link->vsock->client_count++;
    else
        link->vsock->client_count--;
}

void vsock_link_set_deadline(struct vsock_link *link, unsigned ms)
{
    if (link->deadline_ns)
        link->vsock->timed_count--;
    link->deadline_ns = 0;
    if (ms == 0)
        return;
    link->deadline_ns = io_now_ns() + (uint64_t)ms * NS_PER_MS;
    link->vsock->timed_count++;
}

void vsock_link_refuse(struct vsock_link *link)
{
    link->vsock->stats.refused++;
    vsock_link_kill(link);
}

static void link_expire(struct vsock_link *link)
{
    vsock_link_set_deadline(link, 0);
    if (link->conn.state == VSOCK_CONN_ESTABLISHED) {
        vsock_conn_abort(&link->conn);
        vsock_link_touch(link);
    } else if (link->conn.state != VSOCK_CONN_DEAD) {
        vsock_link_refuse(link);
    }
}

void vsock_link_expire_all(struct virtio_vsock *vsock)
{
    uint64_t now = io_now_ns();
    struct vsock_link *link;

    TAILQ_FOREACH(link, &vsock->links, all_entry)
    {
        if (link->deadline_ns && link->deadline_ns <= now)
            link_expire(link);
    }
}

bool vsock_link_settle(struct vsock_link *link)
{
    if (link->conn.state == VSOCK_CONN_DEAD && link->conn.due == 0) {
        /* The port pair is free again, even if bytes are still draining. */
        vsock_table_remove(link);
        vsock_link_set_deadline(link, 0);
        if (link->host.ring_len == 0)
            vsock_link_close_host(link);
    }
    if (link->conn.state == VSOCK_CONN_DEAD && !link->in_table &&
        link->host.fd < 0) {
        vsock_link_free(link);
        return true;
    }
    vsock_link_watch(link);
    return false;
}
