/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the reader of archives. The first byte says what the rest is: 0, a
 * file as it is; else the frames inside, which are compressed here, so that the
 * fuzzer can get behind zlib's checksum.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "trial/snapshot_archive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

/* A file in memory that is the archive. */
static int make_archive(const uint8_t *data, size_t size, bool raw)
{
    int fd = memfd_create("archive", MFD_CLOEXEC);
    uLongf len = compressBound(size);
    uint8_t *packed = malloc(len);

    require(fd >= 0 && packed != NULL);
    if (raw) {
        require(write(fd, data, size) == (ssize_t)size);
    } else {
        require(compress2(packed, &len, data, size, 0) == Z_OK);
        require(write(fd, "MSBXARC1\x01\0\0\0", 12) == 12);
        require(write(fd, packed, len) == (ssize_t)len);
    }
    free(packed);
    return fd;
}

/* Imports into a folder of its own; what is refused leaves nothing there. */
static void import(const char *archive)
{
    static const struct snapshot_archive_options none = {.cancelled = NULL};
    char folder[] = "/dev/shm/microsbx-fuzz-XXXXXX";
    char out[64], command[128], id[DIGEST_HEX_SIZE];
    struct failure f = {.code = ""};

    require(mkdtemp(folder) != NULL);
    snprintf(out, sizeof(out), "%s/out", folder);
    if (snapshot_import(archive, out, &none, id, &f) == 0) {
        snprintf(command, sizeof(command), "rm -r %s", out);
        require(system(command) == 0);
    } else {
        require(f.code[0] != '\0' && f.message[0] != '\0');
    }
    require(rmdir(folder) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char archive[64];
    int fd;

    if (size == 0)
        return 0;
    /* No place for stamps. */
    (void)unsetenv("XDG_CACHE_HOME");
    (void)unsetenv("HOME");
    fd = make_archive(data + 1, size - 1, data[0] == 0);
    snprintf(archive, sizeof(archive), "/proc/self/fd/%d", fd);
    import(archive);
    close(fd);
    return 0;
}
