/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An interrupt line as a device sees it: something that can be raised. Lines
 * are edge triggered, active high (an irqfd without resample can do no other);
 * raising is a one-shot event and there is nothing to lower. Implemented by the
 * machine (a write to an irqfd) or by a unit test (a counter). Callable from
 * any thread.
 */
#ifndef MICROSBX_DEVICES_IRQ_H
#define MICROSBX_DEVICES_IRQ_H

struct irq_line {
    void (*raise)(void *ctx);
    void *ctx; /* borrowed */
};

/* Raises the line; a line with no function is not connected. */
void irq_line_raise(const struct irq_line *line);

#endif
