/* SPDX-License-Identifier: Apache-2.0 */
/* What a snapshot may ask of this host; see the header. */
#include "trial/snapshot_limits.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "base/units.h"
#include "trial/snapshot_internal.h"

/* ---- what was made here ------------------------------------------------- */

/* CACHE/made/ID, an empty file; the caller frees; or NULL. */
static char *made_path(const char *id, char **ret_folder)
{
    char *folder = snapshot_cache_dir("made");
    char *path = NULL;

    if (folder && asprintf(&path, "%s/%s", folder, id) < 0)
        path = NULL;
    *ret_folder = folder;
    return path;
}

void snapshot_made_leave(const char *id)
{
    char *folder = NULL;
    char *path = made_path(id, &folder);
    int fd = -1;

    if (path) {
        snapshot_make_folders(folder);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    }
    io_close(&fd);
    free(path);
    free(folder);
}

bool snapshot_made_here(const char *id)
{
    char *folder = NULL;
    char *path = made_path(id, &folder);
    struct stat st;
    bool made = path && lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
                st.st_uid == geteuid();

    free(path);
    free(folder);
    return made;
}

/* ---- this host ---------------------------------------------------------- */

static uint64_t host_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long size = sysconf(_SC_PAGESIZE);

    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

static uint64_t host_cpus(void)
{
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        return (uint64_t)CPU_COUNT(&set);
    return online > 0 ? (uint64_t)online : 1;
}

/* ---- what is asked for -------------------------------------------------- */

static int refuse_memory(uint64_t asked, uint64_t max, const char *dir,
                         bool given, struct failure *f)
{
    char want[32], have[32], remedy[128];

    units_format_size(asked, want, sizeof(want));
    units_format_size(max, have, sizeof(have));
    snprintf(remedy, sizeof(remedy),
             "give -m %" PRIu64 "M, if this host is to give it so much",
             num_align_up(asked, 1 << 20) >> 20);
    failure_set(f, "snapshot_limit", dir, remedy,
                "the snapshot %s asks for %s of memory, and %s is the most it "
                "may have: %s",
                dir, want, have,
                given ? "that is what -m allows"
                      : "half of this host's, because it was not made here");
    return -EPERM;
}

static int refuse_cpus(uint32_t asked, uint64_t max, const char *dir,
                       bool given, struct failure *f)
{
    char remedy[128];

    snprintf(remedy, sizeof(remedy),
             "give --cpus %u, if this host is to give it so many", asked);
    failure_set(f, "snapshot_limit", dir, remedy,
                "the snapshot %s asks for %u CPUs, and %" PRIu64
                " is the most it may have: %s",
                dir, asked, max,
                given ? "that is what --cpus allows"
                      : "that is what this host has, and it was not made here");
    return -EPERM;
}

int snapshot_limits_check(const struct snapshot_manifest *m, const char *id,
                          const char *dir, const struct machine_spec *spec,
                          struct failure *f)
{
    uint64_t memory =
        spec->memory_allowed ? spec->memory_allowed : host_memory() / 2;
    uint64_t cpus = spec->cpus_allowed ? spec->cpus_allowed : host_cpus();
    bool is_more = m->memory_bytes > memory || m->cpus > cpus;
    bool made = is_more && snapshot_made_here(id);

    if (m->agent && m->debug_exit) {
        failure_set(f, "snapshot_limit", dir,
                    "make it anew; microsbx makes none like that",
                    "the snapshot %s asks for the debug-exit port, by which a "
                    "guest without an agent ends its trial, and has an agent",
                    dir);
        return -EPERM;
    }
    if (m->memory_bytes > memory && (spec->memory_allowed || !made))
        return refuse_memory(m->memory_bytes, memory, dir,
                             spec->memory_allowed != 0, f);
    if (m->cpus > cpus && (spec->cpus_allowed || !made))
        return refuse_cpus(m->cpus, cpus, dir, spec->cpus_allowed != 0, f);
    return 0;
}

uint64_t snapshot_limits_disk(uint64_t asked, const char *id,
                              const struct machine_spec *spec, bool *lowered)
{
    if (spec->disk_limit != 0)
        return spec->disk_limit;
    if (asked != 0 &&
        (asked <= MACHINE_DISK_LIMIT_DEFAULT || snapshot_made_here(id)))
        return asked;
    *lowered = true;
    return MACHINE_DISK_LIMIT_DEFAULT;
}
