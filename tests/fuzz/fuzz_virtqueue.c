/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue whose descriptors and rings are fuzzer bytes. Whatever is popped must
 * lie inside guest memory (every byte of it is touched; guard pages and ASan
 * watch) and the queue's invariants must hold after every step.
 *
 * Input: options, size, count of steps, the steps, then guest memory.
 */
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/virtqueue.h"
#include "tests/fake_guest.h"

#define MEMORY 8192u
#define STEPS_MAX 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fake_guest guest;

static void touch(const struct desc_chain *chain)
{
    volatile uint8_t sum = 0;
    const struct iovec *w = desc_chain_writable(chain);

    for (unsigned i = 0; i < chain->readable_count; i++)
        for (size_t j = 0; j < chain->iov[i].iov_len; j++)
            sum = (uint8_t)(sum + ((uint8_t *)chain->iov[i].iov_base)[j]);
    for (unsigned i = 0; i < chain->writable_count; i++)
        memset(w[i].iov_base, sum, w[i].iov_len);
}

static void step(struct virtqueue *vq, uint8_t op, const uint8_t *memory,
                 size_t size)
{
    static struct desc_chain chain;
    static bool held;

    switch (op & 7) {
    case 0:
    case 1:
        if (held && vq->in_flight > 0 && !vq->broken)
            virtqueue_push(vq, chain.head, op);
        held = virtqueue_pop(vq, &chain) == 1;
        if (held)
            touch(&chain);
        break;
    case 2:
        virtqueue_needs_interrupt(vq);
        break;
    case 3:
        virtqueue_disable_kicks(vq);
        break;
    case 4:
        virtqueue_enable_kicks(vq);
        break;
    case 5: /* the driver writes again, somewhere else */
        if (size > 64)
            memcpy(fake_guest_ptr(&guest, FAKE_GUEST_BASE + op * 16u, 64),
                   memory, 64);
        break;
    default:
        virtqueue_has_work(vq);
        break;
    }
    if (!virtqueue_check(vq))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct virtqueue vq = {.size_max = VIRTQUEUE_SIZE_MAX, .ready = true};
    size_t steps, memory;

    if (size < 3)
        return 0;
    if (!guest.mapping)
        fake_guest_init(&guest, MEMORY);
    steps = data[2] % STEPS_MAX;
    if (size < 3 + steps)
        return 0;
    memory = size - 3 - steps;
    if (memory > MEMORY)
        memory = MEMORY;
    memset(fake_guest_ptr(&guest, FAKE_GUEST_BASE, MEMORY), 0, MEMORY);
    if (memory > 0)
        memcpy(fake_guest_ptr(&guest, FAKE_GUEST_BASE, memory),
               data + 3 + steps, memory);

    vq.size = (uint16_t)(1u << (data[1] & 15));
    vq.desc = FAKE_GUEST_BASE;
    vq.avail = vq.desc + 16u * (vq.size & 63u);
    vq.used = vq.avail + 256;
    if (virtqueue_activate(&vq, &guest.mem, data[0] & 1, data[0] & 2) != 0)
        return 0;
    for (size_t i = 0; i < steps; i++)
        step(&vq, data[3 + i], data + 3 + steps, memory);
    virtqueue_reset(&vq);
    return 0;
}
