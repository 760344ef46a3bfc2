/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices of a machine that stands still, is saved or was restored; see
 * device_set.h. The sections are those of state_file.h: the serial port, then
 * the slots in use, in order.
 */
#include "vmm/device_set.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "devices/blk/cow_overlay.h"
#include "devices/blk/virtio_blk.h"

#define SERIAL_STATE_VERSION 1u
#define SLOT_STATE_VERSION 1u

/*
 * What drivers kicked before their vCPUs stopped is served (or, to throw it
 * away, only read): the kick itself is not saved.
 */
static void drain_kicks(struct device_set *set, bool serve)
{
    for (unsigned i = 0; i < set->slots_used; i++)
        for (unsigned q = 0; q < set->slots[i].mmio.dev->queue_count; q++) {
            struct queue_kick *kick = &set->slots[i].kicks[q];
            uint64_t count;

            if (read(kick->source.fd, &count, sizeof(count)) == sizeof(count) &&
                serve)
                virtio_mmio_notify(kick->mmio, kick->queue);
        }
}

void device_set_quiesce(struct device_set *set)
{
    drain_kicks(set, true);
    for (unsigned i = 0; i < set->slots_used; i++)
        virtio_mmio_quiesce(&set->slots[i].mmio);
}

void device_set_resume(struct device_set *set)
{
    for (unsigned i = 0; i < set->slots_used; i++)
        for (unsigned q = 0; q < set->slots[i].mmio.dev->queue_count; q++)
            virtio_mmio_notify(&set->slots[i].mmio, q);
}

void device_set_save(const struct device_set *set, struct state_file_writer *f)
{
    state_file_begin(f, STATE_TAG_SERIAL, SERIAL_STATE_VERSION, 0);
    serial8250_save(set->serial, &f->w);
    state_file_end(f);
    for (unsigned i = 0; i < set->slots_used; i++) {
        state_file_begin(f, STATE_TAG_SLOT, SLOT_STATE_VERSION, (uint16_t)i);
        virtio_mmio_save(&set->slots[i].mmio, &f->w);
        state_file_end(f);
    }
}

static int load_serial(struct device_set *set, struct state_file *f, char *why)
{
    struct state_reader r;
    int ret = state_file_expect(f, STATE_TAG_SERIAL, SERIAL_STATE_VERSION, 0,
                                &r, why);

    if (ret < 0)
        return ret;
    ret = serial8250_load(set->serial, &r);
    if (ret < 0)
        snprintf(why, STATE_WHY_MAX + 1,
                 "section seri 0: it is not a serial port's state");
    return ret;
}

static int load_slot(struct device_set *set, unsigned index,
                     struct state_file *f, char *why)
{
    struct state_reader r;
    int ret = state_file_expect(f, STATE_TAG_SLOT, SLOT_STATE_VERSION,
                                (uint16_t)index, &r, why);

    if (ret < 0)
        return ret;
    ret = virtio_mmio_load(&set->slots[index].mmio, &r);
    if (ret < 0)
        snprintf(why, STATE_WHY_MAX + 1,
                 "section slot %u: it is not the state of this machine's "
                 "device there",
                 index);
    return ret;
}

int device_set_load(struct device_set *set, struct state_file *f,
                    char ret_why[STATE_WHY_MAX + 1])
{
    int ret;

    drain_kicks(set, false);
    ret = load_serial(set, f, ret_why);
    for (unsigned i = 0; ret == 0 && i < set->slots_used; i++)
        ret = load_slot(set, i, f, ret_why);
    if (ret == 0 && f->left > 0) {
        snprintf(ret_why, STATE_WHY_MAX + 1, "it has sections left over");
        ret = -EBADMSG;
    }
    return ret;
}

void device_set_restored(struct device_set *set)
{
    serial8250_restored(set->serial);
    for (unsigned i = 0; i < set->slots_used; i++)
        virtio_mmio_restored(&set->slots[i].mmio);
}

int device_set_save_disks(const struct device_set *set,
                          const struct vm_config *config, const int *fds,
                          unsigned fd_count, struct device_set_disks *ret)
{
    unsigned used = 0;

    *ret = (struct device_set_disks){0};
    for (uint32_t i = 0; i < set->disk_count; i++) {
        uint64_t clusters = 0;
        int error;

        if (config->disks[i].mode != VM_DISK_COW)
            continue;
        ret->disk = i;
        if (used == fd_count)
            return -EBADMSG;
        error = cow_overlay_save(virtio_blk_backend(set->disks[i]), fds[used++],
                                 &clusters);
        if (error < 0)
            return error;
        ret->clusters += clusters;
    }
    return used == fd_count ? 0 : -EBADMSG;
}

void device_set_prove_disks(const struct device_set *set,
                            const struct vm_config *config,
                            struct monitor_proved *ret)
{
    *ret = (struct monitor_proved){.disk_count = set->disk_count};
    for (uint32_t i = 0; i < set->disk_count; i++)
        if (config->disks[i].mode == VM_DISK_COW)
            ret->disks[i].clusters = cow_overlay_held(
                virtio_blk_backend(set->disks[i]), &ret->disks[i].first);
}

int device_set_reset_disks(const struct device_set *set,
                           const struct vm_config *config)
{
    int ret = 0;

    for (uint32_t i = 0; ret == 0 && i < set->disk_count; i++)
        if (config->disks[i].mode == VM_DISK_COW)
            ret = cow_overlay_reset(virtio_blk_backend(set->disks[i]));
    return ret;
}
