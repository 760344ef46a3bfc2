/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot_load_linux as a whole: zero page, e820, page tables, GDT, initrd,
 * command line and both descriptions of the machine, for several memory sizes.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "tests/mini_kernel.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/map.h"

#define PAGE 0x1000u

/* What the kernel of both images needs, bss and room to unpack included. */
#define ELF_END (MINI_ELF_DATA_ADDRESS + MINI_ELF_DATA_MEMORY)
#define BZIMAGE_END (MINI_LOAD_ADDRESS + MINI_BZIMAGE_INIT_SIZE)

static struct mini_ram ram;
static struct vm_config config;
static struct boot_machine machine;
static struct boot_entry entry;
static struct monitor_error error;

static void setup_memory(uint64_t memory_bytes)
{
    mini_ram_init(&ram, memory_bytes);
    memset(&config, 0, sizeof(config));
    memset(&error, 0, sizeof(error));
    config.kernel_fd = -1;
    config.initrd_fd = -1;
    strcpy(config.cmdline, "console=ttyS0 quiet");
    machine = (struct boot_machine){
        .memory_bytes = memory_bytes, .cpu_count = 2, .virtio_slots_used = 3};
}

static void teardown(void)
{
    if (config.kernel_fd >= 0)
        close(config.kernel_fd);
    if (config.initrd_fd >= 0)
        close(config.initrd_fd);
    mini_ram_fini(&ram);
}

static void use_elf(void)
{
    uint8_t elf[MINI_ELF_SIZE];

    mini_elf_make(elf);
    config.kernel_fd = mini_file(elf, sizeof(elf));
}

/* limit: the kernel's own initrd_addr_max. */
static void use_bzimage(uint32_t limit, uint32_t cmdline_size)
{
    uint8_t bz[MINI_BZIMAGE_SIZE];

    mini_bzimage_make(bz);
    num_put_le32(bz + 0x22c, limit);
    num_put_le32(bz + 0x238, cmdline_size);
    config.kernel_fd = mini_file(bz, sizeof(bz));
}

static void use_initrd(uint64_t size)
{
    config.initrd_fd = mini_file_sized("initrd", num_min(6, size), size);
}

static int load(void)
{
    return boot_load_linux(&config, &machine, &ram.mem, &entry, &error);
}

static const uint8_t *at(gpa_t gpa, uint64_t len)
{
    const uint8_t *p = guest_mem_ptr(&ram.mem, gpa, len);

    ck_assert_ptr_nonnull(p);
    return p;
}

static const uint8_t *zero_page(void)
{
    return at(MAP_ZERO_PAGE, PAGE);
}

/* ---- memory sizes -------------------------------------------------------- */

static const uint64_t memory_sizes[] = {
    32 * MIB, 3 * GIB - 2 * MIB, 3 * GIB, 3 * GIB + 2 * MIB, 5 * GIB,
};

/* In a sorted table without overlap: RAM adds up, nothing lies in a device. */
static void check_e820(const uint8_t *params, uint64_t memory_bytes)
{
    uint64_t ram_bytes = 0, last_end = 0;
    unsigned count = params[0x1e8];

    ck_assert_uint_ge(count, 4);
    ck_assert_uint_le(count, 8);
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *p = params + 0x2d0 + i * 20u;
        uint64_t start = num_get_le64(p), size = num_get_le64(p + 8);
        uint32_t type = num_get_le32(p + 16);

        ck_assert_uint_ge(start, last_end);
        ck_assert_uint_gt(size, 0);
        last_end = start + size;
        ck_assert(type == 1 || type == 2);
        if (type == 1) {
            ck_assert_ptr_nonnull(guest_mem_ptr(&ram.mem, start, size));
            ram_bytes += size;
        }
        ck_assert(type == 2 || last_end <= MAP_ACPI || start >= MAP_ACPI_END);
        ck_assert(last_end <= MAP_VIRTIO_BASE || start >= MAP_LAPIC);
    }
    /* All of it but the kilobyte of EBDA and 640 KiB to 1 MiB. */
    ck_assert_uint_eq(ram_bytes, memory_bytes - (MAP_KERNEL_MIN - MAP_EBDA));
}

START_TEST(test_memory_size)
{
    uint64_t size = memory_sizes[_i];

    setup_memory(size);
    use_elf();
    ck_assert_int_eq(load(), 0);
    check_e820(zero_page(), size);
}
END_TEST

START_TEST(test_e820_of_five_gib)
{
    static const struct {
        uint64_t start, end;
        uint32_t type;
    } want[] = {
        {0, 0x9fc00, 1},
        {0x9fc00, 0xa0000, 2},
        {0xe0000, 0x100000, 2},
        {0x100000, 0xc0000000, 1},
        {0xfffbc000, 0xfffc0000, 2},
        {0x100000000, 0x180000000, 1},
    };

    setup_memory(5 * GIB);
    use_elf();
    ck_assert_int_eq(load(), 0);
    ck_assert_uint_eq(zero_page()[0x1e8], ARRAY_SIZE(want));
    for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
        const uint8_t *p = zero_page() + 0x2d0 + i * 20u;

        ck_assert_uint_eq(num_get_le64(p), want[i].start);
        ck_assert_uint_eq(num_get_le64(p + 8), want[i].end - want[i].start);
        ck_assert_uint_eq(num_get_le32(p + 16), want[i].type);
    }
}
END_TEST

/* ---- zero page and entry ------------------------------------------------- */

START_TEST(test_zero_page_of_bzimage)
{
    const uint8_t *params;

    setup_memory(64 * MIB);
    use_bzimage(0x7fffffff, 2047);
    use_initrd(5000);
    ck_assert_int_eq(load(), 0);
    params = zero_page();
    ck_assert_uint_eq(params[0x1ef], 0); /* sentinel */
    ck_assert_uint_eq(num_get_le16(params + 0x1fe), 0xaa55);
    ck_assert_mem_eq(params + 0x202, "HdrS", 4);
    ck_assert_uint_eq(num_get_le16(params + 0x206), 0x020f);
    ck_assert_uint_eq(params[0x210], 0xff); /* type_of_loader */
    ck_assert_uint_eq(params[0x211], 0x01); /* loadflags */
    ck_assert_uint_eq(num_get_le32(params + 0x218), 64 * MIB - 8192);
    ck_assert_uint_eq(num_get_le32(params + 0x21c), 5000);
    ck_assert_uint_eq(num_get_le32(params + 0x228), MAP_CMDLINE);
    ck_assert_uint_eq(num_get_le64(params + 0x258), MINI_LOAD_ADDRESS);
    ck_assert_uint_eq(num_get_le64(params + 0x250), 0); /* setup_data */
    ck_assert_uint_eq(num_get_le64(params + 0x070), MAP_ACPI);
    ck_assert_str_eq((const char *)at(MAP_CMDLINE, 64), "console=ttyS0 quiet");
    ck_assert_mem_eq(at(64 * MIB - 8192, 6), "initrd", 6);
    ck_assert_uint_eq(entry.rip, MINI_LOAD_ADDRESS + 0x200);
    ck_assert_uint_eq(entry.rsi, MAP_ZERO_PAGE);
    ck_assert_uint_eq(entry.rsp, MAP_BOOT_STACK);
}
END_TEST

START_TEST(test_zero_page_of_elf)
{
    const uint8_t *params;

    setup_memory(32 * MIB);
    use_elf();
    ck_assert_int_eq(load(), 0);
    params = zero_page();
    ck_assert_uint_eq(num_get_le16(params + 0x1fe), 0xaa55);
    ck_assert_mem_eq(params + 0x202, "HdrS", 4);
    ck_assert_uint_ge(num_get_le16(params + 0x206), 0x020c);
    ck_assert_uint_eq(params[0x210], 0xff);
    ck_assert_uint_eq(num_get_le32(params + 0x218), 0); /* no initrd */
    ck_assert_uint_eq(num_get_le32(params + 0x21c), 0);
    ck_assert_uint_eq(num_get_le32(params + 0x228), MAP_CMDLINE);
    ck_assert_uint_eq(entry.rip, MINI_LOAD_ADDRESS + 0x10);
}
END_TEST

/* Walks the guest's page tables as a processor would. */
static gpa_t translate(gpa_t address)
{
    const uint8_t *table = at(entry.cr3, PAGE);
    uint64_t e = num_get_le64(table + ((address >> 39) & 511) * 8);

    ck_assert_uint_eq(e & 0xfff, 0x3);
    e = num_get_le64(at(e & ~0xfffull, PAGE) + ((address >> 30) & 511) * 8);
    ck_assert_uint_eq(e & 0xfff, 0x3);
    e = num_get_le64(at(e & ~0xfffull, PAGE) + ((address >> 21) & 511) * 8);
    ck_assert_uint_eq(e & 0x1fffff, 0x83);
    return (e & ~0x1fffffull) + (address & 0x1fffff);
}

START_TEST(test_page_tables_and_gdt)
{
    const uint8_t *gdt;

    setup_memory(32 * MIB);
    use_elf();
    ck_assert_int_eq(load(), 0);
    for (gpa_t a = 0; a < 4 * GIB; a += 2 * MIB)
        ck_assert_uint_eq(translate(a + 0x1234), a + 0x1234);
    gdt = at(entry.gdt, entry.gdt_limit + 1u);
    ck_assert_uint_eq(entry.gdt_limit, 31);
    ck_assert_uint_eq(num_get_le64(gdt), 0);
    ck_assert_uint_eq(num_get_le64(gdt + 0x10), 0x00af9b000000ffff);
    ck_assert_uint_eq(num_get_le64(gdt + 0x18), 0x00cf93000000ffff);
}
END_TEST

/* Where a BIOS would be: a reset by the keyboard controller, then a stop. */
START_TEST(test_reset_vector)
{
    static const uint8_t code[] = {0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd};

    setup_memory(32 * MIB);
    use_elf();
    ck_assert_int_eq(load(), 0);
    ck_assert_mem_eq(at(0xffff0, sizeof(code)), code, sizeof(code));
}
END_TEST

/* The boot stack must not run into the zero page, nor any table into another.
 */
START_TEST(test_map_has_no_overlap)
{
    ck_assert_uint_le(MAP_GDT + 32, MAP_ZERO_PAGE);
    ck_assert_uint_lt(MAP_ZERO_PAGE + PAGE, MAP_BOOT_STACK);
    ck_assert_uint_le(MAP_BOOT_STACK, MAP_PAGE_TABLES);
    ck_assert_uint_le(MAP_PAGE_TABLES + 6 * PAGE, MAP_CMDLINE);
    ck_assert_uint_le(MAP_CMDLINE + VM_CMDLINE_MAX + 1, MAP_SETUP_DATA);
    ck_assert_uint_le(MAP_SETUP_DATA + 0x10000, MAP_EBDA);
    ck_assert_uint_lt(MAP_ACPI, MAP_VMGENID_PAGE);
    ck_assert_uint_le(MAP_VMGENID_PAGE + PAGE, MAP_ACPI_END);
}
END_TEST

/* ---- description of the machine ------------------------------------------ */

START_TEST(test_device_tree_is_setup_data)
{
    const uint8_t *params, *node;
    uint32_t len;

    setup_memory(64 * MIB);
    use_elf();
    config.platform = VM_PLATFORM_DEVICE_TREE;
    ck_assert_int_eq(load(), 0);
    params = zero_page();
    ck_assert_uint_eq(num_get_le64(params + 0x070), 0); /* no RSDP */
    ck_assert(mini_ram_is_zero(&ram, MAP_ACPI, MAP_RESET_VECTOR - MAP_ACPI));
    ck_assert_uint_eq(num_get_le64(params + 0x250), MAP_SETUP_DATA);
    node = at(MAP_SETUP_DATA, 16);
    ck_assert_uint_eq(num_get_le64(node), 0);     /* the last node */
    ck_assert_uint_eq(num_get_le32(node + 8), 2); /* SETUP_DTB */
    len = num_get_le32(node + 12);
    node = at(MAP_SETUP_DATA + 16, len);
    ck_assert_int_eq(fdt_check_full(node, len), 0);
    ck_assert_uint_eq(fdt_totalsize(node), len);
}
END_TEST

/* ---- initrd -------------------------------------------------------------- */

/* Room between kernel and end of memory, and how the initrd lies in it. */
START_TEST(test_initrd_exact_fit)
{
    setup_memory(32 * MIB);
    use_elf();
    use_initrd(32 * MIB - ELF_END);
    ck_assert_int_eq(load(), 0);
    ck_assert_uint_eq(num_get_le32(zero_page() + 0x218), ELF_END);
    ck_assert_uint_eq(num_get_le32(zero_page() + 0x21c), 32 * MIB - ELF_END);
}
END_TEST

START_TEST(test_initrd_one_byte_too_large)
{
    setup_memory(32 * MIB);
    use_bzimage(0x7fffffff, 2047);
    use_initrd(32 * MIB - BZIMAGE_END + 1);
    ck_assert_int_eq(load(), -ENOSPC);
    ck_assert_int_eq(error.code, MONITOR_ERROR_INITRD);
    ck_assert_str_eq(error.text,
                     "it has 16321 KiB, but beside the kernel the guest's "
                     "memory has room for 16320 KiB");
}
END_TEST

/* How much memory would do is told where more memory helps. */
START_TEST(test_memory_needed)
{
    setup_memory(32 * MIB);
    use_bzimage(0x7fffffff, 2047);
    use_initrd(64 * MIB);
    ck_assert_int_eq(load(), -ENOSPC);
    ck_assert_uint_eq(error.memory_needed, BZIMAGE_END + 64 * MIB);
    close(config.initrd_fd);
    close(config.kernel_fd);
    use_bzimage((uint32_t)(BZIMAGE_END + 64 * MIB - 2), 2047);
    use_initrd(64 * MIB); /* the kernel's own limit is one byte too low */
    ck_assert_int_eq(load(), -ENOSPC);
    ck_assert_uint_eq(error.memory_needed, 0);
}
END_TEST

START_TEST(test_memory_needed_by_kernel)
{
    setup_memory(2 * MIB); /* the mini kernels lie above */
    use_elf();
    ck_assert_int_eq(load(), -ENOSPC);
    ck_assert_int_eq(error.code, MONITOR_ERROR_KERNEL);
    ck_assert_uint_eq(error.memory_needed, ELF_END);
    use_initrd(PAGE + 1); /* would be missing next */
    ck_assert_int_eq(load(), -ENOSPC);
    ck_assert_int_eq(error.code, MONITOR_ERROR_KERNEL);
    ck_assert_uint_eq(error.memory_needed, ELF_END + PAGE + 1);
}
END_TEST

START_TEST(test_initrd_larger_than_4_gib)
{
    setup_memory(5 * GIB);
    use_elf();
    use_initrd(4 * GIB + 1);
    ck_assert_int_eq(load(), -ENOSPC);
    ck_assert_int_eq(error.code, MONITOR_ERROR_INITRD);
}
END_TEST

START_TEST(test_initrd_below_the_kernels_limit)
{
    setup_memory(128 * MIB);
    use_bzimage(0x37fffff, 2047); /* 56 MiB - 1 */
    use_initrd(1);
    ck_assert_int_eq(load(), 0);
    ck_assert_uint_eq(num_get_le32(zero_page() + 0x218), 0x3800000 - PAGE);
}
END_TEST

/* A limit below the kernel leaves no room at all, and no arithmetic wraps. */
START_TEST(test_initrd_limit_below_the_kernel)
{
    setup_memory(128 * MIB);
    use_bzimage(0x1fffff, 2047);
    use_initrd(1);
    ck_assert_int_eq(load(), -ENOSPC);
    ck_assert_ptr_nonnull(strstr(error.text, "room for 0 KiB"));
}
END_TEST

START_TEST(test_initrd_in_large_memory)
{
    setup_memory(5 * GIB);
    use_bzimage(0xffffffff, 2047);
    use_initrd(3 * PAGE);
    ck_assert_int_eq(load(), 0);
    ck_assert_uint_eq(num_get_le32(zero_page() + 0x218),
                      MAP_RAM_HOLE_START - 3 * PAGE);
}
END_TEST

START_TEST(test_initrd_empty_or_directory)
{
    setup_memory(32 * MIB);
    use_elf();
    use_initrd(0);
    ck_assert_int_eq(load(), -ENODATA);
    ck_assert_int_eq(error.code, MONITOR_ERROR_INITRD);
    ck_assert_str_eq(error.text, "the file is empty");
    close(config.initrd_fd);
    config.initrd_fd = open("/", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(load(), -EISDIR);
    ck_assert_int_eq(error.code, MONITOR_ERROR_INITRD);
    ck_assert_str_eq(error.text, "it is a directory");
}
END_TEST

/* ---- what else is refused ------------------------------------------------ */

START_TEST(test_kernel_is_no_file)
{
    int ends[2];

    setup_memory(32 * MIB);
    config.kernel_fd = open("/", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(load(), -EISDIR);
    ck_assert_int_eq(error.code, MONITOR_ERROR_KERNEL);
    ck_assert_str_eq(error.text, "it is a directory");
    close(config.kernel_fd);
    config.kernel_fd = mini_file("", 0);
    ck_assert_int_eq(load(), -ENODATA);
    ck_assert_str_eq(error.text, "the file is empty");
    close(config.kernel_fd);
    ck_assert_int_eq(pipe(ends), 0);
    config.kernel_fd = ends[0];
    ck_assert_int_eq(load(), -EINVAL);
    ck_assert_str_eq(error.text, "it is not a regular file");
    close(ends[1]);
    close(config.kernel_fd);
    config.kernel_fd = -1;
    ck_assert_int_eq(load(), -EBADF);
    ck_assert_int_eq(error.code, MONITOR_ERROR_KERNEL);
}
END_TEST

START_TEST(test_kernel_of_one_to_four_bytes)
{
    setup_memory(32 * MIB);
    for (size_t len = 1; len <= 4; len++) {
        config.kernel_fd = mini_file("\x7f"
                                     "ELF",
                                     len);
        ck_assert_int_eq(load(), -ENOEXEC);
        ck_assert_int_eq(error.code, MONITOR_ERROR_KERNEL);
        close(config.kernel_fd);
    }
    config.kernel_fd = -1;
}
END_TEST

START_TEST(test_cmdline_limit)
{
    setup_memory(32 * MIB);
    use_bzimage(0x7fffffff, 19); /* exactly its length */
    ck_assert_int_eq(load(), 0);
    close(config.kernel_fd);
    use_bzimage(0x7fffffff, 18);
    ck_assert_int_eq(load(), -E2BIG);
    ck_assert_int_eq(error.code, MONITOR_ERROR_KERNEL);
    ck_assert_str_eq(error.text, "its command line is limited to 18 bytes, "
                                 "and 19 are given");
}
END_TEST

/* Memory that lacks the low parts is a clean error, not a crash. */
START_TEST(test_memory_without_low_part)
{
    setup_memory(32 * MIB);
    use_elf();
    ram.mem.regions[0].base = 0x100000;
    ck_assert_int_lt(load(), 0);
    ck_assert_int_eq(error.code, MONITOR_ERROR_MEMORY);
    ram.mem.region_count = 0;
    ck_assert_int_lt(load(), 0);
    ck_assert_int_eq(error.code, MONITOR_ERROR_KERNEL);
    ram.mem.region_count = 1;
}
END_TEST

static Suite *boot_suite(void)
{
    Suite *suite = suite_create("boot");
    TCase *tcase = tcase_create("boot");

    tcase_add_checked_fixture(tcase, NULL, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_memory_size, 0,
                        (int)ARRAY_SIZE(memory_sizes));
    tcase_add_test(tcase, test_e820_of_five_gib);
    tcase_add_test(tcase, test_zero_page_of_bzimage);
    tcase_add_test(tcase, test_zero_page_of_elf);
    tcase_add_test(tcase, test_page_tables_and_gdt);
    tcase_add_test(tcase, test_reset_vector);
    tcase_add_test(tcase, test_map_has_no_overlap);
    tcase_add_test(tcase, test_device_tree_is_setup_data);
    tcase_add_test(tcase, test_initrd_exact_fit);
    tcase_add_test(tcase, test_initrd_one_byte_too_large);
    tcase_add_test(tcase, test_memory_needed);
    tcase_add_test(tcase, test_memory_needed_by_kernel);
    tcase_add_test(tcase, test_initrd_larger_than_4_gib);
    tcase_add_test(tcase, test_initrd_below_the_kernels_limit);
    tcase_add_test(tcase, test_initrd_limit_below_the_kernel);
    tcase_add_test(tcase, test_initrd_in_large_memory);
    tcase_add_test(tcase, test_initrd_empty_or_directory);
    tcase_add_test(tcase, test_kernel_is_no_file);
    tcase_add_test(tcase, test_kernel_of_one_to_four_bytes);
    tcase_add_test(tcase, test_cmdline_limit);
    tcase_add_test(tcase, test_memory_without_low_part);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(boot_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
