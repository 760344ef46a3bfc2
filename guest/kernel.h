/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent asks of the guest's kernel around a freeze, as a table, so
 * that a test on somebody's machine sees what would be done and the machine
 * keeps its clock, its name and its memory.
 *
 * Each returns 0 or a negative errno.
 */
#ifndef MICROSBX_GUEST_KERNEL_H
#define MICROSBX_GUEST_KERNEL_H

#include <stddef.h>
#include <stdint.h>

struct kernel_ops {
    /* These take their time: called in a helper process. */
    int (*sync)(void);
    int (*drop_caches)(void);
    /*
     * Touches nearly all free memory, which the kernel clears for that; when
     * the helper exits, it is free again and zero. The helper makes itself
     * the first that a kernel out of memory kills.
     */
    int (*zero_free)(void);

    /* The random generator: random(4). */
    int (*add_entropy)(const uint8_t *bytes, size_t len); /* and credits it */
    int (*reseed)(void);
    int (*draw)(size_t count); /* so many steps on in its stream */

    int (*set_clock)(int64_t realtime_ns);
    int (*set_hostname)(const char *name); /* of the caller's namespace */
};

/* The real ones; they need a guest's PID 1. */
extern const struct kernel_ops kernel_ops;

/*
 * Bytes that the kernel keeps free of user memory, from /proc/zoneinfo (it is
 * cut up): who takes more has it reclaim, and at last kill. Linux,
 * calculate_totalreserve_pages().
 */
uint64_t kernel_reserve(char *zoneinfo);

/*
 * How long the kernel's generator stays as it is when it was re-keyed at this
 * uptime (CLOCK_MONOTONIC) and nobody asks for another; 0: not known for this
 * release. Linux 5.18 to 6.1, crng_reseed_interval(): 60 s, but before two
 * minutes of uptime half the uptime.
 */
uint64_t kernel_pin_window_ms(const char *release, uint64_t uptime_ms);

#endif
