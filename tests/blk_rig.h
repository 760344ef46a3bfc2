/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio-blk device over a small disk, with a fake driver that sends requests
 * of the usual shape. Uses libcheck's assertions: a failure fails the test.
 */
#ifndef MICROSBX_TESTS_BLK_RIG_H
#define MICROSBX_TESTS_BLK_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/blk/virtio_blk.h"
#include "tests/blk_disk.h"
#include "tests/fake_guest.h"

#define DISK_SECTORS 256u
#define DISK_SIZE (DISK_SECTORS * SECTOR)
#define ALL_FEATURES UINT64_MAX

struct rig {
    struct fake_driver d;
    int fd; /* the disk, as the host sees it */
    gpa_t header;
    gpa_t data; /* 1 MiB */
    gpa_t status;
};

/* A raw disk whose sector s is filled with rig_sector_byte(s). */
void rig_init(struct rig *r, bool readonly, uint64_t features);
/* Over any backend (owned); the caller sets r->fd. */
void rig_init_backend(struct rig *r, struct block_backend *b, uint64_t features,
                      uint16_t queue_size);
void rig_fini(struct rig *r);

uint8_t rig_sector_byte(uint64_t s);
void *rig_ptr(struct rig *r, gpa_t gpa, uint64_t len);
uint8_t rig_status(struct rig *r);
uint64_t rig_violations(struct rig *r);

/* Writes the header, and something that is no status. */
void rig_put_header(struct rig *r, uint32_t type, uint64_t sector);
/* Writes a segment of a DISCARD or WRITE_ZEROES into the data. */
void rig_put_segment(struct rig *r, unsigned index, uint64_t sector,
                     uint32_t sectors, uint32_t flags);

/*
 * Sends header, data (if len is not 0), status, and returns the status.
 * ret_written may be NULL.
 */
uint8_t rig_request(struct rig *r, uint32_t type, uint64_t sector, uint32_t len,
                    bool data_writable, uint32_t *ret_written);

/* The sector at p, or of the host's file, is filled with byte. */
void rig_expect_sector(const uint8_t *p, uint8_t byte);
void rig_expect_disk(struct rig *r, uint64_t sector, uint8_t byte);

#endif
