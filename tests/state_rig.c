/* SPDX-License-Identifier: Apache-2.0 */
/* Any device in a slot; see the header. */
#include "tests/state_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/blk/virtio_blk.h"
#include "devices/rng/virtio_rng.h"
#include "devices/vsock/virtio_vsock.h"

#define REG_STATUS 0x070u
#define ROUNDS_MAX 16u

static void need(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "state_rig: %s\n", what);
    abort();
}

static struct virtio_device *make_blk(struct state_rig *rig)
{
    struct virtio_device *dev = NULL;
    struct block_backend *b;

    need(block_raw_new(dup(rig->disk_fd), false, &b) == 0, "block_raw_new");
    need(virtio_blk_new(b, "disk-0", &dev) == 0, "virtio_blk_new");
    return dev;
}

/* A guest that dials is told to wait. */
static void dial(void *ctx, uint64_t token, uint32_t port)
{
    (void)ctx;
    (void)token;
    (void)port;
}

static struct virtio_device *make_vsock(struct state_rig *rig)
{
    struct virtio_vsock_options options = {
        .guest_cid = STATE_RIG_CID,
        .loop = rig->loop,
        .dialer = {dial, NULL},
        .listen_fd = -1,
    };
    struct virtio_device *dev = NULL;

    need(virtio_vsock_new(&options, &dev) == 0, "virtio_vsock_new");
    return dev;
}

static struct virtio_device *make_device(struct state_rig *rig)
{
    struct virtio_device *dev = NULL;

    switch (rig->kind) {
    case STATE_RIG_BLK:
        return make_blk(rig);
    case STATE_RIG_VSOCK:
        return make_vsock(rig);
    case STATE_RIG_RNG:
    case STATE_RIG_KINDS:
    default:
        need(virtio_rng_new(&dev) == 0, "virtio_rng_new");
        return dev;
    }
}

static void note_later(void *ctx, unsigned queue)
{
    struct state_rig *rig = ctx;

    (void)queue;
    rig->later = true;
}

void state_rig_init(struct state_rig *rig, enum state_rig_kind kind)
{
    memset(rig, 0, sizeof(*rig));
    rig->kind = kind;
    rig->disk_fd = memfd_create("disk", MFD_CLOEXEC);
    need(rig->disk_fd >= 0 && ftruncate(rig->disk_fd, STATE_RIG_DISK) == 0,
         "memfd_create");
    need(evloop_new(NULL, &rig->loop) == 0, "evloop_new");
    fake_driver_init(&rig->d, make_device(rig), STATE_RIG_MEMORY);
    rig->d.mmio.notify_later = note_later;
    rig->d.mmio.notify_later_ctx = rig;
}

void state_rig_fini(struct state_rig *rig)
{
    fake_driver_fini(&rig->d);
    evloop_free(rig->loop);
    close(rig->disk_fd);
}

void state_rig_replace(struct state_rig *rig)
{
    fake_driver_replace(&rig->d, make_device(rig));
    rig->later = false;
}

static void check_queues(const struct state_rig *rig)
{
    for (unsigned i = 0; i < rig->d.mmio.dev->queue_count; i++)
        need(virtqueue_check(&rig->d.mmio.dev->queues[i]), "virtqueue_check");
}

/* Lets the device work, but not for ever: its guest may keep it busy. */
static void settle(struct state_rig *rig)
{
    for (unsigned i = 0; i < ROUNDS_MAX; i++) {
        int handled = evloop_run_once(rig->loop, 0);

        if (rig->later) {
            rig->later = false;
            virtio_mmio_notify(&rig->d.mmio, 0);
        } else if (handled == 0) {
            break;
        }
    }
    check_queues(rig);
}

static void call_as_client(struct state_rig *rig, int *ret_fd)
{
    static const char line[] = "CONNECT 5000\n";
    int pair[2];

    need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0,
         "socketpair");
    need(write(pair[0], line, sizeof(line) - 1) == sizeof(line) - 1, "write");
    (void)!virtio_vsock_add_client(rig->d.mmio.dev, pair[1]);
    *ret_fd = pair[0];
}

static void run_guest(struct state_rig *rig)
{
    int fd = -1;

    virtio_mmio_restored(&rig->d.mmio);
    settle(rig);
    for (uint32_t reg = 0; reg < 0x140; reg += 4)
        (void)fake_driver_read(&rig->d, reg);
    if (rig->kind == STATE_RIG_VSOCK)
        call_as_client(rig, &fd);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        fake_driver_kick_force(&rig->d, i);
        settle(rig);
    }
    if (fd >= 0)
        close(fd);
    settle(rig);
}

void state_rig_exercise(struct state_rig *rig)
{
    run_guest(rig);
    fake_driver_move(&rig->d, make_device(rig));
    rig->later = false;
    run_guest(rig);
    fake_driver_reset(&rig->d);
    need(fake_driver_read(&rig->d, REG_STATUS) == 0, "Status after a reset");
    check_queues(rig);
}
