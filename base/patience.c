/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for another process; see the header. */
#include "base/patience.h"

#include <errno.h>

#include "base/io.h"

#define MS 1000000ull /* nanoseconds */
/* A piece of waiting, and the most that one may cost: beyond it we slept. */
#define SLICE_MS 100
#define COST_MAX_NS (2 * SLICE_MS * MS)

struct patience patience_of_ms(uint64_t ms)
{
    return (struct patience){.left_ns = ms * MS};
}

bool patience_is_over(const struct patience *p)
{
    return p->left_ns == 0;
}

int patience_poll(struct patience *p, struct pollfd *polls, nfds_t count)
{
    uint64_t began = io_now_ns();
    uint64_t ms = (p->left_ns + MS - 1) / MS;
    int n = poll(polls, count, ms < SLICE_MS ? (int)ms : SLICE_MS);
    int ret = n < 0 && errno != EINTR ? -errno : n < 0 ? 0 : n;
    uint64_t took = io_now_ns() - began;

    if (took > COST_MAX_NS)
        took = COST_MAX_NS;
    p->left_ns -= took < p->left_ns ? took : p->left_ns;
    return ret;
}
