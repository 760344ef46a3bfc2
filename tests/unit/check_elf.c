/* SPDX-License-Identifier: Apache-2.0 */
/* The ELF loader: what it takes, and each thing that it refuses, by its text.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "tests/mini_kernel.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/boot_file.h"

#define RAM_SIZE (32 * MIB)

static struct mini_ram ram;
static uint8_t elf[MINI_ELF_SIZE];
static struct kernel_image image;
static struct monitor_error error;

static void setup(void)
{
    mini_ram_init(&ram, RAM_SIZE);
    mini_elf_make(elf);
    memset(&image, 0xa5, sizeof(image));
    memset(&error, 0, sizeof(error));
}

static void teardown(void)
{
    mini_ram_fini(&ram);
}

static int load(const void *bytes, size_t len)
{
    int fd = mini_file(bytes, len);
    int ret = elf_load(fd, &ram.mem, &image, &error);

    close(fd);
    return ret;
}

static int load_area_is_zero(void)
{
    return mini_ram_is_zero(&ram, MINI_LOAD_ADDRESS, 0x10000);
}

START_TEST(test_load)
{
    const uint8_t *code, *data;

    ck_assert_int_eq(load(elf, sizeof(elf)), 0);
    ck_assert_uint_eq(image.entry, MINI_LOAD_ADDRESS + 0x10);
    ck_assert_uint_eq(image.load_end,
                      MINI_ELF_DATA_ADDRESS + MINI_ELF_DATA_MEMORY);
    ck_assert_uint_eq(image.setup_header_len, 0);
    code = guest_mem_ptr(&ram.mem, MINI_LOAD_ADDRESS, MINI_ELF_CODE_SIZE);
    data = guest_mem_ptr(&ram.mem, MINI_ELF_DATA_ADDRESS, MINI_ELF_DATA_SIZE);
    ck_assert_mem_eq(code, elf + MINI_ELF_CODE, MINI_ELF_CODE_SIZE);
    ck_assert_mem_eq(data, elf + MINI_ELF_DATA, MINI_ELF_DATA_SIZE);
    ck_assert(mini_ram_is_zero(&ram, MINI_ELF_DATA_ADDRESS + MINI_ELF_DATA_SIZE,
                               MINI_ELF_DATA_MEMORY));
}
END_TEST

START_TEST(test_truncated_at_any_byte)
{
    for (size_t len = 0; len < sizeof(elf); len++) {
        ck_assert_int_lt(load(elf, len), 0);
        ck_assert_int_eq(error.code, MONITOR_ERROR_KERNEL);
        ck_assert_int_lt(error.error, 0);
        if (len >= 4)
            ck_assert_msg(strstr(error.text, "truncated") != NULL, "%zu: %s",
                          len, error.text);
        else
            ck_assert_str_ne(error.text, "");
    }
    ck_assert(load_area_is_zero());
}
END_TEST

/* One field made wrong: where, how wide, what, and what the user is told. */
struct fault {
    size_t offset;
    unsigned width;
    uint64_t value;
    const char *text;
};

#define PHDR(n, field) (MINI_ELF_PHDRS + (n)*MINI_ELF_PHDR_SIZE + (field))

static const struct fault faults[] = {
    {0, 1, 'x', "not an ELF file"},
    {4, 1, 1, "32-bit ELF file"},
    {4, 1, 9, "not 64-bit"},
    {5, 1, 2, "big-endian"},
    {16, 2, 1, "object file or kernel module"},
    {16, 2, 4, "not an executable"},
    {18, 2, 183, "for arm64, not for x86-64"},
    {18, 2, 3, "for 32-bit x86"},
    {18, 2, 0xfffe, "for another processor"},
    {24, 8, MINI_LOAD_ADDRESS - 1, "entry point 0xffffff lies in none"},
    {24, 8, MINI_LOAD_ADDRESS + 0x100, "lies in none"},
    {24, 8, MINI_ELF_DATA_ADDRESS + 0x1000, "lies in none"}, /* bss */
    {24, 8, UINT64_MAX, "lies in none"},
    {32, 8, MINI_ELF_SIZE - 111, "program headers lie beyond"},
    {32, 8, UINT64_MAX - 8, "program headers lie beyond"},
    {40, 8, MINI_ELF_SIZE - 63, "section table lies beyond"},
    {40, 8, UINT64_MAX - 8, "section table lies beyond"},
    {54, 2, 55, "wrong size"},
    {56, 2, 0, "lists no segments"},
    {56, 2, 65, "65 ELF program headers, more than 64"},
    {56, 2, 0xffff, "65535 ELF program headers"},
    {58, 2, 0xffff, "section table lies beyond"},
    {60, 2, 0xffff, "section table lies beyond"},
    {PHDR(0, 0), 4, 3, "an ordinary program"},
    {PHDR(0, 8), 8, MINI_ELF_SIZE - 0xff, "segment 0 ends beyond it"},
    {PHDR(1, 8), 8, UINT64_MAX - 0x7f, "segment 1 ends beyond it"},
    {PHDR(1, 24), 8, 0xfffff, "at 0xfffff, below 1 MiB"},
    {PHDR(1, 24), 8, 0, "below 1 MiB"},
    {PHDR(1, 24), 8, RAM_SIZE - 0x1fff, "33 MiB, but the guest has 32 MiB"},
    {PHDR(1, 24), 8, 0xbffff000, "must lie below 3 GiB"},
    {PHDR(1, 24), 8, 0x100000000, "must lie below 3 GiB"},
    {PHDR(1, 24), 8, UINT64_MAX - 0x1ffe, "beyond the address space"},
    {PHDR(1, 24), 8, MINI_LOAD_ADDRESS + 0xff, "overlaps another"},
    {PHDR(1, 24), 8, MINI_LOAD_ADDRESS - 0x1fff, "overlaps another"},
    {PHDR(1, 32), 8, 0x2001, "larger in the file than in memory"},
    {PHDR(1, 32), 8, UINT64_MAX, "larger in the file than in memory"},
    {PHDR(1, 40), 8, UINT64_MAX, "beyond the address space"},
    {PHDR(1, 40), 8, RAM_SIZE, "MiB, but the guest has 32 MiB"},
};

static void put_field(uint8_t *p, unsigned width, uint64_t value)
{
    for (unsigned i = 0; i < width; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

START_TEST(test_fault)
{
    const struct fault *f = &faults[_i];

    put_field(elf + f->offset, f->width, f->value);
    ck_assert_int_lt(load(elf, sizeof(elf)), 0);
    ck_assert_int_eq(error.code, MONITOR_ERROR_KERNEL);
    ck_assert_msg(strstr(error.text, f->text) != NULL,
                  "fault %d: \"%s\" does not say \"%s\"", _i, error.text,
                  f->text);
    ck_assert(load_area_is_zero());
}
END_TEST

START_TEST(test_nothing_to_load)
{
    put_field(elf + PHDR(0, 0), 4, 4);  /* PT_NOTE */
    put_field(elf + PHDR(1, 40), 8, 0); /* no memory... */
    put_field(elf + PHDR(1, 32), 8, 0); /* ...and no bytes */
    ck_assert_int_eq(load(elf, sizeof(elf)), -ENOEXEC);
    ck_assert_str_eq(error.text, "it has nothing to load");
}
END_TEST

/* Adjacent is not overlapping, and the last byte of RAM may be used. */
START_TEST(test_edges_fit)
{
    put_field(elf + PHDR(1, 24), 8, MINI_LOAD_ADDRESS + 0x100);
    ck_assert_int_eq(load(elf, sizeof(elf)), 0);
    put_field(elf + PHDR(1, 24), 8, RAM_SIZE - MINI_ELF_DATA_MEMORY);
    ck_assert_int_eq(load(elf, sizeof(elf)), 0);
    ck_assert_uint_eq(image.load_end, RAM_SIZE);
    put_field(elf + PHDR(1, 24), 8, 0x100000);
    ck_assert_int_eq(load(elf, sizeof(elf)), 0);
}
END_TEST

/* Whatever any one byte becomes, the loader comes back and names a reason. */
START_TEST(test_any_byte_changed)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};

    for (size_t i = 0; i < sizeof(elf); i++) {
        for (size_t v = 0; v < sizeof(values); v++) {
            uint8_t kept = elf[i];
            int ret;

            elf[i] = values[v];
            error.text[0] = '\0';
            ret = load(elf, sizeof(elf));
            ck_assert(ret == 0 || error.text[0] != '\0');
            elf[i] = kept;
        }
    }
}
END_TEST

static Suite *elf_suite(void)
{
    Suite *suite = suite_create("elf");
    TCase *tcase = tcase_create("elf");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_load);
    tcase_add_test(tcase, test_truncated_at_any_byte);
    tcase_add_loop_test(tcase, test_fault, 0, (int)ARRAY_SIZE(faults));
    tcase_add_test(tcase, test_nothing_to_load);
    tcase_add_test(tcase, test_edges_fit);
    tcase_add_test(tcase, test_any_byte_changed);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(elf_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
