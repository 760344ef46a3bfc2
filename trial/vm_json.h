/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.json: a machine in the shape Firecracker's users know.
 *
 *   { "boot-source":    {"kernel_image_path", "initrd_path"*, "boot_args"*},
 *     "drives":         [{"drive_id", "path_on_host", "is_read_only"*}],
 *     "machine-config": {"vcpu_count", "mem_size_mib"},
 *     "vsock":          {"guest_cid"*, "uds_path"},
 *     "entropy":        {} }
 *
 * Every part may be left out (* too). Strict: an unknown or repeated key, a
 * wrong type or a value out of range is refused, naming it and the nearest
 * valid spelling. A drive is opened read-write unless is_read_only (as
 * Firecracker does); "is_root_device" true is accepted for the first drive
 * only. guest_cid must be 3 or more; it is private to the machine. Relative
 * paths are relative to the current folder.
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
