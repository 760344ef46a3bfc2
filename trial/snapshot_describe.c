/* SPDX-License-Identifier: Apache-2.0 */
/* From a machine to a manifest; see the header. */
#include "trial/snapshot_describe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

static int fail_host(int error, struct failure *f)
{
    failure_set(f, "host", "snapshot", "free some memory",
                "cannot describe the machine: %s", strerror(-error));
    return error;
}

static void describe_numbers(const struct vm_config *config,
                             struct snapshot_manifest *m)
{
    m->memory_bytes = config->memory_bytes;
    m->cpus = config->cpu_count;
    m->platform = config->platform;
    memcpy(m->cmdline, config->cmdline, sizeof(m->cmdline));
    m->hide_rdrand = config->hide_rdrand;
    m->debug_exit = config->debug_exit;
    m->vsock = config->vsock;
    m->guest_cid = config->guest_cid;
}

int snapshot_image_digest(const struct image *image,
                          char ret_hex[DIGEST_HEX_SIZE])
{
    int dir = open(image->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = dir < 0 ? -1 : openat(dir, "image.json", O_RDONLY | O_CLOEXEC);
    int ret = fd < 0 ? -errno : digest_file(fd, ret_hex);

    io_close(&fd);
    io_close(&dir);
    return ret;
}

static int describe_image(const struct image *image,
                          struct snapshot_manifest *m)
{
    int ret = snapshot_image_digest(image, m->image_sha256);

    m->has_image = true;
    if (ret == 0)
        ret = snapshot_manifest_set(&m->image_name, image->name);
    if (ret == 0)
        ret = snapshot_manifest_set(&m->user, image->user);
    if (ret == 0)
        ret = snapshot_manifest_set(&m->workdir, image->workdir);
    if (ret == 0)
        ret = snapshot_manifest_set_list(&m->env,
                                         (const char *const *)image->env);
    return ret;
}

/* The same image and kernel as what the machine was restored from. */
static int describe_parent(const struct snapshot_manifest *parent,
                           struct snapshot_manifest *m)
{
    int ret = snapshot_manifest_set(&m->image_name, parent->image_name);

    m->has_image = parent->has_image;
    memcpy(m->image_sha256, parent->image_sha256, sizeof(m->image_sha256));
    memcpy(m->kernel_sha256, parent->kernel_sha256, sizeof(m->kernel_sha256));
    if (ret == 0)
        ret = snapshot_manifest_set(&m->kernel_release, parent->kernel_release);
    if (ret == 0)
        ret = snapshot_manifest_set(&m->user, parent->user);
    if (ret == 0)
        ret = snapshot_manifest_set(&m->workdir, parent->workdir);
    if (ret == 0)
        ret = snapshot_manifest_set_list(&m->env,
                                         (const char *const *)parent->env);
    return ret;
}

static int describe_origin(struct machine *machine, struct snapshot_manifest *m)
{
    int ret;

    if (machine->snapshot)
        return describe_parent(&machine->snapshot->manifest, m);
    ret = digest_file(machine->config.kernel_fd, m->kernel_sha256);
    if (ret == 0 && machine->has_image)
        ret = describe_image(&machine->image, m);
    return ret;
}

/* How many bytes of a base its digest covers; 0: all of them. */
static uint64_t base_data(const struct machine *machine, const char *id)
{
    const struct snapshot_disk *disk =
        machine->snapshot
            ? snapshot_manifest_disk(&machine->snapshot->manifest, id)
            : NULL;

    if (disk)
        return disk->data;
    return machine->has_image && !strcmp(id, IMAGE_SCRATCH_ID)
               ? machine->image.scratch_data
               : 0;
}

static int describe_disk(const struct machine *machine, uint32_t index,
                         struct snapshot_writer *writer,
                         struct snapshot_disk *ret_disk, struct failure *f)
{
    const struct vm_disk *disk = &machine->config.disks[index];

    if (disk->mode == VM_DISK_RW) {
        failure_set(f, "snapshot_disk", machine->disk_paths[index],
                    "use cow: the file is then part of the snapshot",
                    "cannot take a snapshot with the disk %s: it is rw, and "
                    "what is written to it would not be reset",
                    machine->disk_paths[index]);
        return -EINVAL;
    }
    memcpy(ret_disk->id, disk->id, sizeof(ret_disk->id));
    ret_disk->mode = disk->mode;
    ret_disk->limit = disk->overlay_limit;
    return snapshot_writer_add_base(writer, disk->id, disk->fd,
                                    base_data(machine, disk->id), ret_disk, f);
}

static int describe_disks(const struct machine *machine,
                          struct snapshot_writer *writer,
                          struct snapshot_manifest *m,
                          struct monitor_save_files *ret_files,
                          struct failure *f)
{
    int ret = 0;

    m->disk_count = machine->config.disk_count;
    for (uint32_t i = 0; ret == 0 && i < m->disk_count; i++) {
        ret = describe_disk(machine, i, writer, &m->disks[i], f);
        if (ret == 0 && m->disks[i].mode == VM_DISK_COW)
            ret = snapshot_writer_add_cow(
                writer, m->disks[i].id,
                &ret_files->disk_fds[ret_files->disk_count++], f);
    }
    return ret;
}

/* Adds to a list of strings that has room for as many as a manifest holds. */
static void add_commands(const char **list, size_t *count,
                         const char *const *commands)
{
    static const char more[] = "... and more commands";

    for (; commands && *commands; commands++) {
        if (*count < SNAPSHOT_STRINGS_MAX - 1)
            list[(*count)++] = *commands;
        else
            list[SNAPSHOT_STRINGS_MAX - 1] = more;
    }
}

int snapshot_describe_history(const struct machine *machine,
                              const struct snapshot_history *history,
                              struct snapshot_manifest *m)
{
    const struct snapshot_manifest *parent =
        machine->snapshot ? &machine->snapshot->manifest : NULL;
    const char *list[SNAPSHOT_STRINGS_MAX + 1] = {NULL};
    const char *ready = history->ready;
    size_t count = 0;
    int ret;

    if (parent && parent->has_warmup)
        add_commands(list, &count, (const char *const *)parent->warmup);
    add_commands(list, &count, history->commands);
    if (count == 0)
        return 0;
    if (!ready && parent)
        ready = parent->warmup_ready;
    m->has_warmup = true;
    m->warmup_waiting = history->waiting || (parent && parent->warmup_waiting);
    ret = snapshot_manifest_set_list(&m->warmup, list);
    return ret == 0 ? snapshot_manifest_set(&m->warmup_ready, ready) : ret;
}

int snapshot_describe(struct machine *machine,
                      const struct monitor_probe *probe,
                      struct snapshot_writer *writer,
                      struct snapshot_manifest *ret_m,
                      struct monitor_save_files *ret_files, struct failure *f)
{
    int ret;

    snapshot_manifest_init(ret_m);
    *ret_files = (struct monitor_save_files){
        .state_fd = snapshot_writer_state_fd(writer),
        .memory_fd = snapshot_writer_memory_fd(writer),
    };
    describe_numbers(&machine->config, ret_m);
    ret = snapshot_require_host(ret_m, probe);
    if (ret == 0)
        ret = describe_origin(machine, ret_m);
    if (ret != 0)
        return fail_host(ret, f);
    return describe_disks(machine, writer, ret_m, ret_files, f);
}
