/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot of a bare guest (tests/vm/bare), made by the monitor that is to be
 * measured, in two files without a name.
 */
#ifndef MICROSBX_BENCH_BARE_SNAPSHOT_H
#define MICROSBX_BENCH_BARE_SNAPSHOT_H

#include <stdint.h>

#include "vmm/vm_config.h"

struct snapshot {
    uint64_t bytes; /* of memory */
    int state_fd;   /* both opened for reading only */
    int memory_fd;
};

/*
 * Boots the guest, waits until it says something, pauses and saves it. Files
 * lie in dir. Ends the program with a sentence if anything fails.
 */
void snapshot_make(struct snapshot *s, const char *guest, uint64_t bytes,
                   const char *dir);
void snapshot_close(struct snapshot *s);

/*
 * A machine restored from it, with descriptors of its own (vm_config_fini) and
 * console_out_fd (taken).
 */
void snapshot_config(const struct snapshot *s, int console_out_fd,
                     struct vm_config *ret_config);

/*
 * What is measured takes milliseconds, and so does a turn of any other program:
 * from here on this one and all it starts go first, if we may say so.
 */
void go_first(void);

/* "WHAT: WHY" on standard error, and the end. */
void die(const char *what, const char *why) __attribute__((noreturn));

#endif
