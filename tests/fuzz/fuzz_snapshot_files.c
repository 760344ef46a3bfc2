/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the reader of the answer of a machine that compares disks: any bytes,
 * as one line and as a whole answer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "trial/snapshot_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_line(const char *line, size_t len)
{
    static char again[PROTO_COMPARE_LINE_MAX];
    static struct proto_compare m;
    size_t n;

    if (proto_compare_parse(line, len, &m) != 0)
        return;
    /* What is taken is what the writer writes. */
    n = proto_compare_format(&m, again);
    if (n != len + 1 || memcmp(again, line, len) != 0)
        abort();
}

static void check_entry(void *ctx, const struct proto_compare *m)
{
    (*(uint32_t *)ctx)++;
    if (m->path_len == 0 || m->path_len >= PROTO_PATH_MAX ||
        m->path[0] != '/' || strlen(m->path) != m->path_len)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t count = 0, seen = 0;
    int fd, ret;

    check_line((const char *)data, size);
    fd = memfd_create("answer", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    ret = snapshot_files_read(fd, check_entry, &seen, &count);
    if ((ret == 0 && count != seen) || (ret < 0 && ret != -EBADMSG))
        abort();
    close(fd);
    return 0;
}
