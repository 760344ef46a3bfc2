/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An empty ext4; see the header. Offsets are those of the kernel's
 * Documentation/filesystems/ext4 (super.rst, group_descr.rst, inodes.rst).
 *
 *     block 0      superblock (at byte 1024)
 *     1 ...        group descriptors
 *     ...          block bitmaps, one block a group
 *     ...          inode bitmaps, one block a group
 *     ...          inode tables
 *     root, lost   the two directories there are
 *     ...          free
 */
#include "guest/mkfs.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 4096u
#define GROUP_BLOCKS (8u * BLOCK) /* as many as a block has bits */
#define GROUP_INODES_MAX (8u * BLOCK)
#define DESC 32u
#define INODE 256u
#define INODE_EXTRA 32u /* bytes of an inode beyond the first 128 in use */
#define SUPER 1024u     /* where the superblock is, and its size */

#define ROOT_INODE 2u
#define FIRST_INODE 11u /* the first that is not reserved: lost+found */
#define MAGIC 0xef53u
#define EXTENT_MAGIC 0xf30au

#define COMPAT 0x228u   /* ext_attr, dir_index, sparse_super2 */
#define INCOMPAT 0x242u /* filetype, extents, flex_bg */
/* sparse_super, large_file, huge_file, dir_nlink, extra_isize */
#define RO_COMPAT 0x6bu

/* Nothing tells one trial's disk from another's. */
static const char UUID[16] = {'m', 'i', 'c', 'r', 'o', 's', 'b', 'x',
                              ' ', 's', 'c', 'r', 'a', 't', 'c', 'h'};

struct layout {
    uint32_t blocks, groups;
    uint32_t group_inodes, table_blocks; /* a group's */
    uint32_t block_bitmaps, inode_bitmaps, tables, root, lost, free;
};

static void put16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *p, uint32_t value)
{
    put16(p, value);
    put16(p + 2, value >> 16);
}

static uint32_t get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static uint32_t divide_up(uint32_t n, uint32_t by)
{
    return (n + by - 1) / by;
}

static struct layout lay_out(uint64_t bytes)
{
    struct layout l = {.blocks = (uint32_t)(bytes / BLOCK)};
    uint32_t inodes = (uint32_t)(bytes / MKFS_INODE_BYTES);
    const uint32_t step = BLOCK / INODE; /* whole blocks of a table */

    if (inodes > MKFS_INODES_MAX)
        inodes = MKFS_INODES_MAX;
    l.groups = divide_up(l.blocks, GROUP_BLOCKS);
    l.table_blocks = divide_up(divide_up(inodes, l.groups), step);
    l.group_inodes = l.table_blocks * step;
    l.block_bitmaps = 1 + divide_up(l.groups * DESC, BLOCK);
    l.inode_bitmaps = l.block_bitmaps + l.groups;
    l.tables = l.inode_bitmaps + l.groups;
    l.root = l.tables + l.groups * l.table_blocks;
    l.lost = l.root + 1;
    l.free = l.lost + 1;
    return l;
}

static int write_block(int fd, uint32_t block, const uint8_t bytes[BLOCK])
{
    size_t done = 0;

    while (done < BLOCK) {
        ssize_t n = pwrite(fd, bytes + done, BLOCK - done,
                           (off_t)block * BLOCK + (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

/* ---- bitmaps ------------------------------------------------------------ */

static void set_bits(uint8_t map[BLOCK], uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        map[i / 8] = (uint8_t)(map[i / 8] | 1u << i % 8);
}

/* Of count bits from first on, how many are below end. */
static uint32_t below(uint32_t end, uint32_t first, uint32_t count)
{
    if (end <= first)
        return 0;
    return end - first < count ? end - first : count;
}

/* Bits of what is not there count as used. */
static int write_bitmaps(int fd, const struct layout *l, uint32_t group)
{
    uint32_t first = group * GROUP_BLOCKS;
    uint8_t map[BLOCK] = {0};
    int ret;

    set_bits(map, 0, below(l->free, first, GROUP_BLOCKS));
    set_bits(map, below(l->blocks, first, GROUP_BLOCKS), GROUP_BLOCKS);
    ret = write_block(fd, l->block_bitmaps + group, map);
    memset(map, 0, sizeof(map));
    if (group == 0)
        set_bits(map, 0, FIRST_INODE);
    set_bits(map, l->group_inodes, GROUP_INODES_MAX);
    return ret ? ret : write_block(fd, l->inode_bitmaps + group, map);
}

/* ---- group descriptors -------------------------------------------------- */

static void put_descriptor(uint8_t *p, const struct layout *l, uint32_t group)
{
    uint32_t first = group * GROUP_BLOCKS;
    uint32_t used = below(l->free, first, GROUP_BLOCKS);

    put32(p, l->block_bitmaps + group);
    put32(p + 4, l->inode_bitmaps + group);
    put32(p + 8, l->tables + group * l->table_blocks);
    put16(p + 12, below(l->blocks, first, GROUP_BLOCKS) - used);
    put16(p + 14, l->group_inodes - (group == 0 ? FIRST_INODE : 0));
    put16(p + 16, group == 0 ? 2 : 0); /* directories */
}

static int write_descriptors(int fd, const struct layout *l)
{
    const uint32_t each = BLOCK / DESC;
    int ret = 0;

    for (uint32_t group = 0; ret == 0 && group < l->groups; group += each) {
        uint8_t bytes[BLOCK] = {0};

        for (uint32_t i = 0; i < each && group + i < l->groups; i++)
            put_descriptor(bytes + (size_t)i * DESC, l, group + i);
        ret = write_block(fd, 1 + group / each, bytes);
    }
    return ret;
}

/* ---- the two directories ------------------------------------------------ */

/* One block of a directory, at block. */
static void put_inode(uint8_t *table, uint32_t inode, uint32_t mode,
                      uint32_t links, uint32_t block)
{
    uint8_t *p = table + (size_t)(inode - 1) * INODE;
    uint8_t *extents = p + 40;

    put16(p, mode);
    put32(p + 4, BLOCK); /* size */
    put16(p + 26, links);
    put32(p + 28, BLOCK / 512);
    put32(p + 32, 0x80000); /* has extents */
    put16(extents, EXTENT_MAGIC);
    put16(extents + 2, 1);      /* of */
    put16(extents + 4, 4);      /* that fit */
    put16(extents + 12 + 4, 1); /* block long */
    put32(extents + 12 + 8, block);
    put16(p + 128, INODE_EXTRA);
}

static uint32_t put_entry(uint8_t *p, uint32_t inode, uint32_t length,
                          const char *name)
{
    put32(p, inode);
    put16(p + 4, length);
    p[6] = (uint8_t)strlen(name);
    p[7] = 2; /* a directory */
    memcpy(p + 8, name, strlen(name));
    return length;
}

static int write_directories(int fd, const struct layout *l)
{
    uint8_t bytes[BLOCK] = {0};
    uint32_t used;
    int ret;

    put_inode(bytes, ROOT_INODE, 040755, 3, l->root);
    put_inode(bytes, FIRST_INODE, 040700, 2, l->lost);
    ret = write_block(fd, l->tables, bytes);
    if (ret)
        return ret;
    memset(bytes, 0, sizeof(bytes));
    used = put_entry(bytes, FIRST_INODE, 12, ".");
    put_entry(bytes + used, ROOT_INODE, BLOCK - used, "..");
    ret = write_block(fd, l->lost, bytes);
    if (ret)
        return ret;
    used = put_entry(bytes, ROOT_INODE, 12, ".");
    used += put_entry(bytes + used, ROOT_INODE, 12, "..");
    put_entry(bytes + used, FIRST_INODE, BLOCK - used, "lost+found");
    return write_block(fd, l->root, bytes);
}

/* ---- superblock --------------------------------------------------------- */

static int write_super(int fd, const struct layout *l)
{
    uint32_t inodes = l->groups * l->group_inodes;
    uint8_t bytes[BLOCK] = {0};
    uint8_t *p = bytes + SUPER;

    put32(p, inodes);
    put32(p + 4, l->blocks);
    put32(p + 12, l->blocks - l->free);
    put32(p + 16, inodes - FIRST_INODE);
    put32(p + 24, 2); /* log2 of the block size, in KiB */
    put32(p + 28, 2);
    put32(p + 32, GROUP_BLOCKS);
    put32(p + 36, GROUP_BLOCKS);
    put32(p + 40, l->group_inodes);
    put16(p + 54, 0xffff); /* mounts until a check */
    put16(p + 56, MAGIC);
    put16(p + 58, 1); /* clean */
    put16(p + 60, 1); /* goes on after an error: the host counts them */
    put32(p + 76, 1); /* revision */
    put32(p + 84, FIRST_INODE);
    put16(p + 88, INODE);
    put32(p + 92, COMPAT);
    put32(p + 96, INCOMPAT);
    put32(p + 100, RO_COMPAT);
    memcpy(p + 104, UUID, sizeof(UUID));
    memcpy(p + 236, UUID, sizeof(UUID)); /* seed of the hash of names, */
    p[252] = 1;                          /* half MD4 */
    put32(p + 256, 0xc);                 /* user_xattr, acl */
    put16(p + 348, INODE_EXTRA);
    put16(p + 350, INODE_EXTRA);
    put32(p + 352, 1); /* names are hashed as signed bytes */
    p[372] = 8;        /* 256 groups are one flexible group */
    put32(p + 584, l->free - 2);
    return write_block(fd, 0, bytes);
}

int mkfs_ext4(int fd, uint64_t bytes)
{
    struct layout l;
    int ret = 0;

    if (bytes < MKFS_MIN)
        return -EINVAL;
    if (bytes > MKFS_MAX)
        bytes = MKFS_MAX;
    l = lay_out(bytes - bytes % MKFS_CLUSTER);
    for (uint32_t group = 0; ret == 0 && group < l.groups; group++)
        ret = write_bitmaps(fd, &l, group);
    if (ret == 0)
        ret = write_descriptors(fd, &l);
    if (ret == 0)
        ret = write_directories(fd, &l);
    /* It is an ext4 only once the rest of it is there. */
    return ret ? ret : write_super(fd, &l);
}

int mkfs_detect(int fd, uint64_t *ret_bytes)
{
    uint8_t bytes[MKFS_CLUSTER];
    const uint8_t *p = bytes + SUPER;
    ssize_t n = pread(fd, bytes, sizeof(bytes), 0);
    unsigned shift;

    if (n != (ssize_t)sizeof(bytes))
        return n < 0 ? -errno : -EUCLEAN;
    if (bytes[0] == 0 && memcmp(bytes, bytes + 1, sizeof(bytes) - 1) == 0)
        return -ENODATA;
    shift = get32(p + 24);
    if ((p[56] | (uint32_t)p[57] << 8) != MAGIC || shift > 6)
        return -EUCLEAN;
    *ret_bytes = (uint64_t)get32(p + 4) << (10 + shift);
    return 0;
}
