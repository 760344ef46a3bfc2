/* SPDX-License-Identifier: Apache-2.0 */
/* Sections with checksums, and what two states differ in; see the header. */
#include "vmm/state_file.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "base/num.h"
#include "vmm/segments.h"

#define MAGIC "MSBXSTA1"
#define MAGIC_SIZE 8u
#define HEADER_SIZE (MAGIC_SIZE + 8u)
#define SECTION_HEADER_SIZE 16u
#define GROUP_HEADER_SIZE 8u

/* Within a section's header. */
#define SECTION_LENGTH_AT 8u
#define SECTION_CRC_AT 12u

static uint32_t checksum(const uint8_t *bytes, size_t len)
{
    return (uint32_t)crc32_z(0, bytes, len);
}

/* ---- writing ---- */

void state_file_writer_init(struct state_file_writer *f, void *buf, size_t size)
{
    *f = (struct state_file_writer){0};
    state_writer_init(&f->w, buf, size);
    state_put_bytes(&f->w, MAGIC, MAGIC_SIZE);
    state_put_u32(&f->w, STATE_FILE_VERSION);
    state_put_u32(&f->w, 0); /* sections, known at the end */
}

void state_file_begin(struct state_file_writer *f, const char *tag,
                      uint16_t version, uint16_t index)
{
    f->count++;
    f->section = f->w.used;
    state_put_bytes(&f->w, tag, 4);
    state_put_u16(&f->w, version);
    state_put_u16(&f->w, index);
    state_put_u32(&f->w, 0); /* length and checksum, known at the end */
    state_put_u32(&f->w, 0);
}

void state_file_end(struct state_file_writer *f)
{
    uint8_t *header = f->w.buf + f->section;
    size_t len;

    if (f->w.error != 0)
        return;
    len = f->w.used - f->section - SECTION_HEADER_SIZE;
    num_put_le32(header + SECTION_LENGTH_AT, (uint32_t)len);
    num_put_le32(header + SECTION_CRC_AT,
                 checksum(header + SECTION_HEADER_SIZE, len));
}

int state_file_finish(struct state_file_writer *f, size_t *ret_len)
{
    if (f->w.error != 0)
        return f->w.error;
    num_put_le32(f->w.buf + MAGIC_SIZE + 4, f->count);
    *ret_len = f->w.used;
    return 0;
}

/* ---- reading ---- */

static int __attribute__((format(printf, 2, 3)))
refuse(char why[STATE_WHY_MAX + 1], const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, STATE_WHY_MAX + 1, format, args);
    va_end(args);
    return -EBADMSG;
}

/* A tag as text: what is no plain letter or digit becomes a dot. */
static void copy_tag(const uint8_t *from, char ret_tag[5])
{
    for (int i = 0; i < 4; i++) {
        uint8_t c = from[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

        ret_tag[i] = plain || c == ' ' ? (char)c : '.';
    }
    ret_tag[4] = '\0';
}

/* "cpu 1" of a section: the tag without its padding, and the index. */
static void name_section(const char *tag, unsigned index, char *ret_name,
                         size_t size)
{
    int len = 4;

    while (len > 1 && tag[len - 1] == ' ')
        len--;
    snprintf(ret_name, size, "%.*s %u", len, tag, index);
}

int state_file_next(struct state_file *f, struct state_section *ret_section)
{
    const uint8_t *header = f->buf + f->at;

    if (f->left == 0)
        return 0;
    copy_tag(header, ret_section->tag);
    ret_section->version = num_get_le16(header + 4);
    ret_section->index = num_get_le16(header + 6);
    ret_section->len = num_get_le32(header + SECTION_LENGTH_AT);
    ret_section->payload = header + SECTION_HEADER_SIZE;
    f->at += SECTION_HEADER_SIZE + ret_section->len;
    f->left--;
    return 1;
}

/* One section whose header may be anything: 0 or -EBADMSG. */
static int check_section(struct state_file *f, unsigned number,
                         char why[STATE_WHY_MAX + 1])
{
    size_t room = f->len - f->at;
    struct state_section s;
    char name[16];

    if (room < SECTION_HEADER_SIZE)
        return refuse(why, "section %u is cut off", number);
    if (num_get_le32(f->buf + f->at + SECTION_LENGTH_AT) >
        room - SECTION_HEADER_SIZE)
        return refuse(why, "section %u is longer than the file", number);
    (void)state_file_next(f, &s);
    if (checksum(s.payload, s.len) !=
        num_get_le32(s.payload - SECTION_HEADER_SIZE + SECTION_CRC_AT)) {
        name_section(s.tag, s.index, name, sizeof(name));
        return refuse(why, "section %u (%s): its checksum is wrong", number,
                      name);
    }
    return 0;
}

int state_file_open(struct state_file *f, const void *buf, size_t len,
                    char ret_why[STATE_WHY_MAX + 1])
{
    struct state_file file = {.buf = buf, .len = len, .at = HEADER_SIZE};
    uint32_t count, version;

    if (len < HEADER_SIZE || memcmp(buf, MAGIC, MAGIC_SIZE) != 0)
        return refuse(ret_why, "it does not start with %s", MAGIC);
    if (len > STATE_FILE_MAX)
        return refuse(ret_why, "it is larger than %zu bytes", STATE_FILE_MAX);
    version = num_get_le32(file.buf + MAGIC_SIZE);
    if (version != STATE_FILE_VERSION)
        return refuse(ret_why, "its version is %u, not %u", version,
                      STATE_FILE_VERSION);
    count = num_get_le32(file.buf + MAGIC_SIZE + 4);
    if (count > STATE_FILE_SECTIONS_MAX)
        return refuse(ret_why, "it has %u sections, more than %u", count,
                      STATE_FILE_SECTIONS_MAX);
    file.left = count;
    for (unsigned i = 0; i < count; i++) {
        int ret = check_section(&file, i, ret_why);

        if (ret < 0)
            return ret;
    }
    if (file.at != len)
        return refuse(ret_why, "%zu bytes are behind its last section",
                      len - file.at);
    file.at = HEADER_SIZE;
    file.left = count;
    *f = file;
    return 0;
}

int state_file_expect(struct state_file *f, const char *tag, uint16_t version,
                      uint16_t index, struct state_reader *ret_reader,
                      char ret_why[STATE_WHY_MAX + 1])
{
    char wanted[16], found[16];
    struct state_section s;

    name_section(tag, index, wanted, sizeof(wanted));
    if (state_file_next(f, &s) == 0)
        return refuse(ret_why, "section %s is missing", wanted);
    name_section(s.tag, s.index, found, sizeof(found));
    if (memcmp(s.tag, tag, 4) != 0 || s.index != index)
        return refuse(ret_why, "section %s is where %s should be", found,
                      wanted);
    if (s.version != version)
        return refuse(ret_why, "section %s: its version is %u, not %u", found,
                      s.version, version);
    state_reader_init(ret_reader, s.payload, s.len);
    return 0;
}

/* ---- comparing ---- */

/* Bytes of a group that cannot be the same twice. */
static const struct {
    char tag[5], group[5];
    uint32_t first, count;
} exceptions[] = {
    {STATE_TAG_VM, STATE_GROUP_CLOCK, 0, 8},
    {STATE_TAG_CPU, STATE_GROUP_LAPIC, 0x390, 4}, /* current count */
};

/* MSRs that cannot: a group of them is pairs of u32 index and u64 value. */
#define MSR_ENTRY_SIZE 12u
static const uint32_t excepted_msrs[] = {
    0x10,  /* IA32_TSC */
    0x6e0, /* IA32_TSC_DEADLINE */
};

/* A group of a section, or all of a section that has none. */
struct part {
    const char *tag;
    char group[5];
    const uint8_t *bytes;
    uint32_t len;
};

/* Whether byte `offset`, which differs, may: of both, as far as it matters. */
static bool is_excepted(const struct part *p, const struct part *other,
                        uint32_t offset)
{
    uint32_t at = offset % MSR_ENTRY_SIZE;

    for (size_t i = 0; i < ARRAY_SIZE(exceptions); i++)
        if (!strcmp(p->tag, exceptions[i].tag) &&
            !strcmp(p->group, exceptions[i].group) &&
            offset - exceptions[i].first < exceptions[i].count)
            return true;
    if (strcmp(p->tag, STATE_TAG_CPU) != 0)
        return false;
    if (strcmp(p->group, STATE_GROUP_SREGS) == 0)
        return segments_idle_byte(p->bytes, p->len, offset) &&
               segments_idle_byte(other->bytes, other->len, offset);
    if (strcmp(p->group, STATE_GROUP_MSRS) != 0 || at < 4)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(excepted_msrs); i++)
        if (num_get_le32(p->bytes + offset - at) == excepted_msrs[i])
            return true;
    return false;
}

static int differs(struct state_difference *d, const struct part *p,
                   unsigned index, uint32_t offset)
{
    char name[16];

    *d = (struct state_difference){.index = (uint16_t)index, .offset = offset};
    memcpy(d->tag, p->tag, sizeof(d->tag));
    memcpy(d->group, p->group, sizeof(d->group));
    name_section(p->tag, index, name, sizeof(name));
    snprintf(d->text, sizeof(d->text), "section %s%s%s differs at byte %u",
             name, p->group[0] ? ", group " : "", p->group, offset);
    return 1;
}

/* 0 or 1. */
static int compare_part(const struct part *a, const struct part *b,
                        unsigned index, struct state_difference *d)
{
    uint32_t common = a->len < b->len ? a->len : b->len;

    if (memcmp(a->group, b->group, sizeof(a->group)) != 0)
        return differs(d, a, index, 0);
    if (a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0)
        return 0;
    for (uint32_t i = 0; i < common; i++)
        if (a->bytes[i] != b->bytes[i] && !is_excepted(a, b, i))
            return differs(d, a, index, i);
    return a->len == b->len ? 0 : differs(d, a, index, common);
}

/* Sections of groups only; the serial port is one plain list of fields. */
static bool has_groups(const char *tag)
{
    return strcmp(tag, STATE_TAG_SERIAL) != 0;
}

/* The next part of *r: 1, 0 at the end, -EBADMSG for a broken group. */
static int next_part(struct state_reader *r, const char *tag, struct part *p)
{
    size_t room = r->size - r->used;
    const uint8_t *at = r->buf + r->used;

    *p = (struct part){.tag = tag, .bytes = at, .len = (uint32_t)room};
    if (room == 0)
        return 0;
    if (has_groups(tag)) {
        if (room < GROUP_HEADER_SIZE)
            return -EBADMSG;
        copy_tag(at, p->group);
        p->bytes = at + GROUP_HEADER_SIZE;
        p->len = num_get_le32(at + 4);
        if (p->len > room - GROUP_HEADER_SIZE)
            return -EBADMSG;
        r->used += GROUP_HEADER_SIZE;
    }
    r->used += p->len;
    return 1;
}

static int broken(const struct state_section *s, struct state_difference *d)
{
    char name[16];

    name_section(s->tag, s->index, name, sizeof(name));
    return refuse(d->text, "section %s: its groups do not add up", name);
}

/* Two sections of the same tag and index: 0, 1 or -EBADMSG. */
static int compare_sections(const struct state_section *a,
                            const struct state_section *b,
                            struct state_difference *d)
{
    struct state_reader ra, rb;
    struct part pa, pb;
    int more_a, more_b, ret;

    state_reader_init(&ra, a->payload, a->len);
    state_reader_init(&rb, b->payload, b->len);
    for (;;) {
        more_a = next_part(&ra, a->tag, &pa);
        more_b = next_part(&rb, b->tag, &pb);
        if (more_a < 0 || more_b < 0)
            return broken(more_a < 0 ? a : b, d);
        if (more_a == 0 && more_b == 0)
            return 0;
        if (more_a != more_b)
            return differs(d, more_a ? &pa : &pb, a->index, 0);
        ret = compare_part(&pa, &pb, a->index, d);
        if (ret != 0)
            return ret;
    }
}

/* Opens one of the two, and says which it was if that fails. */
static int open_one(struct state_file *f, const void *buf, size_t len,
                    const char *which, struct state_difference *d)
{
    char why[STATE_WHY_MAX + 1];
    int ret = state_file_open(f, buf, len, why);

    if (ret < 0)
        snprintf(d->text, sizeof(d->text), "the %s state: %.150s", which, why);
    return ret;
}

int state_file_compare(const void *a, size_t a_len, const void *b, size_t b_len,
                       struct state_difference *ret_difference)
{
    struct state_difference *d = ret_difference;
    struct state_section sa = {0}, sb = {0};
    struct state_file fa = {0}, fb = {0};
    int more_a, more_b, ret;

    *d = (struct state_difference){0};
    ret = open_one(&fa, a, a_len, "first", d);
    if (ret == 0)
        ret = open_one(&fb, b, b_len, "second", d);
    while (ret == 0) {
        more_a = state_file_next(&fa, &sa);
        more_b = state_file_next(&fb, &sb);
        if (more_a == 0 && more_b == 0)
            return 0;
        if (more_a != more_b || strcmp(sa.tag, sb.tag) != 0 ||
            sa.index != sb.index || sa.version != sb.version)
            return differs(d, &(struct part){.tag = more_a ? sa.tag : sb.tag},
                           more_a ? sa.index : sb.index, 0);
        ret = compare_sections(&sa, &sb, d);
    }
    return ret;
}
