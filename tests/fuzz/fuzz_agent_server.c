/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the agent: any bytes from the host, with an exec that has its pipes
 * and a file operation in flight. There is no root file system, so that what
 * is asked for is parsed and refused, and nothing is ever forked. The second
 * bit of an input's length tells a parked agent from one that is awake; a warm
 * process waits in either.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/exec.h"
#include "guest/fileop.h"
#include "guest/server.h"

#define OTHERS 5u /* ends of pipes that are ours */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A pipe whose wanted end is returned; the other is left in *ret_other. */
static int pipe_end(int end, int *ret_other)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        abort();
    *ret_other = fds[!end];
    return fds[end];
}

/* ---- a kernel that is never asked for anything real ---------------------- */

static int no_call(void)
{
    return 0;
}

static int no_entropy(const uint8_t *bytes, size_t len)
{
    (void)bytes;
    return len == PROTO_ENTROPY_SIZE ? 0 : -EINVAL;
}

static int no_draw(size_t count)
{
    return count <= 65535 ? 0 : -EINVAL;
}

static int no_clock(int64_t realtime_ns)
{
    return realtime_ns >= 0 ? 0 : -EINVAL;
}

static int no_hostname(const char *name)
{
    if (strlen(name) >= PROTO_HOSTNAME_MAX)
        abort();
    return 0;
}

static const struct kernel_ops no_kernel = {
    .sync = no_call,
    .drop_caches = no_call,
    .zero_free = no_call,
    .add_entropy = no_entropy,
    .reseed = no_call,
    .draw = no_draw,
    .set_clock = no_clock,
    .set_hostname = no_hostname,
};

/* Its helper would be forked. */
static bool would_fork(const struct server *s,
                       const struct proto_header *header,
                       const uint8_t *payload)
{
    uint32_t flags;

    return header->type == PROTO_QUIESCE && !s->park.quiescing &&
           proto_get_quiesce(payload, header->length, &flags) == 0 &&
           (flags & PROTO_QUIESCE_KEEP);
}

/* ---- handles ------------------------------------------------------------- */

/* Three handles as they are in the middle of their lives. */
static void open_handles(struct server *s, int others[OTHERS])
{
    struct handle *h = &s->handles[0];

    h->kind = HANDLE_EXEC;
    h->state = HANDLE_RUN;
    h->id = 1;
    inlet_expect(&h->in);
    if (inlet_open(&h->in, pipe_end(1, &others[0]), false) < 0)
        abort();
    outlet_init(&h->out[0], pipe_end(0, &others[1]));
    h = &s->handles[1];
    h->kind = HANDLE_FILE;
    h->state = HANDLE_RUN;
    h->type = PROTO_FILE_READ;
    h->id = 2;
    outlet_init(&h->out[0], pipe_end(0, &others[2]));
    s->last_id = 2;
    h = &s->handles[2];
    h->kind = HANDLE_EXEC;
    h->state = HANDLE_RUN;
    h->warm = h->orphan = h->stays = true;
    inlet_expect(&h->in);
    if (inlet_open(&h->in, pipe_end(1, &others[3]), false) < 0)
        abort();
    outlet_init(&h->out[0], pipe_end(0, &others[4]));
}

static void check(const struct server *s)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        const struct handle *h = &s->handles[i];

        if (h->in.used > PROTO_WINDOW || h->out[0].credit > PROTO_WINDOW ||
            h->out[1].credit > PROTO_WINDOW)
            abort();
        if (h->in.expected &&
            h->in.credit + h->in.owed + h->in.used != PROTO_WINDOW)
            abort();
    }
    if (s->conn.out_used > CONN_OUT_SIZE)
        abort();
}

/* What the loop does between two polls. */
static void step(struct server *s)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        struct handle *h = &s->handles[i];
        bool over = false;

        if (h->kind == HANDLE_EXEC)
            over = exec_step(h, s->agent, h->orphan ? NULL : &s->conn, 1);
        else if (h->kind == HANDLE_FILE)
            over = fileop_step(h, &s->conn);
        if (over)
            handle_fini(h);
    }
    check(s);
    /* The host reads all. */
    s->conn.out_used = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct agent agent;
    static struct server s;
    int others[OTHERS];
    int ret = 0;

    agent.scratch.fd = -1;
    agent.cgroups.work_fd = agent.cgroups.files_fd = -1;
    sandbox_init(&agent.sandbox, NULL);
    /* Odd inputs get as far as the fork, which then has nowhere to go. */
    agent.features = size % 2 ? PROTO_FEATURE_ROOT : 0;
    agent.kernel = &no_kernel;
    agent.boot_id = "/dev/null"; /* takes all that is written */
    if (server_init(&s, &agent, -1) < 0)
        abort();
    conn_open(&s.conn, -1);
    open_handles(&s, others);
    s.park.state = size & 2 ? PARK_PARKED : PARK_AWAKE;
    while (ret == 0 && size > 0 && !s.shutdown) {
        size_t room, len;
        uint8_t *space = proto_inbox_space(&s.conn.in, &room);
        struct proto_header header;
        const uint8_t *payload;

        len = size < room ? size : room;
        memcpy(space, data, len);
        proto_inbox_add(&s.conn.in, len);
        data += len;
        size -= len;
        while (ret == 0 &&
               (ret = proto_inbox_next(&s.conn.in, &header, &payload)) == 1) {
            if (would_fork(&s, &header, payload))
                continue;
            ret = server_dispatch(&s, &header, payload);
            step(&s);
        }
    }
    server_fini(&s);
    for (size_t i = 0; i < OTHERS; i++)
        close(others[i]);
    return 0;
}
