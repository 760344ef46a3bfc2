/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot's state: transport, queues, device, in this order, each a group (see
 * base/codec.h). What could not have come about by a driver's accesses is
 * refused, so that a slot that was loaded needs no rules of its own.
 */
#include "devices/virtio/virtio_mmio_state.h"

#include <errno.h>

#include "base/num.h"
#include "base/state_field.h"

#define STATUS_ALL                                                             \
    (STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK |                 \
     STATUS_DRIVER_OK | STATUS_NEEDS_RESET | STATUS_FAILED)

#define GROUP_TRANSPORT "regs"
#define GROUP_DEVICE "dev "

/* Of each queue, by its number. */
static const char *const queue_groups[] = {"que0", "que1", "que2"};

_Static_assert(ARRAY_SIZE(queue_groups) == VIRTIO_QUEUES_MAX,
               "every queue has a name");

static const struct state_field transport_fields[] = {
    STATE_FIELD(struct virtio_mmio, status),
    STATE_FIELD(struct virtio_mmio, device_features_sel),
    STATE_FIELD(struct virtio_mmio, driver_features_sel),
    STATE_FIELD(struct virtio_mmio, queue_sel),
    STATE_FIELD(struct virtio_mmio, driver_features),
    STATE_FIELD(struct virtio_mmio, config_generation),
};

/* Every step needs the one before it (3.1.1). */
static bool status_can_be(uint32_t status)
{
    static const struct {
        uint32_t bit;
        uint32_t needs;
    } steps[] = {
        {STATUS_DRIVER, STATUS_ACKNOWLEDGE},
        {STATUS_FEATURES_OK, STATUS_DRIVER},
        {STATUS_DRIVER_OK, STATUS_FEATURES_OK},
    };

    if (status & ~STATUS_ALL)
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++)
        if ((status & steps[i].bit) && !(status & steps[i].needs))
            return false;
    return true;
}

/* Features are written from DRIVER on, and checked at FEATURES_OK. */
static bool features_can_be(const struct virtio_mmio *mmio)
{
    if (mmio->status & STATUS_FEATURES_OK)
        return virtio_mmio_features_acceptable(mmio);
    return (mmio->status & STATUS_DRIVER) || mmio->driver_features == 0;
}

/*
 * DRIVER_OK makes the device active, unless that failed; and the device speaks
 * up only once it is set.
 */
static bool activity_can_be(const struct virtio_mmio *mmio, unsigned interrupts)
{
    if (!(mmio->status & STATUS_DRIVER_OK))
        return !mmio->dev->active && interrupts == 0;
    return (interrupts & ~(INTERRUPT_USED | INTERRUPT_CONFIG)) == 0 &&
           (mmio->dev->active || (mmio->status & STATUS_NEEDS_RESET));
}

static int read_transport(struct virtio_mmio *mmio, struct state_reader *r)
{
    struct virtio_device *dev = mmio->dev;
    uint32_t device_id = state_get_u32(r);
    uint32_t queue_count = state_get_u32(r);
    uint32_t interrupts;
    uint8_t active;

    state_get_fields(r, mmio, transport_fields, ARRAY_SIZE(transport_fields));
    interrupts = state_get_u32(r);
    active = state_get_u8(r);
    if (state_reader_finish(r) < 0 || device_id != dev->device_id ||
        queue_count != dev->queue_count || active > 1)
        return -EBADMSG;
    dev->active = active;
    if (!status_can_be(mmio->status) || !features_can_be(mmio) ||
        !activity_can_be(mmio, interrupts))
        return -EBADMSG;
    if (dev->active)
        dev->driver_features = mmio->driver_features;
    atomic_store(&mmio->interrupt_status, interrupts);
    return 0;
}

static int load_transport(struct virtio_mmio *mmio, struct state_reader *r)
{
    struct state_reader group = state_get_group(r, GROUP_TRANSPORT);

    return read_transport(mmio, &group);
}

/* Geometry comes with FEATURES_OK; what is ready runs once the device does. */
static bool queue_can_be(const struct virtio_mmio *mmio,
                         const struct virtqueue *vq)
{
    if (!(mmio->status & STATUS_FEATURES_OK) &&
        (vq->size || vq->desc || vq->avail || vq->used))
        return false;
    if (vq->broken && !(mmio->status & STATUS_NEEDS_RESET))
        return false;
    return virtqueue_is_active(vq) == (mmio->dev->active && vq->ready);
}

static int load_queues(struct virtio_mmio *mmio, struct state_reader *r)
{
    bool event_idx = mmio->driver_features & VIRTIO_FEATURE_EVENT_IDX;
    bool indirect = mmio->driver_features & VIRTIO_FEATURE_INDIRECT_DESC;

    for (unsigned i = 0; i < mmio->dev->queue_count && i < VIRTIO_QUEUES_MAX;
         i++) {
        struct state_reader group = state_get_group(r, queue_groups[i]);
        struct virtqueue *vq = &mmio->dev->queues[i];
        int ret = virtqueue_load(vq, &group, mmio->mem, event_idx, indirect);

        if (ret < 0)
            return ret;
        if (state_reader_finish(&group) < 0 || !queue_can_be(mmio, vq))
            return -EBADMSG;
    }
    return 0;
}

static int load_device(struct virtio_device *dev, struct state_reader *r)
{
    struct state_reader group;
    int ret;

    if (!dev->ops->load)
        return 0;
    group = state_get_group(r, GROUP_DEVICE);
    ret = dev->ops->load(dev, &group);
    return ret < 0 ? ret : state_reader_finish(&group);
}

void virtio_mmio_quiesce(struct virtio_mmio *mmio)
{
    if (mmio->dev && mmio->dev->ops->quiesce)
        mmio->dev->ops->quiesce(mmio->dev);
}

void virtio_mmio_save(const struct virtio_mmio *mmio, struct state_writer *w)
{
    const struct virtio_device *dev = mmio->dev;
    size_t begun;

    if (!dev)
        return;
    begun = state_group_begin(w, GROUP_TRANSPORT);
    state_put_u32(w, dev->device_id);
    state_put_u32(w, dev->queue_count);
    state_put_fields(w, mmio, transport_fields, ARRAY_SIZE(transport_fields));
    state_put_u32(w, atomic_load(&mmio->interrupt_status));
    state_put_u8(w, dev->active);
    state_group_end(w, begun);
    for (unsigned i = 0; i < dev->queue_count && i < VIRTIO_QUEUES_MAX; i++) {
        begun = state_group_begin(w, queue_groups[i]);
        virtqueue_save(&dev->queues[i], w);
        state_group_end(w, begun);
    }
    if (dev->ops->save) {
        begun = state_group_begin(w, GROUP_DEVICE);
        dev->ops->save(dev, w);
        state_group_end(w, begun);
    }
}

int virtio_mmio_load(struct virtio_mmio *mmio, struct state_reader *r)
{
    struct virtio_device *dev = mmio->dev;
    int ret;

    if (!dev)
        return state_reader_finish(r);
    virtio_mmio_reset(mmio);
    atomic_store(&dev->violations, 0);
    ret = load_transport(mmio, r);
    if (ret == 0)
        ret = load_queues(mmio, r);
    if (ret == 0)
        ret = load_device(dev, r);
    if (ret == 0)
        ret = state_reader_finish(r);
    if (ret < 0)
        virtio_mmio_reset(mmio);
    return ret;
}

void virtio_mmio_restored(struct virtio_mmio *mmio)
{
    struct virtio_device *dev = mmio->dev;

    if (!dev)
        return;
    if (dev->active && !(mmio->status & (STATUS_NEEDS_RESET | STATUS_FAILED)) &&
        dev->ops->restored)
        dev->ops->restored(dev);
    for (unsigned i = 0; i < dev->queue_count; i++)
        virtio_mmio_notify(mmio, i);
    if (atomic_load(&mmio->interrupt_status) != 0)
        irq_line_raise(&mmio->irq);
}
