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

/* What Firecracker itself writes about a machine, and its users copy. */
START_TEST(test_firecracker)
{
    ck_assert_int_eq(
        parse("{\"boot-source\": {\"kernel_image_path\": \"k\","
              "  \"initrd_path\": null, \"boot_args\": \"console=ttyS0\"},"
              " \"drives\": [{\"drive_id\": \"rootfs\", \"partuuid\": null,"
              "   \"is_root_device\": true, \"cache_type\": \"Unsafe\","
              "   \"is_read_only\": false, \"path_on_host\": \"A\","
              "   \"io_engine\": \"Sync\", \"socket\": null,"
              "   \"rate_limiter\": {\"bandwidth\": null, \"ops\": null}}],"
              " \"machine-config\": {\"vcpu_count\": 2, \"smt\": false,"
              "   \"mem_size_mib\": 1024, \"cpu_template\": \"None\","
              "   \"track_dirty_pages\": true, \"huge_pages\": \"None\"},"
              " \"cpu-config\": null, \"balloon\": null, \"pmem\": [],"
              " \"network-interfaces\": [], \"logger\": null,"
              " \"metrics\": null, \"mmds-config\": null, \"serial\": {},"
              " \"vsock\": {\"vsock_id\": \"v\", \"guest_cid\": 3,"
              "   \"uds_path\": \"./v\"},"
              " \"entropy\": {\"rate_limiter\": null},"
              " \"memory-hotplug\": null}"),
        0);
    ck_assert_uint_eq(spec.cpu_count, 2);
    ck_assert_ptr_null(spec.initrd);
    ck_assert_str_eq(spec.root, "root=/dev/vda rw");
}
END_TEST

static const struct {
    const char *drive, *root;
} roots[] = {
    {"{\"path_on_host\": \"a\"}", NULL},
    {"{\"path_on_host\": \"a\", \"is_root_device\": false}", NULL},
    {"{\"path_on_host\": \"a\", \"partuuid\": \"12-ab\"}", NULL},
    {"{\"is_root_device\": true, \"path_on_host\": \"a\","
     " \"is_read_only\": true}",
     "root=/dev/vda ro"},
    {"{\"is_root_device\": true, \"partuuid\": \"12-ab\","
     " \"path_on_host\": \"a\"}",
     "root=PARTUUID=12-ab rw"},
    {"{\"is_root_device\": true, \"path_on_host\": \"a\", \"partuuid\": "
     "\"0000000000000000000000000000000000000001\"}",
     "root=PARTUUID=0000000000000000000000000000000000000001 rw"},
};

START_TEST(test_root)
{
    char text[300];

    snprintf(text, sizeof(text), "{\"drives\": [%s]}", roots[_i].drive);
    ck_assert_int_eq(parse(text), 0);
    if (roots[_i].root)
        ck_assert_str_eq(spec.root, roots[_i].root);
    else
        ck_assert_ptr_null(spec.root);
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
    {"{\"machine-config\": {\"smt\": true}}",
     "\"smt\" cannot be honoured: true"},
    {"{\"machine-config\": {\"smt\": 0}}", "\"smt\" must be true or"},
    {"{\"machine-config\": {\"track_dirty_pages\": \"no\"}}",
     "\"track_dirty_pages\" must be true or false"},
    {"{\"machine-config\": {\"huge_pages\": \"2M\"}}",
     "\"huge_pages\" cannot be honoured: \"2M\": guest memory has pages"},
    {"{\"machine-config\": {\"huge_pages\": 2}}", "must be a string"},
    {"{\"machine-config\": {\"cpu_template\": \"T2\"}}",
     "\"cpu_template\" cannot be honoured: \"T2\""},
    {"{\"machine-config\": {\"cpu_template\": \"\\u001b[2J\"}}",
     "\"\\x1b[2J\""},
    {"{\"machine-config\": {\"gdb_socket_path\": \"/g\"}}", "debugger"},
    {"{\"drives\": [{\"path_on_host\": \"a\", \"io_engine\": \"Async\"}]}",
     "synchronously"},
    {"{\"drives\": [{\"path_on_host\": \"a\", \"cache_type\": \"None\"}]}",
     "give Unsafe or Writeback"},
    {"{\"drives\": [{\"path_on_host\": \"a\", \"partuuid\": \"a b\"}]}",
     "\"partuuid\" must be"},
    {"{\"drives\": [{\"path_on_host\": \"a\", \"partuuid\": "
     "\"00000000000000000000000000000000000000001\"}]}",
     "\"partuuid\" must be"},
    {"{\"drives\": [{\"path_on_host\": \"a\", \"rate_limiter\": "
     "{\"ops\": {\"size\": 1}}}]}",
     "\"rate_limiter\" cannot be honoured: there are no rates"},
    {"{\"drives\": [{\"socket\": \"/s\"}]}", "a disk is a file here"},
    {"{\"drives\": [{\"path_on_host\": null}]}", "without \"path_on_host\""},
    {"{\"network-interfaces\": [{\"iface_id\": \"eth0\"}]}",
     "\"network-interfaces\" cannot be honoured: a machine has no network"},
    {"{\"network-interface\": []}", "did you mean network-interfaces?"},
    {"{\"mmds-config\": {\"version\": \"V2\"}}", "has no network"},
    {"{\"balloon\": {\"amount_mib\": 1}}", "there is no balloon"},
    {"{\"memory-hotplug\": {\"total_size_mib\": 1}}", "mem_size_mib"},
    {"{\"pmem\": [{\"id\": \"p\"}]}", "as a drive"},
    {"{\"cpu-config\": \"file\"}", "the host's CPU"},
    {"{\"logger\": {\"level\": \"Info\"}}", "--events"},
    {"{\"metrics\": {\"metrics_path\": \"/m\"}}", "--json"},
    {"{\"serial\": {\"serial_out_path\": \"/o\"}}", "standard output"},
    {"{\"vsock\": {\"guest_cid\": 2}}", "\"guest_cid\" must be"},
    {"{\"vsock\": {\"guest_cid\": 4294967295}}", "\"guest_cid\" must be"},
    {"{\"vsock\": {\"vsock_id\": 1}}", "\"vsock_id\" must be a string"},
    {"{\"entropy\": {\"rate_limiter\": {\"bandwidth\": 1}}}",
     "there are no rates"},
    {"{\"entropy\": {\"rate\": {}}}", "\"rate\" is not known"},
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
    tcase_add_test(t, test_firecracker);
    tcase_add_loop_test(t, test_root, 0,
                        (int)(sizeof(roots) / sizeof(roots[0])));
    tcase_add_loop_test(t, test_refused, 0,
                        (int)(sizeof(refused) / sizeof(refused[0])));
    tcase_add_test(t, test_truncated);
    tcase_add_test(t, test_files);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
