/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent's events mean for a trial: files in, the command, files out.
 * Everything the agent says is a claim.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/text.h"
#include "trial/exec_result.h"
#include "trial/fetched.h"
#include "trial/keeper_runner.h"
#include "trial/runner.h"

/* Ends the file in progress, with what is known of it. */
static void finish_file(struct runner *r, int error, bool error_here,
                        uint64_t bytes)
{
    struct trial_file_result *file = &r->result->files[r->file_index];

    file->status = error == 0 ? TRIAL_FILE_OK : TRIAL_FILE_ERROR;
    file->error = error;
    file->error_here = error_here;
    file->bytes = bytes;
    if (error == 0 && r->file_digest)
        digest_hex(r->file_digest, file->sha256);
    digest_free(r->file_digest);
    r->file_digest = NULL;
    io_close(&r->file_fd);
    whole_file_drop(&r->fetched);
    r->file_id = 0;
    r->file_deadline_ns = 0;
    runner_watch(r);
    r->file_index++;
}

static void fail_put(struct runner *r, const struct trial_file *file, int error,
                     bool here)
{
    const char *remedy =
        error == ENOSPC ? "raise --disk-limit" : "check the path in the guest";

    runner_fail(r, "put_failed", file->src,
                here ? failure_remedy(error, "check the file on this host")
                     : remedy,
                "cannot put %s to %s: %s: %s", file->src, file->dst,
                here ? "on this host" : "in the guest", strerror(error));
}

static int start_put(struct runner *r, const struct trial_file *file)
{
    struct stat st;
    int ret;

    r->file_fd = open(file->src, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (r->file_fd < 0 || fstat(r->file_fd, &st) != 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
    ret = agent_client_write_file(r->client, file->dst, r->spec->user,
                                  st.st_mode & 0777, r->file_fd, &r->file_id);
    return ret;
}

/* It appears when it is whole. What is no regular file is written to. */
static int start_get(struct runner *r, const struct trial_file *file)
{
    struct stat st;
    int ret = 0;

    if (lstat(file->dst, &st) == 0 && !S_ISREG(st.st_mode)) {
        r->file_fd = open(file->dst, O_WRONLY | O_CLOEXEC | O_NOFOLLOW |
                                         O_NONBLOCK | O_NOCTTY);
        ret = r->file_fd < 0 ? -errno : 0;
    } else {
        ret = whole_file_begin(file->dst, 0644, &r->fetched);
    }
    if (ret != 0)
        return ret;
    return agent_client_read_file(
        r->client, file->src, r->spec->user, TRIAL_FILE_LIMIT,
        r->file_fd >= 0 ? r->file_fd : r->fetched.fd, &r->file_id);
}

/* The next file of this phase, or NULL. */
static const struct trial_file *next_file(struct runner *r)
{
    bool get = r->phase == RUNNER_GET;

    while (r->file_index < r->spec->file_count &&
           r->spec->files[r->file_index].get != get)
        r->file_index++;
    return r->file_index < r->spec->file_count ? &r->spec->files[r->file_index]
                                               : NULL;
}

uint64_t runner_file_ms(const struct runner *r)
{
    return r->spec->file_ms > 0 ? r->spec->file_ms : TRIAL_FILE_MS;
}

/* Starts files until one is on its way; true if one is. */
static bool start_file(struct runner *r)
{
    const struct trial_file *file;

    while ((file = next_file(r)) && r->phase != RUNNER_OVER) {
        int ret;

        r->file_digest = digest_new();
        ret = r->file_digest
                  ? file->get ? start_get(r, file) : start_put(r, file)
                  : -ENOMEM;
        if (ret == 0) {
            r->file_deadline_ns = io_now_ns() + runner_file_ms(r) * 1000000u;
            return true;
        }
        finish_file(r, -ret, true, 0);
        if (!file->get)
            fail_put(r, file, -ret, true);
    }
    return false;
}

/* Asks for the command. 0 or a negative errno. */
static int request_exec(struct runner *r)
{
    const struct trial_spec *s = r->spec;
    struct agent_exec_request request = {
        .argv = s->argv,
        .env = s->env,
        .cwd = s->workdir,
        .user = s->user,
        .pids_max = s->pids_limit,
        .pids_note = s->pids_notes,
        .disk_ends = s->disk_ends,
        .tty = s->tty,
        .rows = s->tty_rows,
        .cols = s->tty_columns,
        .open_stdin = s->stdin_fd >= 0,
    };

    /* A warm-up that is to wait must have something to wait for. */
    if (s->freeze && s->freeze->ready)
        request.warm = request.open_stdin = true;
    return agent_client_exec(r->client, &request, &r->exec_id);
}

static void start_exec(struct runner *r)
{
    bool send = r->spec->restore && r->spec->restore->send;
    uint64_t now = io_now_ns();
    int ret;

    if (!r->spec->argv && !send) {
        /* Clients of the keeper bring the commands. */
        runner_begin_workload(r, now);
        keeper_on_ready(r->spec->keeper);
        return;
    }
    ret = send ? runner_attach(r) : request_exec(r);

    if (r->phase == RUNNER_OVER)
        return;
    if (ret != 0) {
        runner_fail(r, "usage", exec_result_name(r->spec),
                    "shorten arguments, environment, user or folder",
                    "cannot ask the guest to run %s: %s",
                    exec_result_name(r->spec), strerror(-ret));
        return;
    }
    r->exec_live = true;
    r->stdin_open = r->spec->stdin_fd >= 0 || send;
    runner_begin_workload(r, now);
}

/* The files are in: the command, or what comes without one. */
static void begin_workload(struct runner *r)
{
    if (!r->spec->argv && r->spec->freeze) {
        runner_begin_quiesce(r);
        return;
    }
    runner_enter_phase(r, RUNNER_EXEC, "run");
    start_exec(r);
}

/* The command has ended by itself. */
static void end_workload(struct runner *r)
{
    const struct trial_freeze *freeze = r->spec->freeze;

    if (!freeze)
        runner_enter_phase(r, RUNNER_GET, "get");
    else if (!freeze->ready && r->facts->has_status &&
             r->facts->exit_code == 0 && r->facts->signal == 0)
        runner_begin_quiesce(r);
    else
        r->phase = RUNNER_OVER; /* a warm-up that failed */
}

void runner_next_step(struct runner *r)
{
    if (r->phase == RUNNER_CONNECT && r->spec->restore) {
        runner_begin_restore(r);
        return;
    }
    if (r->phase == RUNNER_CONNECT || r->phase == RUNNER_RESTORE)
        runner_enter_phase(r, RUNNER_PUT, "put");
    if (r->phase == RUNNER_PUT) {
        if (start_file(r) || r->phase != RUNNER_PUT)
            return;
        begin_workload(r);
        return;
    }
    if (r->phase == RUNNER_EXEC && !r->exec_live)
        end_workload(r);
    if (r->phase == RUNNER_GET && !start_file(r) && r->phase == RUNNER_GET)
        runner_enter_phase(r, RUNNER_OVER, "end");
}

static void on_hello(void *arg, const struct proto_hello *hello)
{
    struct runner *r = arg;

    r->result->hello_ns = io_now_ns();
    if (!r->spec->restore)
        r->result->ready_ns = r->result->hello_ns;
    memcpy(r->result->kernel_release, hello->release,
           sizeof(r->result->kernel_release));
    runner_event(r, "ready", NULL);
    runner_next_step(r);
}

static void on_exec_started(void *arg, uint32_t id)
{
    struct runner *r = arg;

    if (id != r->exec_id) {
        keeper_on_started(r->spec->keeper, id);
        return;
    }
    runner_event(r, "started", NULL);
    runner_begin_input(r);
    keeper_on_ready(r->spec->keeper);
}

static void on_exec_failed(void *arg, uint32_t id,
                           const struct agent_exec_failure *failure)
{
    struct runner *r = arg;
    struct failure why;

    if (id != r->exec_id) {
        keeper_on_failed(r->spec->keeper, id, failure);
        return;
    }
    r->exec_live = false;
    if (runner_is_late(r))
        return;
    r->result->exec_end_ns = io_now_ns();
    if (exec_result_failed(r->result, r->spec, failure->reason, failure->err,
                           &why)) {
        r->result->failure = why;
        runner_next_step(r);
        return;
    }
    /* Nothing of the workload has run: its exec was refused beforehand. */
    r->facts->workload_may_run = false;
    runner_fail(r, "exec_refused", why.object, why.remedy, "%s", why.message);
}

static void on_output(void *arg, uint32_t id, uint32_t stream,
                      const void *bytes, size_t len)
{
    struct runner *r = arg;
    struct output *o = stream == PROTO_STDERR ? &r->err : &r->out;
    size_t disposed;

    if (id != r->exec_id) {
        keeper_on_output(r->spec->keeper, id, stream, bytes, len);
        return;
    }
    disposed = runner_add_output(r, o, bytes, len);
    if (stream == PROTO_STDOUT && r->phase == RUNNER_EXEC)
        runner_watch_ready(r, bytes, len);
    if (disposed > 0)
        agent_client_consumed(r->client, id, stream, disposed);
}

static void on_exec_exit(void *arg, uint32_t id,
                         const struct proto_exec_exit *status)
{
    struct runner *r = arg;

    if (id != r->exec_id) {
        keeper_on_exit(r->spec->keeper, id, status);
        return;
    }
    r->exec_live = false;
    if (runner_is_late(r))
        return;
    /* That of a quiesce stays: an agent that never parks must not hold us. */
    if (r->phase == RUNNER_EXEC)
        r->deadline_ns = 0;
    /* The command's end was in time: what follows has another deadline. */
    runner_watch(r);
    r->stats_at_ns = 0;
    r->result->exec_end_ns = io_now_ns();
    exec_result_exit(r->result, r->spec, status);
    runner_event(r, "exited", NULL);
    if (r->phase == RUNNER_AGE || r->phase == RUNNER_QUIESCE)
        runner_waiting_ended(r);
    else
        runner_next_step(r);
}

static void on_file_bytes(void *arg, uint32_t id, const void *bytes, size_t len)
{
    struct runner *r = arg;

    if (id == r->file_id && r->file_digest)
        digest_update(r->file_digest, bytes, len);
}

static void on_file_done(void *arg, uint32_t id,
                         const struct proto_file_done *done, int local_err)
{
    struct runner *r = arg;
    const struct trial_file *file;
    int error = local_err != 0 ? local_err : (int)done->err;

    if (id != r->file_id || r->file_index >= r->spec->file_count) {
        keeper_on_file_done(r->spec->keeper, id, done, local_err);
        return;
    }
    /* Half of it, or one that came too late, is removed at the end. */
    if (runner_is_late(r))
        return;
    file = &r->spec->files[r->file_index];
    if (r->fetched.fd >= 0 && error == 0 &&
        fchmod(r->fetched.fd, fetched_mode(done->mode)) != 0)
        error = local_err = errno;
    if (r->fetched.fd >= 0 && error == 0)
        error = local_err = -whole_file_publish(&r->fetched);
    finish_file(r, error, local_err != 0, done->bytes);
    if (error != 0 && !file->get) {
        fail_put(r, file, error, local_err != 0);
        return;
    }
    runner_next_step(r);
}

static void on_stdin_ready(void *arg, uint32_t id, size_t room)
{
    struct runner *r = arg;

    /* The trial's own command is asked for room before its stdin is read. */
    (void)room;
    if (id != r->exec_id)
        keeper_on_stdin_ready(r->spec->keeper, id);
}

int runner_agent_start(struct runner *r, int fd)
{
    static const struct agent_client_ops OPS = {
        .hello = on_hello,
        .exec_started = on_exec_started,
        .exec_failed = on_exec_failed,
        .output = on_output,
        .stdin_ready = on_stdin_ready,
        .exec_exit = on_exec_exit,
        .file_bytes = on_file_bytes,
        .file_done = on_file_done,
        .quiesced = runner_on_quiesced,
        .restored = runner_on_restored,
    };
    int ret = agent_client_new(fd, &OPS, r, &r->client);

    if (ret != 0)
        io_close(&fd);
    return ret;
}

void runner_agent_process(struct runner *r, short revents)
{
    int ret = agent_client_process(r->client, revents);
    char shown[200];

    if (ret == 0 || r->phase == RUNNER_OVER || r->verdict_at_ns != 0)
        return;
    if (r->phase == RUNNER_CONNECT && ret == -ECONNRESET) {
        /* It hung up before its hello: the next attempt will tell. */
        agent_client_free(r->client);
        r->client = NULL;
        return;
    }
    if (r->facts->cancelled) {
        /* It was asked to power off, and the monitor will tell when. */
        r->verdict_at_ns = UINT64_MAX;
        return;
    }
    r->facts->protocol_broken = true;
    text_escape(agent_client_reason(r->client),
                strlen(agent_client_reason(r->client)), shown, sizeof(shown));
    runner_event(r, "agent_lost", shown);
    /* A guest that dies takes its agent along: wait for the monitor's word. */
    r->verdict_at_ns = io_now_ns() + 1000000000u;
}

bool runner_stdin_wanted(const struct runner *r)
{
    return r->stdin_open && r->exec_live && r->verdict_at_ns == 0 &&
           r->spec->stdin_fd >= 0 && r->seed_line[0] == '\0' &&
           agent_client_stdin_room(r->client, r->exec_id) > 0;
}

void runner_stdin(struct runner *r)
{
    uint8_t buf[32768];
    size_t room = agent_client_stdin_room(r->client, r->exec_id);
    ssize_t n;

    if (room > sizeof(buf))
        room = sizeof(buf);
    n = read(r->spec->stdin_fd, buf, room);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n > 0) {
        /* Within the room just asked for, so all of it is taken; an exec
         * that ended meanwhile takes nothing, and nobody misses it. */
        if (agent_client_stdin_write(r->client, r->exec_id, buf, (size_t)n) ==
            n)
            return;
    }
    agent_client_stdin_close(r->client, r->exec_id);
    r->stdin_open = false;
}

void runner_consumed(struct runner *r, uint32_t stream, size_t bytes)
{
    if (r->client && r->exec_id != 0)
        agent_client_consumed(r->client, r->exec_id, stream, bytes);
}
