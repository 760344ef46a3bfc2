/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/stat and pidfds; see the header. */
#include "trial/process_look.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "trial/host.h"

/* proc_pid_stat(5): "pid (comm) state ppid ... starttime", numbered from 1. */
#define FIELD_STATE 3
#define FIELD_START 22

/* What can be told: false if nothing can be. */
static bool read_stat(pid_t pid, char *ret_state, uint64_t *ret_ticks)
{
    char path[40], line[1024], *at;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (host_read_line(path, line, sizeof(line)) != 0)
        return false;
    /* The name may hold blanks and brackets: behind its last one it goes on. */
    at = strrchr(line, ')');
    if (!at || at[1] != ' ' || at[2] == '\0')
        return false;
    at += 2;
    *ret_state = *at;
    for (int field = FIELD_STATE; at && field < FIELD_START; field++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    *ret_ticks = at ? strtoull(at, NULL, 10) : 0;
    return true;
}

uint64_t process_start_ticks(pid_t pid)
{
    uint64_t ticks = 0;
    char state;

    return read_stat(pid, &state, &ticks) ? ticks : 0;
}

enum process_look process_look(pid_t pid, uint64_t start_ticks)
{
    uint64_t ticks = 0;
    char state = 0;

    if (pid <= 0 || !read_stat(pid, &state, &ticks))
        return pid > 0 && (kill(pid, 0) == 0 || errno != ESRCH) ? PROCESS_THERE
                                                                : PROCESS_GONE;
    if ((start_ticks != 0 && ticks != start_ticks) || state == 'Z' ||
        state == 'X')
        return PROCESS_GONE;
    /* Not 't': a tracer holds it for moments, and lets it go on. */
    return state == 'T' ? PROCESS_STOPPED : PROCESS_THERE;
}

int process_kill(pid_t pid, uint64_t start_ticks)
{
    int fd = pid > 1 ? pidfd_open(pid, 0) : -1;
    int ret = 0;

    if (fd < 0)
        return pid > 1 ? -errno : -ESRCH;
    /* What is looked at now is what the descriptor holds, or that is gone. */
    if (process_look(pid, start_ticks) == PROCESS_GONE)
        ret = -ESRCH;
    else if (pidfd_send_signal(fd, SIGKILL, NULL, 0) != 0)
        ret = -errno;
    close(fd);
    return ret;
}
