/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One output stream of a workload on its way to a sink: limited, counted,
 * hashed, and never held beyond the protocol's window.
 */
#ifndef MICROSBX_TRIAL_OUTPUT_H
#define MICROSBX_TRIAL_OUTPUT_H

#include "trial/relay.h"
#include "trial/trial.h"

struct output {
    struct relay relay;
    struct digest *digest;
    uint64_t limit;
    uint64_t accepted; /* bytes into the relay */
    uint64_t dropped;  /* beyond the limit, or without a sink */
    bool has_sink;
};

/* 0 or -ENOMEM (then output_fini is still to be called). */
int output_init(struct output *o, const struct trial_sink *sink, uint64_t limit)
    __attribute__((warn_unused_result));
void output_fini(struct output *o);

/*
 * Takes bytes from the guest. Returns how many of them are disposed of at
 * once (dropped); the rest is disposed of as output_write returns them.
 * Never more than PROTO_WINDOW bytes are undisposed, by the protocol.
 */
size_t output_add(struct output *o, const void *bytes, size_t len);
/* True if output_write has something to do. */
bool output_pending(const struct output *o);
/* As relay_write. */
ssize_t output_write(struct output *o);
/* Fills the stream's part of the result. */
void output_result(const struct output *o, struct trial_stream *ret);

#endif
