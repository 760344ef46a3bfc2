/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupt lines of the in-kernel irqchip as devices see them: edge triggered,
 * which is what the guest is told of every device.
 *
 * By KVM_IRQ_LINE, not by irqfd: for a pin of the I/O APIC an irqfd only
 * schedules work in the host kernel, and two more context switches per
 * interrupt cost more than two short ioctls on the thread that is running
 * anyway (measured: 4 KiB reads, device thread's CPU time 0.6 of irqfd's).
 */
#ifndef MICROSBX_VMM_IRQ_H
#define MICROSBX_VMM_IRQ_H

#include <stdint.h>

#include "devices/irq.h"

struct gsi_line {
    int vm_fd; /* borrowed: outlives the devices */
    uint32_t gsi;
};

/* The line for a device; borrows it. Pre: the VM has its irqchip. */
struct irq_line gsi_line_irq(struct gsi_line *line);

#endif
