/* SPDX-License-Identifier: Apache-2.0 */
/* Hash tree; see the header. */
#include "trial/merkle.h"

#include <string.h>

static void join(const uint8_t left[DIGEST_SIZE],
                 const uint8_t right[DIGEST_SIZE], uint8_t ret[DIGEST_SIZE])
{
    uint8_t node[1 + 2 * DIGEST_SIZE];

    node[0] = 1;
    memcpy(node + 1, left, DIGEST_SIZE);
    memcpy(node + 1 + DIGEST_SIZE, right, DIGEST_SIZE);
    digest_sum(node, sizeof(node), ret);
}

void merkle_init(struct merkle *m)
{
    m->count = 0;
    m->depth = 0;
}

/* Like adding 1 to a binary number: each carry joins two trees of one size. */
void merkle_add(struct merkle *m, const uint8_t leaf[DIGEST_SIZE])
{
    memcpy(m->nodes[m->depth++], leaf, DIGEST_SIZE);
    m->count++;
    for (uint64_t n = m->count; n % 2 == 0; n /= 2) {
        m->depth--;
        join(m->nodes[m->depth - 1], m->nodes[m->depth],
             m->nodes[m->depth - 1]);
    }
}

void merkle_root(const struct merkle *m, uint8_t ret_root[DIGEST_SIZE])
{
    unsigned i = m->depth;

    if (i == 0) {
        digest_sum("", 0, ret_root);
        return;
    }
    memcpy(ret_root, m->nodes[--i], DIGEST_SIZE);
    while (i-- > 0)
        join(m->nodes[i], ret_root, ret_root);
}
