/* SPDX-License-Identifier: Apache-2.0 */
/* The fake guest; see the header. Test code: own mistakes abort. */
#include "tests/fake_guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define PAGE 4096u

/* VirtIO 1.2, 4.2.2 and 2.1, from the driver's side. */
#define REG_DEVICE_FEATURES 0x010u
#define REG_DEVICE_FEATURES_SEL 0x014u
#define REG_DRIVER_FEATURES 0x020u
#define REG_DRIVER_FEATURES_SEL 0x024u
#define REG_QUEUE_SEL 0x030u
#define REG_QUEUE_NUM_MAX 0x034u
#define REG_QUEUE_NUM 0x038u
#define REG_QUEUE_READY 0x044u
#define REG_INTERRUPT_STATUS 0x060u
#define REG_INTERRUPT_ACK 0x064u
#define REG_STATUS 0x070u
#define REG_QUEUE_DESC 0x080u
#define REG_QUEUE_DRIVER 0x090u
#define REG_QUEUE_DEVICE 0x0a0u
#define REG_CONFIG 0x100u
#define STATUS_ACKNOWLEDGE 1u
#define STATUS_DRIVER 2u
#define STATUS_DRIVER_OK 4u
#define STATUS_FEATURES_OK 8u
#define STATUS_NEEDS_RESET 64u

static void fail(const char *what)
{
    fprintf(stderr, "fake guest: %s\n", what);
    abort();
}

#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif

/* What the allocator held when it was starved, to be given back. */
struct hoard {
    struct hoard *next;
};
static struct hoard *hoard;
static struct rlimit memory_limit;

bool fake_out_of_memory_begin(void)
{
    struct rlimit none;

#if defined(__SANITIZE_ADDRESS__) || HAS_FEATURE(address_sanitizer)
    return false;
#endif
    if (getrlimit(RLIMIT_AS, &memory_limit) != 0)
        return false;
    none = (struct rlimit){0, memory_limit.rlim_max};
    if (setrlimit(RLIMIT_AS, &none) != 0)
        return false;
    for (size_t size = 1u << 20; size >= sizeof(*hoard); size /= 2) {
        struct hoard *piece;

        while ((piece = malloc(size)) != NULL) {
            piece->next = hoard;
            hoard = piece;
        }
    }
    return true;
}

void fake_out_of_memory_end(void)
{
    while (hoard) {
        struct hoard *piece = hoard;

        hoard = piece->next;
        free(piece);
    }
    setrlimit(RLIMIT_AS, &memory_limit);
}

/* ---- memory ---- */

void fake_guest_init(struct fake_guest *guest, uint64_t size)
{
    uint64_t bytes =
        size ? (size + PAGE - 1) & ~(uint64_t)(PAGE - 1) : FAKE_GUEST_SIZE;
    uint8_t *p = mmap(NULL, bytes + 2 * FAKE_GUEST_GUARD, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    memset(guest, 0, sizeof(*guest));
    if (p == MAP_FAILED ||
        mprotect(p + FAKE_GUEST_GUARD, bytes, PROT_READ | PROT_WRITE) != 0)
        fail("no host memory");
    guest->mapping = p;
    guest->size = bytes;
    guest->next = FAKE_GUEST_BASE;
    if (guest_mem_add(&guest->mem, FAKE_GUEST_BASE, bytes,
                      p + FAKE_GUEST_GUARD) != 0)
        fail("guest_mem_add");
}

void fake_guest_fini(struct fake_guest *guest)
{
    if (guest->mapping)
        munmap(guest->mapping, guest->size + 2 * FAKE_GUEST_GUARD);
    memset(guest, 0, sizeof(*guest));
}

gpa_t fake_guest_alloc(struct fake_guest *guest, uint64_t len, uint64_t align)
{
    gpa_t gpa = (guest->next + align - 1) & ~(align - 1);

    if (gpa + len > FAKE_GUEST_BASE + guest->size)
        fail("out of guest memory");
    guest->next = gpa + len;
    return gpa;
}

void *fake_guest_ptr(const struct fake_guest *guest, gpa_t gpa, uint64_t len)
{
    void *p = guest_mem_ptr(&guest->mem, gpa, len);

    if (!p)
        fail("address outside guest memory");
    return p;
}

gpa_t fake_guest_put(struct fake_guest *guest, const void *bytes, size_t len)
{
    gpa_t gpa = fake_guest_alloc(guest, len, 16);

    memcpy(fake_guest_ptr(guest, gpa, len), bytes, len);
    return gpa;
}

/* ---- the driver's half of a virtqueue ---- */

void fake_queue_init(struct fake_queue *q, struct fake_guest *guest,
                     uint16_t size)
{
    memset(q, 0, sizeof(*q));
    if (size == 0 || size > VIRTQUEUE_SIZE_MAX || (size & (size - 1)) != 0)
        fail("bad queue size");
    q->guest = guest;
    q->size = size;
    q->desc = fake_guest_alloc(guest, 16u * size, 16);
    q->avail = fake_guest_alloc(guest, 6 + 2u * size, 2);
    q->used = fake_guest_alloc(guest, 6 + 8u * size, 4);
    for (uint16_t i = 0; i < size; i++)
        q->free_list[i] = (uint16_t)(size - 1 - i);
    q->free_count = size;
}

static void *queue_ptr(const struct fake_queue *q, gpa_t gpa, uint64_t len)
{
    return fake_guest_ptr(q->guest, gpa, len);
}

struct fake_desc *fake_queue_desc(const struct fake_queue *q, unsigned index)
{
    return queue_ptr(q, q->desc + 16u * (uint64_t)index, 16);
}

volatile uint16_t *fake_queue_avail_flags(const struct fake_queue *q)
{
    return queue_ptr(q, q->avail, 2);
}

volatile uint16_t *fake_queue_avail_idx(const struct fake_queue *q)
{
    return queue_ptr(q, q->avail + 2, 2);
}

volatile uint16_t *fake_queue_avail_ring(const struct fake_queue *q,
                                         unsigned slot)
{
    return queue_ptr(q, q->avail + 4 + 2u * (slot % q->size), 2);
}

volatile uint16_t *fake_queue_used_event(const struct fake_queue *q)
{
    return queue_ptr(q, q->avail + 4 + 2u * (uint64_t)q->size, 2);
}

volatile uint16_t *fake_queue_used_flags(const struct fake_queue *q)
{
    return queue_ptr(q, q->used, 2);
}

volatile uint16_t *fake_queue_used_idx(const struct fake_queue *q)
{
    return queue_ptr(q, q->used + 2, 2);
}

volatile uint16_t *fake_queue_avail_event(const struct fake_queue *q)
{
    return queue_ptr(q, q->used + 4 + 8u * (uint64_t)q->size, 2);
}

void fake_queue_publish(struct fake_queue *q, uint16_t head)
{
    *fake_queue_avail_ring(q, q->avail_idx) = head;
    q->avail_idx++;
    /* A device on another thread reads the entry after it sees idx. */
    __atomic_store_n(fake_queue_avail_idx(q), q->avail_idx, __ATOMIC_RELEASE);
}

static void fill_desc(struct fake_desc *d, const struct fake_buf *buf,
                      bool more, uint16_t next)
{
    d->addr = buf->addr;
    d->len = buf->len;
    d->flags = (uint16_t)((buf->writable ? FAKE_DESC_WRITE : 0u) |
                          (more ? FAKE_DESC_NEXT : 0u));
    d->next = more ? next : 0;
}

int fake_queue_add(struct fake_queue *q, const struct fake_buf *bufs,
                   unsigned count)
{
    uint16_t head;

    if (count == 0 || count > q->free_count)
        return -1;
    head = q->free_list[q->free_count - 1];
    for (unsigned i = 0; i < count; i++) {
        uint16_t index = q->free_list[q->free_count - 1 - i];
        bool more = i + 1 < count;
        uint16_t next = more ? q->free_list[q->free_count - 2 - i] : 0;

        fill_desc(fake_queue_desc(q, index), &bufs[i], more, next);
    }
    q->free_count = (uint16_t)(q->free_count - count);
    q->chain_len[head] = (uint16_t)count;
    fake_queue_publish(q, head);
    return head;
}

int fake_queue_add_indirect(struct fake_queue *q, const struct fake_buf *bufs,
                            unsigned count)
{
    gpa_t table;
    struct fake_desc *d;
    uint16_t head;

    if (q->free_count == 0)
        return -1;
    table = fake_guest_alloc(q->guest, 16u * (uint64_t)count, 16);
    d = fake_guest_ptr(q->guest, table, 16u * (uint64_t)count);
    for (unsigned i = 0; i < count; i++)
        fill_desc(&d[i], &bufs[i], i + 1 < count, (uint16_t)(i + 1));
    head = q->free_list[--q->free_count];
    *fake_queue_desc(q, head) = (struct fake_desc){
        .addr = table, .len = 16u * count, .flags = FAKE_DESC_INDIRECT};
    q->chain_len[head] = 1;
    fake_queue_publish(q, head);
    return head;
}

bool fake_queue_should_kick(struct fake_queue *q)
{
    uint16_t old = q->kicked_idx;
    uint16_t new = q->avail_idx;

    q->kicked_idx = new;
    /* Our avail.idx before our look at what the device wants (2.7.10). */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (new == old)
        return false;
    if (q->event_idx)
        return (uint16_t)(new - *fake_queue_avail_event(q) - 1) <
               (uint16_t)(new - old);
    return !(*fake_queue_used_flags(q) & 1u);
}

unsigned fake_queue_used_count(const struct fake_queue *q)
{
    uint16_t idx = __atomic_load_n(fake_queue_used_idx(q), __ATOMIC_ACQUIRE);

    return (uint16_t)(idx - q->last_used_idx);
}

/* Gives the descriptors of an in-flight chain back to the free stack. */
static void free_chain(struct fake_queue *q, uint16_t head)
{
    uint16_t index = head;

    if (head >= q->size || q->chain_len[head] == 0)
        fail("the device returned a chain that is not in flight");
    for (unsigned i = q->chain_len[head]; i > 0; i--) {
        q->free_list[q->free_count++] = index;
        index = fake_queue_desc(q, index)->next;
    }
    q->chain_len[head] = 0;
}

bool fake_queue_collect(struct fake_queue *q, uint16_t *ret_head,
                        uint32_t *ret_len)
{
    const uint32_t *elem;

    if (fake_queue_used_count(q) == 0)
        return false;
    elem = queue_ptr(q, q->used + 4 + 8u * (q->last_used_idx % q->size), 8);
    if (elem[0] >= q->size)
        fail("the device returned a head out of range");
    q->last_used_idx++;
    free_chain(q, (uint16_t)elem[0]);
    if (ret_head)
        *ret_head = (uint16_t)elem[0];
    if (ret_len)
        *ret_len = elem[1];
    return true;
}

void fake_queue_want_interrupts(struct fake_queue *q, bool want)
{
    *fake_queue_avail_flags(q) = want ? 0 : 1;
    *fake_queue_used_event(q) =
        (uint16_t)(want ? q->last_used_idx : q->last_used_idx - 0x4000);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void fake_queue_attach(struct fake_queue *q, struct virtqueue *vq,
                       bool event_idx, bool indirect)
{
    if (vq->size_max == 0)
        vq->size_max = VIRTQUEUE_SIZE_MAX;
    vq->size = q->size;
    vq->desc = q->desc;
    vq->avail = q->avail;
    vq->used = q->used;
    vq->ready = true;
    q->event_idx = event_idx;
    if (virtqueue_activate(vq, &q->guest->mem, event_idx, indirect) != 0)
        fail("virtqueue_activate refused");
}

/* ---- a driver ---- */

static void count_interrupt(void *ctx)
{
    unsigned *count = ctx;

    __atomic_fetch_add(count, 1, __ATOMIC_SEQ_CST);
}

void fake_driver_init(struct fake_driver *d, struct virtio_device *dev,
                      uint64_t memory)
{
    struct irq_line irq = {.raise = count_interrupt, .ctx = &d->interrupts};

    memset(d, 0, sizeof(*d));
    fake_guest_init(&d->guest, memory);
    pthread_mutex_init(&d->lock, NULL);
    virtio_mmio_init(&d->mmio, dev, &d->guest.mem, &d->lock, irq);
}

void fake_driver_fini(struct fake_driver *d)
{
    virtio_mmio_fini(&d->mmio);
    fake_guest_fini(&d->guest);
    pthread_mutex_destroy(&d->lock);
}

uint32_t fake_driver_read(struct fake_driver *d, uint32_t reg)
{
    return (uint32_t)virtio_mmio_bus_ops.read(&d->mmio, reg, 4);
}

void fake_driver_write(struct fake_driver *d, uint32_t reg, uint32_t value)
{
    virtio_mmio_bus_ops.write(&d->mmio, reg, 4, value);
}

uint64_t fake_driver_config(struct fake_driver *d, uint32_t offset,
                            unsigned size)
{
    return virtio_mmio_bus_ops.read(&d->mmio, REG_CONFIG + offset, size);
}

bool fake_driver_needs_reset(struct fake_driver *d)
{
    return fake_driver_read(d, REG_STATUS) & STATUS_NEEDS_RESET;
}

void fake_driver_reset(struct fake_driver *d)
{
    fake_driver_write(d, REG_STATUS, 0);
}

static void negotiate(struct fake_driver *d, uint64_t features)
{
    uint64_t offered = 0;

    for (uint32_t half = 0; half < 2; half++) {
        fake_driver_write(d, REG_DEVICE_FEATURES_SEL, half);
        offered |= (uint64_t)fake_driver_read(d, REG_DEVICE_FEATURES)
                   << (32 * half);
    }
    d->features = (features | VIRTIO_FEATURE_VERSION_1) & offered;
    for (uint32_t half = 0; half < 2; half++) {
        fake_driver_write(d, REG_DRIVER_FEATURES_SEL, half);
        fake_driver_write(d, REG_DRIVER_FEATURES,
                          (uint32_t)(d->features >> (32 * half)));
    }
}

static void write_address(struct fake_driver *d, uint32_t reg, gpa_t gpa)
{
    fake_driver_write(d, reg, (uint32_t)gpa);
    fake_driver_write(d, reg + 4, (uint32_t)(gpa >> 32));
}

static void set_up_queue(struct fake_driver *d, unsigned index, uint16_t size)
{
    struct fake_queue *q = &d->queues[index];
    uint32_t max;

    fake_driver_write(d, REG_QUEUE_SEL, index);
    max = fake_driver_read(d, REG_QUEUE_NUM_MAX);
    if (size > max)
        size = (uint16_t)max;
    fake_queue_init(q, &d->guest, size);
    q->event_idx = d->features & VIRTIO_FEATURE_EVENT_IDX;
    fake_driver_write(d, REG_QUEUE_NUM, size);
    write_address(d, REG_QUEUE_DESC, q->desc);
    write_address(d, REG_QUEUE_DRIVER, q->avail);
    write_address(d, REG_QUEUE_DEVICE, q->used);
    fake_driver_write(d, REG_QUEUE_READY, 1);
    if (fake_driver_read(d, REG_QUEUE_READY) != 1)
        fail("QueueReady refused");
}

void fake_driver_start(struct fake_driver *d, uint64_t features,
                       uint16_t queue_size)
{
    uint32_t status = STATUS_ACKNOWLEDGE;

    fake_driver_reset(d);
    fake_driver_write(d, REG_STATUS, status);
    status |= STATUS_DRIVER;
    fake_driver_write(d, REG_STATUS, status);
    negotiate(d, features);
    status |= STATUS_FEATURES_OK;
    fake_driver_write(d, REG_STATUS, status);
    if (fake_driver_read(d, REG_STATUS) != status)
        fail("FEATURES_OK refused");
    for (unsigned i = 0; i < d->mmio.dev->queue_count; i++)
        set_up_queue(d, i, queue_size);
    status |= STATUS_DRIVER_OK;
    fake_driver_write(d, REG_STATUS, status);
    if (fake_driver_read(d, REG_STATUS) != status)
        fail("DRIVER_OK refused");
}

void fake_driver_kick_force(struct fake_driver *d, unsigned queue)
{
    fake_driver_write(d, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

void fake_driver_kick(struct fake_driver *d, unsigned queue)
{
    if (fake_queue_should_kick(&d->queues[queue]))
        fake_driver_kick_force(d, queue);
}

uint32_t fake_driver_request(struct fake_driver *d, unsigned queue,
                             const struct fake_buf *bufs, unsigned count)
{
    struct fake_queue *q = &d->queues[queue];
    uint16_t done;
    uint32_t written;
    int head = fake_queue_add(q, bufs, count);

    if (head < 0)
        fail("queue full");
    fake_driver_kick(d, queue);
    if (!fake_queue_collect(q, &done, &written))
        fail("the device did not answer");
    if (done != head)
        fail("the device answered another chain");
    return written;
}

/* ---- another monitor goes on with the guest ---- */

void fake_driver_save(struct fake_driver *d, struct fake_state *ret_state)
{
    struct state_writer w;

    virtio_mmio_quiesce(&d->mmio);
    for (unsigned i = 0; i < d->mmio.dev->queue_count; i++) {
        const struct virtqueue *vq = &d->mmio.dev->queues[i];

        if (!virtqueue_check(vq))
            fail("a queue that cannot be");
        if (!vq->broken && vq->in_flight != 0)
            fail("a chain in flight after quiesce");
    }
    state_writer_init(&w, ret_state->bytes, sizeof(ret_state->bytes));
    virtio_mmio_save(&d->mmio, &w);
    if (w.error != 0)
        fail("no room for the state");
    ret_state->len = w.used;
}

void fake_driver_replace(struct fake_driver *d, struct virtio_device *dev)
{
    struct irq_line irq = d->mmio.irq;
    void (*notify_later)(void *ctx, unsigned queue) = d->mmio.notify_later;
    void *notify_later_ctx = d->mmio.notify_later_ctx;

    virtio_mmio_fini(&d->mmio);
    virtio_mmio_init(&d->mmio, dev, &d->guest.mem, &d->lock, irq);
    d->mmio.notify_later = notify_later;
    d->mmio.notify_later_ctx = notify_later_ctx;
}

int fake_driver_load(struct fake_driver *d, const void *state, size_t len)
{
    unsigned interrupts = d->interrupts;
    uint8_t *memory = d->guest.mapping + FAKE_GUEST_GUARD;
    /* An exact copy, so that a sanitizer sees a read beyond its end. */
    void *copy = malloc(len ? len : 1);
    struct state_reader r;
    int ret;

    if (!copy)
        fail("no host memory");
    memcpy(copy, state, len);
    state_reader_init(&r, copy, len);
    if (mprotect(memory, d->guest.size, PROT_NONE) != 0)
        fail("mprotect");
    ret = virtio_mmio_load(&d->mmio, &r);
    if (mprotect(memory, d->guest.size, PROT_READ | PROT_WRITE) != 0)
        fail("mprotect");
    free(copy);
    if (d->interrupts != interrupts)
        fail("a load raised the line");
    if (ret != 0 && fake_driver_read(d, REG_STATUS) != 0)
        fail("a refused load left something behind");
    return ret;
}

void fake_driver_move(struct fake_driver *d, struct virtio_device *dev)
{
    struct fake_state saved, again;

    fake_driver_save(d, &saved);
    fake_driver_replace(d, dev);
    if (fake_driver_load(d, saved.bytes, saved.len) != 0)
        fail("a saved state was refused");
    fake_driver_save(d, &again);
    if (again.len != saved.len ||
        memcmp(again.bytes, saved.bytes, saved.len) != 0)
        fail("what was loaded is not what was saved");
}
