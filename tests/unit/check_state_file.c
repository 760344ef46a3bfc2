/* SPDX-License-Identifier: Apache-2.0 */
/* The state file: what is written is read, everything else is refused. */
#include "vmm/state_file.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <zlib.h>

#include "base/num.h"

#define BUF_SIZE 4096u
#define HEADER 16u         /* of the file */
#define SECTION_HEADER 16u /* of a section */

static char why[STATE_WHY_MAX + 1];

/* ---- a state like a machine's ---- */

static void put_group(struct state_writer *w, const char *tag,
                      const void *bytes, size_t len)
{
    size_t begun = state_group_begin(w, tag);

    state_put_bytes(w, bytes, len);
    state_group_end(w, begun);
}

static void put_msr(struct state_writer *w, uint32_t index, uint64_t value)
{
    state_put_u32(w, index);
    state_put_u64(w, value);
}

static void put_cpu(struct state_file_writer *f, uint16_t index)
{
    uint8_t lapic[1024] = {0};
    size_t begun;

    state_file_begin(f, STATE_TAG_CPU, 1, index);
    put_group(&f->w, "regs", "0123456789abcdef", 16);
    put_group(&f->w, STATE_GROUP_LAPIC, lapic, sizeof(lapic));
    begun = state_group_begin(&f->w, STATE_GROUP_MSRS);
    put_msr(&f->w, 0x10, 1000);
    put_msr(&f->w, 0x277, 7);
    put_msr(&f->w, 0x6e0, 2000);
    state_group_end(&f->w, begun);
    state_file_end(f);
}

static size_t make_state(uint8_t *buf, size_t size)
{
    struct state_file_writer f;
    size_t len = 0, begun;

    state_file_writer_init(&f, buf, size);
    state_file_begin(&f, STATE_TAG_VM, 1, 0);
    begun = state_group_begin(&f.w, STATE_GROUP_CLOCK);
    state_put_u64(&f.w, 12345);
    state_group_end(&f.w, begun);
    put_group(&f.w, "ioap", "redirections", 12);
    state_file_end(&f);
    put_cpu(&f, 0);
    put_cpu(&f, 1);
    state_file_begin(&f, STATE_TAG_SERIAL, 1, 0);
    state_put_bytes(&f.w, "registers", 9);
    state_file_end(&f);
    return state_file_finish(&f, &len) == 0 ? len : 0;
}

/* Where section number `at` starts. */
static size_t section_at(const uint8_t *buf, unsigned at)
{
    size_t offset = HEADER;

    for (; at > 0; at--)
        offset += SECTION_HEADER + num_get_le32(buf + offset + 8);
    return offset;
}

/* Makes the checksum of section number `at` right again. */
static void mend(uint8_t *buf, unsigned at)
{
    uint8_t *s = buf + section_at(buf, at);

    num_put_le32(s + 12,
                 (uint32_t)crc32(0, s + SECTION_HEADER, num_get_le32(s + 8)));
}

static int open_state(const void *buf, size_t len)
{
    struct state_file f;

    why[0] = '\0';
    return state_file_open(&f, buf, len, why);
}

/* ---- reading ---- */

START_TEST(sections_come_back)
{
    static const struct {
        const char *tag;
        uint16_t index;
    } order[] = {{STATE_TAG_VM, 0},
                 {STATE_TAG_CPU, 0},
                 {STATE_TAG_CPU, 1},
                 {STATE_TAG_SERIAL, 0}};
    uint8_t buf[BUF_SIZE], bytes[9];
    size_t len = make_state(buf, sizeof(buf));
    struct state_section section;
    struct state_reader r, group;
    struct state_file f;

    ck_assert_int_eq(state_file_open(&f, buf, len, why), 0);
    for (size_t i = 0; i < ARRAY_SIZE(order); i++)
        ck_assert_int_eq(
            state_file_expect(&f, order[i].tag, 1, order[i].index, &r, why), 0);
    state_get_bytes(&r, bytes, sizeof(bytes));
    ck_assert_int_eq(state_reader_finish(&r), 0);
    ck_assert_mem_eq(bytes, "registers", 9);
    ck_assert_int_eq(state_file_next(&f, &section), 0);
    ck_assert_int_eq(state_file_expect(&f, STATE_TAG_SLOT, 1, 0, &r, why),
                     -EBADMSG);
    ck_assert_str_eq(why, "section slot 0 is missing");

    ck_assert_int_eq(state_file_open(&f, buf, len, why), 0);
    ck_assert_int_eq(state_file_expect(&f, STATE_TAG_VM, 1, 0, &r, why), 0);
    group = state_get_group(&r, STATE_GROUP_CLOCK);
    ck_assert_uint_eq(state_get_u64(&group), 12345);
    ck_assert_int_eq(state_reader_finish(&group), 0);
    group = state_get_group(&r, "pit2"); /* it is "ioap" */
    ck_assert_int_ne(state_reader_finish(&group), 0);
    ck_assert_int_ne(r.error, 0);
}
END_TEST

START_TEST(wrong_sections_are_named)
{
    uint8_t buf[BUF_SIZE];
    size_t len = make_state(buf, sizeof(buf));
    struct state_reader r;
    struct state_file f;

    ck_assert_int_eq(state_file_open(&f, buf, len, why), 0);
    ck_assert_int_eq(state_file_expect(&f, STATE_TAG_VM, 2, 0, &r, why),
                     -EBADMSG);
    ck_assert_str_eq(why, "section vm 0: its version is 1, not 2");
    ck_assert_int_eq(state_file_expect(&f, STATE_TAG_CPU, 1, 1, &r, why),
                     -EBADMSG);
    ck_assert_str_eq(why, "section cpu 0 is where cpu 1 should be");
    ck_assert_int_eq(state_file_expect(&f, STATE_TAG_SLOT, 1, 1, &r, why),
                     -EBADMSG);
    ck_assert_str_eq(why, "section cpu 1 is where slot 1 should be");
}
END_TEST

START_TEST(cut_anywhere_is_refused)
{
    uint8_t buf[BUF_SIZE];
    size_t len = make_state(buf, sizeof(buf));

    ck_assert_int_eq(open_state(buf, len), 0);
    for (size_t cut = 0; cut < len; cut++) {
        ck_assert_int_eq(open_state(buf, cut), -EBADMSG);
        ck_assert_str_ne(why, "");
    }
    buf[len] = 0;
    ck_assert_int_eq(open_state(buf, len + 1), -EBADMSG);
    ck_assert_str_eq(why, "1 bytes are behind its last section");
}
END_TEST

/* One bit anywhere: refused, but for those in a tag or an index, which only
 * whoever expects another one can see. */
START_TEST(flipped_bits_are_refused)
{
    uint8_t buf[BUF_SIZE];
    size_t len = make_state(buf, sizeof(buf));

    for (size_t bit = 0; bit < len * 8; bit++) {
        size_t at = bit / 8, section = HEADER;
        bool named = false;
        int ret;

        for (unsigned i = 0; i < 4; i++) {
            named |= at >= section && at < section + 8;
            section += SECTION_HEADER + num_get_le32(buf + section + 8);
        }
        buf[at] ^= (uint8_t)(1u << (bit % 8));
        ret = open_state(buf, len);
        ck_assert_msg(ret == (named ? 0 : -EBADMSG), "bit %zu: %d", bit, ret);
        buf[at] ^= (uint8_t)(1u << (bit % 8));
    }
}
END_TEST

START_TEST(writing_needs_room)
{
    uint8_t buf[BUF_SIZE];
    size_t len = make_state(buf, sizeof(buf));

    for (size_t size = 0; size < len; size++)
        ck_assert_uint_eq(make_state(buf, size), 0);
    ck_assert_uint_eq(make_state(buf, len), len);
}
END_TEST

static const struct {
    size_t at;
    uint32_t value;
    const char *why;
} headers[] = {
    {0, 0, "it does not start with MSBXSTA1"},
    {8, 2, "its version is 2, not 1"},
    {12, 5, "section 4 is cut off"},
    {12, 3, "25 bytes are behind its last section"},
    {12, 129, "it has 129 sections, more than 128"},
    {12, UINT32_MAX, "it has 4294967295 sections, more than 128"},
    {HEADER + 8, UINT32_MAX, "section 0 is longer than the file"},
    {HEADER + 12, 0, "section 0 (vm 0): its checksum is wrong"},
};

START_TEST(headers_are_checked)
{
    uint8_t buf[BUF_SIZE];
    size_t len = make_state(buf, sizeof(buf));

    num_put_le32(buf + headers[_i].at, headers[_i].value);
    ck_assert_int_eq(open_state(buf, len), -EBADMSG);
    ck_assert_str_eq(why, headers[_i].why);
}
END_TEST

/* A hostile tag is not repeated as it is. */
START_TEST(tags_are_printed_plainly)
{
    uint8_t buf[BUF_SIZE];
    size_t len = make_state(buf, sizeof(buf));
    struct state_reader r;
    struct state_file f;

    memcpy(buf + HEADER, "\x1b[2J", 4);
    ck_assert_int_eq(state_file_open(&f, buf, len, why), 0);
    ck_assert_int_eq(state_file_expect(&f, STATE_TAG_VM, 1, 0, &r, why),
                     -EBADMSG);
    ck_assert_str_eq(why, "section ..2. 0 is where vm 0 should be");
}
END_TEST

/* ---- comparing ---- */

/* A byte of a section's payload, changed; what the comparison says. */
static const struct {
    unsigned section;
    size_t at; /* in its payload */
    const char *text;
} changes[] = {
    {0, 8, NULL},  /* KVM's clock */
    {0, 15, NULL}, /* its last byte */
    {0, 24, "section vm 0, group ioap differs at byte 0"},
    {1, 8, "section cpu 0, group regs differs at byte 0"},
    {2, 23, "section cpu 1, group regs differs at byte 15"},
    {1, 32 + 0x38f, "section cpu 0, group lapc differs at byte 911"},
    {1, 32 + 0x390, NULL}, /* the timer's current count */
    {1, 32 + 0x393, NULL},
    {1, 32 + 0x394, "section cpu 0, group lapc differs at byte 916"},
    {1, 1064, "section cpu 0, group msrs differs at byte 0"},
    {1, 1064 + 4, NULL}, /* the TSC's value */
    {1, 1064 + 11, NULL},
    {1, 1064 + 12, "section cpu 0, group msrs differs at byte 12"},
    {1, 1064 + 16, "section cpu 0, group msrs differs at byte 16"},
    {2, 1064 + 24, "section cpu 1, group msrs differs at byte 24"},
    {2, 1064 + 28, NULL}, /* the deadline's */
    {3, 4, "section seri 0 differs at byte 4"},
};

START_TEST(differences_are_named)
{
    uint8_t a[BUF_SIZE], b[BUF_SIZE];
    size_t len = make_state(a, sizeof(a));
    struct state_difference d;
    int expected = changes[_i].text ? 1 : 0;

    memcpy(b, a, len);
    b[section_at(b, changes[_i].section) + SECTION_HEADER + changes[_i].at] ^=
        1;
    mend(b, changes[_i].section);
    ck_assert_int_eq(state_file_compare(a, len, b, len, &d), expected);
    ck_assert_str_eq(d.text, expected ? changes[_i].text : "");
    ck_assert_int_eq(state_file_compare(a, len, a, len, &d), 0);
}
END_TEST

/* An MSR that is not the same one on both sides is no exception. */
START_TEST(other_msrs_are_no_exception)
{
    uint8_t a[BUF_SIZE], b[BUF_SIZE];
    size_t len = make_state(a, sizeof(a));
    struct state_difference d;
    size_t msrs = section_at(a, 1) + SECTION_HEADER + 1064;

    memcpy(b, a, len);
    num_put_le32(b + msrs, 0x11);
    num_put_le64(b + msrs + 4, 5);
    mend(b, 1);
    ck_assert_int_eq(state_file_compare(a, len, b, len, &d), 1);
    ck_assert_str_eq(d.group, "msrs");
    ck_assert_uint_eq(d.offset, 0);
}
END_TEST

START_TEST(lengths_and_sections_differ)
{
    uint8_t a[BUF_SIZE], b[BUF_SIZE];
    size_t len = make_state(a, sizeof(a)), serial = section_at(a, 3);
    struct state_difference d;

    /* one section less */
    memcpy(b, a, len);
    num_put_le32(b + 12, 3);
    ck_assert_int_eq(state_file_compare(a, len, b, serial, &d), 1);
    ck_assert_str_eq(d.text, "section seri 0 differs at byte 0");
    ck_assert_int_eq(state_file_compare(b, serial, a, len, &d), 1);
    ck_assert_str_eq(d.text, "section seri 0 differs at byte 0");
    /* a shorter one */
    memcpy(b, a, len);
    num_put_le32(b + serial + 8, 8);
    mend(b, 3);
    ck_assert_int_eq(state_file_compare(a, len, b, len - 1, &d), 1);
    ck_assert_str_eq(d.text, "section seri 0 differs at byte 8");
    /* another version */
    memcpy(b, a, len);
    b[serial + 4] = 2;
    ck_assert_int_eq(state_file_compare(a, len, b, len, &d), 1);
    /* one that is none */
    ck_assert_int_eq(state_file_compare(a, len, b, 5, &d), -EBADMSG);
    ck_assert_str_eq(d.text,
                     "the second state: it does not start with MSBXSTA1");
    ck_assert_int_eq(state_file_compare(b, 5, a, len, &d), -EBADMSG);
    ck_assert_str_eq(d.text,
                     "the first state: it does not start with MSBXSTA1");
}
END_TEST

START_TEST(broken_groups_are_refused)
{
    uint8_t a[BUF_SIZE];
    size_t len = make_state(a, sizeof(a));
    struct state_difference d;

    num_put_le32(a + section_at(a, 1) + SECTION_HEADER + 4, 5000);
    mend(a, 1);
    ck_assert_int_eq(state_file_compare(a, len, a, len, &d), -EBADMSG);
    ck_assert_str_eq(d.text, "section cpu 0: its groups do not add up");
}
END_TEST

/*
 * A state whose last group is its end, and the end of readable memory: what is
 * read behind it is a fault. Returns its length.
 */
static size_t make_last_group(uint8_t **ret_buf)
{
    struct state_file_writer f;
    uint8_t buf[256], *page;
    size_t len = 0;

    state_file_writer_init(&f, buf, sizeof(buf));
    state_file_begin(&f, STATE_TAG_CPU, 1, 0);
    put_group(&f.w, "regs", "0123456789abcdef", 16);
    state_file_end(&f);
    ck_assert_int_eq(state_file_finish(&f, &len), 0);
    page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0);
    ck_assert_ptr_ne(page, MAP_FAILED);
    ck_assert_int_eq(mprotect(page + 4096, 4096, PROT_NONE), 0);
    *ret_buf = page + 4096 - len;
    memcpy(*ret_buf, buf, len);
    return len;
}

static const uint32_t too_long[] = {
    17, 20, 23, 24, 25, 4096, UINT32_MAX - 8, UINT32_MAX};

/* Whichever of the two it is: a group ends within its section. */
START_TEST(groups_end_within_their_section)
{
    uint8_t *good, *bad;
    size_t len = make_last_group(&good);
    struct state_difference d;

    ck_assert_uint_eq(make_last_group(&bad), len);
    ck_assert_int_eq(state_file_compare(good, len, bad, len, &d), 0);
    num_put_le32(bad + HEADER + SECTION_HEADER + 4, too_long[_i]);
    mend(bad, 0);
    ck_assert_int_eq(state_file_compare(good, len, bad, len, &d), -EBADMSG);
    ck_assert_str_eq(d.text, "section cpu 0: its groups do not add up");
    ck_assert_int_eq(state_file_compare(bad, len, good, len, &d), -EBADMSG);
    ck_assert_str_eq(d.text, "section cpu 0: its groups do not add up");
    ck_assert_int_eq(state_file_compare(bad, len, bad, len, &d), -EBADMSG);
}
END_TEST

/* A group that ends early leaves too little for the header of another one. */
START_TEST(groups_have_whole_headers)
{
    uint8_t *good, *bad;
    size_t len = make_last_group(&good);
    struct state_difference d;

    (void)make_last_group(&bad);
    num_put_le32(bad + HEADER + SECTION_HEADER + 4, (uint32_t)(16 - _i));
    mend(bad, 0);
    ck_assert_int_eq(state_file_compare(bad, len, bad, len, &d), -EBADMSG);
    ck_assert_str_eq(d.text, "section cpu 0: its groups do not add up");
    /* The first difference is the group's length. */
    ck_assert_int_eq(state_file_compare(good, len, bad, len, &d), 1);
    ck_assert_uint_eq(d.offset, 16 - (unsigned)_i);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("state_file");
    TCase *tc = tcase_create("state_file");
    SRunner *sr;
    int failed;

    tcase_add_test(tc, sections_come_back);
    tcase_add_test(tc, wrong_sections_are_named);
    tcase_add_test(tc, cut_anywhere_is_refused);
    tcase_add_test(tc, flipped_bits_are_refused);
    tcase_add_test(tc, writing_needs_room);
    tcase_add_loop_test(tc, headers_are_checked, 0, (int)ARRAY_SIZE(headers));
    tcase_add_test(tc, tags_are_printed_plainly);
    tcase_add_loop_test(tc, differences_are_named, 0, (int)ARRAY_SIZE(changes));
    tcase_add_test(tc, other_msrs_are_no_exception);
    tcase_add_test(tc, lengths_and_sections_differ);
    tcase_add_test(tc, broken_groups_are_refused);
    tcase_add_loop_test(tc, groups_end_within_their_section, 0,
                        (int)ARRAY_SIZE(too_long));
    tcase_add_loop_test(tc, groups_have_whole_headers, 1, 8);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
