/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's own process; see the header. */
#include "vmm/process.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/io.h"
#include "base/signals.h"
#include "base/standard_fds.h"
#include "vmm/monitor_proto.h"

/* The files of a save, and as many for one more message and what it opens. */
#define FDS_RESERVED (2u * MONITOR_SAVE_FDS_MAX)

int process_confine(void)
{
    const struct rlimit no_core = {0};

    /* Else a descriptor of the machine's would become one of them. */
    if (!standard_fds_are_open())
        return -EBADF;
    /* A harness that died before this line is noticed by its closed socket. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return -errno;
    /* No core file, no ptrace: guest memory and descriptors stay in here. */
    if (prctl(PR_SET_DUMPABLE, 0) < 0 || setrlimit(RLIMIT_CORE, &no_core) < 0)
        return -errno;
    if (close_range(MONITOR_SOCKET_FD + 1, ~0u, 0) < 0)
        return -errno;
    /* One heap for all threads: an arena each would cost more than we use. */
    (void)mallopt(M_ARENA_MAX, 1);
    /* A guest's connections cost a descriptor each (VSOCK_CONNS_MAX). */
    if (io_raise_fd_limit() < 0)
        return -errno;
    /* The harness decides when we end, and is told by its own signals. */
    return signals_ignore_group();
}

int process_fd_end(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur > INT_MAX)
        return INT_MAX;
    /* With next to none at all, connections are worth as much as the rest. */
    return files.rlim_cur > 4 * FDS_RESERVED
               ? (int)(files.rlim_cur - FDS_RESERVED)
               : (int)files.rlim_cur;
}
