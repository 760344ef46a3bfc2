/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupt lines by irqfd; see the header. */
#include "vmm/irq.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/io.h"
#include "vmm/kvm.h"

int gsi_line_init(struct gsi_line *line, int vm_fd, uint32_t gsi)
{
    struct kvm_irqfd irqfd = {.gsi = gsi};
    int ret;

    line->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (line->eventfd < 0)
        return -errno;
    irqfd.fd = (uint32_t)line->eventfd;
    ret = kvm_ioctl(vm_fd, KVM_IRQFD, &irqfd);
    if (ret < 0)
        io_close(&line->eventfd);
    return ret;
}

void gsi_line_fini(struct gsi_line *line)
{
    io_close(&line->eventfd);
}

static void gsi_line_raise(void *ctx)
{
    const struct gsi_line *line = ctx;
    uint64_t one = 1;
    /* Fails only if 2^64-1 raises are pending: one more changes nothing. */
    ssize_t n = write(line->eventfd, &one, sizeof(one));

    (void)n;
}

struct irq_line gsi_line_irq(struct gsi_line *line)
{
    return (struct irq_line){.raise = gsi_line_raise, .ctx = line};
}
