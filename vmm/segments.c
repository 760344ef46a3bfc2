/* SPDX-License-Identifier: Apache-2.0 */
/* Which bytes of the segment registers mean something; see the header. */
#include "vmm/segments.h"

enum { CS, DS, ES, FS, GS, SS, TR, LDT };

static bool is_unusable(const uint8_t *segment)
{
    return segment[SEGMENT_UNUSABLE] != 0 || segment[SEGMENT_PRESENT] == 0;
}

bool segments_idle_byte(const uint8_t *sregs, size_t len, size_t at)
{
    size_t number = at / SEGMENT_SIZE, byte = at % SEGMENT_SIZE;

    if (len < SEGMENTS_SIZE || at >= SEGMENTS_SIZE || byte < SEGMENT_TYPE)
        return false;
    if (number == CS || number == TR || (number == SS && byte == SEGMENT_DPL))
        return false;
    return is_unusable(sregs + number * SEGMENT_SIZE);
}

void segments_settle(uint8_t *sregs, size_t len)
{
    for (size_t at = 0; at < SEGMENTS_SIZE; at++)
        if (segments_idle_byte(sregs, len, at))
            sregs[at] = at % SEGMENT_SIZE == SEGMENT_UNUSABLE;
}
