/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: the only door from a guest address to bytes.
 *
 * Every access names an address *and* a length; the whole range must lie in
 * one region, else the access fails and nothing is touched. The guest runs
 * while we look, so a structure is copied out once and the copy is checked.
 *
 * Owner: the machine fills it before any vCPU or the device thread runs; it is
 * constant afterwards and may be read from every thread without a lock.
 */
#ifndef MICROSBX_DEVICES_GUEST_MEM_H
#define MICROSBX_DEVICES_GUEST_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A guest physical address; never a pointer. */
typedef uint64_t gpa_t;

#define GUEST_MEM_REGIONS_MAX 4

struct guest_mem_region {
    gpa_t base;
    uint64_t size;
    uint8_t *host; /* borrowed: the mapping belongs to the machine */
};

/* What pages are recorded in, whatever the host's own page size. */
#define GUEST_MEM_PAGE 4096u

struct guest_mem {
    struct guest_mem_region regions[GUEST_MEM_REGIONS_MAX];
    unsigned region_count;
    /*
     * Pages that the monitor itself wrote to (vCPUs' writes are KVM's to
     * record): bit p % 64 of word p / 64 for page p, counted through the
     * regions in order. guest_mem_pages() bits; borrowed; NULL: not recorded.
     * Set by several threads with atomic operations; read and cleared by the
     * machine while nothing runs.
     */
    uint64_t *dirty;
};

/*
 * Adds a region. Returns 0, -ENOSPC (too many), -EINVAL (empty, wraps around)
 * or -EEXIST (overlaps another).
 */
int guest_mem_add(struct guest_mem *mem, gpa_t base, uint64_t size,
                  uint8_t *host) __attribute__((warn_unused_result));

/*
 * The host address of [gpa, gpa + len), or NULL if any byte of it lies outside
 * guest memory or the range crosses regions. len 0 gives NULL.
 */
void *guest_mem_ptr(const struct guest_mem *mem, gpa_t gpa, uint64_t len);

/* Copies out of or into the guest: 0, or -EFAULT with nothing touched. */
int guest_mem_read(const struct guest_mem *mem, gpa_t gpa, void *ret_bytes,
                   size_t len) __attribute__((warn_unused_result));
int guest_mem_write(const struct guest_mem *mem, gpa_t gpa, const void *bytes,
                    size_t len) __attribute__((warn_unused_result));

/* Pages of all regions, each rounded up to whole pages. */
uint64_t guest_mem_pages(const struct guest_mem *mem);

/*
 * Records that [gpa, gpa + len) is being written, or may be from now on. No-op
 * where nothing is recorded, or if the range is not one that guest_mem_ptr
 * would give. Any thread.
 * (guest_mem_write does it by itself.)
 */
void guest_mem_mark_dirty(const struct guest_mem *mem, gpa_t gpa, uint64_t len);

#endif
