/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An entropy device behind virtio-mmio, and a driver that does anything:
 * register accesses of any offset and width, and writes to guest memory.
 *
 * Input: one byte (bit 0: the device is started first), then operations of
 * eight bytes: kind, size, offset (2), value (4).
 */
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "devices/rng/virtio_rng.h"
#include "tests/fake_guest.h"

#define MEMORY 65536u
#define OPS_MAX 256u
#define OP_SIZE 8u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void memory_write(struct fake_driver *d, uint16_t offset, uint32_t value)
{
    gpa_t gpa = FAKE_GUEST_BASE + offset;

    (void)!guest_mem_write(&d->guest.mem, gpa, &value, sizeof(value));
}

/* Points the driver's registers at plausible places: random ones never are. */
static void register_write(struct fake_driver *d, const uint8_t *op)
{
    uint64_t offset = num_get_le16(op + 2) & (VIRTIO_MMIO_SIZE - 1);
    unsigned size = 1u << (op[1] & 3);
    uint64_t value = num_get_le32(op + 4);

    if (op[1] & 4)
        value = FAKE_GUEST_BASE + (value & (MEMORY - 1));
    if (offset + size <= VIRTIO_MMIO_SIZE)
        virtio_mmio_bus_ops.write(&d->mmio, offset, size, value);
}

static void register_read(struct fake_driver *d, const uint8_t *op)
{
    uint64_t offset = num_get_le16(op + 2) & (VIRTIO_MMIO_SIZE - 1);
    unsigned size = 1u << (op[1] & 3);

    if (offset + size <= VIRTIO_MMIO_SIZE)
        virtio_mmio_bus_ops.read(&d->mmio, offset, size);
}

static void operate(struct fake_driver *d, const uint8_t *op)
{
    switch (op[0] & 3) {
    case 0:
        register_write(d, op);
        break;
    case 1:
        register_read(d, op);
        break;
    case 2:
        memory_write(d, num_get_le16(op + 2), num_get_le32(op + 4));
        break;
    default:
        virtio_mmio_notify(&d->mmio, op[1]);
        break;
    }
    if (!virtqueue_check(&d->mmio.dev->queues[0]))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_driver d;
    struct virtio_device *rng;

    if (size < 1 || virtio_rng_new(&rng) != 0)
        return 0;
    fake_driver_init(&d, rng, MEMORY);
    if (data[0] & 1)
        fake_driver_start(&d, data[0] & 2 ? VIRTIO_FEATURE_EVENT_IDX : 0, 8);
    for (size_t i = 0; i < OPS_MAX && 1 + (i + 1) * OP_SIZE <= size; i++)
        operate(&d, data + 1 + i * OP_SIZE);
    fake_driver_fini(&d);
    return 0;
}
