/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A state file of a hostile snapshot: opened, walked, its groups read, and
 * compared with itself and with one that has a byte changed. The checksums are
 * made right first, or a fuzzer would never get past them.
 */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/num.h"
#include "vmm/state_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEADER 16u
#define SIZE_MAX_HERE 65536u

static void mend_checksums(uint8_t *buf, size_t size)
{
    size_t at = HEADER;

    while (size - at >= HEADER) {
        uint32_t len = num_get_le32(buf + at + 8);

        if (len > size - at - HEADER)
            return;
        num_put_le32(buf + at + 12, (uint32_t)crc32(0, buf + at + HEADER, len));
        at += HEADER + len;
    }
}

static void walk(struct state_file *f, const uint8_t *buf, size_t size)
{
    struct state_section s;
    size_t seen = HEADER;

    while (state_file_next(f, &s) == 1) {
        struct state_reader r, group;

        if (s.payload < buf || s.len > size - (size_t)(s.payload - buf))
            abort();
        seen += HEADER + s.len;
        state_reader_init(&r, s.payload, s.len);
        group = state_get_group(&r, STATE_GROUP_CLOCK);
        (void)state_get_u64(&group);
    }
    if (seen != size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t a[SIZE_MAX_HERE], b[SIZE_MAX_HERE];
    char why[STATE_WHY_MAX + 1];
    struct state_difference d;
    struct state_file f;
    int ret;

    if (size < 2 || size - 2 > SIZE_MAX_HERE)
        return 0;
    size -= 2;
    memcpy(a, data + 2, size);
    if (size >= HEADER)
        mend_checksums(a, size);
    if (state_file_open(&f, a, size, why) < 0) {
        if (state_file_compare(a, size, a, size, &d) >= 0)
            abort();
        return 0;
    }
    walk(&f, a, size);
    ret = state_file_compare(a, size, a, size, &d);
    if (ret > 0)
        abort();
    memcpy(b, a, size);
    b[(size_t)(data[0] | data[1] << 8) % size] ^= 0x10;
    mend_checksums(b, size);
    (void)!state_file_compare(a, size, b, size, &d);
    return 0;
}
