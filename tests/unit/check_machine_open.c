/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine opened from a specification without an image: every number, the
 * kernel's command line, the disks and their descriptors.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/mini_kernel.h"
#include "trial/machine_spec.h"

#define DEFAULT_CMDLINE "console=ttyS0 panic=-1 reboot=k"

static char dir[] = "/tmp/check_machine_open.XXXXXX";
static char elf[64], bzimage[64], disk[64], vsock[64];
static struct machine_spec spec;
static struct machine machine;
static struct failure f;

static void write_file(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

static void set_up(void)
{
    uint8_t bytes[MINI_BZIMAGE_SIZE + MINI_ELF_SIZE];

    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(elf, sizeof(elf), "%s/elf", dir);
    snprintf(bzimage, sizeof(bzimage), "%s/bzimage", dir);
    snprintf(disk, sizeof(disk), "%s/disk", dir);
    snprintf(vsock, sizeof(vsock), "%s/vsock", dir);
    mini_elf_make(bytes);
    write_file(elf, bytes, MINI_ELF_SIZE);
    mini_bzimage_make(bytes);
    write_file(bzimage, bytes, MINI_BZIMAGE_SIZE);
    memset(bytes, 0, 1024);
    write_file(disk, bytes, 1024);
    setenv("TMPDIR", dir, 1);
    machine_spec_init(&spec);
    spec.memory_bytes = 64u << 20;
    ck_assert_int_eq(machine_spec_set(&spec.kernel, elf), 0);
}

static void tear_down(void)
{
    char command[100];

    machine_close(&machine);
    machine_spec_fini(&spec);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

/* False where there is no /dev/kvm: then nothing else may be wrong. */
static bool opens(void)
{
    int ret = machine_open(&spec, &machine, &f);

    if (ret == 0)
        return true;
    ck_assert_msg(strncmp(f.code, "kvm", 3) == 0, "%s: %s", f.code, f.message);
    ck_assert_int_lt(machine.config.kernel_fd, 0);
    return false;
}

static const struct {
    const char *cmdline, *root, *append, *line;
} lines[] = {
    {NULL, NULL, NULL, DEFAULT_CMDLINE},
    {"own", NULL, NULL, "own"},
    {NULL, NULL, "more", DEFAULT_CMDLINE " more"},
    {NULL, "root=/dev/vda rw", "more",
     DEFAULT_CMDLINE " root=/dev/vda rw more"},
    {"own", "root=/dev/vda ro", NULL, "own root=/dev/vda ro"},
    {"root=/dev/vdb", "root=/dev/vda ro", NULL, "root=/dev/vdb"},
};

START_TEST(test_command_line)
{
    if (lines[_i].cmdline)
        ck_assert_int_eq(machine_spec_set(&spec.cmdline, lines[_i].cmdline), 0);
    if (lines[_i].root)
        ck_assert_int_eq(machine_spec_set(&spec.root, lines[_i].root), 0);
    if (lines[_i].append)
        ck_assert_int_eq(machine_spec_set(&spec.append, lines[_i].append), 0);
    if (opens())
        ck_assert_str_eq(machine.config.cmdline, lines[_i].line);
}
END_TEST

START_TEST(test_numbers)
{
    struct stat st, kvm;

    spec.cpu_count = 3;
    spec.guest_cid = 77;
    spec.debug_exit = true;
    ck_assert_int_eq(machine_spec_set(&spec.vsock_path, vsock), 0);
    if (!opens())
        return;
    ck_assert_uint_eq(machine.config.memory_bytes, 64u << 20);
    ck_assert_uint_eq(machine.config.cpu_count, 3);
    ck_assert(machine.config.debug_exit);
    ck_assert(machine.config.vsock);
    ck_assert(machine.config.vsock_dial);
    ck_assert_uint_eq(machine.config.guest_cid, 77);
    ck_assert_str_eq(machine.vsock_path, vsock);
    ck_assert_int_eq(stat(vsock, &st), 0);
    ck_assert(S_ISSOCK(st.st_mode));
    ck_assert_int_eq(fstat(machine.config.kvm_fd, &st), 0);
    ck_assert_int_eq(stat("/dev/kvm", &kvm), 0);
    ck_assert_uint_eq(st.st_rdev, kvm.st_rdev);
    machine_close(&machine);
    ck_assert_int_ne(stat(vsock, &st), 0); /* no trace of it */
}
END_TEST

START_TEST(test_no_vsock)
{
    if (!opens())
        return;
    ck_assert(!machine.config.vsock);
    ck_assert(!machine.config.debug_exit);
    machine_add_vsock(&machine);
    ck_assert(machine.config.vsock && machine.config.vsock_dial);
    ck_assert_uint_eq(machine.config.guest_cid, spec.guest_cid);
}
END_TEST

static const struct {
    const char *kernel;
    enum machine_platform asked;
    enum vm_platform platform;
} platforms[] = {
    {bzimage, MACHINE_PLATFORM_AUTO, VM_PLATFORM_ACPI},
    {elf, MACHINE_PLATFORM_ACPI, VM_PLATFORM_ACPI},
    {bzimage, MACHINE_PLATFORM_DEVICE_TREE, VM_PLATFORM_DEVICE_TREE},
};

START_TEST(test_platform)
{
    ck_assert_int_eq(machine_spec_set(&spec.kernel, platforms[_i].kernel), 0);
    spec.platform = platforms[_i].asked;
    if (opens())
        ck_assert_int_eq(machine.config.platform, platforms[_i].platform);
}
END_TEST

START_TEST(test_disks)
{
    struct vm_disk *d = machine.config.disks;
    struct stat st, file;

    ck_assert_int_eq(machine_spec_add_disk(&spec, disk, &f), 0);
    spec.disk_limit = 1 << 20;
    if (!opens())
        return;
    ck_assert_uint_eq(machine.config.disk_count, 1);
    ck_assert_str_eq(d->id, "disk0");
    ck_assert_int_eq(d->mode, VM_DISK_COW);
    ck_assert_uint_eq(d->overlay_limit, 1 << 20);
    ck_assert_int_ge(d->overlay_fd, 0);
    ck_assert_int_eq(fstat(d->fd, &st), 0);
    ck_assert_int_eq(stat(disk, &file), 0);
    ck_assert_uint_eq(st.st_ino, file.st_ino);
    ck_assert_int_eq(fcntl(d->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    ck_assert_str_eq(machine_names(&machine).disks[0], disk);
    ck_assert_str_eq(machine_names(&machine).kernel, elf);
    ck_assert_ptr_null(machine_names(&machine).initrd);
}
END_TEST

static const struct {
    uint64_t memory, cpus;
    const char *code;
} refused[] = {
    {30u << 20, 1, "memory"},  {33u << 20, 1, "memory"},
    {1ull << 43, 1, "memory"}, {64u << 20, 0, "cpus"},
    {64u << 20, 65, "cpus"},
};

START_TEST(test_refused)
{
    spec.memory_bytes = refused[_i].memory;
    spec.cpu_count = refused[_i].cpus;
    ck_assert_int_lt(machine_open(&spec, &machine, &f), 0);
    ck_assert_str_eq(f.code, refused[_i].code);
    ck_assert_int_lt(machine.config.kvm_fd, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("machine_open");
    TCase *t = tcase_create("machine_open");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_loop_test(t, test_command_line, 0,
                        (int)(sizeof(lines) / sizeof(lines[0])));
    tcase_add_test(t, test_numbers);
    tcase_add_test(t, test_no_vsock);
    tcase_add_loop_test(t, test_platform, 0,
                        (int)(sizeof(platforms) / sizeof(platforms[0])));
    tcase_add_test(t, test_disks);
    tcase_add_loop_test(t, test_refused, 0,
                        (int)(sizeof(refused) / sizeof(refused[0])));
    suite_add_tcase(s, t);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
