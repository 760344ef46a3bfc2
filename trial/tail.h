/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last bytes of a stream of any length, at most `limit` of them. Memory
 * grows with what comes, up to the limit.
 */
#ifndef MICROSBX_TRIAL_TAIL_H
#define MICROSBX_TRIAL_TAIL_H

#include <stddef.h>
#include <stdint.h>

struct tail {
    uint8_t *buf; /* owned */
    size_t size;  /* allocated */
    size_t limit;
    size_t start; /* the oldest byte, once the buffer is full */
    size_t used;
    uint64_t total; /* bytes that came */
};

void tail_init(struct tail *t, size_t limit);
void tail_fini(struct tail *t);

/* 0, or -ENOMEM (and the bytes are not kept). */
int tail_add(struct tail *t, const void *bytes, size_t len)
    __attribute__((warn_unused_result));

/* The kept bytes from `at` on in one piece; *ret_len 0 at the end. */
const uint8_t *tail_peek(const struct tail *t, size_t at, size_t *ret_len);

#endif
