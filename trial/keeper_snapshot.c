/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot of a machine that goes on. What takes long (reading the bases,
 * making digests) is done by a process of its own, the helper, so that the
 * machine's other clients are served meanwhile:
 *
 *     keeper                              helper
 *     (forks it)                          describes the machine, stores bases
 *     <-- FILES + state, memory, cows --  empty files
 *     the agent parks, the machine stands still while it is saved, goes on
 *     -- SAVED ------------------------>  digests, publishes
 *     <-- KEEPER_SNAPSHOT_DONE ---------  or KEEPER_REFUSED, at any time
 *
 * A keeper that closes its end (its client left, the machine ended) cancels:
 * the helper removes what it made. The helper is nobody's child, so that nobody
 * has to wait for it, and holds nothing of the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/io.h"
#include "trial/fitness.h"
#include "trial/keeper_internal.h"
#include "trial/kvm_open.h"
#include "trial/snapshot_describe.h"

#define MS 1000000ull /* nanoseconds */
/* Syncing file systems, on a slow host. */
#define QUIESCE_MS 180000u

/* Between helper and keeper, beside KEEPER_SNAPSHOT_DONE and KEEPER_REFUSED. */
enum helper_message { HELPER_FILES = 1000, HELPER_SAVED = 1001 };

/* One under way, as the keeper sees it. */
struct keeper_freeze {
    struct keeper_client *client;    /* borrowed */
    int helper_fd;                   /* owned */
    struct monitor_save_files files; /* owned, between FILES and the save */
    uint64_t quiesce_by_ns; /* the agent was asked for it; 0: not now */
};

/* What the keeper tells of a machine that was saved. */
struct helper_saved {
    struct monitor_saved saved;
    uint64_t memory_used; /* bytes */
    uint64_t paused_ms;
};

/* ---- what the machine is made of ---- */

static int keep_fd(int *fd, bool wanted)
{
    *fd = wanted && *fd >= 0 ? fcntl(*fd, F_DUPFD_CLOEXEC, 0) : -1;
    return wanted && *fd < 0 ? -errno : 0;
}

int keeper_set_machine(struct keeper *keeper, const struct machine *machine,
                       struct failure *f)
{
    struct vm_config *config = &keeper->origin.config;
    int ret;

    keeper->origin = *machine;
    keeper->has_origin = true;
    config->kvm_fd = config->initrd_fd = config->state_fd = -1;
    config->memory_fd = config->vsock_listen_fd = -1;
    config->console_in_fd = config->console_out_fd = -1;
    config->vsock = true; /* trial_run adds one if there is none */
    config->guest_cid = machine->guest_cid;
    ret = keep_fd(&config->kernel_fd, config->kernel_fd >= 0);
    for (uint32_t i = 0; i < config->disk_count; i++) {
        int one = keep_fd(&config->disks[i].fd, true);

        config->disks[i].overlay_fd = config->disks[i].layer_fd = -1;
        ret = ret == 0 ? one : ret;
    }
    if (ret != 0)
        failure_set(f, "host", keeper->entry.name, failure_remedy(ret, NULL),
                    "cannot keep the machine's files: %s", strerror(-ret));
    return ret;
}

void keeper_forget_machine(struct keeper *k)
{
    if (k->has_origin)
        vm_config_fini(&k->origin.config);
    k->has_origin = false;
}

/* ---- the helper's process ---- */

/* It is there for its snapshot only: whatever else is open is not its own. */
static void let_go(struct keeper *k)
{
    struct runner *r = k->runner;

    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++)
        keeper_client_drop(&k->clients[i]);
    io_close(&k->listen_fd);
    io_close(&k->spare_fd);
    registry_close(&k->entry);
    close(monitor_fd(r->monitor));
    close(agent_client_fd(r->client));
    io_close(&r->console_fd);
}

/* Nothing is ever said to a helper that works: readable means gone. */
static bool is_cancelled(void *ctx)
{
    const int *fd = ctx;
    struct pollfd p = {.fd = *fd, .events = POLLIN};

    return poll(&p, 1, 0) > 0;
}

static int probe_host(struct monitor_probe *ret_probe, struct failure *f)
{
    int kvm_fd = -1;
    int ret = kvm_open(&kvm_fd, f);

    if (ret == 0)
        ret = fitness_probe(kvm_fd, ret_probe, f);
    io_close(&kvm_fd);
    return ret;
}

/* Hands the files over and waits until the machine is saved in them. */
static int have_saved(int fd, const struct monitor_save_files *files,
                      struct helper_saved *ret_saved, struct failure *f)
{
    int fds[2 + VM_DISKS_MAX] = {files->state_fd, files->memory_fd};
    struct state_reader reader;
    static struct msg m; /* large; one helper, one snapshot */
    int ret;

    memcpy(fds + 2, files->disk_fds, files->disk_count * sizeof(*fds));
    ret = msg_send(fd, HELPER_FILES, NULL, 0, fds, 2 + files->disk_count);
    if (ret == 0)
        ret = msg_receive(fd, &m);
    state_reader_init(&reader, m.payload, m.len);
    ret_saved->saved.pages = state_get_u64(&reader);
    ret_saved->saved.clusters = state_get_u64(&reader);
    ret_saved->memory_used = state_get_u64(&reader);
    ret_saved->paused_ms = state_get_u64(&reader);
    if (ret == 1 && m.type == HELPER_SAVED && state_reader_finish(&reader) == 0)
        return 0;
    failure_set(f, "cancelled", "", NULL, "cancelled: nothing was published");
    return -ECANCELED;
}

/* All that ran: before it was restored, its own command, what clients ran. */
static int record_history(const struct keeper *k, struct snapshot_manifest *m,
                          struct failure *f)
{
    const char *commands[KEEPER_RAN_MAX + 3] = {NULL};
    const struct snapshot_history history = {.commands = commands};
    size_t count = 0;

    if (k->record.command[0])
        commands[count++] = k->record.command;
    for (size_t i = 0; i < k->ran_count && i < KEEPER_RAN_MAX; i++)
        commands[count++] = k->ran[i];
    if (k->ran_count > KEEPER_RAN_MAX)
        commands[count++] = "... and more commands";
    if (snapshot_manifest_set(&m->kernel_release, k->record.kernel) == 0 &&
        snapshot_describe_history(&k->origin, &history, m) == 0)
        return 0;
    failure_set(f, "host", "memory", NULL, "out of memory");
    return -ENOMEM;
}

static int make_snapshot(struct keeper *k,
                         const struct keeper_snapshot *request, int fd,
                         struct keeper_snapshot_done *ret_done,
                         struct failure *f)
{
    const struct snapshot_writer_options options = {
        .without_base = request->flags & KEEPER_SNAPSHOT_WITHOUT_BASE,
        .cancelled = is_cancelled,
        .ctx = &fd,
    };
    struct monitor_save_files files = {0};
    struct snapshot_writer *writer = NULL;
    struct snapshot_manifest m;
    struct monitor_probe probe;
    struct helper_saved saved = {0};
    int ret = probe_host(&probe, f);

    snapshot_manifest_init(&m);
    if (ret == 0)
        ret = snapshot_writer_begin(request->dir, &options, &writer, f);
    if (ret == 0)
        ret = snapshot_describe(&k->origin, &probe, writer, &m, &files, f);
    if (ret == 0)
        ret = have_saved(fd, &files, &saved, f);
    if (ret == 0)
        ret = record_history(k, &m, f);
    m.agent = true;
    m.memory_pages = saved.saved.pages;
    m.memory_used = saved.memory_used;
    if (ret == 0)
        ret = snapshot_writer_finish(writer, &m, ret_done->id, f);
    ret_done->pages = saved.saved.pages;
    ret_done->clusters = saved.saved.clusters;
    ret_done->paused_ms = saved.paused_ms;
    snapshot_writer_free(writer);
    snapshot_manifest_fini(&m);
    return ret;
}

static void __attribute__((noreturn))
helper_main(struct keeper *k, const struct keeper_snapshot *request, int fd)
{
    struct keeper_snapshot copy = *request;
    union keeper_body answer = {0};
    struct failure f = {0};

    let_go(k);
    if (make_snapshot(k, &copy, fd, &answer.snapshot_done, &f) == 0) {
        (void)!keeper_send(fd, KEEPER_SNAPSHOT_DONE, &answer);
    } else {
        answer.refused = f;
        (void)!keeper_send(fd, KEEPER_REFUSED, &answer);
    }
    _exit(0);
}

/* Forks twice: our end of its socket, or a negative errno. */
static int start_helper(struct keeper *k, const struct keeper_snapshot *request)
{
    int pair[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return -errno;
    pid = fork();
    if (pid == 0) {
        close(pair[0]);
        pid = fork();
        if (pid == 0)
            helper_main(k, request, pair[1]);
        _exit(pid < 0);
    }
    close(pair[1]);
    if (pid > 0)
        (void)waitpid(pid, NULL, 0);
    if (pid < 0) {
        close(pair[0]);
        return -errno;
    }
    return pair[0];
}

/* ---- the keeper's side ---- */

static void close_files(struct keeper_freeze *freeze)
{
    io_close(&freeze->files.state_fd);
    io_close(&freeze->files.memory_fd);
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        io_close(&freeze->files.disk_fds[i]);
    freeze->files.disk_count = 0;
}

void keeper_snapshot_abort(struct keeper *k)
{
    struct keeper_freeze *freeze = k->freeze;

    if (!freeze)
        return;
    k->freeze = NULL;
    io_close(&freeze->helper_fd);
    close_files(freeze);
    free(freeze);
}

void keeper_snapshot_forget(struct keeper *k, const struct keeper_client *c)
{
    if (k->freeze && k->freeze->client == c)
        keeper_snapshot_abort(k);
}

/* The last word to who asked for it; the machine goes on. */
static void answer(struct keeper *k, enum keeper_message type,
                   const union keeper_body *body)
{
    struct keeper_client *c = k->freeze->client;

    keeper_snapshot_abort(k);
    keeper_client_answer(c, type, body);
    keeper_client_flush(k, c);
}

static void refuse(struct keeper *k, const struct failure *why)
{
    union keeper_body body = {.refused = *why};

    answer(k, KEEPER_REFUSED, &body);
}

void keeper_snapshot_begin(struct keeper *k, struct keeper_client *c,
                           const struct keeper_snapshot *request)
{
    struct keeper_freeze *freeze = calloc(1, sizeof(*freeze));
    struct failure f = {0};

    if (keeper_refuses(k, &f))
        goto out_refuse;
    /* The agent answers one at a time, also one that nobody waits for. */
    if (k->freeze || k->parking || !k->has_origin) {
        failure_set(&f, "busy", k->entry.name, "wait for it",
                    "another snapshot of the machine %s is being made",
                    k->entry.name);
        goto out_refuse;
    }
    if (freeze)
        freeze->helper_fd = start_helper(k, request);
    if (!freeze || freeze->helper_fd < 0) {
        failure_set(&f, "host", k->entry.name, "free processes or memory",
                    "cannot make a snapshot: %s",
                    strerror(freeze ? -freeze->helper_fd : ENOMEM));
        goto out_refuse;
    }
    freeze->client = c;
    freeze->files.state_fd = freeze->files.memory_fd = -1;
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        freeze->files.disk_fds[i] = -1;
    k->freeze = freeze;
    c->state = CLIENT_ACTIVE;
    return;
out_refuse:
    free(freeze);
    keeper_client_refuse(c, &f);
}

int keeper_snapshot_fd(const struct keeper *k)
{
    return k->freeze ? k->freeze->helper_fd : -1;
}

/* ---- the machine stands still ---- */

/* What the monitor said while an order waited for its answer. */
static void take_events(struct runner *r)
{
    while (runner_on_monitor(r))
        continue;
}

/* Nobody could do anything in that time: it does not count against them. */
static void give_time(struct keeper *k, uint64_t ns)
{
    struct runner *r = k->runner;

    for (size_t i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        struct keeper_client *c = &k->clients[i];

        if (c->deadline_ns != 0) {
            c->deadline_ns += ns;
            c->confirm_ns += ns;
        }
    }
    if (r->deadline_ns != 0)
        r->deadline_ns += ns;
    if (r->file_deadline_ns != 0)
        r->file_deadline_ns += ns;
}

/* What was refused is not on the disk: no machine to start from. */
static int check_disks(struct runner *r, struct failure *f)
{
    runner_ask_for_stats(r);
    if (!runner_disk_refused(r))
        return 0;
    failure_set(f, "disk_full", "--disk-limit",
                "start the machine anew with more --disk-limit",
                "the host refused what the guest wrote, at the limit of a "
                "disk: the machine is not whole");
    return -ENOSPC;
}

/* Pauses, saves, resumes: a machine that cannot go on ends by itself. */
static int save(struct keeper *k, const struct monitor_save_files *files,
                struct helper_saved *ret_saved, struct failure *f)
{
    struct runner *r = k->runner;
    struct failure why = {0};
    uint64_t began = io_now_ns();
    /* Without it, who waits only loses patience sooner. */
    int busy_fd = registry_hold_busy(&k->entry);
    int ret = check_disks(r, f);

    if (ret == 0)
        ret = monitor_pause(r->monitor, f);
    if (ret == 0) {
        ret = monitor_save(r->monitor, files, &ret_saved->saved, f);
        if (monitor_resume(r->monitor, &why) != 0)
            runner_fail_with(r, &why);
    }
    io_close(&busy_fd);
    began = io_now_ns() - began;
    ret_saved->paused_ms = began / MS;
    give_time(k, began);
    take_events(r);
    return ret;
}

/* It was not frozen, whatever became of the snapshot: the agent serves again.
 */
static void go_on(struct keeper *k)
{
    const struct proto_restore same = {.flags = PROTO_RESTORE_SAME};

    if (!k->runner->client ||
        agent_client_restore(k->runner->client, &same) != 0)
        k->parking = false; /* it is lost, and that is told elsewhere */
}

static int tell_saved(const struct keeper_freeze *freeze,
                      const struct helper_saved *saved)
{
    uint8_t buf[64];
    struct state_writer w;

    state_writer_init(&w, buf, sizeof(buf));
    state_put_u64(&w, saved->saved.pages);
    state_put_u64(&w, saved->saved.clusters);
    state_put_u64(&w, saved->memory_used);
    state_put_u64(&w, saved->paused_ms);
    return msg_send(freeze->helper_fd, HELPER_SAVED, buf, w.used, NULL, 0);
}

void keeper_on_quiesced(struct keeper *k, const struct proto_quiesced *quiesced)
{
    uint64_t memory = k ? k->origin.config.memory_bytes : 0;
    struct keeper_freeze *freeze = k ? k->freeze : NULL;
    struct helper_saved saved = {0};
    struct failure f = {0};

    if (!k)
        return;
    if (quiesced->err != 0)
        k->parking = false; /* it never was */
    if (!freeze || freeze->quiesce_by_ns == 0) {
        if (k->parking)
            go_on(k); /* who wanted it has left */
        return;
    }
    freeze->quiesce_by_ns = 0;
    if (quiesced->err != 0) {
        failure_set(&f, "quiesce_failed", k->entry.name, "try again",
                    "the guest cannot be frozen: %s",
                    strerror((int)quiesced->err));
        refuse(k, &f);
        return;
    }
    if (memory > quiesced->memory_free)
        saved.memory_used = memory - quiesced->memory_free;
    if (save(k, &freeze->files, &saved, &f) != 0) {
        go_on(k);
        refuse(k, &f);
        return;
    }
    go_on(k);
    close_files(freeze);
    (void)!tell_saved(freeze,
                      &saved); /* one that died is met when it is read */
}

void keeper_on_restored(struct keeper *k, const struct proto_restored *restored)
{
    if (!k)
        return;
    k->parking = false;
    if (restored->err != 0)
        keeper_give_up(k);
}

uint64_t keeper_snapshot_due_ns(const struct keeper *k)
{
    return k->freeze && k->freeze->quiesce_by_ns != 0 ? k->freeze->quiesce_by_ns
                                                      : UINT64_MAX;
}

void keeper_snapshot_on_clock(struct keeper *k, uint64_t now_ns)
{
    struct failure f = {0};

    if (now_ns < keeper_snapshot_due_ns(k))
        return;
    failure_set(&f, "quiesce_failed", k->entry.name, "try again",
                "the guest did not make ready to be frozen within %u s",
                QUIESCE_MS / 1000);
    refuse(k, &f);
}

/* ---- what the helper says ---- */

/* The files are there: the agent is asked to park. */
static int on_files(struct keeper *k, struct keeper_freeze *freeze)
{
    struct monitor_save_files *files = &freeze->files;
    int ret;

    if (k->msg.fd_count < 2 || k->msg.fd_count > 2 + VM_DISKS_MAX ||
        files->state_fd >= 0)
        return -EBADMSG;
    files->state_fd = k->msg.fds[0];
    files->memory_fd = k->msg.fds[1];
    files->disk_count = (unsigned)k->msg.fd_count - 2;
    memcpy(files->disk_fds, k->msg.fds + 2,
           files->disk_count * sizeof(files->disk_fds[0]));
    k->msg.fd_count = 0;
    ret = agent_client_quiesce(k->runner->client, PROTO_QUIESCE_KEEP);
    k->parking = ret == 0;
    if (ret == 0)
        freeze->quiesce_by_ns = io_now_ns() + QUIESCE_MS * MS;
    return ret;
}

static void on_message(struct keeper *k)
{
    union keeper_body body;
    struct failure f = {0};
    int ret = -EBADMSG;

    if (k->msg.type == KEEPER_SNAPSHOT_DONE || k->msg.type == KEEPER_REFUSED)
        ret = keeper_decode(k->msg.type, k->msg.payload, k->msg.len, &body);
    if (ret == 0) {
        answer(k, (enum keeper_message)k->msg.type, &body);
        return;
    }
    if (k->msg.type == HELPER_FILES)
        ret = on_files(k, k->freeze);
    if (ret == 0)
        return;
    failure_set(&f, "quiesce_failed", k->entry.name,
                "build the image anew with this version",
                "cannot ask the guest to make ready: %s", strerror(-ret));
    refuse(k, &f);
}

void keeper_snapshot_on_helper(struct keeper *k)
{
    struct failure f = {0};
    int ret;

    if (!k->freeze)
        return;
    ret = msg_receive(k->freeze->helper_fd, &k->msg);
    if (ret == 1) {
        on_message(k);
        msg_close_fds(&k->msg);
        return;
    }
    failure_set(&f, "helper_died", k->entry.name, "try again",
                "the process that wrote the snapshot died");
    refuse(k, &f);
}
