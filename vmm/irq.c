/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupt lines; see the header. */
#include "vmm/irq.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "vmm/kvm.h"

/* One edge. Any thread. Cannot fail on a line of an irqchip that exists. */
static void gsi_line_raise(void *ctx)
{
    const struct gsi_line *line = ctx;
    struct kvm_irq_level level = {.irq = line->gsi, .level = 1};

    (void)kvm_ioctl(line->vm_fd, KVM_IRQ_LINE, &level);
    level.level = 0;
    (void)kvm_ioctl(line->vm_fd, KVM_IRQ_LINE, &level);
}

struct irq_line gsi_line_irq(struct gsi_line *line)
{
    return (struct irq_line){.raise = gsi_line_raise, .ctx = line};
}
