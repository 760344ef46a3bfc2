/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's control page (two 4 KiB MMIO pages): ACPI sleep registers,
 * reset register and the pvpanic device. A write becomes one typed event.
 * Also the legacy keyboard controller port 0x64, whose command 0xFE is how
 * Linux resets a machine without ACPI.
 *
 * Accesses come from vCPU threads; the page has no state.
 */
#ifndef MICROSBX_DEVICES_CONTROL_CONTROL_PAGE_H
#define MICROSBX_DEVICES_CONTROL_CONTROL_PAGE_H

#include "devices/bus.h"

#define CONTROL_PAGE_SIZE 0x2000u

/* Offsets in the page (frozen: part of the machine's map, version 1). */
#define CONTROL_SLEEP_CONTROL 0x00u /* ACPI 6.4, 4.8.3.7; also syscon */
#define CONTROL_SLEEP_STATUS 0x01u
#define CONTROL_RESET 0x02u
/*
 * pvpanic: 1 byte, read = supported events. In a page of its own: Linux maps
 * the ACPI registers' page write-back, and then refuses to map it uncached.
 */
#define CONTROL_PANIC 0x1000u

/* Values. S5's type is 5: SLP_TYP in bits 2-4, SLP_EN is bit 5. */
#define CONTROL_SLEEP_S5_TYPE 5u
#define CONTROL_SLEEP_S5_VALUE ((CONTROL_SLEEP_S5_TYPE << 2) | 0x20u)
#define CONTROL_RESET_VALUE 0x01u
#define CONTROL_PANIC_PANICKED 0x01u /* pvpanic event bits */
#define CONTROL_PANIC_CRASHLOADED 0x02u

#define KEYBOARD_PORT_COMMAND 0x64u
#define KEYBOARD_COMMAND_RESET 0xFEu

enum control_event {
    CONTROL_EVENT_POWER_OFF,
    CONTROL_EVENT_RESET,
    CONTROL_EVENT_PANIC,
    CONTROL_EVENT_CRASH_LOADED,
};

struct control_page {
    /* Called on the vCPU thread, without any lock. */
    void (*event)(void *ctx, enum control_event event);
    void *ctx; /* borrowed */
};

/* For bus_add; ctx is the struct control_page. */
extern const struct bus_ops control_page_bus_ops;  /* MMIO page */
extern const struct bus_ops keyboard_port_bus_ops; /* PIO, base 0x64, 1 byte */

#endif
