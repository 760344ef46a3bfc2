/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tiny guests of tests/vm/bare/guests.S as kernel files that the monitor
 * loads: an ELF64 header around the code, in a memory file.
 */
#ifndef MICROSBX_TESTS_BARE_GUESTS_H
#define MICROSBX_TESTS_BARE_GUESTS_H

/* The descriptor (caller closes it), -ENOENT for an unknown name, -errno. */
int bare_guest_open(const char *name);

#endif
