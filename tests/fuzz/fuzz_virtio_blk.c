/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk under a hostile driver: the input is a list of things it does to
 * its rings and buffers, over a small overlay.
 *
 *   0 d a a l f n   descriptor d: 16-bit address and length / 16, flags, next
 *   1 h t s s       header h: type, 16-bit sector (bit 15: counts from 2^64)
 *   2 d             publish head d and kick
 *   3 o o b         byte b at 16-bit offset o of guest memory
 *   4 s n f         segment s: n sectors at s * 8, flags
 *   5               reset and start again
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"
#include "devices/blk/cow_overlay.h"
#include "devices/blk/virtio_blk.h"
#include "tests/fake_guest.h"

#define MEMORY 65536u
#define DISK_SIZE (3 * COW_CLUSTER_SIZE + 512)
#define HEADERS 0x4000u /* offsets in guest memory */
#define SEGMENTS 0x5000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static struct virtio_device *make_device(void)
{
    struct cow_overlay_options options = {.limit = 2 * COW_CLUSTER_SIZE};
    int fd = memfd_create("base", MFD_CLOEXEC);
    struct block_backend *base, *b;
    struct virtio_device *dev;

    require(ftruncate(fd, DISK_SIZE) == 0);
    require(pwrite(fd, "base", 4, COW_CLUSTER_SIZE) == 4);
    require(block_raw_new(fd, true, &base) == 0);
    require(cow_overlay_open(base, memfd_create("overlay", MFD_CLOEXEC),
                             &options, &b) == 0);
    require(virtio_blk_new(b, "fuzz", &dev) == 0);
    return dev;
}

/* Starts with fresh rings at the same place. */
static void start(struct fake_driver *d)
{
    uint8_t *p = fake_guest_ptr(&d->guest, FAKE_GUEST_BASE, MEMORY);

    d->guest.next = FAKE_GUEST_BASE;
    memset(p, 0, MEMORY);
    fake_driver_start(d, UINT64_MAX, 16);
}

static void put_desc(struct fake_driver *d, const uint8_t *p)
{
    struct fake_desc *desc = fake_queue_desc(&d->queues[0], p[0] % 16);

    desc->addr = FAKE_GUEST_BASE + num_get_le16(p + 1);
    desc->len = (uint32_t)p[3] * 16 + (p[4] >> 4);
    desc->flags = p[4] & 7;
    desc->next = p[5] & 0x1f;
}

static void put_header(struct fake_driver *d, const uint8_t *p)
{
    uint8_t *h = fake_guest_ptr(
        &d->guest, FAKE_GUEST_BASE + HEADERS + (p[0] % 16) * 16u, 16);
    uint64_t sector = num_get_le16(p + 2);

    num_put_le32(h, p[1]);
    num_put_le64(h + 8,
                 sector & 0x8000 ? UINT64_MAX - (sector & 0x7fff) : sector);
}

static void put_segment(struct fake_driver *d, const uint8_t *p)
{
    uint8_t *s = fake_guest_ptr(
        &d->guest, FAKE_GUEST_BASE + SEGMENTS + (p[0] % 32) * 16u, 16);

    num_put_le64(s, (uint64_t)p[0] * 8);
    num_put_le32(s + 8, p[1]);
    num_put_le32(s + 12, p[2]);
}

static void step(struct fake_driver *d, unsigned op, const uint8_t *p)
{
    switch (op) {
    case 0:
        put_desc(d, p);
        break;
    case 1:
        put_header(d, p);
        break;
    case 2:
        fake_queue_publish(&d->queues[0], p[0] % 17);
        fake_driver_kick_force(d, 0);
        require(virtqueue_check(&d->mmio.dev->queues[0]));
        break;
    case 3:
        *(uint8_t *)fake_guest_ptr(&d->guest, FAKE_GUEST_BASE + num_get_le16(p),
                                   1) = p[2];
        break;
    case 4:
        put_segment(d, p);
        break;
    default:
        start(d);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t lens[] = {6, 4, 1, 3, 3, 0};
    struct virtio_device *dev = make_device();
    const struct block_backend *b = virtio_blk_backend(dev);
    struct fake_driver d;

    fake_driver_init(&d, dev, MEMORY);
    start(&d);
    while (size > 0) {
        unsigned op = data[0] % ARRAY_SIZE(lens);

        if (size < 1 + lens[op])
            break;
        step(&d, op, data + 1);
        data += 1 + lens[op];
        size -= 1 + lens[op];
    }
    require(b->stats.clusters_present <= 2);
    fake_driver_fini(&d);
    return 0;
}
