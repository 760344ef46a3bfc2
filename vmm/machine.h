/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine: KVM's VM with its memory, vCPUs and devices, from a description to
 * its end.
 *
 *   machine_build      the same for every machine, however it gets its state
 *   machine_boot       gives it the state of a kernel about to start
 *   machine_start      runs the vCPU threads
 *   machine_run        the device thread's event loop, until the end
 *   machine_halt       vCPUs stopped and joined; then statistics are final
 *   machine_free
 *
 * Threads: one per vCPU; the caller of machine_run is the device thread and
 * owns everything else. machine_end may be called from any thread. Only the
 * process that built a machine can use it (KVM's rule): never fork in between.
 */
#ifndef MICROSBX_VMM_MACHINE_H
#define MICROSBX_VMM_MACHINE_H

#include <stdbool.h>

#include "devices/evloop.h"
#include "devices/vsock/virtio_vsock.h"
#include "vmm/monitor_proto.h"
#include "vmm/vm_config.h"

struct machine;

/*
 * Builds memory, interrupt controllers, vCPUs and devices. Takes over config
 * with its descriptors, also on failure. dialer (borrowed) is called on the
 * device thread, device lock held. Returns 0; else a negative errno and
 * *ret_error says which part and why.
 */
int machine_build(struct vm_config *config, struct vsock_dialer dialer,
                  struct machine **ret_machine, struct monitor_error *ret_error)
    __attribute__((warn_unused_result));

/*
 * Loads kernel and initrd, sets the vCPUs to power-on state, and closes what
 * only booting needed. Pre: built, not started.
 */
int machine_boot(struct machine *m, struct monitor_error *ret_error)
    __attribute__((warn_unused_result));

/* Starts the vCPU threads. 0 or -errno; then call machine_halt all the same. */
int machine_start(struct machine *m) __attribute__((warn_unused_result));

/* Handles devices until machine_end. */
void machine_run(struct machine *m);

/*
 * Ends the machine: the first caller's reason is the one that counts. error is
 * a negative errno, 0, or for MONITOR_EXIT_DEBUG the guest's status. text is
 * borrowed for the call. Any thread; does not wait.
 */
void machine_end(struct machine *m, enum monitor_exit_reason reason, int error,
                 const char *text);

/*
 * Stops and joins the vCPUs and lets the console's last bytes go. Pre:
 * machine_run has returned or was never called. Idempotent.
 */
void machine_halt(struct machine *m);

/*
 * Why it ended, with statistics. Pre: machine_halt.
 */
void machine_exit_info(struct machine *m, struct monitor_exit *ret_exit);

/* Statistics so far. Device thread, from a handler (device lock held). */
void machine_stats(struct machine *m, struct monitor_stats *ret_stats);

/*
 * Interrupts the guest for no reason: a halted CPU looks at its clock again.
 * Drivers take it for a shared line's and ignore it. Device thread.
 */
void machine_nudge(struct machine *m);

/* The event loop, to watch one's own descriptors on the device thread. */
struct evloop *machine_loop(struct machine *m);

/*
 * A vsock client's descriptor (owned, also on failure), or the answer to a
 * dial (-1: refused). Device lock held. -ENODEV without a vsock device.
 */
int machine_add_vsock_client(struct machine *m, int fd)
    __attribute__((warn_unused_result));
void machine_dial_result(struct machine *m, uint64_t token, int fd);

/* Ends everything. Halts first. NULL is fine. */
void machine_free(struct machine *m);

#endif
