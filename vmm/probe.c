/* SPDX-License-Identifier: Apache-2.0 */
/* Measuring a host's KVM; see the header. */
#include "vmm/probe.h"

#include <cpuid.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "vmm/kvm.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/tiny_guest.h"
#include "vmm/x86/xcr0.h"

/*
 * A guest that does not answer within this is taken for one that cannot.
 * Answers take microseconds, but a second was too short for a cold start on an
 * overloaded, emulated host; one that cannot answer exits at once.
 */
#define ANSWER_TIMEOUT_MS 5000u
/* How long the counting loop runs: long against the timer's own error. */
#define COUNT_MS 60u

#define ANSWER_RUNS 0x5aa51234u
#define ANSWER_INT3 0x00000333u
#define FCW_AFTER_FNINIT 0x037fu
#define ANSWER_CMPXCHG16B 0x00c0ffeeu

#define OUT_AND_STAY 0xe7, TINY_GUEST_PORT, 0xeb, 0xfe

static const uint8_t code_runs[] = {
    0xb8,         0x34, 0x12, 0xa5, 0x5a, /* mov eax, ANSWER_RUNS */
    OUT_AND_STAY,
};

/* Two instructions a round; RAX counts the rounds. */
static const uint8_t code_count[] = {
    0x31, 0xc0,       /* xor eax, eax */
    0x48, 0xff, 0xc0, /* 1: inc rax */
    0xeb, 0xfb,       /* jmp 1b */
};

/* Saves the x87 state, whose first word is then the control word. */
static const uint8_t code_xsave[] = {
    0xdb,         0xe3,             /* fninit */
    0xb8,         0x01, 0,    0, 0, /* mov eax, 1 */
    0x31,         0xd2,             /* xor edx, edx */
    0x0f,         0xae, 0x27,       /* xsave [rdi] */
    0x0f,         0xb7, 0x07,       /* movzx eax, word [rdi] */
    OUT_AND_STAY,
};

/* Memory is 0 and so is RDX:RAX: RCX:RBX is stored, and read back. */
static const uint8_t code_cmpxchg16b[] = {
    0x31,         0xc0,                   /* xor eax, eax */
    0x31,         0xd2,                   /* xor edx, edx */
    0xbb,         0x01, 0,    0,    0,    /* mov ebx, 1 */
    0xb9,         0xee, 0xff, 0xc0, 0x00, /* mov ecx, ANSWER_CMPXCHG16B */
    0xf0,         0x48, 0x0f, 0xc7, 0x0f, /* lock cmpxchg16b [rdi] */
    0x8b,         0x47, 0x08,             /* mov eax, [rdi + 8] */
    OUT_AND_STAY,
};

/* Without the handler's answer the code after INT3 gives a wrong one. */
static const uint8_t code_int3[] = {
    0xcc,               /* int3 */
    0x31,         0xc0, /* xor eax, eax */
    OUT_AND_STAY, 0xb8, 0x33,
    0x03,         0x00, 0x00, /* handler: mov eax, ANSWER_INT3 */
    OUT_AND_STAY,
};
#define INT3_HANDLER 7u

/* Runs code that must answer with a certain value. */
static enum probe_result try_code(int kvm_fd, const struct tiny_guest_run *run,
                                  uint32_t expected)
{
    struct tiny_guest_result result;

    if (tiny_guest_run(kvm_fd, run, &result) < 0)
        return PROBE_FAILS;
    return result.answered && result.answer == expected ? PROBE_WORKS
                                                        : PROBE_FAILS;
}

static void probe_instructions(int kvm_fd, struct kvm_cpuid2 *cpuid,
                               struct monitor_probe *probe)
{
    const struct tiny_guest_run xsave = {
        .cpuid = cpuid,
        .code = code_xsave,
        .code_len = sizeof(code_xsave),
        .xsave = true,
        .timeout_ms = ANSWER_TIMEOUT_MS,
    };
    const struct tiny_guest_run cmpxchg16b = {
        .cpuid = cpuid,
        .code = code_cmpxchg16b,
        .code_len = sizeof(code_cmpxchg16b),
        .timeout_ms = ANSWER_TIMEOUT_MS,
    };
    const struct tiny_guest_run int3 = {
        .cpuid = cpuid,
        .code = code_int3,
        .code_len = sizeof(code_int3),
        .int3_offset = INT3_HANDLER,
        .timeout_ms = ANSWER_TIMEOUT_MS,
    };

    if (cpuid_offers_xsave(cpuid))
        probe->xsave = try_code(kvm_fd, &xsave, FCW_AFTER_FNINIT);
    probe->cmpxchg16b = try_code(kvm_fd, &cmpxchg16b, ANSWER_CMPXCHG16B);
    probe->int3 = try_code(kvm_fd, &int3, ANSWER_INT3);
}

static void probe_speed(int kvm_fd, struct kvm_cpuid2 *cpuid,
                        struct monitor_probe *probe)
{
    const struct tiny_guest_run count = {
        .cpuid = cpuid,
        .code = code_count,
        .code_len = sizeof(code_count),
        .timeout_ms = COUNT_MS,
    };
    struct tiny_guest_result result;

    if (tiny_guest_run(kvm_fd, &count, &result) < 0 || !result.timed_out)
        return;
    probe->cpl0_instructions_per_second =
        (uint64_t)((double)result.rax * 2.0 * 1e9 / (double)result.elapsed_ns);
}

/* 12 bytes of vendor, 48 of model: what the host's own CPUID says. */
static void probe_cpu_names(struct monitor_probe *probe)
{
    unsigned max, r[4];

    if (__get_cpuid(0, &max, &r[0], &r[2], &r[1])) { /* EBX, EDX, ECX */
        memcpy(probe->cpu_vendor, &r[0], 12);
        probe->cpu_vendor[12] = '\0';
    }
    for (unsigned i = 0; i < 3; i++) {
        if (!__get_cpuid(0x80000002u + i, &r[0], &r[1], &r[2], &r[3]))
            return;
        memcpy(probe->cpu_model + 16 * i, r, 16);
    }
    probe->cpu_model[48] = '\0';
}

static void probe_capabilities(int kvm_fd, struct monitor_probe *probe)
{
    int vcpus = kvm_extension(kvm_fd, KVM_CAP_MAX_VCPUS);

    if (vcpus <= 0)
        vcpus = kvm_extension(kvm_fd, KVM_CAP_NR_VCPUS);
    probe->vcpus_max = (uint32_t)vcpus;
    probe->immediate_exit = kvm_extension(kvm_fd, KVM_CAP_IMMEDIATE_EXIT) > 0;
    probe->irqfd = kvm_extension(kvm_fd, KVM_CAP_IRQFD) > 0;
    probe->ioeventfd = kvm_extension(kvm_fd, KVM_CAP_IOEVENTFD) > 0;
    probe->tsc_deadline = kvm_extension(kvm_fd, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    probe->dirty_log_ring = kvm_extension(kvm_fd, KVM_CAP_DIRTY_LOG_RING) > 0;
}

static void probe_stop(struct monitor_probe *probe, int error, const char *what)
{
    probe->error = error;
    snprintf(probe->text, sizeof(probe->text), "%s: %s", what,
             strerror(-error));
}

/* What KVM says of itself. 0, or why a guest need not be tried. */
static int probe_kvm(int kvm_fd, struct monitor_probe *probe)
{
    struct kvm_missing missing;
    int ret = kvm_ioctl_value(kvm_fd, KVM_GET_API_VERSION, 0);

    if (ret < 0) {
        probe_stop(probe, ret, "KVM_GET_API_VERSION");
        return ret;
    }
    probe->api_version = ret;
    ret = kvm_check(kvm_fd, &missing);
    for (unsigned i = 0; i < missing.count; i++)
        snprintf(probe->missing[i], sizeof(probe->missing[i]), "%s",
                 missing.names[i]);
    probe->missing_count = missing.count;
    probe_capabilities(kvm_fd, probe);
    return ret;
}

/* What a guest finds; everything else only if it runs at all. */
static void probe_guest(int kvm_fd, struct kvm_cpuid2 *cpuid,
                        struct monitor_probe *probe)
{
    const struct tiny_guest_run runs = {
        .cpuid = cpuid,
        .code = code_runs,
        .code_len = sizeof(code_runs),
        .timeout_ms = ANSWER_TIMEOUT_MS,
    };
    struct tiny_guest_result result;
    int ret = tiny_guest_run(kvm_fd, &runs, &result);

    if (ret < 0) {
        probe_stop(probe, ret, "a virtual machine cannot be made");
        return;
    }
    probe->guest_runs = result.answered && result.answer == ANSWER_RUNS
                            ? PROBE_WORKS
                            : PROBE_FAILS;
    if (probe->guest_runs != PROBE_WORKS)
        return;
    probe_speed(kvm_fd, cpuid, probe);
    probe_instructions(kvm_fd, cpuid, probe);
}

/* What a guest of ours would see. Changes the table into that guest's. */
static void probe_cpuid(int kvm_fd, struct kvm_cpuid2 *cpuid,
                        struct monitor_probe *probe)
{
    const struct cpuid_options options = {
        .cpu_count = 1,
        .tsc_deadline = probe->tsc_deadline,
        .xsave = cpuid_offers_xsave(cpuid) && xcr0_works(kvm_fd, cpuid),
    };

    if (cpuid_prepare(cpuid, &options) < 0)
        return;
    for (unsigned i = 0; i < PROBE_CPUID_WORDS; i++)
        probe->cpuid[i] = cpuid_word(cpuid, PROBE_CPUID[i].function,
                                     PROBE_CPUID[i].index, PROBE_CPUID[i].reg);
}

void probe_run(int kvm_fd, enum monitor_probe_depth depth,
               struct monitor_probe *ret_probe)
{
    struct kvm_cpuid2 *cpuid = NULL;
    int ret;

    *ret_probe = (struct monitor_probe){0};
    probe_cpu_names(ret_probe);
    if (probe_kvm(kvm_fd, ret_probe) < 0)
        return;
    ret = cpuid_get_supported(kvm_fd, &cpuid);
    if (ret < 0) {
        probe_stop(ret_probe, ret, "KVM_GET_SUPPORTED_CPUID");
        return;
    }
    ret_probe->svm_or_vmx_in_guest_cpuid = cpuid_offers_nested(cpuid);
    if (depth == MONITOR_PROBE_ALL)
        probe_guest(kvm_fd, cpuid, ret_probe);
    probe_cpuid(kvm_fd, cpuid, ret_probe);
    free(cpuid);
}
