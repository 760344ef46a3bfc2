/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks for unit tests: files without a name, overlays over them, and plain
 * reads and writes. Uses libcheck's assertions: a failure fails the test.
 */
#ifndef MICROSBX_TESTS_BLK_DISK_H
#define MICROSBX_TESTS_BLK_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "devices/blk/block_backend.h"
#include "devices/blk/cow_overlay.h"

#define SECTOR 512u
#define CLUSTER COW_CLUSTER_SIZE

/* A repeatable generator; one state for a test. */
extern uint64_t blk_random_state;
uint32_t blk_random(uint32_t bound);

/* An empty file in memory, or on the disk that /tmp is on. */
int blk_memfd(void);
int blk_tmpfile(void);
/* A file in memory with these bytes, or of size zeros (bytes NULL). */
int blk_disk(const void *bytes, uint64_t size);

/* Backends over duplicates of fd: the caller keeps his own. */
struct block_backend *blk_raw(int fd, bool readonly);
int blk_try_overlay(int base_fd, int fd, uint64_t limit, bool durable,
                    struct block_backend **ret_backend);
struct block_backend *blk_overlay(int base_fd, int fd, uint64_t limit,
                                  bool durable);

int blk_write(struct block_backend *b, void *bytes, size_t len,
              uint64_t offset);
int blk_read(struct block_backend *b, void *bytes, size_t len, uint64_t offset);

/* A range of whole sectors that likes to touch the edges of clusters. */
void blk_random_range(uint32_t sectors, uint64_t *ret_offset,
                      uint64_t *ret_len);

#endif
