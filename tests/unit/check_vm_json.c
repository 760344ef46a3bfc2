/* SPDX-License-Identifier: Apache-2.0 */
/* vm.json: what is read, and that each thing wrong is refused by name. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trial/vm_json.h"

static struct machine_spec spec;
static struct failure failure;

static void set_up(void)
{
    machine_spec_init(&spec);
    memset(&failure, 0, sizeof(failure));
}

static void tear_down(void)
{
    machine_spec_fini(&spec);
}

static int parse(const char *text)
{
    return vm_json_parse(text, strlen(text), "vm.json", &spec, &failure);
}

START_TEST(test_everything)
{
    ck_assert_int_eq(
        parse("{\"boot-source\": {\"kernel_image_path\": \"k\","
              "  \"initrd_path\": \"i\", \"boot_args\": \"console=ttyS0\"},"
              " \"drives\": [{\"drive_id\": \"a\", \"path_on_host\": \"A\","
              "   \"is_root_device\": true, \"is_read_only\": true},"
              "  {\"path_on_host\": \"B,id=x\", \"drive_id\": \"b\"}],"
              " \"machine-config\": {\"vcpu_count\": 4, "
              "   \"mem_size_mib\": 512},"
              " \"vsock\": {\"guest_cid\": 77, \"uds_path\": \"/v\"},"
              " \"entropy\": {}}"),
        0);
    ck_assert_str_eq(spec.kernel, "k");
    ck_assert_str_eq(spec.initrd, "i");
    ck_assert_str_eq(spec.cmdline, "console=ttyS0");
    ck_assert_uint_eq(spec.disk_count, 2);
    ck_assert_str_eq(spec.disks[0].id, "a");
    ck_assert_int_eq(spec.disks[0].mode, VM_DISK_RO);
    ck_assert_str_eq(spec.disks[1].path, "B,id=x"); /* no words in here */
    ck_assert_int_eq(spec.disks[1].mode, VM_DISK_RW);
    ck_assert_uint_eq(spec.cpu_count, 4);
    ck_assert_uint_eq(spec.memory_bytes, (uint64_t)512 << 20);
    ck_assert_uint_eq(spec.guest_cid, 77);
    ck_assert_str_eq(spec.vsock_path, "/v");
}
END_TEST

START_TEST(test_nothing)
{
    ck_assert_int_eq(parse("{}"), 0);
    ck_assert_uint_eq(spec.memory_bytes, MACHINE_MEMORY_DEFAULT);
    ck_assert_ptr_null(spec.kernel);
}
END_TEST

static const struct {
    const char *text, *message;
} refused[] = {
    {"", "line "},
    {"[]", "must be an object"},
    {"{", "line "},
    {"{} {}", "line "},
    {"{\"entropy\": {}, \"entropy\": {}}", "duplicate"},
    {"{\"boot_source\": {}}", "\"boot_source\" is not known; did you mean "
                              "boot-source?"},
    {"{\"zebra\": {}}", "\"zebra\" is not known"},
    {"{\"\\u001b[2J\": {}}", "\"\\x1b[2J\" is not known"},
    {"{\"boot-source\": {\"kernel\": \"k\"}}", "\"kernel\" is not known"},
    {"{\"boot-source\": {\"kernel_image_path\": 1}}",
     "\"kernel_image_path\" must be a string"},
    {"{\"boot-source\": {\"kernel_image_path\": \"\"}}", "not empty"},
    {"{\"boot-source\": {\"kernel_image_path\": \"a\\u0000b\"}}", "line "},
    {"{\"boot-source\": []}", "\"boot-source\" must be an object"},
    {"{\"drives\": {}}", "\"drives\" must be a list"},
    {"{\"drives\": [1]}", "must be an object"},
    {"{\"drives\": [{}]}", "without \"path_on_host\""},
    {"{\"drives\": [{\"path_on_host\": \"a\", \"drive_id\": \"a/b\"}]}",
     "\"drive_id\" must be 1 to 20"},
    {"{\"drives\": [{\"path_on_host\": \"a\", \"drive_id\": "
     "\"123456789012345678901\"}]}",
     "\"drive_id\" must be 1 to 20"},
    {"{\"drives\": [{\"path_on_host\": \"a\", \"is_read_only\": 1}]}",
     "\"is_read_only\" must be true or false"},
    {"{\"drives\": [{\"path_on_host\": \"a\"}, {\"path_on_host\": \"b\", "
     "\"is_root_device\": true}]}",
     "first drive only"},
    {"{\"drives\": [{\"path_on_host\":\"a\"},{\"path_on_host\":\"a\"},"
     "{\"path_on_host\":\"a\"},{\"path_on_host\":\"a\"},"
     "{\"path_on_host\":\"a\"},{\"path_on_host\":\"a\"},"
     "{\"path_on_host\":\"a\"},{\"path_on_host\":\"a\"},"
     "{\"path_on_host\":\"a\"}]}",
     "too many drives"},
    {"{\"machine-config\": {\"vcpu_count\": 0}}", "\"vcpu_count\" must be"},
    {"{\"machine-config\": {\"vcpu_count\": -1}}", "\"vcpu_count\" must be"},
    {"{\"machine-config\": {\"vcpu_count\": 1000}}", "\"vcpu_count\" must be"},
    {"{\"machine-config\": {\"vcpu_count\": 1.0}}", "\"vcpu_count\" must be"},
    {"{\"machine-config\": {\"vcpu_count\": \"1\"}}", "\"vcpu_count\" must be"},
    {"{\"machine-config\": {\"mem_size_mib\": 31}}", "\"mem_size_mib\" must"},
    {"{\"machine-config\": {\"mem_size_mib\": 99999999999999999999}}", "line "},
    {"{\"machine-config\": {\"mem_size_mb\": 64}}", "did you mean "
                                                    "mem_size_mib?"},
    {"{\"machine-config\": {\"smt\": false}}", "\"smt\" is not known"},
    {"{\"vsock\": {\"guest_cid\": 2}}", "\"guest_cid\" must be"},
    {"{\"vsock\": {\"guest_cid\": 4294967295}}", "\"guest_cid\" must be"},
    {"{\"entropy\": {\"rate_limiter\": {}}}", "\"rate_limiter\" is not known"},
};

START_TEST(test_refused)
{
    ck_assert_int_lt(parse(refused[_i].text), 0);
    ck_assert_str_eq(failure.code, "config");
    ck_assert_str_eq(failure.object, "vm.json");
    ck_assert_ptr_nonnull(strstr(failure.message, "vm.json"));
    ck_assert_msg(strstr(failure.message, refused[_i].message) != NULL,
                  "%s: %s", refused[_i].text, failure.message);
    ck_assert_str_ne(failure.remedy, "");
}
END_TEST

/* Every beginning of a good file is refused or means less; none crashes. */
START_TEST(test_truncated)
{
    static const char TEXT[] =
        "{\"drives\":[{\"path_on_host\":\"a\"}],\"entropy\":{}}";

    for (size_t len = 0; len < sizeof(TEXT) - 1; len++) {
        ck_assert_int_lt(vm_json_parse(TEXT, len, "vm.json", &spec, &failure),
                         0);
        machine_spec_fini(&spec);
    }
}
END_TEST

static void write_file(const char *path, size_t bytes)
{
    FILE *file = fopen(path, "w");

    ck_assert_ptr_nonnull(file);
    for (size_t i = 0; i < bytes; i++)
        fputc(' ', file);
    fputs("{}", file);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(test_files)
{
    char dir[] = "/tmp/check_vm_json.XXXXXX";

    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(dir), 0);
    ck_assert_int_eq(vm_json_read("none", &spec, &failure), -ENOENT);
    ck_assert_ptr_nonnull(strstr(failure.message, "none: No such file"));
    ck_assert_int_eq(vm_json_read(".", &spec, &failure), -EISDIR);
    write_file("good", 0);
    ck_assert_int_eq(vm_json_read("good", &spec, &failure), 0);
    write_file("most", VM_JSON_MAX - 2);
    ck_assert_int_eq(vm_json_read("most", &spec, &failure), 0);
    write_file("large", VM_JSON_MAX - 1);
    ck_assert_int_eq(vm_json_read("large", &spec, &failure), -EFBIG);
    ck_assert_ptr_nonnull(strstr(failure.message, "larger than 64 KiB"));
    ck_assert_int_eq(mkfifo("fifo", 0600), 0); /* must not wait */
    ck_assert_int_lt(vm_json_read("fifo", &spec, &failure), 0);
    unlink("fifo");
    unlink("good");
    unlink("most");
    unlink("large");
    ck_assert_int_eq(chdir("/"), 0);
    rmdir(dir);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("vm_json");
    TCase *t = tcase_create("vm_json");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, test_everything);
    tcase_add_test(t, test_nothing);
    tcase_add_loop_test(t, test_refused, 0,
                        (int)(sizeof(refused) / sizeof(refused[0])));
    tcase_add_test(t, test_truncated);
    tcase_add_test(t, test_files);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
