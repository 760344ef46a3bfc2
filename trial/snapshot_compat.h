/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can this host, and this request, restore that snapshot? Decided before
 * KVM_CREATE_VM from plain data.
 */
#ifndef MICROSBX_TRIAL_SNAPSHOT_COMPAT_H
#define MICROSBX_TRIAL_SNAPSHOT_COMPAT_H

#include "base/failure.h"
#include "trial/snapshot_manifest.h"
#include "vmm/monitor_proto.h"

/* What this host offers a guest. All borrowed. */
struct snapshot_host {
    const char *cpu_vendor;
    const char *cpu_model;
    const uint32_t *cpuid; /* SNAPSHOT_CPUID_WORDS: what a guest would see */
    /* Capabilities the monitor asks for that this KVM does not have. */
    const char *kvm_missing[PROBE_MISSING_MAX + 1]; /* NULL-ended */
    uint32_t page_size;
};

/* From the monitor's probe, which must outlive it. */
void snapshot_host_init(struct snapshot_host *host,
                        const struct monitor_probe *probe);

/*
 * Writes into a manifest under way what a host must have: the CPU's names and
 * words, without what hide_rdrand hides (set it before), and the capabilities
 * that a restore needs. 0 or -ENOMEM.
 */
int snapshot_require_host(struct snapshot_manifest *m,
                          const struct monitor_probe *probe)
    __attribute__((warn_unused_result));

/*
 * The guest keeps using what it saw: the vendor must be the same, and no
 * feature bit or capability may be missing here; more is fine. 0, or
 * -EOPNOTSUPP with snapshot_cpu (naming the first missing feature),
 * snapshot_kvm or snapshot_page_size in *f; dir is the object.
 */
int snapshot_compatible(const struct snapshot_manifest *m, const char *dir,
                        const struct snapshot_host *host, struct failure *f)
    __attribute__((warn_unused_result));

/*
 * The user named an image as well: it must be the one the snapshot was made
 * of, by the SHA-256 of its image.json. 0, or -EINVAL with snapshot_image.
 */
int snapshot_same_image(const struct snapshot_manifest *m, const char *dir,
                        const char *image_name, const char *image_sha256,
                        struct failure *f) __attribute__((warn_unused_result));

#endif
