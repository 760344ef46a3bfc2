/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages around a freeze: QUIESCE, RESTORE, their answers, and ATTACH.
 * See proto.h. What comes back from a restored machine is as hostile as all
 * else that a guest says.
 */
#include <errno.h>
#include <string.h>

#include "guest/proto.h"
#include "guest/proto_bytes.h"

/* ---- what may be said --------------------------------------------------- */

bool proto_quiesce_is_sane(uint32_t flags)
{
    const uint32_t apart = PROTO_QUIESCE_KEEP | PROTO_QUIESCE_FREE_MEMORY;

    return !(flags & ~PROTO_QUIESCE_FLAGS_KNOWN) && (flags & apart) != apart;
}

/* Ends within its field, too. */
static bool is_hostname(const char name[PROTO_HOSTNAME_MAX])
{
    if (!memchr(name, '\0', PROTO_HOSTNAME_MAX))
        return false;
    for (; *name; name++) {
        char c = *name;

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_'))
            return false;
    }
    return true;
}

/* One flag, and nothing said that does not go with it. */
bool proto_restore_is_sane(const struct proto_restore *m)
{
    static const uint8_t none[PROTO_ENTROPY_SIZE];
    bool entropy = memcmp(m->entropy, none, sizeof(none)) != 0;

    bool limit = (m->flags & PROTO_RESTORE_LIMIT) != 0;

    if (m->realtime_ns < 0 || !is_hostname(m->hostname) ||
        limit != (m->scratch_limit != 0))
        return false;
    switch (m->flags & ~PROTO_RESTORE_LIMIT) {
    case PROTO_RESTORE_FRESH:
        return entropy && m->seed == 0;
    case PROTO_RESTORE_PINNED:
        return !entropy;
    case PROTO_RESTORE_SAME:
        return !entropy && !limit && m->seed == 0 && m->realtime_ns == 0 &&
               m->hostname[0] == '\0';
    default:
        return false;
    }
}

/* Bytes before the host name. */
static size_t restore_fixed(uint32_t flags)
{
    return PROTO_RESTORE_FIXED + (flags & PROTO_RESTORE_LIMIT ? 8 : 0);
}

/* ---- encoding ----------------------------------------------------------- */

void proto_put_attach(struct proto_writer *w, uint32_t id,
                      const struct proto_attach *m)
{
    uint8_t *p = proto_put_frame(w, PROTO_ATTACH, id, PROTO_ATTACH_SIZE);

    if (!p)
        return;
    proto_put32(p, m->flags);
    proto_put32(p + 4, m->pids_max);
    proto_put64(p + 8, m->timeout_ms);
    proto_put64(p + 16, m->memory_max);
}

void proto_put_quiesced(struct proto_writer *w, const struct proto_quiesced *m)
{
    uint8_t *p = proto_put_frame(w, PROTO_QUIESCED, 0, PROTO_QUIESCED_SIZE);

    if (!p)
        return;
    proto_put32(p, m->err);
    proto_put64(p + 4, m->memory_free);
    proto_put64(p + 12, m->uptime_ms);
    proto_put64(p + 20, m->pin_window_ms);
}

void proto_put_restore(struct proto_writer *w, const struct proto_restore *m)
{
    size_t len = strnlen(m->hostname, sizeof(m->hostname) - 1);
    size_t fixed = restore_fixed(m->flags);
    uint8_t *p = proto_put_frame(w, PROTO_RESTORE, 0, fixed + len);

    if (!p)
        return;
    proto_put32(p, m->flags);
    proto_put64(p + 4, (uint64_t)m->realtime_ns);
    proto_put64(p + 12, m->seed);
    memcpy(p + 20, m->entropy, sizeof(m->entropy));
    if (m->flags & PROTO_RESTORE_LIMIT)
        proto_put64(p + PROTO_RESTORE_FIXED, m->scratch_limit);
    memcpy(p + fixed, m->hostname, len);
}

void proto_put_restored(struct proto_writer *w, const struct proto_restored *m)
{
    size_t len = strnlen(m->boot_id, sizeof(m->boot_id) - 1);
    uint8_t *p =
        proto_put_frame(w, PROTO_RESTORED, 0, PROTO_RESTORED_FIXED + len);

    if (!p)
        return;
    proto_put32(p, m->err);
    proto_put32(p + 4, m->step);
    memcpy(p + PROTO_RESTORED_FIXED, m->boot_id, len);
}

/* ---- decoding ----------------------------------------------------------- */

int proto_get_attach(const void *payload, size_t len,
                     struct proto_attach *ret_m)
{
    const uint8_t *p = payload;
    struct proto_attach m;

    if (len != PROTO_ATTACH_SIZE)
        return -EBADMSG;
    m.flags = proto_get32(p);
    m.pids_max = proto_get32(p + 4);
    m.timeout_ms = proto_get64(p + 8);
    m.memory_max = proto_get64(p + 16);
    if (m.flags & ~(PROTO_EXEC_NOTE_PIDS | PROTO_EXEC_END_DISK))
        return -EBADMSG;
    *ret_m = m;
    return 0;
}

int proto_get_quiesce(const void *payload, size_t len, uint32_t *ret_flags)
{
    uint32_t flags;

    if (proto_get_u32(payload, len, &flags) || !proto_quiesce_is_sane(flags))
        return -EBADMSG;
    *ret_flags = flags;
    return 0;
}

int proto_get_quiesced(const void *payload, size_t len,
                       struct proto_quiesced *ret_m)
{
    const uint8_t *p = payload;
    struct proto_quiesced m;

    if (len != PROTO_QUIESCED_SIZE)
        return -EBADMSG;
    m.err = proto_get32(p);
    m.memory_free = proto_get64(p + 4);
    m.uptime_ms = proto_get64(p + 12);
    m.pin_window_ms = proto_get64(p + 20);
    if (m.err > PROTO_ERRNO_MAX ||
        (m.err && (m.memory_free || m.uptime_ms || m.pin_window_ms)))
        return -EBADMSG;
    *ret_m = m;
    return 0;
}

int proto_get_restore(const void *payload, size_t len,
                      struct proto_restore *ret_m)
{
    const uint8_t *p = payload;
    struct proto_restore m = {0};
    size_t fixed;

    if (len < PROTO_RESTORE_FIXED)
        return -EBADMSG;
    m.flags = proto_get32(p);
    fixed = restore_fixed(m.flags);
    if (len < fixed)
        return -EBADMSG;
    m.realtime_ns = (int64_t)proto_get64(p + 4);
    m.seed = proto_get64(p + 12);
    memcpy(m.entropy, p + 20, sizeof(m.entropy));
    if (m.flags & PROTO_RESTORE_LIMIT)
        m.scratch_limit = proto_get64(p + PROTO_RESTORE_FIXED);
    if (proto_copy_text(p + fixed, p + len, len - fixed, m.hostname,
                        sizeof(m.hostname)) ||
        !proto_restore_is_sane(&m))
        return -EBADMSG;
    *ret_m = m;
    return 0;
}

/* As the kernel writes one: lower case, four dashes. */
static bool is_boot_id(const char *id)
{
    static const char shape[] = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";

    for (size_t i = 0; i < sizeof(shape) - 1; i++) {
        bool digit =
            (id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'f');

        if (shape[i] == 'h' ? !digit : id[i] != shape[i])
            return false;
    }
    return id[sizeof(shape) - 1] == '\0';
}

int proto_get_restored(const void *payload, size_t len,
                       struct proto_restored *ret_m)
{
    const uint8_t *p = payload;
    struct proto_restored m = {0};

    if (len < PROTO_RESTORED_FIXED)
        return -EBADMSG;
    m.err = proto_get32(p);
    m.step = proto_get32(p + 4);
    if (m.err > PROTO_ERRNO_MAX || m.step > PROTO_STEP_LAST ||
        (m.err != 0) != (m.step != PROTO_STEP_NONE) ||
        proto_copy_text(p + PROTO_RESTORED_FIXED, p + len,
                        len - PROTO_RESTORED_FIXED, m.boot_id,
                        sizeof(m.boot_id)))
        return -EBADMSG;
    if (m.err ? m.boot_id[0] != '\0' : !is_boot_id(m.boot_id))
        return -EBADMSG;
    *ret_m = m;
    return 0;
}
