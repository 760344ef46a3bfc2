/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scripted guest at work on its disk, interrupted in every way: its memory
 * and its disk end as those of the run that was never interrupted. Needs
 * /dev/kvm, but no host that runs Linux guests.
 *
 * The guest takes a step for each character that it is sent: see disk_script in
 * tests/vm/bare/snapshot.S. One line per test; status 0 if all passed, 77
 * without a usable /dev/kvm.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "devices/blk/cow_overlay.h"
#include "tests/machine_rig.h"

#define STATUS_SKIPPED 77
#define MEMORY_MIB 32u
#define DISK_BYTES ((uint64_t)4 << 20)
#define STEPS 40u /* of the guest */
/* Drawn for each machine that is booted, and no part of the script's outcome.
 */
#define GENERATION_ID 0xef000 /* vmm/x86/map.h */
#define GENERATION_ID_SIZE 16

/* One run of the guest, in one machine or in many. */
struct script {
    struct machine_rig rig;
    int input[2]; /* the console's, in all its machines */
    int base;     /* the disk, never written */
    struct rig_files end;
    unsigned restores;
};

/* The run without interruption. */
static struct rig_files whole;

/* ---- steps ---- */

static bool script_begin(struct script *s)
{
    *s = (struct script){
        .rig = {.vmm = {.pid = -1, .sock = -1}, .console = -1},
        .input = {-1, -1},
        .base = rig_make_file("", 0),
    };
    rig_files_open(&s->end, 1);
    for (uint64_t at = 0; at < DISK_BYTES; at += 512)
        if (io_pwrite_full(s->base, &at, sizeof(at), at) < 0)
            return false;
    return ftruncate(s->base, (off_t)DISK_BYTES) == 0 &&
           pipe2(s->input, O_CLOEXEC) == 0;
}

static void script_end(struct script *s)
{
    rig_end(&s->rig);
    rig_files_close(&s->end);
    io_close(&s->input[0]);
    io_close(&s->input[1]);
    io_close(&s->base);
}

static void config_machine(const struct script *s, struct vm_config *config)
{
    rig_config(config, 1, MEMORY_MIB);
    config->console_in_fd = dup(s->input[0]);
    config->disk_count = 1;
    config->disks[0] = (struct vm_disk){.id = "script",
                                        .mode = VM_DISK_COW,
                                        .fd = dup(s->base),
                                        .overlay_fd = rig_make_file("", 0),
                                        .layer_fd = -1};
}

static bool boot(struct script *s)
{
    struct vm_config config;

    config_machine(s, &config);
    return rig_config_guest(&config, "disk_script") &&
           rig_build(&s->rig, &config) && rig_start(&s->rig);
}

/* From these files; overlay: a file to be its private one, or -1. */
static bool restore(struct script *s, const struct rig_files *f, int overlay)
{
    struct vm_config config;

    config_machine(s, &config);
    rig_config_files(&config, f);
    config.track_dirty = true;
    if (overlay >= 0) {
        io_close(&config.disks[0].overlay_fd);
        config.disks[0].overlay_fd = overlay;
    }
    s->restores++;
    return rig_build(&s->rig, &config);
}

/* Pauses and saves, and ends the machine. *ret_heard: how often it had said c
 * by then, unheard. */
static bool freeze(struct script *s, struct rig_files *f, char c,
                   unsigned *ret_heard)
{
    char byte;

    rig_files_open(f, 1);
    if (!rig_pause(&s->rig) || !rig_save(&s->rig, f) || !rig_stop(&s->rig))
        return false;
    *ret_heard = 0;
    while (read(s->rig.console, &byte, 1) == 1)
        *ret_heard += byte == c;
    rig_end(&s->rig);
    return true;
}

static bool send_step(const struct script *s)
{
    return write(s->input[1], "s", 1) == 1;
}

static bool step(struct script *s)
{
    return send_step(s) && rig_hear(&s->rig, '.', 1);
}

static bool steps(struct script *s, unsigned count)
{
    while (count > 0 && step(s))
        count--;
    return count == 0;
}

/* Another machine goes on with what this one does. */
static bool move(struct script *s, unsigned *ret_heard)
{
    struct rig_files f;
    bool ok = freeze(s, &f, '.', ret_heard) && restore(s, &f, -1) &&
              rig_proof_holds(&s->rig, &f) && rig_start(&s->rig);

    rig_files_close(&f);
    return ok;
}

/* The script is over: what is in memory and on the disk, into s->end. */
static bool finish(struct script *s)
{
    static const uint8_t none[GENERATION_ID_SIZE];

    return rig_hear(&s->rig, '#', 1) && rig_pause(&s->rig) &&
           rig_save(&s->rig, &s->end) && rig_stop(&s->rig) &&
           io_pwrite_full(s->end.memory, none, sizeof(none), GENERATION_ID) ==
               0;
}

/* ---- comparing ---- */

static bool differs(struct script *s, const char *what, size_t at)
{
    snprintf(s->rig.why, sizeof(s->rig.why),
             "the %s differs from the uninterrupted run's at 0x%zx", what, at);
    return false;
}

static bool same_file(struct script *s, const char *what, int a_fd, int b_fd)
{
    size_t a_len = 0, b_len = 0, at = 0;
    uint8_t *a = rig_read_file(a_fd, &a_len), *b = rig_read_file(b_fd, &b_len);
    bool same = a && b && a_len == b_len && a_len > 0;

    while (same && at < a_len && a[at] == b[at])
        at++;
    same = same && at == a_len;
    free(a);
    free(b);
    return same || differs(s, what, at);
}

static bool ends_the_same(struct script *s)
{
    return finish(s) && same_file(s, "memory", s->end.memory, whole.memory) &&
           same_file(s, "disk", s->end.disks[0], whole.disks[0]);
}

/* ---- tests ---- */

static bool uninterrupted(struct script *s)
{
    return boot(s) && steps(s, STEPS) && ends_the_same(s);
}

/* The comparison finds a run that took another course. */
static bool other_course(struct script *s)
{
    bool same = io_pwrite_full(s->base, "other", 5, 512) == 0 && boot(s) &&
                steps(s, STEPS) && ends_the_same(s);

    if (same || !strstr(s->rig.why, "differs"))
        return false;
    s->rig.why[0] = '\0';
    return true;
}

/* In another machine for every step. */
static bool between_steps(struct script *s)
{
    unsigned heard;
    bool ok = boot(s);

    for (unsigned i = 0; ok && i + 1 < STEPS; i++)
        ok = step(s) && move(s, &heard);
    return ok && step(s) && ends_the_same(s) && s->restores == STEPS - 1;
}

/* The same while each step is under way. */
static bool within_steps(struct script *s)
{
    bool ok = boot(s);

    srandom(1);
    for (unsigned i = 0; ok && i + 1 < STEPS; i++) {
        unsigned heard = 0;

        ok = send_step(s);
        usleep((useconds_t)(random() % 400));
        ok = ok && move(s, &heard) && (heard == 1 || rig_hear(&s->rig, '.', 1));
    }
    return ok && step(s) && ends_the_same(s);
}

/* Rolled back from anywhere, it starts from the same state again. */
static bool rolled_back(struct script *s)
{
    struct rig_files f;
    unsigned heard;
    bool ok = boot(s) && steps(s, STEPS / 2) && freeze(s, &f, '.', &heard) &&
              restore(s, &f, -1) && rig_proof_holds(&s->rig, &f) &&
              rig_start(&s->rig);

    for (unsigned i = 0; ok && i < 10; i++)
        ok = steps(s, 1 + i) && rig_pause(&s->rig) && rig_roll_back(&s->rig) &&
             rig_proof_holds(&s->rig, &f) && rig_resume(&s->rig);
    ok = ok && steps(s, STEPS / 2) && ends_the_same(s);
    rig_files_close(&f);
    return ok;
}

/* A private overlay in which one byte of the disk was changed. */
static int changed_overlay(const struct script *s, uint64_t at)
{
    const struct iovec byte = {.iov_base = (char[]){'x'}, .iov_len = 1};
    const struct cow_overlay_options options = {.durable = true};
    int fd = rig_make_file("", 0);
    struct block_backend *base, *overlay = NULL;
    int ret = block_raw_new(dup(s->base), true, &base);

    if (ret == 0)
        ret = cow_overlay_open(base, dup(fd), &options, &overlay);
    if (ret == 0)
        ret = overlay->ops->pwritev(overlay, &byte, 1, at, 1);
    if (ret == 0)
        ret = overlay->ops->flush(overlay);
    if (overlay)
        overlay->ops->free(overlay);
    if (ret < 0)
        io_close(&fd);
    return fd;
}

/* The proof says so, and where; rolled back, the overlay is empty. */
static bool overlay_changed(struct script *s)
{
    const uint64_t at = 3 * (uint64_t)COW_CLUSTER_SIZE;
    struct rig_files f;
    unsigned heard;
    bool ok = boot(s) && steps(s, 3) && freeze(s, &f, '.', &heard) &&
              restore(s, &f, changed_overlay(s, at + 77));

    if (ok && rig_proof_holds(&s->rig, &f))
        ok = false;
    ok = ok && s->rig.proved.disk_count == 1 &&
         s->rig.proved.disks[0].clusters == 1 &&
         s->rig.proved.disks[0].first == at;
    s->rig.why[0] = '\0';
    ok = ok && rig_start(&s->rig) && rig_pause(&s->rig) &&
         rig_roll_back(&s->rig) && rig_proof_holds(&s->rig, &f) &&
         rig_stop(&s->rig);
    rig_files_close(&f);
    return ok;
}

static const struct {
    const char *name;
    bool (*run)(struct script *s);
} tests[] = {
    {"the same again", uninterrupted},
    {"another course is found", other_course},
    {"restored between all steps", between_steps},
    {"restored within all steps", within_steps},
    {"rolled back ten times", rolled_back},
    {"proof: a byte of the overlay", overlay_changed},
};

static bool run_test(const char *name, bool (*run)(struct script *s))
{
    struct script s;
    bool ok = script_begin(&s) && run(&s);

    printf("%s - disk: %s%s%s\n", ok ? "ok" : "not ok", name, ok ? "" : ": ",
           ok ? "" : s.rig.why);
    fflush(stdout);
    script_end(&s);
    return ok;
}

static bool run_whole(void)
{
    struct script s;
    bool ok = script_begin(&s) && boot(&s) && steps(&s, STEPS) && finish(&s);

    if (ok) {
        whole = s.end;
        rig_files_open(&s.end, 0);
    } else {
        printf("not ok - disk: the uninterrupted run: %s\n", s.rig.why);
    }
    script_end(&s);
    return ok;
}

int main(void)
{
    unsigned failed = 0;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return STATUS_SKIPPED;
    }
    if (!run_whole())
        return 1;
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
        failed += !run_test(tests[i].name, tests[i].run);
    rig_files_close(&whole);
    return failed > 0;
}
