/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues: the walk over descriptor chains, the two rings, and the
 * notification suppression of both sides. Knows no device and no transport.
 *
 * Everything the driver wrote is read exactly once, into a local, and only the
 * local is checked and used: the driver may rewrite it at any moment.
 */
#include "devices/virtio/virtqueue.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "base/state_field.h"

/* VirtIO 1.2, 2.7.5 to 2.7.8. */
#define DESC_SIZE 16u
#define DESC_F_NEXT 1u
#define DESC_F_WRITE 2u
#define DESC_F_INDIRECT 4u
#define CHAIN_LEN_MAX ((uint64_t)1 << 32)
#define AVAIL_F_NO_INTERRUPT 1u
#define USED_F_NO_NOTIFY 1u

/* Both rings: u16 flags, u16 idx, then the ring. */
#define RING_FLAGS 0u
#define RING_IDX 2u
#define RING_START 4u
#define AVAIL_ELEM_SIZE 2u
#define USED_ELEM_SIZE 8u

/* Guest memory as integers, whatever else has been stored there. */
typedef uint16_t __attribute__((may_alias)) ring_u16;
typedef uint32_t __attribute__((may_alias)) ring_u32;

/*
 * A descriptor in guest memory. Packed, because the address of an indirect
 * table has no alignment; volatile where it is used, so that each field is
 * loaded once and never again after it was checked.
 */
struct guest_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
} __attribute__((packed, may_alias));

/* The host's copy of one descriptor. */
struct desc {
    gpa_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

static uint16_t load_u16(const uint8_t *p)
{
    const ring_u16 *q = (const ring_u16 *)p;

    return le16toh(__atomic_load_n(q, __ATOMIC_RELAXED));
}

static uint16_t load_u16_acquire(const uint8_t *p)
{
    const ring_u16 *q = (const ring_u16 *)p;

    return le16toh(__atomic_load_n(q, __ATOMIC_ACQUIRE));
}

static void store_u16(uint8_t *p, uint16_t value)
{
    __atomic_store_n((ring_u16 *)p, htole16(value), __ATOMIC_RELAXED);
}

static void store_u16_release(uint8_t *p, uint16_t value)
{
    __atomic_store_n((ring_u16 *)p, htole16(value), __ATOMIC_RELEASE);
}

static void store_u32(uint8_t *p, uint32_t value)
{
    __atomic_store_n((ring_u32 *)p, htole32(value), __ATOMIC_RELAXED);
}

static struct desc load_desc(const uint8_t *table, unsigned index)
{
    const volatile struct guest_desc *g =
        (const volatile struct guest_desc *)(table + (size_t)index * DESC_SIZE);

    return (struct desc){.addr = le64toh(g->addr),
                         .len = le32toh(g->len),
                         .flags = le16toh(g->flags),
                         .next = le16toh(g->next)};
}

static uint8_t *used_event_ptr(const struct virtqueue *vq)
{
    return vq->avail_ptr + RING_START + (size_t)vq->size * AVAIL_ELEM_SIZE;
}

static uint8_t *avail_event_ptr(const struct virtqueue *vq)
{
    return vq->used_ptr + RING_START + (size_t)vq->size * USED_ELEM_SIZE;
}

static bool is_active(const struct virtqueue *vq)
{
    return vq->desc_ptr && !vq->broken;
}

/* A field of the used ring is written: its page has changed. */
static void mark_used(const struct virtqueue *vq, const uint8_t *p,
                      uint64_t len)
{
    guest_mem_mark_dirty(vq->mem, vq->used + (uint64_t)(p - vq->used_ptr), len);
}

static void store_used_flags(struct virtqueue *vq, uint16_t value)
{
    mark_used(vq, vq->used_ptr + RING_FLAGS, sizeof(value));
    store_u16(vq->used_ptr + RING_FLAGS, value);
}

static void store_avail_event(struct virtqueue *vq, uint16_t value)
{
    uint8_t *p = avail_event_ptr(vq);

    mark_used(vq, p, sizeof(value));
    store_u16(p, value);
}

void virtqueue_reset(struct virtqueue *vq)
{
    *vq = (struct virtqueue){.size_max = vq->size_max};
}

/* Translates one ring. NULL if it is misaligned or not inside one region. */
static uint8_t *map_ring(const struct guest_mem *mem, gpa_t gpa, uint64_t len,
                         unsigned align)
{
    uint8_t *p;

    if (gpa % align != 0)
        return NULL;
    p = guest_mem_ptr(mem, gpa, len);
    /* A region whose mapping is less aligned than its guest address. */
    if ((uintptr_t)p % align != 0)
        return NULL;
    return p;
}

int virtqueue_activate(struct virtqueue *vq, const struct guest_mem *mem,
                       bool event_idx, bool indirect)
{
    uint64_t size = vq->size;
    uint8_t *desc, *avail, *used;

    if (!vq->ready || size == 0 || (size & (size - 1)) != 0 ||
        size > vq->size_max || size > VIRTQUEUE_SIZE_MAX)
        return -EINVAL;
    desc = map_ring(mem, vq->desc, DESC_SIZE * size, 16);
    avail = map_ring(mem, vq->avail, 6 + AVAIL_ELEM_SIZE * size, 2);
    used = map_ring(mem, vq->used, 6 + USED_ELEM_SIZE * size, 4);
    if (!desc || !avail || !used)
        return -EINVAL;

    vq->mem = mem;
    vq->event_idx = event_idx;
    vq->indirect = indirect;
    vq->broken = false;
    vq->last_avail_idx = 0;
    vq->avail_idx = 0;
    vq->used_idx = 0;
    vq->signalled_used = 0;
    vq->signalled_used_valid = true;
    vq->in_flight = 0;
    vq->desc_ptr = desc;
    vq->avail_ptr = avail;
    vq->used_ptr = used;
    return 0;
}

/*
 * Reads how far the driver has got. False if it claims more than can be: what
 * it has made available and we have not yet returned fits in the queue, since
 * each of these chains holds at least one descriptor. An idx that went back is
 * refused by the same comparison.
 */
static bool refresh_avail_idx(struct virtqueue *vq)
{
    /*
     * Acquire, against the driver's write barrier before it stores idx: the
     * ring entries and descriptors below idx are read after it, never stale.
     */
    uint16_t idx = load_u16_acquire(vq->avail_ptr + RING_IDX);

    if ((uint16_t)(idx - vq->last_avail_idx) >
        (uint16_t)(vq->size - vq->in_flight))
        return false;
    vq->avail_idx = idx;
    return true;
}

/* Appends one buffer. 0 or -EPROTO. */
static int chain_append(const struct virtqueue *vq, struct desc_chain *chain,
                        const struct desc *d)
{
    unsigned count = chain->readable_count + chain->writable_count;
    void *p;

    /* Also what ends a loop: it has no end, the queue has. */
    if (count >= vq->size)
        return -EPROTO;
    p = guest_mem_ptr(vq->mem, d->addr, d->len);
    if (!p ||
        chain->readable_len + chain->writable_len + d->len > CHAIN_LEN_MAX)
        return -EPROTO;
    chain->iov[count] = (struct iovec){.iov_base = p, .iov_len = d->len};
    if (d->flags & DESC_F_WRITE) {
        /* The device writes by the iovec: this is where we know the address. */
        guest_mem_mark_dirty(vq->mem, d->addr, d->len);
        chain->writable_count++;
        chain->writable_len += d->len;
        return 0;
    }
    if (chain->writable_count > 0)
        return -EPROTO; /* VirtIO 1.2, 2.7.4.2: readable ones come first */
    chain->readable_count++;
    chain->readable_len += d->len;
    return 0;
}

/* The table a descriptor with INDIRECT points to (VirtIO 1.2, 2.7.5.3). */
static int walk_indirect(const struct virtqueue *vq, struct desc_chain *chain,
                         const struct desc *table_desc)
{
    uint32_t entries = table_desc->len / DESC_SIZE;
    const uint8_t *table;
    unsigned index = 0;

    if (!vq->indirect || (table_desc->flags & DESC_F_NEXT) || entries == 0 ||
        table_desc->len % DESC_SIZE != 0 || entries > vq->size)
        return -EPROTO;
    table = guest_mem_ptr(vq->mem, table_desc->addr, table_desc->len);
    if (!table)
        return -EPROTO;
    for (;;) {
        struct desc d = load_desc(table, index);

        if (d.flags & DESC_F_INDIRECT)
            return -EPROTO;
        if (chain_append(vq, chain, &d) < 0)
            return -EPROTO;
        if (!(d.flags & DESC_F_NEXT))
            return 0;
        if (d.next >= entries)
            return -EPROTO;
        index = d.next;
    }
}

static int walk_chain(const struct virtqueue *vq, struct desc_chain *chain)
{
    unsigned index = chain->head;

    for (;;) {
        struct desc d;

        if (index >= vq->size)
            return -EPROTO;
        d = load_desc(vq->desc_ptr, index);
        if (d.flags & DESC_F_INDIRECT)
            return walk_indirect(vq, chain, &d);
        if (chain_append(vq, chain, &d) < 0)
            return -EPROTO;
        if (!(d.flags & DESC_F_NEXT))
            return 0;
        index = d.next;
    }
}

int virtqueue_pop(struct virtqueue *vq, struct desc_chain *ret_chain)
{
    size_t slot;

    if (!is_active(vq))
        return 0;
    if (vq->avail_idx == vq->last_avail_idx) {
        if (!refresh_avail_idx(vq))
            goto out_broken;
        if (vq->avail_idx == vq->last_avail_idx)
            return 0;
    }
    slot = vq->last_avail_idx & (vq->size - 1u);
    ret_chain->head =
        load_u16(vq->avail_ptr + RING_START + slot * AVAIL_ELEM_SIZE);
    ret_chain->readable_count = 0;
    ret_chain->writable_count = 0;
    ret_chain->readable_len = 0;
    ret_chain->writable_len = 0;
    if (walk_chain(vq, ret_chain) < 0)
        goto out_broken;
    vq->last_avail_idx++;
    vq->in_flight++;
    return 1;
out_broken:
    vq->broken = true;
    return -EPROTO;
}

void virtqueue_unpop(struct virtqueue *vq, uint16_t n)
{
    if (!is_active(vq))
        return;
    assert(n <= vq->in_flight);
    vq->last_avail_idx = (uint16_t)(vq->last_avail_idx - n);
    vq->in_flight = (uint16_t)(vq->in_flight - n);
}

bool virtqueue_has_work(struct virtqueue *vq)
{
    if (!is_active(vq))
        return false;
    /* An impossible index counts as work: pop finds it and says so. */
    if (vq->avail_idx == vq->last_avail_idx)
        return load_u16_acquire(vq->avail_ptr + RING_IDX) != vq->last_avail_idx;
    return true;
}

void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written)
{
    uint8_t *elem;

    /* A device that returns its chains after the driver broke the queue. */
    if (!is_active(vq))
        return;
    assert(vq->in_flight > 0 && head < vq->size);
    elem = vq->used_ptr + RING_START +
           (size_t)(vq->used_idx & (vq->size - 1u)) * USED_ELEM_SIZE;
    mark_used(vq, elem, USED_ELEM_SIZE);
    mark_used(vq, vq->used_ptr + RING_IDX, sizeof(vq->used_idx));
    store_u32(elem, head);
    store_u32(elem + 4, written);
    vq->used_idx++;
    vq->in_flight--;
    /*
     * Release, against the driver's read barrier after it loads idx: it sees
     * the entry above, and the data the device wrote, before the new idx.
     */
    store_u16_release(vq->used_ptr + RING_IDX, vq->used_idx);
    /* 65536 pushes without a decision: "since when" has lost its meaning. */
    if (vq->used_idx == vq->signalled_used)
        vq->signalled_used_valid = false;
}

bool virtqueue_needs_interrupt(struct virtqueue *vq)
{
    uint16_t old = vq->signalled_used;
    uint16_t new = vq->used_idx;
    bool valid = vq->signalled_used_valid;

    if (!is_active(vq) || (valid && old == new))
        return false;
    vq->signalled_used = new;
    vq->signalled_used_valid = true;
    /*
     * Full fence: our store of used.idx before our load of what the driver
     * wants. The driver does the reverse (asks for an interrupt, fence, looks
     * at used.idx again). Without it both could see the old value, and a
     * buffer would lie in the ring with nobody told.
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!vq->event_idx)
        return !(load_u16(vq->avail_ptr + RING_FLAGS) & AVAIL_F_NO_INTERRUPT);
    if (!valid)
        return true;
    /* VirtIO 1.2, 2.7.7.2: has used_event been passed in (old, new]? */
    return (uint16_t)(new - load_u16(used_event_ptr(vq)) - 1) <
           (uint16_t)(new - old);
}

void virtqueue_disable_kicks(struct virtqueue *vq)
{
    if (!is_active(vq))
        return;
    /*
     * With EVENT_IDX there is nothing to do: avail_event stays at an index
     * that lies behind, and the driver kicks only when it passes it.
     */
    if (!vq->event_idx)
        store_used_flags(vq, USED_F_NO_NOTIFY);
}

bool virtqueue_enable_kicks(struct virtqueue *vq)
{
    if (!is_active(vq))
        return false;
    if (vq->event_idx)
        store_avail_event(vq, vq->last_avail_idx);
    else
        store_used_flags(vq, 0);
    /*
     * Full fence: our request for kicks before our last look at avail.idx. A
     * driver that adds a buffer at this moment either sees the request and
     * kicks, or its buffer is seen here; never neither.
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return virtqueue_has_work(vq);
}

uint16_t virtqueue_kick_on_next(struct virtqueue *vq)
{
    uint16_t idx;

    if (!is_active(vq))
        return 0;
    idx = load_u16_acquire(vq->avail_ptr + RING_IDX);
    if (vq->event_idx)
        store_avail_event(vq, idx);
    else
        store_used_flags(vq, 0);
    /*
     * Full fence, as in _enable_kicks: a driver that adds a buffer at this
     * moment sees the request and kicks, or _has_grown sees the buffer.
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return idx;
}

bool virtqueue_has_grown(const struct virtqueue *vq, uint16_t since)
{
    return !is_active(vq) ||
           load_u16_acquire(vq->avail_ptr + RING_IDX) != since;
}

/*
 * Copies between buf and [offset, offset + len) of a list that is known to be
 * long enough. to_buf false: from buf into the list.
 */
static void iov_copy(const struct iovec *iov, uint64_t offset, uint8_t *to,
                     const uint8_t *from, size_t len)
{
    for (size_t done = 0; done < len; iov++) {
        size_t part;

        if (offset >= iov->iov_len) {
            offset -= iov->iov_len;
            continue;
        }
        part = iov->iov_len - (size_t)offset;
        if (part > len - done)
            part = len - done;
        if (to)
            memcpy(to + done, (uint8_t *)iov->iov_base + offset, part);
        else
            memcpy((uint8_t *)iov->iov_base + offset, from + done, part);
        done += part;
        offset = 0;
    }
}

static bool part_holds(uint64_t part_len, uint64_t offset, uint64_t len)
{
    return offset <= part_len && len <= part_len - offset;
}

int desc_chain_read(const struct desc_chain *chain, uint64_t offset, void *buf,
                    size_t len)
{
    if (!part_holds(chain->readable_len, offset, len))
        return -ERANGE;
    iov_copy(chain->iov, offset, buf, NULL, len);
    return 0;
}

int desc_chain_write(const struct desc_chain *chain, uint64_t offset,
                     const void *buf, size_t len)
{
    if (!part_holds(chain->writable_len, offset, len))
        return -ERANGE;
    iov_copy(desc_chain_writable(chain), offset, NULL, buf, len);
    return 0;
}

const struct iovec *desc_chain_writable(const struct desc_chain *chain)
{
    return chain->iov + chain->readable_count;
}

int iov_slice(const struct iovec *iov, unsigned count, uint64_t offset,
              uint64_t len, struct iovec *out)
{
    unsigned used = 0;

    for (unsigned i = 0; i < count && len > 0; i++) {
        uint64_t part = iov[i].iov_len;

        if (offset >= part) {
            offset -= part;
            continue;
        }
        part -= offset;
        if (part > len)
            part = len;
        out[used++] = (struct iovec){
            .iov_base = (uint8_t *)iov[i].iov_base + offset,
            .iov_len = (size_t)part,
        };
        offset = 0;
        len -= part;
    }
    return len > 0 ? -ERANGE : (int)used;
}

/* What the transport set, and whether it is still in use. */
static const struct state_field geometry_fields[] = {
    STATE_FIELD(struct virtqueue, size),  STATE_FIELD(struct virtqueue, desc),
    STATE_FIELD(struct virtqueue, avail), STATE_FIELD(struct virtqueue, used),
    STATE_FIELD(struct virtqueue, ready), STATE_FIELD(struct virtqueue, broken),
};

/* How far a queue that works has got; in_flight is 0. */
static const struct state_field index_fields[] = {
    STATE_FIELD(struct virtqueue, last_avail_idx),
    STATE_FIELD(struct virtqueue, avail_idx),
    STATE_FIELD(struct virtqueue, used_idx),
    STATE_FIELD(struct virtqueue, signalled_used),
    STATE_FIELD(struct virtqueue, signalled_used_valid),
};

void virtqueue_save(const struct virtqueue *vq, struct state_writer *w)
{
    state_put_fields(w, vq, geometry_fields, ARRAY_SIZE(geometry_fields));
    state_put_u8(w, virtqueue_is_active(vq));
    if (!is_active(vq))
        return;
    assert(vq->in_flight == 0);
    state_put_fields(w, vq, index_fields, ARRAY_SIZE(index_fields));
}

static bool geometry_can_be(const struct virtqueue *vq)
{
    return (vq->size & (vq->size - 1)) == 0 && vq->size <= vq->size_max &&
           (!vq->ready || vq->size > 0);
}

int virtqueue_load(struct virtqueue *vq, struct state_reader *r,
                   const struct guest_mem *mem, bool event_idx, bool indirect)
{
    uint8_t active;
    bool broken;

    state_get_fields(r, vq, geometry_fields, ARRAY_SIZE(geometry_fields));
    active = state_get_u8(r);
    if (r->error != 0 || active > 1 || !geometry_can_be(vq))
        return -EBADMSG;
    if (!active)
        return 0;
    broken = vq->broken;
    if (virtqueue_activate(vq, mem, event_idx, indirect) < 0)
        return -EBADMSG;
    vq->broken = broken;
    if (!broken)
        state_get_fields(r, vq, index_fields, ARRAY_SIZE(index_fields));
    return r->error == 0 && virtqueue_check(vq) ? 0 : -EBADMSG;
}

bool virtqueue_is_active(const struct virtqueue *vq)
{
    return vq->desc_ptr;
}

bool virtqueue_check(const struct virtqueue *vq)
{
    if (vq->size_max > VIRTQUEUE_SIZE_MAX)
        return false;
    if (!vq->desc_ptr) /* not active: nothing runs */
        return vq->in_flight == 0 && !vq->mem;
    return vq->ready && vq->mem && vq->avail_ptr && vq->used_ptr &&
           vq->size > 0 && vq->size <= vq->size_max &&
           (vq->size & (vq->size - 1)) == 0 && vq->in_flight <= vq->size &&
           (uint16_t)(vq->last_avail_idx - vq->used_idx) == vq->in_flight &&
           (uint16_t)(vq->avail_idx - vq->last_avail_idx) <=
               vq->size - vq->in_flight;
}
