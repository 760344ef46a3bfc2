/* SPDX-License-Identifier: Apache-2.0 */
/* Layout of an overlay file; see the header. */
#include "base/cow_format.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"

#define SECTOR_SIZE 512u

/* Offsets in the header page. */
#define HDR_MAGIC 0u
#define HDR_VERSION 8u
#define HDR_CLUSTER_SIZE 12u
#define HDR_DISK_SIZE 16u
#define HDR_DATA_START 24u

static const char magic[8] = {'M', 'S', 'B', 'X', 'C', 'O', 'W', '1'};

int cow_format_init(struct cow_format *f, uint64_t disk_size)
{
    if (disk_size == 0 || disk_size % SECTOR_SIZE != 0)
        return -EINVAL;
    if (disk_size > COW_FORMAT_DISK_MAX)
        return -EFBIG;
    f->disk_size = disk_size;
    f->clusters = (disk_size + COW_FORMAT_CLUSTER - 1) / COW_FORMAT_CLUSTER;
    f->bits_len = (f->clusters + 7) / 8;
    f->data_start =
        num_align_up(COW_FORMAT_HEADER_SIZE + f->bits_len, COW_FORMAT_CLUSTER);
    f->file_len = f->data_start + disk_size;
    return 0;
}

void cow_format_header(const struct cow_format *f,
                       uint8_t ret_page[COW_FORMAT_HEADER_SIZE])
{
    memset(ret_page, 0, COW_FORMAT_HEADER_SIZE);
    memcpy(ret_page + HDR_MAGIC, magic, sizeof(magic));
    num_put_le32(ret_page + HDR_VERSION, COW_FORMAT_VERSION);
    num_put_le32(ret_page + HDR_CLUSTER_SIZE, COW_FORMAT_CLUSTER);
    num_put_le64(ret_page + HDR_DISK_SIZE, f->disk_size);
    num_put_le64(ret_page + HDR_DATA_START, f->data_start);
}

int cow_format_count(const struct cow_format *f, const uint8_t *bits,
                     uint64_t *ret_present)
{
    unsigned spare = (unsigned)(f->bits_len * 8 - f->clusters);
    uint64_t present = 0;

    if (spare > 0 && bits[f->bits_len - 1] >> (8 - spare) != 0)
        return -EBADMSG;
    for (uint64_t i = 0; i < f->bits_len; i++)
        present += (uint64_t)__builtin_popcount(bits[i]);
    *ret_present = present;
    return 0;
}
