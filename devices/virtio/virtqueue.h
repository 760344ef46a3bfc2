/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues (VirtIO 1.2, 2.7): the one place where descriptor chains
 * are walked and rings are read or written.
 *
 *   driver                                          device (this module)
 *   desc[size]   16 bytes each: addr len flags next   read, copied out once
 *   avail        flags idx ring[size] used_event      read; idx by acquire
 *   used         flags idx ring[size] avail_event     written; idx by release
 *
 * What is refused (and breaks the queue, see `broken`): an avail.idx more than
 * size ahead; a head, next or table index out of range; a chain longer than the
 * queue is deep (so: loops); a readable descriptor behind a writable one; a
 * range that is not wholly inside guest memory; INDIRECT that was not
 * negotiated, is nested, has a length of 0 or not a multiple of 16, or more
 * entries than the queue is deep; INDIRECT together with NEXT. A descriptor of
 * length 0 is refused as well, and a chain of more than 2^32 bytes (2.7.5.2).
 *
 * Where pages that the machine changes are recorded (guest_mem_mark_dirty),
 * this module records the used ring, and the writable buffers of every chain it
 * hands out.
 *
 * Geometry is written by the transport while the queue is not ready and frozen
 * when the driver sets DRIVER_OK. Every popped chain is pushed exactly once.
 *
 * Owner: the device thread (after activation); no locking in here.
 */
#ifndef MICROSBX_DEVICES_VIRTIO_VIRTQUEUE_H
#define MICROSBX_DEVICES_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/codec.h"
#include "devices/guest_mem.h"

#define VIRTQUEUE_SIZE_MAX 256u

struct virtqueue {
    /* Geometry: from the transport. */
    uint16_t size_max; /* what the device offers; a power of two */
    uint16_t size;
    gpa_t desc;
    gpa_t avail;
    gpa_t used;
    bool ready; /* QueueReady */

    /* Running state, valid after virtqueue_activate. */
    const struct guest_mem *mem;
    bool event_idx; /* VIRTIO_F_EVENT_IDX negotiated */
    bool indirect;  /* VIRTIO_F_INDIRECT_DESC negotiated */
    bool broken;    /* the driver broke the rules: nothing more is popped */
    uint16_t last_avail_idx;
    uint16_t avail_idx; /* avail.idx as last read and checked */
    uint16_t used_idx;
    uint16_t signalled_used; /* used_idx at the last notification decision */
    bool signalled_used_valid;
    uint16_t in_flight; /* popped and not yet pushed */
    /* Host addresses, translated once at activation (lengths checked then). */
    uint8_t *desc_ptr;
    uint8_t *avail_ptr;
    uint8_t *used_ptr;
};

/* One popped request: readable parts first, then writable ones. */
struct desc_chain {
    uint16_t head;
    unsigned readable_count;
    unsigned writable_count;
    uint64_t readable_len;
    uint64_t writable_len;
    struct iovec iov[VIRTQUEUE_SIZE_MAX]; /* into guest memory, all checked */
};

/* Back to "not ready", with only size_max kept. */
void virtqueue_reset(struct virtqueue *vq);

/*
 * Checks the geometry (size a power of two up to size_max; desc aligned to 16,
 * avail to 2, used to 4; all inside guest memory), translates the rings and
 * starts at index 0. Pre: ready. Returns 0 or -EINVAL.
 */
int virtqueue_activate(struct virtqueue *vq, const struct guest_mem *mem,
                       bool event_idx, bool indirect)
    __attribute__((warn_unused_result));

/*
 * Takes the next chain. Returns 1 and fills *ret_chain, 0 if the queue is
 * empty (or not active, or broken before), or -EPROTO: the queue is now broken
 * and the device must ask for a reset (virtio_device_needs_reset).
 */
int virtqueue_pop(struct virtqueue *vq, struct desc_chain *ret_chain)
    __attribute__((warn_unused_result));

/*
 * Looks whether a chain is waiting, without taking it. After
 * virtqueue_disable_kicks / _enable_kicks this closes the race with a driver
 * that adds a buffer at the same moment.
 */
bool virtqueue_has_work(struct virtqueue *vq);

/*
 * Gives back the n chains popped last, unserved: they will be popped again.
 * Pre: none of these n has been pushed. Nothing happens to a queue that is not
 * active or is broken.
 */
void virtqueue_unpop(struct virtqueue *vq, uint16_t n);

/* Returns a popped chain, with the number of bytes written into it. */
void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written);

/*
 * True if the driver wants an interrupt for what was pushed since the last
 * call (VirtIO 1.2, 2.7.7 and 2.7.10). Call once after a batch of pushes.
 */
bool virtqueue_needs_interrupt(struct virtqueue *vq);

/*
 * Tells the driver that it need not kick while we are polling, or that it
 * must again. _enable returns true if work arrived in between: pop again.
 */
void virtqueue_disable_kicks(struct virtqueue *vq);
bool virtqueue_enable_kicks(struct virtqueue *vq);

/*
 * Asks for a kick as soon as the driver adds another buffer, though others wait
 * in the queue that nobody took (_enable_kicks asks for one past those that
 * were taken). Returns how far the driver has got by now, for
 * virtqueue_has_grown; 0 if the queue is not active.
 */
uint16_t virtqueue_kick_on_next(struct virtqueue *vq);
/* True if the driver added a buffer since then, or the queue is not active. */
bool virtqueue_has_grown(const struct virtqueue *vq, uint16_t since);

/*
 * Saves geometry and indices. Pre: no chain is in flight, or the queue is
 * broken (of a broken queue nothing is saved but that).
 */
void virtqueue_save(const struct virtqueue *vq, struct state_writer *w);
/*
 * Loads what _save wrote. Pre: the queue was reset. A queue that was active is
 * active again, checked like in _activate, at its saved indices; guest memory
 * is not touched. 0, or -EBADMSG: the queue must be reset.
 */
int virtqueue_load(struct virtqueue *vq, struct state_reader *r,
                   const struct guest_mem *mem, bool event_idx, bool indirect)
    __attribute__((warn_unused_result));
/* Between a successful activation (or load of one) and a reset. */
bool virtqueue_is_active(const struct virtqueue *vq);

/*
 * Copies len bytes at offset of the readable part into buf, or of buf into
 * the writable part. 0, or -ERANGE if the part is too short (nothing copied).
 */
int desc_chain_read(const struct desc_chain *chain, uint64_t offset, void *buf,
                    size_t len) __attribute__((warn_unused_result));
int desc_chain_write(const struct desc_chain *chain, uint64_t offset,
                     const void *buf, size_t len)
    __attribute__((warn_unused_result));

/* The writable iovecs of a chain. */
const struct iovec *desc_chain_writable(const struct desc_chain *chain);

/*
 * Selects [offset, offset + len) of an iovec list into out (room for
 * VIRTQUEUE_SIZE_MAX). Returns the count, or -ERANGE if the list is shorter.
 */
int iov_slice(const struct iovec *iov, unsigned count, uint64_t offset,
              uint64_t len, struct iovec *out)
    __attribute__((warn_unused_result));

/* The invariants of a queue; for tests, fuzzers and assertions. */
bool virtqueue_check(const struct virtqueue *vq);

#endif
