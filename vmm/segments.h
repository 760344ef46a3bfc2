/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which bytes of the segment registers mean something (group "sreg" of a cpu
 * section).
 *
 * A segment is unusable after a null selector was loaded, or if it is not
 * present. It has a selector, a base (a 64-bit guest uses those of FS and GS)
 * and a limit. Its attributes mean nothing, and nobody keeps them: a CPU with
 * VT-x leaves them undefined when it stops (Intel SDM 3C, "Saving Segment
 * Registers"), KVM sets the type's bit 0 in all but LDT there (an unrestricted
 * guest must not start without), and before Linux 6.2 cleared all of them; on
 * SVM there is no "unusable", it follows from "present". One does mean
 * something: SS's level is the CPU's own.
 *
 * So a state has them as zeros, a comparison passes them over, and what was
 * saved before that was so still compares. Code and task segments are always
 * usable in a guest that can run: of them, and of every segment that is usable,
 * each byte counts.
 *
 * Shared by harness and monitor; links nothing.
 */
#ifndef MICROSBX_VMM_SEGMENTS_H
#define MICROSBX_VMM_SEGMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * As a state has them: CS DS ES FS GS SS TR LDT, each of these bytes; other
 * registers follow.
 */
enum segment_byte {
    SEGMENT_BASE = 0,
    SEGMENT_LIMIT = 8,
    SEGMENT_SELECTOR = 12,
    SEGMENT_TYPE = 14, /* from here on: attributes, a byte each */
    SEGMENT_PRESENT = 15,
    SEGMENT_DPL = 16,
    SEGMENT_DB = 17,
    SEGMENT_S = 18,
    SEGMENT_L = 19,
    SEGMENT_G = 20,
    SEGMENT_AVL = 21,
    SEGMENT_UNUSABLE = 22,
    SEGMENT_SIZE = 23
};
#define SEGMENT_COUNT 8u
#define SEGMENTS_SIZE (SEGMENT_COUNT * SEGMENT_SIZE)

/*
 * True if byte `at` of the group is an attribute of an unusable segment that
 * means nothing. sregs: len bytes; false for all of one that is too short.
 */
bool segments_idle_byte(const uint8_t *sregs, size_t len, size_t at);

/* Gives such bytes the one form: zero, but for "unusable", which is 1. */
void segments_settle(uint8_t *sregs, size_t len);

#endif
