/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's loop: one listening socket, one control connection, a table of
 * handles. Single-threaded; poll is its only wait.
 *
 * Who may connect is decided here: a vsock peer must be the host (CID 2).
 * While a connection lives every other is closed at once; when it breaks, all
 * its handles are killed, and a new one is taken only when they are gone. Those
 * that stay (handle.h) are no hindrance.
 */
#ifndef MICROSBX_GUEST_SERVER_H
#define MICROSBX_GUEST_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/handle.h"
#include "guest/park.h"

struct server {
    struct agent *agent; /* borrowed */
    int listen_fd;       /* owned; -1: none, the loop ends with the conn */
    int signal_fd;       /* owned: SIGCHLD */
    pid_t watch_pid;     /* the loop ends when it does; 0: none */
    struct conn conn;
    struct park park;
    uint32_t last_id; /* highest handle id of this connection */
    uint32_t turn;    /* who is served first in this round */
    bool shutdown;    /* SHUTDOWN was received */
    bool stalled;     /* something waits for room in conn's queue */
    struct handle handles[PROTO_HANDLES_MAX];
};

enum server_end {
    SERVER_SHUTDOWN, /* the host asked for it */
    SERVER_WATCHED_ENDED,
    SERVER_DISCONNECTED, /* only without a listening socket */
};

/*
 * Blocks SIGCHLD, ignores SIGPIPE, takes over listen_fd (-1: none). 0 or a
 * negative errno.
 */
int server_init(struct server *server, struct agent *agent, int listen_fd)
    __attribute__((warn_unused_result));

/* Kills and frees what is left. */
void server_fini(struct server *server);

/*
 * Takes over a connected stream descriptor as the control connection and
 * queues HELLO. 0 or a negative errno (fd is closed then).
 */
int server_attach(struct server *server, int fd)
    __attribute__((warn_unused_result));

/* Serves until one of the ends: its value, or a negative errno. */
int server_run(struct server *server) __attribute__((warn_unused_result));

/*
 * A listening vsock socket on the agent's port, or a negative errno
 * (-EAFNOSUPPORT: the guest has no vsock).
 */
int server_listen(void) __attribute__((warn_unused_result));

/*
 * One frame of the host: 0 or -EBADMSG. The loop's inner step, public so that
 * tests and fuzzers reach the parser without a socket.
 */
int server_dispatch(struct server *server, const struct proto_header *header,
                    const uint8_t *payload) __attribute__((warn_unused_result));

/*
 * Answers a QUIESCE whose helper is through. What was live when it came may
 * have been fed or have ended since: it is looked at again.
 */
void server_step_park(struct server *server);

#endif
