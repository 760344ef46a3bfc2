/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI tables of the machine (ACPI 6.4): a reduced-hardware one, so there
 * is no PM timer, no SCI, no PIC, no CMOS clock and no keyboard controller to
 * describe. Devices are in dsdt.asl, which iasl turned into dsdt.h.
 *
 * Tables are put together in a small buffer and copied into the guest; nothing
 * here reads guest memory back.
 */
#include "vmm/x86/boot.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/num.h"
#include "devices/control/control_page.h"
#include "dsdt.h"
#include "vmm/x86/map.h"

#define ACPI_HEADER_LEN 36u
#define ACPI_RSDP_LEN 36u
#define ACPI_FADT_LEN 276u
#define ACPI_XSDT_LEN (ACPI_HEADER_LEN + 2 * 8u) /* FADT and MADT */
#define ACPI_TABLE_ALIGN 64u

/* MADT (5.2.12): what precedes the entries, and the lengths of those used. */
#define MADT_HEADER_LEN (ACPI_HEADER_LEN + 8u)
#define MADT_LAPIC 0u
#define MADT_LAPIC_LEN 8u
#define MADT_IOAPIC 1u
#define MADT_IOAPIC_LEN 12u
#define MADT_LAPIC_NMI 4u
#define MADT_LAPIC_NMI_LEN 6u
#define MADT_ALL_CPUS 0xffu
#define MADT_LEN_MAX                                                           \
    (MADT_HEADER_LEN + VM_CPUS_MAX * MADT_LAPIC_LEN + MADT_IOAPIC_LEN +        \
     MADT_LAPIC_NMI_LEN)

/* FADT offsets (5.2.9, table 5.9); everything else is 0. */
#define FADT_IAPC_BOOT_ARCH 109u
#define FADT_FLAGS 112u
#define FADT_RESET_REG 116u
#define FADT_RESET_VALUE 128u
#define FADT_MINOR_VERSION 131u
#define FADT_X_DSDT 140u
#define FADT_SLEEP_CONTROL_REG 244u
#define FADT_SLEEP_STATUS_REG 256u
#define FADT_HYPERVISOR_ID 268u

#define FADT_BOOT_NO_VGA (1u << 2)
#define FADT_BOOT_NO_CMOS_RTC (1u << 5)
#define FADT_FLAG_WBINVD (1u << 0)
#define FADT_FLAG_PWR_BUTTON (1u << 4) /* 1: no fixed-hardware button */
#define FADT_FLAG_SLP_BUTTON (1u << 5)
#define FADT_FLAG_RESET_REG (1u << 10)
#define FADT_FLAG_HW_REDUCED (1u << 20)

#define VMGENID_LEN 16u

/* Where the next table goes. */
struct acpi_writer {
    const struct guest_mem *mem;
    gpa_t next;
};

static void acpi_checksum(uint8_t *table, size_t len, size_t at)
{
    uint8_t sum = 0;

    table[at] = 0;
    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + table[i]);
    table[at] = (uint8_t)(0u - sum);
}

/* Fills the header all tables but the RSDP have (5.2.6), checksum last. */
static void acpi_finish_table(uint8_t *table, uint32_t len,
                              const char *signature, uint8_t revision)
{
    memcpy(table, signature, 4);
    num_put_le32(table + 4, len);
    table[8] = revision;
    memcpy(table + 10, "MICRSB", 6);
    memcpy(table + 16, "MACHINE1", 8);
    num_put_le32(table + 24, MAP_VERSION);
    memcpy(table + 28, "MSBX", 4);
    num_put_le32(table + 32, 1);
    acpi_checksum(table, len, 9);
}

static int acpi_put(struct acpi_writer *w, const void *table, uint32_t len,
                    gpa_t *ret_at)
{
    gpa_t at = w->next;
    int ret;

    if (!num_range_within(at, len, MAP_ACPI, MAP_VMGENID_PAGE - MAP_ACPI))
        return -ENOSPC;
    ret = guest_mem_write(w->mem, at, table, len);
    if (ret < 0)
        return ret;
    w->next = num_align_up(at + len, ACPI_TABLE_ALIGN);
    *ret_at = at;
    return 0;
}

/* A generic address structure for a byte in the control page (5.2.3.2). */
static void acpi_put_register(uint8_t *gas, uint64_t offset)
{
    gas[0] = 0; /* system memory */
    gas[1] = 8; /* bits */
    gas[2] = 0;
    gas[3] = 1; /* byte access */
    num_put_le64(gas + 4, MAP_CONTROL_PAGE + offset);
}

/*
 * Both sleep registers must be there or Linux believes that the machine cannot
 * be switched off; without the reset register and its flag it would try port
 * 0x64, which works here but is not what a reduced-hardware machine has.
 */
static int acpi_write_fadt(struct acpi_writer *w, gpa_t dsdt, gpa_t *ret_at)
{
    uint8_t fadt[ACPI_FADT_LEN] = {0};

    num_put_le16(fadt + FADT_IAPC_BOOT_ARCH,
                 FADT_BOOT_NO_VGA | FADT_BOOT_NO_CMOS_RTC);
    num_put_le32(fadt + FADT_FLAGS,
                 FADT_FLAG_HW_REDUCED | FADT_FLAG_RESET_REG | FADT_FLAG_WBINVD |
                     FADT_FLAG_PWR_BUTTON | FADT_FLAG_SLP_BUTTON);
    acpi_put_register(fadt + FADT_RESET_REG, CONTROL_RESET);
    fadt[FADT_RESET_VALUE] = CONTROL_RESET_VALUE;
    fadt[FADT_MINOR_VERSION] = 4;
    num_put_le64(fadt + FADT_X_DSDT, dsdt);
    acpi_put_register(fadt + FADT_SLEEP_CONTROL_REG, CONTROL_SLEEP_CONTROL);
    acpi_put_register(fadt + FADT_SLEEP_STATUS_REG, CONTROL_SLEEP_STATUS);
    memcpy(fadt + FADT_HYPERVISOR_ID, "microsbx", 8);
    acpi_finish_table(fadt, sizeof(fadt), "FACP", 6);
    return acpi_put(w, fadt, sizeof(fadt), ret_at);
}

static uint8_t *madt_put_cpu(uint8_t *p, uint8_t apic_id)
{
    p[0] = MADT_LAPIC;
    p[1] = MADT_LAPIC_LEN;
    p[2] = apic_id; /* processor uid: the same */
    p[3] = apic_id;
    num_put_le32(p + 4, 1); /* enabled */
    return p + MADT_LAPIC_LEN;
}

static uint8_t *madt_put_ioapic(uint8_t *p)
{
    p[0] = MADT_IOAPIC;
    p[1] = MADT_IOAPIC_LEN;
    p[2] = 0; /* id, as KVM's has after reset */
    num_put_le32(p + 4, (uint32_t)MAP_IOAPIC);
    num_put_le32(p + 8, 0); /* first GSI */
    return p + MADT_IOAPIC_LEN;
}

static uint8_t *madt_put_nmi(uint8_t *p)
{
    p[0] = MADT_LAPIC_NMI;
    p[1] = MADT_LAPIC_NMI_LEN;
    p[2] = MADT_ALL_CPUS;
    num_put_le16(p + 3, 0); /* polarity and trigger as the bus has them */
    p[5] = 1;               /* LINT1 */
    return p + MADT_LAPIC_NMI_LEN;
}

/*
 * No interrupt overrides: every line in use is edge triggered and active high,
 * as ISA lines are by default and dsdt.asl says of the others.
 */
static int acpi_write_madt(struct acpi_writer *w, uint32_t cpu_count,
                           gpa_t *ret_at)
{
    uint8_t madt[MADT_LEN_MAX] = {0};
    uint8_t *p = madt + MADT_HEADER_LEN;
    uint32_t len;

    if (cpu_count == 0 || cpu_count > VM_CPUS_MAX)
        return -EINVAL;
    num_put_le32(madt + ACPI_HEADER_LEN, (uint32_t)MAP_LAPIC);
    for (uint32_t i = 0; i < cpu_count; i++)
        p = madt_put_cpu(p, (uint8_t)i);
    p = madt_put_ioapic(p);
    p = madt_put_nmi(p);
    len = (uint32_t)(p - madt);
    acpi_finish_table(madt, len, "APIC", 5);
    return acpi_put(w, madt, len, ret_at);
}

static int acpi_write_xsdt(struct acpi_writer *w, gpa_t fadt, gpa_t madt,
                           gpa_t *ret_at)
{
    uint8_t xsdt[ACPI_XSDT_LEN] = {0};

    num_put_le64(xsdt + ACPI_HEADER_LEN, fadt);
    num_put_le64(xsdt + ACPI_HEADER_LEN + 8, madt);
    acpi_finish_table(xsdt, sizeof(xsdt), "XSDT", 1);
    return acpi_put(w, xsdt, sizeof(xsdt), ret_at);
}

/* The root pointer (5.2.5.3): two checksums, over 20 bytes and over all. */
static int acpi_write_rsdp(const struct guest_mem *mem, gpa_t xsdt)
{
    uint8_t rsdp[ACPI_RSDP_LEN] = {0};

    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "MICRSB", 6);
    rsdp[15] = 2; /* revision: has an XSDT */
    num_put_le32(rsdp + 20, sizeof(rsdp));
    num_put_le64(rsdp + 24, xsdt);
    acpi_checksum(rsdp, 20, 8);
    acpi_checksum(rsdp, sizeof(rsdp), 32);
    return guest_mem_write(mem, MAP_ACPI, rsdp, sizeof(rsdp));
}

/*
 * A guest compares the id with what it read last, so only its being new
 * matters, and that it is alone in its page.
 */
int acpi_write_generation_id(const struct guest_mem *mem)
{
    uint8_t id[VMGENID_LEN];

    /* Up to 256 bytes come whole once the host's generator is seeded. */
    if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
        return -EIO;
    return guest_mem_write(mem, MAP_VMGENID_PAGE, id, sizeof(id));
}

int acpi_write_tables(const struct boot_machine *machine,
                      const struct guest_mem *mem, gpa_t *ret_rsdp)
{
    struct acpi_writer w = {
        .mem = mem,
        .next = num_align_up(MAP_ACPI + ACPI_RSDP_LEN, ACPI_TABLE_ALIGN),
    };
    gpa_t dsdt, fadt, madt, xsdt;
    int ret;

    ret = acpi_put(&w, dsdt_aml_code, sizeof(dsdt_aml_code), &dsdt);
    if (ret == 0)
        ret = acpi_write_fadt(&w, dsdt, &fadt);
    if (ret == 0)
        ret = acpi_write_madt(&w, machine->cpu_count, &madt);
    if (ret == 0)
        ret = acpi_write_xsdt(&w, fadt, madt, &xsdt);
    if (ret == 0)
        ret = acpi_write_rsdp(mem, xsdt);
    if (ret == 0)
        ret = acpi_write_generation_id(mem);
    if (ret < 0)
        return ret;
    *ret_rsdp = MAP_ACPI;
    return 0;
}
