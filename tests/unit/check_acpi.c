/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI tables: found as a kernel finds them, whole, and saying the same as
 * map.h and control_page.h. The DSDT is read as bytes: resource descriptors
 * have fixed encodings (ACPI 6.4, 6.4.2 and 6.4.3).
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "devices/control/control_page.h"
#include "tests/mini_kernel.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/map.h"

static struct mini_ram ram;
static gpa_t rsdp_at;

static void setup(void)
{
    mini_ram_init(&ram, 32 * MIB);
}

static void teardown(void)
{
    mini_ram_fini(&ram);
}

static void write_tables(uint32_t cpus)
{
    struct boot_machine machine = {
        .memory_bytes = 32 * MIB, .cpu_count = cpus, .virtio_slots_used = 1};

    ck_assert_int_eq(acpi_write_tables(&machine, &ram.mem, &rsdp_at), 0);
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t total = 0;

    while (len--)
        total = (uint8_t)(total + *p++);
    return total;
}

/* A table with a right checksum in the reserved area. */
static const uint8_t *table_at(gpa_t gpa, const char *signature,
                               uint32_t *ret_len)
{
    const uint8_t *p;

    ck_assert_uint_ge(gpa, MAP_ACPI);
    ck_assert_uint_lt(gpa, MAP_VMGENID_PAGE);
    p = guest_mem_ptr(&ram.mem, gpa, 36);
    ck_assert_mem_eq(p, signature, 4);
    *ret_len = num_get_le32(p + 4);
    ck_assert_uint_ge(*ret_len, 36);
    ck_assert_uint_le(gpa + *ret_len, MAP_VMGENID_PAGE);
    ck_assert_uint_eq(sum(p, *ret_len), 0);
    return p;
}

/* Found through RSDP and XSDT; the DSDT through the FADT. */
static const uint8_t *find_table(const char *signature, uint32_t *ret_len)
{
    const uint8_t *rsdp = guest_mem_ptr(&ram.mem, rsdp_at, 36);
    const uint8_t *xsdt, *fadt;
    uint32_t len, count;

    xsdt = table_at(num_get_le64(rsdp + 24), "XSDT", &len);
    count = (len - 36) / 8;
    ck_assert_uint_eq(count, 2);
    for (uint32_t i = 0; i < count; i++) {
        gpa_t gpa = num_get_le64(xsdt + 36 + 8 * i);

        if (memcmp(guest_mem_ptr(&ram.mem, gpa, 4), signature, 4) == 0)
            return table_at(gpa, signature, ret_len);
    }
    fadt = find_table("FACP", &len);
    return table_at(num_get_le64(fadt + 140), signature, ret_len);
}

/* Kernels that are not told scan 0xe0000 upwards in steps of 16 bytes. */
START_TEST(test_rsdp_is_found_by_scan)
{
    gpa_t gpa = 0xe0000;
    const uint8_t *p;

    write_tables(1);
    while (memcmp(guest_mem_ptr(&ram.mem, gpa, 8), "RSD PTR ", 8) != 0) {
        gpa += 16;
        ck_assert_uint_lt(gpa, 0x100000);
    }
    ck_assert_uint_eq(gpa, rsdp_at);
    p = guest_mem_ptr(&ram.mem, gpa, 36);
    ck_assert_uint_eq(sum(p, 20), 0);
    ck_assert_uint_eq(sum(p, 36), 0);
    ck_assert_uint_eq(p[15], 2);
    ck_assert_uint_eq(num_get_le32(p + 20), 36);
}
END_TEST

static void check_register(const uint8_t *gas, uint32_t offset)
{
    static const uint8_t byte_in_memory[] = {0, 8, 0, 1};

    ck_assert_mem_eq(gas, byte_in_memory, 4);
    ck_assert_uint_eq(num_get_le64(gas + 4), MAP_CONTROL_PAGE + offset);
}

START_TEST(test_fadt)
{
    uint32_t len, flags;
    const uint8_t *p;

    write_tables(1);
    p = find_table("FACP", &len);
    ck_assert_uint_eq(len, 276);
    ck_assert_uint_eq(p[8], 6);
    flags = num_get_le32(p + 112);
    ck_assert_uint_ne(flags & (1u << 20), 0); /* hardware reduced */
    ck_assert_uint_ne(flags & (1u << 10), 0); /* reset register */
    /* No VGA, no CMOS clock; no legacy devices, no keyboard controller. */
    ck_assert_uint_eq(num_get_le16(p + 109), 0x24);
    check_register(p + 116, CONTROL_RESET);
    ck_assert_uint_eq(p[128], CONTROL_RESET_VALUE);
    check_register(p + 244, CONTROL_SLEEP_CONTROL);
    check_register(p + 256, CONTROL_SLEEP_STATUS);
}
END_TEST

static const uint32_t cpu_counts[] = {1, 2, 4, VM_CPUS_MAX};

START_TEST(test_madt)
{
    uint32_t len, cpus = 0, ioapics = 0, nmis = 0;
    const uint8_t *p;

    write_tables(cpu_counts[_i]);
    p = find_table("APIC", &len);
    ck_assert_uint_eq(num_get_le32(p + 36), MAP_LAPIC);
    ck_assert_uint_eq(num_get_le32(p + 40), 0); /* no 8259 */
    for (uint32_t at = 44; at < len; at += p[at + 1]) {
        const uint8_t *e = p + at;

        ck_assert_uint_ge(e[1], 6);
        ck_assert_uint_le(at + e[1], len);
        if (e[0] == 0) {
            ck_assert_uint_eq(e[3], cpus++);
            ck_assert_uint_eq(num_get_le32(e + 4), 1);
        } else if (e[0] == 1) {
            ck_assert_uint_eq(num_get_le32(e + 4), MAP_IOAPIC);
            ck_assert_uint_eq(num_get_le32(e + 8), 0);
            ioapics++;
        } else {
            ck_assert_uint_eq(e[0], 4);
            ck_assert_uint_eq(e[2], 0xff);
            ck_assert_uint_eq(e[5], 1);
            nmis++;
        }
    }
    ck_assert_uint_eq(cpus, cpu_counts[_i]);
    ck_assert_uint_eq(ioapics, 1);
    ck_assert_uint_eq(nmis, 1);
}
END_TEST

START_TEST(test_cpu_count_out_of_range)
{
    struct boot_machine machine = {.memory_bytes = 32 * MIB, .cpu_count = 0};

    ck_assert_int_eq(acpi_write_tables(&machine, &ram.mem, &rsdp_at), -EINVAL);
    machine.cpu_count = VM_CPUS_MAX + 1;
    ck_assert_int_eq(acpi_write_tables(&machine, &ram.mem, &rsdp_at), -EINVAL);
}
END_TEST

/* ---- DSDT ---------------------------------------------------------------- */

/* The n-th occurrence of bytes in the DSDT, or NULL. */
static const uint8_t *find_bytes(const void *bytes, size_t len, unsigned n)
{
    uint32_t dsdt_len;
    const uint8_t *dsdt = find_table("DSDT", &dsdt_len);

    for (uint32_t i = 36; i + len <= dsdt_len; i++) {
        if (memcmp(dsdt + i, bytes, len) == 0 && n-- == 0)
            return dsdt + i;
    }
    return NULL;
}

/* The first resource of a device that follows its name p, by tag. */
static const uint8_t *find_resource(const uint8_t *p, const uint8_t *tag,
                                    size_t tag_len)
{
    for (unsigned i = 0; i < 128; i++) {
        if (memcmp(p + i, tag, tag_len) == 0)
            return p + i;
    }
    ck_abort_msg("resource not found");
}

/* Memory32Fixed: tag, length 9, read/write, base, length. */
static void check_memory(const uint8_t *device, uint32_t base, uint32_t len)
{
    static const uint8_t tag[] = {0x86, 0x09, 0x00, 0x01};
    const uint8_t *p = find_resource(device, tag, sizeof(tag));

    ck_assert_uint_eq(num_get_le32(p + 4), base);
    ck_assert_uint_eq(num_get_le32(p + 8), len);
}

/* Extended interrupt: consumer, edge, active high, exclusive; one line. */
static void check_interrupt(const uint8_t *device, uint32_t gsi)
{
    static const uint8_t tag[] = {0x89, 0x06, 0x00, 0x03, 0x01};
    const uint8_t *p = find_resource(device, tag, sizeof(tag));

    ck_assert_uint_eq(num_get_le32(p + 5), gsi);
}

START_TEST(test_dsdt_virtio_slots)
{
    const uint8_t *p;

    write_tables(1);
    for (unsigned n = 0; n < MAP_VIRTIO_SLOTS; n++) {
        p = find_bytes("LNRO0005", 9, n);
        ck_assert_ptr_nonnull(p);
        check_memory(p, (uint32_t)(MAP_VIRTIO_BASE + n * MAP_VIRTIO_STRIDE),
                     MAP_VIRTIO_STRIDE);
        check_interrupt(p, MAP_VIRTIO_GSI + n);
    }
    ck_assert_ptr_null(find_bytes("LNRO0005", 9, MAP_VIRTIO_SLOTS));
}
END_TEST

START_TEST(test_dsdt_serial_port)
{
    static const uint8_t pnp0501[] = {0x41, 0xd0, 0x05, 0x01}; /* EISA id */
    static const uint8_t io_tag[] = {0x47, 0x01};
    const uint8_t *p, *io;

    write_tables(1);
    p = find_bytes(pnp0501, sizeof(pnp0501), 0);
    ck_assert_ptr_nonnull(p);
    io = find_resource(p, io_tag, sizeof(io_tag));
    ck_assert_uint_eq(num_get_le16(io + 2), MAP_SERIAL_PORT);
    ck_assert_uint_eq(num_get_le16(io + 4), MAP_SERIAL_PORT);
    ck_assert_uint_eq(io[7], 8);
    check_interrupt(p, MAP_SERIAL_GSI);
}
END_TEST

START_TEST(test_dsdt_panic_and_event_devices)
{
    write_tables(1);
    /* Not in the page that Linux maps write-back for the ACPI registers. */
    ck_assert_uint_ne(CONTROL_PANIC / 0x1000, CONTROL_RESET / 0x1000);
    ck_assert_ptr_nonnull(find_bytes("QEMU0001", 9, 0));
    check_memory(find_bytes("QEMU0001", 9, 0),
                 (uint32_t)(MAP_CONTROL_PAGE + CONTROL_PANIC), 1);
    ck_assert_ptr_nonnull(find_bytes("ACPI0013", 9, 0));
    check_interrupt(find_bytes("ACPI0013", 9, 0), MAP_EVENT_GSI);
}
END_TEST

/* _S5: a package of four whose first element is the sleep type. */
START_TEST(test_dsdt_s5)
{
    const uint8_t *p;

    write_tables(1);
    p = find_bytes("_S5_", 4, 0);
    ck_assert_ptr_nonnull(p);
    ck_assert_uint_eq(p[4], 0x12); /* PackageOp */
    ck_assert_uint_eq(p[6], 4);    /* elements */
    ck_assert_uint_eq(p[7], 0x0a); /* BytePrefix */
    ck_assert_uint_eq(p[8], CONTROL_SLEEP_S5_TYPE);
}
END_TEST

/* The id lies where ADDR says, in RAM of its own page, and is random. */
START_TEST(test_generation_id)
{
    uint8_t first[16];
    const uint8_t *p, *id;

    write_tables(1);
    p = find_bytes("ADDR", 4, 0);
    ck_assert_ptr_nonnull(p);
    ck_assert_uint_eq(p[4], 0x12);
    ck_assert_uint_eq(p[6], 2);
    ck_assert_uint_eq(p[7], 0x0c); /* DWordPrefix */
    ck_assert_uint_eq(num_get_le32(p + 8), MAP_VMGENID_PAGE);
    ck_assert_uint_eq(p[12], 0); /* ZeroOp: the high half */
    ck_assert_ptr_nonnull(find_bytes("VM_Gen_Counter", 15, 0));

    id = guest_mem_ptr(&ram.mem, MAP_VMGENID_PAGE, 0x1000);
    memcpy(first, id, sizeof(first));
    ck_assert(mini_ram_is_zero(&ram, MAP_VMGENID_PAGE + 16, 0x1000 - 16));
    write_tables(1);
    ck_assert_mem_ne(id, first, sizeof(first));
}
END_TEST

START_TEST(test_no_memory)
{
    struct boot_machine machine = {.memory_bytes = 32 * MIB, .cpu_count = 1};

    ram.mem.regions[0].base = 0x100000;
    ck_assert_int_eq(acpi_write_tables(&machine, &ram.mem, &rsdp_at), -EFAULT);
}
END_TEST

static Suite *acpi_suite(void)
{
    Suite *suite = suite_create("acpi");
    TCase *tcase = tcase_create("acpi");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_rsdp_is_found_by_scan);
    tcase_add_test(tcase, test_fadt);
    tcase_add_loop_test(tcase, test_madt, 0, (int)ARRAY_SIZE(cpu_counts));
    tcase_add_test(tcase, test_cpu_count_out_of_range);
    tcase_add_test(tcase, test_dsdt_virtio_slots);
    tcase_add_test(tcase, test_dsdt_serial_port);
    tcase_add_test(tcase, test_dsdt_panic_and_event_devices);
    tcase_add_test(tcase, test_dsdt_s5);
    tcase_add_test(tcase, test_generation_id);
    tcase_add_test(tcase, test_no_memory);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(acpi_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
