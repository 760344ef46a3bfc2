/* SPDX-License-Identifier: Apache-2.0 */
/* A trial's result as JSON; see the header. */
#include "trial/result.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "trial/host.h"
#include "trial/json_make.h"
#include "trial/json_text.h"
#include "trial/machine_record.h"

static json_t *text(const char *s)
{
    return json_text(s);
}

static json_t *milliseconds(uint64_t from, uint64_t to)
{
    if (from == 0 || to < from)
        return json_null();
    return json_real(round((double)(to - from) / 1e3) / 1e3);
}

static json_t *error_object(const struct failure *f)
{
    struct json_make o;

    if (!failure_is_set(f))
        return json_null();
    o = json_make_object();
    json_put(&o, "code", text(f->code));
    json_put(&o, "object", text(f->object));
    json_put(&o, "message", text(f->message));
    json_put(&o, "remedy", text(f->remedy));
    return json_made(&o);
}

static json_t *stream_object(const struct trial_stream *s,
                             const struct trial_sink *sink)
{
    struct json_make o = json_make_object();

    json_put(&o, "file", text(sink->file));
    json_put(&o, "bytes", json_integer((json_int_t)s->bytes));
    json_put(&o, "sha256", s->sha256[0] ? text(s->sha256) : json_null());
    return json_made(&o);
}

static json_t *limits_hit(const struct trial_result *r)
{
    const struct {
        bool hit;
        const char *name;
    } all[] = {
        {r->hit_timeout, "timeout"}, {r->hit_cpu, "cpu_time"},
        {r->hit_memory, "memory"},   {r->hit_pids, "pids"},
        {r->hit_disk, "disk"},       {r->hit_output, "output"},
    };
    struct json_make list = json_make_array();

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i].hit)
            json_add(&list, json_string(all[i].name));
    }
    return json_made(&list);
}

static json_t *file_object(const struct trial_file *file,
                           const struct trial_file_result *f)
{
    static const char *const STATUS[2][3] = {
        {"not_sent", "ok", "error"},
        {"not_fetched", "ok", "error"},
    };
    struct json_make o = json_make_object();

    json_put(&o, "src", text(file->src));
    json_put(&o, "dst", text(file->dst));
    json_put(&o, "status", text(STATUS[file->get][f->status]));
    if (file->get)
        json_put(&o, "optional", json_boolean(file->optional));
    json_put(&o, "errno",
             f->error ? text(strerrorname_np(f->error)) : json_null());
    json_put(&o, "bytes", json_integer((json_int_t)f->bytes));
    json_put(&o, "sha256", f->sha256[0] ? text(f->sha256) : json_null());
    return json_made(&o);
}

static json_t *files_list(const struct trial_result *r,
                          const struct trial_spec *spec)
{
    struct json_make list = json_make_array();

    for (size_t i = 0; i < spec->file_count; i++)
        json_add(&list, file_object(&spec->files[i], &r->files[i]));
    return json_made(&list);
}

/* What was asked for, but not delivered, beside the workload's own end. */
static json_t *undelivered_list(const struct trial_result *r)
{
    struct json_make list = json_make_array();

    if (r->missing > 0)
        json_add(&list, json_string("files"));
    if (r->events_error != 0)
        json_add(&list, json_string("events"));
    return json_made(&list);
}

static json_t *started_at(double when)
{
    time_t seconds = (time_t)when;
    struct tm tm;
    char date[40], shown[64];

    gmtime_r(&seconds, &tm);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(shown, sizeof(shown), "%s.%03dZ", date,
             (int)((when - (double)seconds) * 1000));
    return json_string(shown);
}

static bool has_files(const struct trial_spec *spec, bool get)
{
    for (size_t i = 0; i < spec->file_count; i++)
        if (spec->files[i].get == get)
            return true;
    return false;
}

/* The time for files on their way in or out: of one that had any. */
static json_t *file_time(const struct trial_spec *spec, bool get, uint64_t from,
                         uint64_t to)
{
    return has_files(spec, get) && to != from ? milliseconds(from, to)
                                              : json_null();
}

static json_t *time_object(const struct trial_result *r,
                           const struct trial_spec *spec)
{
    uint64_t over = r->over_ns ? r->over_ns : r->exec_end_ns;
    struct json_make o = json_make_object();

    json_put(&o, "queued_ms", json_integer(0));
    json_put(&o, "restore_ms",
             spec->restore ? milliseconds(r->started_ns, r->running_ns)
                           : json_null());
    json_put(&o, "ready_ms", milliseconds(r->started_ns, r->ready_ns));
    json_put(&o, "exec_ms", milliseconds(r->exec_ns, r->exec_end_ns));
    json_put(&o, "teardown_ms", milliseconds(over, r->end_ns));
    json_put(&o, "guest_cpu_ms",
             r->has_stats ? milliseconds(1, r->stats.guest_cpu_ns + 1)
                          : json_null());
    json_put(&o, "first_run_ms", milliseconds(r->started_ns, r->running_ns));
    json_put(&o, "put_ms", file_time(spec, false, r->ready_ns, r->exec_ns));
    json_put(&o, "get_ms", file_time(spec, true, r->exec_end_ns, over));
    return json_made(&o);
}

static json_t *peak_object(const struct trial_result *r)
{
    struct json_make o = json_make_object();
    uint64_t clusters = 0;

    if (r->has_exit) {
        json_put(&o, "memory", json_integer((json_int_t)r->exit.memory_peak));
        json_put(&o, "cpu_ms", json_integer((json_int_t)r->exit.cpu_us / 1000));
    }
    for (uint32_t i = 0; r->has_stats && i < r->stats.disk_count; i++)
        clusters += r->stats.disks[i].clusters;
    if (r->has_stats)
        json_put(&o, "disk", json_integer((json_int_t)clusters * 65536));
    return json_made(&o);
}

static json_t *limits_object(const struct trial_spec *spec,
                             const struct machine_spec *m)
{
    struct json_make o = json_make_object();

    json_put(&o, "timeout_ms",
             spec->timeout_ms ? json_integer((json_int_t)spec->timeout_ms)
                              : json_null());
    json_put(&o, "cpu_time_ms",
             spec->cpu_time_ms ? json_integer((json_int_t)spec->cpu_time_ms)
                               : json_null());
    json_put(&o, "output", json_integer((json_int_t)spec->output_limit));
    json_put(&o, "disk",
             m->disk_limit ? json_integer((json_int_t)m->disk_limit)
                           : json_null());
    json_put(&o, "pids",
             spec->no_agent ? json_null() : json_integer(spec->pids_limit));
    json_put(&o, "memory", json_integer((json_int_t)m->memory_bytes));
    json_put(&o, "cpus", json_integer((json_int_t)m->cpu_count));
    /* Less than the snapshot asks for, because it was not made here. */
    json_put(&o, "lowered",
             m->disk_lowered ? json_pack("[s]", "disk") : json_array());
    return json_made(&o);
}

static json_t *command_list(const struct trial_spec *spec)
{
    struct json_make list;

    if (spec->no_agent)
        return json_null();
    list = json_make_array();
    for (size_t i = 0; spec->argv && spec->argv[i]; i++)
        json_add(&list, text(spec->argv[i]));
    return json_made(&list);
}

/* A NULL-ended list of texts; NULL is null. */
static json_t *text_list(char *const *words)
{
    struct json_make list;

    if (!words)
        return json_null();
    list = json_make_array();
    for (; *words; words++)
        json_add(&list, text(*words));
    return json_made(&list);
}

static const char *text_or_null(const char *text)
{
    return text[0] ? text : NULL;
}

/* What the trial started from: an image, or a snapshot (and its image). */
/* Disks whose files are not the snapshot's; null without one. */
static json_t *replaced_list(const struct snapshot *snapshot)
{
    struct json_make list;

    if (!snapshot)
        return json_null();
    list = json_make_array();
    for (uint32_t i = 0; i < snapshot->manifest.disk_count; i++)
        if (snapshot->disks[i].replaced)
            json_add(&list, text(snapshot->manifest.disks[i].id));
    return json_made(&list);
}

static json_t *baseline_object(const struct trial_result *r,
                               const struct trial_spec *spec,
                               const struct image *image)
{
    const struct snapshot *snapshot =
        spec->restore ? spec->restore->snapshot : NULL;
    const struct snapshot_manifest *m = snapshot ? &snapshot->manifest : NULL;
    const char *name = image ? image->name : NULL;
    const char *sha256 = image ? image->rootfs.sha256 : NULL;
    const char *kernel = text_or_null(r->kernel_release);
    const char *id = snapshot ? snapshot->id : NULL;
    struct json_make o = json_make_object();
    char cpu[64];

    host_cpu_model(cpu, sizeof(cpu));
    if (m && m->has_image) {
        name = m->image_name;
        sha256 = m->disk_count > 0 && !snapshot->disks[0].replaced
                     ? m->disks[0].sha256
                     : NULL;
    }
    if (spec->live) {
        name = text_or_null(spec->live->image);
        sha256 = text_or_null(spec->live->image_sha256);
        kernel = text_or_null(spec->live->kernel);
        id = text_or_null(spec->live->snapshot);
    }
    json_put(&o, "image", text(name));
    json_put(&o, "image_sha256", text(sha256));
    json_put(&o, "snapshot", text(id));
    json_put(&o, "warmup", m ? text_list(m->warmup) : json_null());
    json_put(&o, "disks_replaced", replaced_list(snapshot));
    json_put(&o, "kernel", text(kernel));
    json_put(&o, "vmm", text(MICROSBX_VERSION));
    json_put(&o, "cpu_model", text(cpu));
    return json_made(&o);
}

static json_t *host_object(void)
{
    struct utsname names;
    struct json_make o = json_make_object();

    uname(&names);
    json_put(&o, "kernel", text(names.release));
    json_put(&o, "kind", text(host_is_emulated() ? "emulated" : "native"));
    json_put(&o, "smt", json_boolean(host_has_smt()));
    return json_made(&o);
}

static json_t *jail_object(void)
{
    struct json_make o = json_make_object();

    json_put(&o, "level", json_string("none"));
    json_put(&o, "missing", json_pack("[s]", "everything"));
    return json_made(&o);
}

static json_t *violations_list(const struct trial_result *r)
{
    struct json_make list = json_make_array();

    if (r->has_stats && r->stats.violations > 0)
        json_add(&list, json_pack("{s:s, s:I}", "kind", "device_protocol",
                                  "count", (json_int_t)r->stats.violations));
    return json_made(&list);
}

/* Who showed that the trial started from the very snapshot, or null. */
static json_t *proof_object(const struct proof *proof)
{
    struct json_make o;

    if (!proof->done)
        return json_null();
    o = json_make_object();
    json_put(&o, "by",
             text(proof->exposed ? "exposed_monitor" : "fresh_monitor"));
    json_put(&o, "root", text(proof->root));
    return json_made(&o);
}

/* Pinned: for the trial's whole time, or not; null if it never ran. */
static json_t *pinned_word(const struct trial_result *r,
                           const struct trial_restore *restore)
{
    if (!restore || !restore->pinned || r->running_ns == 0)
        return json_null();
    return text(r->pin_expired ? "expired" : "held");
}

static json_t *clock_text(const struct trial_restore *restore)
{
    if (!restore || !restore->pinned)
        return json_null();
    return started_at((double)restore->clock_ns / 1e9);
}

/* Files that may have changed since they were checked, without a trace. */
static json_t *unsealed_list(const struct snapshot *snapshot)
{
    struct json_make list = json_make_array();
    struct snapshot_names names;

    snapshot_unsealed(snapshot, &names);
    for (unsigned i = 0; i < names.count; i++)
        json_add(&list, text(names.names[i]));
    return json_made(&list);
}

/* How the trial got to where it started. */
static void set_snapshot_fields(struct json_make *o,
                                const struct trial_result *r,
                                const struct trial_spec *spec)
{
    const struct trial_restore *restore = spec->restore;
    bool pinned = restore && restore->pinned;
    struct json_make dirty = json_make_object();
    uint64_t clusters = 0;

    for (uint32_t i = 0; r->has_stats && i < r->stats.disk_count; i++)
        clusters += r->stats.disks[i].clusters;
    json_put(
        o, "checked",
        text(restore ? snapshot_check_name(restore->snapshot->checked) : NULL));
    json_put(o, "unsealed",
             restore ? unsealed_list(restore->snapshot) : json_null());
    /* A command in a long-lived machine finds what others left there. */
    json_put(o, "reset",
             text(spec->live ? "none"
                  : !restore ? "boot"
                  : spec->vm ? "in-place"
                             : "process"));
    /* Its monitor had run a guest before. */
    json_put(o, "monitor_reused", json_boolean(spec->live || r->proof.exposed));
    json_put(o, "proof", proof_object(&r->proof));
    json_put(o, "seed",
             pinned ? json_integer((json_int_t)restore->seed) : json_null());
    json_put(o, "clock", clock_text(restore));
    json_put(o, "pinned", pinned_word(r, restore));
    json_put(&dirty, "pages",
             r->rolled_back ? json_integer((json_int_t)r->rollback.pages)
                            : json_null());
    json_put(&dirty, "clusters",
             r->has_stats ? json_integer((json_int_t)clusters) : json_null());
    json_put(o, "dirty", json_made(&dirty));
}

char *result_to_json(const struct trial_result *r,
                     const struct trial_spec *spec,
                     const struct machine_spec *machine,
                     const struct image *image)
{
    struct json_make o = json_make_object();
    bool status = r->facts.has_status;
    json_t *root;
    char *line;

    json_put(&o, "schema", json_string("microsbx.trial/1"));
    json_put(&o, "trial", text(spec->id));
    json_put(&o, "attempt", json_integer(1));
    json_put(&o, "outcome", text(outcome_name(r->outcome.kind)));
    json_put(&o, "outcome_by", text(r->outcome.by_host ? "host" : "guest"));
    json_put(&o, "cause", text(r->outcome.cause));
    json_put(&o, "error", error_object(&r->failure));
    json_put(&o, "exit_code",
             status && r->facts.signal == 0 ? json_integer(r->facts.exit_code)
                                            : json_null());
    json_put(&o, "signal",
             status && r->facts.signal != 0 ? json_integer(r->facts.signal)
                                            : json_null());
    json_put(&o, "limits_hit", limits_hit(r));
    json_put(&o, "truncated",
             json_pack("{s:b, s:b}", "stdout", r->out.dropped > 0, "stderr",
                       r->err.dropped > 0));
    json_put(&o, "stdout", stream_object(&r->out, &spec->out));
    json_put(&o, "stderr",
             spec->no_agent ? json_null() : stream_object(&r->err, &spec->err));
    json_put(&o, "files", files_list(r, spec));
    json_put(&o, "started_at", started_at(r->started_at));
    json_put(&o, "time", time_object(r, spec));
    json_put(&o, "peak", peak_object(r));
    json_put(&o, "limits", limits_object(spec, machine));
    json_put(&o, "command", command_list(spec));
    json_put(&o, "labels", json_object());
    json_put(&o, "baseline", baseline_object(r, spec, image));
    json_put(&o, "host", host_object());
    json_put(&o, "jail", jail_object());
    set_snapshot_fields(&o, r, spec);
    json_put(&o, "brokers", json_array());
    json_put(&o, "violations", violations_list(r));
    json_put(&o, "machine", text(spec->live ? spec->live->name : NULL));
    json_put(&o, "undelivered", undelivered_list(r));
    root = json_made(&o);
    line = json_write(root, JSON_COMPACT | JSON_PRESERVE_ORDER |
                                JSON_REAL_PRECISION(12));
    json_decref(root);
    return line;
}
