/* SPDX-License-Identifier: Apache-2.0 */
/* The debug-exit port: which writes end a machine, and with what. */
#include <check.h>
#include <stdlib.h>

#include "devices/control/debug_exit.h"

static unsigned exits;
static uint32_t last;

static void on_exit_status(void *ctx, uint32_t status)
{
    (void)ctx;
    exits++;
    last = status;
}

static struct debug_exit port = {.exited = on_exit_status};
static struct bus bus;

static void set_up(void)
{
    ck_assert_int_eq(bus_add(&bus, DEBUG_EXIT_PORT, DEBUG_EXIT_PORTS,
                             &debug_exit_bus_ops, &port),
                     0);
}

START_TEST(every_width)
{
    bus_write(&bus, DEBUG_EXIT_PORT, 1, 0xffffffff);
    ck_assert_uint_eq(last, 0xff);
    bus_write(&bus, DEBUG_EXIT_PORT, 2, 0xffffffff);
    ck_assert_uint_eq(last, 0xffff);
    bus_write(&bus, DEBUG_EXIT_PORT, 4, 0x89abcdef);
    ck_assert_uint_eq(last, 0x89abcdef);
    bus_write(&bus, DEBUG_EXIT_PORT, 4, 0);
    ck_assert_uint_eq(last, 0);
    ck_assert_uint_eq(exits, 4);
}
END_TEST

/* The middle of a value, accesses across the port's ends, and its neighbours.
 */
START_TEST(other_writes)
{
    for (unsigned offset = 1; offset < DEBUG_EXIT_PORTS; offset++)
        for (unsigned size = 1; size <= 4; size *= 2)
            bus_write(&bus, DEBUG_EXIT_PORT + offset, size, 1);
    bus_write(&bus, DEBUG_EXIT_PORT - 1, 2, 1);
    bus_write(&bus, DEBUG_EXIT_PORT - 1, 1, 1);
    bus_write(&bus, DEBUG_EXIT_PORT + DEBUG_EXIT_PORTS, 1, 1);
    ck_assert_uint_eq(exits, 0);
}
END_TEST

START_TEST(reads)
{
    ck_assert_uint_eq(bus_read(&bus, DEBUG_EXIT_PORT, 1), 0);
    ck_assert_uint_eq(bus_read(&bus, DEBUG_EXIT_PORT, 4), 0);
    ck_assert_uint_eq(bus_read(&bus, DEBUG_EXIT_PORT + 4, 1), 0xff);
    ck_assert_uint_eq(exits, 0);
}
END_TEST

START_TEST(nobody_listens)
{
    struct debug_exit deaf = {0};

    debug_exit_bus_ops.write(&deaf, 0, 1, 1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("debug_exit");
    TCase *t = tcase_create("all");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, set_up, NULL);
    tcase_add_test(t, every_width);
    tcase_add_test(t, other_writes);
    tcase_add_test(t, reads);
    tcase_add_test(t, nobody_listens);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
