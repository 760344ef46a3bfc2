/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.json: a machine in the shape Firecracker's users know.
 *
 *   { "boot-source":    {"kernel_image_path", "initrd_path"*, "boot_args"*},
 *     "drives":         [{"drive_id", "path_on_host", "is_read_only"*,
 *                         "is_root_device"*, "partuuid"*, "cache_type"*}],
 *     "machine-config": {"vcpu_count", "mem_size_mib"},
 *     "vsock":          {"guest_cid"*, "uds_path"},
 *     "entropy":        {} }
 *
 * Every part may be left out (* too) or null. A drive is opened read-write
 * unless is_read_only (as Firecracker does); "is_root_device" may be true for
 * the first drive, which the kernel then is told (root=, by partuuid if there
 * is one) unless boot_args does. guest_cid must be 3 or more; it is private to
 * the machine. Relative paths are relative to the current folder.
 *
 * Firecracker's other keys are taken where they ask for what is so here anyway
 * ("smt": false, "huge_pages": "None", "io_engine": "Sync", no network
 * interfaces, ...; "track_dirty_pages" either way) and refused with the reason
 * where not. Strict beyond that: an unknown or repeated key, a wrong type or a
 * value out of range is refused, naming it and the nearest valid spelling.
 */
#ifndef MICROSBX_TRIAL_VM_JSON_H
#define MICROSBX_TRIAL_VM_JSON_H

#include <stddef.h>

#include "base/failure.h"
#include "trial/machine_spec.h"

#define VM_JSON_MAX 65536u /* bytes of the file */

/* Reads the file into spec: 0, or a negative errno with *f filled. */
int vm_json_read(const char *path, struct machine_spec *spec, struct failure *f)
    __attribute__((warn_unused_result));

/* The parser alone: bytes that may be anything. name is for messages. */
int vm_json_parse(const char *text, size_t len, const char *name,
                  struct machine_spec *spec, struct failure *f)
    __attribute__((warn_unused_result));

#endif
