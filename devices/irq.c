/* SPDX-License-Identifier: Apache-2.0 */
/* The interrupt line; see the header. */
#include "devices/irq.h"

void irq_line_raise(const struct irq_line *line)
{
    if (line->raise)
        line->raise(line->ctx);
}
