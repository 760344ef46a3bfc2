/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved CPUID tables: what this machine would have made is taken, on a host
 * that has it all; everything else is refused, with the leaf's name.
 */
#include <check.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "vmm/x86/cpuid_check.h"

#define CPUS 2u
#define INDEXED KVM_CPUID_FLAG_SIGNIFCANT_INDEX
#define TSC_DEADLINE (1u << 24)

/* A host's offer: nested virtualisation, counters and Hyper-V's leaves, too. */
static const struct kvm_cpuid_entry2 offered[] = {
    {.function = 0, .eax = 0x1f, .ebx = 0x756e6547, .ecx = 1, .edx = 2},
    {.function = 1, .eax = 0x306c1, .ecx = 0xffffffff, .edx = 0xffffffff},
    {.function = 4, .flags = INDEXED, .eax = 0x121, .ebx = 3},
    {.function = 7, .flags = INDEXED, .ebx = 0xffffffff, .ecx = 0xffffffff},
    {.function = 0xa, .eax = 0x7300802, .edx = 5},
    {.function = 0xb, .flags = INDEXED, .ebx = 1},
    {.function = 0xd, .flags = INDEXED, .eax = 7, .ebx = 0x340},
    {.function = 0xd, .index = 2, .flags = INDEXED, .eax = 0x100, .ebx = 0x240},
    {.function = 0x40000000, .eax = 0x40000001},
    {.function = 0x40000001, .eax = 0xffffffff},
    {.function = 0x80000001, .ecx = 0xffffffff, .edx = 0xffffffff},
    {.function = 0x8000000a, .eax = 1},
};

static struct kvm_cpuid2 *host, *saved;
static char why[STATE_WHY_MAX + 1];

static const struct cpuid_options options = {
    .cpu_count = CPUS, .tsc_deadline = true, .xsave = true};

static struct kvm_cpuid2 *make_table(const struct cpuid_options *o)
{
    struct kvm_cpuid2 *all = calloc(1, sizeof(*all) + sizeof(offered)), *table;

    ck_assert_ptr_nonnull(all);
    all->nent = ARRAY_SIZE(offered);
    memcpy(all->entries, offered, sizeof(offered));
    table = cpuid_copy(all);
    free(all);
    ck_assert_ptr_nonnull(table);
    ck_assert_int_eq(cpuid_prepare(table, o), 0);
    return table;
}

static void set_up(void)
{
    host = make_table(&options);
    saved = make_table(&options);
    why[0] = '\0';
}

static void tear_down(void)
{
    free(host);
    free(saved);
}

static struct kvm_cpuid_entry2 *leaf(struct kvm_cpuid2 *table,
                                     uint32_t function)
{
    for (uint32_t i = 0; i < table->nent; i++)
        if (table->entries[i].function == function)
            return &table->entries[i];
    ck_abort_msg("no leaf %#x", function);
}

START_TEST(own_tables)
{
    struct cpuid_options other = options;

    ck_assert_int_eq(cpuid_check_own(saved, &options, why), 0);
    ck_assert_int_eq(cpuid_check(host, saved, why), 0);
    /* Made without what the check allows. */
    other.xsave = other.tsc_deadline = false;
    other.hide_rdrand = true;
    free(saved);
    saved = make_table(&other);
    ck_assert_int_eq(cpuid_check_own(saved, &options, why), 0);
    ck_assert_int_eq(cpuid_check(host, saved, why), 0);
}
END_TEST

/* One bit or word that no table of ours has. */
static const struct {
    uint32_t function;
    int reg;
    uint32_t value;
} foreign[] = {
    {1, 2, 1u << 5},             /* VMX */
    {0x80000001, 2, 1u << 2},    /* SVM */
    {7, 3, 1u << 24},            /* AMX */
    {0xa, 0, 2},                 /* performance counters */
    {0x8000000a, 0, 1},          /* SVM's own leaf */
    {0x40000000, 1, 0x7263694d}, /* another hypervisor's name */
    {0x40000001, 0, 1u << 5},    /* steal time */
    {0xb, 1, 64},                /* more CPUs */
    {1, 1, 0x00ff0000},
};

START_TEST(foreign_tables)
{
    struct kvm_cpuid_entry2 *e = leaf(saved, foreign[_i].function);
    uint32_t *regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};
    char name[24];

    *regs[foreign[_i].reg] |= foreign[_i].value;
    ck_assert_int_eq(cpuid_check_own(saved, &options, why), -EOPNOTSUPP);
    snprintf(name, sizeof(name), "leaf 0x%x", foreign[_i].function);
    ck_assert_msg(strstr(why, name) != NULL, "'%s' in '%s'", name, why);
}
END_TEST

START_TEST(foreign_leaves)
{
    struct cpuid_options pinned = options;

    /* Hyper-V's second leaf, behind ours. */
    saved->entries[saved->nent] =
        (struct kvm_cpuid_entry2){.function = 0x40000003, .eax = 0xff};
    saved->nent++;
    ck_assert_int_eq(cpuid_check_own(saved, &options, why), -EOPNOTSUPP);
    saved->nent--;
    ck_assert_int_eq(cpuid_check_own(saved, &options, why), 0);
    /* Without its last, or with RDRAND where it is to be hidden. */
    pinned.hide_rdrand = true;
    ck_assert_int_eq(cpuid_check_own(saved, &pinned, why), -EOPNOTSUPP);
    saved->nent--;
    ck_assert_int_eq(cpuid_check_own(saved, &options, why), -EOPNOTSUPP);
    saved->nent = 0;
    ck_assert_int_eq(cpuid_check_own(saved, &options, why), -EOPNOTSUPP);
}
END_TEST

/* What this host has less than the other. */
static const struct {
    uint32_t function;
    int reg;
    uint32_t lost;
    const char *why;
} less[] = {
    {0, 1, ~0u, "vendor"},
    {1, 2, TSC_DEADLINE, "leaf 0x1"},
    {7, 1, 1u << 5, "leaf 0x7"},
    {0x80000001, 3, 1u << 27, "leaf 0x80000001"},
};

START_TEST(lesser_hosts)
{
    struct kvm_cpuid_entry2 *e = leaf(host, less[_i].function);
    uint32_t *regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};

    *regs[less[_i].reg] &= ~less[_i].lost;
    ck_assert_int_eq(cpuid_check(host, saved, why), -EOPNOTSUPP);
    ck_assert_msg(strstr(why, less[_i].why) != NULL, "%s", why);
    /* A table of ours all the same. */
    ck_assert_int_eq(cpuid_check_own(saved, &options, why), 0);
}
END_TEST

START_TEST(other_layout)
{
    for (uint32_t i = 0; i < host->nent; i++)
        if (host->entries[i].function == 0xd && host->entries[i].index == 2)
            host->entries[i].ebx += 64;
    ck_assert_int_eq(cpuid_check(host, saved, why), -EOPNOTSUPP);
    ck_assert_ptr_nonnull(strstr(why, "component 2"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cpuid_check");
    TCase *t = tcase_create("all");
    SRunner *sr = srunner_create(s);
    int failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, own_tables);
    tcase_add_loop_test(t, foreign_tables, 0, (int)ARRAY_SIZE(foreign));
    tcase_add_test(t, foreign_leaves);
    tcase_add_loop_test(t, lesser_hosts, 0, (int)ARRAY_SIZE(less));
    tcase_add_test(t, other_layout);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
