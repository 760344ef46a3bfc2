/* SPDX-License-Identifier: Apache-2.0 */
/* The measuring guest's init; see the header. */
#include "bench/guest/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

double guest_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void sleep_for_ever(void)
{
    for (;;)
        pause();
}

void guest_die(const char *what)
{
    printf("bench failed: %s: %s\n", what, strerror(errno));
    sleep_for_ever();
    abort();
}

/* An initrd without /dev/console leaves init without descriptors. */
static void open_console(void)
{
    int fd;

    mkdir("/dev", 0755);
    if (mount("dev", "/dev", "devtmpfs", 0, NULL) < 0 && errno != EBUSY)
        sleep_for_ever();
    fd = open("/dev/console", O_RDWR);
    for (int i = 0; i <= 2; i++)
        dup2(fd, i);
    setvbuf(stdout, NULL, _IOLBF, 0);
}

int main(void)
{
    const char *what = getenv("bench");

    open_console();
    if (what && strcmp(what, "blk") == 0) {
        guest_measure_blk();
        puts("bench: done");
    } else if (what && strcmp(what, "vsock") == 0) {
        guest_serve_vsock();
    } else {
        puts("bench: ready");
    }
    sleep_for_ever();
}
