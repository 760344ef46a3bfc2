/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine: KVM's VM with its memory, vCPUs and devices, from a description to
 * its end.
 *
 *   machine_build      the same for every machine, however it gets its state
 *   machine_boot       gives it the state of a kernel about to start, or
 *   machine_load       the state of a snapshot
 *   machine_start      makes the vCPU threads
 *   machine_go         has them run the guest
 *   machine_run        the device thread's event loop, until the end or a break
 *   machine_halt       vCPUs stopped and joined; then statistics are final
 *   machine_free
 *
 * and, after machine_break made machine_run return:
 *
 *   machine_pause      vCPUs and devices stand still
 *   machine_save       all of it into files
 *   machine_roll_back  back to the snapshot it came from
 *   machine_resume     then machine_run again
 *
 * Threads: one per vCPU; the caller of machine_run is the device thread and
 * owns everything else. machine_end may be called from any thread. Only the
 * process that built a machine can use it (KVM's rule): never fork in between.
 *
 * State that does not fit is an error with a sentence (MONITOR_ERROR_STATE;
 * -EOPNOTSUPP: not for this host), never an assertion: it comes from a file.
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

/*
 * Loads the state of the snapshot that the configuration names. Memory and
 * disks have been its own since machine_build. Pre: built, not started.
 */
int machine_load(struct machine *m, struct monitor_error *ret_error)
    __attribute__((warn_unused_result));

/*
 * Writes what was really loaded, to be compared with what was saved: the state
 * as KVM and devices tell it, and a digest of each MONITOR_CHUNK of memory
 * through the guest's mapping. Both files (borrowed) are empty. *ret_proved
 * says what the private overlays hold. Pre: restored or rolled back, and not
 * run since.
 */
int machine_prove(struct machine *m, int state_fd, int leaves_fd,
                  struct monitor_proved *ret_proved,
                  struct monitor_error *ret_error)
    __attribute__((warn_unused_result));

/*
 * Makes the vCPU threads, and sees that KVM would run them: no guest runs yet.
 * 0 or a negative errno (-EAGAIN: the host gives no more threads); then call
 * machine_halt all the same.
 */
int machine_start(struct machine *m) __attribute__((warn_unused_result));
/* The guest runs from here on. Pre: started. now_ns: io_now_ns, for the stats.
 */
void machine_go(struct machine *m, uint64_t now_ns);

/* Handles devices until machine_end or machine_break. */
void machine_run(struct machine *m);
/* Makes machine_run return. Device thread. */
void machine_break(struct machine *m);
/* True once machine_end was called. */
bool machine_has_ended(struct machine *m);
/* True from a restore or roll-back until it runs: it can be proved. */
bool machine_is_pristine(const struct machine *m);

/*
 * Stops the vCPUs between two instructions and has the devices give back what
 * they hold. Pre: started, machine_run has returned. 0, or -ESHUTDOWN: the
 * machine ended first.
 */
int machine_pause(struct machine *m) __attribute__((warn_unused_result));
/* The opposite; then machine_run again. Pre: paused. */
void machine_resume(struct machine *m);

/*
 * Saves the paused machine: state, memory, and each cow disk into files
 * (borrowed, empty, MONITOR_SAVE's order). It goes on unchanged. 0; else
 * -errno, -ENOSPC in particular, and the files are no use.
 */
int machine_save(struct machine *m, const int *fds, unsigned fd_count,
                 struct monitor_saved *ret_saved,
                 struct monitor_error *ret_error)
    __attribute__((warn_unused_result));

/*
 * Puts the paused machine back to the snapshot it was restored from. Pre:
 * track_dirty. After an error it can only be ended.
 */
int machine_roll_back(struct machine *m, struct monitor_rolled_back *ret_done,
                      struct monitor_error *ret_error)
    __attribute__((warn_unused_result));

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
