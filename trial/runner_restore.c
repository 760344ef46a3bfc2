/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine from a snapshot, before its trial: proven if asked for, then told
 * that it is one. The agent's acknowledgement is what makes it a trial of its
 * own: without one, fail closed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/digest.h"
#include "base/io.h"
#include "trial/keeper_runner.h"
#include "trial/runner.h"

#define SEED_SIZE 32u

int runner_prove(struct runner *r)
{
    const struct trial_restore *restore = r->spec->restore;

    if (!restore || !restore->prove)
        return 0;
    return proof_make(r->monitor, restore->snapshot, &r->result->proof,
                      &r->result->failure);
}

static int64_t wall_clock_ns(void)
{
    struct timespec now = {0};

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Fills with fresh random bytes, or fails the trial. */
static bool draw(struct runner *r, void *bytes, size_t len)
{
    if (getrandom(bytes, len, 0) == (ssize_t)len)
        return true;
    runner_fail(r, "host", "getrandom", NULL, "cannot draw random bytes: %s",
                strerror(errno));
    return false;
}

void runner_begin_restore(struct runner *r)
{
    const struct trial_restore *restore = r->spec->restore;
    struct proto_restore request = {
        .flags = restore->pinned ? PROTO_RESTORE_PINNED : PROTO_RESTORE_FRESH,
        .realtime_ns = restore->pinned ? restore->clock_ns : wall_clock_ns(),
        .seed = restore->pinned ? restore->seed : 0,
    };
    int ret;

    if (r->scratch_limit > 0) {
        request.flags |= PROTO_RESTORE_LIMIT;
        request.scratch_limit = r->scratch_limit;
    }
    if (!restore->pinned && !draw(r, request.entropy, sizeof(request.entropy)))
        return;
    runner_enter_phase(r, RUNNER_RESTORE, "restore");
    ret = agent_client_restore(r->client, &request);
    if (ret != 0)
        runner_fail(r, "not_acknowledged", restore->snapshot->dir,
                    "make the snapshot anew with this version",
                    "cannot tell the guest that it was restored: %s",
                    strerror(-ret));
}

void runner_on_restored(void *arg, const struct proto_restored *restored)
{
    static const char *const STEPS[PROTO_STEP_LAST + 1] = {
        [PROTO_STEP_NONE] = "nothing",
        [PROTO_STEP_STATE] = "being told so",
        [PROTO_STEP_RANDOM] = "re-keying its random generator",
        [PROTO_STEP_CLOCK] = "setting its clock",
        [PROTO_STEP_BOOT_ID] = "taking a new boot id",
        [PROTO_STEP_HOSTNAME] = "taking a new host name",
        [PROTO_STEP_DISK] = "limiting its scratch disk",
    };
    struct runner *r = arg;

    if (r->phase != RUNNER_RESTORE) {
        keeper_on_restored(r->spec->keeper, restored);
        return;
    }
    if (restored->err != 0) {
        runner_fail(r, "not_acknowledged", r->spec->restore->snapshot->dir,
                    "use an image built by this version",
                    "the guest could not become a machine of its own: it "
                    "failed at %s: %s",
                    restored->step <= PROTO_STEP_LAST ? STEPS[restored->step]
                                                      : "an unknown step",
                    strerror((int)restored->err));
        return;
    }
    r->result->ready_ns = io_now_ns();
    runner_event(r, "restored", NULL);
    runner_next_step(r);
}

/* ---- the process that waits in the snapshot ---- */

/* Fresh bytes, or those that the seed stands for. */
static bool make_seed(struct runner *r, char ret_hex[DIGEST_HEX_SIZE])
{
    const struct trial_restore *restore = r->spec->restore;
    uint8_t fresh[SEED_SIZE];
    char text[64];
    struct digest *d = digest_new();
    int n = snprintf(text, sizeof(text), "microsbx input seed %llu",
                     (unsigned long long)restore->seed);

    if (!d) {
        runner_fail(r, "host", "memory", NULL, "out of memory");
        return false;
    }
    if (restore->pinned)
        digest_update(d, text, (size_t)n);
    else if (draw(r, fresh, sizeof(fresh)))
        digest_update(d, fresh, sizeof(fresh));
    digest_hex(d, ret_hex);
    digest_free(d);
    return r->phase != RUNNER_OVER;
}

int runner_attach(struct runner *r)
{
    const struct agent_attach_request request = {
        .pids_max = r->spec->pids_limit,
        .pids_note = r->spec->pids_notes,
        .disk_ends = r->spec->disk_ends,
    };
    char seed[DIGEST_HEX_SIZE];

    if (!make_seed(r, seed))
        return 0; /* it has failed, and said why */
    snprintf(r->seed_line, sizeof(r->seed_line), "{\"seed\":\"%s\"}\n", seed);
    return agent_client_attach(r->client, &request, &r->exec_id);
}

void runner_begin_input(struct runner *r)
{
    size_t len = strlen(r->seed_line);

    if (len == 0)
        return;
    /* A window begins with room for it; a process that has ended meanwhile
     * takes nothing, and nobody misses it. */
    (void)!agent_client_stdin_write(r->client, r->exec_id, r->seed_line, len);
    r->seed_line[0] = '\0';
    if (r->spec->stdin_fd >= 0)
        return;
    agent_client_stdin_close(r->client, r->exec_id);
    r->stdin_open = false;
}

/* ---- afterwards ---- */

/* Whether the trial outlived the time for which pinning holds. */
static void check_window(struct runner *r)
{
    const struct snapshot_manifest *m = &r->spec->restore->snapshot->manifest;
    const struct trial_result *result = r->result;
    uint64_t end = result->exec_end_ns ? result->exec_end_ns : io_now_ns();

    r->result->pin_expired = result->running_ns != 0 &&
                             end - result->running_ns > m->window_ms * 1000000u;
}

void runner_check_snapshot(struct runner *r)
{
    const struct trial_restore *restore = r->spec->restore;
    struct failure f = {0};

    if (!restore)
        return;
    if (restore->pinned)
        check_window(r);
    if (snapshot_unchanged(restore->snapshot, &f) == 0)
        return;
    /* Whatever failed before: this puts all of it in doubt. */
    r->result->failure = f;
    r->facts->host_failed = true;
    r->facts->cause = r->result->failure.code;
}
