/* SPDX-License-Identifier: Apache-2.0 */
/* The guest that compares two disks, from its disks to its answer. */
#include <errno.h>
#include <sys/klog.h>
#include <termios.h>
#include <unistd.h>

#include "guest/boot.h"
#include "guest/compare.h"

#define SYSLOG_CONSOLE_OFF 6 /* syslog(2): only emergencies from now on */

static int say(void *ctx, const struct proto_compare *m)
{
    static char line[PROTO_COMPARE_LINE_MAX];
    size_t len = proto_compare_format(m, line);

    (void)ctx;
    for (size_t done = 0; done < len;) {
        ssize_t n = write(STDOUT_FILENO, line + done, len - done);

        if (n < 0 && errno != EINTR)
            return -errno;
        done += n < 0 ? 0 : (size_t)n;
    }
    return 0;
}

void compare_on_console(void)
{
    static struct proto_compare m;
    struct compare_side sides[2];
    int ret = boot_mount_compared(sides);

    /* A message of the kernel in the middle of a line would spoil the answer;
       the newline ends what it has begun. */
    (void)!klogctl(SYSLOG_CONSOLE_OFF, NULL, 0);
    (void)!write(STDOUT_FILENO, "\n", 1);
    m.kind = PROTO_COMPARE_BEGIN;
    if (say(NULL, &m) != 0)
        return;
    if (ret == 0)
        ret = compare_trees(sides, say, NULL, &m.count);
    m.kind = ret == 0 ? PROTO_COMPARE_END : PROTO_COMPARE_FAILED;
    m.err = (uint32_t)-ret;
    (void)say(NULL, &m);
    (void)tcdrain(STDOUT_FILENO);
}
