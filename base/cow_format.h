/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file format of a copy-on-write overlay, which is also that of a
 * snapshot's disk-ID.cow: where things lie, and nothing that touches a file.
 *
 *   0            header page: magic "MSBXCOW1", u32 version, u32 cluster size,
 *                u64 disk size, u64 data start; the rest zero; little-endian
 *   4096         bitmap: bit i % 8 of byte i / 8 is set if cluster i is here
 *   data start   (next multiple of the cluster size) cluster i at + i * 64 KiB
 *
 * The file has its full length from the start and is sparse. All of the header
 * follows from the size of the disk.
 */
#ifndef MICROSBX_BASE_COW_FORMAT_H
#define MICROSBX_BASE_COW_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#define COW_FORMAT_HEADER_SIZE 4096u
#define COW_FORMAT_VERSION 1u
#define COW_FORMAT_CLUSTER 65536u
/* Largest disk: its bitmap is 32 MiB. */
#define COW_FORMAT_DISK_MAX ((uint64_t)16 << 40)

struct cow_format {
    uint64_t disk_size;
    uint64_t clusters; /* the last one may be shorter */
    uint64_t bits_len; /* bytes of the bitmap */
    uint64_t data_start;
    uint64_t file_len;
};

/*
 * The layout for a disk of that size: 0; -EINVAL (0, or no multiple of 512) or
 * -EFBIG (beyond COW_FORMAT_DISK_MAX).
 */
int cow_format_init(struct cow_format *f, uint64_t disk_size)
    __attribute__((warn_unused_result));

/* The one header page a valid file can have: to write, or to compare with. */
void cow_format_header(const struct cow_format *f,
                       uint8_t ret_page[COW_FORMAT_HEADER_SIZE]);

/*
 * Checks a bitmap and counts what is present: 0, or -EBADMSG for a bit beyond
 * the last cluster.
 */
int cow_format_count(const struct cow_format *f, const uint8_t *bits,
                     uint64_t *ret_present) __attribute__((warn_unused_result));

#endif
