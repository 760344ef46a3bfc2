/* SPDX-License-Identifier: Apache-2.0 */
/* File operations as handles; see the header. */
#include "guest/fileop.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "guest/filejob.h"
#include "guest/sysfile.h"

static void fileop_fail(struct handle *h, int err)
{
    memset(&h->done, 0, sizeof(h->done));
    h->done.err = (uint32_t)err;
    h->has_done = true;
}

/* The data pipe: ret_fds[0] ours (non-blocking), [1] the helper's. */
static int make_data_pipe(uint16_t type, int ret_fds[2])
{
    int fds[2];
    int mine = type == PROTO_FILE_WRITE ? 1 : 0;

    ret_fds[0] = ret_fds[1] = -1;
    if (type != PROTO_FILE_WRITE && type != PROTO_FILE_READ)
        return 0;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    ret_fds[0] = fds[mine];
    ret_fds[1] = fds[!mine];
    return fcntl(ret_fds[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int fileop_spawn(struct handle *h, struct agent *agent,
                        const struct proto_file_open *request, int data_fd)
{
    int procs_fd = cgroup_open_procs(agent->cgroups.files_fd);
    pid_t pid;

    if (procs_fd < 0)
        return procs_fd;
    pid = filejob_spawn(&agent->sandbox, h->type, request, data_fd, procs_fd,
                        &h->report_fd);
    close(procs_fd);
    if (pid < 0)
        return pid;
    h->pid = pid;
    return 0;
}

void fileop_open(struct handle *h, struct agent *agent, uint32_t id,
                 uint16_t type, const struct proto_file_open *request)
{
    int fds[2];
    int ret;

    h->kind = HANDLE_FILE;
    h->state = HANDLE_RUN;
    h->id = id;
    h->type = type;
    if (type == PROTO_FILE_WRITE)
        inlet_expect(&h->in);
    if (!(agent->features & PROTO_FEATURE_ROOT)) {
        fileop_fail(h, ENODEV);
        return;
    }
    ret = make_data_pipe(type, fds);
    if (ret == 0)
        ret = fileop_spawn(h, agent, request, fds[1]);
    if (ret == 0 && type == PROTO_FILE_WRITE)
        ret = inlet_open(&h->in, fds[0], false);
    else if (ret == 0)
        outlet_init(&h->out[0], fds[0]);
    sysfile_close(&fds[1]);
    if (ret) {
        sysfile_close(&fds[0]);
        handle_kill(h);
        fileop_fail(h, -ret);
    }
}

void fileop_cancel(struct handle *h)
{
    if (!h->has_done)
        fileop_fail(h, ECANCELED);
    handle_kill(h);
    inlet_shut(&h->in);
    outlet_fini(&h->out[0]);
}

/* The helper's verdict; one that was killed leaves none. */
static void read_done(struct handle *h)
{
    struct proto_file_done done;
    ssize_t n = read(h->report_fd, &done, sizeof(done));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    sysfile_close(&h->report_fd);
    if (h->has_done)
        return;
    if (n == (ssize_t)sizeof(done)) {
        h->done = done;
        h->has_done = true;
    } else {
        fileop_fail(h, EIO);
    }
}

bool fileop_step(struct handle *h, struct conn *conn)
{
    struct proto_writer w;

    if (h->report_fd >= 0)
        read_done(h);
    inlet_pump(&h->in);
    if (conn) {
        (void)!outlet_pump(&h->out[0], conn, h->id, PROTO_FILE);
        inlet_give_credit(&h->in, conn, h->id, PROTO_FILE);
    }
    if (!h->has_done || (h->pid > 0 && !h->reaped))
        return false;
    if (!conn)
        return true;
    /* Its contents go before the verdict. */
    if (h->out[0].fd >= 0 || !handle_has_room(conn))
        return false;
    w = conn_writer(conn);
    proto_put_file_done(&w, h->id, &h->done);
    conn_commit(conn, &w);
    return true;
}
