/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can this host, and this request, restore that snapshot? Decided before
 * KVM_CREATE_VM from plain data.
 */
#ifndef MICROSBX_TRIAL_SNAPSHOT_COMPAT_H
#define MICROSBX_TRIAL_SNAPSHOT_COMPAT_H

#include "base/failure.h"
#include "trial/snapshot_manifest.h"

/*
 * What this host offers a guest, as the monitor's probe tells it: the words of
 * the CPUID table that a guest of ours would get (after the monitor's own
 * filter, so that features no guest sees do not matter), and the capabilities
 * on the monitor's lists that this KVM does not have. All borrowed.
 */
struct snapshot_host {
    const char *cpu_vendor;
    const char *cpu_model;
    uint32_t cpuid[SNAPSHOT_CPUID_WORDS]; /* what a guest would see */
    const char *const *kvm_missing;       /* NULL-ended names of capabilities */
    uint32_t page_size;
};

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
