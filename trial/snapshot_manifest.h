/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot's manifest: what the frozen machine is and the digests of every
 * file of the snapshot. Plain data, one writer, one strict reader; no file is
 * touched here.
 *
 * A snapshot is a directory, published by one rename and never changed after:
 *
 *   manifest.json    canonical JSON: this file's business
 *   manifest.sha256  64 hex digits and a newline: the SHA-256 of manifest.json,
 *                    which is the snapshot's id
 *   state            devices and registers (vmm/state_file.h)
 *   memory           guest RAM, sparse (a diff: changed pages only)
 *   disk-ID.cow      changed clusters of each cow disk (base/cow_format.h; a
 *                    diff: those changed since the parent only)
 *   base-ID          what the disk started from, if it was stored
 *   leaves           SHA-256 of each chunk of the machine's memory and disks
 *   memory.map       diffs: bit i % 8 of byte i / 8 is set if page i is in
 *                    "memory"; else it is the parent's
 *   disk-ID.map      diffs: the same for the clusters of disk-ID.cow
 *
 * "Canonical": keys sorted by byte value, no white space, whole numbers only,
 * one newline at the end. Format "microsbx.snapshot/1":
 *
 *   { "schema": "microsbx.snapshot/1",
 *     "agent": BOOL,                         the guest has our agent
 *     "chunk": 1048576,                      bytes a leaf covers
 *     "cpu": {"features": {"1.ecx": "fffa3203", ...},   what the guest saw
 *             "model", "vendor"},
 *     "files": {"memory": {"bytes", "tree"}, "state": {"bytes", "sha256"},
 *               ...},                        every file but the manifest's two
 *     "image": {"env": {"NAME": "value"}, "name", "sha256" (of image.json),
 *               "user": STR|null, "workdir": STR|null} | null,
 *     "kernel": {"release": STR|null, "sha256"},
 *     "kvm": {"needed": ["KVM_CAP_...", ...]},
 *     "machine": {"cmdline", "cpus", "debug_exit": BOOL,
 *                 "disks": [{"base": {"bytes", "data", "sha256",
 *                                     "stored": BOOL},
 *                            "id", "limit", "mode": "cow"|"ro"}],
 *                 "guest_cid": NUM|null (null: no vsock device),
 *                 "hide_rdrand": BOOL, "memory_bytes",
 *                 "platform": "acpi"|"device-tree", "version": 1},
 *     "memory": {"pages", "used"},           that hold data; guest's use, bytes
 *     "page_size": 4096,
 *     "parent": {"id", "root"} | null,       of which this is a diff
 *     "pinned": {"window_ms"} | null,
 *     "root": HEX,
 *     "warmup": {"command": [STR], "ready": STR|null, "waiting": BOOL} | null }
 *
 * Digests. A leaf is the SHA-256 of one chunk of 1 MiB (the last one of a file
 * may be shorter). A "tree" is the Merkle root over the leaves of one file, as
 * in RFC 6962, 2.1, except that a leaf is the plain digest: an inner node is
 * SHA-256(0x01 | left | right), and the left side holds the largest power of
 * two of leaves that is smaller than all. `leaves` holds, 32 bytes each, the
 * leaves of the memory, then for each disk in order those of its base and then,
 * for cow, those of its cow file, all as of a snapshot without parent: a diff's
 * are those of the files it is flattened to. "root" is the Merkle root over
 * all of `leaves`. A base's "sha256" is that of its first "data" bytes, behind
 * which it is zero (as in image.json), so that it can be found by it.
 *
 * Nothing in it names the host, its paths or its users: what strings there are
 * come from the image, from the guest, or are the warm-up's own command.
 */
#ifndef MICROSBX_TRIAL_SNAPSHOT_MANIFEST_H
#define MICROSBX_TRIAL_SNAPSHOT_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "vmm/monitor_proto.h"
#include "vmm/vm_config.h"

#define SNAPSHOT_SCHEMA "microsbx.snapshot/1"
#define SNAPSHOT_MACHINE_VERSION 1u /* of kvm.md's machine map */
#define SNAPSHOT_PAGE 4096u
#define SNAPSHOT_CHUNK ((uint64_t)1 << 20)
#define SNAPSHOT_MANIFEST_MAX (1024u * 1024u) /* bytes of manifest.json */
#define SNAPSHOT_STATE_MAX ((uint64_t)4 << 20)
#define SNAPSHOT_DISK_MAX ((uint64_t)1 << 40)
#define SNAPSHOT_NAME_MAX 63u /* a file's name, without the NUL */
/* state, memory, memory.map, leaves; cow, map and base of each disk */
#define SNAPSHOT_FILES_MAX (4u + 3u * VM_DISKS_MAX)
#define SNAPSHOT_STRING_MAX 4096u /* any string */
#define SNAPSHOT_STRINGS_MAX 256u /* of one list: command, environment */
#define SNAPSHOT_ERR_MAX 512u     /* room that no message exceeds */

/* The CPUID words that are compared: those of the monitor's probe. */
enum snapshot_cpuid {
    SNAPSHOT_CPUID_1_ECX,
    SNAPSHOT_CPUID_1_EDX,
    SNAPSHOT_CPUID_7_EBX,
    SNAPSHOT_CPUID_7_ECX,
    SNAPSHOT_CPUID_7_EDX,
    SNAPSHOT_CPUID_7_1_EAX,
    SNAPSHOT_CPUID_D_EAX,   /* XCR0 bits */
    SNAPSHOT_CPUID_D_1_EAX, /* XSAVEOPT, XSAVEC, ... */
    SNAPSHOT_CPUID_80000001_ECX,
    SNAPSHOT_CPUID_80000001_EDX,
    SNAPSHOT_CPUID_80000008_EBX,
    SNAPSHOT_CPUID_KVM_EAX, /* 0x40000001: KVM's own features */
    SNAPSHOT_CPUID_WORDS,
};

_Static_assert((unsigned)SNAPSHOT_CPUID_WORDS == PROBE_CPUID_WORDS,
               "the words of the probe");

/* One of a file's name and digest; exactly one kind of digest. */
struct snapshot_file {
    char name[SNAPSHOT_NAME_MAX + 1];
    uint64_t bytes;
    bool tree;                    /* else a plain SHA-256 of all its bytes */
    char digest[DIGEST_HEX_SIZE]; /* hex */
};

struct snapshot_disk {
    char id[VM_DISK_ID_MAX + 1]; /* no two alike */
    enum vm_disk_mode mode;      /* VM_DISK_RO or VM_DISK_COW */
    uint64_t limit;              /* cow: overlay_limit */
    uint64_t bytes;              /* size of the disk */
    uint64_t data;               /* sha256 covers these; zeros follow */
    char sha256[DIGEST_HEX_SIZE];
    bool stored; /* base-ID is in this snapshot */
};

/* Strings and lists are owned; snapshot_manifest_fini frees them. */
struct snapshot_manifest {
    /* machine */
    uint64_t memory_bytes;
    uint32_t cpus;
    enum vm_platform platform;
    char cmdline[VM_CMDLINE_MAX + 1];
    bool hide_rdrand, debug_exit, vsock;
    uint64_t guest_cid; /* if vsock */
    uint32_t disk_count;
    struct snapshot_disk disks[VM_DISKS_MAX];
    /* cpu, kvm: what a host must have */
    char cpu_vendor[13];
    char cpu_model[49];
    uint32_t cpuid[SNAPSHOT_CPUID_WORDS];
    char **kvm_needed; /* NULL-ended, or NULL */
    uint32_t page_size;
    /* kernel, image */
    char kernel_sha256[DIGEST_HEX_SIZE];
    char *kernel_release; /* or NULL */
    bool has_image;
    char *image_name; /* with has_image; user and workdir may be NULL */
    char image_sha256[DIGEST_HEX_SIZE];
    char *user;
    char *workdir;
    char **env; /* NAME=value, NULL-ended, or NULL */
    /* how it was made */
    bool agent;
    bool has_warmup;
    char **warmup;      /* command, NULL-ended; with has_warmup */
    char *warmup_ready; /* or NULL */
    bool warmup_waiting;
    bool pinned;
    uint64_t window_ms; /* if pinned */
    uint64_t memory_pages;
    uint64_t memory_used;
    /* digests: filled by snapshot_writer_finish */
    uint32_t file_count;
    struct snapshot_file files[SNAPSHOT_FILES_MAX]; /* sorted by name */
    char root[DIGEST_HEX_SIZE];
    bool has_parent;
    char parent_id[DIGEST_HEX_SIZE];
    char parent_root[DIGEST_HEX_SIZE];
};

/* No strings, no lists, page_size set; everything else 0. */
void snapshot_manifest_init(struct snapshot_manifest *m);
/* Frees and initialises again. A zeroed struct is fine. */
void snapshot_manifest_fini(struct snapshot_manifest *m);

/*
 * Copies a string, or a NULL-ended list, into an owned field (what was there
 * is freed; NULL empties it): 0 or -ENOMEM.
 */
int snapshot_manifest_set(char **field, const char *value)
    __attribute__((warn_unused_result));
int snapshot_manifest_set_list(char ***field, const char *const *values)
    __attribute__((warn_unused_result));

/*
 * The canonical text (caller frees): 0, -ENOMEM, or -EINVAL with a clause in
 * err if the manifest is one that the reader would refuse.
 */
int snapshot_manifest_encode(const struct snapshot_manifest *m, char **ret_text,
                             size_t *ret_len, char err[SNAPSHOT_ERR_MAX])
    __attribute__((warn_unused_result));

/*
 * The strict reader; the bytes need no NUL and may be anything. An unknown,
 * repeated or missing key, a wrong type or range, files that do not fit the
 * machine (exactly those that the machine's disks and a parent ask for), text
 * that is not canonical: refused. On success the caller owns *ret_m. Returns 0;
 * -EPROTONOSUPPORT (another schema or machine version), -EBADMSG or -ENOMEM,
 * with a clause in err (one line, safe to print), and *ret_m untouched.
 */
int snapshot_manifest_parse(const char *text, size_t len,
                            struct snapshot_manifest *ret_m,
                            char err[SNAPSHOT_ERR_MAX])
    __attribute__((warn_unused_result));

/* The file of that name, or NULL. */
const struct snapshot_file *
snapshot_manifest_file(const struct snapshot_manifest *m, const char *name);

/* The disk of that id, or NULL. */
const struct snapshot_disk *
snapshot_manifest_disk(const struct snapshot_manifest *m, const char *id);

/* The manifest's name of a CPUID word: "7.ebx". */
const char *snapshot_cpuid_name(enum snapshot_cpuid word);

#endif
