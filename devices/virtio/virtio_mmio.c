/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-mmio transport: registers, the status machine, negotiation and
 * interrupts. Knows no device type and never looks into a ring.
 *
 * status moves one way only, by single steps, until a reset:
 *
 *   0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK
 *                       |         |              queues active, geometry frozen
 *                       |         queue geometry may be written
 *                       driver features may be written
 *
 * FAILED (by the driver) and NEEDS_RESET (by us) stop everything but a reset.
 */
#include "devices/virtio/virtio_mmio.h"

#include <endian.h>
#include <string.h>

#include "devices/virtio/virtio_mmio_state.h"

/* VirtIO 1.2, 4.2.2: registers. */
#define REG_MAGIC 0x000u
#define REG_VERSION 0x004u
#define REG_DEVICE_ID 0x008u
#define REG_VENDOR_ID 0x00cu
#define REG_DEVICE_FEATURES 0x010u
#define REG_DEVICE_FEATURES_SEL 0x014u
#define REG_DRIVER_FEATURES 0x020u
#define REG_DRIVER_FEATURES_SEL 0x024u
#define REG_QUEUE_SEL 0x030u
#define REG_QUEUE_NUM_MAX 0x034u
#define REG_QUEUE_NUM 0x038u
#define REG_QUEUE_READY 0x044u
#define REG_QUEUE_NOTIFY VIRTIO_MMIO_QUEUE_NOTIFY
#define REG_INTERRUPT_STATUS 0x060u
#define REG_INTERRUPT_ACK 0x064u
#define REG_STATUS 0x070u
#define REG_QUEUE_DESC_LOW 0x080u
#define REG_QUEUE_DESC_HIGH 0x084u
#define REG_QUEUE_DRIVER_LOW 0x090u
#define REG_QUEUE_DRIVER_HIGH 0x094u
#define REG_QUEUE_DEVICE_LOW 0x0a0u
#define REG_QUEUE_DEVICE_HIGH 0x0a4u
#define REG_SHM_SEL 0x0acu
#define REG_SHM_LEN_LOW 0x0b0u
#define REG_SHM_LEN_HIGH 0x0b4u
#define REG_SHM_BASE_LOW 0x0b8u
#define REG_SHM_BASE_HIGH 0x0bcu
#define REG_CONFIG_GENERATION 0x0fcu
#define REG_CONFIG 0x100u

#define MAGIC_VALUE 0x74726976u  /* "virt" */
#define VENDOR_VALUE 0x7862736du /* "msbx" */

static void lock_device(struct virtio_mmio *mmio)
{
    if (mmio->lock)
        pthread_mutex_lock(mmio->lock);
}

static void unlock_device(struct virtio_mmio *mmio)
{
    if (mmio->lock)
        pthread_mutex_unlock(mmio->lock);
}

static void violation(struct virtio_mmio *mmio)
{
    /* A statistic, read by other threads; it orders nothing. */
    atomic_fetch_add_explicit(&mmio->dev->violations, 1, memory_order_relaxed);
}

/*
 * Sets the bit, then raises the line: a driver that runs because of the edge
 * finds the bit. The line is raised even if the bit was set already: an edge
 * that came while the interrupt was masked is lost, and the next one must not
 * wait for an acknowledgement that will never come.
 */
static void interrupt(struct virtio_mmio *mmio, unsigned bit)
{
    atomic_fetch_or(&mmio->interrupt_status, bit);
    irq_line_raise(&mmio->irq);
}

static void transport_used_interrupt(void *ctx, unsigned queue)
{
    (void)queue;
    interrupt(ctx, INTERRUPT_USED);
}

static void transport_config_interrupt(void *ctx)
{
    struct virtio_mmio *mmio = ctx;

    /*
     * Before the driver is told, so that one that has read half of the old
     * configuration notices and reads again (VirtIO 1.2, 2.5.4).
     */
    mmio->config_generation++;
    if (mmio->status & STATUS_DRIVER_OK)
        interrupt(mmio, INTERRUPT_CONFIG);
}

static void transport_needs_reset(void *ctx)
{
    struct virtio_mmio *mmio = ctx;

    mmio->status |= STATUS_NEEDS_RESET;
    /* VirtIO 1.2, 2.1.2: a notification only once DRIVER_OK is set. */
    if (mmio->status & STATUS_DRIVER_OK)
        interrupt(mmio, INTERRUPT_CONFIG);
}

static bool transport_notify_later(void *ctx, unsigned queue)
{
    struct virtio_mmio *mmio = ctx;

    if (!mmio->notify_later)
        return false;
    mmio->notify_later(mmio->notify_later_ctx, queue);
    return true;
}

static const struct virtio_transport_ops transport_ops = {
    .used_interrupt = transport_used_interrupt,
    .config_interrupt = transport_config_interrupt,
    .needs_reset = transport_needs_reset,
    .notify_later = transport_notify_later,
};

static uint64_t offered_features(const struct virtio_mmio *mmio)
{
    uint64_t features = VIRTIO_FEATURE_INDIRECT_DESC |
                        VIRTIO_FEATURE_EVENT_IDX | VIRTIO_FEATURE_VERSION_1;

    if (mmio->dev->ops->features)
        features |= mmio->dev->ops->features(mmio->dev);
    return features;
}

/* The selected queue, or NULL. */
static struct virtqueue *selected_queue(const struct virtio_mmio *mmio)
{
    if (mmio->queue_sel >= mmio->dev->queue_count)
        return NULL;
    return &mmio->dev->queues[mmio->queue_sel];
}

static void reset_queues(struct virtio_mmio *mmio)
{
    for (unsigned i = 0; i < mmio->dev->queue_count; i++)
        virtqueue_reset(&mmio->dev->queues[i]);
}

void virtio_mmio_reset(struct virtio_mmio *mmio)
{
    mmio->dev->ops->reset(mmio->dev);
    mmio->dev->active = false;
    mmio->dev->driver_features = 0;
    reset_queues(mmio);
    mmio->status = 0;
    mmio->driver_features = 0;
    mmio->device_features_sel = 0;
    mmio->driver_features_sel = 0;
    mmio->queue_sel = 0;
    atomic_store(&mmio->interrupt_status, 0);
}

/* All ready queues or none: 0 or a negative errno. */
static int activate_queues(struct virtio_mmio *mmio)
{
    bool event_idx = mmio->driver_features & VIRTIO_FEATURE_EVENT_IDX;
    bool indirect = mmio->driver_features & VIRTIO_FEATURE_INDIRECT_DESC;

    for (unsigned i = 0; i < mmio->dev->queue_count; i++) {
        struct virtqueue *vq = &mmio->dev->queues[i];
        int ret;

        if (!vq->ready)
            continue;
        ret = virtqueue_activate(vq, mmio->mem, event_idx, indirect);
        if (ret < 0) {
            reset_queues(mmio);
            return ret;
        }
    }
    return 0;
}

/* The driver set DRIVER_OK. What goes wrong here ends in NEEDS_RESET. */
static void start_device(struct virtio_mmio *mmio)
{
    struct virtio_device *dev = mmio->dev;

    if (activate_queues(mmio) < 0)
        goto out_needs_reset;
    dev->driver_features = mmio->driver_features;
    dev->active = true;
    if (dev->ops->activate && dev->ops->activate(dev) < 0)
        goto out_inactive;
    return;
out_inactive:
    dev->active = false;
    reset_queues(mmio);
out_needs_reset:
    virtio_device_needs_reset(dev);
}

bool virtio_mmio_features_acceptable(const struct virtio_mmio *mmio)
{
    return !(mmio->driver_features & ~offered_features(mmio)) &&
           (mmio->driver_features & VIRTIO_FEATURE_VERSION_1);
}

/* Whether `bit` may be set now, given what is set already (3.1.1). */
static bool status_step_allowed(const struct virtio_mmio *mmio, uint32_t bit)
{
    switch (bit) {
    case STATUS_ACKNOWLEDGE:
    case STATUS_FAILED:
        return true;
    case STATUS_DRIVER:
        return mmio->status & STATUS_ACKNOWLEDGE;
    case STATUS_FEATURES_OK:
        return (mmio->status & STATUS_DRIVER) &&
               virtio_mmio_features_acceptable(mmio);
    case STATUS_DRIVER_OK:
        return mmio->status & STATUS_FEATURES_OK;
    default:
        return false;
    }
}

static void write_status(struct virtio_mmio *mmio, uint32_t value)
{
    static const uint32_t steps[] = {STATUS_ACKNOWLEDGE, STATUS_DRIVER,
                                     STATUS_FEATURES_OK, STATUS_DRIVER_OK,
                                     STATUS_FAILED};
    uint32_t known = STATUS_NEEDS_RESET;

    if (value == 0) {
        virtio_mmio_reset(mmio);
        return;
    }
    /* A driver adds bits to what it read, so NEEDS_RESET comes back. */
    value |= mmio->status & STATUS_NEEDS_RESET;
    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        known |= steps[i];
    /* Bits are never taken back one by one (2.1.1), nor are they invented. */
    if ((value & ~known) || (mmio->status & ~value)) {
        violation(mmio);
        return;
    }
    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        uint32_t bit = steps[i] & value & ~mmio->status;

        if (!bit)
            continue;
        if ((mmio->status & (STATUS_NEEDS_RESET | STATUS_FAILED)) ||
            !status_step_allowed(mmio, bit)) {
            violation(mmio);
            continue;
        }
        mmio->status |= bit;
        if (bit == STATUS_DRIVER_OK)
            start_device(mmio);
    }
}

static bool status_is(const struct virtio_mmio *mmio, uint32_t set,
                      uint32_t clear)
{
    clear |= STATUS_NEEDS_RESET | STATUS_FAILED;
    return (mmio->status & set) == set && !(mmio->status & clear);
}

static void set_half(uint64_t *field, bool high, uint32_t value)
{
    if (high)
        *field = (*field & UINT32_MAX) | (uint64_t)value << 32;
    else
        *field = (*field & ~(uint64_t)UINT32_MAX) | value;
}

static bool write_driver_features(struct virtio_mmio *mmio, uint32_t value)
{
    if (!status_is(mmio, STATUS_DRIVER, STATUS_FEATURES_OK))
        return false;
    /* There are no features above bit 63: accepting none of them is fine. */
    if (mmio->driver_features_sel > 1)
        return value == 0;
    set_half(&mmio->driver_features, mmio->driver_features_sel == 1, value);
    return true;
}

/*
 * QueueReady. 1 before DRIVER_OK, with a size: addresses are checked once, at
 * DRIVER_OK. 0 at any time stops the queue; after DRIVER_OK for good (until a
 * reset), because its geometry can no longer be written.
 */
static bool write_queue_ready(struct virtio_mmio *mmio, struct virtqueue *vq,
                              uint32_t value)
{
    if (value == 0) {
        if (mmio->status & STATUS_DRIVER_OK)
            virtqueue_reset(vq);
        vq->ready = false;
        return true;
    }
    if (value != 1 || vq->size == 0 ||
        !status_is(mmio, STATUS_FEATURES_OK, STATUS_DRIVER_OK))
        return false;
    vq->ready = true;
    return true;
}

static bool write_queue_size(struct virtqueue *vq, uint32_t value)
{
    if (value == 0 || value > vq->size_max || (value & (value - 1)) != 0)
        return false;
    vq->size = (uint16_t)value;
    return true;
}

/* Registers of the selected queue. False: the write made no sense. */
static bool write_queue(struct virtio_mmio *mmio, uint64_t reg, uint32_t value)
{
    struct virtqueue *vq = selected_queue(mmio);

    if (!vq)
        return false;
    if (reg == REG_QUEUE_READY)
        return write_queue_ready(mmio, vq, value);
    /* Frozen once ready, and for good at DRIVER_OK. */
    if (vq->ready || !status_is(mmio, STATUS_FEATURES_OK, STATUS_DRIVER_OK))
        return false;
    switch (reg) {
    case REG_QUEUE_NUM:
        return write_queue_size(vq, value);
    case REG_QUEUE_DESC_LOW:
    case REG_QUEUE_DESC_HIGH:
        set_half(&vq->desc, reg == REG_QUEUE_DESC_HIGH, value);
        return true;
    case REG_QUEUE_DRIVER_LOW:
    case REG_QUEUE_DRIVER_HIGH:
        set_half(&vq->avail, reg == REG_QUEUE_DRIVER_HIGH, value);
        return true;
    case REG_QUEUE_DEVICE_LOW:
    case REG_QUEUE_DEVICE_HIGH:
        set_half(&vq->used, reg == REG_QUEUE_DEVICE_HIGH, value);
        return true;
    default:
        return false; /* read-only or no register at all */
    }
}

/* False: the write made no sense and changed nothing. */
static bool write_register(struct virtio_mmio *mmio, uint64_t reg,
                           uint32_t value)
{
    switch (reg) {
    case REG_DEVICE_FEATURES_SEL:
        mmio->device_features_sel = value;
        return true;
    case REG_DRIVER_FEATURES:
        return write_driver_features(mmio, value);
    case REG_DRIVER_FEATURES_SEL:
        mmio->driver_features_sel = value;
        return true;
    case REG_QUEUE_SEL:
        mmio->queue_sel = value;
        return true;
    case REG_QUEUE_NOTIFY:
        virtio_mmio_notify(mmio, value);
        return true;
    case REG_STATUS:
        write_status(mmio, value);
        return true;
    case REG_SHM_SEL:
        return true; /* whatever is selected does not exist */
    default:
        return write_queue(mmio, reg, value);
    }
}

static uint32_t read_device_features(const struct virtio_mmio *mmio)
{
    uint64_t features = offered_features(mmio);

    switch (mmio->device_features_sel) {
    case 0:
        return (uint32_t)features;
    case 1:
        return (uint32_t)(features >> 32);
    default:
        return 0;
    }
}

/* Registers that the driver may only write, and holes, read as 0. */
static uint32_t read_register(const struct virtio_mmio *mmio, uint64_t reg)
{
    const struct virtqueue *vq = selected_queue(mmio);

    switch (reg) {
    case REG_MAGIC:
        return MAGIC_VALUE;
    case REG_VERSION:
        return 2;
    case REG_DEVICE_ID:
        return mmio->dev->device_id;
    case REG_VENDOR_ID:
        return VENDOR_VALUE;
    case REG_DEVICE_FEATURES:
        return read_device_features(mmio);
    case REG_QUEUE_NUM_MAX:
        return vq ? vq->size_max : 0;
    case REG_QUEUE_READY:
        return vq && vq->ready;
    case REG_STATUS:
        return mmio->status;
    case REG_SHM_LEN_LOW:
    case REG_SHM_LEN_HIGH:
    case REG_SHM_BASE_LOW:
    case REG_SHM_BASE_HIGH:
        return UINT32_MAX; /* no such region (4.2.2.1) */
    case REG_CONFIG_GENERATION:
        return mmio->config_generation;
    default:
        return 0;
    }
}

static uint64_t read_config(struct virtio_mmio *mmio, uint64_t offset,
                            unsigned size)
{
    const struct virtio_device *dev = mmio->dev;
    uint64_t value = 0; /* little-endian bytes, the lowest `size` of them */

    if (dev->ops->config_read)
        dev->ops->config_read(dev, (uint32_t)offset, &value, size);
    return le64toh(value);
}

/* VirtIO 1.2, 3.1.1: the driver may not write there before FEATURES_OK. */
static bool write_config(struct virtio_mmio *mmio, uint64_t offset,
                         unsigned size, uint64_t value)
{
    uint64_t bytes = htole64(value);

    if (!mmio->dev->ops->config_write ||
        !status_is(mmio, STATUS_FEATURES_OK, 0))
        return false;
    mmio->dev->ops->config_write(mmio->dev, (uint32_t)offset, &bytes, size);
    return true;
}

/* What a slot without a device says: here is virtio, and nothing behind. */
static uint64_t read_empty_slot(uint64_t offset, unsigned size)
{
    if (size != 4)
        return 0;
    if (offset == REG_MAGIC)
        return MAGIC_VALUE;
    return offset == REG_VERSION ? 2 : 0;
}

/* Registers are 32 bits wide and accessed as such (4.2.2.2). */
static bool is_register_access(uint64_t offset, unsigned size)
{
    return size == 4 && offset % 4 == 0;
}

static uint64_t mmio_read(void *ctx, uint64_t offset, unsigned size)
{
    struct virtio_mmio *mmio = ctx;
    uint64_t value = 0;

    if (!mmio->dev)
        return read_empty_slot(offset, size);
    /* No lock: see the header. */
    if (offset == REG_INTERRUPT_STATUS && size == 4)
        return atomic_load(&mmio->interrupt_status);

    lock_device(mmio);
    if (offset >= REG_CONFIG)
        value = read_config(mmio, offset - REG_CONFIG, size);
    else if (is_register_access(offset, size))
        value = read_register(mmio, offset);
    else
        violation(mmio);
    unlock_device(mmio);
    return value;
}

static void mmio_write(void *ctx, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct virtio_mmio *mmio = ctx;
    bool done = false;

    if (!mmio->dev)
        return;
    if (offset == REG_INTERRUPT_ACK && size == 4) {
        /*
         * One atomic step: a bit that the device thread sets between the
         * driver's read and this stays set, unless the driver names it, and
         * then it looks at the rings after this anyway.
         */
        atomic_fetch_and(&mmio->interrupt_status, ~(unsigned)value);
        return;
    }

    lock_device(mmio);
    if (offset >= REG_CONFIG)
        done = write_config(mmio, offset - REG_CONFIG, size, value);
    else if (is_register_access(offset, size))
        done = write_register(mmio, offset, (uint32_t)value);
    if (!done)
        violation(mmio);
    unlock_device(mmio);
}

const struct bus_ops virtio_mmio_bus_ops = {
    .read = mmio_read,
    .write = mmio_write,
};

void virtio_mmio_init(struct virtio_mmio *mmio, struct virtio_device *dev,
                      const struct guest_mem *mem, pthread_mutex_t *lock,
                      struct irq_line irq)
{
    memset(mmio, 0, sizeof(*mmio));
    atomic_init(&mmio->interrupt_status, 0);
    mmio->dev = dev;
    mmio->mem = mem;
    mmio->lock = lock;
    mmio->irq = irq;
    if (dev) {
        reset_queues(mmio);
        dev->transport = &transport_ops;
        dev->transport_ctx = mmio;
    }
}

void virtio_mmio_fini(struct virtio_mmio *mmio)
{
    if (mmio->dev)
        mmio->dev->ops->free(mmio->dev);
    mmio->dev = NULL;
}

void virtio_mmio_notify(struct virtio_mmio *mmio, unsigned queue)
{
    struct virtio_device *dev = mmio->dev;

    if (!dev || !dev->active || !status_is(mmio, STATUS_DRIVER_OK, 0))
        return;
    if (queue >= dev->queue_count) {
        violation(mmio);
        return;
    }
    if (dev->queues[queue].ready)
        dev->ops->queue_notify(dev, queue);
}
