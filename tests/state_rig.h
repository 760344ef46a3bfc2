/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any virtio device in a slot of a fake guest, for tests and fuzzers that load
 * states nobody saved: makes devices, and does to a loaded one what a guest and
 * a host could do. Test code: own mistakes, and a broken invariant, abort.
 */
#ifndef MICROSBX_TESTS_STATE_RIG_H
#define MICROSBX_TESTS_STATE_RIG_H

#include "devices/evloop.h"
#include "tests/fake_guest.h"

#define STATE_RIG_MEMORY 16384u
#define STATE_RIG_DISK 65536u
#define STATE_RIG_CID 3u

enum state_rig_kind {
    STATE_RIG_BLK,
    STATE_RIG_RNG,
    STATE_RIG_VSOCK,
    STATE_RIG_KINDS, /* how many there are */
};

struct state_rig {
    enum state_rig_kind kind;
    struct fake_driver d;
    struct evloop *loop; /* owned */
    int disk_fd;         /* owned */
    bool later;          /* a device asked to be notified again */
};

/* A fresh device with its driver not started; STATE_RIG_MEMORY bytes. */
void state_rig_init(struct state_rig *rig, enum state_rig_kind kind);
void state_rig_fini(struct state_rig *rig);
/* Another fresh device in the slot. */
void state_rig_replace(struct state_rig *rig);

/*
 * Pre: a load was accepted. Tells the device, serves it, reads every register,
 * kicks every queue, has a host client call, moves it to a fresh device and
 * goes on there, and resets it.
 */
void state_rig_exercise(struct state_rig *rig);

#endif
