/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state file of a snapshot: everything of a machine that is neither memory
 * nor disk, as bytes.
 *
 *   magic "MSBXSTA1" | u32 version | u32 section count | sections, to the end
 *   section: tag[4] | u16 version | u16 index | u32 length | u32 crc32 |
 * payload payload of most: groups, tag[4] | u32 length | fields
 *
 * Little-endian, no padding. crc32 is zlib's, of the payload. The sections of a
 * machine, in this order and no other:
 *
 *   "vm  "  once: clock, interrupt controllers, PIT if there is one
 *   "cpu "  one per vCPU, index = its id: registers
 *   "seri"  once: the serial port
 *   "slot"  one per virtio slot in use, index = slot: transport, queues, device
 *
 * A state is untrusted input: it is read here and by the loaders of each
 * section, and refused for any length, tag, version or order but the expected.
 *
 * Shared by harness and monitor; links base and zlib.
 */
#ifndef MICROSBX_VMM_STATE_FILE_H
#define MICROSBX_VMM_STATE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/codec.h"

#define STATE_FILE_MAX ((size_t)4 << 20)
#define STATE_FILE_VERSION 1u
#define STATE_FILE_SECTIONS_MAX 128u
#define STATE_WHY_MAX 191u

#define STATE_TAG_VM "vm  "
#define STATE_TAG_CPU "cpu "
#define STATE_TAG_SERIAL "seri"
#define STATE_TAG_SLOT "slot"

/* Groups that the comparison knows. */
#define STATE_GROUP_CLOCK "clok" /* of vm: u64 of KVM's clock first */
#define STATE_GROUP_SREGS "sreg" /* of cpu: segments first (segments.h) */
#define STATE_GROUP_LAPIC "lapc" /* of cpu: the register page's first 1 KiB */
#define STATE_GROUP_MSRS "msrs"  /* of cpu: u32 index and u64 value each */

/* ---- writing ---- */

struct state_file_writer {
    struct state_writer w; /* the fields of the section that was begun */
    uint32_t count;
    size_t section; /* where its header starts */
};

/* Begins a file in buf (borrowed). */
void state_file_writer_init(struct state_file_writer *f, void *buf,
                            size_t size);
/* Begins a section: write its payload to f->w. tag: four characters. */
void state_file_begin(struct state_file_writer *f, const char *tag,
                      uint16_t version, uint16_t index);
/* Ends it: fills in length and checksum. */
void state_file_end(struct state_file_writer *f);
/* 0 with the file's length, or -ENOSPC. Pre: no section is open. */
int state_file_finish(struct state_file_writer *f, size_t *ret_len)
    __attribute__((warn_unused_result));

/* ---- reading ---- */

struct state_section {
    char tag[5];
    uint16_t version;
    uint16_t index;
    const uint8_t *payload; /* borrowed from the file's bytes */
    uint32_t len;
};

struct state_file {
    const uint8_t *buf; /* borrowed */
    size_t len;
    size_t at; /* of the next section */
    uint32_t left;
};

/*
 * Checks all of it: magic, version, count, lengths, checksums, nothing left
 * over; the cursor is then before the first section. 0, or -EBADMSG with the
 * reason as a clause ("section 2 (cpu 1): its checksum is wrong").
 */
int state_file_open(struct state_file *f, const void *buf, size_t len,
                    char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));
/* The next section: 1, or 0 at the end. Pre: opened. */
int state_file_next(struct state_file *f, struct state_section *ret_section);
/*
 * The next section must be this one: a reader of its payload. -EBADMSG with the
 * reason if it is another, or none.
 */
int state_file_expect(struct state_file *f, const char *tag, uint16_t version,
                      uint16_t index, struct state_reader *ret_reader,
                      char ret_why[STATE_WHY_MAX + 1])
    __attribute__((warn_unused_result));

/* ---- comparing ---- */

/*
 * What cannot be the same after a save, a load and a save: the TSC and its
 * deadline (MSRs 0x10 and 0x6e0), KVM's clock, the current count of a LAPIC's
 * timer, and what means nothing: attributes of a segment that is unusable in
 * both states (segments.h). Nothing else is excepted.
 */

/* Where two states differ first. */
struct state_difference {
    char tag[5]; /* of the section */
    uint16_t index;
    char group[5];   /* of the group in it, or "" */
    uint32_t offset; /* in the group, or in the section without one */
    char text[STATE_WHY_MAX + 1]; /* all of it as a clause */
};

/*
 * 0: the same outside the exceptions; 1: *ret_difference says where not;
 * -EBADMSG: one of the two is no state file (text says which and why).
 */
int state_file_compare(const void *a, size_t a_len, const void *b, size_t b_len,
                       struct state_difference *ret_difference)
    __attribute__((warn_unused_result));

#endif
