/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot of a machine that goes on: its bases are read first, while it
 * runs; its agent parks all later connections and keeps this one; the machine
 * stands still while memory, devices and disks are written; and while digests
 * are made it runs again. Then the client is answered.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "trial/fitness.h"
#include "trial/keeper_internal.h"
#include "trial/snapshot_describe.h"

#define MS 1000000ull /* nanoseconds */

/* One under way. */
struct keeper_freeze {
    struct keeper_client *client; /* borrowed; it may have hung up */
    struct snapshot_writer *writer;
    struct snapshot_manifest manifest;
    struct monitor_save_files files;
    struct monitor_saved saved;
    uint64_t paused_ns;
    bool saved_all;
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
    ret = keep_fd(&config->kernel_fd, config->kernel_fd >= 0);
    for (uint32_t i = 0; i < config->disk_count; i++) {
        int one = keep_fd(&config->disks[i].fd, true);

        config->disks[i].overlay_fd = config->disks[i].layer_fd = -1;
        ret = ret == 0 ? one : ret;
    }
    if (ret != 0)
        failure_set(f, "host", keeper->entry.name, "raise ulimit -n",
                    "cannot keep the machine's files: %s", strerror(-ret));
    return ret;
}

void keeper_forget_machine(struct keeper *k)
{
    if (k->has_origin)
        vm_config_fini(&k->origin.config);
    k->has_origin = false;
}

/* ---- beginning ---- */

void keeper_snapshot_abort(struct keeper *k)
{
    struct keeper_freeze *freeze = k->freeze;

    if (!freeze)
        return;
    k->freeze = NULL;
    snapshot_writer_free(freeze->writer);
    snapshot_manifest_fini(&freeze->manifest);
    free(freeze);
}

void keeper_snapshot_forget(struct keeper *k, const struct keeper_client *c)
{
    if (k->freeze && k->freeze->client == c)
        keeper_snapshot_abort(k);
}

/* Refused, or failed half way: the machine goes on. */
static void refuse(struct keeper *k, struct keeper_client *c,
                   const struct failure *why)
{
    keeper_snapshot_abort(k);
    keeper_client_refuse(c, why);
    keeper_client_flush(k, c);
}

static int probe_host(struct monitor_probe *ret_probe, struct failure *f)
{
    int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int ret;

    if (kvm_fd < 0) {
        failure_set(f, "kvm_missing", "/dev/kvm", NULL,
                    "cannot open /dev/kvm: %s", strerror(errno));
        return -ENOENT;
    }
    ret = fitness_probe(kvm_fd, ret_probe, f);
    io_close(&kvm_fd);
    return ret;
}

static int prepare(struct keeper *k, struct keeper_freeze *freeze,
                   const struct keeper_snapshot *request, struct failure *f)
{
    const struct snapshot_writer_options options = {
        .without_base = request->flags & KEEPER_SNAPSHOT_WITHOUT_BASE,
        .copy_saved = true, /* the monitor lives on */
    };
    struct monitor_probe probe;
    int ret = probe_host(&probe, f);

    k->origin.config.vsock = true;
    k->origin.config.guest_cid = k->origin.guest_cid;
    if (ret == 0)
        ret = snapshot_writer_begin(request->dir, &options, &freeze->writer, f);
    if (ret == 0)
        ret = snapshot_describe(&k->origin, &probe, freeze->writer,
                                &freeze->manifest, &freeze->files, f);
    return ret;
}

void keeper_snapshot_begin(struct keeper *k, struct keeper_client *c,
                           const struct keeper_snapshot *request)
{
    struct failure f = {0};
    int ret;

    if (keeper_refuses(k, &f)) {
        keeper_client_refuse(c, &f);
        return;
    }
    if (k->freeze || !k->has_origin) {
        failure_set(&f, "busy", k->entry.name, "wait for it",
                    "another snapshot of the machine %s is being made",
                    k->entry.name);
        keeper_client_refuse(c, &f);
        return;
    }
    k->freeze = calloc(1, sizeof(*k->freeze));
    if (!k->freeze) {
        failure_set(&f, "host", "memory", NULL, "out of memory");
        keeper_client_refuse(c, &f);
        return;
    }
    k->freeze->client = c;
    ret = prepare(k, k->freeze, request, &f);
    if (ret == 0) {
        ret = agent_client_quiesce(k->runner->client, PROTO_QUIESCE_KEEP);
        if (ret != 0)
            failure_set(&f, "quiesce_failed", k->entry.name,
                        "build the image anew with this version",
                        "cannot ask the guest to make ready: %s",
                        strerror(-ret));
    }
    if (ret != 0) {
        keeper_snapshot_abort(k);
        keeper_client_refuse(c, &f);
        return;
    }
    c->state = CLIENT_ACTIVE;
}

/* ---- the machine stands still ---- */

/* What the monitor said while an order waited for its answer. */
static void take_events(struct runner *r)
{
    while (runner_on_monitor(r))
        continue;
}

/* Pauses, saves, resumes: a machine that cannot go on ends by itself. */
static int save(struct keeper *k, struct keeper_freeze *freeze,
                struct failure *f)
{
    struct runner *r = k->runner;
    struct failure ignored = {0};
    uint64_t began = io_now_ns();
    int ret = monitor_pause(r->monitor, f);

    if (ret == 0) {
        ret = monitor_save(r->monitor, &freeze->files, &freeze->saved, f);
        if (monitor_resume(r->monitor, &ignored) != 0)
            runner_fail_with(r, &ignored);
    }
    freeze->paused_ns = io_now_ns() - began;
    take_events(r);
    return ret;
}

/* It was not frozen, whatever became of the snapshot: the agent serves again.
 */
static void go_on(struct keeper *k)
{
    const struct proto_restore same = {.flags = PROTO_RESTORE_SAME};

    if (k->runner->client)
        (void)!agent_client_restore(k->runner->client, &same);
}

void keeper_on_quiesced(struct keeper *k, const struct proto_quiesced *quiesced)
{
    struct keeper_freeze *freeze = k ? k->freeze : NULL;
    struct failure f = {0};

    if (!k || (freeze && freeze->saved_all))
        return;
    if (!freeze && quiesced->err == 0)
        go_on(k); /* who wanted it has left */
    if (!freeze)
        return;
    if (quiesced->err != 0) {
        failure_set(&f, "quiesce_failed", k->entry.name, "try again",
                    "the guest cannot be frozen: %s",
                    strerror((int)quiesced->err));
        refuse(k, freeze->client, &f);
        return;
    }
    freeze->manifest.memory_used =
        k->origin.config.memory_bytes > quiesced->memory_free
            ? k->origin.config.memory_bytes - quiesced->memory_free
            : 0;
    freeze->saved_all = save(k, freeze, &f) == 0;
    go_on(k);
    if (!freeze->saved_all)
        refuse(k, freeze->client, &f);
}

/* ---- and goes on ---- */

void keeper_on_restored(struct keeper *k, const struct proto_restored *restored)
{
    struct keeper_freeze *freeze = k ? k->freeze : NULL;
    union keeper_body done = {0};
    struct failure f = {0};
    struct keeper_client *c;

    if (!freeze || !freeze->saved_all)
        return;
    if (restored->err != 0) {
        failure_set(&f, "machine_unavailable", k->entry.name,
                    "microsbx rm -f removes it",
                    "the machine's agent does not serve again: %s",
                    strerror((int)restored->err));
        refuse(k, freeze->client, &f);
        return;
    }
    freeze->manifest.agent = true;
    if (snapshot_manifest_set(&freeze->manifest.kernel_release,
                              k->record.kernel) != 0)
        failure_set(&f, "host", "memory", NULL, "out of memory");
    freeze->manifest.memory_pages = freeze->saved.pages;
    done.snapshot_done.pages = freeze->saved.pages;
    done.snapshot_done.clusters = freeze->saved.clusters;
    done.snapshot_done.paused_ms = freeze->paused_ns / MS;
    c = freeze->client;
    if (failure_is_set(&f) ||
        snapshot_writer_finish(freeze->writer, &freeze->manifest,
                               done.snapshot_done.id, &f) != 0) {
        refuse(k, c, &f);
        return;
    }
    keeper_snapshot_abort(k);
    keeper_client_answer(c, KEEPER_SNAPSHOT_DONE, &done);
    keeper_client_flush(k, c);
}
