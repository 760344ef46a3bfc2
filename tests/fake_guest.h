/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fake guest for unit tests and fuzzers: ordinary memory with guard pages on
 * both sides, a driver's half of split virtqueues, and a driver that brings a
 * device up, through virtio-mmio registers or directly. No KVM, no threads:
 * a kick runs the device before it returns.
 *
 * Test code only: a mistake of the test's own (out of guest memory, a full
 * queue where none may be full) aborts.
 *
 *   struct fake_driver d;
 *   fake_driver_init(&d, dev, 0);                 // takes dev; 1 MiB of memory
 *   fake_driver_start(&d, FEATURE_BITS, 64);      // registers up to DRIVER_OK
 *   gpa_t buf = fake_guest_alloc(&d.guest, 512, 16);
 *   struct fake_buf bufs[] = { { hdr, 16, false }, { buf, 512, true } };
 *   uint32_t written = fake_driver_request(&d, 0, bufs, 2);
 *   fake_driver_fini(&d);                         // frees the device too
 */
#ifndef MICROSBX_TESTS_FAKE_GUEST_H
#define MICROSBX_TESTS_FAKE_GUEST_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "devices/bus.h"
#include "devices/guest_mem.h"
#include "devices/virtio/virtio_device.h"
#include "devices/virtio/virtio_mmio.h"

#define FAKE_GUEST_BASE 0x100000u   /* gpa of the first byte */
#define FAKE_GUEST_SIZE (1u << 20)  /* when 0 is asked for */
#define FAKE_GUEST_GUARD (1u << 16) /* inaccessible bytes on either side */

/*
 * Between these two no allocation of this process succeeds (libcheck's own
 * included: keep results and assert afterwards). _begin is false where the
 * allocator cannot be starved: AddressSanitizer's aborts instead.
 */
bool fake_out_of_memory_begin(void);
void fake_out_of_memory_end(void);

/* ---- memory ------------------------------------------------------------- */

struct fake_guest {
    struct guest_mem mem; /* one region: FAKE_GUEST_BASE, size */
    uint8_t *mapping;     /* owned: guard, memory, guard */
    uint64_t size;
    gpa_t next; /* bump allocator; nothing is freed */
};

/* size is rounded up to a page; 0 means FAKE_GUEST_SIZE. Memory is zero. */
void fake_guest_init(struct fake_guest *guest, uint64_t size);
void fake_guest_fini(struct fake_guest *guest);
/* len zero bytes of guest memory. align: a power of two. */
gpa_t fake_guest_alloc(struct fake_guest *guest, uint64_t len, uint64_t align);
/* Allocates len bytes and fills them. */
gpa_t fake_guest_put(struct fake_guest *guest, const void *bytes, size_t len);
/* Host pointer to checked guest memory. */
void *fake_guest_ptr(const struct fake_guest *guest, gpa_t gpa, uint64_t len);

/* ---- the driver's half of a virtqueue ------------------------------------ */

#define FAKE_DESC_NEXT 1u
#define FAKE_DESC_WRITE 2u
#define FAKE_DESC_INDIRECT 4u

/* A descriptor as it lies in guest memory (the tests run little-endian). */
struct fake_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

struct fake_buf {
    gpa_t addr;
    uint32_t len;
    bool writable; /* by the device */
};

struct fake_queue {
    struct fake_guest *guest; /* borrowed */
    uint16_t size;
    gpa_t desc;
    gpa_t avail;
    gpa_t used;
    bool event_idx;
    uint16_t avail_idx;     /* of the next entry the driver will publish */
    uint16_t kicked_idx;    /* avail_idx at the last kick decision */
    uint16_t last_used_idx; /* next used entry to look at */
    uint16_t free_count;
    uint16_t free_list[VIRTQUEUE_SIZE_MAX]; /* stack of descriptor indices */
    uint16_t chain_len[VIRTQUEUE_SIZE_MAX]; /* by head; 0: not in flight */
};

/* Allocates zeroed rings. size: a power of two up to VIRTQUEUE_SIZE_MAX. */
void fake_queue_init(struct fake_queue *q, struct fake_guest *guest,
                     uint16_t size);

/* Typed views of the rings, for tests that write what no driver would. */
struct fake_desc *fake_queue_desc(const struct fake_queue *q, unsigned index);
volatile uint16_t *fake_queue_avail_flags(const struct fake_queue *q);
volatile uint16_t *fake_queue_avail_idx(const struct fake_queue *q);
volatile uint16_t *fake_queue_avail_ring(const struct fake_queue *q,
                                         unsigned slot);
volatile uint16_t *fake_queue_used_event(const struct fake_queue *q);
volatile uint16_t *fake_queue_used_flags(const struct fake_queue *q);
volatile uint16_t *fake_queue_used_idx(const struct fake_queue *q);
volatile uint16_t *fake_queue_avail_event(const struct fake_queue *q);

/*
 * Makes a chain of count buffers available (not kicked). Returns its head, or
 * -1 if there are too few free descriptors. _indirect uses one descriptor and
 * a fresh table (which is not given back: the allocator only grows).
 */
int fake_queue_add(struct fake_queue *q, const struct fake_buf *bufs,
                   unsigned count);
int fake_queue_add_indirect(struct fake_queue *q, const struct fake_buf *bufs,
                            unsigned count);
/* Publishes head as it is, valid or not; no descriptor is written. */
void fake_queue_publish(struct fake_queue *q, uint16_t head);

/* Whether the device wants a kick for what was added since the last call. */
bool fake_queue_should_kick(struct fake_queue *q);

/*
 * Takes one used entry: true, its head and length (either pointer may be
 * NULL), and frees its descriptors. Aborts on a head that is not in flight:
 * the device returned a chain twice.
 */
bool fake_queue_collect(struct fake_queue *q, uint16_t *ret_head,
                        uint32_t *ret_len);
/* Used entries not yet collected. */
unsigned fake_queue_used_count(const struct fake_queue *q);

/*
 * Asks for an interrupt at the next used entry, or for none. With EVENT_IDX
 * true sets used_event to the next entry, false to one far behind.
 */
void fake_queue_want_interrupts(struct fake_queue *q, bool want);

/* ---- a driver ------------------------------------------------------------ */

struct fake_driver {
    struct fake_guest guest;
    struct virtio_mmio mmio; /* owns the device */
    pthread_mutex_t lock;    /* the device lock */
    struct fake_queue queues[VIRTIO_QUEUES_MAX];
    uint64_t features;   /* accepted */
    unsigned interrupts; /* times the line was raised */
};

/* Takes ownership of dev. memory 0: FAKE_GUEST_SIZE. */
void fake_driver_init(struct fake_driver *d, struct virtio_device *dev,
                      uint64_t memory);
/* Ends the device as well. */
void fake_driver_fini(struct fake_driver *d);

/*
 * Reset, negotiation, every queue with the given size, DRIVER_OK: all by
 * register accesses in the order of VirtIO 1.2, 3.1.1. features is cut down
 * to what is offered; VERSION_1 is added. Can be called again (a driver that
 * starts over); queues are then new ones. Aborts if the device refuses.
 */
void fake_driver_start(struct fake_driver *d, uint64_t features,
                       uint16_t queue_size);
/* Writes 0 to Status. */
void fake_driver_reset(struct fake_driver *d);

uint32_t fake_driver_read(struct fake_driver *d, uint32_t reg);
void fake_driver_write(struct fake_driver *d, uint32_t reg, uint32_t value);
/* Configuration space; size 1, 2, 4 or 8. */
uint64_t fake_driver_config(struct fake_driver *d, uint32_t offset,
                            unsigned size);
bool fake_driver_needs_reset(struct fake_driver *d);

/* Writes QueueNotify if the device wants a kick; _force always does. */
void fake_driver_kick(struct fake_driver *d, unsigned queue);
void fake_driver_kick_force(struct fake_driver *d, unsigned queue);

/*
 * Adds one chain, kicks, and collects: the device must answer within the kick.
 * Returns the used length; aborts if no entry came.
 */
uint32_t fake_driver_request(struct fake_driver *d, unsigned queue,
                             const struct fake_buf *bufs, unsigned count);

/* ---- another monitor goes on with the guest ------------------------------ */

#define FAKE_STATE_MAX 8192u

struct fake_state {
    uint8_t bytes[FAKE_STATE_MAX];
    size_t len;
};

/* Quiesces and saves. Aborts if a queue is not as it should be then. */
void fake_driver_save(struct fake_driver *d, struct fake_state *ret_state);
/*
 * Ends the device and puts a fresh one (owned) into the slot; memory, rings and
 * what the driver knows stay.
 */
void fake_driver_replace(struct fake_driver *d, struct virtio_device *dev);
/* What virtio_mmio_load says. Aborts if it touched memory or the line. */
int fake_driver_load(struct fake_driver *d, const void *state, size_t len);
/*
 * Saves, replaces the device and loads; aborts unless that succeeds and saving
 * again gives the same bytes. The device has still to be told (_restored).
 */
void fake_driver_move(struct fake_driver *d, struct virtio_device *dev);

/* ---- without a transport ------------------------------------------------- */

/*
 * Activates queue `index` of dev on q's rings, as the transport would at
 * DRIVER_OK. For tests of queues and of devices without virtio-mmio. Aborts if
 * the geometry is refused.
 */
void fake_queue_attach(struct fake_queue *q, struct virtqueue *vq,
                       bool event_idx, bool indirect);

#endif
