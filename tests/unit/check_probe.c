/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the probe says of a KVM's capabilities, against what that KVM answers: a
 * fake one that lacks one capability at a time, and this host's.
 */
#include "vmm/probe.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/num.h"
#include "vmm/kvm.h"

#define FAKE_FD 12345
#define NONE -1

/* ---- a KVM that has all of it but one ---- */

static int lacking;     /* a capability, or NONE */
static int max_vcpus;   /* its answer; 0: it has no such capability */
static int recommended; /* KVM_CAP_NR_VCPUS */
static int version;

static int fake_extension(int capability)
{
    if (capability == lacking)
        return 0;
    if (capability == KVM_CAP_MAX_VCPUS)
        return max_vcpus;
    if (capability == KVM_CAP_NR_VCPUS)
        return recommended;
    return 1;
}

static int fake_ioctl(unsigned long request, unsigned long arg)
{
    switch (request) {
    case KVM_GET_API_VERSION:
        return version;
    case KVM_CHECK_EXTENSION:
        return fake_extension((int)arg);
    default:
        errno = EPERM; /* no guest is tried on it */
        return -1;
    }
}

/* In the place of the C library's. */
int ioctl(int fd, unsigned long request, ...)
{
    unsigned long arg;
    va_list args;

    va_start(args, request);
    arg = va_arg(args, unsigned long);
    va_end(args);
    if (fd == FAKE_FD)
        return fake_ioctl(request, arg);
    return (int)syscall(SYS_ioctl, fd, request, arg);
}

static void set_up(void)
{
    lacking = NONE;
    max_vcpus = 1024;
    recommended = 4;
    version = 12;
}

/* ---- tests ---- */

static const struct {
    int capability;
    size_t at; /* of its bit */
} bits[] = {
    {KVM_CAP_IMMEDIATE_EXIT, offsetof(struct monitor_probe, immediate_exit)},
    {KVM_CAP_IRQFD, offsetof(struct monitor_probe, irqfd)},
    {KVM_CAP_IOEVENTFD, offsetof(struct monitor_probe, ioeventfd)},
    {KVM_CAP_TSC_DEADLINE_TIMER, offsetof(struct monitor_probe, tsc_deadline)},
    {KVM_CAP_DIRTY_LOG_RING, offsetof(struct monitor_probe, dirty_log_ring)},
};

static bool bit_of(const struct monitor_probe *p, size_t i)
{
    return *(const bool *)((const uint8_t *)p + bits[i].at);
}

/* One is missing: its bit is off, and no other. */
START_TEST(each_bit_is_its_capability)
{
    struct monitor_probe p;

    lacking = bits[_i].capability;
    probe_run(FAKE_FD, MONITOR_PROBE_ALL, &p);
    for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
        ck_assert_msg(bit_of(&p, i) == (i != (size_t)_i), "bit %zu", i);
}
END_TEST

START_TEST(all_are_there)
{
    struct monitor_probe p;

    probe_run(FAKE_FD, MONITOR_PROBE_ALL, &p);
    for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
        ck_assert(bit_of(&p, i));
    ck_assert_uint_eq(p.missing_count, 0);
    ck_assert_int_eq(p.api_version, 12);
    ck_assert_int_eq(p.error, -EPERM);
    ck_assert_ptr_nonnull(strstr(p.text, "KVM_GET_SUPPORTED_CPUID"));
}
END_TEST

/* The capabilities without which there is no machine, by name. */
static const struct {
    int capability;
    const char *name;
} needed[] = {
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    {KVM_CAP_HLT, "KVM_CAP_HLT"},
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_NR_VCPUS, "KVM_CAP_NR_VCPUS"},
    {KVM_CAP_NR_MEMSLOTS, "KVM_CAP_NR_MEMSLOTS"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_CHECK_EXTENSION_VM, "KVM_CAP_CHECK_EXTENSION_VM"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    {KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"},
    {KVM_CAP_ENFORCE_PV_FEATURE_CPUID, "KVM_CAP_ENFORCE_PV_FEATURE_CPUID"},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"},
};

START_TEST(what_is_missing_is_named)
{
    struct monitor_probe p;

    lacking = needed[_i].capability;
    probe_run(FAKE_FD, MONITOR_PROBE_ALL, &p);
    ck_assert_uint_eq(p.missing_count, 1);
    ck_assert_str_eq(p.missing[0], needed[_i].name);
    ck_assert_int_eq(p.guest_runs, PROBE_UNTESTED);
}
END_TEST

START_TEST(no_other_is_needed)
{
    unsigned count = 0;

    while (kvm_needed_name(count))
        count++;
    ck_assert_uint_eq(count, ARRAY_SIZE(needed));
}
END_TEST

/* The highest number of vCPUs; where KVM does not say, what it recommends. */
START_TEST(vcpus)
{
    struct monitor_probe p;

    probe_run(FAKE_FD, MONITOR_PROBE_ALL, &p);
    ck_assert_uint_eq(p.vcpus_max, 1024);
    max_vcpus = 0;
    probe_run(FAKE_FD, MONITOR_PROBE_ALL, &p);
    ck_assert_uint_eq(p.vcpus_max, 4);
}
END_TEST

START_TEST(another_api)
{
    struct monitor_probe p;

    version = 11;
    probe_run(FAKE_FD, MONITOR_PROBE_ALL, &p);
    ck_assert_int_eq(p.api_version, 11);
    ck_assert_int_eq(p.guest_runs, PROBE_UNTESTED);
}
END_TEST

/* This host's, asked once more. */
START_TEST(here)
{
    int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    struct monitor_probe p;

    if (kvm_fd < 0) {
        printf("skip - check_probe here: /dev/kvm: %s\n", strerror(errno));
        return;
    }
    probe_run(kvm_fd, MONITOR_PROBE_ALL, &p);
    for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
        ck_assert_int_eq(bit_of(&p, i), ioctl(kvm_fd, KVM_CHECK_EXTENSION,
                                              bits[i].capability) > 0);
    ck_assert_int_eq(p.vcpus_max,
                     ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS));
    for (size_t i = 0, k = 0; i < ARRAY_SIZE(needed); i++)
        if (ioctl(kvm_fd, KVM_CHECK_EXTENSION, needed[i].capability) <= 0)
            ck_assert_str_eq(p.missing[k++], needed[i].name);
    close(kvm_fd);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("probe");
    Suite *s = suite_create("probe");
    SRunner *runner = srunner_create(s);
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, set_up, NULL);
    tcase_add_loop_test(tc, each_bit_is_its_capability, 0,
                        (int)ARRAY_SIZE(bits));
    tcase_add_test(tc, all_are_there);
    tcase_add_loop_test(tc, what_is_missing_is_named, 0,
                        (int)ARRAY_SIZE(needed));
    tcase_add_test(tc, no_other_is_needed);
    tcase_add_test(tc, vcpus);
    tcase_add_test(tc, another_api);
    tcase_add_test(tc, here);
    suite_add_tcase(s, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
