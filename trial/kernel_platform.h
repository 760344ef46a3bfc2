/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which description of the machine a kernel can read: ACPI tables, a device
 * tree, or neither. Found by what only the code for it has in it; the file is
 * the user's and trusted, and nothing of it is interpreted.
 */
#ifndef MICROSBX_TRIAL_KERNEL_PLATFORM_H
#define MICROSBX_TRIAL_KERNEL_PLATFORM_H

#include "base/failure.h"
#include "vmm/vm_config.h"

/*
 * Chooses for the kernel in fd (path names it): ACPI where the kernel reads
 * that, else a device tree. Both at once are for no kernel: one that knows both
 * would find everything twice. A bzImage is compressed and taken for a
 * distribution's: ACPI; an ELF file that is no Linux gets a device tree. 0, or
 * -errno and *f: the kernel reads neither, or the file cannot be read.
 */
int kernel_choose_platform(int fd, const char *path,
                           enum vm_platform *ret_platform, struct failure *f)
    __attribute__((warn_unused_result));

#endif
