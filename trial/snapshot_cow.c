/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a cow file's header and bitmap, which are untrusted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/num.h"
#include "trial/snapshot_internal.h"

bool snapshot_bit_get(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

void snapshot_bit_set(uint8_t *bits, uint64_t i)
{
    bits[i / 8] |= (uint8_t)(1u << (i % 8));
}

static int load(int fd, struct snapshot_cow *cow)
{
    uint8_t page[COW_FORMAT_HEADER_SIZE], want[COW_FORMAT_HEADER_SIZE];
    ssize_t n = io_pread_full(fd, page, sizeof(page), 0);
    uint64_t present;

    if (n < 0)
        return (int)n;
    cow_format_header(&cow->format, want);
    if (n != (ssize_t)sizeof(page) || memcmp(page, want, sizeof(page)) != 0)
        return -EBADMSG;
    n = io_pread_full(fd, cow->bits, cow->format.bits_len,
                      COW_FORMAT_HEADER_SIZE);
    if (n < 0)
        return (int)n;
    if ((uint64_t)n != cow->format.bits_len)
        return -EBADMSG;
    return cow_format_count(&cow->format, cow->bits, &present);
}

int snapshot_cow_load(int fd, uint64_t disk_bytes, struct snapshot_cow *ret_cow)
{
    struct snapshot_cow cow = {.fd = fd};
    struct snapshot_mark mark;
    int ret = cow_format_init(&cow.format, disk_bytes);

    if (ret == 0)
        ret = snapshot_mark_get(fd, &mark);
    if (ret == 0 && mark.size != cow.format.file_len)
        ret = -EBADMSG;
    if (ret != 0)
        return ret;
    cow.bits = malloc(cow.format.bits_len);
    ret = cow.bits ? load(fd, &cow) : -ENOMEM;
    if (ret != 0) {
        free(cow.bits);
        return ret;
    }
    *ret_cow = cow;
    return 0;
}

void snapshot_cow_fini(struct snapshot_cow *cow)
{
    free(cow->bits);
    cow->bits = NULL;
}

size_t snapshot_cow_cluster_len(const struct snapshot_cow *cow,
                                uint64_t cluster)
{
    return (size_t)num_min(COW_FORMAT_CLUSTER,
                           cow->format.disk_size -
                               cluster * COW_FORMAT_CLUSTER);
}
