/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine as a flattened device tree, by libfdt, for kernels with
 * CONFIG_OF and without ACPI. Only what a Linux x86 kernel takes from a tree:
 * CPUs, interrupt controllers, virtio slots in use, power-off, panic device.
 * No serial port: Linux finds the standard one by itself.
 *
 * Bindings: arch/x86/kernel/devicetree.c for the controllers, else the
 * kernel's Documentation/devicetree/bindings by their compatible names.
 */
#include "vmm/x86/boot.h"

#include <errno.h>
#include <inttypes.h>
#include <libfdt.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "devices/control/control_page.h"
#include "vmm/x86/e820.h"
#include "vmm/x86/map.h"

#define PHANDLE_IOAPIC 1u
#define PHANDLE_SYSCON 2u

/* Second interrupt cell of intel,ce4100-ioapic: edge, rising. */
#define IOAPIC_EDGE_RISING 3u

#define APIC_SIZE 0x1000u
#define SYSCON_SIZE 0x10u /* sleep and reset registers */

/* libfdt's sequential writer; remembers the first error (an FDT_ERR). */
struct tree {
    void *fdt;
    int error;
};

static void tree_note(struct tree *t, int fdt_error)
{
    if (t->error == 0)
        t->error = fdt_error;
}

static void tree_begin(struct tree *t, const char *name)
{
    if (t->error == 0)
        tree_note(t, fdt_begin_node(t->fdt, name));
}

/* A node named after its address. */
static void tree_begin_at(struct tree *t, const char *name, uint64_t address)
{
    char full[48];

    (void)snprintf(full, sizeof(full), "%s@%" PRIx64, name, address);
    tree_begin(t, full);
}

static void tree_end(struct tree *t)
{
    if (t->error == 0)
        tree_note(t, fdt_end_node(t->fdt));
}

static void tree_string(struct tree *t, const char *name, const char *value)
{
    if (t->error == 0)
        tree_note(t,
                  fdt_property(t->fdt, name, value, (int)(strlen(value) + 1)));
}

static void tree_u32(struct tree *t, const char *name, uint32_t value)
{
    if (t->error == 0)
        tree_note(t, fdt_property_u32(t->fdt, name, value));
}

static void tree_empty(struct tree *t, const char *name)
{
    if (t->error == 0)
        tree_note(t, fdt_property(t->fdt, name, NULL, 0));
}

/* The root has two cells for addresses and two for sizes. */
static void tree_reg(struct tree *t, uint64_t address, uint64_t size)
{
    fdt64_t reg[2] = {cpu_to_fdt64(address), cpu_to_fdt64(size)};

    if (t->error == 0)
        tree_note(t, fdt_property(t->fdt, "reg", reg, sizeof(reg)));
}

static void tree_interrupt(struct tree *t, uint32_t gsi)
{
    fdt32_t cells[2] = {cpu_to_fdt32(gsi), cpu_to_fdt32(IOAPIC_EDGE_RISING)};

    if (t->error == 0)
        tree_note(t, fdt_property(t->fdt, "interrupts", cells, sizeof(cells)));
}

static void tree_add_cpus(struct tree *t, uint32_t count)
{
    tree_begin(t, "cpus");
    tree_u32(t, "#address-cells", 1);
    tree_u32(t, "#size-cells", 0);
    for (uint32_t id = 0; id < count; id++) {
        tree_begin_at(t, "cpu", id);
        tree_string(t, "device_type", "cpu");
        tree_u32(t, "reg", id); /* the APIC id */
        tree_end(t);
    }
    tree_end(t);
}

/* For the reader of a tree: Linux on x86 takes its memory from the e820. */
static void tree_add_memory(struct tree *t, uint64_t memory_bytes)
{
    struct e820_range ranges[E820_RANGES_MAX];
    unsigned count = e820_build(memory_bytes, ranges);

    for (unsigned i = 0; i < count; i++) {
        if (ranges[i].type != E820_TYPE_RAM)
            continue;
        tree_begin_at(t, "memory", ranges[i].start);
        tree_string(t, "device_type", "memory");
        tree_reg(t, ranges[i].start, ranges[i].size);
        tree_end(t);
    }
}

static void tree_add_apics(struct tree *t)
{
    tree_begin_at(t, "lapic", MAP_LAPIC);
    tree_string(t, "compatible", "intel,ce4100-lapic");
    tree_reg(t, MAP_LAPIC, APIC_SIZE);
    tree_end(t);

    tree_begin_at(t, "interrupt-controller", MAP_IOAPIC);
    tree_string(t, "compatible", "intel,ce4100-ioapic");
    tree_reg(t, MAP_IOAPIC, APIC_SIZE);
    tree_empty(t, "interrupt-controller");
    tree_u32(t, "#interrupt-cells", 2);
    tree_u32(t, "#address-cells", 0);
    tree_u32(t, "phandle", PHANDLE_IOAPIC);
    tree_end(t);
}

static void tree_add_virtio(struct tree *t, uint32_t slots)
{
    for (uint32_t n = 0; n < slots; n++) {
        uint64_t base = MAP_VIRTIO_BASE + n * MAP_VIRTIO_STRIDE;

        tree_begin_at(t, "virtio", base);
        tree_string(t, "compatible", "virtio,mmio");
        tree_reg(t, base, MAP_VIRTIO_STRIDE);
        tree_interrupt(t, MAP_VIRTIO_GSI + n);
        tree_end(t);
    }
}

/*
 * Power-off is a byte written through a "syscon". Its default access width is
 * four bytes, which would also hit the reset register next to it.
 */
static void tree_add_control(struct tree *t)
{
    tree_begin_at(t, "syscon", MAP_CONTROL_PAGE);
    tree_string(t, "compatible", "syscon");
    tree_reg(t, MAP_CONTROL_PAGE, SYSCON_SIZE);
    tree_u32(t, "reg-io-width", 1);
    tree_u32(t, "phandle", PHANDLE_SYSCON);
    tree_end(t);

    tree_begin(t, "power-off");
    tree_string(t, "compatible", "syscon-poweroff");
    tree_u32(t, "regmap", PHANDLE_SYSCON);
    tree_u32(t, "offset", CONTROL_SLEEP_CONTROL);
    tree_u32(t, "value", CONTROL_SLEEP_S5_VALUE);
    tree_u32(t, "mask", 0xff);
    tree_end(t);

    tree_begin_at(t, "pvpanic", MAP_CONTROL_PAGE + CONTROL_PANIC);
    tree_string(t, "compatible", "qemu,pvpanic-mmio");
    tree_reg(t, MAP_CONTROL_PAGE + CONTROL_PANIC, 1);
    tree_end(t);
}

static void tree_add_root(struct tree *t, const struct boot_machine *machine,
                          const char *cmdline)
{
    tree_begin(t, "");
    tree_string(t, "compatible", "microsbx,machine-1");
    tree_string(t, "model", "microsbx machine 1");
    tree_u32(t, "#address-cells", 2);
    tree_u32(t, "#size-cells", 2);
    tree_u32(t, "interrupt-parent", PHANDLE_IOAPIC);
    tree_begin(t, "chosen");
    tree_string(t, "bootargs", cmdline);
    tree_end(t);
    tree_add_cpus(t, machine->cpu_count);
    tree_add_memory(t, machine->memory_bytes);
    tree_add_apics(t);
    tree_add_virtio(t, machine->virtio_slots_used);
    tree_add_control(t);
    tree_end(t);
}

int device_tree_build(const struct boot_machine *machine, const char *cmdline,
                      void *buf, uint32_t size, uint32_t *ret_len)
{
    struct tree t = {.fdt = buf};

    if (machine->virtio_slots_used > MAP_VIRTIO_SLOTS ||
        machine->cpu_count == 0 || machine->cpu_count > VM_CPUS_MAX ||
        size > INT32_MAX)
        return -EINVAL;
    tree_note(&t, fdt_create(buf, (int)size));
    if (t.error == 0)
        tree_note(&t, fdt_finish_reservemap(buf));
    tree_add_root(&t, machine, cmdline);
    if (t.error == 0)
        tree_note(&t, fdt_finish(buf));
    if (t.error != 0)
        return t.error == -FDT_ERR_NOSPACE ? -ENOSPC : -EINVAL;
    *ret_len = fdt_totalsize(buf);
    return 0;
}
