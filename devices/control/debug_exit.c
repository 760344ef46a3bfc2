/* SPDX-License-Identifier: Apache-2.0 */
/* The debug-exit port; see the header. */
#include "devices/control/debug_exit.h"

static uint64_t port_read(void *ctx, uint64_t offset, unsigned size)
{
    (void)ctx;
    (void)offset;
    (void)size;
    return 0;
}

/* A write to the middle of the value says nothing about the rest of it. */
static void port_write(void *ctx, uint64_t offset, unsigned size,
                       uint64_t value)
{
    const struct debug_exit *port = ctx;

    (void)size;
    if (offset == 0 && port->exited)
        port->exited(port->ctx, (uint32_t)value);
}

const struct bus_ops debug_exit_bus_ops = {
    .read = port_read,
    .write = port_write,
};
