/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a hostile monitor may send: the first byte picks the record. What
 * decodes must encode to the same bytes again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/msg.h"
#include "vmm/monitor_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void compare(int ret, const uint8_t *again, size_t len,
                    const uint8_t *data, size_t size)
{
    if (ret != 0 || len != size || memcmp(again, data, size) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t buf[MSG_PAYLOAD_MAX];
    size_t len = 0;
    union {
        struct monitor_error error;
        struct monitor_stats stats;
        struct monitor_exit exit;
        struct monitor_probe probe;
        struct monitor_saved saved;
        struct monitor_rolled_back back;
        struct monitor_proved proved;
    } r;

    if (size-- == 0)
        return 0;
    switch (*data++ % 7) {
    case 0:
        if (monitor_error_decode(data, size, &r.error) == 0)
            compare(monitor_error_encode(&r.error, buf, sizeof(buf), &len), buf,
                    len, data, size);
        break;
    case 1:
        if (monitor_stats_decode(data, size, &r.stats) == 0)
            compare(monitor_stats_encode(&r.stats, buf, sizeof(buf), &len), buf,
                    len, data, size);
        break;
    case 2:
        if (monitor_exit_decode(data, size, &r.exit) == 0)
            compare(monitor_exit_encode(&r.exit, buf, sizeof(buf), &len), buf,
                    len, data, size);
        break;
    case 3:
        if (monitor_probe_decode(data, size, &r.probe) == 0)
            compare(monitor_probe_encode(&r.probe, buf, sizeof(buf), &len), buf,
                    len, data, size);
        break;
    case 4:
        if (monitor_saved_decode(data, size, &r.saved) == 0)
            compare(monitor_saved_encode(&r.saved, buf, sizeof(buf), &len), buf,
                    len, data, size);
        break;
    case 6:
        if (monitor_proved_decode(data, size, &r.proved) == 0)
            compare(monitor_proved_encode(&r.proved, buf, sizeof(buf), &len),
                    buf, len, data, size);
        break;
    default:
        if (monitor_rolled_back_decode(data, size, &r.back) == 0)
            compare(monitor_rolled_back_encode(&r.back, buf, sizeof(buf), &len),
                    buf, len, data, size);
        break;
    }
    return 0;
}
