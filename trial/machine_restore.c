/* SPDX-License-Identifier: Apache-2.0 */
/* A machine from a snapshot: see machine_spec.h and snapshot.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "trial/kvm_open.h"
#include "trial/machine_parts.h"
#include "trial/snapshot.h"
#include "trial/snapshot_limits.h"

static int fail_host(int error, struct failure *f)
{
    failure_set(f, "host", "descriptors", failure_remedy(error, NULL),
                "cannot prepare the machine: %s", strerror(-error));
    return error;
}

/* A copy for the monitor; the snapshot keeps its own. */
static int copy_fd(int fd, int *ret_fd, struct failure *f)
{
    *ret_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return *ret_fd < 0 ? fail_host(-errno, f) : 0;
}

static int restore_disk(struct machine *m, const struct machine_spec *spec,
                        uint32_t index, struct failure *f)
{
    const struct snapshot_disk *disk = &m->snapshot->manifest.disks[index];
    const struct snapshot_open_disk *files = &m->snapshot->disks[index];
    struct vm_disk *ret = &m->config.disks[index];
    int error;

    m->config.disk_count = index + 1;
    ret->mode = disk->mode;
    memcpy(ret->id, disk->id, sizeof(ret->id));
    error = copy_fd(files->base_fd, &ret->fd, f);
    if (error == 0 && disk->mode == VM_DISK_COW) {
        ret->overlay_limit = snapshot_limits_disk(disk->limit, m->snapshot->id,
                                                  spec, &m->disk_lowered);
        error = copy_fd(files->cow_fd, &ret->layer_fd, f);
        if (error == 0)
            error = machine_open_overlay(spec->overlay_in_memory,
                                         &ret->overlay_fd, f);
    }
    m->disk_paths[index] = strdup(files->replaced ? files->replaced : disk->id);
    if (error == 0 && !m->disk_paths[index])
        error = fail_host(-ENOMEM, f);
    return error;
}

static void restore_numbers(struct machine *m)
{
    const struct snapshot_manifest *manifest = &m->snapshot->manifest;
    struct vm_config *config = &m->config;

    config->memory_bytes = manifest->memory_bytes;
    config->cpu_count = manifest->cpus;
    config->platform = manifest->platform;
    memcpy(config->cmdline, manifest->cmdline, sizeof(config->cmdline));
    config->hide_rdrand = manifest->hide_rdrand;
    config->debug_exit = manifest->debug_exit;
    config->vsock = manifest->vsock;
    config->vsock_dial = manifest->vsock;
    config->guest_cid = manifest->guest_cid;
    m->guest_cid = manifest->guest_cid;
}

static int restore_vsock(struct machine *m, const char *path, struct failure *f)
{
    if (m->config.vsock)
        return machine_open_vsock(m, path, f);
    failure_set(f, "usage", "vsock", "leave --vsock out",
                "the machine of the snapshot %s has no vsock device",
                m->snapshot->dir);
    return -EINVAL;
}

int machine_restore(const struct machine_spec *spec,
                    const struct snapshot *snapshot,
                    struct machine *ret_machine, struct failure *f)
{
    struct machine *m = ret_machine;
    int ret;

    memset(m, 0, sizeof(*m));
    vm_config_init(&m->config);
    m->snapshot = snapshot;
    restore_numbers(m);
    m->config.cpu_compared = spec->cpu_compared;
    ret = snapshot_limits_check(&snapshot->manifest, snapshot->id,
                                snapshot->dir, spec, f);
    /* What messages call the thing that runs. */
    m->kernel_path = strdup(snapshot->dir);
    if (ret == 0 && !m->kernel_path)
        ret = fail_host(-ENOMEM, f);
    if (ret == 0)
        ret = copy_fd(snapshot->state_fd, &m->config.state_fd, f);
    if (ret == 0)
        ret = copy_fd(snapshot->memory_fd, &m->config.memory_fd, f);
    for (uint32_t i = 0; ret == 0 && i < snapshot->manifest.disk_count; i++)
        ret = restore_disk(m, spec, i, f);
    if (ret == 0 && spec->vsock_path)
        ret = restore_vsock(m, spec->vsock_path, f);
    if (ret == 0)
        ret = kvm_open(&m->config.kvm_fd, f);
    if (ret != 0)
        machine_close(m);
    return ret;
}
