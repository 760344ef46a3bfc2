/* SPDX-License-Identifier: Apache-2.0 */
/* Permissions of a file that came out of a guest. */
#include <check.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "trial/fetched.h"

static const struct {
    uint32_t guest_mode;
    mode_t mask, wanted;
} modes[] = {
    {S_IFREG | 0755, 022, 0755},
    {S_IFREG | 0640, 022, 0640},
    {S_IFREG | 0600, 022, 0600},
    {S_IFREG | 0444, 022, 0444},
    {S_IFREG | 0777, 022, 0755},
    {S_IFREG | 0777, 077, 0700},
    {S_IFREG | 0666, 0, 0666},
    /* What a guest may claim, and nobody wants. */
    {S_IFREG | 0, 022, 0400},
    {S_IFREG | 07755, 022, 0755},
    {S_IFREG | 07777, 0, 0777},
    {0xffffffff, 022, 0755},
    {S_IFREG | 0777, 0777, 0400},
};

START_TEST(test_mode)
{
    mode_t before = umask(modes[_i].mask);

    ck_assert_uint_eq(fetched_mode(modes[_i].guest_mode), modes[_i].wanted);
    /* And the umask is as it was. */
    ck_assert_uint_eq(umask(before), modes[_i].mask);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("fetched");
    TCase *tc = tcase_create("mode");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_loop_test(tc, test_mode, 0,
                        (int)(sizeof(modes) / sizeof(modes[0])));
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
