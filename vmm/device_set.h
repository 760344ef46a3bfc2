/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices of one machine, wired to its buses, interrupt lines and queue
 * notifications: the only place that knows both the map (vmm/x86/map.h) and the
 * device models.
 *
 * Virtio slots: the disks in the order of the configuration (so that /dev/vda
 * is disk 0), then vsock, then the entropy device; the rest stay empty.
 *
 * Owner: the machine. Everything here belongs to the device thread, register
 * accesses come from vCPU threads under `lock` (see the device headers).
 */
#ifndef MICROSBX_VMM_DEVICE_SET_H
#define MICROSBX_VMM_DEVICE_SET_H

#include <pthread.h>

#include "devices/bus.h"
#include "devices/control/control_page.h"
#include "devices/control/debug_exit.h"
#include "devices/evloop.h"
#include "devices/serial/serial8250.h"
#include "devices/virtio/virtio_mmio.h"
#include "devices/vsock/virtio_vsock.h"
#include "vmm/irq.h"
#include "vmm/monitor_proto.h"
#include "vmm/state_file.h"
#include "vmm/x86/map.h"

/* What the guest's devices ask of the rest of the monitor; borrowed. */
struct device_hooks {
    struct control_page control;  /* power-off, reset, panic */
    struct debug_exit debug_exit; /* where config.debug_exit wants it */
    struct vsock_dialer dialer;   /* dial == NULL: no connections out */
};

/* A queue's ioeventfd, watched by the event loop. */
struct queue_kick {
    struct evloop_source source; /* fd owned; -1 = none */
    struct virtio_mmio *mmio;
    unsigned queue;
};

struct virtio_slot {
    struct virtio_mmio mmio;
    struct gsi_line line;
    struct queue_kick kicks[VIRTIO_QUEUES_MAX];
};

struct device_set {
    pthread_mutex_t lock; /* the device lock of the device headers */
    struct evloop *loop;
    struct bus pio;
    struct bus mmio;
    struct control_page control;
    struct debug_exit debug_exit;
    struct serial8250 *serial;
    struct gsi_line serial_line;
    struct virtio_slot slots[MAP_VIRTIO_SLOTS];
    unsigned slots_used;
    struct virtio_device *disks[VM_DISKS_MAX]; /* borrowed from their slots */
    uint32_t disk_count;
    struct virtio_device *vsock; /* borrowed from its slot, or NULL */
};

/*
 * Builds every device the configuration names; takes the descriptors it uses
 * out of it. Pre: the VM has its irqchip. 0; else -errno and *ret_error, and
 * device_set_fini has been done.
 */
int device_set_init(struct device_set *set, int vm_fd,
                    const struct guest_mem *mem, struct vm_config *config,
                    const struct device_hooks *hooks,
                    struct monitor_error *ret_error)
    __attribute__((warn_unused_result));
/* Pre: no vCPU runs. */
void device_set_fini(struct device_set *set);

/*
 * What the devices counted, into their fields of *stats. Device lock held, or
 * no vCPU running.
 */
void device_set_stats(const struct device_set *set,
                      struct monitor_stats *stats);

/* Raises the line of the last slot in use, with nothing to say. */
void device_set_nudge(const struct device_set *set);

/* Lets the console's last bytes go, waiting a moment for a slow reader. Pre:
 * no vCPU runs and the event loop has ended. */
void device_set_drain_console(struct device_set *set);

/* ---- save and restore; while no vCPU runs, on the device thread ----------
 *
 *   running -> _quiesce -> _save, _save_disks -> _resume, or the end
 *   built   -> _load -> [_save] -> _restored -> runs
 *   paused  -> _load, _reset_disks -> [_save] -> _restored -> runs
 */

/* Serves what was kicked and has every device give back what it holds. */
void device_set_quiesce(struct device_set *set);
/* Looks at every queue again. */
void device_set_resume(struct device_set *set);

/* Appends the sections of the serial port and the slots. Pre: quiesced. */
void device_set_save(const struct device_set *set, struct state_file_writer *f);
/*
 * Loads them, to the end of the file; connections and kicks are dropped. 0, or
 * -EBADMSG with the place and the reason.
 */
int device_set_load(struct device_set *set, struct state_file *f,
                    char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));
/* Once after a load, when the guest is about to run: memory changes. */
void device_set_restored(struct device_set *set);

struct device_set_disks {
    uint64_t clusters;
    uint32_t disk; /* the one that failed */
};
/*
 * Saves what each cow disk has written to the next of fds. 0; -EBADMSG: not as
 * many of them as of disks; or the host's errno.
 */
int device_set_save_disks(const struct device_set *set,
                          const struct vm_config *config, const int *fds,
                          unsigned fd_count, struct device_set_disks *ret)
    __attribute__((warn_unused_result));
/* What the private overlay of each cow disk holds. */
void device_set_prove_disks(const struct device_set *set,
                            const struct vm_config *config,
                            struct monitor_proved *ret);
/* Empties the overlay of each cow disk. 0 or -errno. */
int device_set_reset_disks(const struct device_set *set,
                           const struct vm_config *config)
    __attribute__((warn_unused_result));

#endif
