/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's program that writes, erases and writes again, as builds, databases
 * and log rotation do, and reads back from the disk all that it was told is
 * written. Block by block a file's bytes say which file, which turn and which
 * place they are of.
 *
 *     churn FOLDER ALIVE TURNS    at most ALIVE MiB at any time
 *     churn FOLDER full TURNS     until there is no more room, each turn
 *
 * The last line it prints: "no space N, errors N, wrong N of N blocks". A write
 * that says ENOSPC is "no space"; any other failure, of fsync, too, an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 4096u
#define FILES 4096u
#define SMALL 24u /* blocks of a small file, at most */
#define LARGE 2000u

struct file {
    uint32_t turn;   /* when it was written */
    uint32_t blocks; /* that write took */
};

static struct file files[FILES];
static uint64_t state = 88172645463325252u;
static uint64_t no_space, errors, wrong, checked;
static uint64_t alive; /* blocks */

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static void fill(uint64_t block[BLOCK / 8], uint32_t file, uint32_t turn,
                 uint32_t at)
{
    uint64_t x = ((uint64_t)file << 40 | (uint64_t)turn << 24 | at) + 1;

    for (uint32_t i = 0; i < BLOCK / 8; i++)
        block[i] = x = x * 6364136223846793005u + 1442695040888963407u;
}

static void name_of(uint32_t file, char name[32])
{
    snprintf(name, 32, "%u/%u", file % 16, file);
}

static void fault(const char *what, uint32_t file)
{
    errors++;
    printf("%s of file %u: %s\n", what, file, strerror(errno));
}

static void erase(uint32_t file)
{
    char name[32];

    name_of(file, name);
    if (unlink(name) < 0 && errno != ENOENT)
        fault("unlink", file);
    alive -= files[file].blocks;
    files[file].blocks = 0;
}

/* False: there was no room for all of it. */
static bool write_file(uint32_t file, uint32_t turn, uint32_t blocks)
{
    uint64_t block[BLOCK / 8];
    uint32_t at = 0;
    char name[32];
    bool full = false;
    int fd;

    erase(file);
    name_of(file, name);
    fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    for (; fd >= 0 && at < blocks; at++) {
        fill(block, file, turn, at);
        /* Part of a block is none: the file ends before it. */
        if (write(fd, block, BLOCK) != (ssize_t)BLOCK)
            break;
    }
    if (fd < 0 || at < blocks) {
        full = errno == ENOSPC;
        if (full)
            no_space++;
        else
            fault(fd < 0 ? "open" : "write", file);
    }
    files[file] = (struct file){turn, at};
    alive += at;
    if (fd < 0)
        return !full;
    if (turn % 2 && fsync(fd) < 0)
        fault("fsync", file);
    if (close(fd) < 0)
        fault("close", file);
    return !full;
}

static void check_file(uint32_t file)
{
    uint64_t want[BLOCK / 8], got[BLOCK / 8];
    char name[32];
    int fd;

    name_of(file, name);
    fd = open(name, O_RDONLY);
    if (fd < 0) {
        fault("open", file);
        return;
    }
    /* Not from memory: nothing is dirty any more. */
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    for (uint32_t at = 0; at < files[file].blocks; at++, checked++) {
        fill(want, file, files[file].turn, at);
        if (read(fd, got, BLOCK) != (ssize_t)BLOCK)
            fault("read", file);
        else if (memcmp(want, got, BLOCK) != 0)
            wrong++;
    }
    close(fd);
}

/* Small files and large ones, most of which go again: holes of all sizes. */
static void take_turn(uint32_t turn, uint64_t most)
{
    uint32_t file = 0;

    while (file < FILES) {
        bool large = draw(200) == 0;
        uint32_t blocks = 1 + draw(large ? LARGE : SMALL);

        if (alive - files[file].blocks + blocks > most)
            break;
        if (!write_file(file, turn, blocks) && most == UINT64_MAX)
            break;
        file++;
    }
    for (file = 0; file < FILES; file++) {
        if (files[file].blocks > 0 && draw(4) != 0)
            erase(file);
    }
    write_file(FILES - 1, turn,
               most == UINT64_MAX ? UINT32_MAX : (uint32_t)(most - alive));
    sync();
    for (file = 0; file < FILES; file++) {
        if (files[file].blocks > 0)
            check_file(file);
    }
}

int main(int argc, char **argv)
{
    uint64_t most = UINT64_MAX;

    if (argc != 4 || chdir(argv[1]) < 0) {
        fputs("usage: churn FOLDER ALIVE|full TURNS\n", stderr);
        return 2;
    }
    for (uint32_t i = 0; i < 16; i++) {
        char name[32];

        snprintf(name, sizeof(name), "%u", i);
        if (mkdir(name, 0755) < 0 && errno != EEXIST)
            return 2;
    }
    if (strcmp(argv[2], "full") != 0)
        most = strtoull(argv[2], NULL, 10) * (1u << 20) / BLOCK;
    for (uint32_t turn = 1; turn <= strtoul(argv[3], NULL, 10); turn++)
        take_turn(turn, most);
    printf("no space %llu, errors %llu, wrong %llu of %llu blocks\n",
           (unsigned long long)no_space, (unsigned long long)errors,
           (unsigned long long)wrong, (unsigned long long)checked);
    return 0;
}
