/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes one of the bare guests as a kernel file, for tests and measurements
 * that start whole programs.
 *
 *   bare_kernel NAME FILE
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "tests/bare_guests.h"

int main(int argc, char **argv)
{
    int guest, file;

    if (argc != 3) {
        fprintf(stderr, "usage: bare_kernel NAME FILE\n");
        return 2;
    }
    guest = bare_guest_open(argv[1]);
    if (guest < 0) {
        fprintf(stderr, "bare_kernel: %s: %s\n", argv[1], strerror(-guest));
        return 1;
    }
    file = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0 || sendfile(file, guest, NULL, 1 << 20) <= 0) {
        fprintf(stderr, "bare_kernel: %s: %s\n", argv[2], strerror(errno));
        return 1;
    }
    close(guest);
    return close(file) == 0 ? 0 : 1;
}
