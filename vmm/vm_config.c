/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's description as bytes and descriptors; see the header.
 *
 * In the payload a descriptor is one byte, present or not; the descriptors
 * themselves travel beside it in the same order. Both directions walk
 * descriptor_slots(), so that the order is written down once.
 */
#include "vmm/vm_config.h"

#include <errno.h>
#include <string.h>

#include "base/codec.h"
#include "base/io.h"
#include "base/msg.h"
#include "base/num.h"

/* First word of the payload: harness and monitor are of the same release. */
#define CONFIG_VERSION 2u

#define GUEST_CID_MIN 3u
#define GUEST_CID_MAX                                                          \
    0xfffffffeu /* VirtIO 1.2, 5.10.4: the rest is reserved                    \
                 */

/* Descriptors of a config: seven of the machine, a socket, three per disk. */
#define SLOTS_MAX (8u + 3u * VM_DISKS_MAX)

_Static_assert(SLOTS_MAX <= MSG_FDS_MAX, "all descriptors fit one message");

void vm_config_init(struct vm_config *config)
{
    *config = (struct vm_config){
        .kvm_fd = -1,
        .kernel_fd = -1,
        .initrd_fd = -1,
        .console_in_fd = -1,
        .console_out_fd = -1,
        .vsock_listen_fd = -1,
        .state_fd = -1,
        .memory_fd = -1,
    };
    for (unsigned i = 0; i < VM_DISKS_MAX; i++) {
        config->disks[i].fd = -1;
        config->disks[i].overlay_fd = -1;
        config->disks[i].layer_fd = -1;
    }
}

/* Every descriptor in use by a config of disk_count disks, in wire order. */
static unsigned descriptor_slots(struct vm_config *config,
                                 int *ret_slots[SLOTS_MAX])
{
    unsigned n = 0;

    ret_slots[n++] = &config->kvm_fd;
    ret_slots[n++] = &config->kernel_fd;
    ret_slots[n++] = &config->initrd_fd;
    ret_slots[n++] = &config->console_in_fd;
    ret_slots[n++] = &config->console_out_fd;
    ret_slots[n++] = &config->vsock_listen_fd;
    ret_slots[n++] = &config->state_fd;
    ret_slots[n++] = &config->memory_fd;
    for (unsigned i = 0; i < config->disk_count && i < VM_DISKS_MAX; i++) {
        ret_slots[n++] = &config->disks[i].fd;
        ret_slots[n++] = &config->disks[i].overlay_fd;
        ret_slots[n++] = &config->disks[i].layer_fd;
    }
    return n;
}

void vm_config_fini(struct vm_config *config)
{
    int *slots[SLOTS_MAX];
    unsigned n;

    config->disk_count = VM_DISKS_MAX;
    n = descriptor_slots(config, slots);
    for (unsigned i = 0; i < n; i++)
        io_close(slots[i]);
    vm_config_init(config);
}

int vm_config_encode(const struct vm_config *config, void *buf, size_t size,
                     size_t *ret_len, int *ret_fds, size_t *ret_fd_count)
{
    struct vm_config copy = *config;
    int *slots[SLOTS_MAX];
    unsigned slot_count;
    struct state_writer w;
    size_t fd_count = 0;

    state_writer_init(&w, buf, size);
    state_put_u32(&w, CONFIG_VERSION);
    state_put_u64(&w, config->memory_bytes);
    state_put_u32(&w, config->cpu_count);
    state_put_u32(&w, (uint32_t)config->platform);
    state_put_string(&w, config->cmdline);
    state_put_u8(&w, config->vsock);
    state_put_u64(&w, config->guest_cid);
    state_put_u8(&w, config->vsock_dial);
    state_put_u8(&w, config->hide_rdrand);
    state_put_u8(&w, config->renew_generation);
    state_put_u8(&w, config->track_dirty);
    state_put_u8(&w, config->debug_exit);
    state_put_u8(&w, config->cpu_compared);
    state_put_u32(&w, config->disk_count);
    for (uint32_t i = 0; i < config->disk_count && i < VM_DISKS_MAX; i++) {
        state_put_string(&w, config->disks[i].id);
        state_put_u32(&w, (uint32_t)config->disks[i].mode);
        state_put_u64(&w, config->disks[i].overlay_limit);
    }
    slot_count = descriptor_slots(&copy, slots);
    for (unsigned i = 0; i < slot_count; i++)
        state_put_u8(&w, *slots[i] >= 0);
    if (w.error != 0)
        return w.error;
    for (unsigned i = 0; i < slot_count; i++)
        if (*slots[i] >= 0)
            ret_fds[fd_count++] = *slots[i];
    *ret_len = w.used;
    *ret_fd_count = fd_count;
    return 0;
}

/* A byte that must be 0 or 1. */
static bool get_bool(struct state_reader *r)
{
    uint8_t value = state_get_u8(r);

    if (value > 1)
        r->error = -EBADMSG;
    return value == 1;
}

static void decode_disk(struct state_reader *r, struct vm_disk *disk)
{
    state_get_string(r, disk->id, sizeof(disk->id));
    disk->mode = (enum vm_disk_mode)state_get_u32(r);
    disk->overlay_limit = state_get_u64(r);
}

static void decode_fields(struct state_reader *r, struct vm_config *c)
{
    if (state_get_u32(r) != CONFIG_VERSION)
        r->error = -EBADMSG;
    c->memory_bytes = state_get_u64(r);
    c->cpu_count = state_get_u32(r);
    c->platform = (enum vm_platform)state_get_u32(r);
    state_get_string(r, c->cmdline, sizeof(c->cmdline));
    c->vsock = get_bool(r);
    c->guest_cid = state_get_u64(r);
    c->vsock_dial = get_bool(r);
    c->hide_rdrand = get_bool(r);
    c->renew_generation = get_bool(r);
    c->track_dirty = get_bool(r);
    c->debug_exit = get_bool(r);
    c->cpu_compared = get_bool(r);
    c->disk_count = state_get_u32(r);
    if (c->disk_count > VM_DISKS_MAX) {
        c->disk_count = 0;
        r->error = -EBADMSG;
    }
    for (uint32_t i = 0; i < c->disk_count; i++)
        decode_disk(r, &c->disks[i]);
}

static bool disk_is_sane(const struct vm_disk *disk)
{
    if (disk->fd < 0)
        return false;
    switch (disk->mode) {
    case VM_DISK_RO:
    case VM_DISK_RW:
        return disk->overlay_fd < 0 && disk->layer_fd < 0 &&
               disk->overlay_limit == 0;
    case VM_DISK_COW:
        return disk->overlay_fd >= 0;
    }
    return false;
}

static bool vsock_is_sane(const struct vm_config *c)
{
    if (!c->vsock)
        return c->guest_cid == 0 && c->vsock_listen_fd < 0 && !c->vsock_dial;
    return c->guest_cid >= GUEST_CID_MIN && c->guest_cid <= GUEST_CID_MAX;
}

/* Booted from a kernel, or restored from state and memory. */
static bool origin_is_sane(const struct vm_config *c)
{
    if (c->state_fd < 0)
        return c->kernel_fd >= 0 && c->memory_fd < 0 && !c->track_dirty &&
               !c->renew_generation && !c->cpu_compared;
    return c->memory_fd >= 0 && c->kernel_fd < 0 && c->initrd_fd < 0;
}

static bool config_is_sane(const struct vm_config *c)
{
    if (c->memory_bytes < VM_MEMORY_MIN || c->memory_bytes > VM_MEMORY_MAX ||
        c->memory_bytes % VM_MEMORY_ALIGN != 0)
        return false;
    if (c->cpu_count < 1 || c->cpu_count > VM_CPUS_MAX)
        return false;
    if (c->platform != VM_PLATFORM_ACPI &&
        c->platform != VM_PLATFORM_DEVICE_TREE)
        return false;
    if (c->kvm_fd < 0 || !origin_is_sane(c) || !vsock_is_sane(c))
        return false;
    for (uint32_t i = 0; i < c->disk_count; i++)
        if (!disk_is_sane(&c->disks[i]))
            return false;
    return true;
}

/* Gives present slots their descriptors; every descriptor must be used. */
static void decode_descriptors(struct state_reader *r, struct vm_config *c,
                               const int *fds, size_t fd_count)
{
    int *slots[SLOTS_MAX];
    unsigned slot_count = descriptor_slots(c, slots);
    size_t used = 0;

    for (unsigned i = 0; i < slot_count; i++) {
        if (!get_bool(r))
            continue;
        if (used == fd_count || fds[used] < 0) {
            r->error = -EBADMSG;
            return;
        }
        *slots[i] = fds[used++];
    }
    if (used != fd_count)
        r->error = -EBADMSG;
}

int vm_config_decode(const void *buf, size_t len, int *fds, size_t fd_count,
                     struct vm_config *ret_config)
{
    struct vm_config c;
    struct state_reader r;

    vm_config_init(&c);
    state_reader_init(&r, buf, len);
    decode_fields(&r, &c);
    decode_descriptors(&r, &c, fds, fd_count);
    if (state_reader_finish(&r) != 0 || !config_is_sane(&c))
        return -EBADMSG;
    for (size_t i = 0; i < fd_count; i++)
        fds[i] = -1;
    *ret_config = c;
    return 0;
}
