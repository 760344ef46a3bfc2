/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kicks of a machine's queues: they reach the device without the vCPU's thread,
 * and work that is too much for one round goes on by itself. Needs /dev/kvm,
 * but no host that runs Linux guests.
 *
 * One line per test; status 0 if all passed, 77 without a usable /dev/kvm.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "tests/machine_rig.h"

#define STATUS_SKIPPED 77
#define MEMORY_MIB 32u
#define DISK_BYTES ((uint64_t)16 << 20)
/* Of the guest rng_queue: requests, with a kick each, for one '.'. */
#define REQUESTS 8u
#define SIGNS 100u

/* What it has said and nobody has heard. Pre: the monitor is gone. */
static unsigned unheard(struct machine_rig *rig, char c)
{
    unsigned count = 0;
    char byte;

    while (read(rig->console, &byte, 1) == 1)
        count += byte == c;
    return count;
}

/*
 * Of each request it reads a register, which is an exit; a kick that was one,
 * too, would make it two. (The '.' adds an eighth.)
 */
static bool no_exits(struct machine_rig *rig)
{
    struct monitor_stats stats = {0};
    struct vm_config config;
    uint64_t requests;

    rig_config(&config, 1, MEMORY_MIB);
    if (!rig_config_guest(&config, "rng_queue") || !rig_build(rig, &config) ||
        !rig_start(rig) || !rig_hear(rig, '.', SIGNS) || !rig_pause(rig) ||
        !rig_count(rig, &stats) || !rig_stop(rig))
        return false;
    requests = (uint64_t)REQUESTS * (SIGNS + unheard(rig, '.'));
    if (stats.exits >= requests && stats.exits < requests * 3 / 2)
        return true;
    snprintf(rig->why, sizeof(rig->why), "%llu exits for %llu requests",
             (unsigned long long)stats.exits, (unsigned long long)requests);
    return false;
}

/* One kick for three rounds' work: all of it is done. */
static bool many_rounds(struct machine_rig *rig)
{
    struct vm_config config;
    int disk = rig_make_file("", 0);

    rig_config(&config, 1, MEMORY_MIB);
    config.disk_count = 1;
    config.disks[0] = (struct vm_disk){.id = "rounds",
                                       .mode = VM_DISK_RO,
                                       .fd = disk,
                                       .overlay_fd = -1,
                                       .layer_fd = -1};
    return ftruncate(disk, (off_t)DISK_BYTES) == 0 &&
           rig_config_guest(&config, "disk_rounds") &&
           rig_build(rig, &config) && rig_start(rig) && rig_hear(rig, '.', 3) &&
           rig_stop(rig);
}

static const struct {
    const char *name;
    bool (*run)(struct machine_rig *rig);
} tests[] = {
    {"no exit for a kick", no_exits},
    {"more than one round takes", many_rounds},
};

int main(void)
{
    static struct machine_rig rig;
    unsigned failed = 0;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return STATUS_SKIPPED;
    }
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        bool ok;

        rig =
            (struct machine_rig){.vmm = {.pid = -1, .sock = -1}, .console = -1};
        ok = tests[i].run(&rig);
        printf("%s - kicks: %s%s%s\n", ok ? "ok" : "not ok", tests[i].name,
               ok ? "" : ": ", ok ? "" : rig.why);
        fflush(stdout);
        failed += !ok;
        rig_end(&rig);
    }
    return failed > 0;
}
