/* SPDX-License-Identifier: Apache-2.0 */
/* A virtio-blk device with its driver; see the header. */
#include "tests/blk_rig.h"

#include <check.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"

#define RIG_MEMORY (4u << 20)
#define STATUS_UNTOUCHED 0xee

/* Sector s of a disk is filled with this byte. */
uint8_t rig_sector_byte(uint64_t s)
{
    return (uint8_t)(s * 7 + 1);
}

static struct virtio_device *make_device(struct block_backend *b)
{
    struct virtio_device *dev = NULL;

    ck_assert_int_eq(virtio_blk_new(b, "disk-0", &dev), 0);
    return dev;
}

void rig_init_backend(struct rig *r, struct block_backend *b, uint64_t features,
                      uint16_t queue_size)
{
    fake_driver_init(&r->d, make_device(b), RIG_MEMORY);
    r->header = fake_guest_alloc(&r->d.guest, 4096, 16);
    r->data = fake_guest_alloc(&r->d.guest, 1u << 20, 4096);
    r->status = fake_guest_alloc(&r->d.guest, 1, 1);
    fake_driver_start(&r->d, features, queue_size);
}

void rig_init(struct rig *r, bool readonly, uint64_t features)
{
    uint8_t bytes[SECTOR];

    r->fd = blk_disk(NULL, DISK_SIZE);
    for (unsigned s = 0; s < DISK_SECTORS; s++) {
        memset(bytes, rig_sector_byte(s), SECTOR);
        ck_assert_int_eq(pwrite(r->fd, bytes, SECTOR, s * SECTOR), SECTOR);
    }
    rig_init_backend(r, blk_raw(r->fd, readonly), features, 256);
}

void rig_fini(struct rig *r)
{
    fake_driver_fini(&r->d);
    close(r->fd);
}

void *rig_ptr(struct rig *r, gpa_t gpa, uint64_t len)
{
    return fake_guest_ptr(&r->d.guest, gpa, len);
}

void rig_put_header(struct rig *r, uint32_t type, uint64_t sector)
{
    uint8_t *p = rig_ptr(r, r->header, 16);

    num_put_le32(p, type);
    num_put_le32(p + 4, 0);
    num_put_le64(p + 8, sector);
    memset(rig_ptr(r, r->status, 1), STATUS_UNTOUCHED, 1);
}

uint8_t rig_status(struct rig *r)
{
    return *(uint8_t *)rig_ptr(r, r->status, 1);
}

uint64_t rig_violations(struct rig *r)
{
    return atomic_load(&r->d.mmio.dev->violations);
}

/* Header, data (if len is not 0), status: the usual chain. */
uint8_t rig_request(struct rig *r, uint32_t type, uint64_t sector, uint32_t len,
                    bool data_writable, uint32_t *ret_written)
{
    struct fake_buf bufs[3] = {{r->header, 16, false}};
    unsigned n = 1;
    uint32_t written;

    rig_put_header(r, type, sector);
    if (len > 0)
        bufs[n++] = (struct fake_buf){r->data, len, data_writable};
    bufs[n++] = (struct fake_buf){r->status, 1, true};
    written = fake_driver_request(&r->d, 0, bufs, n);
    if (ret_written)
        *ret_written = written;
    return rig_status(r);
}

void rig_expect_sector(const uint8_t *p, uint8_t byte)
{
    for (unsigned i = 0; i < SECTOR; i++)
        if (p[i] != byte)
            ck_abort_msg("byte %u is %u, not %u", i, p[i], byte);
}

void rig_expect_disk(struct rig *r, uint64_t sector, uint8_t byte)
{
    uint8_t bytes[SECTOR];

    ck_assert_int_eq(pread(r->fd, bytes, SECTOR, (off_t)(sector * SECTOR)),
                     SECTOR);
    rig_expect_sector(bytes, byte);
}

void rig_put_segment(struct rig *r, unsigned index, uint64_t sector,
                     uint32_t sectors, uint32_t flags)
{
    uint8_t *p = rig_ptr(r, r->data + (uint64_t)index * 16, 16);

    num_put_le64(p, sector);
    num_put_le32(p + 8, sectors);
    num_put_le32(p + 12, flags);
}
