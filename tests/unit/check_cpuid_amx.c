/* SPDX-License-Identifier: Apache-2.0 */
/* A guest gets nothing of AMX, whatever the host and KVM have of it. */
#include <check.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/cpuid_check.h"

#define INDEXED KVM_CPUID_FLAG_SIGNIFCANT_INDEX
#define TILES (1u << 17 | 1u << 18)
#define XFD (1u << 4)

enum { EAX, EBX, ECX, EDX };

/* A host with AMX, AVX-512 and PKU whose KVM may give all of it. */
static const struct kvm_cpuid_entry2 offered[] = {
    {.function = 0, .eax = 0x20, .ebx = 0x756e6547, .ecx = 1, .edx = 2},
    {.function = 1, .eax = 0x806f8, .ecx = 0xffffffff, .edx = 0xffffffff},
    {.function = 7,
     .flags = INDEXED,
     .eax = 2,
     .ebx = 0xffffffff,
     .ecx = 0xffffffff,
     .edx = 0xffffffff},
    {.function = 7,
     .index = 1,
     .flags = INDEXED,
     .eax = 0xffffffff,
     .edx = 0xffffffff},
    {.function = 0xd,
     .flags = INDEXED,
     .eax = TILES | 0x2e7,
     .ebx = 11008,
     .ecx = 11008},
    {.function = 0xd, .index = 1, .flags = INDEXED, .eax = 0x1f, .ebx = 11008},
    {.function = 0xd, .index = 2, .flags = INDEXED, .eax = 256, .ebx = 576},
    {.function = 0xd, .index = 5, .flags = INDEXED, .eax = 64, .ebx = 1088},
    {.function = 0xd, .index = 6, .flags = INDEXED, .eax = 512, .ebx = 1152},
    {.function = 0xd, .index = 7, .flags = INDEXED, .eax = 1024, .ebx = 1664},
    {.function = 0xd, .index = 9, .flags = INDEXED, .eax = 8, .ebx = 2688},
    /* a supervisor's: in XSS, without a place in this area */
    {.function = 0xd, .index = 11, .flags = INDEXED, .eax = 16, .ecx = 1},
    {.function = 0xd,
     .index = 17,
     .flags = INDEXED,
     .eax = 64,
     .ebx = 2752,
     .ecx = 2},
    {.function = 0xd,
     .index = 18,
     .flags = INDEXED,
     .eax = 8192,
     .ebx = 2816,
     .ecx = 6},
    {.function = 0x1d, .flags = INDEXED, .eax = 1},
    {.function = 0x1d,
     .index = 1,
     .flags = INDEXED,
     .eax = 0x04002000,
     .ebx = 0x00080040,
     .ecx = 16},
    {.function = 0x1e, .flags = INDEXED, .eax = 1, .ebx = 0x4010},
    {.function = 0x1e, .index = 1, .flags = INDEXED, .eax = 0xff},
    {.function = 0x80000001, .ecx = 0xffffffff, .edx = 0xffffffff},
};

/* Every bit that speaks of AMX or is there for it. */
static const struct {
    uint32_t function, index;
    unsigned reg;
    uint32_t bits;
} amx[] = {
    {7, 0, EDX, 1u << 22 | 1u << 24 | 1u << 25}, /* BF16, TILE, INT8 */
    {7, 1, EAX, 1u << 21},                       /* FP16 */
    {7, 1, EDX, 1u << 8},                        /* COMPLEX */
    {0xd, 0, EAX, TILES},
    {0xd, 1, EAX, XFD},
    {0xd, 17, EAX, UINT32_MAX},
    {0xd, 17, EBX, UINT32_MAX},
    {0xd, 17, ECX, UINT32_MAX},
    {0xd, 18, EAX, UINT32_MAX},
    {0xd, 18, EBX, UINT32_MAX},
    {0xd, 18, ECX, UINT32_MAX},
    {0x1d, 0, EAX, UINT32_MAX},
    {0x1d, 1, EAX, UINT32_MAX},
    {0x1d, 1, EBX, UINT32_MAX},
    {0x1d, 1, ECX, UINT32_MAX},
    {0x1e, 0, EAX, UINT32_MAX},
    {0x1e, 0, EBX, UINT32_MAX},
    {0x1e, 1, EAX, UINT32_MAX},
};

static const struct cpuid_options options = {.cpu_count = 1, .xsave = true};
static struct kvm_cpuid2 *table;
static char why[STATE_WHY_MAX + 1];

static void set_up(void)
{
    struct kvm_cpuid2 *all = calloc(1, sizeof(*all) + sizeof(offered));

    ck_assert_ptr_nonnull(all);
    all->nent = ARRAY_SIZE(offered);
    memcpy(all->entries, offered, sizeof(offered));
    table = cpuid_copy(all);
    free(all);
    ck_assert_ptr_nonnull(table);
}

static void tear_down(void)
{
    free(table);
}

static struct kvm_cpuid_entry2 *leaf(uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < table->nent; i++)
        if (table->entries[i].function == function &&
            table->entries[i].index == index)
            return &table->entries[i];
    ck_abort_msg("no leaf %#x, %u", function, index);
}

START_TEST(nothing_is_offered)
{
    /* it is there, to begin with */
    ck_assert_uint_ne(
        cpuid_word(table, amx[_i].function, amx[_i].index, amx[_i].reg) &
            amx[_i].bits,
        0);
    ck_assert_int_eq(cpuid_prepare(table, &options), 0);
    ck_assert_uint_eq(
        cpuid_word(table, amx[_i].function, amx[_i].index, amx[_i].reg) &
            amx[_i].bits,
        0);
}
END_TEST

/* AVX-512 and keys stay, in an area that ends with them. */
START_TEST(the_rest_stays)
{
    ck_assert_int_eq(cpuid_prepare(table, &options), 0);
    ck_assert_uint_eq(leaf(0xd, 0)->eax, 0x2e7);
    ck_assert_uint_eq(leaf(0xd, 0)->ebx, 2696);
    ck_assert_uint_eq(leaf(0xd, 0)->ecx, 2696);
    ck_assert_uint_eq(leaf(0xd, 1)->eax, 0x0f);
    ck_assert_uint_eq(leaf(0xd, 7)->eax, 1024);
    ck_assert_uint_eq(leaf(0xd, 9)->ebx, 2688);
    ck_assert_uint_eq(leaf(0xd, 11)->eax, 16);
    /* AVX-512 F, 4VNNIW; AVX-VNNI */
    ck_assert_uint_ne(leaf(7, 0)->ebx & 1u << 16, 0);
    ck_assert_uint_ne(leaf(7, 0)->edx & 1u << 2, 0);
    ck_assert_uint_ne(leaf(7, 1)->eax & 1u << 4, 0);
}
END_TEST

/* Without tiles, the area's sizes are KVM's. */
START_TEST(other_areas_stay)
{
    leaf(0xd, 0)->eax = 0x2e7;
    leaf(0xd, 0)->ebx = 1234;
    leaf(0xd, 0)->ecx = 2696;
    ck_assert_int_eq(cpuid_prepare(table, &options), 0);
    ck_assert_uint_eq(leaf(0xd, 0)->eax, 0x2e7);
    ck_assert_uint_eq(leaf(0xd, 0)->ebx, 1234);
    ck_assert_uint_eq(leaf(0xd, 0)->ecx, 2696);
}
END_TEST

/* A snapshot cannot bring it either. */
START_TEST(snapshots_bring_none)
{
    struct kvm_cpuid_entry2 *e;

    ck_assert_int_eq(cpuid_prepare(table, &options), 0);
    ck_assert_int_eq(cpuid_check_own(table, &options, why), 0);
    e = leaf(amx[_i].function, amx[_i].index);
    *(amx[_i].reg == EAX   ? &e->eax
      : amx[_i].reg == EBX ? &e->ebx
      : amx[_i].reg == ECX ? &e->ecx
                           : &e->edx) |= amx[_i].bits;
    ck_assert_int_eq(cpuid_check_own(table, &options, why), -EOPNOTSUPP);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cpuid_amx");
    TCase *tc = tcase_create("cpuid_amx");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_loop_test(tc, nothing_is_offered, 0, ARRAY_SIZE(amx));
    tcase_add_test(tc, the_rest_stays);
    tcase_add_test(tc, other_areas_stay);
    tcase_add_loop_test(tc, snapshots_bring_none, 0, ARRAY_SIZE(amx));
    suite_add_tcase(s, tc);
    sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
