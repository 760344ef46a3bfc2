/* SPDX-License-Identifier: Apache-2.0 */
/* The device tree, read back with libfdt and compared with the map. */
#include <check.h>
#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "devices/control/control_page.h"
#include "vmm/vm_config.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/map.h"

static _Alignas(8) uint8_t fdt[65536];
static uint32_t fdt_len;

static void build(uint64_t memory, uint32_t cpus, uint32_t slots)
{
    struct boot_machine machine = {
        .memory_bytes = memory, .cpu_count = cpus, .virtio_slots_used = slots};

    ck_assert_int_eq(device_tree_build(&machine, "console=ttyS0", fdt,
                                       sizeof(fdt), &fdt_len),
                     0);
    ck_assert_int_eq(fdt_check_full(fdt, fdt_len), 0);
}

static int node(const char *path)
{
    int offset = fdt_path_offset(fdt, path);

    ck_assert_msg(offset >= 0, "no node %s", path);
    return offset;
}

static uint32_t cell(int offset, const char *name, unsigned index)
{
    int len;
    const fdt32_t *p = fdt_getprop(fdt, offset, name, &len);

    ck_assert_msg(p && (unsigned)len >= 4 * (index + 1), "no %s", name);
    return fdt32_to_cpu(p[index]);
}

/* Cells are aligned to four bytes only. */
static uint64_t get_be64(const uint8_t *p)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < 8; i++)
        value = value << 8 | p[i];
    return value;
}

static void check_reg(int offset, uint64_t address, uint64_t size)
{
    int len;
    const uint8_t *reg = fdt_getprop(fdt, offset, "reg", &len);

    ck_assert_ptr_nonnull(reg);
    ck_assert_int_eq(len, 16);
    ck_assert_uint_eq(get_be64(reg), address);
    ck_assert_uint_eq(get_be64(reg + 8), size);
}

static int compatible(const char *name)
{
    int offset = fdt_node_offset_by_compatible(fdt, -1, name);

    ck_assert_msg(offset >= 0, "nothing compatible with %s", name);
    return offset;
}

static int count_compatible(const char *name)
{
    int count = 0, offset = -1;

    while ((offset = fdt_node_offset_by_compatible(fdt, offset, name)) >= 0)
        count++;
    return count;
}

START_TEST(test_root)
{
    int ioapic;

    build(64 * MIB, 1, 1);
    ioapic = compatible("intel,ce4100-ioapic");
    ck_assert_uint_eq(cell(0, "#address-cells", 0), 2);
    ck_assert_uint_eq(cell(0, "#size-cells", 0), 2);
    ck_assert_uint_eq(cell(0, "interrupt-parent", 0),
                      fdt_get_phandle(fdt, ioapic));
    check_reg(ioapic, MAP_IOAPIC, 0x1000);
    ck_assert_uint_eq(cell(ioapic, "#interrupt-cells", 0), 2);
    ck_assert_ptr_nonnull(
        fdt_getprop(fdt, ioapic, "interrupt-controller", NULL));
    check_reg(compatible("intel,ce4100-lapic"), MAP_LAPIC, 0x1000);
    ck_assert_str_eq(fdt_getprop(fdt, node("/chosen"), "bootargs", NULL),
                     "console=ttyS0");
}
END_TEST

static const uint32_t cpu_counts[] = {1, 4, VM_CPUS_MAX};

START_TEST(test_cpus)
{
    uint32_t count = 0;
    int parent, cpu;

    build(64 * MIB, cpu_counts[_i], 1);
    parent = node("/cpus");
    ck_assert_uint_eq(cell(parent, "#address-cells", 0), 1);
    ck_assert_uint_eq(cell(parent, "#size-cells", 0), 0);
    fdt_for_each_subnode(cpu, fdt, parent)
    {
        ck_assert_str_eq(fdt_getprop(fdt, cpu, "device_type", NULL), "cpu");
        ck_assert_uint_eq(cell(cpu, "reg", 0), count++);
    }
    ck_assert_uint_eq(count, cpu_counts[_i]);
}
END_TEST

START_TEST(test_virtio_slots)
{
    char path[64];

    build(64 * MIB, 1, (uint32_t)_i);
    ck_assert_int_eq(count_compatible("virtio,mmio"), _i);
    for (uint32_t n = 0; n < (uint32_t)_i; n++) {
        uint64_t base = MAP_VIRTIO_BASE + n * MAP_VIRTIO_STRIDE;

        snprintf(path, sizeof(path), "/virtio@%llx", (unsigned long long)base);
        check_reg(node(path), base, MAP_VIRTIO_STRIDE);
        ck_assert_uint_eq(cell(node(path), "interrupts", 0),
                          MAP_VIRTIO_GSI + n);
        ck_assert_uint_eq(cell(node(path), "interrupts", 1), 3);
    }
}
END_TEST

START_TEST(test_power_off_and_panic)
{
    int off, syscon;

    build(64 * MIB, 1, 1);
    off = compatible("syscon-poweroff");
    syscon = compatible("syscon");
    ck_assert_uint_eq(cell(off, "regmap", 0), fdt_get_phandle(fdt, syscon));
    ck_assert_uint_eq(cell(off, "offset", 0), CONTROL_SLEEP_CONTROL);
    ck_assert_uint_eq(cell(off, "value", 0), CONTROL_SLEEP_S5_VALUE);
    ck_assert_uint_eq(cell(syscon, "reg-io-width", 0), 1);
    check_reg(syscon, MAP_CONTROL_PAGE, 0x10);
    check_reg(compatible("qemu,pvpanic-mmio"), MAP_CONTROL_PAGE + CONTROL_PANIC,
              1);
}
END_TEST

START_TEST(test_memory)
{
    build(5 * GIB, 1, 1);
    check_reg(node("/memory@0"), 0, MAP_EBDA);
    check_reg(node("/memory@100000"), MIB, 3 * GIB - MIB);
    check_reg(node("/memory@100000000"), 4 * GIB, 2 * GIB);
}
END_TEST

/* Every size that is too small is refused, and nothing is written behind it. */
START_TEST(test_too_small)
{
    struct boot_machine machine = {
        .memory_bytes = 64 * MIB, .cpu_count = 1, .virtio_slots_used = 1};
    uint32_t whole, len = 0xdead;

    build(64 * MIB, 1, 1);
    whole = fdt_len;
    for (uint32_t size = 0; size < whole; size++) {
        memset(fdt, 0xa5, sizeof(fdt));
        ck_assert_int_lt(
            device_tree_build(&machine, "console=ttyS0", fdt, size, &len), 0);
        ck_assert_uint_eq(fdt[size], 0xa5);
    }
    ck_assert_uint_eq(len, 0xdead);
}
END_TEST

/* The largest machine and command line fit the room that boot.c gives. */
START_TEST(test_largest)
{
    struct boot_machine machine = {.memory_bytes = VM_MEMORY_MAX,
                                   .cpu_count = VM_CPUS_MAX,
                                   .virtio_slots_used = MAP_VIRTIO_SLOTS};
    char cmdline[VM_CMDLINE_MAX + 1];

    memset(cmdline, 'x', VM_CMDLINE_MAX);
    cmdline[VM_CMDLINE_MAX] = '\0';
    ck_assert_int_eq(
        device_tree_build(&machine, cmdline, fdt, sizeof(fdt) - 16, &fdt_len),
        0);
    ck_assert_uint_lt(fdt_len, 32768);
}
END_TEST

START_TEST(test_out_of_range)
{
    struct boot_machine machine = {
        .memory_bytes = 64 * MIB, .cpu_count = 0, .virtio_slots_used = 1};

    ck_assert_int_eq(
        device_tree_build(&machine, "", fdt, sizeof(fdt), &fdt_len), -EINVAL);
    machine.cpu_count = VM_CPUS_MAX + 1;
    ck_assert_int_eq(
        device_tree_build(&machine, "", fdt, sizeof(fdt), &fdt_len), -EINVAL);
    machine.cpu_count = 1;
    machine.virtio_slots_used = MAP_VIRTIO_SLOTS + 1;
    ck_assert_int_eq(
        device_tree_build(&machine, "", fdt, sizeof(fdt), &fdt_len), -EINVAL);
}
END_TEST

static Suite *device_tree_suite(void)
{
    Suite *suite = suite_create("device_tree");
    TCase *tcase = tcase_create("device_tree");

    tcase_add_test(tcase, test_root);
    tcase_add_loop_test(tcase, test_cpus, 0, (int)ARRAY_SIZE(cpu_counts));
    tcase_add_loop_test(tcase, test_virtio_slots, 0, (int)MAP_VIRTIO_SLOTS + 1);
    tcase_add_test(tcase, test_power_off_and_panic);
    tcase_add_test(tcase, test_memory);
    tcase_add_test(tcase, test_too_small);
    tcase_add_test(tcase, test_largest);
    tcase_add_test(tcase, test_out_of_range);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(device_tree_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
