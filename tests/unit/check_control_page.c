/* SPDX-License-Identifier: Apache-2.0 */
/* The control page: exactly which writes mean something, and what. */
#include <check.h>
#include <stdbool.h>
#include <stdlib.h>

#include "devices/control/control_page.h"

static unsigned events[4]; /* by enum control_event */
static unsigned total;

static void on_event(void *ctx, enum control_event event)
{
    (void)ctx;
    events[event]++;
    total++;
}

static struct control_page page = {.event = on_event};

static const struct {
    uint64_t offset;
    uint8_t value;
    int event; /* enum control_event, or -1 */
} writes[] = {
    {CONTROL_SLEEP_CONTROL, 0x34, CONTROL_EVENT_POWER_OFF},
    {CONTROL_SLEEP_CONTROL, 0x35, CONTROL_EVENT_POWER_OFF}, /* reserved bit */
    {CONTROL_SLEEP_CONTROL, 0x14, -1}, /* the type without the enable bit */
    {CONTROL_SLEEP_CONTROL, 0x20, -1}, /* S0 */
    {CONTROL_SLEEP_CONTROL, 0x2c, -1}, /* S3 */
    {CONTROL_SLEEP_CONTROL, 0x3c, -1},
    {CONTROL_SLEEP_STATUS, 0x34, -1},
    {CONTROL_SLEEP_STATUS, 0x80, -1},
    {CONTROL_RESET, 0x01, CONTROL_EVENT_RESET},
    {CONTROL_RESET, 0x00, -1},
    {CONTROL_RESET, 0x03, -1},
    {CONTROL_PANIC, 0x01, CONTROL_EVENT_PANIC},
    {CONTROL_PANIC, 0x02, CONTROL_EVENT_CRASH_LOADED},
    {CONTROL_PANIC, 0x04, -1},
    {CONTROL_PANIC, 0x00, -1},
    {0x03, 0x01, -1},
    {0x11, 0x01, -1},
};

START_TEST(meaningful_writes)
{
    control_page_bus_ops.write(&page, writes[_i].offset, 1, writes[_i].value);
    if (writes[_i].event < 0) {
        ck_assert_uint_eq(total, 0);
        return;
    }
    ck_assert_uint_eq(total, 1);
    ck_assert_uint_eq(events[writes[_i].event], 1);
}
END_TEST

START_TEST(both_panic_events)
{
    control_page_bus_ops.write(&page, CONTROL_PANIC, 1, 3);
    ck_assert_uint_eq(events[CONTROL_EVENT_PANIC], 1);
    ck_assert_uint_eq(events[CONTROL_EVENT_CRASH_LOADED], 1);
    ck_assert_uint_eq(total, 2);
}
END_TEST

/* All offsets and widths; events only from three registers, one byte wide. */
START_TEST(exhaustive)
{
    for (uint64_t offset = 0; offset < CONTROL_PAGE_SIZE; offset++) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            bool live = size == 1 &&
                        (offset == CONTROL_SLEEP_CONTROL ||
                         offset == CONTROL_RESET || offset == CONTROL_PANIC);
            uint64_t want = 0;

            total = 0;
            for (uint64_t value = 0; value < 256; value++)
                control_page_bus_ops.write(&page, offset, size, value);
            if ((total != 0) != live)
                ck_abort_msg("write at %#x, size %u", (unsigned)offset, size);
            if (size == 1 && offset == CONTROL_SLEEP_STATUS)
                want = 0x80;
            if (size == 1 && offset == CONTROL_PANIC)
                want = 3;
            if (control_page_bus_ops.read(&page, offset, size) != want)
                ck_abort_msg("read at %#x, size %u", (unsigned)offset, size);
        }
    }
}
END_TEST

START_TEST(keyboard_port)
{
    for (unsigned value = 0; value < 256; value++)
        keyboard_port_bus_ops.write(&page, 0, 1, value);
    ck_assert_uint_eq(total, 1);
    ck_assert_uint_eq(events[CONTROL_EVENT_RESET], 1);
    keyboard_port_bus_ops.write(&page, 0, 2, KEYBOARD_COMMAND_RESET);
    keyboard_port_bus_ops.write(&page, 1, 1, KEYBOARD_COMMAND_RESET);
    ck_assert_uint_eq(total, 1);
    ck_assert_uint_eq(keyboard_port_bus_ops.read(&page, 0, 1), 0);
}
END_TEST

START_TEST(nobody_listens)
{
    struct control_page deaf = {0};

    control_page_bus_ops.write(&deaf, CONTROL_RESET, 1, 1);
    keyboard_port_bus_ops.write(&deaf, 0, 1, KEYBOARD_COMMAND_RESET);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("control_page");
    TCase *tc = tcase_create("all");

    tcase_add_loop_test(tc, meaningful_writes, 0,
                        (int)(sizeof(writes) / sizeof(writes[0])));
    tcase_add_test(tc, both_panic_events);
    tcase_add_test(tc, exhaustive);
    tcase_add_test(tc, keyboard_port);
    tcase_add_test(tc, nobody_listens);
    suite_add_tcase(s, tc);
    return s;
}

int main(void)
{
    SRunner *sr = srunner_create(suite());
    int failed;

    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
