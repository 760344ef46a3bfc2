/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a snapshot to a machine: every number and every descriptor that the
 * monitor gets, and what a snapshot may ask of this host.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/snapshot_rig.h"
#include "base/num.h"
#include "trial/machine_spec.h"
#include "trial/snapshot_internal.h"
#include "trial/snapshot_limits.h"

#define MIB ((uint64_t)1 << 20)

static struct snapshot_rig rig;
static struct snapshot *s;
static struct machine_spec spec;

static void setup(void)
{
    snapshot_rig_open(&rig);
    snapshot_rig_make(&rig, "s/a", NULL);
    s = snapshot_rig_must_open(&rig, "s/a", SNAPSHOT_CHECK_FULL);
    machine_spec_init(&spec);
    spec.disk_limit = 0; /* as when nobody gives one */
    spec.overlay_in_memory = true;
}

static void teardown(void)
{
    machine_spec_fini(&spec);
    snapshot_close(s);
    snapshot_rig_close(&rig);
}

/* As if a stranger had made it. */
static void forget_maker(void)
{
    char path[128];

    snprintf(path, sizeof(path), "cache/microsbx/made/%s", s->id);
    ck_assert(snapshot_made_here(s->id));
    ck_assert_int_eq(unlink(snapshot_rig_path(&rig, path)), 0);
    ck_assert(!snapshot_made_here(s->id));
}

/* Needs a /dev/kvm as the last step; without one it must say so. */
static bool restore(struct machine *m, struct failure *f)
{
    int ret = machine_restore(&spec, s, m, f);

    if (access("/dev/kvm", R_OK | W_OK) == 0) {
        ck_assert_msg(ret == 0, "%s", f->message);
        return true;
    }
    ck_assert_int_lt(ret, 0);
    ck_assert_msg(strncmp(f->code, "kvm", 3) == 0, "%s", f->code);
    return false;
}

static void must_refuse(const char *part, const char *remedy)
{
    struct failure f = {.code = ""};
    struct machine m;
    int ret = machine_restore(&spec, s, &m, &f);

    ck_assert_int_eq(ret, -EPERM);
    ck_assert_str_eq(f.code, "snapshot_limit");
    ck_assert_msg(strstr(f.message, part) != NULL, "%s", f.message);
    ck_assert_msg(strstr(f.remedy, remedy) != NULL, "%s", f.remedy);
    ck_assert_int_lt(m.config.kvm_fd, 0);
    ck_assert_int_lt(m.config.memory_fd, 0);
}

static void same_file(int a, int b, const char *what)
{
    struct stat sa, sb;

    ck_assert_msg(a >= 0 && a != b, "%s has no descriptor of its own", what);
    ck_assert_int_eq(fstat(a, &sa), 0);
    ck_assert_int_eq(fstat(b, &sb), 0);
    ck_assert_msg(sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino,
                  "%s is another file", what);
    ck_assert_msg(fcntl(a, F_GETFD) & FD_CLOEXEC, "%s is inherited", what);
}

START_TEST(every_number)
{
    struct snapshot_manifest *m = &s->manifest;
    struct failure f = {.code = ""};
    struct machine machine;
    const struct vm_config *c = &machine.config;

    m->platform = VM_PLATFORM_ACPI;
    m->guest_cid = 77;
    m->agent = false;
    m->debug_exit = true;
    spec.cpu_compared = true;
    if (!restore(&machine, &f))
        return;
    ck_assert_uint_eq(c->memory_bytes, RIG_MEMORY);
    ck_assert_uint_eq(c->cpu_count, 1);
    ck_assert_int_eq(c->platform, VM_PLATFORM_ACPI);
    ck_assert_str_eq(c->cmdline, "console=ttyS0");
    ck_assert(c->hide_rdrand && c->debug_exit);
    ck_assert(c->vsock && c->vsock_dial && c->cpu_compared);
    ck_assert_uint_eq(c->guest_cid, 77);
    ck_assert_uint_eq(machine.guest_cid, 77);
    ck_assert_uint_eq(c->disk_count, 2);
    ck_assert_str_eq(c->disks[0].id, "root");
    ck_assert_int_eq(c->disks[0].mode, VM_DISK_RO);
    ck_assert_str_eq(c->disks[1].id, "scratch");
    ck_assert_int_eq(c->disks[1].mode, VM_DISK_COW);
    ck_assert_uint_eq(c->disks[1].overlay_limit, m->disks[1].limit);
    ck_assert(!machine.disk_lowered);
    ck_assert_ptr_eq(machine.snapshot, s);
    ck_assert_str_eq(machine.kernel_path, s->dir);
    ck_assert_str_eq(machine.disk_paths[1], "scratch");
    machine_close(&machine);
    /* The switches the other way round. */
    m->platform = VM_PLATFORM_DEVICE_TREE;
    m->vsock = m->hide_rdrand = m->debug_exit = false;
    spec.cpu_compared = false;
    ck_assert(restore(&machine, &f));
    ck_assert_int_eq(c->platform, VM_PLATFORM_DEVICE_TREE);
    ck_assert(!c->hide_rdrand && !c->debug_exit && !c->cpu_compared);
    ck_assert(!c->vsock && !c->vsock_dial);
    machine_close(&machine);
}
END_TEST

START_TEST(every_descriptor)
{
    struct failure f = {.code = ""};
    struct stat kvm, st;
    struct machine machine;
    const struct vm_config *c = &machine.config;

    if (!restore(&machine, &f))
        return;
    ck_assert_int_eq(stat("/dev/kvm", &kvm), 0);
    ck_assert_int_eq(fstat(c->kvm_fd, &st), 0);
    ck_assert_uint_eq(st.st_rdev, kvm.st_rdev);
    ck_assert_int_eq(fcntl(c->kvm_fd, F_GETFL) & O_ACCMODE, O_RDWR);
    same_file(c->state_fd, s->state_fd, "the state");
    same_file(c->memory_fd, s->memory_fd, "the memory");
    same_file(c->disks[0].fd, s->disks[0].base_fd, "the first base");
    same_file(c->disks[1].fd, s->disks[1].base_fd, "the second base");
    same_file(c->disks[1].layer_fd, s->disks[1].cow_fd, "the cow file");
    ck_assert_int_eq(c->disks[0].overlay_fd, -1);
    ck_assert_int_eq(c->disks[0].layer_fd, -1);
    ck_assert_int_eq(fstat(c->disks[1].overlay_fd, &st), 0);
    ck_assert(S_ISREG(st.st_mode) && st.st_size == 0);
    ck_assert_int_eq(c->kernel_fd, -1);
    ck_assert_int_eq(c->initrd_fd, -1);
    ck_assert_int_eq(c->vsock_listen_fd, -1);
    machine_close(&machine);
}
END_TEST

START_TEST(vsock_of_none)
{
    struct failure f = {.code = ""};
    struct machine machine;

    s->manifest.vsock = false;
    ck_assert_int_eq(machine_spec_set(&spec.vsock_path, "/nowhere"), 0);
    ck_assert_int_eq(machine_restore(&spec, s, &machine, &f), -EINVAL);
    ck_assert_ptr_nonnull(strstr(f.message, "no vsock device"));
}
END_TEST

/* ---- limits ------------------------------------------------------------- */

START_TEST(memory_is_the_hosts)
{
    struct failure f = {.code = ""};
    struct machine machine;

    s->manifest.memory_bytes = TIB;
    (void)restore(&machine, &f); /* made here */
    machine_close(&machine);
    spec.memory_allowed = MIB;
    must_refuse("that is what -m allows", "-m 1048576M");
    spec.memory_allowed = 0;
    forget_maker();
    must_refuse("1 TiB of memory", "-m 1048576M");
    spec.memory_allowed = TIB - 1;
    must_refuse("that is what -m allows", "-m 1048576M");
    spec.memory_allowed = TIB;
    (void)restore(&machine, &f);
    machine_close(&machine);
}
END_TEST

START_TEST(cpus_are_the_hosts)
{
    struct failure f = {.code = ""};
    struct machine machine;

    s->manifest.cpus = 4000; /* more than any host that this runs on */
    (void)restore(&machine, &f);
    machine_close(&machine);
    spec.cpus_allowed = 3999;
    must_refuse("that is what --cpus allows", "--cpus 4000");
    spec.cpus_allowed = 0;
    forget_maker();
    must_refuse("4000 CPUs", "--cpus 4000");
    spec.cpus_allowed = 4000;
    (void)restore(&machine, &f);
    machine_close(&machine);
}
END_TEST

START_TEST(debug_exit_is_for_bare_guests)
{
    s->manifest.debug_exit = true;
    must_refuse("debug-exit", "anew");
}
END_TEST

/* What a disk that asks for so much is given: by nobody, by the user. */
static const struct {
    uint64_t asked, given;
    bool made;
    uint64_t limit;
    bool lowered;
} limits[] = {
    {100 * MIB, 0, false, 100 * MIB, false},
    {1024 * MIB, 0, false, 1024 * MIB, false},
    {1025 * MIB, 0, false, 1024 * MIB, true},
    {UINT64_MAX, 0, false, 1024 * MIB, true},
    {0, 0, false, 1024 * MIB, true},
    {0, 0, true, 1024 * MIB, true},
    {4096 * MIB, 0, true, 4096 * MIB, false},
    {4096 * MIB, 10 * MIB, true, 10 * MIB, false},
    {4096 * MIB, 10 * MIB, false, 10 * MIB, false},
    {0, 8192 * MIB, false, 8192 * MIB, false},
    {10 * MIB, 8192 * MIB, false, 8192 * MIB, false},
};

START_TEST(disk_limits)
{
    struct failure f = {.code = ""};
    struct machine machine;

    s->manifest.disks[1].limit = limits[_i].asked;
    spec.disk_limit = limits[_i].given;
    if (!limits[_i].made)
        forget_maker();
    if (!restore(&machine, &f))
        return;
    ck_assert_uint_eq(machine.config.disks[1].overlay_limit, limits[_i].limit);
    ck_assert(machine.disk_lowered == limits[_i].lowered);
    machine_close(&machine);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("machine_restore");
    TCase *tc = tcase_create("restore");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, every_number);
    tcase_add_test(tc, every_descriptor);
    tcase_add_test(tc, vsock_of_none);
    tcase_add_test(tc, memory_is_the_hosts);
    tcase_add_test(tc, cpus_are_the_hosts);
    tcase_add_test(tc, debug_exit_is_for_bare_guests);
    tcase_add_loop_test(tc, disk_limits, 0,
                        (int)(sizeof(limits) / sizeof(limits[0])));
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
