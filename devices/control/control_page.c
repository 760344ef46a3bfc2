/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control page and the keyboard controller's reset command. Registers are
 * one byte wide and accessed as such; other widths read as 0 and write
 * nothing, so that a wide store cannot reset the machine by accident.
 */
#include "devices/control/control_page.h"

/* ACPI 6.4, tables 4.17 and 4.18: the bits that mean something. */
#define SLEEP_CONTROL_MASK 0x3cu /* SLP_TYP and SLP_EN */
#define SLEEP_STATUS_WAKE 0x80u

static void emit(const struct control_page *page, enum control_event event)
{
    if (page->event)
        page->event(page->ctx, event);
}

static uint64_t page_read(void *ctx, uint64_t offset, unsigned size)
{
    (void)ctx;
    if (size != 1)
        return 0;
    switch (offset) {
    case CONTROL_SLEEP_STATUS:
        /*
         * "Has woken up", always: a kernel that writes a sleep state we do not
         * have waits for this bit, and would wait for ever.
         */
        return SLEEP_STATUS_WAKE;
    case CONTROL_PANIC:
        return CONTROL_PANIC_PANICKED | CONTROL_PANIC_CRASHLOADED;
    default:
        return 0;
    }
}

static void page_write(void *ctx, uint64_t offset, unsigned size,
                       uint64_t value)
{
    const struct control_page *page = ctx;

    if (size != 1)
        return;
    switch (offset) {
    case CONTROL_SLEEP_CONTROL:
        if ((value & SLEEP_CONTROL_MASK) == CONTROL_SLEEP_S5_VALUE)
            emit(page, CONTROL_EVENT_POWER_OFF);
        break;
    case CONTROL_RESET:
        if ((uint8_t)value == CONTROL_RESET_VALUE)
            emit(page, CONTROL_EVENT_RESET);
        break;
    case CONTROL_PANIC:
        if (value & CONTROL_PANIC_PANICKED)
            emit(page, CONTROL_EVENT_PANIC);
        if (value & CONTROL_PANIC_CRASHLOADED)
            emit(page, CONTROL_EVENT_CRASH_LOADED);
        break;
    default:
        break;
    }
}

/* Input buffer empty, no data: Linux waits for that before it commands. */
static uint64_t keyboard_read(void *ctx, uint64_t offset, unsigned size)
{
    (void)ctx;
    (void)offset;
    (void)size;
    return 0;
}

static void keyboard_write(void *ctx, uint64_t offset, unsigned size,
                           uint64_t value)
{
    const struct control_page *page = ctx;

    if (offset == 0 && size == 1 && (uint8_t)value == KEYBOARD_COMMAND_RESET)
        emit(page, CONTROL_EVENT_RESET);
}

const struct bus_ops control_page_bus_ops = {
    .read = page_read,
    .write = page_write,
};

const struct bus_ops keyboard_port_bus_ops = {
    .read = keyboard_read,
    .write = keyboard_write,
};
