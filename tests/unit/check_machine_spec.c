/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what a user names to an opened machine: how --disk is read, and that
 * machine_open refuses each thing wrong by name and leaves nothing open. What
 * is refused is refused before /dev/kvm is needed.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "trial/machine_spec.h"

static char dir[64];
static struct machine_spec spec;
static struct machine machine;
static struct failure failure;
static unsigned descriptors;

static unsigned open_descriptors(void)
{
    DIR *fds = opendir("/proc/self/fd");
    unsigned count = 0;

    while (readdir(fds))
        count++;
    closedir(fds);
    return count;
}

static void make_file(const char *name, off_t size)
{
    int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0644);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, size), 0);
    close(fd);
}

static void set_up(void)
{
    strcpy(dir, "/tmp/check_machine.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(dir), 0);
    setenv("TMPDIR", dir, 1);
    make_file("kernel", 100);
    make_file("disk", 4096);
    make_file("odd", 4097);
    make_file("empty", 0);
    ck_assert_int_eq(mkdir("folder", 0700), 0);
    ck_assert_int_eq(mkfifo("fifo", 0600), 0);
    ck_assert_int_eq(symlink("disk", "link"), 0);
    machine_spec_init(&spec);
    memset(&failure, 0, sizeof(failure));
    ck_assert_int_eq(machine_spec_set(&spec.kernel, "kernel"), 0);
    descriptors = open_descriptors();
}

static void tear_down(void)
{
    char command[128];

    machine_spec_fini(&spec);
    ck_assert_int_eq(chdir("/"), 0);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    ck_assert_int_eq(system(command), 0);
}

/* machine_open refuses, names the object, and holds nothing open. */
static void check_refused(const char *object, const char *reason)
{
    unsigned files = 0;
    DIR *folder;

    ck_assert_int_lt(machine_open(&spec, &machine, &failure), 0);
    ck_assert_msg(strstr(failure.message, object) &&
                      strstr(failure.message, reason),
                  "'%s' lacks '%s' or '%s'", failure.message, object, reason);
    ck_assert_str_ne(failure.object, "");
    ck_assert_uint_eq(open_descriptors(), descriptors);
    folder = opendir(".");
    while (readdir(folder))
        files++;
    closedir(folder);
    ck_assert_uint_le(files, 2 + 8); /* what set_up made, and one more */
}

static const struct {
    const char *text;
    int ret;
    const char *path, *id;
    enum vm_disk_mode mode;
} disks[] = {
    {"a.img", 0, "a.img", "", VM_DISK_COW},
    {"a.img,rw", 0, "a.img", "", VM_DISK_RW},
    {"a.img,ro,id=data-1", 0, "a.img", "data-1", VM_DISK_RO},
    {"a.img,id=x,cow", 0, "a.img", "x", VM_DISK_COW},
    {"/d/b=c:d,rw", 0, "/d/b=c:d", "", VM_DISK_RW},
    {"a.img,wr", -EINVAL, NULL, NULL, 0},
    {"a.img,id=", -EINVAL, NULL, NULL, 0},
    {"a.img,id=a/b", -EINVAL, NULL, NULL, 0},
    {"a.img,id=123456789012345678901", -EINVAL, NULL, NULL, 0},
    {",rw", -EINVAL, NULL, NULL, 0},
    {"", -EINVAL, NULL, NULL, 0},
};

START_TEST(test_disk_text)
{
    ck_assert_int_eq(machine_spec_add_disk(&spec, disks[_i].text, &failure),
                     disks[_i].ret);
    if (disks[_i].ret != 0) {
        ck_assert_ptr_nonnull(strstr(failure.message, disks[_i].text));
        ck_assert_str_ne(failure.remedy, "");
        return;
    }
    ck_assert_str_eq(spec.disks[0].path, disks[_i].path);
    ck_assert_str_eq(spec.disks[0].id, disks[_i].id);
    ck_assert_int_eq(spec.disks[0].mode, disks[_i].mode);
}
END_TEST

START_TEST(test_too_many_disks)
{
    for (unsigned i = 0; i < VM_DISKS_MAX; i++)
        ck_assert_int_eq(machine_spec_add_disk(&spec, "disk", &failure), 0);
    ck_assert_int_eq(machine_spec_add_disk(&spec, "disk", &failure), -EINVAL);
    ck_assert_ptr_nonnull(strstr(failure.message, "too many disks"));
}
END_TEST

static const struct {
    const char *disk, *object, *reason;
} bad_disks[] = {
    {"none", "none", "No such file"},
    {"folder", "folder", "it is a directory"},
    {"folder,rw", "folder", "it is a directory"},
    {"empty", "empty", "it has zero bytes"},
    {"odd", "odd", "not a multiple of 512"},
    {"fifo", "fifo", "neither a file nor a block device"},
    {"/dev/null", "/dev/null", "neither a file nor a block device"},
};

START_TEST(test_bad_disk)
{
    ck_assert_int_eq(machine_spec_add_disk(&spec, bad_disks[_i].disk, &failure),
                     0);
    check_refused(bad_disks[_i].object, bad_disks[_i].reason);
}
END_TEST

static const char *const pairs[][2] = {
    {"disk,rw", "disk,rw"}, {"disk,rw", "disk"}, {"disk,ro", "link,rw"}};

START_TEST(test_disk_twice)
{
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(machine_spec_add_disk(&spec, pairs[_i][i], &failure),
                         0);
    check_refused("cannot use the disk", "given twice, and once writable");
}
END_TEST

START_TEST(test_disk_in_use)
{
    int fd = open("disk", O_RDWR);

    ck_assert_int_eq(flock(fd, _i ? LOCK_SH : LOCK_EX), 0);
    descriptors++;
    ck_assert_int_eq(
        machine_spec_add_disk(&spec, _i ? "disk,rw" : "disk", &failure), 0);
    check_refused("disk", _i ? "in use" : "open for writing");
    close(fd);
}
END_TEST

static const struct {
    const char *path, *reason;
} parts[] = {
    {"none", "No such file"},
    {"folder", "it is a directory"},
    {"empty", "the file is empty"},
    {"fifo", "not a regular file"},
};

START_TEST(test_bad_kernel)
{
    ck_assert_int_eq(machine_spec_set(&spec.kernel, parts[_i].path), 0);
    check_refused(parts[_i].path, parts[_i].reason);
    ck_assert_ptr_nonnull(strstr(failure.message, "cannot open the kernel"));
}
END_TEST

START_TEST(test_bad_initrd)
{
    ck_assert_int_eq(machine_spec_set(&spec.initrd, parts[_i].path), 0);
    check_refused(parts[_i].path, parts[_i].reason);
    ck_assert_ptr_nonnull(strstr(failure.message, "cannot open the initrd"));
}
END_TEST

START_TEST(test_no_kernel)
{
    free(spec.kernel);
    spec.kernel = NULL;
    check_refused("nothing to boot", "no image and no kernel");
}
END_TEST

START_TEST(test_bad_numbers)
{
    spec.memory_bytes = 30u << 20;
    check_refused("30 MiB", "too little");
    spec.memory_bytes = 0;
    check_refused("0 B", "too little");
    spec.memory_bytes = 33u << 20;
    check_refused("33 MiB", "not a multiple of 2 MiB");
    spec.memory_bytes = (uint64_t)1 << 50;
    check_refused("memory", "this host has");
    spec.memory_bytes = MACHINE_MEMORY_DEFAULT;
    spec.cpu_count = 0;
    check_refused("0 CPUs", "cannot make");
    spec.cpu_count = VM_CPUS_MAX + 1;
    check_refused("65 CPUs", "cannot make");
}
END_TEST

START_TEST(test_long_command_line)
{
    char words[VM_CMDLINE_MAX + 2];

    memset(words, 'x', sizeof(words) - 1);
    words[sizeof(words) - 1] = '\0';
    ck_assert_int_eq(machine_spec_set(&spec.append, words), 0);
    check_refused("kernel command line", "longer than");
}
END_TEST

START_TEST(test_bad_vsock)
{
    char path[200];
    struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "used"};
    int fd;

    memset(path, 'a', 108);
    path[108] = '\0';
    ck_assert_int_eq(machine_spec_set(&spec.vsock_path, path), 0);
    check_refused("aaa", "too long");
    ck_assert_int_eq(machine_spec_set(&spec.vsock_path, "no/where"), 0);
    check_refused("no/where", "its folder does not exist");
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    descriptors++;
    ck_assert_int_eq(machine_spec_set(&spec.vsock_path, "used"), 0);
    check_refused("used", "it exists already");
    ck_assert_int_eq(access("used", F_OK), 0); /* not ours to remove */
    close(fd);
}
END_TEST

/* TMPDIR without room for names: the overlay, and what to do instead. */
START_TEST(test_no_overlay)
{
    setenv("TMPDIR", "/proc/self", 1);
    ck_assert_int_eq(machine_spec_add_disk(&spec, "disk", &failure), 0);
    check_refused("/proc/self", "cannot make a disk overlay");
    ck_assert_ptr_nonnull(strstr(failure.remedy, "TMPDIR"));
}
END_TEST

START_TEST(test_bad_image)
{
    ck_assert_int_eq(machine_spec_set(&spec.image, "./folder"), 0);
    check_refused("folder", "image.json");
    ck_assert_int_eq(machine_spec_set(&spec.image, "no-such-image"), 0);
    check_refused("no-such-image", "");
}
END_TEST

/* Whether or not there is a /dev/kvm: all else is right. */
START_TEST(test_good)
{
    int ret;

    ck_assert_int_eq(machine_spec_add_disk(&spec, "disk", &failure), 0);
    ck_assert_int_eq(machine_spec_add_disk(&spec, "link,ro", &failure), 0);
    ck_assert_int_eq(machine_spec_set(&spec.vsock_path, "v"), 0);
    ck_assert_int_eq(machine_spec_set(&spec.append, "two words"), 0);
    ret = machine_open(&spec, &machine, &failure);
    if (ret == 0) {
        ck_assert_uint_eq(machine.config.disk_count, 2);
        ck_assert_str_eq(machine.config.disks[1].id, "disk1");
        ck_assert_ptr_nonnull(strstr(machine.config.cmdline, "two words"));
        ck_assert_int_eq(access("v", F_OK), 0);
        machine_close(&machine);
    } else {
        ck_assert_str_eq(failure.object, "/dev/kvm");
    }
    ck_assert_int_ne(access("v", F_OK), 0); /* the socket is removed */
    ck_assert_uint_eq(open_descriptors(), descriptors);
}
END_TEST

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

int main(void)
{
    Suite *s = suite_create("machine_spec");
    TCase *t = tcase_create("machine_spec");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_loop_test(t, test_disk_text, 0, COUNT(disks));
    tcase_add_test(t, test_too_many_disks);
    tcase_add_loop_test(t, test_bad_disk, 0, COUNT(bad_disks));
    tcase_add_loop_test(t, test_disk_twice, 0, COUNT(pairs));
    tcase_add_loop_test(t, test_disk_in_use, 0, 2);
    tcase_add_loop_test(t, test_bad_kernel, 0, COUNT(parts));
    tcase_add_loop_test(t, test_bad_initrd, 0, COUNT(parts));
    tcase_add_test(t, test_no_kernel);
    tcase_add_test(t, test_bad_numbers);
    tcase_add_test(t, test_long_command_line);
    tcase_add_test(t, test_bad_vsock);
    tcase_add_test(t, test_no_overlay);
    tcase_add_test(t, test_bad_image);
    tcase_add_test(t, test_good);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
