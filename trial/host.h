/* SPDX-License-Identifier: Apache-2.0 */
/* Facts about this host that results and doctor state. Read, never guessed. */
#ifndef MICROSBX_TRIAL_HOST_H
#define MICROSBX_TRIAL_HOST_H

#include <stdbool.h>
#include <stddef.h>

/*
 * True inside the emulated host of scripts/kvmhost, or any other machine whose
 * own CPU is emulated by QEMU's TCG (it says so in CPUID leaf 0x40000000):
 * times measured there are not representative.
 */
bool host_is_emulated(void);

/* True if hardware threads share cores (side channels between trials). */
bool host_has_smt(void);

/* The CPU's model name, printable; "unknown" if the kernel does not say. */
void host_cpu_model(char *buf, size_t size);

/* First line of a small file without its newline: 0 or a negative errno. */
int host_read_line(const char *path, char *buf, size_t size)
    __attribute__((warn_unused_result));

#endif
