/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pausing and saving at awkward moments: orders out of turn, a machine that
 * ends meanwhile, a harness that disappears, files that do not take it, large
 * memories, disks. Needs /dev/kvm, but no host that runs Linux guests.
 *
 * One line per test; status 0 if all passed, 77 without a usable /dev/kvm.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "tests/machine_rig.h"

#define STATUS_SKIPPED 77
#define MEMORY_MIB 32u

/* ---- steps ---- */

static bool boot(struct machine_rig *rig, const char *guest)
{
    struct vm_config config;

    rig_config(&config, 1, MEMORY_MIB);
    return rig_config_guest(&config, guest) && rig_build(rig, &config);
}

static bool boot_and_run(struct machine_rig *rig, const char *guest)
{
    return boot(rig, guest) && rig_start(rig) && rig_hear(rig, '.', 1);
}

static bool restore(struct machine_rig *rig, const struct rig_files *f,
                    bool track_dirty)
{
    struct vm_config config;

    rig_config(&config, 1, MEMORY_MIB);
    rig_config_files(&config, f);
    config.track_dirty = track_dirty;
    return rig_build(rig, &config);
}

/* The order ends the machine, as one that makes no sense. */
static bool is_nonsense(struct machine_rig *rig, enum monitor_msg order,
                        const int *fds, size_t fd_count)
{
    int status;

    if (rig_order(rig, order, fds, fd_count, MONITOR_STATS) ||
        rig->exit.reason != MONITOR_EXIT_HOST_ERROR ||
        rig->exit.error != -EBADMSG)
        return false;
    status = vmm_process_wait(&rig->vmm, RIG_TIMEOUT_MS);
    rig->why[0] = '\0';
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool save_to_new_files(struct machine_rig *rig)
{
    struct rig_files f;
    bool ok;

    rig_files_open(&f, 0);
    ok = rig_save(rig, &f);
    rig_files_close(&f);
    return ok;
}

/* ---- orders out of turn ---- */

static const struct {
    const char *name;
    enum monitor_msg order;
    size_t fd_count;
    enum { BUILT, RUNNING, PAUSED, RESTORED } state;
} nonsense[] = {
    {"PAUSE before START", MONITOR_PAUSE, 0, BUILT},
    {"RESUME before START", MONITOR_RESUME, 0, BUILT},
    {"SAVE before START", MONITOR_SAVE, 2, BUILT},
    {"PROVE of what was booted", MONITOR_PROVE, 2, BUILT},
    {"ROLLBACK before START", MONITOR_ROLLBACK, 0, BUILT},
    {"RESUME while running", MONITOR_RESUME, 0, RUNNING},
    {"SAVE while running", MONITOR_SAVE, 2, RUNNING},
    {"PROVE while running", MONITOR_PROVE, 2, RUNNING},
    {"ROLLBACK while running", MONITOR_ROLLBACK, 0, RUNNING},
    {"PAUSE while paused", MONITOR_PAUSE, 0, PAUSED},
    {"START while paused", MONITOR_START, 0, PAUSED},
    {"PROVE after it ran", MONITOR_PROVE, 2, PAUSED},
    {"PAUSE with a descriptor", MONITOR_PAUSE, 1, RUNNING},
    {"RESUME with a descriptor", MONITOR_RESUME, 1, PAUSED},
    {"PROVE with one file", MONITOR_PROVE, 1, RESTORED},
    {"PROVE with three files", MONITOR_PROVE, 3, RESTORED},
    {"ROLLBACK before it ran", MONITOR_ROLLBACK, 0, RESTORED},
};

static bool out_of_turn(struct machine_rig *rig, size_t i)
{
    int fds[3];
    bool ok = true;

    for (size_t n = 0; n < ARRAY_SIZE(fds); n++)
        fds[n] = rig_make_file("", 0);
    if (nonsense[i].state == RESTORED) {
        struct rig_files f;

        rig_files_open(&f, 0);
        ok = boot_and_run(rig, "tick") && rig_pause(rig) && rig_save(rig, &f);
        rig_end(rig);
        ok = ok && restore(rig, &f, true);
        rig_files_close(&f);
    } else {
        ok = boot(rig, "tick");
        if (ok && nonsense[i].state != BUILT)
            ok = rig_start(rig);
        if (ok && nonsense[i].state == PAUSED)
            ok = rig_pause(rig);
    }
    ok = ok && is_nonsense(rig, nonsense[i].order, fds, nonsense[i].fd_count);
    for (size_t n = 0; n < ARRAY_SIZE(fds); n++)
        io_close(&fds[n]);
    return ok;
}

/* ---- while it is paused ---- */

/* The guest stands still: it prints nothing, and no CPU time passes. */
static bool stands_still(struct machine_rig *rig)
{
    struct monitor_stats before, after;

    if (!boot_and_run(rig, "tick") || !rig_pause(rig) ||
        !rig_order(rig, MONITOR_STATS_REQUEST, NULL, 0, MONITOR_STATS) ||
        monitor_stats_decode(rig->msg.payload, rig->msg.len, &before) < 0)
        return false;
    usleep(50000);
    if (!rig_order(rig, MONITOR_STATS_REQUEST, NULL, 0, MONITOR_STATS) ||
        monitor_stats_decode(rig->msg.payload, rig->msg.len, &after) < 0)
        return false;
    if (before.exits != after.exits ||
        before.console_bytes != after.console_bytes)
        return false;
    /* More than it can have printed before. */
    return rig_resume(rig) &&
           rig_hear(rig, '.', (unsigned)before.console_bytes + 1) &&
           rig_stop(rig);
}

static bool stop_while_paused(struct machine_rig *rig)
{
    return boot_and_run(rig, "tick") && rig_pause(rig) && rig_stop(rig);
}

/* Interrupts for nothing are kept from a machine that stands still. */
static bool nudges_while_paused(struct machine_rig *rig)
{
    struct rig_files f;
    bool ok;

    rig_files_open(&f, 0);
    ok = boot_and_run(rig, "tick") && rig_pause(rig) && rig_save(rig, &f);
    rig_end(rig);
    ok = ok && restore(rig, &f, false) &&
         vmm_process_send(&rig->vmm, MONITOR_NUDGE) == 0 &&
         rig_proof_holds(rig, &f) && rig_start(rig) && rig_hear(rig, '.', 1) &&
         rig_stop(rig);
    rig_files_close(&f);
    return ok;
}

static bool harness_gone_while_paused(struct machine_rig *rig)
{
    int status;

    if (!boot_and_run(rig, "tick") || !rig_pause(rig))
        return false;
    io_close(&rig->vmm.sock);
    status = vmm_process_wait(&rig->vmm, RIG_TIMEOUT_MS);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/*
 * A guest that ends at any moment around the pause: one answer, PAUSED or EXIT.
 * If it was paused first, it ends when it goes on.
 */
static bool ends_meanwhile(struct machine_rig *rig)
{
    unsigned paused = 0;

    for (unsigned i = 0; i < 60; i++) {
        if (!boot(rig, "hello") || !rig_start(rig))
            return false;
        usleep(i * 50);
        if (rig_pause(rig)) {
            paused++;
            if (rig_resume(rig))
                (void)rig_hear(rig, 'Y', 1); /* never: until its end */
        }
        if (rig->exit.reason != MONITOR_EXIT_POWER_OFF)
            return false;
        rig_end(rig);
    }
    rig->why[0] = '\0';
    return paused > 0;
}

/* ---- files that do not take it ---- */

/* As large as files may get is too small: said so, and the guest goes on. */
static bool no_room(struct machine_rig *rig)
{
    const struct rlimit little = {.rlim_cur = 64 * KIB, .rlim_max = 64 * KIB};
    struct rig_files f;
    bool ok = boot_and_run(rig, "tick") && rig_pause(rig) &&
              prlimit(rig->vmm.pid, RLIMIT_FSIZE, &little, NULL) == 0;

    rig_files_open(&f, 0);
    ok = ok && !rig_save(rig, &f) && rig->error.code == MONITOR_ERROR_STATE &&
         rig->error.error == -EFBIG &&
         strstr(rig->error.text, "memory cannot be written");
    rig_files_close(&f);
    if (ok)
        rig->why[0] = '\0';
    return ok && rig_resume(rig) && rig_hear(rig, '.', 2) && rig_stop(rig);
}

/* Files that are not empty, are none, or are too few. */
static bool wrong_files(struct machine_rig *rig)
{
    struct rig_files f;
    bool ok = boot_and_run(rig, "tick") && rig_pause(rig);

    rig_files_open(&f, 0);
    ok = ok && rig_save(rig, &f) && !rig_save(rig, &f) &&
         rig->error.error == -EINVAL;
    io_close(&f.state);
    f.state = open("/dev/null", O_RDWR | O_CLOEXEC);
    ok = ok && !rig_save(rig, &f) && rig->error.error == -EINVAL;
    rig_files_close(&f);
    rig_files_open(&f, 1); /* there is no disk for it */
    ok = ok && !rig_save(rig, &f) && rig->error.error == -EBADMSG;
    rig_files_close(&f);
    rig->why[0] = '\0';
    return ok && save_to_new_files(rig) && rig_stop(rig);
}

static bool not_trackable(struct machine_rig *rig)
{
    bool ok = boot_and_run(rig, "tick") && rig_pause(rig) &&
              !rig_roll_back(rig) && rig->error.error == -EINVAL;

    rig->why[0] = '\0';
    return ok && rig_resume(rig) && rig_hear(rig, '.', 1) && rig_stop(rig);
}

/* ---- sizes ---- */

static uint64_t blocks_of(int fd)
{
    struct stat st;

    return fstat(fd, &st) < 0 ? UINT64_MAX : (uint64_t)st.st_blocks * 512;
}

/* RAM on both sides of the hole, nearly all of it untouched: the file has as
 * much as the guest used, also when a restored machine is saved. */
static bool large_and_sparse(struct machine_rig *rig)
{
    const uint64_t mib = 6144;
    struct rig_files f, again;
    struct vm_config config;
    uint64_t first;
    bool ok;

    rig_files_open(&f, 0);
    rig_files_open(&again, 0);
    rig_config(&config, 1, mib);
    ok = rig_config_guest(&config, "tick") && rig_build(rig, &config) &&
         rig_start(rig) && rig_hear(rig, '.', 1) && rig_pause(rig) &&
         rig_save(rig, &f) && rig_stop(rig);
    first = rig->saved.pages;
    ok = ok && first > 0 && first < 100 && blocks_of(f.memory) < 2 * MIB;
    rig_end(rig);
    rig_config(&config, 1, mib);
    rig_config_files(&config, &f);
    ok = ok && rig_build(rig, &config) && rig_start(rig) &&
         rig_hear(rig, '.', 1) && rig_pause(rig) && rig_save(rig, &again) &&
         rig_stop(rig);
    ok = ok && rig->saved.pages == first && blocks_of(again.memory) < 2 * MIB;
    rig_files_close(&f);
    rig_files_close(&again);
    return ok;
}

/* Layers and overlays of disks: saved in the order of the cow disks. */
static bool config_disks(struct vm_config *config)
{
    static const enum vm_disk_mode modes[] = {VM_DISK_RO, VM_DISK_COW,
                                              VM_DISK_COW};
    static char bytes[64 * KIB];

    config->disk_count = ARRAY_SIZE(modes);
    for (unsigned i = 0; i < config->disk_count; i++) {
        struct vm_disk *disk = &config->disks[i];

        disk->mode = modes[i];
        disk->fd = rig_make_file(bytes, sizeof(bytes));
        if (disk->mode == VM_DISK_COW)
            disk->overlay_fd = rig_make_file("", 0);
        snprintf(disk->id, sizeof(disk->id), "disk%u", i);
    }
    return config->disks[2].fd >= 0;
}

static bool disks(struct machine_rig *rig)
{
    struct rig_files f;
    struct vm_config config;
    bool ok;

    rig_files_open(&f, 2);
    rig_config(&config, 1, MEMORY_MIB);
    ok = rig_config_guest(&config, "tick") && config_disks(&config) &&
         rig_build(rig, &config) && rig_start(rig) && rig_hear(rig, '.', 1) &&
         rig_pause(rig) && rig_save(rig, &f) && rig->saved.clusters == 0 &&
         rig_stop(rig);
    rig_end(rig);
    rig_config(&config, 1, MEMORY_MIB);
    ok = ok && config_disks(&config);
    config.state_fd = dup(f.state);
    config.memory_fd = dup(f.memory);
    config.disks[1].layer_fd = dup(f.disks[0]);
    config.disks[2].layer_fd = dup(f.disks[1]);
    ok = ok && rig_build(rig, &config) && rig_proof_holds(rig, &f) &&
         rig_start(rig) && rig_hear(rig, '.', 1) && rig_stop(rig);
    rig_end(rig);
    /* A layer that is none. */
    rig_config(&config, 1, MEMORY_MIB);
    ok = ok && config_disks(&config);
    config.state_fd = dup(f.state);
    config.memory_fd = dup(f.memory);
    config.disks[2].layer_fd = rig_make_file("not a layer", 11);
    ok = ok &&
         rig_refused(rig, &config, MONITOR_ERROR_DISK,
                     "snapshot's part of it is malformed") &&
         rig->error.disk == 2;
    rig_files_close(&f);
    return ok;
}

static const struct {
    const char *name;
    bool (*run)(struct machine_rig *rig);
} tests[] = {
    {"it stands still", stands_still},
    {"STOP while paused", stop_while_paused},
    {"nudges while it stands still", nudges_while_paused},
    {"harness gone while paused", harness_gone_while_paused},
    {"a guest that ends meanwhile", ends_meanwhile},
    {"no room", no_room},
    {"wrong files", wrong_files},
    {"a machine that cannot be put back", not_trackable},
    {"6 GiB, sparse", large_and_sparse},
    {"disks", disks},
};

static bool report(const char *name, bool ok, struct machine_rig *rig)
{
    printf("%s - pause: %s%s%s\n", ok ? "ok" : "not ok", name, ok ? "" : ": ",
           ok ? "" : rig->why);
    fflush(stdout);
    rig_end(rig);
    *rig = (struct machine_rig){.vmm = {.pid = -1, .sock = -1}, .console = -1};
    return ok;
}

int main(void)
{
    static struct machine_rig rig = {.vmm = {.pid = -1, .sock = -1},
                                     .console = -1};
    unsigned failed = 0;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return STATUS_SKIPPED;
    }
    for (size_t i = 0; i < ARRAY_SIZE(nonsense); i++)
        failed += !report(nonsense[i].name, out_of_turn(&rig, i), &rig);
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
        failed += !report(tests[i].name, tests[i].run(&rig), &rig);
    return failed > 0;
}
