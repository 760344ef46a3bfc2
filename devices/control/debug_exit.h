/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The debug-exit port: a guest without an agent (a test kernel, a unikernel)
 * ends its machine by writing its status there, as with QEMU's isa-debug-exit.
 *
 * Four ports, so that an OUT of one, two or four bytes to the first one is one
 * write. They read as 0. The value is the status as it is: QEMU's process would
 * end with (value << 1) | 1 instead.
 *
 * Accesses come from vCPU threads; the port has no state.
 */
#ifndef MICROSBX_DEVICES_CONTROL_DEBUG_EXIT_H
#define MICROSBX_DEVICES_CONTROL_DEBUG_EXIT_H

#include "devices/bus.h"

#define DEBUG_EXIT_PORT 0xf4u
#define DEBUG_EXIT_PORTS 4u

struct debug_exit {
    /* Called on the vCPU thread, without any lock. */
    void (*exited)(void *ctx, uint32_t status);
    void *ctx; /* borrowed */
};

/* For bus_add (PIO); ctx is the struct debug_exit. */
extern const struct bus_ops debug_exit_bus_ops;

#endif
