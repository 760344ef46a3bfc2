/* SPDX-License-Identifier: Apache-2.0 */
/* A workload's output stream; see the header. */
#include "trial/output.h"

#include <errno.h>
#include <string.h>

int output_init(struct output *o, const struct trial_sink *sink, uint64_t limit)
{
    *o = (struct output){.limit = limit, .has_sink = sink->fd >= 0};
    o->digest = digest_new();
    if (!o->digest)
        return -ENOMEM;
    return relay_init(&o->relay, sink->fd, PROTO_WINDOW);
}

void output_fini(struct output *o)
{
    relay_fini(&o->relay);
    digest_free(o->digest);
    o->digest = NULL;
}

size_t output_add(struct output *o, const void *bytes, size_t len)
{
    uint64_t left = o->limit - o->accepted;
    size_t take = len < left ? len : (size_t)left;

    /* The window bounds what is undisposed, so this always fits. */
    if (take > relay_room(&o->relay))
        take = relay_room(&o->relay);
    digest_update(o->digest, bytes, take);
    o->accepted += take;
    o->dropped += len - take;
    if (!o->has_sink || o->relay.error != 0)
        return len;
    relay_add(&o->relay, bytes, take);
    return len - take;
}

bool output_pending(const struct output *o)
{
    return !relay_is_empty(&o->relay);
}

ssize_t output_write(struct output *o)
{
    return relay_write(&o->relay);
}

void output_result(const struct output *o, struct trial_stream *ret)
{
    ret->bytes = o->accepted;
    ret->dropped = o->dropped;
    digest_hex(o->digest, ret->sha256);
}
