/* SPDX-License-Identifier: Apache-2.0 */
/* What each frame of the host does; see server.h and proto.h. */
#include <errno.h>
#include <string.h>

#include "guest/exec.h"
#include "guest/fileop.h"
#include "guest/server.h"

/* ---- handles ------------------------------------------------------------ */

static struct handle *find_handle(struct server *server, uint32_t id)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        struct handle *h = &server->handles[i];

        if (h->kind != HANDLE_FREE && !h->orphan && h->id == id)
            return h;
    }
    return NULL;
}

static struct handle *find_free(struct server *server)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        if (server->handles[i].kind == HANDLE_FREE)
            return &server->handles[i];
    }
    return NULL;
}

/* The one that is warm, waiting or not; or NULL. */
static struct handle *find_warm(struct server *server)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        struct handle *h = &server->handles[i];

        if (h->kind == HANDLE_EXEC && h->warm && (!h->orphan || h->stays))
            return h;
    }
    return NULL;
}

/* Something is live that a freeze without KEEP does not allow for. */
static bool has_hindrances(const struct server *server)
{
    for (size_t i = 0; i < PROTO_HANDLES_MAX; i++) {
        const struct handle *h = &server->handles[i];

        if (h->kind != HANDLE_FREE && !h->stays && !exec_can_wait(h))
            return true;
    }
    return false;
}

/* ---- frames ------------------------------------------------------------- */

static int refuse_exec(struct server *server, uint32_t id,
                       enum proto_exec_failure reason, int err)
{
    const struct proto_exec_failed failed = {reason, (uint32_t)err};
    struct proto_writer w = conn_writer(&server->conn);

    proto_put_exec_failed(&w, id, &failed);
    conn_commit(&server->conn, &w);
    return 0;
}

static int open_exec(struct server *server, uint32_t id, const uint8_t *payload,
                     size_t len)
{
    struct handle *h = find_free(server);
    struct proto_exec_open request;

    if (proto_get_exec_open(payload, len, &request))
        return -EBADMSG;
    if (park_refuses(&server->park))
        return refuse_exec(server, id, PROTO_FAIL_PARKED, EAGAIN);
    if (!h)
        return refuse_exec(server, id, PROTO_FAIL_BUSY, EBUSY);
    if ((request.flags & PROTO_EXEC_WARM) && find_warm(server))
        return refuse_exec(server, id, PROTO_FAIL_BUSY, EEXIST);
    exec_open(h, server->agent, id, &request);
    return 0;
}

static int attach(struct server *server, uint32_t id, const uint8_t *payload,
                  size_t len)
{
    struct handle *h = find_warm(server);
    struct proto_attach request;
    int ret;

    if (proto_get_attach(payload, len, &request))
        return -EBADMSG;
    if (park_refuses(&server->park))
        return refuse_exec(server, id, PROTO_FAIL_PARKED, EAGAIN);
    if (!h || !handle_is_waiting(h))
        return refuse_exec(server, id, PROTO_FAIL_NO_WARM, h ? EBUSY : ESRCH);
    ret = exec_attach(h, server->agent, &server->conn, id, &request);
    return ret ? refuse_exec(server, id, PROTO_FAIL_SYSTEM, -ret) : 0;
}

static void answer_quiesce(struct server *server,
                           const struct proto_quiesced *answer)
{
    struct proto_writer w = conn_writer(&server->conn);

    proto_put_quiesced(&w, answer);
    conn_commit(&server->conn, &w);
}

static int quiesce(struct server *server, const uint8_t *payload, size_t len)
{
    uint32_t flags;
    int ret = 0;

    if (proto_get_quiesce(payload, len, &flags))
        return -EBADMSG;
    if (!(flags & PROTO_QUIESCE_KEEP) && has_hindrances(server))
        ret = -EBUSY;
    if (ret == 0)
        ret = park_begin(&server->park, server->agent->kernel, flags);
    if (ret)
        answer_quiesce(server, &(struct proto_quiesced){.err = (uint32_t)-ret});
    return 0;
}

static int restore(struct server *server, const uint8_t *payload, size_t len)
{
    struct proto_restore request;
    struct proto_restored restored;
    struct proto_writer w;

    if (proto_get_restore(payload, len, &request))
        return -EBADMSG;
    park_restore(&server->park, server->agent, &request, &restored);
    explicit_bzero(&request, sizeof(request));
    w = conn_writer(&server->conn);
    proto_put_restored(&w, &restored);
    conn_commit(&server->conn, &w);
    return 0;
}

static int open_file(struct server *server, const struct proto_header *header,
                     const uint8_t *payload)
{
    struct handle *h = find_free(server);
    struct proto_file_done refused = {.err = EBUSY};
    struct proto_file_open request;
    struct proto_writer w;

    if (proto_get_file_open(payload, header->length, &request))
        return -EBADMSG;
    if (park_refuses(&server->park)) {
        refused.err = EAGAIN;
    } else if (h) {
        fileop_open(h, server->agent, header->id, header->type, &request);
        return 0;
    }
    w = conn_writer(&server->conn);
    proto_put_file_done(&w, header->id, &refused);
    conn_commit(&server->conn, &w);
    return 0;
}

static bool is_opening(uint16_t type)
{
    return type == PROTO_EXEC_OPEN || type == PROTO_ATTACH ||
           (type >= PROTO_FILE_WRITE && type <= PROTO_FILE_MKDIR);
}

static int dispatch_to(struct server *server, struct handle *h,
                       const struct proto_header *header,
                       const uint8_t *payload)
{
    uint32_t stream = 0, value = 0;
    uint16_t rows, cols;

    switch (header->type) {
    case PROTO_EXEC_STRINGS:
        return exec_strings(h, server->agent, payload, header->length);
    case PROTO_EXEC_SIGNAL:
        if (proto_get_u32(payload, header->length, &value))
            return -EBADMSG;
        return exec_signal(h, value);
    case PROTO_EXEC_WINSIZE:
        if (proto_get_winsize(payload, header->length, &rows, &cols))
            return -EBADMSG;
        return exec_winsize(h, rows, cols);
    case PROTO_CANCEL:
        if (h->kind == HANDLE_EXEC)
            exec_cancel(h);
        else
            fileop_cancel(h);
        return 0;
    case PROTO_EOF:
        if (proto_get_u32(payload, header->length, &stream))
            return -EBADMSG;
        return handle_end(h, stream);
    case PROTO_DATA:
        return handle_data(h, payload, header->length);
    case PROTO_CREDIT:
        if (proto_get_credit(payload, header->length, &stream, &value))
            return -EBADMSG;
        return handle_credit(h, stream, value);
    default:
        return -EBADMSG;
    }
}

int server_dispatch(struct server *server, const struct proto_header *header,
                    const uint8_t *payload)
{
    struct handle *h;

    if (header->type == PROTO_SHUTDOWN) {
        server->shutdown = true;
        return 0;
    }
    if (header->type == PROTO_QUIESCE)
        return quiesce(server, payload, header->length);
    if (header->type == PROTO_RESTORE)
        return restore(server, payload, header->length);
    if (is_opening(header->type)) {
        /* Ids only grow: what is late is told from what is wrong by this. */
        if (header->id <= server->last_id)
            return -EBADMSG;
        server->last_id = header->id;
        if (header->type == PROTO_EXEC_OPEN)
            return open_exec(server, header->id, payload, header->length);
        if (header->type == PROTO_ATTACH)
            return attach(server, header->id, payload, header->length);
        return open_file(server, header, payload);
    }
    if (header->id > server->last_id)
        return -EBADMSG;
    h = find_handle(server, header->id);
    return h ? dispatch_to(server, h, header, payload) : 0;
}

void server_step_park(struct server *server)
{
    struct park *park = &server->park;
    struct proto_quiesced answer;
    int err = 0;

    if (!park_is_due(park) || !handle_has_room(&server->conn))
        return;
    if (!(park->flags & PROTO_QUIESCE_KEEP) && has_hindrances(server))
        err = -EBUSY;
    park_end(park, server->agent->kernel, err, &answer);
    answer_quiesce(server, &answer);
}
