/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash tree over chunks: a leaf is the SHA-256 of a chunk, an inner node
 * SHA-256(0x01 | left | right), the shape that of RFC 6962, 2.1. (An inner node
 * cannot be taken for a leaf: how many leaves there are is recorded.)
 */
#ifndef MICROSBX_TRIAL_MERKLE_H
#define MICROSBX_TRIAL_MERKLE_H

#include <stdint.h>

#include "base/digest.h"

/* A running root: 64 levels are more than there can be leaves. */
struct merkle {
    uint64_t count;
    unsigned depth;
    uint8_t nodes[64][DIGEST_SIZE]; /* roots of full trees, largest first */
};

void merkle_init(struct merkle *m);
void merkle_add(struct merkle *m, const uint8_t leaf[DIGEST_SIZE]);
/* The root of what was added so far, of nothing: SHA-256 of nothing. */
void merkle_root(const struct merkle *m, uint8_t ret_root[DIGEST_SIZE]);

#endif
