/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's options on the kernel command line, all named microsbx.*:
 *
 *     microsbx.init_line=1       print "microsbx: agent up" before all else
 *     microsbx.shell=1           a shell of the root file system on the console
 *     microsbx.term=xterm        TERM of that shell
 *     microsbx.rows=N .cols=N    its window size
 *     microsbx.scratch_limit=N   bytes of the scratch disk that may be used
 *     microsbx.compare=1         no agent: compare two disks (compare.h)
 *
 * The command line comes from the host and is trusted; what does not parse is
 * left at its default.
 */
#ifndef MICROSBX_GUEST_CMDLINE_H
#define MICROSBX_GUEST_CMDLINE_H

#include <stdbool.h>
#include <stdint.h>

struct cmdline {
    bool init_line;
    bool shell;
    bool compare;
    char term[64]; /* "" if not given */
    uint16_t rows, cols;
    uint64_t scratch_limit; /* 0: none */
};

void cmdline_parse(const char *text, struct cmdline *ret_options);

#endif
