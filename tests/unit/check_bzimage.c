/* SPDX-License-Identifier: Apache-2.0 */
/* The bzImage loader: what it takes, and each refusal by its text. */
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
static uint8_t bz[MINI_BZIMAGE_SIZE];
static struct kernel_image image;
static struct monitor_error error;

static void setup(void)
{
    mini_ram_init(&ram, RAM_SIZE);
    mini_bzimage_make(bz);
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
    int ret = bzimage_load(fd, &ram.mem, &image, &error);

    close(fd);
    return ret;
}

static void check_loaded(gpa_t at, size_t from, size_t len)
{
    const uint8_t *got = guest_mem_ptr(&ram.mem, at, len);

    ck_assert_ptr_nonnull(got);
    ck_assert_mem_eq(got, bz + from, len);
    ck_assert(mini_ram_is_zero(&ram, at + len, 0x1000));
}

START_TEST(test_load)
{
    ck_assert_int_eq(load(bz, sizeof(bz)), 0);
    ck_assert_uint_eq(image.entry, MINI_LOAD_ADDRESS + 0x200);
    ck_assert_uint_eq(image.load_end,
                      MINI_LOAD_ADDRESS + MINI_BZIMAGE_INIT_SIZE);
    ck_assert_uint_eq(image.setup_header_len, 0x26c - 0x1f1);
    ck_assert_mem_eq(image.setup_header, bz + 0x1f1, 0x26c - 0x1f1);
    check_loaded(MINI_LOAD_ADDRESS, MINI_BZIMAGE_SETUP, MINI_BZIMAGE_PAYLOAD);
}
END_TEST

/* A signature may follow; what the header does not count is not loaded. */
START_TEST(test_trailing_bytes)
{
    uint8_t longer[MINI_BZIMAGE_SIZE + 100];

    memcpy(longer, bz, sizeof(bz));
    memset(longer + sizeof(bz), 0xee, 100);
    ck_assert_int_eq(load(longer, sizeof(longer)), 0);
    check_loaded(MINI_LOAD_ADDRESS, MINI_BZIMAGE_SETUP, MINI_BZIMAGE_PAYLOAD);
}
END_TEST

START_TEST(test_setup_sects_zero_means_four)
{
    uint8_t longer[5 * 512 + MINI_BZIMAGE_PAYLOAD] = {0};
    const uint8_t *got;

    memcpy(longer, bz, MINI_BZIMAGE_SETUP);
    longer[0x1f1] = 0;
    memset(longer + 5 * 512, 0x3c, MINI_BZIMAGE_PAYLOAD);
    ck_assert_int_eq(load(longer, sizeof(longer)), 0);
    got = guest_mem_ptr(&ram.mem, MINI_LOAD_ADDRESS, MINI_BZIMAGE_PAYLOAD);
    ck_assert_mem_eq(got, longer + 5 * 512, MINI_BZIMAGE_PAYLOAD);
    ck_assert_int_lt(load(longer, sizeof(longer) - 1), 0);
}
END_TEST

START_TEST(test_truncated_at_any_byte)
{
    for (size_t len = 0; len < sizeof(bz); len++) {
        ck_assert_int_lt(load(bz, len), 0);
        ck_assert_int_eq(error.code, MONITOR_ERROR_KERNEL);
        ck_assert_int_lt(error.error, 0);
        if (len >= 0x208)
            ck_assert_msg(strstr(error.text, "truncated") != NULL, "%zu: %s",
                          len, error.text);
        else
            ck_assert_str_ne(error.text, "");
    }
    ck_assert(mini_ram_is_zero(&ram, MINI_LOAD_ADDRESS, 0x10000));
}
END_TEST

struct fault {
    size_t offset;
    unsigned width;
    uint64_t value;
    const char *text;
};

static const struct fault faults[] = {
    {0x1f1, 1, 2, "has 2560 bytes of the 3072 its header tells"},
    {0x1f1, 1, 255, "the file is truncated"},
    {0x1f4, 4, 0, "holds no 64-bit code"},
    {0x1f4, 4, 0x20, "holds no 64-bit code"},
    {0x1f4, 4, MINI_BZIMAGE_PAYLOAD / 16 + 1, "the file is truncated"},
    {0x1f4, 4, UINT32_MAX, "the file is truncated"},
    {0x1fe, 2, 0xaa54, "not a Linux kernel for x86-64 but an EFI"},
    {0x201, 1, 0x61, "setup header has a wrong size"},
    {0x201, 1, 0x8f, "setup header has a wrong size"},
    {0x201, 1, 0xff, "setup header has a wrong size"},
    {0x202, 1, 'h', "not a Linux kernel"},
    {0x206, 2, 0x020b, "boot protocol 2.11, older than 2.12"},
    {0x206, 2, 0x0000, "boot protocol 0.0"},
    {0x211, 1, 0, "a zImage"},
    {0x236, 2, 0xfffe, "a 32-bit kernel"},
    {0x258, 8, 0, "below 1 MiB"},
    {0x258, 8, 0xff000, "at 0xff000, below 1 MiB"},
    {0x258, 8, RAM_SIZE, "33 MiB, but the guest has 32 MiB"},
    {0x258, 8, 0xc0000000, "must lie below 3 GiB"},
    {0x258, 8, 0x100000000, "must lie below 3 GiB"},
    {0x258, 8, UINT64_MAX, "out of range"},
    {0x260, 4, 0x1000001, "33 MiB, but the guest has 32 MiB"},
    {0x260, 4, UINT32_MAX, "must lie below 3 GiB"},
};

static void put_field(uint8_t *p, unsigned width, uint64_t value)
{
    for (unsigned i = 0; i < width; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

START_TEST(test_fault)
{
    const struct fault *f = &faults[_i];

    put_field(bz + f->offset, f->width, f->value);
    ck_assert_int_lt(load(bz, sizeof(bz)), 0);
    ck_assert_int_eq(error.code, MONITOR_ERROR_KERNEL);
    ck_assert_msg(strstr(error.text, f->text) != NULL,
                  "fault %d: \"%s\" does not say \"%s\"", _i, error.text,
                  f->text);
    ck_assert(mini_ram_is_zero(&ram, MINI_LOAD_ADDRESS, 0x10000));
}
END_TEST

/* init_size up to the very end of memory is fine; smaller than the file, too.
 */
START_TEST(test_edges_fit)
{
    put_field(bz + 0x260, 4, RAM_SIZE - MINI_LOAD_ADDRESS);
    ck_assert_int_eq(load(bz, sizeof(bz)), 0);
    ck_assert_uint_eq(image.load_end, RAM_SIZE);
    put_field(bz + 0x260, 4, 0);
    ck_assert_int_eq(load(bz, sizeof(bz)), 0);
    ck_assert_uint_eq(image.load_end, MINI_LOAD_ADDRESS + MINI_BZIMAGE_PAYLOAD);
    put_field(bz + 0x201, 1, 0x8e); /* header up to 0x290 */
    ck_assert_int_eq(load(bz, sizeof(bz)), 0);
    ck_assert_uint_eq(image.setup_header_len, 0x290 - 0x1f1);
    put_field(bz + 0x201, 1, 0x62); /* init_size is the last field */
    ck_assert_int_eq(load(bz, sizeof(bz)), 0);
    ck_assert_uint_eq(image.setup_header_len, 0x264 - 0x1f1);
}
END_TEST

/* Files that people hand in by mistake. */
static const struct fault lookalikes[] = {
    {0, 2, 0x8b1f, "but a gzip-compressed file"},
    {0, 4, 0xfd2fb528, "but a zstd-compressed file"},
    {0, 6, 0x31303730373030 >> 8, "but a cpio archive"},
    {0, 4, 0x73717368, "but a squashfs"},
    {0x38, 4, 0x644d5241, "but an arm64 kernel"},
    {0x438, 2, 0xef53, "but an ext4 file system"},
    {0x1fe, 2, 0xaa55, "but a disk or boot sector"},
    {0, 2, 0x2123, "but a script"},
    {0, 1, 0, "but a file of zeros"},
    {0, 1, 1, "but neither an ELF file nor a bzImage"},
};

START_TEST(test_lookalike)
{
    const struct fault *f = &lookalikes[_i];
    uint8_t file[2048] = {0};

    put_field(file + f->offset, f->width, f->value);
    ck_assert_int_eq(load(file, sizeof(file)), -ENOEXEC);
    ck_assert_msg(strstr(error.text, f->text) != NULL,
                  "\"%s\" does not say \"%s\"", error.text, f->text);
}
END_TEST

START_TEST(test_text_file)
{
    static const char text[] = "# my kernel\nit is not here\n";

    ck_assert_int_eq(load(text, strlen(text)), -ENOEXEC);
    ck_assert_str_eq(error.text,
                     "it is not a Linux kernel for x86-64 but a text file");
}
END_TEST

START_TEST(test_any_byte_changed)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};

    for (size_t i = 0; i < MINI_BZIMAGE_SETUP; i++) {
        for (size_t v = 0; v < sizeof(values); v++) {
            uint8_t kept = bz[i];
            int ret;

            bz[i] = values[v];
            error.text[0] = '\0';
            ret = load(bz, sizeof(bz));
            ck_assert(ret == 0 || error.text[0] != '\0');
            bz[i] = kept;
        }
    }
}
END_TEST

static Suite *bzimage_suite(void)
{
    Suite *suite = suite_create("bzimage");
    TCase *tcase = tcase_create("bzimage");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_load);
    tcase_add_test(tcase, test_trailing_bytes);
    tcase_add_test(tcase, test_setup_sects_zero_means_four);
    tcase_add_test(tcase, test_truncated_at_any_byte);
    tcase_add_loop_test(tcase, test_fault, 0, (int)ARRAY_SIZE(faults));
    tcase_add_test(tcase, test_edges_fit);
    tcase_add_loop_test(tcase, test_lookalike, 0, (int)ARRAY_SIZE(lookalikes));
    tcase_add_test(tcase, test_text_file);
    tcase_add_test(tcase, test_any_byte_changed);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(bzimage_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
