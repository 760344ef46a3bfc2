/* SPDX-License-Identifier: Apache-2.0 */
/* Signals for groups of processes; see the header. */
#include "base/signals.h"

#include <errno.h>
#include <signal.h>

#include "base/num.h"

/*
 * SIGUSR1 and SIGUSR2: what batch systems warn with. SIGPWR: of init. SIGXCPU
 * is none of these: that limit is each process's own.
 */
static const int group_signals[] = {
    SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
    SIGTSTP, SIGTTIN, SIGTTOU, SIGPWR,  SIGPIPE, SIGXFSZ,
};

int signals_ignore_group(void)
{
    const struct sigaction action = {.sa_handler = SIG_IGN};

    for (size_t i = 0; i < ARRAY_SIZE(group_signals); i++)
        if (sigaction(group_signals[i], &action, NULL) < 0)
            return -errno;
    return 0;
}
