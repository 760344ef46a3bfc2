/* SPDX-License-Identifier: Apache-2.0 */
/* Messages blame the right thing: remedies by errno, and those of /dev/kvm. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/failure.h"
#include "trial/kvm_open.h"

static const struct {
    int error;
    const char *part; /* of the remedy; NULL: what the caller says */
} remedies[] = {
    {EMFILE, "ulimit -n"},
    {-EMFILE, "ulimit -n"},
    {ENFILE, "fs.file-max"},
    {ENOMEM, "memory"},
    {ENOSPC, "room"},
    {EDQUOT, "quota"},
    {EROFS, "written"},
    {EIO, "storage"},
    {ENOENT, NULL},
    {EACCES, NULL},
    {0, NULL},
};

START_TEST(test_remedies)
{
    const char *remedy = failure_remedy(remedies[_i].error, "otherwise");

    ck_assert_ptr_nonnull(
        strstr(remedy, remedies[_i].part ? remedies[_i].part : "otherwise"));
    if (!remedies[_i].part)
        ck_assert_ptr_null(failure_remedy(remedies[_i].error, NULL));
}
END_TEST

static const struct {
    struct kvm_denial denial;
    const char *code, *message, *remedy, *never;
} denials[] = {
    {{.error = EACCES, .mode = 020660, .group = 36, .group_name = "kvm"},
     "kvm_not_permitted",
     "permission denied",
     "join the group kvm",
     "root"},
    {{.error = EACCES, .mode = 020660, .group = 78, .group_name = "virt"},
     "kvm_not_permitted",
     "permission denied",
     "join the group virt",
     "kvm ("},
    {{.error = EACCES, .mode = 020660, .group = 78},
     "kvm_not_permitted",
     "permission denied",
     "the id 78",
     "adduser"},
    /* Of root alone: no group helps. */
    {{.error = EACCES, .mode = 020600, .group = 36, .group_name = "kvm"},
     "kvm_not_permitted",
     "root alone",
     "chmod 660",
     "adduser"},
    {{.error = EACCES, .mode = 020660, .group_name = "root"},
     "kvm_not_permitted",
     "group of root",
     "chgrp kvm",
     "adduser"},
    /* A member already. */
    {{.error = EACCES,
      .mode = 020660,
      .group = 36,
      .group_name = "kvm",
      .member = true},
     "kvm_not_permitted",
     "permits it",
     "nodev",
     "adduser"},
    {{.error = EPERM, .mode = 020666},
     "kvm_not_permitted",
     "forbid",
     "container",
     "adduser"},
    {{.error = ENOENT}, "kvm_missing", "No such file", "firmware", "adduser"},
    {{.error = ENODEV, .mode = 020660},
     "kvm_missing",
     "No such device",
     "firmware",
     "adduser"},
    {{.error = EMFILE, .mode = 020660},
     "host",
     "Too many open files",
     "ulimit -n",
     "firmware"},
    {{.error = ENOMEM, .mode = 020660},
     "host",
     "allocate memory",
     "memory",
     "firmware"},
};

START_TEST(test_denials)
{
    struct failure f = {0};

    kvm_explain(&denials[_i].denial, &f);
    ck_assert_str_eq(f.code, denials[_i].code);
    ck_assert_str_eq(f.object, "/dev/kvm");
    ck_assert_msg(strstr(f.message, denials[_i].message) != NULL, "%s",
                  f.message);
    ck_assert_msg(strstr(f.remedy, denials[_i].remedy) != NULL, "%s", f.remedy);
    ck_assert_msg(!strstr(f.remedy, denials[_i].never), "%s", f.remedy);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("failure");
    TCase *all = tcase_create("failure");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(all, test_remedies, 0,
                        (int)(sizeof(remedies) / sizeof(remedies[0])));
    tcase_add_loop_test(all, test_denials, 0,
                        (int)(sizeof(denials) / sizeof(denials[0])));
    suite_add_tcase(suite, all);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
