/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a snapshot can be restored here; see the header. */
#include "trial/snapshot_compat.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "trial/snapshot_internal.h"

/* Bits that people know by name; the others are named by word and number. */
static const struct {
    enum snapshot_cpuid word;
    unsigned bit;
    const char *name;
} features[] = {
    {SNAPSHOT_CPUID_1_ECX, 0, "SSE3"},
    {SNAPSHOT_CPUID_1_ECX, 1, "PCLMULQDQ"},
    {SNAPSHOT_CPUID_1_ECX, 9, "SSSE3"},
    {SNAPSHOT_CPUID_1_ECX, 12, "FMA"},
    {SNAPSHOT_CPUID_1_ECX, 13, "CMPXCHG16B"},
    {SNAPSHOT_CPUID_1_ECX, 17, "PCID"},
    {SNAPSHOT_CPUID_1_ECX, 19, "SSE4.1"},
    {SNAPSHOT_CPUID_1_ECX, 20, "SSE4.2"},
    {SNAPSHOT_CPUID_1_ECX, 21, "x2APIC"},
    {SNAPSHOT_CPUID_1_ECX, 22, "MOVBE"},
    {SNAPSHOT_CPUID_1_ECX, 23, "POPCNT"},
    {SNAPSHOT_CPUID_1_ECX, 24, "TSC deadline timer"},
    {SNAPSHOT_CPUID_1_ECX, 25, "AES"},
    {SNAPSHOT_CPUID_1_ECX, 26, "XSAVE"},
    {SNAPSHOT_CPUID_1_ECX, 28, "AVX"},
    {SNAPSHOT_CPUID_1_ECX, 29, "F16C"},
    {SNAPSHOT_CPUID_1_ECX, 30, "RDRAND"},
    {SNAPSHOT_CPUID_7_EBX, 0, "FSGSBASE"},
    {SNAPSHOT_CPUID_7_EBX, 3, "BMI1"},
    {SNAPSHOT_CPUID_7_EBX, 5, "AVX2"},
    {SNAPSHOT_CPUID_7_EBX, 7, "SMEP"},
    {SNAPSHOT_CPUID_7_EBX, 8, "BMI2"},
    {SNAPSHOT_CPUID_7_EBX, 9, "ERMS"},
    {SNAPSHOT_CPUID_7_EBX, 10, "INVPCID"},
    {SNAPSHOT_CPUID_7_EBX, 16, "AVX512F"},
    {SNAPSHOT_CPUID_7_EBX, 18, "RDSEED"},
    {SNAPSHOT_CPUID_7_EBX, 19, "ADX"},
    {SNAPSHOT_CPUID_7_EBX, 20, "SMAP"},
    {SNAPSHOT_CPUID_7_EBX, 23, "CLFLUSHOPT"},
    {SNAPSHOT_CPUID_7_EBX, 24, "CLWB"},
    {SNAPSHOT_CPUID_7_EBX, 29, "SHA"},
    {SNAPSHOT_CPUID_7_ECX, 2, "UMIP"},
    {SNAPSHOT_CPUID_7_ECX, 3, "PKU"},
    {SNAPSHOT_CPUID_7_ECX, 22, "RDPID"},
    {SNAPSHOT_CPUID_7_EDX, 24, "AMX-TILE"},
    {SNAPSHOT_CPUID_7_EDX, 26, "IBRS"},
    {SNAPSHOT_CPUID_7_EDX, 31, "SSBD"},
    {SNAPSHOT_CPUID_D_EAX, 2, "AVX state (XCR0)"},
    {SNAPSHOT_CPUID_D_EAX, 5, "AVX-512 state (XCR0)"},
    {SNAPSHOT_CPUID_D_1_EAX, 0, "XSAVEOPT"},
    {SNAPSHOT_CPUID_D_1_EAX, 1, "XSAVEC"},
    {SNAPSHOT_CPUID_D_1_EAX, 3, "XSAVES"},
    {SNAPSHOT_CPUID_80000001_ECX, 5, "LZCNT"},
    {SNAPSHOT_CPUID_80000001_ECX, 6, "SSE4a"},
    {SNAPSHOT_CPUID_80000001_EDX, 20, "NX"},
    {SNAPSHOT_CPUID_80000001_EDX, 26, "1 GiB pages"},
    {SNAPSHOT_CPUID_80000001_EDX, 27, "RDTSCP"},
};

#define BIT_RDRAND (1u << 30) /* 1.ecx */
#define BIT_RDSEED (1u << 18) /* 7.ebx */

/* Without these a saved machine cannot be loaded. */
static const char *const needed[] = {
    "KVM_CAP_IRQCHIP",      "KVM_CAP_MP_STATE",
    "KVM_CAP_XSAVE",        "KVM_CAP_XCRS",
    "KVM_CAP_DEBUGREGS",    "KVM_CAP_VCPU_EVENTS",
    "KVM_CAP_IOEVENTFD",    "KVM_CAP_IMMEDIATE_EXIT",
    "KVM_CAP_ADJUST_CLOCK", NULL,
};

void snapshot_host_init(struct snapshot_host *host,
                        const struct monitor_probe *probe)
{
    *host = (struct snapshot_host){
        .cpu_vendor = probe->cpu_vendor,
        .cpu_model = probe->cpu_model,
        .cpuid = probe->cpuid,
        .page_size = (uint32_t)sysconf(_SC_PAGESIZE),
    };
    for (uint32_t i = 0; i < probe->missing_count && i < PROBE_MISSING_MAX; i++)
        host->kvm_missing[i] = probe->missing[i];
}

int snapshot_require_host(struct snapshot_manifest *m,
                          const struct monitor_probe *probe)
{
    snprintf(m->cpu_vendor, sizeof(m->cpu_vendor), "%s", probe->cpu_vendor);
    snprintf(m->cpu_model, sizeof(m->cpu_model), "%s", probe->cpu_model);
    memcpy(m->cpuid, probe->cpuid, sizeof(m->cpuid));
    if (m->hide_rdrand) {
        m->cpuid[SNAPSHOT_CPUID_1_ECX] &= ~BIT_RDRAND;
        m->cpuid[SNAPSHOT_CPUID_7_EBX] &= ~BIT_RDSEED;
    }
    return snapshot_manifest_set_list(&m->kvm_needed, needed);
}

static void name_feature(enum snapshot_cpuid word, unsigned bit, char *buf,
                         size_t size)
{
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        if (features[i].word == word && features[i].bit == bit) {
            snprintf(buf, size, "%s (CPUID %s bit %u)", features[i].name,
                     snapshot_cpuid_name(word), bit);
            return;
        }
    }
    snprintf(buf, size, "CPUID %s bit %u", snapshot_cpuid_name(word), bit);
}

/* How many features are missing, and the name of the first. */
static unsigned missing_features(const struct snapshot_manifest *m,
                                 const struct snapshot_host *host, char *first,
                                 size_t size)
{
    unsigned count = 0;

    for (unsigned i = 0; i < SNAPSHOT_CPUID_WORDS; i++) {
        uint32_t missing = m->cpuid[i] & ~host->cpuid[i];

        if (missing != 0 && count == 0)
            name_feature((enum snapshot_cpuid)i,
                         (unsigned)__builtin_ctz(missing), first, size);
        count += (unsigned)__builtin_popcount(missing);
    }
    return count;
}

static int check_cpu(const struct snapshot_manifest *m, const char *dir,
                     const struct snapshot_host *host, struct failure *f)
{
    char first[96] = "", more[32] = "";
    unsigned count;

    if (strcmp(m->cpu_vendor, host->cpu_vendor) != 0)
        return snapshot_fail(f, -EOPNOTSUPP, "snapshot_cpu", dir,
                             "the snapshot %s was made on another kind of CPU: "
                             "%s (%s), and this one is %s (%s)",
                             dir, m->cpu_vendor, m->cpu_model, host->cpu_vendor,
                             host->cpu_model);
    count = missing_features(m, host, first, sizeof(first));
    if (count == 0)
        return 0;
    if (count > 1)
        snprintf(more, sizeof(more), " and %u more", count - 1);
    return snapshot_fail(f, -EOPNOTSUPP, "snapshot_cpu", dir,
                         "the snapshot %s was made on a CPU (%s) with features "
                         "that this one (%s) does not have: %s%s",
                         dir, m->cpu_model, host->cpu_model, first, more);
}

static bool is_missing(const struct snapshot_host *host, const char *name)
{
    for (unsigned i = 0; host->kvm_missing[i]; i++)
        if (strcmp(host->kvm_missing[i], name) == 0)
            return true;
    return false;
}

int snapshot_compatible(const struct snapshot_manifest *m, const char *dir,
                        const struct snapshot_host *host, struct failure *f)
{
    int ret;

    if (m->page_size != host->page_size)
        return snapshot_fail(f, -EOPNOTSUPP, "snapshot_page_size", dir,
                             "the snapshot %s was made with pages of %u bytes, "
                             "and this host has pages of %u",
                             dir, m->page_size, host->page_size);
    ret = check_cpu(m, dir, host, f);
    for (unsigned i = 0; ret == 0 && m->kvm_needed && m->kvm_needed[i]; i++)
        if (is_missing(host, m->kvm_needed[i]))
            ret = snapshot_fail(f, -EOPNOTSUPP, "snapshot_kvm", dir,
                                "the snapshot %s needs %s, which this host's "
                                "KVM does not have",
                                dir, m->kvm_needed[i]);
    return ret;
}

int snapshot_same_image(const struct snapshot_manifest *m, const char *dir,
                        const char *image_name, const char *image_sha256,
                        struct failure *f)
{
    if (!m->has_image)
        return snapshot_fail(f, -EINVAL, "snapshot_image", dir,
                             "the snapshot %s was not made of an image, and "
                             "'%s' was given",
                             dir, image_name);
    if (strcmp(m->image_sha256, image_sha256) == 0)
        return 0;
    if (strcmp(m->image_name, image_name) == 0)
        return snapshot_fail(f, -EINVAL, "snapshot_image", dir,
                             "the snapshot %s was made of another build of the "
                             "image '%s'",
                             dir, image_name);
    return snapshot_fail(f, -EINVAL, "snapshot_image", dir,
                         "the snapshot %s was made of the image '%s', not of "
                         "'%s'",
                         dir, m->image_name, image_name);
}
