/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a host can restore a snapshot, and the words of each refusal. */
#include "trial/snapshot_compat.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/snapshot_rig.h"
#include "vmm/kvm.h"

static struct snapshot_manifest m;
static struct monitor_probe probe;
static struct snapshot_host host;

/* A snapshot, and the very host it was made on. */
static void setup(void)
{
    memset(&probe, 0, sizeof(probe));
    strcpy(probe.cpu_vendor, "AuthenticAMD");
    strcpy(probe.cpu_model, "AMD EPYC-Rome");
    for (uint32_t i = 0; i < PROBE_CPUID_WORDS; i++)
        probe.cpuid[i] = 0x70ff00ffu;
    snapshot_rig_manifest(&m);
    m.hide_rdrand = false;
    ck_assert_int_eq(snapshot_require_host(&m, &probe), 0);
    snapshot_host_init(&host, &probe);
}

static void teardown(void)
{
    snapshot_manifest_fini(&m);
}

static void must_refuse(const char *code, const char *says)
{
    struct failure f = {.code = ""};

    ck_assert_int_eq(snapshot_compatible(&m, "a snapshot", &host, &f),
                     -EOPNOTSUPP);
    ck_assert_str_eq(f.code, code);
    ck_assert_str_eq(f.object, "a snapshot");
    ck_assert_msg(strstr(f.message, says) != NULL, "%s", f.message);
    ck_assert(f.remedy[0] != '\0');
}

START_TEST(the_same_host_will_do)
{
    struct failure f = {.code = ""};

    ck_assert_uint_eq(host.page_size, (uint32_t)sysconf(_SC_PAGESIZE));
    ck_assert_int_eq(snapshot_compatible(&m, "s", &host, &f), 0);
    /* More is fine. */
    for (uint32_t i = 0; i < PROBE_CPUID_WORDS; i++)
        probe.cpuid[i] = 0xffffffffu;
    ck_assert_int_eq(snapshot_compatible(&m, "s", &host, &f), 0);
    ck_assert_str_eq(f.code, "");
}
END_TEST

/* Every bit the guest saw counts, of every word. */
START_TEST(missing_features_are_named)
{
    for (uint32_t word = 0; word < PROBE_CPUID_WORDS; word++) {
        for (uint32_t bit = 0; bit < 32; bit++) {
            struct failure f = {.code = ""};
            bool seen = (m.cpuid[word] >> bit & 1) != 0;

            probe.cpuid[word] &= ~(1u << bit);
            ck_assert_int_eq(snapshot_compatible(&m, "s", &host, &f),
                             seen ? -EOPNOTSUPP : 0);
            if (seen)
                ck_assert_ptr_nonnull(
                    strstr(f.message, snapshot_cpuid_name(word)));
            probe.cpuid[word] |= m.cpuid[word];
        }
    }
    probe.cpuid[SNAPSHOT_CPUID_7_EBX] &= ~(1u << 5);
    must_refuse("snapshot_cpu", "AVX2 (CPUID 7.ebx bit 5)");
    probe.cpuid[SNAPSHOT_CPUID_7_EBX] = 0;
    must_refuse("snapshot_cpu", "more");
}
END_TEST

START_TEST(other_makers_are_refused)
{
    strcpy(probe.cpu_vendor, "GenuineIntel");
    must_refuse("snapshot_cpu", "GenuineIntel");
}
END_TEST

START_TEST(missing_capabilities_are_named)
{
    struct failure f = {.code = ""};

    strcpy(probe.missing[0], "KVM_CAP_SOMETHING_ELSE");
    probe.missing_count = 1;
    snapshot_host_init(&host, &probe);
    ck_assert_int_eq(snapshot_compatible(&m, "s", &host, &f), 0);
    strcpy(probe.missing[1], "KVM_CAP_XSAVE");
    probe.missing_count = 2;
    snapshot_host_init(&host, &probe);
    must_refuse("snapshot_kvm", "KVM_CAP_XSAVE");
}
END_TEST

static bool is_on_the_monitors_list(const char *name)
{
    for (unsigned i = 0; kvm_needed_name(i); i++)
        if (strcmp(kvm_needed_name(i), name) == 0)
            return true;
    return false;
}

/* One the probe never asks for would never be found missing. */
START_TEST(the_probe_knows_all_that_is_needed)
{
    ck_assert_ptr_nonnull(m.kvm_needed[0]);
    for (unsigned i = 0; m.kvm_needed[i]; i++)
        ck_assert_msg(is_on_the_monitors_list(m.kvm_needed[i]), "%s",
                      m.kvm_needed[i]);
}
END_TEST

START_TEST(other_pages_are_refused)
{
    m.page_size = 65536;
    must_refuse("snapshot_page_size", "65536");
}
END_TEST

/* What the guest of a pinned trial does not see, no host needs. */
START_TEST(hidden_features_are_not_needed)
{
    struct failure f = {.code = ""};

    m.hide_rdrand = true;
    probe.cpuid[SNAPSHOT_CPUID_1_ECX] = 1u << 30 | 1;
    probe.cpuid[SNAPSHOT_CPUID_7_EBX] = 1u << 18 | 1;
    ck_assert_int_eq(snapshot_require_host(&m, &probe), 0);
    ck_assert_uint_eq(m.cpuid[SNAPSHOT_CPUID_1_ECX], 1);
    ck_assert_uint_eq(m.cpuid[SNAPSHOT_CPUID_7_EBX], 1);
    probe.cpuid[SNAPSHOT_CPUID_1_ECX] = 1;
    probe.cpuid[SNAPSHOT_CPUID_7_EBX] = 1;
    ck_assert_int_eq(snapshot_compatible(&m, "s", &host, &f), 0);
}
END_TEST

START_TEST(names_are_those_of_the_probe)
{
    static const char *const names[] = {
        [SNAPSHOT_CPUID_1_ECX] = "1.ecx",
        [SNAPSHOT_CPUID_1_EDX] = "1.edx",
        [SNAPSHOT_CPUID_7_EBX] = "7.ebx",
        [SNAPSHOT_CPUID_7_ECX] = "7.ecx",
        [SNAPSHOT_CPUID_7_EDX] = "7.edx",
        [SNAPSHOT_CPUID_7_1_EAX] = "7.1.eax",
        [SNAPSHOT_CPUID_D_EAX] = "d.eax",
        [SNAPSHOT_CPUID_D_1_EAX] = "d.1.eax",
        [SNAPSHOT_CPUID_80000001_ECX] = "80000001.ecx",
        [SNAPSHOT_CPUID_80000001_EDX] = "80000001.edx",
        [SNAPSHOT_CPUID_80000008_EBX] = "80000008.ebx",
        [SNAPSHOT_CPUID_KVM_EAX] = "40000001.eax",
    };

    for (uint32_t i = 0; i < SNAPSHOT_CPUID_WORDS; i++)
        ck_assert_str_eq(PROBE_CPUID[i].name, names[i]);
}
END_TEST

START_TEST(images_are_compared_by_digest)
{
    char same[DIGEST_HEX_SIZE], other[DIGEST_HEX_SIZE];
    struct failure f = {.code = ""};

    memset(same, '2', 64);
    memset(other, '3', 64);
    same[64] = other[64] = '\0';
    ck_assert_int_eq(snapshot_same_image(&m, "s", "base", same, &f), 0);
    ck_assert_int_eq(snapshot_same_image(&m, "s", "renamed", same, &f), 0);
    ck_assert_int_eq(snapshot_same_image(&m, "s", "python", other, &f),
                     -EINVAL);
    ck_assert_str_eq(f.code, "snapshot_image");
    ck_assert_ptr_nonnull(strstr(f.message, "python"));
    ck_assert_int_eq(snapshot_same_image(&m, "s", "base", other, &f), -EINVAL);
    ck_assert_ptr_nonnull(strstr(f.message, "another build"));
    m.has_image = false;
    ck_assert_int_eq(snapshot_same_image(&m, "s", "base", same, &f), -EINVAL);
    ck_assert_str_eq(f.code, "snapshot_image");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot_compat");
    TCase *tc = tcase_create("core");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, the_same_host_will_do);
    tcase_add_test(tc, missing_features_are_named);
    tcase_add_test(tc, other_makers_are_refused);
    tcase_add_test(tc, missing_capabilities_are_named);
    tcase_add_test(tc, the_probe_knows_all_that_is_needed);
    tcase_add_test(tc, other_pages_are_refused);
    tcase_add_test(tc, hidden_features_are_not_needed);
    tcase_add_test(tc, names_are_those_of_the_probe);
    tcase_add_test(tc, images_are_compared_by_digest);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
