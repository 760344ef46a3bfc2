/* SPDX-License-Identifier: Apache-2.0 */
/* An exec between two connections; see exec.h. */
#include "guest/exec.h"
#include "guest/sysfile.h"

bool exec_can_wait(const struct handle *h)
{
    return h->kind == HANDLE_EXEC && h->warm && h->state == HANDLE_RUN &&
           h->in.fd >= 0 && h->in.used == 0 && !h->in.ended;
}

void exec_wait(struct handle *h)
{
    h->orphan = h->stays = true;
    /* Nobody is there to be told, and a freeze wants no timers. */
    h->deadline_ms = HANDLE_NO_TIME;
    h->sample_ms = HANDLE_NO_TIME;
}

void exec_unhear(struct handle *h)
{
    h->orphan = h->stays = true;
    h->warm = false;
}

/*
 * Time and use count from now on. What has ended took no time any more, and
 * what it died of is told.
 */
static void begin_anew(struct handle *h, uint64_t now_ms, uint64_t timeout_ms)
{
    if (h->state == HANDLE_DRAIN) {
        h->started_ms = h->ended_ms;
        h->drain_ms = now_ms + EXEC_DRAIN_MS;
        return;
    }
    cgroup_read_usage(&h->cgroup, &h->before);
    h->exit_flags = 0;
    h->started_ms = now_ms;
    h->deadline_ms = HANDLE_NO_TIME;
    if (timeout_ms && timeout_ms < HANDLE_NO_TIME - now_ms)
        h->deadline_ms = now_ms + timeout_ms;
}

int exec_attach(struct handle *h, const struct agent *agent, struct conn *conn,
                uint32_t id, const struct proto_attach *request)
{
    struct proto_writer w;
    int ret = cgroup_limit(&agent->cgroups, &h->cgroup, request->memory_max,
                           request->pids_max);

    if (ret)
        return ret;
    h->id = id;
    h->orphan = h->stays = false;
    h->note_pids = (request->flags & PROTO_EXEC_NOTE_PIDS) != 0;
    h->end_disk = (request->flags & PROTO_EXEC_END_DISK) != 0;
    begin_anew(h, sysfile_now_ms(), request->timeout_ms);
    inlet_renew(&h->in);
    outlet_renew(&h->out[0]);
    outlet_renew(&h->out[1]);
    w = conn_writer(conn);
    proto_put_empty(&w, PROTO_EXEC_STARTED, id);
    conn_commit(conn, &w);
    return 0;
}
