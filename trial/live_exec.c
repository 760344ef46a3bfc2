/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One command in a long-lived machine, from the client's side: the user's
 * streams and signals on one hand, the keeper's socket on the other. See
 * live.h and keeper_proto.h.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "trial/exec_result.h"
#include "trial/keeper.h"
#include "trial/live.h"
#include "trial/output.h"
#include "trial/tail.h"

#define MS 1000000ull /* nanoseconds */
/* Credit goes back in portions, not byte by byte. */
#define CREDIT_PORTION (KEEPER_WINDOW / 4)

enum source {
    SOURCE_KEEPER,
    SOURCE_STDIN,
    SOURCE_STDOUT,
    SOURCE_STDERR,
    SOURCE_SIGNAL,
    SOURCE_COUNT
};

/* One of the command's two streams on its way to the user. */
struct stream {
    uint32_t id; /* PROTO_STDOUT or PROTO_STDERR */
    const struct trial_sink *sink;
    struct output output;
    uint32_t owed; /* disposed of, credit not given back yet */
    struct tail tail;
    size_t tail_at; /* of the tail's bytes: given to output */
};

struct live_exec {
    struct live *live;
    const struct trial_spec *spec;
    struct trial_result *result;
    struct outcome_facts *facts; /* of result */
    bool keep_tail;
    struct stream streams[2];
    bool over;     /* no more of the keeper */
    bool hurry;    /* nor is output waited for: somebody cancelled */
    bool answered; /* it has said something */
    bool blocked;  /* its socket was full */
    bool stdin_open;
    bool stdin_end_due;
    bool winsize_due;
    uint32_t stdin_credit;
    uint8_t input[KEEPER_DATA_MAX]; /* read, and not sent yet */
    size_t input_len;
};

/* ---- ends ---- */

static void fail(struct live_exec *x, const char *cause,
                 const struct failure *why)
{
    x->over = true;
    if (x->facts->host_failed)
        return;
    x->facts->host_failed = true;
    x->facts->cause = cause;
    x->result->failure = *why;
}

/* By what live_watch_look says of a keeper that does not answer. */
static void fail_keeper(struct live_exec *x, const struct failure *why)
{
    bool stopped = !strcmp(why->code, "keeper_stopped");

    fail(x, stopped ? "keeper_stopped" : "keeper_hangs", why);
}

static void fail_host(struct live_exec *x, const char *cause,
                      const char *object, const char *what, int error)
{
    struct failure f;

    failure_set(&f, cause, object, NULL, "%s: %s", what, strerror(-error));
    fail(x, cause, &f);
}

static void cancel(struct live_exec *x, const char *cause, const char *message)
{
    x->over = x->hurry = true;
    x->facts->cancelled = true;
    x->facts->cause = cause;
    failure_set(&x->result->failure, cause, "", NULL, "%s", message);
}

/* A word of the closed set that names a cause, so that it outlives a message.
 */
static const char *stable_cause(const char *cause)
{
    static const char *const CAUSES[] = {
        "machine_unavailable", "machine_ended",     "monitor_lied",
        "monitor_hung",        "monitor_stopped",   "monitor_exited",
        "monitor_seccomp",     "monitor_crashed",   "monitor_killed",
        "host_error",          "host_disk_full",    "host_io_error",
        "triple_fault",        "power_off",         "reset",
        "emulation",           "internal",          "host_pids_limit",
        "host_cpu_limit",      "host_storage_slow",
    };

    for (size_t i = 0; i < sizeof(CAUSES) / sizeof(CAUSES[0]); i++) {
        if (!strcmp(cause, CAUSES[i]))
            return CAUSES[i];
    }
    return "machine_ended";
}

/*
 * The machine ended, and the command with it. What became of the machine is
 * the command's outcome, too, where the machine broke; else it was cancelled.
 */
static void on_ended(struct live_exec *x, const struct keeper_ended *ended,
                     const union keeper_body *body)
{
    struct outcome_facts *facts = x->facts;

    x->over = true;
    live_explain(x->live, KEEPER_ENDED, body, &x->result->failure);
    facts->cause = stable_cause(ended->cause);
    facts->guest_ran = true;
    switch (ended->kind) {
    case OUTCOME_GUEST_PANIC:
        facts->guest_panic = true;
        break;
    case OUTCOME_GUEST_HALT:
        facts->guest_halt = true;
        break;
    case OUTCOME_PROTOCOL_VIOLATION:
        facts->protocol_broken = true;
        break;
    case OUTCOME_MONITOR_FAULT:
        facts->monitor_fault = true;
        break;
    case OUTCOME_INFRA_UNKNOWN:
    case OUTCOME_INFRA_NEVER_RAN:
        facts->host_failed = true;
        break;
    default:
        facts->cancelled = true;
        facts->cause = "machine_ended";
        break;
    }
}

/* ---- to the keeper ---- */

/* Sends without waiting; true if the socket took it. */
static bool tell(struct live_exec *x, enum keeper_message type,
                 const union keeper_body *body)
{
    int ret = x->over ? -EPIPE : keeper_send(x->live->sock, type, body);

    /* One that is gone has left its last word to be read. */
    if (ret == -EAGAIN)
        x->blocked = true;
    else if (ret != 0 && ret != -EPIPE && ret != -ECONNRESET)
        fail_host(x, "host", "keeper", "cannot talk to the keeper", ret);
    return ret == 0;
}

static void tell_credit(struct live_exec *x, struct stream *s)
{
    union keeper_body body = {.numbers = {.a = s->id, .b = s->owed}};

    if (s->owed == 0 ||
        (s->owed < CREDIT_PORTION && output_pending(&s->output)))
        return;
    if (tell(x, KEEPER_CREDIT, &body))
        s->owed = 0;
}

/* Everything that waits to be said. */
static void flush(struct live_exec *x)
{
    x->blocked = false;
    if (x->input_len > 0) {
        union keeper_body body = {
            .data = {.bytes = x->input, .len = x->input_len}};

        if (tell(x, KEEPER_STDIN, &body)) {
            x->stdin_credit -= (uint32_t)x->input_len;
            x->input_len = 0;
        }
    }
    if (x->stdin_end_due && x->input_len == 0)
        x->stdin_end_due = !tell(x, KEEPER_STDIN_END, NULL);
    if (x->winsize_due) {
        union keeper_body body = {0};
        uint16_t rows = 0, columns = 0;

        x->spec->winsize(x->spec->progress_ctx, &rows, &columns);
        body.numbers = (struct keeper_numbers){rows, columns};
        x->winsize_due = !tell(x, KEEPER_WINSIZE, &body);
    }
    tell_credit(x, &x->streams[0]);
    tell_credit(x, &x->streams[1]);
}

/* ---- the request ---- */

static void request(struct live_exec *x)
{
    int ret = live_request_exec(x->live, x->spec);

    /* A keeper that refused at once has hung up, and left the reason. */
    if (ret == -EPIPE || ret == -ECONNRESET)
        ret = 0;
    if (ret == -E2BIG || ret == -ENAMETOOLONG)
        fail_host(x, "usage", x->spec->argv[0],
                  "cannot ask the machine to run that: shorten arguments, "
                  "environment, user or folder",
                  ret);
    else if (ret == -EHOSTDOWN)
        fail_keeper(x, &x->live->why);
    else if (ret != 0)
        fail_host(x, "host", "keeper", "cannot talk to the keeper", ret);
    x->result->exec_ns = io_now_ns();
}

/* ---- from the keeper ---- */

static void on_output(struct live_exec *x, const struct keeper_bytes *data)
{
    struct stream *s = &x->streams[data->stream == PROTO_STDERR];

    if (!x->keep_tail) {
        s->owed += (uint32_t)output_add(&s->output, data->bytes, data->len);
        if (s->output.dropped > 0)
            x->result->hit_output = true;
        return;
    }
    if (tail_add(&s->tail, data->bytes, data->len) != 0)
        fail_host(x, "host", "memory", "cannot keep the output", -ENOMEM);
    if (s->tail.total > s->tail.limit)
        x->result->hit_output = true;
    s->owed += (uint32_t)data->len;
}

static void on_exited(struct live_exec *x, const struct keeper_exited *exited)
{
    x->over = true;
    x->result->exec_end_ns = io_now_ns();
    exec_result_exit(x->result, x->spec, &exited->status);
    if (exited->late) {
        x->facts->timed_out = true;
        x->facts->has_status = false;
        x->result->hit_timeout = true;
    }
    if (exited->disk_refused) {
        x->result->hit_disk = true;
        x->facts->ended_by = LIMIT_DISK;
        x->facts->limit_by_host = true;
    }
    for (unsigned i = 0; i < 2; i++)
        x->streams[i].output.dropped += exited->dropped[i];
}

static void on_not_started(struct live_exec *x,
                           const struct keeper_numbers *why)
{
    struct failure f;

    x->over = true;
    x->result->exec_end_ns = io_now_ns();
    if (exec_result_failed(x->result, x->spec, why->a, (int)why->b, &f)) {
        x->result->failure = f;
        return;
    }
    x->facts->workload_may_run = false;
    fail(x, "exec_refused", &f);
}

static void on_message(struct live_exec *x, uint32_t type,
                       const union keeper_body *body)
{
    x->answered = true;
    switch (type) {
    case KEEPER_STARTED:
        return;
    case KEEPER_STDIN_CREDIT:
        x->stdin_credit += body->numbers.a;
        return;
    case KEEPER_OUTPUT:
        on_output(x, &body->data);
        return;
    case KEEPER_EXITED:
        on_exited(x, &body->exited);
        return;
    case KEEPER_NOT_STARTED:
        on_not_started(x, &body->numbers);
        return;
    case KEEPER_ENDED:
        on_ended(x, &body->ended, body);
        return;
    default: {
        struct failure f;

        live_explain(x->live, type, body, &f);
        x->facts->workload_may_run = type != KEEPER_REFUSED;
        fail(x, type == KEEPER_REFUSED ? "refused" : "keeper_lied", &f);
        return;
    }
    }
}

static void on_keeper(struct live_exec *x)
{
    union keeper_body body;
    uint32_t type = 0;
    int ret = live_receive(x->live, 0, &type, &body);
    struct failure f;

    if (ret == 1) {
        on_message(x, type, &body);
        return;
    }
    if (ret == -ETIMEDOUT)
        return;
    failure_set(&f, "keeper_died", x->live->record.name,
                "microsbx rm removes it", "the keeper of the machine %s %s",
                x->live->record.name,
                ret == 0 ? "died" : "sent what cannot be read");
    fail(x, "keeper_died", &f);
}

/* ---- the user's side ---- */

static void on_stdin(struct live_exec *x)
{
    size_t room =
        x->stdin_credit < sizeof(x->input) ? x->stdin_credit : sizeof(x->input);
    ssize_t n = read(x->spec->stdin_fd, x->input, room);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n > 0) {
        x->input_len = (size_t)n;
        return;
    }
    x->stdin_open = false;
    x->stdin_end_due = true;
}

static void on_signal(struct live_exec *x)
{
    struct signalfd_siginfo info;
    char message[64];

    if (read(x->spec->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH) {
        x->winsize_due = x->spec->winsize != NULL && x->spec->tty;
        return;
    }
    snprintf(message, sizeof(message), "cancelled by signal %s",
             sigabbrev_np((int)info.ssi_signo));
    cancel(x, "signal", message);
}

static void on_sink(struct live_exec *x, struct stream *s, short revents)
{
    ssize_t n = revents & POLLOUT ? output_write(&s->output) : -EPIPE;

    if (n >= 0) {
        if (!x->keep_tail)
            s->owed += (uint32_t)n;
    } else if (n == -EPIPE) {
        cancel(x, "output_closed", "cancelled: the reader of the output left");
    } else {
        fail_host(x, n == -ENOSPC ? "host_disk_full" : "output_failed",
                  s->sink->file ? s->sink->file : "output",
                  "cannot write the command's output", (int)n);
    }
}

/* The tail's next bytes, as many as fit. */
static void pour_tail(struct stream *s)
{
    const uint8_t *bytes;
    size_t len;

    while ((bytes = tail_peek(&s->tail, s->tail_at, &len)) != NULL) {
        size_t room = s->output.has_sink ? relay_room(&s->output.relay) : len;

        if (room == 0)
            return;
        if (len > room)
            len = room;
        (void)output_add(&s->output, bytes, len);
        s->tail_at += len;
    }
}

/* ---- the loop ---- */

static int sink_fd(const struct stream *s)
{
    return s->output.relay.error == 0 ? s->sink->fd : -1;
}

static void fill_polls(const struct live_exec *x, struct pollfd *polls)
{
    const struct stream *s = x->streams;
    bool input = x->stdin_open && x->stdin_credit > 0 && x->input_len == 0 &&
                 x->answered && !x->over;

    polls[SOURCE_KEEPER] =
        (struct pollfd){x->over ? -1 : x->live->sock,
                        (short)(x->blocked ? POLLIN | POLLOUT : POLLIN), 0};
    polls[SOURCE_STDIN] =
        (struct pollfd){input ? x->spec->stdin_fd : -1, POLLIN, 0};
    for (int i = 0; i < 2; i++)
        polls[SOURCE_STDOUT + i] = (struct pollfd){
            sink_fd(&s[i]), output_pending(&s[i].output) ? POLLOUT : 0, 0};
    polls[SOURCE_SIGNAL] = (struct pollfd){x->spec->signal_fd, POLLIN, 0};
}

static void dispatch(struct live_exec *x, const struct pollfd *polls)
{
    if (polls[SOURCE_SIGNAL].revents)
        on_signal(x);
    for (int i = 0; i < 2; i++) {
        if (polls[SOURCE_STDOUT + i].revents && !x->hurry)
            on_sink(x, &x->streams[i], polls[SOURCE_STDOUT + i].revents);
    }
    if (polls[SOURCE_STDIN].revents && !x->over)
        on_stdin(x);
    if (polls[SOURCE_KEEPER].revents && !x->over)
        on_keeper(x);
    if (!x->over)
        flush(x);
}

/*
 * One that is not well is given up, and so is one that does not keep what it
 * promised: the end of a command whose time is over.
 */
static void check_keeper(struct live_exec *x)
{
    const struct trial_spec *spec = x->spec;
    uint64_t limit = spec->timeout_ms;
    struct failure f;

    if (x->over)
        return;
    if (live_watch_look(&x->live->watch, &x->live->entry, &x->live->record,
                        &f) != 0) {
        fail_keeper(x, &f);
        return;
    }
    if (limit == 0 || limit >= UINT32_MAX ||
        io_now_ns() < x->result->exec_ns + limit * MS + 2 * live_answer_ns())
        return;
    failure_set(&f, "keeper_hangs", x->live->record.name,
                "microsbx kill ends the machine",
                "the keeper of the machine %s (process %d) did not tell how "
                "the command ended",
                x->live->record.name, (int)x->live->record.keeper);
    fail(x, "keeper_hangs", &f);
}

static bool has_output(const struct live_exec *x)
{
    return output_pending(&x->streams[0].output) ||
           output_pending(&x->streams[1].output);
}

/* Until the keeper has said all and the user has it all. */
static void loop(struct live_exec *x)
{
    struct pollfd polls[SOURCE_COUNT];

    while (!x->over || has_output(x)) {
        int wait_ms;

        if (x->hurry)
            return;
        wait_ms = x->over ? -1 : LIVE_LOOK_MS;
        fill_polls(x, polls);
        if (poll(polls, SOURCE_COUNT, wait_ms) < 0) {
            if (errno != EINTR)
                fail_host(x, "host", "poll", "poll failed", -errno);
            continue;
        }
        dispatch(x, polls);
        check_keeper(x);
        if (x->over && x->keep_tail) {
            pour_tail(&x->streams[0]);
            pour_tail(&x->streams[1]);
        }
    }
}

static int streams_init(struct live_exec *x)
{
    const struct trial_spec *s = x->spec;
    uint64_t limit = x->keep_tail ? UINT64_MAX : s->output_limit;
    int ret;

    x->streams[0].id = PROTO_STDOUT;
    x->streams[0].sink = &s->out;
    x->streams[1].id = PROTO_STDERR;
    x->streams[1].sink = &s->err;
    tail_init(&x->streams[0].tail, s->output_limit);
    tail_init(&x->streams[1].tail, s->output_limit);
    ret = output_init(&x->streams[0].output, &s->out, limit);
    if (ret == 0)
        ret = output_init(&x->streams[1].output, &s->err, limit);
    return ret;
}

static void streams_fini(struct live_exec *x)
{
    struct trial_stream *const results[] = {&x->result->out, &x->result->err};

    for (unsigned i = 0; i < 2; i++) {
        struct stream *s = &x->streams[i];

        if (s->output.digest)
            output_result(&s->output, results[i]);
        if (s->tail.total > s->tail.used)
            results[i]->dropped += s->tail.total - s->tail.used;
        output_fini(&s->output);
        tail_fini(&s->tail);
    }
}

void live_exec(struct live *live, const struct trial_spec *spec, bool keep_tail,
               struct trial_result *ret_result)
{
    struct live_exec x = {
        .live = live,
        .spec = spec,
        .result = ret_result,
        .facts = &ret_result->facts,
        .keep_tail = keep_tail,
        .stdin_open = spec->stdin_fd >= 0,
        .stdin_credit = KEEPER_WINDOW,
    };
    struct timespec wall;
    int ret;

    memset(ret_result, 0, sizeof(*ret_result));
    clock_gettime(CLOCK_REALTIME, &wall);
    ret_result->started_at = (double)wall.tv_sec + (double)wall.tv_nsec / 1e9;
    ret_result->started_ns = io_now_ns();
    ret = streams_init(&x);
    if (ret != 0)
        fail_host(&x, "host", "memory", "cannot prepare the command", ret);
    if (!x.over)
        request(&x);
    ret_result->facts.workload_may_run = !x.over;
    ret_result->facts.guest_ran = !x.over;
    loop(&x);
    io_close(&live->sock);
    streams_fini(&x);
    ret_result->end_ns = io_now_ns();
    ret_result->outcome = outcome_decide(&ret_result->facts);
}
