/* SPDX-License-Identifier: Apache-2.0 */
/* The devices of a machine; see the header. */
#include "vmm/device_set.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"
#include "devices/blk/cow_overlay.h"
#include "devices/blk/virtio_blk.h"
#include "devices/rng/virtio_rng.h"
#include "vmm/kvm.h"
#include "vmm/process.h"

/* QueueNotify is a 32-bit register; its value is the queue's index. */
#define QUEUE_NOTIFY_SIZE 4u

/* How long the end of a machine may wait for the console's reader. */
#define CONSOLE_DRAIN_MS 200u
#define CONSOLE_DRAIN_STEP_MS 2

static int fail(struct monitor_error *error, enum monitor_error_code code,
                int ret, const char *text)
{
    *error = (struct monitor_error){.code = code, .error = ret};
    snprintf(error->text, sizeof(error->text), "%s", text);
    return ret;
}

/* The driver kicked a queue: on the device thread, lock held. */
static void handle_kick(void *ctx, uint32_t events)
{
    struct queue_kick *kick = ctx;
    uint64_t count;

    (void)events;
    if (read(kick->source.fd, &count, sizeof(count)) == sizeof(count))
        virtio_mmio_notify(kick->mmio, kick->queue);
}

/* A write of `queue` to the slot's QueueNotify makes an eventfd readable. */
static int add_kick(struct device_set *set, int vm_fd, struct virtio_slot *slot,
                    unsigned queue)
{
    uint64_t base =
        MAP_VIRTIO_BASE + (uint64_t)(slot - set->slots) * MAP_VIRTIO_STRIDE;
    struct queue_kick *kick = &slot->kicks[queue];
    struct kvm_ioeventfd ioeventfd = {
        .datamatch = queue,
        .addr = base + VIRTIO_MMIO_QUEUE_NOTIFY,
        .len = QUEUE_NOTIFY_SIZE,
        .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
    };
    int ret;

    kick->mmio = &slot->mmio;
    kick->queue = queue;
    kick->source = (struct evloop_source){
        .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .events = EPOLLIN,
        .handler = handle_kick,
        .ctx = kick,
    };
    if (kick->source.fd < 0)
        return -errno;
    ioeventfd.fd = kick->source.fd;
    ret = kvm_ioctl(vm_fd, KVM_IOEVENTFD, &ioeventfd);
    return ret < 0 ? ret : evloop_add(set->loop, &kick->source);
}

/* The registers of a slot, empty (dev == NULL) or not. Takes dev. */
static int add_slot(struct device_set *set, const struct guest_mem *mem,
                    unsigned index, struct virtio_device *dev,
                    struct irq_line irq)
{
    struct virtio_slot *slot = &set->slots[index];

    virtio_mmio_init(&slot->mmio, dev, mem, &set->lock, irq);
    return bus_add(&set->mmio, MAP_VIRTIO_BASE + index * MAP_VIRTIO_STRIDE,
                   VIRTIO_MMIO_SIZE, &virtio_mmio_bus_ops, &slot->mmio);
}

/* A device leaves work for another turn: as if the driver had kicked. */
static void notify_later(void *ctx, unsigned queue)
{
    const struct virtio_slot *slot = ctx;
    uint64_t one = 1;

    /* Fails only when it is set as high as it goes: then it is set. */
    (void)!write(slot->kicks[queue].source.fd, &one, sizeof(one));
}

/* Puts a device into the next slot, with line and kicks. Takes dev. */
static int plug(struct device_set *set, int vm_fd, const struct guest_mem *mem,
                struct virtio_device *dev)
{
    unsigned index = set->slots_used++;
    struct virtio_slot *slot = &set->slots[index];
    int ret;

    slot->line =
        (struct gsi_line){.vm_fd = vm_fd, .gsi = MAP_VIRTIO_GSI + index};
    ret = add_slot(set, mem, index, dev, gsi_line_irq(&slot->line));
    slot->mmio.notify_later = notify_later;
    slot->mmio.notify_later_ctx = slot;
    for (unsigned q = 0; ret == 0 && q < dev->queue_count; q++)
        ret = add_kick(set, vm_fd, slot, q);
    return ret;
}

/* The bytes behind a disk: raw, or an overlay that dies with the machine. */
static int open_backend(struct vm_disk *disk, struct block_backend **ret)
{
    const struct cow_overlay_options options = {.limit = disk->overlay_limit};
    const struct cow_overlay_options layer = {.readonly = true};
    bool writable = disk->mode == VM_DISK_RW;
    int fd = disk->fd;
    int overlay_fd = disk->overlay_fd;
    int layer_fd = disk->layer_fd;
    int error;

    disk->fd = -1; /* the backend's from here on */
    disk->overlay_fd = -1;
    disk->layer_fd = -1;
    error = block_raw_new(fd, !writable, ret);
    if (disk->mode != VM_DISK_COW)
        return error;
    if (error == 0 && layer_fd >= 0) {
        error = cow_overlay_open(*ret, layer_fd, &layer, ret);
        layer_fd = -1;
    }
    if (error < 0) {
        io_close(&layer_fd);
        io_close(&overlay_fd);
        return error;
    }
    return cow_overlay_open(*ret, overlay_fd, &options, ret);
}

static int add_disk(struct device_set *set, int vm_fd,
                    const struct guest_mem *mem, struct vm_disk *disk)
{
    struct block_backend *backend;
    struct virtio_device *dev;
    int ret = open_backend(disk, &backend);

    if (ret == 0)
        ret = virtio_blk_new(backend, disk->id, &dev);
    if (ret != 0)
        return ret;
    set->disks[set->disk_count++] = dev;
    return plug(set, vm_fd, mem, dev);
}

static const char *disk_reason(int error)
{
    switch (error) {
    case -EINVAL:
        return "it is empty or not a whole number of 512-byte sectors";
    case -EBADMSG:
        return "the snapshot's part of it is malformed";
    default:
        return strerror(-error);
    }
}

static int add_disks(struct device_set *set, int vm_fd,
                     const struct guest_mem *mem, struct vm_config *config,
                     struct monitor_error *ret_error)
{
    for (uint32_t i = 0; i < config->disk_count; i++) {
        int ret = add_disk(set, vm_fd, mem, &config->disks[i]);

        if (ret < 0) {
            fail(ret_error, MONITOR_ERROR_DISK, ret, disk_reason(ret));
            ret_error->disk = i;
            return ret;
        }
    }
    return 0;
}

static int add_vsock(struct device_set *set, int vm_fd,
                     const struct guest_mem *mem, struct vm_config *config,
                     const struct vsock_dialer *dialer)
{
    struct virtio_vsock_options options = {
        .guest_cid = config->guest_cid,
        .loop = set->loop,
        .listen_fd = config->vsock_listen_fd,
        .fd_end = process_fd_end(),
    };
    struct virtio_device *dev;
    int ret;

    if (config->vsock_dial)
        options.dialer = *dialer;
    config->vsock_listen_fd = -1; /* the device's from here on */
    ret = virtio_vsock_new(&options, &dev);
    if (ret != 0)
        return ret;
    set->vsock = dev;
    return plug(set, vm_fd, mem, dev);
}

static int add_virtio(struct device_set *set, int vm_fd,
                      const struct guest_mem *mem, struct vm_config *config,
                      const struct device_hooks *hooks,
                      struct monitor_error *ret_error)
{
    struct virtio_device *rng;
    int ret = add_disks(set, vm_fd, mem, config, ret_error);

    if (ret < 0)
        return ret;
    if (config->vsock)
        ret = add_vsock(set, vm_fd, mem, config, &hooks->dialer);
    if (ret == 0)
        ret = virtio_rng_new(&rng);
    if (ret == 0)
        ret = plug(set, vm_fd, mem, rng);
    for (unsigned i = set->slots_used; ret == 0 && i < MAP_VIRTIO_SLOTS; i++)
        ret = add_slot(set, mem, i, NULL, (struct irq_line){0});
    return ret < 0 ? fail(ret_error, MONITOR_ERROR_HOST, ret,
                          "a virtio device cannot be set up")
                   : 0;
}

static int add_serial(struct device_set *set, int vm_fd,
                      struct vm_config *config)
{
    struct serial8250_options options = {
        .loop = set->loop,
        .lock = &set->lock,
        .in_fd = config->console_in_fd,
        .out_fd = config->console_out_fd,
    };
    int ret;

    set->serial_line = (struct gsi_line){.vm_fd = vm_fd, .gsi = MAP_SERIAL_GSI};
    options.irq = gsi_line_irq(&set->serial_line);
    config->console_in_fd = -1; /* the port's from here on */
    config->console_out_fd = -1;
    ret = serial8250_new(&options, &set->serial);
    if (ret < 0)
        return ret;
    return bus_add(&set->pio, MAP_SERIAL_PORT, SERIAL8250_PORTS,
                   &serial8250_bus_ops, set->serial);
}

static int add_platform(struct device_set *set, int vm_fd,
                        struct vm_config *config,
                        const struct device_hooks *hooks)
{
    int ret;

    set->control = hooks->control;
    ret = bus_add(&set->mmio, MAP_CONTROL_PAGE, CONTROL_PAGE_SIZE,
                  &control_page_bus_ops, &set->control);
    if (ret == 0)
        ret = bus_add(&set->pio, KEYBOARD_PORT_COMMAND, 1,
                      &keyboard_port_bus_ops, &set->control);
    set->debug_exit = hooks->debug_exit;
    if (ret == 0 && config->debug_exit)
        ret = bus_add(&set->pio, DEBUG_EXIT_PORT, DEBUG_EXIT_PORTS,
                      &debug_exit_bus_ops, &set->debug_exit);
    return ret < 0 ? ret : add_serial(set, vm_fd, config);
}

int device_set_init(struct device_set *set, int vm_fd,
                    const struct guest_mem *mem, struct vm_config *config,
                    const struct device_hooks *hooks,
                    struct monitor_error *ret_error)
{
    int ret;

    *set = (struct device_set){0};
    pthread_mutex_init(&set->lock, NULL);
    for (unsigned i = 0; i < MAP_VIRTIO_SLOTS; i++)
        for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
            set->slots[i].kicks[q].source.fd = -1;
    ret = evloop_new(&set->lock, &set->loop);
    if (ret == 0)
        ret = add_platform(set, vm_fd, config, hooks);
    if (ret < 0)
        fail(ret_error, MONITOR_ERROR_HOST, ret,
             "the serial port cannot be set up");
    else
        ret = add_virtio(set, vm_fd, mem, config, hooks, ret_error);
    if (ret < 0)
        device_set_fini(set);
    return ret;
}

static void slot_fini(struct device_set *set, struct virtio_slot *slot)
{
    for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++) {
        evloop_remove(set->loop, &slot->kicks[q].source);
        io_close(&slot->kicks[q].source.fd);
    }
    virtio_mmio_fini(&slot->mmio);
}

void device_set_fini(struct device_set *set)
{
    if (set->loop)
        for (unsigned i = 0; i < MAP_VIRTIO_SLOTS; i++)
            slot_fini(set, &set->slots[i]);
    serial8250_free(set->serial);
    evloop_free(set->loop);
    pthread_mutex_destroy(&set->lock);
    *set = (struct device_set){0};
}

static void disk_stats(const struct device_set *set,
                       struct monitor_stats *stats)
{
    stats->disk_count = set->disk_count;
    for (uint32_t i = 0; i < set->disk_count; i++) {
        const struct block_backend_stats *s =
            &virtio_blk_backend(set->disks[i])->stats;

        stats->disks[i].clusters = s->clusters_present;
        stats->disks[i].no_space = s->no_space;
        stats->disks[i].io_errors = s->io_errors;
        stats->disks[i].limit_hit = s->limit_hit;
    }
}

void device_set_stats(const struct device_set *set, struct monitor_stats *stats)
{
    const struct serial8250_stats *console = serial8250_stats(set->serial);

    stats->unclaimed =
        atomic_load(&set->pio.unclaimed) + atomic_load(&set->mmio.unclaimed);
    stats->violations = 0;
    for (unsigned i = 0; i < set->slots_used; i++)
        stats->violations += atomic_load(&set->slots[i].mmio.dev->violations);
    stats->console_bytes = console->bytes_out;
    stats->console_dropped = console->bytes_dropped;
    disk_stats(set, stats);
    if (set->vsock) {
        const struct virtio_vsock_stats *s = virtio_vsock_stats(set->vsock);

        stats->vsock_from_guest = s->bytes_from_guest;
        stats->vsock_to_guest = s->bytes_to_guest;
        stats->vsock_connections = s->connections;
        stats->vsock_refused = s->refused;
    }
}

void device_set_nudge(const struct device_set *set)
{
    if (set->slots_used > 0)
        irq_line_raise(&set->slots[set->slots_used - 1].mmio.irq);
}

void device_set_drain_console(struct device_set *set)
{
    const struct timespec pause = {.tv_nsec = CONSOLE_DRAIN_STEP_MS * 1000000};

    for (unsigned waited = 0;
         serial8250_flush(set->serial) > 0 && waited < CONSOLE_DRAIN_MS;
         waited += CONSOLE_DRAIN_STEP_MS)
        (void)nanosleep(&pause, NULL);
    serial8250_end_output(set->serial);
}
