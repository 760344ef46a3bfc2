/* SPDX-License-Identifier: Apache-2.0 */
/* Which description of the machine a kernel gets, by what is in its file. */
#include "trial/kernel_platform.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "base/num.h"

#define CHUNK ((uint64_t)1 << 20)
#define VERSION "Linux version 6.1.0 (someone)"
#define ACPI "ACPI BIOS Error (bug): "
#define TREE "intel,ce4100-lapic"

static struct failure f;

/* A sparse file of 4 MiB with these words at some places; NULL ends them. */
struct words {
    const char *at_start;
    struct {
        const char *word;
        uint64_t at;
    } more[4];
    int ret;
    enum vm_platform platform;
};

static const struct words kernels[] = {
    /* No ELF file: a bzImage, whatever it holds. */
    {"MZ", {{NULL, 0}}, 0, VM_PLATFORM_ACPI},
    {"", {{VERSION, 100}, {TREE, 500}}, 0, VM_PLATFORM_ACPI},
    /* No Linux: nothing to go by. */
    {"\177ELF", {{NULL, 0}}, 0, VM_PLATFORM_DEVICE_TREE},
    {"\177ELF",
     {{VERSION, 100}, {TREE, 3 * CHUNK}},
     0,
     VM_PLATFORM_DEVICE_TREE},
    {"\177ELF", {{VERSION, 3 * CHUNK}, {ACPI, 100}}, 0, VM_PLATFORM_ACPI},
    {"\177ELF",
     {{VERSION, 100}, {TREE, 200}, {ACPI, 3 * CHUNK}},
     0,
     VM_PLATFORM_ACPI},
    {"\177ELF",
     {{ACPI, 200}, {VERSION, 100}, {TREE, 3 * CHUNK}},
     0,
     VM_PLATFORM_ACPI},
    /* Almost. */
    {"\177ELF", {{VERSION, 100}, {"ACPI BIOS Error: ", 200}}, -ENOEXEC, 0},
    {"\177ELF", {{VERSION, 100}, {"intel,ce4100", 200}}, -ENOEXEC, 0},
    {"\177ELF", {{VERSION, 3 * CHUNK - 5}}, -ENOEXEC, 0},
};

static int make_file(const struct words *k)
{
    int fd = memfd_create("kernel", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)(4 * CHUNK)), 0);
    ck_assert_int_eq(io_pwrite_full(fd, k->at_start, strlen(k->at_start), 0),
                     0);
    for (size_t i = 0; i < ARRAY_SIZE(k->more) && k->more[i].word; i++)
        ck_assert_int_eq(io_pwrite_full(fd, k->more[i].word,
                                        strlen(k->more[i].word), k->more[i].at),
                         0);
    return fd;
}

static void check(const struct words *k)
{
    enum vm_platform platform = (enum vm_platform)99;
    int fd = make_file(k);

    f = (struct failure){.code = ""};
    ck_assert_int_eq(kernel_choose_platform(fd, "/k", &platform, &f), k->ret);
    if (k->ret == 0) {
        ck_assert_int_eq(platform, k->platform);
        ck_assert_str_eq(f.code, "");
    } else {
        ck_assert_int_eq(platform, 99);
        ck_assert_str_eq(f.code, "kernel");
        ck_assert_ptr_nonnull(strstr(f.message, "/k reads neither"));
        ck_assert_ptr_nonnull(strstr(f.remedy, "--platform"));
    }
    close(fd);
}

START_TEST(by_what_is_in_it)
{
    check(&kernels[_i]);
}
END_TEST

/* Wherever the word lies, across any border within the file, it is found. */
START_TEST(at_every_place)
{
    for (uint64_t at = 2 * CHUNK - 40; at < 2 * CHUNK + 40; at++) {
        struct words k = {"\177ELF", {{ACPI, at}}, 0, VM_PLATFORM_ACPI};

        check(&k);
        k.more[0].word = TREE;
        k.more[1].word = VERSION;
        k.more[1].at = 100;
        k.platform = VM_PLATFORM_DEVICE_TREE;
        check(&k);
    }
}
END_TEST

/* Up to the last byte. */
START_TEST(at_the_end)
{
    struct words k = {
        "\177ELF", {{ACPI, 4 * CHUNK - strlen(ACPI)}}, 0, VM_PLATFORM_ACPI};

    check(&k);
}
END_TEST

START_TEST(short_files)
{
    enum vm_platform platform;

    for (size_t len = 0; len < 5; len++) {
        int fd = memfd_create("kernel", MFD_CLOEXEC);

        ck_assert_int_eq(io_pwrite_full(fd, "\177ELF\2", len, 0), 0);
        ck_assert_int_eq(kernel_choose_platform(fd, "/k", &platform, &f), 0);
        ck_assert_int_eq(platform,
                         len < 4 ? VM_PLATFORM_ACPI : VM_PLATFORM_DEVICE_TREE);
        close(fd);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("kernel platform");
    Suite *s = suite_create("kernel_platform");
    SRunner *runner = srunner_create(s);
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, by_what_is_in_it, 0, (int)ARRAY_SIZE(kernels));
    tcase_add_test(tc, at_every_place);
    tcase_add_test(tc, at_the_end);
    tcase_add_test(tc, short_files);
    suite_add_tcase(s, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
