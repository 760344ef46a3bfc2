/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupt lines of the in-kernel irqchip as devices see them: an irqfd per
 * GSI. Without resample such a line is edge triggered, which is what the guest
 * is told of every device.
 */
#ifndef MICROSBX_VMM_IRQ_H
#define MICROSBX_VMM_IRQ_H

#include <stdint.h>

#include "devices/irq.h"

struct gsi_line {
    int eventfd; /* owned; -1 = none */
};

/* Pre: the VM has its irqchip. 0 or -errno, then nothing is left open. */
int gsi_line_init(struct gsi_line *line, int vm_fd, uint32_t gsi)
    __attribute__((warn_unused_result));
void gsi_line_fini(struct gsi_line *line);

/* The line for a device; borrows it. */
struct irq_line gsi_line_irq(struct gsi_line *line);

#endif
