/* SPDX-License-Identifier: Apache-2.0 */
/* Facts about this host that results and doctor state. Read, never guessed. */
#ifndef MICROSBX_TRIAL_HOST_H
#define MICROSBX_TRIAL_HOST_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Who emulates this host's CPU: "QEMU TCG" (as in scripts/kvmhost), "Bochs" (as
 * in scripts/vmxhost); NULL if nobody known does. Times measured in an emulated
 * host are not representative.
 */
const char *host_emulator(void);
bool host_is_emulated(void);

/* True if hardware threads share cores (side channels between trials). */
bool host_has_smt(void);

/* The CPU's model name, printable; "unknown" if the kernel does not say. */
void host_cpu_model(char *buf, size_t size);

/* First line of a small file without its newline: 0 or a negative errno. */
int host_read_line(const char *path, char *buf, size_t size)
    __attribute__((warn_unused_result));

#endif
