/* SPDX-License-Identifier: Apache-2.0 */
/* What is said of a command that was not started: which, what, and why. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trial/exec_result.h"

static const struct {
    const char *command, *user, *workdir;
    uint32_t reason;
    int err;
    int exit_code; /* -1: refused before anything ran */
    const char *code, *object, *message;
} refusals[] = {
    {"nope", NULL, NULL, PROTO_FAIL_NOT_FOUND, ENOENT, 127, "not_found", "nope",
     "cannot run nope in the guest: No such file or directory"},
    {"/etc", NULL, NULL, PROTO_FAIL_NOT_EXECUTABLE, EACCES, 126,
     "not_executable", "/etc",
     "cannot run /etc in the guest: Permission denied"},
    {"", NULL, NULL, PROTO_FAIL_NOT_FOUND, ENOENT, 127, "not_found", "COMMAND",
     "cannot run a command in the guest: its name, the first word, is empty"},
    {"true", "eve", NULL, PROTO_FAIL_USER, ENOENT, -1, "exec_refused", "eve",
     "cannot run true in the guest: eve: there is no such user in the image"},
    {"true", NULL, NULL, PROTO_FAIL_CWD, EACCES, -1, "exec_refused", "(home)",
     "cannot run true in the guest: (home): Permission denied"},
    {"true", NULL, "/x", PROTO_FAIL_CWD, ENOENT, -1, "exec_refused", "/x",
     "cannot run true in the guest: /x: No such file or directory"},
    {"true", NULL, NULL, PROTO_FAIL_NO_ROOT, ENODEV, -1, "exec_refused", "true",
     "cannot run true in the guest: true: the guest has no root file system"},
};

START_TEST(test_refusal)
{
    const char *argv[] = {refusals[_i].command, NULL};
    const struct trial_spec spec = {.argv = argv,
                                    .user = refusals[_i].user,
                                    .workdir = refusals[_i].workdir};
    struct trial_result *result = calloc(1, sizeof(*result));
    struct failure f = {.code = ""};
    bool has_status = exec_result_failed(result, &spec, refusals[_i].reason,
                                         refusals[_i].err, &f);

    ck_assert(has_status == (refusals[_i].exit_code >= 0));
    ck_assert(result->facts.has_status == has_status);
    if (has_status)
        ck_assert_int_eq(result->facts.exit_code, refusals[_i].exit_code);
    ck_assert_str_eq(f.code, refusals[_i].code);
    ck_assert_str_eq(f.object, refusals[_i].object);
    ck_assert_str_eq(f.message, refusals[_i].message);
    free(result);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("exec_result");
    TCase *tc = tcase_create("refusals");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_loop_test(tc, test_refusal, 0,
                        (int)(sizeof(refusals) / sizeof(refusals[0])));
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
